"""Serial lines on the command line: `packetcore serve --serial`, and what `send --serial` needs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from packetcore import Config, Driver, Handler, Session
from packetcore_cli._drivers import running_driver
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._framings import check_limit, framing_options
from packetcore_cli._record import recorded
from packetcore_cli._running import running
from packetcore_cli._serve import app_of, application_of, config_of, log_stopped
from packetcore_cli._signals import HEARING, next_signal
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import Content
from packetcore_cli._usage import need, refuse, refuse_beside

BAUDRATE = 115200
"""Bits a second, unless told otherwise."""

_OF_NETWORKS = (
    *("--host", "--port", "--fd", "--udp", "--broadcast", "--proxy-protocol", "--workers", "--console"),
    *("--tls-cert", "--tls-key", "--tls-sni", "--tls-client-ca", "--tls-crl", "--tls", "--tls-ca"),
    *("--metrics-port", "--metrics-host"),
)


class Replaces(argparse.Action):
    """An option with which some positional arguments are not needed.

    Args:
        replaced: those.
    """

    def __init__(self, *args: Any, replaced: Sequence[argparse.Action], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._replaced = replaced

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        for action in self._replaced:
            action.required = False


def check_serial(args: argparse.Namespace) -> None:
    """See that with `--serial` nothing is asked for that only networks have, nor a speed without it.

    Raises:
        WrongUsage: there is.
    """
    need(args, "--serial", "--baudrate")
    if args.serial is not None and getattr(args, "server", None) is not None:
        refuse(args, "--serial", "not allowed with HOST and PORT")
    refuse_beside(args, "--serial", *_OF_NETWORKS)


def open_line(driver: Driver, args: argparse.Namespace, handler: Handler[Content], config: Config) -> Session[Content]:
    """Open the line of `--serial`.

    Raises:
        Failure: it cannot be opened.
    """
    options = framing_options(args.framing)
    try:
        session: Session[Content] = driver.connect_serial(
            args.serial, handler, config=config, baudrate=_baudrate(args), **options
        )
    except (OSError, ValueError) as error:
        raise Failure(f"cannot open {args.serial!r}: {reason_of(error)}") from None
    return session


def serve_serial(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Print, or send back, what comes on a line, until a signal or the line ends it, or nobody reads what
    is printed.

    Returns:
        0; 1 where a second signal cut the end short.

    Raises:
        Failure: the line cannot be opened, or has ended by itself.
        NobodyReads: the other end of standard output was closed.
        OSError: standard output could not be written.
    """
    check_limit(args.framing, args.max_payload)
    config = replace(config_of(args), idle_timeout=args.idle_timeout or None, close_timeout=args.grace or None)
    app = app_of(args, err)
    transport = running_driver(args.transport, serial=True, framing=args.framing is not None)
    with (
        running(out, err, args.log, verbose=args.verbose, sessions=app is not None) as command,
        recorded(args, config) as config,
        transport as driver,
        ExitStack() as beside,
    ):
        handler, sessions = application_of(app, driver, args, command.printed, beside)
        if sessions is not None:
            raise Failure(f"--app {args.app!r}: a serial line has no register of sessions")
        if not isinstance(handler, Handler):
            raise Failure(f"--app {args.app!r}: a serial line needs a packetcore.Handler, no function")
        session = open_line(driver, args, handler, config)
        command.printed.put("listening on ", (args.serial, "bold"), f" at {_baudrate(args)} baud")
        next_signal(command.signals, lambda: session.is_over)
        ended_by_itself = session.is_over
        driver.call(session.close if args.grace else session.abort)
        while not session.is_over:  # in the end `close_timeout` does
            time.sleep(HEARING / 10)
        log_stopped(session.endpoint.stats)
    if command.code == 0 and ended_by_itself and (reason := session.close_reason) is not None:
        raise Failure(f"the line ended, {reason.name}: {reason.value}")
    return command.code


def _baudrate(args: argparse.Namespace) -> int:
    return BAUDRATE if args.baudrate is None else int(args.baudrate)
