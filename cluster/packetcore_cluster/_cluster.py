"""The cluster as an application sees it, on asyncio."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from threading import get_ident
from typing import Any, Generic, Literal

from nats.aio.msg import Msg

from packetcore import (
    AnyPacket,
    CloseReason,
    LocalProtocolError,
    PacketCodec,
    ProtocolError,
    Session,
    SessionClosed,
)
from packetcore_cluster._broker import Broker
from packetcore_cluster._calls import Call, Outcome, answer_from, call_bytes, call_from, cast_bytes, cast_from
from packetcore_cluster._codecs import Packets
from packetcore_cluster._delivery import Delivery
from packetcore_cluster._directory import Place
from packetcore_cluster._errors import BrokerAway, IdentityNotConnected, NotDelivered, SlowConsumer
from packetcore_cluster._events import BrokerLost, ClusterEvent
from packetcore_cluster._groups import Groups
from packetcore_cluster._keys import escaped, identity_of, key_of
from packetcore_cluster._log import log_event, logger
from packetcore_cluster._register import Register, Takeover
from packetcore_cluster._sessions import ClusterSessions
from packetcore_cluster._stats import ClusterStats
from packetcore_cluster._timing import Timing

MAX_CALLS = 1000
"""Sends and requests to one worker that wait for its answers."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""What a bucket may be named."""

_TURN = 1000
"""Places after which other tasks have a turn."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a session is that holds an identity."""

    identity: str | int | bytes
    worker: str
    session: int
    """Its id there."""
    since: datetime
    """When it was bound, by the clock of that worker, in UTC."""


