"""What a worker tells of the cluster: each is logged, and given to `on_event`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class BrokerReached:
    """The directory is known, at first or again."""

    identities: int
    """How many it has."""

    workers: int
    """How many other workers are in it."""

    repeated: int
    """Claims of sessions here that were not in it, and are made again."""


@dataclass(frozen=True, slots=True)
class BrokerLost:
    """The broker cannot be reached. Sessions go on, and what is sent to those here arrives."""


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """Another worker is there."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """Another worker gave no sign of life for its lease: it counts as dead, and its claims end."""

    worker: str

    identities: int
    """How many it held."""


@dataclass(frozen=True, slots=True)
class WorkerLeft:
    """Another worker has said goodbye, or yet another has taken it for dead and removed its sign of life."""

    worker: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A session here ends with REPLACED: another worker's holds its identity."""

    identity: str | int | bytes
    session: int
    by: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A session here ends with REFUSED: it claimed with takeover "reject" what another worker's holds."""

    identity: str | int | bytes
    session: int
    by: str


@dataclass(frozen=True, slots=True)
class ClaimLost:
    """What a session here holds was not in the directory any more, and nobody else's: it is claimed
    again. So it is when others took this worker for dead, or somebody deleted the key."""

    identity: str | int | bytes
    session: int


ClusterEvent: TypeAlias = (
    BrokerReached | BrokerLost | WorkerSeen | WorkerLost | WorkerLeft | Replaced | Refused | ClaimLost
)
"""All of them."""
