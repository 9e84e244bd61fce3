"""What the scenes of `packetcore demo` are made of.

Every scene waits for what a real server reports and shows that. Nothing is printed because
it ought to have happened.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from packetcore import CloseReason, Driver, Handler, Malformed, Packet, Reason, ServerBase, Session
from packetcore_cli._failure import Failure
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import bytes_text, counted, malformed_text, packet_text

PATIENCE = 10.0
"""Seconds to wait for what takes milliseconds on an idle machine."""

INDENT = "   "

T = TypeVar("T")


class Witness(Handler):
    """Reports what the server sees, and binds each session to the id of its first packet."""

    def __init__(self) -> None:
        self._seen: SimpleQueue[tuple[Session, object]] = SimpleQueue()

    def connected(self, session: Session) -> None:
        self._seen.put((session, session))

    def packet_received(self, session: Session, packet: Packet) -> None:
        if session.identity is None:
            session.bind(packet.id)
        self._seen.put((session, packet))

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self._seen.put((session, malformed))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._seen.put((session, reason))

    def saw(self, within: float) -> tuple[Session, object] | None:
        """What the server saw next, and of which session; `None` for nothing in that time."""
        try:
            return self._seen.get(timeout=within)
        except Empty:
            return None

    def expect(self, kind: type[T]) -> tuple[Session, T]:
        """What the server saw next, which must be a `kind`.

        Raises:
            Failure: it was something else, or nothing came in time.
        """
        seen = self.saw(PATIENCE)
        if seen is None:
            raise Failure(f"demo: the server saw no {kind.__name__} within {PATIENCE:g} s")
        session, thing = seen
        if not isinstance(thing, kind):
            raise Failure(f"demo: the server saw {thing!r} where a {kind.__name__} was due")
        return session, thing


class Stage:
    """Where scenes are shown.

    Args:
        driver: the runtime that the servers run on.
        out: where to show them.
    """

    def __init__(self, driver: Driver, out: Terminal) -> None:
        self.driver = driver
        self.out = out
        self._scenes = 0

    def scene(self, title: str, *sentences: str) -> None:
        """Begin the next scene."""
        self._scenes += 1
        self.out.line()
        self.out.line((f"{self._scenes}. {title}", "bold cyan"))
        for sentence in sentences:
            self.out.line(INDENT, sentence)
        self.out.line()

    def say(self, label: str, text: str, style: str = "") -> None:
        """Show one thing that happened."""
        self.out.line(INDENT, (f"{label:<9}", style or "dim"), "  ", text)

    @contextmanager
    def serving(self, start: Callable[..., ServerBase], witness: Witness, **options: Any) -> Iterator[ServerBase]:
        """A server that the witness watches, of the driver's `start_server` or `start_udp_server`."""
        server = start(witness, **options)
        try:
            yield server
        finally:
            self.driver.call(server.close, 0)

    def send(self, device: socket.socket, *parts: bytes) -> None:
        """Send the parts in one write, and show each on a line."""
        device.sendall(b"".join(parts))
        for place, part in enumerate(parts):
            self.say("" if place else "sent", bytes_text(part))

    def packet(self, witness: Witness, packet: Packet) -> Session:
        """The server must see this packet next; of which session it was."""
        session, received = witness.expect(Packet)
        if received != packet:
            raise Failure(f"demo: the server received {received!r} instead of {packet!r}")
        self.say("packet", packet_text(received), "green")
        return session

    def malformed(self, witness: Witness, reason: Reason) -> None:
        """The server must name something malformed next, for this reason."""
        _, malformed = witness.expect(Malformed)
        if malformed.reason is not reason:
            raise Failure(f"demo: the server named {malformed.reason.name} what is {reason.name}")
        self.say("malformed", malformed_text(malformed), "red")
        self.say("", malformed.reason.value)

    def closed(self, witness: Witness, label: str = "closed") -> None:
        """A session must end next."""
        session, reason = witness.expect(CloseReason)
        self.say(label, end_text(session, reason))

    def count(self, server: ServerBase) -> None:
        """Show how many sessions there are."""
        self.say("count", counted(self.driver.call(len, server.sessions), "session"))

    def find(self, server: ServerBase, *identities: int) -> None:
        """Show which session each device has."""
        found = ((identity, self.driver.call(server.sessions.find, identity)) for identity in identities)
        self.say("find", ", ".join(f"device {identity} is {_named(session)}" for identity, session in found))

    def await_bytes(self, session: Session, count: int) -> None:
        """Wait until the server has so many bytes of this session."""
        give_up = time.monotonic() + PATIENCE
        while self.driver.call(lambda: session.stats.bytes_received) < count:
            if time.monotonic() > give_up:
                raise Failure(f"demo: the server did not receive {count} bytes within {PATIENCE:g} s")
            time.sleep(0.001)


def end_text(session: Session, reason: CloseReason) -> str:
    """That a session is over, and why."""
    return f"session {session.id}, {reason.name}: {reason.value}"


def _named(session: Session | None) -> str:
    return "nobody" if session is None else f"session {session.id}"
