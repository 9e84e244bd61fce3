"""A handler that notes what it hears, for a test on another thread to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from packetcore import AnyPacket, Carrier, CloseReason, Handler, Malformed, Message, Session
from packetcore_conformance.peer import DEADLINE

Action = Callable[..., object]


class Call(NamedTuple):
    """One call of a handler method: whose, which, and with what beside the session."""

    session: int
    name: str
    value: object = None


class Recorder(Handler[Any]):
    """Notes every call; `on` says what to do in it besides.

    Args:
        on: by the name of a handler method, what to call with the session and its value.
            `eof_received` and `draining` close the session unless they are named.
    """

    def __init__(self, **on: Action) -> None:
        self._on = on
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self.sessions: list[Session[Any]] = []

    def act(self, name: str, action: Action) -> None:
        """Say from now on what to do in a method."""
        self._on[name] = action

    def calls(self, name: str | None = None, session: int | None = None) -> list[Call]:
        """The calls so far, of one method and one session if asked."""
        with self._changed:
            return [
                call
                for call in self._calls
                if (name is None or call.name == name) and (session is None or call.session == session)
            ]

    def values(self, name: str, session: int | None = None) -> list[object]:
        """What a method was called with."""
        return [call.value for call in self.calls(name, session)]

    def wait(self, name: str, count: int = 1, timeout: float = DEADLINE) -> list[object]:
        """Wait until a method was called `count` times; give what it was called with."""

        def enough() -> bool:
            return sum(call.name == name for call in self._calls) >= count

        with self._changed:
            if not self._changed.wait_for(enough, timeout):
                seen = [(call.name, call.value) for call in self._calls if call.name != "sent"]
                raise AssertionError(f"{name} was not called {count} times within {timeout} s; heard: {seen[-20:]}")
        return self.values(name)

    def wait_reasons(self, count: int = 1) -> list[CloseReason]:
        """Wait for `count` sessions to end; give why."""
        return [reason for reason in self.wait("disconnected", count) if isinstance(reason, CloseReason)]

    def _note(self, session: Session[Any], name: str, value: object = None) -> bool:
        with self._changed:
            self._calls.append(Call(session.id, name, value))
            self._changed.notify_all()
        action = self._on.get(name)
        if action is None:
            return False
        action(session) if value is None else action(session, value)
        return True

    def connected(self, session: Session[Any]) -> None:
        self.sessions.append(session)
        self._note(session, "connected")

    def packet_received(self, session: Session[Any], packet: object) -> None:
        self._note(session, "packet_received", packet)

    def message_received(self, session: Session[Any], message: Message) -> None:
        self._note(session, "message_received", message)

    def malformed(self, session: Session[Any], malformed: Malformed) -> None:
        self._note(session, "malformed", malformed)

    def sent(self, session: Session[Any], nbytes: int) -> None:
        self._note(session, "sent", nbytes)

    def writable(self, session: Session[Any]) -> None:
        self._note(session, "writable")

    def eof_received(self, session: Session[Any]) -> None:
        if not self._note(session, "eof_received"):
            super().eof_received(session)

    def error_received(self, session: Session[Any], error: OSError) -> None:
        self._note(session, "error_received", error)

    def draining(self, session: Session[Any]) -> None:
        if not self._note(session, "draining"):
            super().draining(session)

    def disconnected(self, session: Session[Any], reason: CloseReason) -> None:
        self._note(session, "disconnected", reason)


def send_back(session: Session[AnyPacket], packet: AnyPacket) -> None:
    """An echo, as what to do on `packet_received`."""
    session.send(packet)


def echo() -> Recorder:
    """A recorder that echoes."""
    return Recorder(packet_received=send_back)


class Seeing(Recorder):
    """Echoes, and notes what a session knows of its peer when it begins."""

    def __init__(self) -> None:
        super().__init__(packet_received=send_back, connected=self._see)
        self.seen: list[tuple[Any, Carrier]] = []

    def _see(self, session: Session) -> None:
        self.seen.append((session.peer, session.carrier))
