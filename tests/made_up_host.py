"""A made-up socket and a handler that remembers: what tests of the pump stand on.

`packetcore.testing` does for applications what a runtime does: it writes, flushes, ticks and closes as it
should. Here a test gives each input itself, at any time and in any order, and sees which verbs of the
`Host` came of it: that is what the pump, and clients and pools by their own clocks, are tested by.
"""

from __future__ import annotations

from collections.abc import Callable

from packetcore import (
    Address,
    Carrier,
    CloseReason,
    Config,
    Decoder,
    Endpoint,
    Handler,
    Malformed,
    Message,
    Packet,
    Session,
)


class MadeUpHost:
    """A socket that takes everything, or as little as a test wants, and notes each verb."""

    def __init__(self) -> None:
        self.verbs: list[str] = []
        self.written = bytearray()
        self.takes = 1 << 30  # bytes that the operating system takes before it stops
        self.untold = 0
        self.timer: float | None = None
        self.session: Session
        self.now = 100.0

    def write(self, data: bytes) -> int:
        self.verbs.append("write")
        self.written += data
        self.untold += len(data)
        return self.taken()

    def taken(self) -> int:
        taken = min(self.takes, self.untold)
        self.takes -= taken
        self.untold -= taken
        return taken

    def drain(self) -> None:
        if taken := self.taken():
            self.session.sent_bytes(taken, self.now)

    def write_eof(self) -> None:
        self.verbs.append("write_eof")

    def set_timer(self, at: float | None) -> None:
        self.verbs.append("set_timer")
        self.timer = at

    def pause_reading(self) -> None:
        self.verbs.append("pause_reading")

    def resume_reading(self) -> None:
        self.verbs.append("resume_reading")

    def close(self) -> None:
        self.verbs.append("close")

    def abort(self) -> None:
        self.verbs.append("abort")

    def wake(self) -> None:
        self.verbs.append("wake")

    def carrier(self) -> Carrier:
        return Carrier("tcp")

    def packets(self) -> list[Packet | Malformed]:
        return Decoder().feed(bytes(self.written))


class Recorder(Handler):
    """Notes each call, and does what a test hangs on one of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.on: dict[str, Callable[[Session], object]] = {}

    def _note(self, session: Session, *call: object) -> None:
        self.calls.append(call)
        action = self.on.get(str(call[0]))
        if action is not None:
            action(session)

    def connected(self, session: Session) -> None:
        self._note(session, "connected")

    def packet_received(self, session: Session, packet: Packet) -> None:
        self._note(session, "packet", packet)

    def message_received(self, session: Session, message: Message) -> None:
        self._note(session, "message", message)

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self._note(session, "malformed", malformed.reason)

    def sent(self, session: Session, nbytes: int) -> None:
        self._note(session, "sent", nbytes)

    def writable(self, session: Session) -> None:
        self._note(session, "writable")

    def eof_received(self, session: Session) -> None:
        self._note(session, "eof")
        if "eof" not in self.on:
            super().eof_received(session)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._note(session, "disconnected", reason)

    def named(self, name: str) -> list[tuple[object, ...]]:
        return [call for call in self.calls if call[0] == name]


class Rig:
    """An endpoint, a server's unless told otherwise, whose sessions stand on made-up hosts."""

    def __init__(self, config: Config | None = None, *, is_server: bool = True) -> None:
        self.handler = Recorder()
        self.log: list[str] = []
        self.endpoint = Endpoint(self.handler, config, is_server=is_server, log_exception=self.log.append)

    def open(self, peer: str = "192.0.2.1") -> tuple[Session, MadeUpHost]:
        return open_on(self.endpoint, (peer, 5000))


def open_on(endpoint: Endpoint, peer: Address, now: float = 100.0) -> tuple[Session, MadeUpHost]:
    """One more session of an endpoint, on a host of its own."""
    host = MadeUpHost()
    host.now = now
    host.session = endpoint.session_type(endpoint, host, peer, now)
    host.session.opened(now)
    return host.session, host
