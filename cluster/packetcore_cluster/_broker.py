"""The register's operations, and what workers say to each other, on a broker of NATS: by `nats-py`.

It decides nothing about claims: `Register` does. It keeps one connection, which comes back by itself, carries
out operations, a bounded number at a time, and tells the register what came of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import DeliverPolicy, KeyValueConfig, StreamInfo
from nats.js.client import JetStreamContext

from packetcore_cluster._errors import BrokerAway
from packetcore_cluster._operations import Delete, Operation, Put, Read, Watch
from packetcore_cluster._register import Register
from packetcore_cluster._replies import Replies

logger = logging.getLogger("packetcore.cluster")

MAX_OPERATIONS = 512
"""How many are under way at a time: enough to keep the broker busy, few enough for what else it is asked."""

MAX_WAITING = 4096
MAX_WAITING_SIZE = 16 * 1024 * 1024
"""How many messages of other workers, and of how many bytes, wait to be looked at by a loop that is busy; more
are dropped, and counted. Callers wait for answers, a bounded number of them, so that it takes many callers."""

MARKER_TTL = 3600
"""Seconds after which the broker, from version 2.11 on, forgets that a key was deleted. Before that a
watch tells of it; who looks later finds nothing there, which is the same."""

RECONNECT = 0.25
"""Seconds between two tries to reach the broker."""

_WRONG_REVISION = (10071, 10164)
"""JSStreamWrongLastSequenceErrF and JSStreamWrongLastSequenceConstantErr of nats-server."""

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"
_MARKER_REASON = "Nats-Marker-Reason"

Heard = Callable[[Msg], Any]


class Broker:
    """One worker's connection. Used on its loop's thread alone.

    Args:
        servers: URLs of the broker, or of several that are one cluster.
        bucket: the directory's name.
        register: what is told, and says what to ask.
        changed: called after the register was told something.
        replicas: on how many servers of a cluster the directory is kept, where it is made.
        patience: seconds after which a broker from which nothing comes is given up. It has twice as long to
            answer to an operation.
        options: what else `nats.connect` takes.
    """

    def __init__(
        self,
        servers: Sequence[str],
        bucket: str,
        register: Register,
        changed: Callable[[], object],
        *,
        replicas: int,
        patience: float,
        options: dict[str, Any],
    ) -> None:
        self._servers = [*servers]
        self._bucket = bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._register = register
        self._changed = changed
        self._replicas = replicas
        self._patience = patience
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._client = Client()
        self._js: JetStreamContext
        self._replies: Replies[Msg]
        self._watch: JetStreamContext.PushSubscription | None = None
        self._latest: Watch | None = None
        self._markers_vanish = False
        self._under_way: dict[str, tuple[float, Put | Delete]] = {}  # by the subject of the answer, in order
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._subjects: dict[str, Subscription] = {}
        self._wanted: dict[str, Heard] = {}
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False
        self._heard = 0
        self._heard_at = self._loop.time()
        self._silent_ticks = 0
        self.dropped = 0
        """Messages that came while too many waited."""

    @property
    def url(self) -> str:
        """The broker's, as it was given."""
        return self._servers[0]

    @property
    def max_payload(self) -> int:
        """The longest message that it takes, in bytes."""
        return self._client.max_payload

    async def open(self, timeout: float) -> None:
        """Connect.

        Raises:
            BrokerAway: it was not reached in time.
        """
        settings: dict[str, Any] = {
            "connect_timeout": 2,
            "reconnect_time_wait": RECONNECT,
            **self._options,
        }
        connecting = self._client.connect(
            servers=self._servers,
            max_reconnect_attempts=-1,
            error_cb=self._erred,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            **settings,
        )
        try:
            await asyncio.wait_for(connecting, timeout)
        except (OSError, asyncio.TimeoutError, nats.errors.Error) as error:
            await self._close_client()
            said = self._client.last_error or error
            raise BrokerAway(self.url, str(said) or type(said).__name__) from error
        except BaseException:  # who waited was interrupted
            await self._close_client()
            raise
        self._js = self._client.jetstream(timeout=self._patience)
        self._replies = Replies(self._client.new_inbox())
        await self._client.subscribe(self._replies.subject, cb=self._answered)
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
        if self._watch is not None:
            with suppress(nats.errors.Error):
                await self._watch.unsubscribe()
        await self._close_client()
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

    async def publish(self, subject: str, data: bytes) -> None:
        """Publish.

        Raises:
            BrokerAway: the broker cannot be reached.
        """
        self._check()
        await self._client.publish(subject, data)

    async def call(self, subject: str, data: bytes, timeout: float | None) -> bytes | None:
        """Publish, and wait for the answer.

        Returns:
            It; or `None` where nobody listens to the subject, as the broker says at once.

        Raises:
            BrokerAway: the broker cannot be reached, or is lost before the answer has come.
            TimeoutError: there was none in time.
        """
        self._check()
        answered: asyncio.Future[Msg | None] = self._loop.create_future()

        def done(msg: Msg | None) -> None:
            if not answered.done():
                answered.set_result(msg)

        def late() -> None:
            if not answered.done():
                answered.set_exception(TimeoutError(f"no answer in {timeout} s"))

        inbox = self._replies.expect(done)
        timer = None if timeout is None else self._loop.call_later(timeout, late)
        try:
            await self._client.publish(subject, data, reply=inbox)
            msg = await answered
        finally:
            self._replies.forget(inbox)
            if timer is not None:
                timer.cancel()
        if msg is None:
            raise BrokerAway(self.url, "lost while waiting for an answer")
        return None if _is_status(msg, "503") else msg.data

    async def read(self, key: str) -> tuple[int, bytes | None]:
        """The last revision of a key, 0 if it has none, and its value, `None` if it was deleted.

        Raises:
            BrokerAway: the broker cannot be reached, or did not answer.
        """
        self._check()
        try:
            # Not from whichever server is nearest, which may not know the latest.
            found = await self._js.get_last_msg(self._stream, self._prefix + key, direct=False)
        except nats.js.errors.NotFoundError:
            return 0, None
        except (nats.errors.Error, nats.js.errors.Error, OSError, asyncio.TimeoutError) as error:
            raise BrokerAway(self.url, f"reading {key}: {error}") from error
        return found.seq or 0, None if _is_deletion(found.headers) else found.data or b""

    # What the client calls.

    async def _disconnected(self) -> None:
        if self._is_open:
            self._under_way.clear()
            self._outbox.clear()
            self._register.disconnected(self._loop.time())
            self._replies.lose()
            self._changed()

    async def _reconnected(self) -> None:
        if self._is_open:
            self._register.connected(self._loop.time())
            self._told()

    async def _erred(self, error: Exception) -> None:
        self.dropped += isinstance(error, nats.errors.SlowConsumerError)
        logger.debug("the broker's client: %r", error)

    async def _answered(self, msg: Msg) -> None:
        self._replies.take(msg.subject, msg)

    async def _entry(self, watch: Watch, msg: Msg) -> None:
        metadata = msg.metadata
        key = msg.subject[len(self._prefix) :]
        now = self._loop.time()
        self._register.entry(watch, key, metadata.sequence.stream, None if _is_deletion(msg.headers) else msg.data, now)
        if metadata.num_pending == 0:
            self._register.synced(watch, now)
        self._told()

    # The pump.

    def _told(self) -> None:
        self._changed()
        self._work.set()

    def _tick(self) -> None:
        now = self._loop.time()
        self._timer = None
        self._look_for_life(now)
        while self._under_way:
            inbox, (since, operation) = next(iter(self._under_way.items()))
            if since + 2 * self._patience > now:
                break
            del self._under_way[inbox]
            self._replies.forget(inbox)
            self._register.failed(operation, now)
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
        while self._client.is_connected and (room := MAX_OPERATIONS - len(self._under_way)) > 0:
            operations = self._register.operations(room)
            if not operations:
                break
            while operations:
                try:
                    await self._ask(operations[0])
                except (nats.errors.Error, OSError):
                    for operation in operations:
                        self._register.failed(operation, self._loop.time())
                    raise
                del operations[0]

    async def _subscribe(self) -> None:
        for subject in self._subjects.keys() - self._wanted.keys():
            await self._subjects.pop(subject).unsubscribe()
        for subject in self._wanted.keys() - self._subjects.keys():
            self._subjects[subject] = await self._client.subscribe(
                subject, cb=self._wanted[subject], pending_msgs_limit=MAX_WAITING, pending_bytes_limit=MAX_WAITING_SIZE
            )

    async def _ask(self, operation: Operation) -> None:
        if isinstance(operation, Watch):
            self._start(self._begin_watch(operation))
        elif isinstance(operation, Read):
            self._start(self._read(operation))
        else:
            await self._write(operation)

    async def _write(self, operation: Put | Delete) -> None:
        headers: dict[str, str] = {}
        if operation.expected is not None:
            headers[_EXPECTED] = str(operation.expected)
        data = b""
        if isinstance(operation, Put):
            data = operation.value
        else:
            headers[_OPERATION] = "DEL"
            if self._markers_vanish:
                headers["Nats-TTL"] = str(MARKER_TTL)
        inbox = self._replies.expect(lambda msg: self._written(operation, inbox, msg))
        self._under_way[inbox] = self._loop.time(), operation
        await self._client.publish(self._prefix + operation.key, data, reply=inbox, headers=headers or None)

    def _written(self, operation: Put | Delete, inbox: str, msg: Msg | None) -> None:
        self._under_way.pop(inbox, None)
        if msg is None:
            return  # the register knows that the connection is lost
        now = self._loop.time()
        try:
            said = json.loads(msg.data)
            if "error" not in said:
                self._register.done(operation, int(said["seq"]), now)
            elif said["error"].get("err_code") in _WRONG_REVISION:
                self._register.conflicted(operation, now)
            else:
                logger.warning("the broker refused to write %s: %s", operation.key, said["error"])
                self._register.failed(operation, now)
        except (ValueError, LookupError, TypeError):  # nobody there that keeps the directory
            self._register.failed(operation, now)
        self._told()

    async def _read(self, operation: Read) -> None:
        try:
            revision, value = await self.read(operation.key)
        except BrokerAway as error:
            logger.debug("%s", error)
            self._register.failed(operation, self._loop.time())
        else:
            self._register.read(operation, revision, value, self._loop.time())
        self._told()

    async def _begin_watch(self, watch: Watch) -> None:
        self._latest = watch
        try:
            if self._watch is not None:
                before, self._watch = self._watch, None
                with suppress(nats.errors.Error):
                    await before.unsubscribe()
            info = await self._directory()
            self._markers_vanish = bool(info.config.allow_msg_ttl)
            bucket = f"{info.config.name} {info.created}"
            self._register.watching(watch, bucket, info.state.last_seq, self._loop.time())
            subscription = await self._js.subscribe(
                f"{self._prefix}>",
                stream=self._stream,
                cb=partial(self._entry, watch),
                ordered_consumer=True,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                pending_msgs_limit=0,
                pending_bytes_limit=0,
                inactive_threshold=60.0,
            )
            if watch is not self._latest:  # that took so long that another was begun
                await subscription.unsubscribe()
                return
            self._watch = subscription
            # Nothing is asked here of the broker: its answer would come behind all that it tells now.
            if not info.state.messages:
                self._register.synced(watch, self._loop.time())
        except (nats.errors.Error, nats.js.errors.Error, OSError, asyncio.TimeoutError) as error:
            level = logging.DEBUG if not self._client.is_connected else logging.WARNING
            logger.log(level, "the directory %s cannot be watched: %r", self._bucket, error)
            self._register.failed(watch, self._loop.time())
        self._told()

    async def _directory(self) -> StreamInfo:
        try:
            return await self._js.stream_info(self._stream)
        except nats.js.errors.NotFoundError:
            description = "who holds which identity, and which workers live (packetcore-cluster)"
            config = KeyValueConfig(bucket=self._bucket, description=description, replicas=self._replicas, direct=True)
            await self._js.create_key_value(config)
            return await self._js.stream_info(self._stream)

    # Small things.

    def _check(self) -> None:
        if not self._client.is_connected:
            raise BrokerAway(self.url)

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_client(self) -> None:
        with suppress(nats.errors.Error, OSError):
            await self._client.close()


def _is_deletion(headers: dict[str, str] | None) -> bool:
    return headers is not None and (_OPERATION in headers or _MARKER_REASON in headers)


def _is_status(msg: Msg, status: str) -> bool:
    return not msg.data and bool(msg.headers) and (msg.headers or {}).get("Status") == status
