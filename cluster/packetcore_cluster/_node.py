"""The broker's side of a worker: register, broker, and calls to other workers. It lives on one asyncio loop and
knows no session; what concerns those it hands over to the home, which may be on another thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from nats.aio.msg import Msg

from packetcore import CloseReason, LocalProtocolError, SessionClosed
from packetcore_cluster._broker import Broker
from packetcore_cluster._calls import (
    Call,
    GivenUp,
    Outcome,
    answer_from,
    call_bytes,
    call_from,
    cast_bytes,
    cast_from,
    given_up_bytes,
)
from packetcore_cluster._directory import Place
from packetcore_cluster._errors import BrokerAway, IdentityNotConnected, NotDelivered, SlowConsumer
from packetcore_cluster._events import BrokerLost, ClusterEvent
from packetcore_cluster._keys import escaped
from packetcore_cluster._log import log_event, logger
from packetcore_cluster._operations import Ending, Takeover
from packetcore_cluster._permissions import Permissions
from packetcore_cluster._register import Register
from packetcore_cluster._stats import ClusterStats
from packetcore_cluster._timing import Timing

MAX_CALLS = 1000
"""Sends and requests to one worker that wait for its answers."""


class Home(Protocol):
    """The sessions' side. All is called on its thread."""

    def end(self, ending: Ending, heard: int, /) -> None:
        """A session has lost its identity, as decided by the claims up to the one of this number."""

    def happened(self, event: ClusterEvent, /) -> None:
        """Something has."""

    def called(self, call: Call, subject: str, /) -> None:
        """Another worker calls, and wants its answer by a subject."""

    def given_up(self, subject: str, /) -> None:
        """It does not want that any more."""

    def cast(self, group: str | None, data: bytes, /) -> None:
        """Another worker has a packet for a group."""


class Crossing(Protocol):
    """The way to the thread of the sessions."""

    def post(self, function: Callable[..., object], /, *args: object) -> None:
        """Call something there, now or soon, and in order."""

    async def hand_over(self, function: Callable[..., object], /, *args: object) -> None:
        """The same; wait while too much waits there."""


