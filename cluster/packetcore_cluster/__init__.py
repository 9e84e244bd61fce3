"""The sessions of many workers and machines as one register, over NATS.

`Cluster` is all that an application needs: its `sessions` are given to `serve`, `session.bind(identity)` then
claims the identity everywhere, and `send`, `request` and `broadcast` reach sessions wherever they are connected.
"""

from packetcore_cluster._cluster import Cluster
from packetcore_cluster._codecs import Frames
from packetcore_cluster._errors import (
    BrokerAway,
    IdentityNotConnected,
    IdentityTakenElsewhere,
    NotDelivered,
    SlowConsumer,
)
from packetcore_cluster._events import (
    BrokerLost,
    BrokerReached,
    ClaimLost,
    ClusterEvent,
    Refused,
    Replaced,
    WorkerLeft,
    WorkerLost,
    WorkerSeen,
)
from packetcore_cluster._location import Location
from packetcore_cluster._sessions import ClusterSessions
from packetcore_cluster._stats import ClusterStats

__version__ = "0.1.0"

__all__ = [
    "BrokerAway",
    "BrokerLost",
    "BrokerReached",
    "ClaimLost",
    "Cluster",
    "ClusterEvent",
    "ClusterSessions",
    "ClusterStats",
    "Frames",
    "IdentityNotConnected",
    "IdentityTakenElsewhere",
    "Location",
    "NotDelivered",
    "Refused",
    "Replaced",
    "SlowConsumer",
    "WorkerLeft",
    "WorkerLost",
    "WorkerSeen",
]
