"""`packetcore send`: one packet or frame to a server, and what it replies."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

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
from packetcore.framings import Framing
from packetcore_cli._arguments import packet_of, payload_of
from packetcore_cli._drivers import running_driver
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._framings import FRAMED, check_limit, framing_options
from packetcore_cli._serial import open_line
from packetcore_cli._terminal import Cell, Terminal
from packetcore_cli._text import Content, address_text, content_text, malformed_text
from packetcore_cli._tls import client_tls
from packetcore_cli._usage import need, refuse_beside

CLOSE_TIMEOUT = 1.0
"""Seconds that a server gets to close in turn, once all it was asked for has come."""

Happening = Content | Malformed | CloseReason | OSError | int
"""What the runtime's thread reports; an `int` is a number of bytes that have gone out."""


class Reporter(Handler[Content]):
    """Puts what happens into a queue, for the main thread to take."""

    def __init__(self) -> None:
        self.sessions: list[Session[Content]] = []
        """The one that was asked for, and over UDP one for each other that replied."""
        self.happenings: SimpleQueue[tuple[Session[Content], Happening]] = SimpleQueue()

    def connected(self, session: Session[Content]) -> None:
        self.sessions.append(session)

    def packet_received(self, session: Session[Content], packet: Content) -> None:
        self.happenings.put((session, packet))

    def malformed(self, session: Session[Content], malformed: Malformed) -> None:
        self.happenings.put((session, malformed))

    def error_received(self, session: Session[Content], error: OSError) -> None:
        self.happenings.put((session, error))

    def sent(self, session: Session[Content], nbytes: int) -> None:
        self.happenings.put((session, nbytes))

    def disconnected(self, session: Session[Content], reason: CloseReason) -> None:
        self.happenings.put((session, reason))


def send(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Send the packet or frame and print replies, until `--replies` of them came, the peer closed or
    nothing happened for `--timeout` seconds."""
    refuse_beside(args, "--udp", "--tls", "--tls-ca")
    need(args, "--udp", "--broadcast")
    refuse_beside(args, "--framing", "--id", "--type", "--count", why=FRAMED)
    packet = packet_of(args) if args.framing is None else payload_of(args)
    if args.replies < 0:
        raise Failure(f"replies={args.replies} must be at least 0")
    check_limit(args.framing, args.max_payload)
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
    sent = _encoded(packet, args.framing, config.max_payload)
    tls = client_tls(args)
    needed = {"tls": tls is not None, "udp": args.udp, "serial": args.serial is not None}
    transport = running_driver(args.transport, framing=args.framing is not None, **needed)
    with transport as driver:
        reporter = Reporter()
        session = _connect(driver, reporter, args, config, tls)
        try:
            driver.call(session.send, packet)
            if _receive(reporter.happenings, session, len(sent), args, out, err):
                driver.call(session.close)
                _await_end(reporter.happenings, session)
        except LocalProtocolError as error:
            raise Failure(f"cannot send: {error}") from None
        finally:
            for each in reporter.sessions:
                driver.call(each.abort)
    return 0


def _encoded(packet: Content, framing: Framing | None, max_payload: int) -> bytes:
    """What is going to be sent, or a `Failure`: it is too long, or cannot be framed."""
    what, payload = ("frame", packet) if isinstance(packet, bytes) else ("payload", packet.payload)
    if len(payload) > max_payload:
        raise Failure(f"{what} of {len(payload)} bytes exceeds max_payload={max_payload}")
    to_bytes: Callable[[Any], bytes] = encode if framing is None else framing.encode
    try:
        return to_bytes(packet)
    except ValueError as error:
        raise Failure(f"cannot send: {error}") from None


def _connect(
    driver: Driver, handler: Handler[Content], args: argparse.Namespace, config: Config, tls: TLS | None
) -> Session[Content]:
    if args.serial is not None:
        return open_line(driver, args, handler, config)
    host, port = args.server, args.port
    options = framing_options(args.framing)
    session: Session[Content]
    try:
        if args.udp:
            session = driver.connect_udp(host, port, handler, config=config, broadcast=args.broadcast, **options)
        else:
            session = driver.connect(host, port, handler, config=config, tls=tls, **options)
    except (OSError, ValueError) as error:
        verb = "send" if args.udp else "connect"
        hint = "; a broadcast address needs --broadcast" if args.udp and isinstance(error, PermissionError) else ""
        raise Failure(f"cannot {verb} to {address_text((host, port))}: {reason_of(error)}{hint}") from None
    return session


def _receive(
    happenings: SimpleQueue[tuple[Session[Content], Happening]],
    session: Session[Content],
    unsent: int,
    args: argparse.Namespace,
    out: Terminal,
    err: Terminal,
) -> bool:
    """Print replies until there is nothing more to wait for. Whether the peer is still there."""
    wanted: int = args.replies
    timeout: float | None = args.timeout or None
    replies = 0
    while unsent > 0 or replies < wanted:
        try:
            whose, happening = happenings.get(timeout=timeout)
        except Empty:
            if unsent > 0:
                if args.udp:
                    raise Failure("the system had no room for the datagram") from None
                raise Failure(f"the peer left {unsent} bytes of the packet unread for {timeout:g} s") from None
            err.line(f"packetcore: {_counted(replies, wanted)} within {timeout:g} s")
            return True
        match happening:
            case Packet() | bytes():
                replies += 1
                out.line(*_sender(whose, session), content_text(happening))
            case Malformed():
                err.line("packetcore: malformed reply: ", *_sender(whose, session), malformed_text(happening))
            case OSError():
                raise Failure(f"cannot send to {address_text(session.peer)}: {reason_of(happening)}")
            case CloseReason.PEER if unsent <= 0:
                err.line(f"packetcore: {_counted(replies, wanted)} before the peer closed")
                return False
            case CloseReason():
                raise Failure(f"the connection ended, {happening.name}: {happening.value}")
            case int():
                unsent -= happening
    return True


def _sender(whose: Session[Content], session: Session[Content]) -> list[Cell]:
    """Who replied, where that is not who was asked: to a broadcast anyone may reply."""
    return [] if whose is session else [(address_text(whose.peer), "bold"), "  "]


def _counted(replies: int, wanted: int) -> str:
    return f"{replies} of {wanted} replies" if replies else "no reply"


def _await_end(happenings: SimpleQueue[tuple[Session[Content], Happening]], session: Session[Content]) -> None:
    with suppress(Empty):
        while True:
            whose, happening = happenings.get(timeout=2 * CLOSE_TIMEOUT)
            if whose is session and isinstance(happening, CloseReason):
                return
