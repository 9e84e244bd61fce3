"""Numbers to watch: plain counters that only go up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from packetcore._reasons import CloseReason, Reason


@dataclass(slots=True)
class Stats:
    """What has passed through one conversation."""

    packets_received: int = 0
    """Packets decoded, those dropped while closing not counted."""

    bytes_received: int = 0
    """Bytes fed to the decoder."""

    packets_sent: int = 0
    """Packets encoded for sending."""

    bytes_sent: int = 0
    """Their frames' bytes."""

    messages_received: int = 0
    """Messages joined."""

    bytes_discarded: int = 0
    """Bytes that came after this side had closed, or in datagrams while it was paused."""

    packets_discarded: int = 0
    """Packets received and not delivered, because the session was closed first."""

    packets_dropped: int = 0
    """Packets sent in datagrams that the system did not take."""

    errors: int = 0
    """Errors that the system reported of this peer (UDP)."""

    malformed: Counter[Reason] = field(default_factory=Counter)
    """Malformed frames and messages, by reason."""

    def add(self, other: Stats) -> None:
        """Count what another has counted too."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.malformed.update(other.malformed)


_NUMBERS = tuple(field.name for field in fields(Stats) if field.name != "malformed")


@dataclass(slots=True)
class EndpointStats:
    """What a server or a client has seen until now: a copy of the counters."""

    sessions: int = 0
    """Sessions that are open now."""

    outstanding: int = 0
    """Bytes that those have sent and the operating system has not taken yet."""

    total: Stats = field(default_factory=Stats)
    """What has passed through all sessions, those that are over included."""

    opened: int = 0
    """Sessions whose `connected` was called."""

    refused: int = 0
    """Connections turned away at a cap; for UDP the datagrams of peers without a session."""

    malformed: Counter[Reason] = field(default_factory=Counter)
    """What came in datagrams of peers that have no session and got none by it."""

    errors: int = 0
    """Errors that the system reported of peers that have no session."""

    closed: Counter[CloseReason] = field(default_factory=Counter)
    """Sessions whose `disconnected` was called, by reason; CONNECT_FAILED counts the tries of a
    client that came to nothing."""
