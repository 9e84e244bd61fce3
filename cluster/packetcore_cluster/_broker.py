"""One worker's connection with a broker of NATS, by `nats-py`, which comes back by itself: what workers say to each
other, and the directory's bucket.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from packetcore_cluster._bucket import FAILURES, Bucket
from packetcore_cluster._errors import BrokerAway
from packetcore_cluster._log import logger
from packetcore_cluster._permissions import Denial, Permissions
from packetcore_cluster._register import Register
from packetcore_cluster._replies import Replies

MAX_WAITING = 4096
MAX_WAITING_SIZE = 16 * 1024 * 1024
"""How many messages of other workers, and of how many bytes, wait to be looked at by a loop that is busy; more
are dropped, and counted. Callers wait for answers, a bounded number of them, so that it takes many callers."""

RECONNECT = 0.25
"""Seconds between two tries to reach the broker."""

Heard = Callable[[Msg], Any]


class Broker:
    """One worker's connection. Used on its loop's thread alone.

    Args:
        servers: URLs of the broker, or of several that are one cluster.
        bucket: the directory's name.
        permissions: what is needed.
        register: see `Bucket`.
        changed: called after the register was told something.
        replicas: see `Bucket`.
        patience: seconds after which a broker from which nothing comes is given up; see also `Bucket`.
        options: what else `nats.connect` takes.
    """

    def __init__(
        self,
        servers: Sequence[str],
        bucket: str,
        permissions: Permissions,
        register: Register,
        changed: Callable[[], object],
        *,
        replicas: int,
        patience: float,
        options: dict[str, Any],
    ) -> None:
        self.url = without_user(servers[0])
        """The broker's, for people: as it was given, without a user and a password."""
        self._servers = [*servers]
        self._name = bucket
        self._permissions = permissions
        self._register = register
        self._changed = changed
        self._replicas = replicas
        self._patience = patience
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._client = Client()
        self._replies: Replies[Msg]
        self._bucket: Bucket
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._calls: dict[asyncio.Future[Msg | None], str] = {}  # and the subject that each went to
        self._denials: set[tuple[str, str]] = set()
        self._subjects: dict[str, Subscription] = {}
        self._wanted: dict[str, Heard] = {}
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False
        self._is_beginning = False
        self._heard = 0
        self._heard_at = self._loop.time()
        self._silent_ticks = 0
        self.dropped = 0
        """Messages that came while too many waited."""
        self.unreadable: Denial | None = None
        """Why this user cannot read the directory, if so."""

    @property
    def trouble(self) -> str:
        """Why the directory is not known, behind "the broker"."""
        return self._bucket.trouble if self.unreadable is None else str(self.unreadable)

    @property
    def max_payload(self) -> int:
        """The longest message that it takes, in bytes."""
        return self._client.max_payload

    async def open(self, timeout: float) -> None:
        """Connect.

        Raises:
            BrokerAway: it was not reached in time.
        """
        await self._connect(timeout)
        self._is_open = True
        self._start(self._run())
        self._register.connected(self._loop.time())
        self._tick()

    async def close(self) -> None:
        """Give up the connection."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bucket.close()
        await _close(self._client)
        self._replies.lose()

    def wake(self) -> None:
        """The register may have something to ask."""
        self._work.set()

    def post(self, subject: str, data: bytes) -> None:
        """Publish soon; nothing, if the broker is away."""
        if subject and self._client.is_connected:  # who names no subject wants no answer
            self._outbox.append((subject, data))
            self._work.set()

    def listen(self, wanted: dict[str, Heard]) -> None:
        """Have these subscriptions, by subject, soon, and no others."""
        self._wanted = wanted
        self._work.set()

    async def publish(self, subject: str, data: bytes, answer_to: str = "") -> None:
        """Publish.

        Raises:
            BrokerAway: the broker cannot be reached.
        """
        self._check()
        try:
            await self._client.publish(subject, data, reply=answer_to)
        except (nats.errors.Error, OSError) as error:  # lost just now
            raise BrokerAway(self.url, f"cannot be reached: {error or type(error).__name__}") from error

    async def call(
        self, subject: str, data: bytes, timeout: float | None, given_up: Callable[[str], bytes] | None = None
    ) -> bytes | None:
        """Publish, and wait for the answer.

        Args:
            subject: whose listeners are called.
            data: what to publish.
            timeout: how long to wait, in seconds.
            given_up: makes of the subject of the answer what its listeners are told, now or when the connection
                is back, where nobody waits for it any more and the time is not over.

        Returns:
            It; or `None` where nobody listens to the subject, as the broker says at once.

        Raises:
            BrokerAway: the broker cannot be reached, is lost before the answer has come, or does not permit it.
            TimeoutError: there was none in time.
        """
        self._check()
        answered: asyncio.Future[Msg | None] = self._loop.create_future()

        def done(msg: Msg | None) -> None:
            if not answered.done():
                answered.set_result(msg)

        def late() -> None:
            if not answered.done():
                answered.set_exception(TimeoutError())

        inbox = self._replies.expect(done)
        timer = None if timeout is None else self._loop.call_later(timeout, late)
        self._calls[answered] = subject
        try:
            await self.publish(subject, data, inbox)
            msg = await answered
        except asyncio.CancelledError:
            if given_up is not None:
                with suppress(BrokerAway):  # now, so that it comes before what is asked next
                    await self.publish(subject, given_up(inbox))
            raise
        finally:
            del self._calls[answered]
            self._replies.forget(inbox)
            if timer is not None:
                timer.cancel()
        if msg is None:
            if given_up is not None:
                self._outbox.append((subject, given_up(inbox)))
            raise BrokerAway(self.url, "cannot be reached: it was lost while waiting for an answer")
        return None if _is_status(msg, "503") else msg.data

    async def read(self, key: str) -> tuple[int, bytes | None]:
        """See `Bucket.read`.

        Raises:
            BrokerAway: the broker cannot be reached, or did not answer.
        """
        self._check()
        try:
            return await self._bucket.read(key)
        except FAILURES as error:
            why = self.unreadable or f"does not tell {key}: {error or type(error).__name__}"
            raise BrokerAway(self.url, str(why)) from error

    async def _connect(self, timeout: float | None) -> None:
        settings: dict[str, Any] = {
            "connect_timeout": 2,
            "reconnect_time_wait": RECONNECT,
            **self._options,
        }
        client = Client()
        connecting = client.connect(
            servers=self._servers,
            max_reconnect_attempts=-1,
            error_cb=self._erred,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
            **settings,
        )
        try:
            await asyncio.wait_for(connecting, timeout)
            replies: Replies[Msg] = Replies(client.new_inbox())
            await client.subscribe(replies.subject, cb=self._answered)
        except FAILURES as error:
            await _close(client)
            said = client.last_error or error
            raise BrokerAway(self.url, f"cannot be reached: {said or type(said).__name__}") from error
        except BaseException:  # who waited was interrupted
            await _close(client)
            raise
        self._client, self._replies = client, replies
        self._bucket = Bucket(
            client,
            self._name,
            self._register,
            replies,
            self._told,
            self._start,
            replicas=self._replicas,
            patience=self._patience,
        )
        self._subjects.clear()

    async def _begin_again(self) -> None:
        while not self._client.is_connected:
            try:
                await self._connect(None)
            except BrokerAway:
                await asyncio.sleep(RECONNECT)
        self._is_beginning = False
        await self._reconnected()

    # What the client calls.

    async def _disconnected(self) -> None:
        if self._is_open and self._register.is_connected:
            self._bucket.lost()
            self._outbox.clear()
            self._register.disconnected(self._loop.time())
            self._replies.lose()
            self._changed()

    async def _reconnected(self) -> None:
        if self._is_open:
            self._denials.clear()
            self.unreadable = None
            self._register.connected(self._loop.time())
            self._told()

    async def _closed(self) -> None:
        """The client comes back from the loss of a connection, but not where the broker ended it with a word, such as
        that a password is another now."""
        if self._is_open and not self._is_beginning:
            logger.error("the broker at %s has ended the connection: %s", self.url, self._client.last_error)
            self._is_beginning = True
            self._start(self._begin_again())

    async def _erred(self, error: Exception) -> None:
        self.dropped += isinstance(error, nats.errors.SlowConsumerError)
        logger.debug("the broker's client: %r", error)
        denial = self._permissions.denial(error)
        if denial is not None:
            self._denied(denial)

    def _denied(self, denial: Denial) -> None:
        if (known := (denial.verb, denial.permission)) not in self._denials:
            self._denials.add(known)
            logger.error("the broker at %s %s", self.url, denial)
        if denial.is_of_directory:
            self.unreadable = denial
        for answered, subject in self._calls.items():
            if subject.lower() == denial.subject and not answered.done():
                answered.set_exception(BrokerAway(self.url, str(denial)))
        self._changed()

    async def _answered(self, msg: Msg) -> None:
        self._replies.take(msg.subject, msg)

    # The pump.

    def _told(self) -> None:
        self._changed()
        self._work.set()

    def _tick(self) -> None:
        now = self._loop.time()
        self._timer = None
        self._look_for_life(now)
        self._bucket.tick(now)
        self._register.tick(now)
        self._arm()
        self._told()

    def _look_for_life(self, now: float) -> None:
        """Give up a connection on which nothing comes: the answers to our signs of life should.

        The client library waits for answers to pings, which come behind all else that the broker has
        to tell: with a large directory that takes longer than it may, again and again."""
        heard = self._client.stats["in_msgs"]
        if heard != self._heard or not self._client.is_connected:
            self._heard, self._heard_at, self._silent_ticks = heard, now, 0
            return
        self._silent_ticks += 1
        # Twice, since what came while this process was paused is read after the first.
        if self._heard_at + self._patience <= now and self._silent_ticks > 1:
            self._heard_at, self._silent_ticks = now, 0
            logger.debug("nothing has come from the broker for %s s", self._patience)
            self._start(self._give_up())

    async def _give_up(self) -> None:
        await self._client.force_reconnect()
        # The client says so once its socket is closed, which may wait for what the system still tries to send.
        await self._disconnected()

    def _arm(self) -> None:
        at = self._register.next_deadline()
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick)

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._do()
            except (nats.errors.Error, OSError) as error:
                logger.debug("telling the broker: %r", error)  # which is lost; the client will say so
            except Exception:
                logger.exception("telling the broker failed")
            self._arm()

    async def _do(self) -> None:
        while self._outbox and self._client.is_connected:
            subject, data = self._outbox.popleft()
            await self._client.publish(subject, data)
        if self._client.is_connected and (self._wanted.keys() != self._subjects.keys()):
            await self._subscribe()
        await self._bucket.carry_out()

    async def _subscribe(self) -> None:
        for subject in self._subjects.keys() - self._wanted.keys():
            await self._subjects.pop(subject).unsubscribe()
        for subject in self._wanted.keys() - self._subjects.keys():
            self._subjects[subject] = await self._client.subscribe(
                subject, cb=self._wanted[subject], pending_msgs_limit=MAX_WAITING, pending_bytes_limit=MAX_WAITING_SIZE
            )

    # Small things.

    def _check(self) -> None:
        # A connection that is back counts from when the register was told.
        if not (self._client.is_connected and self._register.is_connected):
            raise BrokerAway(self.url)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def without_user(url: str) -> str:
    """What people may read of a broker's URL: not its user, password or token."""
    return re.sub(r"^(\w+://)?.*@", r"\1", url)


async def _close(client: Client) -> None:
    with suppress(nats.errors.Error, OSError):
        await client.close()


def _is_status(msg: Msg, status: str) -> bool:
    return not msg.data and bool(msg.headers) and (msg.headers or {}).get("Status") == status
