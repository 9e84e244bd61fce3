"""Events in the log."""

from __future__ import annotations

import logging

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

logger = logging.getLogger("packetcore.cluster")
"""What happens in the cluster, as this worker sees it: outages and the deaths of others at level WARNING."""


def log_event(worker: str, event: ClusterEvent) -> None:
    """Say what happened."""
    match event:
        case BrokerReached(identities, workers, repeated):
            text = "%s knows the directory: %d identities, %d other workers; %d claims are made again"
            logger.info(text, worker, identities, workers, repeated)
        case BrokerLost():
            logger.warning("%s has lost the broker; its sessions go on", worker)
        case WorkerSeen(other):
            logger.info("%s sees worker %s", worker, other)
        case WorkerLost(other, identities):
            text = "%s takes worker %s for dead, which held %d identities"
            logger.warning(text, worker, other, identities)
        case WorkerLeft(other):
            logger.info("%s sees worker %s leave", worker, other)
        case Replaced(identity, session, by):
            logger.info("%s ends session %d: %r is now held by worker %s", worker, session, identity, by)
        case Refused(identity, session, by):
            logger.info("%s refuses session %d: %r is held by worker %s", worker, session, identity, by)
        case ClaimLost(identity, session):
            text = "%s claims %r for session %d again: somebody deleted it"
            logger.warning(text, worker, identity, session)