class Cluster(Generic[AnyPacket]):
    """The sessions of many workers and machines as one register, over NATS with JetStream.

        async with Cluster("nats://127.0.0.1:4222", name="fleet") as cluster:
            server = await serve(Gateway(), host, port, sessions=cluster.sessions)
            reply = await cluster.request("meter 7", Packet(7, b"status?"), timeout=2.0)

    Each process has one, on the loop of its servers. While the broker is away sessions go on, and so
    do sends to those here; others raise `BrokerAway`.

    Args:
        url: the broker's, or those of several that are one cluster.
        name: of this cluster, one of many that the broker may have: letters, digits, `-` and `_`.
            The directory is the key-value bucket `packetcore-NAME`.
        worker: what this process is called; the host's name by default. The process id and a few
            random characters are added, since a worker that begins again is another.
        codec: how packets travel between workers; `Packet` in its frames by default. For servers
            with a `framing` it is their codec, or `Frames()` where they have none.
        is_reply: with such, whether a packet, the second, is the reply to another, the first.
        lease: how long a worker may give no sign of life before the others call it dead, in seconds. Give
            all the same.
        connect_timeout: how long the broker may take to answer at first, in seconds.
        max_sessions: see `packetcore.Config`, and so the others.
        replicas: on how many servers of a cluster of brokers the directory is kept, where this worker
            is the first and makes it.
        on_event: is told what happens, on the loop; it is logged as well.
        options: what else `nats.connect` takes: `user_credentials`, `tls` and so on.

    Raises:
        ValueError: a name or a number is out of its range.
    """

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
        called = re.sub(r"[^A-Za-z0-9_-]", "_", worker or socket.gethostname())[:100] or "worker"
        self.name = name
        self.worker = f"{called}-{os.getpid()}-{secrets.token_hex(4)}"
        """What this process is called in the cluster."""
        self.sessions = ClusterSessions(
            _Claims(self), session_timeout, max_sessions=max_sessions, max_per_host=max_sessions_per_host
        )
        """Give it to `serve`, `serve_udp` and so on."""
        self._servers = [url] if isinstance(url, str) else [*url]
        if not self._servers:
            raise ValueError("url=[] names no broker")
        self._timing = Timing(lease=lease)
        self._connect_timeout = connect_timeout
        self._replicas = replicas
        self._on_event = on_event
        self._options = options
        self._stats = ClusterStats()
        self._codec: PacketCodec[Any] = Packets() if codec is None else codec
        self._delivery = Delivery(self.sessions, self._codec, is_reply, self._stats)
        self._groups = Groups()
        self._calls: Counter[str] = Counter()  # that wait, by worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._register = Register(self.worker, self._timing, 0.0)
        self._broker: Broker | None = None
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def __aenter__(self) -> Cluster[AnyPacket]:
        """Reach the broker, and read the directory.

        Raises:
            BrokerAway: that took longer than `connect_timeout`.
            LocalProtocolError: it was entered before: a worker that begins again is another.
        """
        if self._broker is not None:
            raise LocalProtocolError(f"worker {self.worker} was in the cluster already: make another Cluster")
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        about = f"{socket.gethostname()} pid {os.getpid()}"
        self._register = Register(self.worker, self._timing, self._loop.time(), about)
        self._broker = Broker(
            self._servers,
            f"packetcore-{self.name}",
            self._register,
            self._changed,
            replicas=self._replicas,
            patience=self._timing.lease / 2,
            options={"name": self.worker, **self._options},
        )
        self._listen()
        since = self._loop.time()
        await self._broker.open(self._connect_timeout)
        try:
            await self._wait(self._connect_timeout - (self._loop.time() - since), lambda: self._register.is_synced)
        except TimeoutError:
            await self._broker.close()
            raise BrokerAway(self._broker.url, "it keeps no directory: is JetStream enabled?") from None
        except BaseException:
            await self._broker.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Give up what sessions here still hold, say goodbye, and disconnect. Close servers before."""
        assert self._loop is not None
        assert self._broker is not None
        if self._register.is_synced:
            self._register.leave(self._loop.time())
            self._broker.wake()
            try:
                await self._wait(self._timing.lease, lambda: self._register.has_left)
            except TimeoutError:
                logger.warning("%s could not say goodbye in %s s", self.worker, self._timing.lease)
        await self._broker.close()

    # What there is to know.

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached."""
        return self._register.is_connected

    @property
    def stats(self) -> ClusterStats:
        """What this worker has seen until now."""
        register = self._register
        return replace(
            self._stats,
            is_connected=register.is_connected,
            workers=len(register.presence),
            identities=len(register.directory),
            claims=register.claims,
            pending=register.pending,
            dropped=0 if self._broker is None else self._broker.dropped,
        )

    def find(self, identity: Hashable) -> Location | None:
        """Where the session is that holds an identity, as far as is known here; `None` if none does."""
        key = key_of(identity)
        place = self._register.place(key)
        return None if place is None else _location(key, place)

    async def where(self) -> AsyncIterator[Location]:
        """Who is online, since when and on which worker: all that was known when the iteration began."""
        for number, (key, place) in enumerate([*self._register.places()]):
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            try:
                location = _location(key, place)
            except ValueError:  # a key that somebody else has made
                continue
            yield location

    async def settled(self, timeout: float | None = None) -> None:
        """Wait until the broker has taken all that sessions here claimed or gave up.

        Raises:
            TimeoutError: it had not within `timeout` seconds.
        """
        await self._wait(timeout, lambda: self._register.is_settled)

    # Packets.

    async def send(self, identity: Hashable, packet: AnyPacket, *, timeout: float = 5.0) -> None:
        """Send a packet to the session that holds an identity, wherever it is connected. Returns once
        that session has taken it, to be sent in its turn; not once the device has it.

        Raises:
            BrokerAway: the session is not here, and the broker cannot be reached.
            IdentityNotConnected: nobody holds the identity, or its worker is dead; at once.
            NotDelivered: the session could not send it.
            SlowConsumer: the device, or its worker, does not keep up; nothing was sent.
            TimeoutError: its worker did not answer in `timeout` seconds. It may still send it.
        """
        session = await self._local(identity)
        if session is not None:
            self._delivery.send(session, packet)
        else:
            await self._remote(identity, Call(key_of(identity), self._codec.encode(packet), False, None), timeout)

    async def request(self, identity: Hashable, packet: AnyPacket, *, timeout: float | None = None) -> AnyPacket:
        """Send a packet, as `send` does, and wait for the session's reply: see `Session.request`. One
        whose id is in flight there waits for its turn.

        Raises:
            SessionClosed: that session ended before the reply came, or what `send` says.
            TimeoutError: there was none in `timeout` seconds.
        """
        session = await self._local(identity)
        if session is not None:
            return await self._ask(session, packet, timeout)
        call = Call(key_of(identity), self._codec.encode(packet), True, timeout)
        reply: AnyPacket = self._codec.decode(await self._remote(identity, call, timeout))
        return reply

    async def broadcast(self, packet: AnyPacket, group: str | None = None) -> None:
        """Send a packet to all sessions of a group, or to all sessions there are, on every worker.
        Those that do not keep up are left out, and counted. Nobody says who got it.

        Raises:
            BrokerAway: it went to those here alone, since the broker cannot be reached.
        """
        assert self._broker is not None
        data = self._codec.encode(packet)
        self._delivery.cast(self._members(group), packet)
        await self._broker.publish(self._subject(group), self._sized(cast_bytes(self.worker, data)))

    def join(self, session: Session[Any], group: str) -> None:
        """Let a session of this worker be in a group, until it leaves or is over. Each group that has
        sessions here is a subscription of this worker: have hundreds of groups, and not one for each device.

        Raises:
            LocalProtocolError: the session is none of `sessions`, or over.
        """
        if self.sessions.get(session.id) is not session:
            raise LocalProtocolError(f"session {session.id} is not in the register of worker {self.worker}")
        self._groups.join(session.id, group)
        self._listen()

    def leave(self, session: Session[Any], group: str) -> None:
        """Let a session be in a group no more. Does nothing if it is not."""
        self._groups.leave(session.id, group)
        self._listen()

    # Inside.

    async def _local(self, identity: Hashable) -> Session[Any] | None:
        """The session, if it is here, once it may have room."""
        if self._delivery.is_full(identity):
            await asyncio.sleep(0)  # for the loop to write what was sent
        return self._delivery.find(identity)

    async def _ask(self, session: Session[Any], packet: AnyPacket, timeout: float | None) -> AnyPacket:
        answered: asyncio.Future[AnyPacket] = asyncio.get_running_loop().create_future()

        def done(reply: Any) -> None:
            if answered.done():
                return
            if isinstance(reply, Exception):
                answered.set_exception(reply)
            else:
                answered.set_result(reply)

        forget = self._delivery.request(session, packet, timeout, done)
        try:
            return await answered
        except asyncio.CancelledError:
            forget()
            raise

    async def _remote(self, identity: Hashable, call: Call, timeout: float | None) -> bytes:
        assert self._broker is not None
        data = self._sized(call_bytes(call))
        tried = None
        while True:
            place = self._register.place(call.key)
            if place is None or place.worker in (self.worker, tried):
                break
            answer = await self._call(place.worker, data, timeout)
            if answer is None:
                break
            try:
                outcome, what = answer_from(answer)
            except ValueError as error:
                self._stats.undecodable += 1
                raise NotDelivered(f"worker {place.worker} answered with {error}") from None
            if outcome is not Outcome.NOT_HERE:
                return self._result(place.worker, outcome, what)
            # It has moved, and the broker has not told us yet; or it has just gone.
            tried = place.worker
            revision, value = await self._broker.read(call.key)
            self._register.found(call.key, revision, value, asyncio.get_running_loop().time())
            self._changed()
        if not self._register.is_connected:
            raise BrokerAway(self._broker.url)
        self._stats.not_connected += 1
        raise IdentityNotConnected(identity)

    async def _call(self, worker: str, data: bytes, timeout: float | None) -> bytes | None:
        assert self._broker is not None
        if self._calls[worker] >= MAX_CALLS:
            self._stats.slow += 1
            raise SlowConsumer(f"worker {worker} has {self._calls[worker]} calls of this one to answer")
        self._calls[worker] += 1
        try:
            return await self._broker.call(f"{self._root}.worker.{worker}", data, timeout)
        finally:
            self._calls[worker] -= 1
            if not self._calls[worker]:
                del self._calls[worker]

    def _result(self, worker: str, outcome: Outcome, what: bytes) -> bytes:
        if outcome is Outcome.DONE:
            self._stats.sent += 1
            return what
        text = what.decode(errors="replace")
        match outcome:
            case Outcome.SLOW_CONSUMER:
                raise SlowConsumer(f"worker {worker}: {text}")
            case Outcome.TIMED_OUT:
                raise TimeoutError("no reply in time")
            case Outcome.CLOSED:
                raise SessionClosed(CloseReason[text] if text in CloseReason.__members__ else None)
            case _:
                raise NotDelivered(f"worker {worker}: {text}")

    def _sized(self, data: bytes) -> bytes:
        assert self._broker is not None
        if len(data) > self._broker.max_payload:
            limit = self._broker.max_payload
            raise LocalProtocolError(f"packet of {len(data)} bytes as sent exceeds the broker's max_payload={limit}")
        return data

    async def _called(self, msg: Msg) -> None:
        assert self._broker is not None
        try:
            call = call_from(msg.data)
            identity = identity_of(call.key)
        except ValueError as error:
            self._stats.undecodable += 1
            logger.debug("on %s: %s", msg.subject, error)
            return
        if self._delivery.is_full(identity):
            await asyncio.sleep(0)
        self._delivery.take(call, partial(self._broker.post, msg.reply))

    async def _cast(self, group: str | None, msg: Msg) -> None:
        try:
            worker, data = cast_from(msg.data)
            packet = None if worker == self.worker else self._codec.decode(data)
        except (ProtocolError, ValueError) as error:
            self._stats.undecodable += 1
            logger.debug("on %s: %s", msg.subject, error)
            return
        if worker != self.worker:
            self._delivery.cast(self._members(group), packet)

    def _members(self, group: str | None) -> list[Session[Any]]:
        if group is None:
            return [*self.sessions]
        found = [self.sessions.get(id) for id in self._groups.members(group)]
        return [session for session in found if session is not None]

    @property
    def _root(self) -> str:
        return f"packetcore.{self.name}"

    def _subject(self, group: str | None) -> str:
        return f"{self._root}.all" if group is None else f"{self._root}.group.{escaped(group)}"

    def _listen(self) -> None:
        if self._broker is None:
            return
        wanted: dict[str, Callable[[Msg], Any]] = {f"{self._root}.worker.{self.worker}": self._called}
        for group in (None, *self._groups.names()):
            wanted[self._subject(group)] = partial(self._cast, group)
        self._broker.listen(wanted)

    def _check(self, key: str, takeover: Takeover) -> None:
        if self._thread != get_ident():
            why = "was not entered yet" if self._broker is None else "is on the loop of another thread"
            raise LocalProtocolError(f"bind: the cluster {self.name!r} {why}")
        self._register.check(key, takeover)

    def _claim(self, key: str, session: int, takeover: Takeover) -> None:
        self._register.claim(key, session, time.time(), takeover, self._now())
        self._wake()

    def _release(self, key: str, session: int) -> None:
        self._register.release(key, session, self._now())
        self._wake()

    def _left(self, session: int) -> None:
        if self._groups.left(session):
            self._listen()

    def _now(self) -> float:
        return 0.0 if self._loop is None else self._loop.time()

    def _wake(self) -> None:
        if self._broker is not None:
            self._broker.wake()

    def _changed(self) -> None:
        """The register was told something: do what follows."""
        for ending in self._register.endings():
            session = self.sessions.get(ending.session)
            if session is None:
                continue
            self.sessions.unbind(ending.session)
            if ending.reason == "refused":
                self._stats.refused += 1
                session.abort(CloseReason.REFUSED)
            else:
                self._stats.replaced += 1
                session.close(CloseReason.REPLACED)
        for event in self._register.events():
            log_event(self.worker, event)
            self._stats.outages += isinstance(event, BrokerLost)
            if self._on_event is not None:
                try:
                    self._on_event(event)
                except Exception:
                    logger.exception("on_event raised")
        for until, future in self._waiters:
            if not future.done() and until():
                future.set_result(None)

    async def _wait(self, timeout: float | None, until: Callable[[], bool]) -> None:
        if until():
            return
        waiter = until, asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter[1], timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(f"the broker has not taken everything in {timeout} s") from None
        finally:
            self._waiters.remove(waiter)


class _Claims:
    """What the register of sessions tells the cluster."""

    __slots__ = ("_cluster",)

    def __init__(self, cluster: Cluster[Any]) -> None:
        self._cluster = cluster

    def check(self, key: str, takeover: Literal["replace", "reject"], /) -> None:
        self._cluster._check(key, takeover)

    def claim(self, key: str, session: int, takeover: Literal["replace", "reject"], /) -> None:
        self._cluster._claim(key, session, takeover)

    def release(self, key: str, session: int, /) -> None:
        self._cluster._release(key, session)

    def left(self, session: int, /) -> None:
        self._cluster._left(session)


def _location(key: str, place: Place) -> Location:
    since = datetime.fromtimestamp(place.since, timezone.utc)
    return Location(identity_of(key), place.worker, place.session, since)
