"""`packetcore serve`: a server until a signal ends it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

from packetcore import TLS, CloseReason, Config, Driver, Handler, Malformed, Packet, ServerBase, Session
from packetcore_cli._arguments import refuse_with_udp
from packetcore_cli._drivers import checked, running_driver
from packetcore_cli._failure import Failure, WrongUsage, reason_of
from packetcore_cli._terminal import NobodyReads, Terminal
from packetcore_cli._text import PREVIEW, address_text, counted, malformed_text, packet_text

NOTES_LOGGED = 10
"""Malformed runs and errors of one session that are logged: a hostile peer sends millions."""

_logger = logging.getLogger("packetcore_cli")


class Log(Handler):
    """Logs who comes, who goes, what is malformed and what the system reports."""

    def __init__(self) -> None:
        self._notes: Counter[int] = Counter()

    def connected(self, session: Session) -> None:
        _logger.info("session %d from %s", session.id, address_text(session.peer))

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self._note(session, "malformed", lambda: malformed_text(malformed))

    def error_received(self, session: Session, error: OSError) -> None:
        self._note(session, "error", lambda: reason_of(error))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._notes.pop(session.id, None)
        stats = session.stats
        _logger.info(
            "session %d closed, %s: %s; packets: %d in, %d out; malformed: %d%s",
            *(session.id, reason.name, reason.value),
            *(stats.packets_received, stats.packets_sent, stats.malformed.total()),
            f"; dropped: {stats.packets_dropped}" if stats.packets_dropped else "",
        )

    def _note(self, session: Session, what: str, text: Callable[[], str]) -> None:
        self._notes[session.id] += 1
        if self._notes[session.id] <= NOTES_LOGGED:
            _logger.warning("session %d %s: %s", session.id, what, text())
        elif self._notes[session.id] == NOTES_LOGGED + 1:
            _logger.warning("session %d %s: more, from here on only counted", session.id, what)


class Echo(Log):
    """Sends every packet back."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


class Print(Log):
    """Prints every packet.

    Args:
        out: where to.
        signals: told when nobody reads that any more.
    """

    def __init__(self, out: Terminal, signals: SimpleQueue[int]) -> None:
        super().__init__()
        self._out = out
        self._signals = signals

    def packet_received(self, session: Session, packet: Packet) -> None:
        try:
            self._out.line((f"session {session.id}", "bold"), "  ", packet_text(packet, PREVIEW))
        except (NobodyReads, OSError):
            self._signals.put(0)


class _Impatient(Exception):
    """A second signal came."""


def serve(args: argparse.Namespace, out: Terminal) -> int:
    """Serve until SIGINT or SIGTERM, then drain for `--grace` seconds.

    Returns:
        0; 1 where a second signal cut the draining short.
    """
    refuse_with_udp(args, "--tls-cert", "--tls-key")
    config = _config_of(args)
    tls = _tls_of(args)
    transport = running_driver(args.transport, tls=tls is not None, udp=args.udp)
    try:
        with _log_to_stderr(), _signals() as signals, transport as driver:
            handler = Echo() if args.echo else Print(out, signals)
            server = _listen(driver, handler, args, config, tls)
            out.line("listening on ", (address_text(server.address), "bold"))
            _wait(signals)
            sessions = driver.call(len, server.sessions)
            _logger.info(
                "draining %s for at most %g s; a second signal aborts", counted(sessions, "session"), args.grace
            )
            driver.call(server.close, args.grace, timeout=None)
            _logger.info("stopped after %s%s", counted(server.stats.opened, "session"), _strangers(server))
    except _Impatient:
        return 1
    return 0


def _listen(driver: Driver, handler: Handler, args: argparse.Namespace, config: Config, tls: TLS | None) -> ServerBase:
    try:
        if args.udp:
            return driver.start_udp_server(handler, args.host, args.port, config=config)
        return driver.start_server(handler, args.host, args.port, config=config, tls=tls)
    except (OSError, ValueError) as error:
        where = address_text((args.host, args.port))
        raise Failure(f"cannot listen on {where}: {reason_of(error)}") from None


def _strangers(server: ServerBase) -> str:
    """What came of those who got no session."""
    stats = server.stats
    told = (("refused", stats.refused), ("malformed", stats.malformed.total()), ("errors", stats.errors))
    return "".join(f"; {what} without one: {number}" for what, number in told if number)


def _config_of(args: argparse.Namespace) -> Config:
    try:
        return Config(
            max_payload=args.max_payload,
            idle_timeout=args.idle_timeout or None,
            frame_timeout=args.frame_timeout or None,
            max_sessions=args.max_sessions,
            # Only what was received is ever sent, and nothing is read from a peer that does
            # not read: no cap is needed, and one could refuse the longest packets.
            max_outstanding=None,
        )
    except ValueError as error:
        raise Failure(str(error)) from None


def _tls_of(args: argparse.Namespace) -> TLS | None:
    if args.tls_cert is not None:
        return checked(TLS(certificate=args.tls_cert, key=args.tls_key), server_side=True)
    if args.tls_key is not None:
        raise WrongUsage("--tls-key needs --tls-cert (see packetcore serve --help)")
    return None


def _wait(signals: SimpleQueue[int]) -> None:
    while True:
        with suppress(Empty):
            signals.get(timeout=1.0)  # without a timeout Windows would not deliver signals
            return


@contextmanager
def _signals() -> Iterator[SimpleQueue[int]]:
    """Put the first SIGINT or SIGTERM into a queue, and raise `_Impatient` at the next."""
    signals: SimpleQueue[int] = SimpleQueue()
    seen: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise _Impatient
        signals.put(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _LogLines(logging.Handler):
    """Log records as lines: the time, the message, and of an exception its last line."""

    def __init__(self, out: Terminal) -> None:
        super().__init__()
        self._out = out
        self._clock = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            message += f": {type(error).__name__}: {error}"
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else ""
        with suppress(NobodyReads, OSError):  # nobody reads standard error: serve on
            self._out.line(
                (self._clock.formatTime(record, "%H:%M:%S"), "dim"), "  ", (" ".join(message.splitlines()), style)
            )


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    root = logging.getLogger()
    handler = _LogLines(Terminal(sys.stderr))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
