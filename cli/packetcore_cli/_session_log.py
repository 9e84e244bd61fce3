"""What `packetcore serve` logs of sessions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from packetcore import CloseReason, Handler, Malformed, Session
from packetcore_cli._failure import reason_of
from packetcore_cli._log import Value, log_event
from packetcore_cli._text import Content, address_text, malformed_text

NOTES_LOGGED = 10
"""Malformed runs and errors of one session that are logged: a hostile peer sends millions."""

_OF_A_PROBE = frozenset({CloseReason.PEER, CloseReason.RESET})
"""How the session of one ends that connects to see whether somebody is there."""


class Log(Handler[Content]):
    """Logs who comes, who goes, what is malformed and what the system reports.

    That a session has opened is told with the first that comes of it. One of which nothing ever
    comes is one line at its end, and that at level DEBUG if the peer itself has gone: load
    balancers connect and close all day to see whether somebody listens.
    """

    def __init__(self) -> None:
        self._told: set[int] = set()
        self._notes: Counter[int] = Counter()

    def packet_received(self, session: Session[Content], packet: Content) -> None:
        if session.id not in self._told:
            self._tell(session)

    def malformed(self, session: Session[Content], malformed: Malformed) -> None:
        self._note(
            session,
            "malformed",
            lambda: malformed_text(malformed),
            reason=malformed.reason.name,
            size=malformed.size,
            sample=malformed.sample.hex(),
        )

    def error_received(self, session: Session[Content], error: OSError) -> None:
        self._note(session, "error", lambda: reason_of(error), error=reason_of(error))

    def disconnected(self, session: Session[Content], reason: CloseReason) -> None:
        stats = session.stats
        if stats.bytes_received:
            self._tell(session)
        elif session.id not in self._told:
            text = f"session {session.id} from {address_text(session.peer)} closed without a byte, {reason.name}"
            level = logging.DEBUG if reason in _OF_A_PROBE else logging.INFO
            log_event("silent", text, level, session=session, reason=reason.name)
            return
        self._told.discard(session.id)
        self._notes.pop(session.id, None)
        counted = f"packets: {stats.packets_received} in, {stats.packets_sent} out"
        dropped = f"; dropped: {stats.packets_dropped}" if stats.packets_dropped else ""
        log_event(
            "closed",
            f"session {session.id} closed, {reason.name}: {reason.value}; {counted}; "
            f"malformed: {stats.malformed.total()}{dropped}",
            session=session,
            reason=reason.name,
            packets_received=stats.packets_received,
            packets_sent=stats.packets_sent,
            bytes_received=stats.bytes_received,
            bytes_sent=stats.bytes_sent,
            malformed=stats.malformed.total(),
            dropped=stats.packets_dropped,
        )

    def _tell(self, session: Session[Content]) -> None:
        if session.id not in self._told:
            self._told.add(session.id)
            log_event("opened", f"session {session.id} from {address_text(session.peer)}", session=session)

    def _note(self, session: Session[Content], event: str, text: Callable[[], str], **fields: Value) -> None:
        self._tell(session)
        self._notes[session.id] += 1
        about = f"session {session.id} {event}: "
        if self._notes[session.id] <= NOTES_LOGGED:
            log_event(event, about + text(), logging.WARNING, session=session, **fields)
        elif self._notes[session.id] == NOTES_LOGGED + 1:
            rest = "more, from here on only counted"
            log_event("muted", about + rest, logging.WARNING, session=session, after=NOTES_LOGGED)
