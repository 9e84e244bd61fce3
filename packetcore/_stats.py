"""Numbers to watch: plain counters that only go up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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


@dataclass(slots=True)
class EndpointStats:
    """What a server or a client has seen. Live: read it, do not write it."""

    opened: int = 0
    """Sessions whose `connected` was called."""

    refused: int = 0
    """Connections turned away at a cap; for UDP the datagrams of peers without a session."""

    malformed: Counter[Reason] = field(default_factory=Counter)
    """What came in datagrams of peers that have no session and got none by it."""

    errors: int = 0
    """Errors that the system reported of peers that have no session."""

    closed: Counter[CloseReason] = field(default_factory=Counter)
    """Sessions whose `disconnected` was called, by reason."""