class Node:
    """See above. What is not `async` and has no other word is called on the loop.

    Args:
        name: of the cluster.
        worker: of this one.
        servers: see `Broker`, and so `replicas` and `options`.
        timing: how long things take at most.
        home: the sessions' side.
        crossing: the way there.
    """

    def __init__(
        self,
        name: str,
        worker: str,
        servers: Sequence[str],
        timing: Timing,
        home: Home,
        crossing: Crossing,
        *,
        replicas: int,
        options: dict[str, Any],
    ) -> None:
        self.register = Register(worker, timing, 0.0)
        """Whose `check`, `place` and numbers any thread may ask for: each looks something up in dicts, and what
        it says of others may have changed on its way here anyhow."""
        self.stats = ClusterStats()
        """What is counted on this side."""
        self._worker = worker
        self._servers = servers
        self._timing = timing
        self._replicas = replicas
        self._options = options
        self._home = home
        self._crossing = crossing
        self._root = f"packetcore.{name}"
        self._bucket = f"packetcore-{name}"
        self._heard = 0  # the number of the last claim
        self._calls: Counter[str] = Counter()  # that wait, by worker
        self._loop: asyncio.AbstractEventLoop
        self._broker: Broker
        self._is_open = False
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    @property
    def dropped(self) -> int:
        """Messages that came while too many waited. On any thread."""
        return self._broker.dropped if self._is_open else 0

    async def prepare(self) -> None:
        """Be ready for what the home tells, on the loop that runs this; once."""
        self._loop = asyncio.get_running_loop()
        inbox = self._options.get("inbox_prefix", "_INBOX")
        about = f"{socket.gethostname()} pid {os.getpid()}"
        self.register = Register(self._worker, self._timing, self._loop.time(), about)
        self._broker = Broker(
            self._servers,
            self._bucket,
            Permissions(self._root, self._bucket, inbox if isinstance(inbox, str) else inbox.decode()),
            self.register,
            self._changed,
            replicas=self._replicas,
            patience=self._timing.lease / 2,
            options={"name": self._worker, **self._options},
        )
        self._is_open = True
        self.listen(set())

    async def open(self, timeout: float) -> None:
        """Reach the broker, and read the directory.

        Raises:
            BrokerAway: that took longer than `timeout` seconds, or the broker does not permit it.
        """
        since = self._loop.time()
        await self._broker.open(timeout)
        try:
            with suppress(TimeoutError):
                await self._wait(timeout - (self._loop.time() - since), lambda: self._is_decided)
            if not self.register.is_synced:
                raise BrokerAway(self._broker.url, self._broker.trouble)
        except BaseException:
            await self._broker.close()
            raise

    async def close(self) -> None:
        """Give up what sessions here still hold, say goodbye, and disconnect."""
        if self.register.is_synced:
            self.register.leave(self._loop.time())
            self._broker.wake()
            try:
                await self._wait(self._timing.lease, lambda: self.register.has_left or not self.register.is_connected)
            except TimeoutError:
                pass
            finally:
                if not self.register.has_left:
                    logger.warning("%s could not say goodbye", self._worker)
                await self._broker.close()
        else:
            await self._broker.close()

    @property
    def _is_decided(self) -> bool:
        """Whether the directory is known, or is known not to be for this worker's user."""
        return self.register.is_synced or self._broker.unreadable is not None

    # What the home tells.

    def check(self, key: str, takeover: Takeover, /) -> None:
        """See `Register.check`. On any thread."""
        self.register.check(key, takeover)

    def claim(self, number: int, key: str, session: int, since: float, takeover: Takeover, /) -> None:
        """See `Register.claim`."""
        self._heard = number
        self.register.claim(key, session, since, takeover, self._loop.time())
        self._broker.wake()

    def release(self, key: str, session: int, /) -> None:
        """See `Register.release`."""
        self.register.release(key, session, self._loop.time())
        self._broker.wake()

    def listen(self, groups: set[str], /) -> None:
        """Hear what is for these groups, for all and for this worker."""
        wanted: dict[str, Callable[[Msg], Any]] = {f"{self._root}.worker.{self._worker}": self._called}
        for group in (None, *groups):
            wanted[self._subject(group)] = partial(self._cast, group)
        self._broker.listen(wanted)

    def answer(self, subject: str, data: bytes, /) -> None:
        """Answer to a call."""
        self._broker.post(subject, data)

    # What callers want.

    async def settled(self, timeout: float | None) -> None:
        """See `Cluster.settled`."""
        await self._wait(timeout, lambda: self.register.is_settled)

    async def places(self) -> list[tuple[str, Place]]:
        """All of the directory."""
        return [*self.register.places()]

    async def publish(self, group: str | None, data: bytes) -> None:
        """Give a packet to all other workers.

        Raises:
            BrokerAway: the broker cannot be reached.
            LocalProtocolError: it does not take so much.
        """
        await self._broker.publish(self._subject(group), self._sized(cast_bytes(self._worker, data)))

    async def call(self, identity: Hashable, call: Call, timeout: float | None) -> bytes:
        """Call the worker that holds an identity, which is not this one. Gives what it answers.

        Raises:
            BrokerAway: see `Cluster.send`, and so the others.
        """
        data = self._sized(call_bytes(call))
        until = None if timeout is None else self._loop.time() + timeout
        tried = None
        while True:
            place = self.register.place(call.key)
            if place is None or place.worker in (self._worker, tried):
                break
            left = None if until is None else max(0.0, until - self._loop.time())
            try:
                answer = await self._call(place.worker, data, left, call.is_request)
                if answer is None:
                    break
                outcome, what = answer_from(answer)
                if outcome is not Outcome.NOT_HERE:
                    return self._result(place.worker, outcome, what)
            except TimeoutError:
                raise TimeoutError(f"no answer of worker {place.worker} within timeout={timeout} s") from None
            except ValueError as error:
                self.stats.undecodable += 1
                raise NotDelivered(f"worker {place.worker} answered with {error}") from None
            # It has moved, and the broker has not told us yet; or it has just gone.
            tried = place.worker
            revision, value = await self._broker.read(call.key)
            self.register.found(call.key, revision, value, self._loop.time())
            self._changed()
        if not self.register.is_connected:
            raise BrokerAway(self._broker.url)
        self.stats.not_connected += 1
        raise IdentityNotConnected(identity)

    # Inside.

    async def _call(self, worker: str, data: bytes, timeout: float | None, is_request: bool) -> bytes | None:
        if self._calls[worker] >= MAX_CALLS:
            self.stats.slow += 1
            raise SlowConsumer(f"worker {worker} has {self._calls[worker]} calls of this one to answer")
        self._calls[worker] += 1
        try:
            given_up = given_up_bytes if is_request else None
            return await self._broker.call(f"{self._root}.worker.{worker}", data, timeout, given_up)
        finally:
            self._calls[worker] -= 1
            if not self._calls[worker]:
                del self._calls[worker]

    def _result(self, worker: str, outcome: Outcome, what: bytes) -> bytes:
        if outcome is Outcome.DONE:
            self.stats.sent += 1
            return what
        text = what.decode(errors="replace")
        match outcome:
            case Outcome.SLOW_CONSUMER:
                raise SlowConsumer(f"worker {worker}: {text}")
            case Outcome.TIMED_OUT:
                raise TimeoutError
            case Outcome.CLOSED:
                raise SessionClosed(CloseReason[text] if text in CloseReason.__members__ else None)
            case _:
                raise NotDelivered(f"worker {worker}: {text}")

    def _sized(self, data: bytes) -> bytes:
        if len(data) > self._broker.max_payload:
            limit = self._broker.max_payload
            raise LocalProtocolError(f"packet of {len(data)} bytes as sent exceeds the broker's max_payload={limit}")
        return data

    async def _called(self, msg: Msg) -> None:
        try:
            call = call_from(msg.data)
        except ValueError as error:
            self._cannot_read(msg, error)
        else:
            if isinstance(call, GivenUp):
                await self._crossing.hand_over(self._home.given_up, call.subject)
            else:
                await self._crossing.hand_over(self._home.called, call, msg.reply)

    async def _cast(self, group: str | None, msg: Msg) -> None:
        try:
            worker, data = cast_from(msg.data)
        except ValueError as error:
            self._cannot_read(msg, error)
        else:
            if worker != self._worker:
                await self._crossing.hand_over(self._home.cast, group, data)

    def _cannot_read(self, msg: Msg, error: ValueError) -> None:
        self.stats.undecodable += 1
        logger.debug("on %s: %s", msg.subject, error)

    def _subject(self, group: str | None) -> str:
        return f"{self._root}.all" if group is None else f"{self._root}.group.{escaped(group)}"

    def _changed(self) -> None:
        """The register was told something: do what follows."""
        for ending in self.register.endings():
            self._crossing.post(self._home.end, ending, self._heard)
        for event in self.register.events():
            log_event(self._worker, event)
            self.stats.outages += isinstance(event, BrokerLost)
            self._crossing.post(self._home.happened, event)
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
