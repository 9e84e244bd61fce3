"""`packetcore send`: one packet to a server, and what it replies."""

from __future__ import annotations

import argparse
from contextlib import suppress
from queue import Empty, SimpleQueue

from packetcore import (
    TLS,
    CloseReason,
    Config,
    Driver,
    Handler,
    LocalProtocolError,
    Malformed,
    Packet,
    Session,
    encode,
)
from packetcore_cli._arguments import packet_of
from packetcore_cli._drivers import checked, running_driver
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, malformed_text, packet_text

CLOSE_TIMEOUT = 1.0
"""Seconds that a server gets to close in turn, once all it was asked for has come."""

Happening = Packet | Malformed | CloseReason | int
"""What the runtime's thread reports; an `int` is a number of bytes that have gone out."""


class Reporter(Handler):
    """Puts what happens into a queue, for the main thread to take."""

    def __init__(self) -> None:
        self.happenings: SimpleQueue[Happening] = SimpleQueue()

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.happenings.put(packet)

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self.happenings.put(malformed)

    def sent(self, session: Session, nbytes: int) -> None:
        self.happenings.put(nbytes)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.happenings.put(reason)


def send(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Send the packet and print replies, until `--replies` of them came, the peer closed or
    nothing happened for `--timeout` seconds."""
    packet = packet_of(args)
    if args.replies < 0:
        raise Failure(f"replies={args.replies} must be at least 0")
    try:
        config = Config(
            max_payload=args.max_payload,
            idle_timeout=None,  # how long to wait is decided here
            frame_timeout=None,
            close_timeout=CLOSE_TIMEOUT,
            max_outstanding=None,
        )
    except ValueError as error:
        raise Failure(str(error)) from None
    if len(packet.payload) > config.max_payload:
        raise Failure(f"payload of {len(packet.payload)} bytes exceeds max_payload={config.max_payload}")
    tls = checked(TLS(authority=args.tls_ca), server_side=False) if args.tls or args.tls_ca else None
    with running_driver(args.transport, tls=tls is not None, udp=args.udp) as driver:
        reporter = Reporter()
        session = _connect(driver, reporter, args, config, tls)
        try:
            driver.call(session.send, packet)
            if _receive(reporter.happenings, len(encode(packet)), args.replies, args.timeout or None, out, err):
                driver.call(session.close)
                _await_end(reporter.happenings)
        except LocalProtocolError as error:
            raise Failure(f"cannot send: {error}") from None
        finally:
            driver.call(session.abort)
    return 0


def _connect(driver: Driver, handler: Handler, args: argparse.Namespace, config: Config, tls: TLS | None) -> Session:
    try:
        session: Session = driver.connect(args.server, args.port, handler, config=config, tls=tls)
    except (OSError, ValueError) as error:
        where = address_text((args.server, args.port))
        raise Failure(f"cannot connect to {where}: {reason_of(error)}") from None
    return session


def _receive(
    happenings: SimpleQueue[Happening],
    unsent: int,
    wanted: int,
    timeout: float | None,
    out: Terminal,
    err: Terminal,
) -> bool:
    """Print replies until there is nothing more to wait for. Whether the peer is still there."""
    replies = 0
    while unsent > 0 or replies < wanted:
        try:
            happening = happenings.get(timeout=timeout)
        except Empty:
            if unsent > 0:
                raise Failure(f"the peer left {unsent} bytes of the packet unread for {timeout:g} s") from None
            err.line(f"packetcore: {_counted(replies, wanted)} within {timeout:g} s")
            return True
        match happening:
            case Packet():
                replies += 1
                out.line(packet_text(happening))
            case Malformed():
                err.line(f"packetcore: malformed reply: {malformed_text(happening)}")
            case CloseReason.PEER if unsent <= 0:
                err.line(f"packetcore: {_counted(replies, wanted)} before the peer closed")
                return False
            case CloseReason():
                raise Failure(f"the connection ended, {happening.name}: {happening.value}")
            case int():
                unsent -= happening
    return True


def _counted(replies: int, wanted: int) -> str:
    return f"{replies} of {wanted} replies" if replies else "no reply"


def _await_end(happenings: SimpleQueue[Happening]) -> None:
    with suppress(Empty):
        while not isinstance(happenings.get(timeout=2 * CLOSE_TIMEOUT), CloseReason):
            pass
