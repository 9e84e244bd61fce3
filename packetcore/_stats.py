"""Numbers to watch: plain counters that only go up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

from packetcore._reasons import CloseReason, Reason, Refusal


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

    late_replies: int = 0
    """Replies to requests that had been given up, which were dropped."""

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
    """What has passed through all sessions, those that are over included; and over UDP what was
    malformed or reported of peers that have no session and got none by it."""

    opened: int = 0
    """Sessions whose `connected` was called."""

    refusals: Counter[Refusal] = field(default_factory=Counter)
    """Connections turned away, by what for; for UDP the datagrams of peers without a session."""

    silent: Counter[CloseReason] = field(default_factory=Counter)
    """Those of `closed` from which not a byte had come, as of the probes of a load balancer."""

    closed: Counter[CloseReason] = field(default_factory=Counter)
    """Sessions whose `disconnected` was called, by reason; CONNECT_FAILED counts the tries of a
    client that came to nothing."""

    @property
    def malformed(self) -> Counter[Reason]:
        """Malformed frames and messages by reason: those of `total`."""
        return self.total.malformed

    @property
    def errors(self) -> int:
        """Errors that the system reported of peers (UDP): those of `total`."""
        return self.total.errors

    @property
    def refused(self) -> int:
        """How many were turned away: the sum of `refusals`."""
        return self.refusals.total()
