"""The certificates of `packetcore serve`, read again at SIGHUP."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from packetcore import Driver, ServerBase
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._log import log_event
from packetcore_cli._tls import server_tls
from packetcore_sockets import Notifier


def reload(driver: Driver, server: ServerBase[Any], args: argparse.Namespace, notifier: Notifier) -> None:
    """Read the files again, for sessions that begin from now on, and log what came of it: where one is
    not good all stays as it was. Never raises."""
    notifier.reloading()
    try:
        if (tls := server_tls(args)) is None:
            log_event("reloaded", "SIGHUP: nothing to reload, since this server speaks no TLS")
            return
        driver.reload_tls(server, tls)
    except Exception as error:
        reason = str(error) if isinstance(error, Failure) else reason_of(error)
        log_event(
            "not_reloaded", f"TLS not reloaded, the old certificate stays: {reason}", logging.WARNING, reason=reason
        )
    else:
        log_event("reloaded", f"TLS reloaded: new sessions get what is in {args.tls_cert!r}", certificate=args.tls_cert)
    finally:
        notifier.ready()
