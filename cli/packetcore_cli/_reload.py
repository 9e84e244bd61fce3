"""The certificates of `packetcore serve`: from files when it starts, and again at SIGHUP."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from packetcore import TLS, Driver, ServerBase
from packetcore_cli._drivers import checked
from packetcore_cli._failure import Failure, WrongUsage, reason_of
from packetcore_cli._log import log_event
from packetcore_sockets import Notifier

TLS_OPTIONS = ("--tls-cert", "--tls-key", "--tls-sni", "--tls-client-ca", "--tls-crl")
"""All that say how to speak TLS."""

_NEEDS = {
    "--tls-key": "--tls-cert",
    "--tls-sni": "--tls-cert",
    "--tls-client-ca": "--tls-cert",
    "--tls-crl": "--tls-client-ca",
}


def tls_of(args: argparse.Namespace) -> TLS | None:
    """What the options say, the files found to be good; `None` for no TLS.

    Raises:
        Failure: a file is not; the message names it.
        WrongUsage: an option is there without the one that it needs.
    """

    def given(option: str) -> Any:
        return getattr(args, option.lstrip("-").replace("-", "_"))

    for option, needed in _NEEDS.items():
        if given(option) is not None and given(needed) is None:
            raise WrongUsage(f"{option} needs {needed} (see packetcore serve --help)")
    if args.tls_cert is None:
        return None
    names = {host: (certificate, key) for host, certificate, key in args.tls_sni or ()}
    tls = TLS(certificate=args.tls_cert, key=args.tls_key, authority=args.tls_client_ca, crl=args.tls_crl, names=names)
    return checked(tls, server_side=True)


def reload(driver: Driver, server: ServerBase[Any], args: argparse.Namespace, notifier: Notifier) -> None:
    """Read the files again, for sessions that begin from now on, and log what came of it: where one is
    not good all stays as it was. Never raises."""
    notifier.reloading()
    try:
        if (tls := tls_of(args)) is None:
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
