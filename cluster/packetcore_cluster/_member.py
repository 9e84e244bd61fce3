"""What a cluster does for an application, as coroutines; on which runtime they wait, and how the two sides of a
worker reach each other, facades say.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import Any, Generic, Protocol, TypeVar

from packetcore import AnyPacket, LocalProtocolError, PacketCodec, ProtocolError, Session
from packetcore_cluster._calls import Call
from packetcore_cluster._codecs import Packets
from packetcore_cluster._directory import Place
from packetcore_cluster._events import ClusterEvent
from packetcore_cluster._home import Home
from packetcore_cluster._keys import key_of
from packetcore_cluster._location import Location, location
from packetcore_cluster._node import Crossing, Node
from packetcore_cluster._stats import ClusterStats
from packetcore_cluster._timing import Timing

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""What a bucket may be named."""


class Pending(Protocol):
    """What one caller waits for, in the manner of a runtime."""

    def done(self, outcome: Any, /) -> None:
        """It has come to this, or to an exception: called once, on any thread, and perhaps when nobody
        waits any more."""

    def __await__(self) -> Generator[Any, Any, Any]:
        """Wait; give it, or raise it."""
        raise NotImplementedError


class Member(ABC, Generic[AnyPacket]):
    """See `Cluster`."""

    def __init__(
        self,
        url: str | Sequence[str],
        name: str,
        *,
        worker: str | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        is_reply: Callable[[AnyPacket, AnyPacket], bool] | None = None,
        lease: float = 10.0,
        connect_timeout: float = 10.0,
        session_timeout: float | None = 60.0,
        max_sessions: int | None = 10_000,
        max_sessions_per_host: int | None = 1_000,
        replicas: int = 1,
        on_event: Callable[[ClusterEvent], object] | None = None,
        **options: Any,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"name={name!r} must be of 1 to 100 letters, digits, '-' and '_'")
        servers = [url] if isinstance(url, str) else [*url]
        if not servers:
            raise ValueError("url=[] names no broker")
        called = re.sub(r"[^A-Za-z0-9_-]", "_", worker or socket.gethostname())[:100] or "worker"
        self.name = name
        self.worker = f"{called}-{os.getpid()}-{secrets.token_hex(4)}"
        """What this process is called in the cluster."""
        self._settle_on(options)
        timing = Timing(lease=lease)
        limits = {"timeout": session_timeout, "max_sessions": max_sessions, "max_per_host": max_sessions_per_host}
        self._codec: PacketCodec[Any] = Packets() if codec is None else codec
        self._home = Home(name, self._codec, is_reply, on_event, **limits)
        self.sessions = self._home.sessions
        """Give it to `serve`, `serve_udp` and so on."""
        crossing = self._new_crossing()
        self._node = Node(name, self.worker, servers, timing, self._home, crossing, replicas=replicas, options=options)
        self._home.node, self._home.tell = self._node, self._tell
        self._connect_timeout = connect_timeout
        self._is_entered = False  # or has been
        self._has_begun = False

    # What a facade says.

    def _settle_on(self, options: dict[str, Any]) -> None:
        """Take from the options what a facade has of its own, before anything else is made."""

    @abstractmethod
    def _new_crossing(self) -> Crossing:
        """The way from the node to the home."""

    @abstractmethod
    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Have the node carry something out, in order, now or soon."""

    @abstractmethod
    def _ask(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Coroutine[Any, Any, T]:
        """Run a coroutine of the node, behind all that it was told, and give what it gives."""

    @abstractmethod
    def _new_pending(self) -> Pending:
        """What who calls this can wait for."""

    @abstractmethod
    async def _begin(self) -> int:
        """Make ready what the node runs on. Gives the thread that sessions are to be on, or 0."""

    @abstractmethod
    async def _end(self) -> None:
        """Give that up. Idempotent."""

    @abstractmethod
    async def _give_way(self) -> None:
        """Let others of the thread, or of the lock, have a turn. What a session here refuses is told after that, so
        that who tries again for as long as it does holds up nothing that would end it."""

    @property
    def _lock(self) -> AbstractContextManager[None]:
        """Excludes other threads that use sessions."""
        return nullcontext()

    # Coming and going.

    async def start(self) -> None:
        """Reach the broker, and read the directory.

        Raises:
            BrokerAway: that took longer than `connect_timeout`, or the broker does not permit it; it says what.
            LocalProtocolError: it was entered before: a worker that begins again is another.
        """
        if self._is_entered:
            raise LocalProtocolError(f"worker {self.worker} was in the cluster already: make another Cluster")
        self._is_entered = True
        thread = await self._begin()
        try:
            await self._ask(self._node.prepare)
            self._home.open(thread)
            await self._ask(self._node.open, self._connect_timeout)
        except BaseException:
            await self._end()
            raise
        self._has_begun = True

    async def stop(self) -> None:
        """Give up what sessions here still hold, say goodbye, and disconnect. Close servers before. Idempotent."""
        if self._has_begun:
            self._has_begun = False
            if self._home.is_here:
                try:
                    await self._ask(self._node.close)
                finally:
                    await self._end()

    # What there is to know.

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached."""
        return self._has_begun and self._node.register.is_connected

    @property
    def stats(self) -> ClusterStats:
        """What this worker has seen until now."""
        register = self._node.register
        home, node = self._home.stats, self._node.stats
        both = {field.name: getattr(home, field.name) + getattr(node, field.name) for field in fields(ClusterStats)}
        return replace(
            ClusterStats(**both),
            is_connected=self.is_connected,
            workers=len(register.presence),
            identities=len(register.directory),
            claims=register.claims,
            pending=register.pending,
            dropped=self._node.dropped,
        )

    def find(self, identity: Hashable) -> Location | None:
        """Where the session is that holds an identity, as far as is known here; `None` if none does."""
        key = key_of(identity)
        place = self._node.register.place(key)
        session = self.sessions.find(identity)
        if session is not None and (place is None or place.session != session.id or place.worker != self.worker):
            place = Place(0, self.worker, session.id, time.time())  # bound just now
        return None if place is None else location(key, place)

    async def settled(self, timeout: float | None = None) -> None:
        """Wait until the broker has taken all that sessions here claimed or gave up.

        Raises:
            TimeoutError: it had not within `timeout` seconds.
        """
        self._home.verify("settled")
        await self._ask(self._node.settled, timeout)

    async def _places(self) -> list[tuple[str, Place]]:
        self._home.verify("where")
        return await self._ask(self._node.places)

    # Packets.

    async def send(self, identity: Hashable, packet: AnyPacket, *, timeout: float = 5.0) -> None:
        """Send a packet to the session that holds an identity, wherever it is connected. Returns once
        that session has taken it, to be sent in its turn; not once the device has it.

        Raises:
            BrokerAway: the session is not here, and the broker cannot be reached, or does not permit it.
            IdentityNotConnected: nobody holds the identity, or its worker is dead; at once.
            NotDelivered: the session could not send it.
            SlowConsumer: the device, or its worker, does not keep up; nothing was sent.
            TimeoutError: its worker did not answer in `timeout` seconds. It may still send it.
        """
        self._home.verify("send")
        try:
            with self._lock:
                session = self._home.delivery.find(identity)
                if session is not None:
                    self._home.delivery.send(session, packet)
                    return
        except ProtocolError:
            await self._give_way()
            raise
        call = Call(key_of(identity), self._codec.encode(packet), False, None)
        await self._ask(self._node.call, identity, call, timeout)

    async def request(self, identity: Hashable, packet: AnyPacket, *, timeout: float | None = None) -> AnyPacket:
        """Send a packet, as `send` does, and wait for the session's reply: see `Session.request`. One
        whose id is in flight there waits for its turn.

        Raises:
            SessionClosed: that session ended before the reply came, or what `send` says.
            TimeoutError: there was none in `timeout` seconds.
        """
        self._home.verify("request")
        reply: AnyPacket
        try:
            with self._lock:
                session = self._home.delivery.find(identity)
                if session is not None:
                    pending = self._new_pending()
                    forget = self._home.delivery.request(session, packet, timeout, pending.done)
        except ProtocolError:
            await self._give_way()
            raise
        if session is None:
            call = Call(key_of(identity), self._codec.encode(packet), True, timeout)
            reply = self._codec.decode(await self._ask(self._node.call, identity, call, timeout))
            return reply
        try:
            reply = await pending
        except BaseException:
            with self._lock:
                forget()
            raise
        return reply

    async def broadcast(self, packet: AnyPacket, group: str | None = None) -> None:
        """Send a packet to all sessions of a group, or to all sessions there are, on every worker.
        Those that do not keep up are left out, and counted. Nobody says who got it.

        Raises:
            BrokerAway: it went to those here alone, since the broker cannot be reached.
        """
        self._home.verify("broadcast")
        data = self._codec.encode(packet)
        with self._lock:
            self._home.delivery.cast(self._home.members(group), packet)
        await self._ask(self._node.publish, group, data)

    def join(self, session: Session[Any], group: str) -> None:
        """Let a session of this worker be in a group, until it leaves or is over. Each group that has
        sessions here is a subscription of this worker: have hundreds of groups, and not one for each device.

        Raises:
            LocalProtocolError: the session is none of `sessions`, or over.
        """
        with self._lock:
            self._home.join(session, group)

    def leave(self, session: Session[Any], group: str) -> None:
        """Let a session be in a group no more. Does nothing if it is not."""
        with self._lock:
            self._home.leave(session, group)
