"""Numbers to watch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ClusterStats:
    """What a worker has seen of the cluster until now: a copy of the counters."""

    is_connected: bool = False
    """Whether the broker can be reached."""

    workers: int = 0
    """Other workers that live."""

    identities: int = 0
    """Identities in the copy of the directory."""

    claims: int = 0
    """Of these, how many sessions here hold."""

    pending: int = 0
    """Of those, how many the broker has not taken."""

    sent: int = 0
    """Packets handed over to other workers."""

    received: int = 0
    """Packets from other workers handed to sessions here."""

    not_connected: int = 0
    """Sends and requests for identities that nobody held, or whose worker could not be reached."""

    slow: int = 0
    """Packets refused with `SlowConsumer`, and casts kept from sessions that do not keep up, here."""

    undecodable: int = 0
    """Messages through the broker that no worker of this codec has sent."""

    dropped: int = 0
    """Messages from the broker that came while too many waited for this worker's loop."""

    outages: int = 0
    """How often the broker was lost."""

    replaced: int = 0
    """Sessions here that ended because another worker's took over."""

    refused: int = 0
    """Sessions here that ended because another worker's held what they claimed with takeover "reject"."""
