"""The sessions' side of a worker: their register, packets for them, their groups. It is used on the thread of
the sessions alone, or with their lock, and knows neither broker nor directory, which are the node's.

What it tells the node may arrive later, and so may what the node tells it. Three things keep that from harm: all
arrives in the order in which it was told; a claim that is known to be in vain is refused at once, by what the node
knew a moment ago; and each claim has a number, so that an ending that was decided before the node had heard of a
session's latest claim ends nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, Protocol

from packetcore import CloseReason, LocalProtocolError, PacketCodec, Session
from packetcore_cluster._calls import Call
from packetcore_cluster._delivery import Delivery, IsReply
from packetcore_cluster._events import ClusterEvent
from packetcore_cluster._groups import Groups
from packetcore_cluster._keys import key_of
from packetcore_cluster._log import logger
from packetcore_cluster._operations import Ending, Takeover
from packetcore_cluster._sessions import ClusterSessions
from packetcore_cluster._stats import ClusterStats


class Node(Protocol):
    """The broker's side. All but `check` may be carried out later, in order, on its own thread."""

    def check(self, key: str, takeover: Takeover, /) -> None:
        """See `Claims.check`. Called on the thread of the sessions."""

    def claim(self, number: int, key: str, session: int, since: float, takeover: Takeover, /) -> None:
        """A session holds an identity from now on, by the claim of this number."""

    def release(self, key: str, session: int, /) -> None:
        """It does not any more."""

    def listen(self, groups: set[str], /) -> None:
        """Which groups have sessions here."""

    def answer(self, subject: str, data: bytes, /) -> None:
        """Answer to a call."""


class Home:
    """See above; the `Claims` of its own register.

    Args:
        name: of the cluster.
        codec: how packets travel.
        is_reply: see `Delivery`.
        on_event: see `Cluster`.
        limits: see `ClusterSessions`.
    """

    node: Node
    tell: Callable[..., object]
    """Have the node carry out one of its methods, with these arguments."""

    def __init__(
        self,
        name: str,
        codec: PacketCodec[Any],
        is_reply: IsReply | None,
        on_event: Callable[[ClusterEvent], object] | None,
        **limits: Any,
    ) -> None:
        self.stats = ClusterStats()
        """What is counted on this side."""
        self.sessions = ClusterSessions(self, **limits)
        self.codec = codec
        self.delivery = Delivery(self.sessions, codec, is_reply, self.stats)
        self._name = name
        self._on_event = on_event
        self._groups = Groups()
        self._thread: int | None = None
        self._pid = 0
        self._claims = 0
        self._claimed: dict[int, int] = {}  # the number of each session's latest claim

    def open(self, thread: int) -> None:
        """Sessions may bind from now on, in this process.

        Args:
            thread: on which alone, or 0 where those know themselves.
        """
        self._thread, self._pid = thread, os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is the process that entered the cluster, and not a child that was forked."""
        return self._pid == os.getpid()

    def verify(self, what: str) -> None:
        """See that this is where it may be used.

        Raises:
            LocalProtocolError: it is not.
        """
        if self._thread is None:
            raise LocalProtocolError(f"{what}: the cluster {self._name!r} was not entered yet")
        if not self.is_here:
            where = f"by process {self._pid}, and this is its child: make another Cluster here"
            raise LocalProtocolError(f"{what}: the cluster {self._name!r} was entered {where}")
        if self._thread and self._thread != get_ident():
            raise LocalProtocolError(f"{what}: the cluster {self._name!r} is on the loop of another thread")

    # What sessions claim.

    def check(self, key: str, takeover: Takeover, /) -> None:
        """See `Claims`."""
        self.verify("bind")
        self.node.check(key, takeover)

    def claim(self, key: str, session: int, takeover: Takeover, /) -> None:
        """See `Claims`."""
        self._claims += 1
        self._claimed[session] = self._claims
        self.tell(self.node.claim, self._claims, key, session, time.time(), takeover)

    def release(self, key: str, session: int, /) -> None:
        """See `Claims`."""
        self.tell(self.node.release, key, session)

    def left(self, session: int, /) -> None:
        """See `Claims`."""
        self._claimed.pop(session, None)
        if self._groups.left(session):
            self._listen()

    # Groups.

    def join(self, session: Session[Any], group: str) -> None:
        """See `Cluster.join`."""
        self.verify("join")
        if self.sessions.get(session.id) is not session:
            raise LocalProtocolError(f"session {session.id} is not in the register of the cluster {self._name!r} here")
        if self._groups.join(session.id, group):
            self._listen()

    def leave(self, session: Session[Any], group: str) -> None:
        """See `Cluster.leave`."""
        self.verify("leave")
        if self._groups.leave(session.id, group):
            self._listen()

    def members(self, group: str | None) -> list[Session[Any]]:
        """The sessions of a group; of `None` all."""
        if group is None:
            return [*self.sessions]
        found = [self.sessions.get(id) for id in self._groups.members(group)]
        return [session for session in found if session is not None]

    def _listen(self) -> None:
        self.tell(self.node.listen, self._groups.names())

    # What the node tells.

    def end(self, ending: Ending, heard: int) -> None:
        """A session has lost its identity.

        Args:
            ending: which, and how.
            heard: the number of the last claim that the node had heard of.
        """
        session = self.sessions.get(ending.session)
        if session is None or self._claimed.get(ending.session, 0) > heard:
            return
        identity = self.sessions.identity(ending.session)
        if identity is None or key_of(identity) != ending.key:
            return
        self.sessions.unbind(ending.session)
        if ending.reason == "refused":
            self.stats.refused += 1
            session.abort(CloseReason.REFUSED)
        else:
            self.stats.replaced += 1
            session.close(CloseReason.REPLACED)

    def happened(self, event: ClusterEvent) -> None:
        """Tell the application."""
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:
                logger.exception("on_event raised")

    def called(self, call: Call, subject: str) -> None:
        """Another worker calls, and wants its answer by a subject."""
        self.delivery.take(call, subject, partial(self.tell, self.node.answer, subject))

    def given_up(self, subject: str) -> None:
        """Another worker does not want the answer by a subject any more."""
        self.delivery.given_up(subject)

    def cast(self, group: str | None, data: bytes) -> None:
        """Another worker has a packet for a group."""
        try:
            packet = self.codec.decode(data)
        except Exception as error:  # whatever a codec raises
            self.stats.undecodable += 1
            logger.debug("%d bytes for group %r: %r", len(data), group, error)
        else:
            self.delivery.cast(self.members(group), packet)
