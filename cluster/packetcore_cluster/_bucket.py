"""The directory as a bucket of JetStream: what the register asks of it is carried out here, and what comes of that
is told to the register, which decides.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, KeyValueConfig, StreamInfo
from nats.js.client import JetStreamContext

from packetcore_cluster._log import logger
from packetcore_cluster._operations import Delete, Operation, Put, Read, Watch
from packetcore_cluster._register import Register
from packetcore_cluster._replies import Replies

MAX_OPERATIONS = 512
"""How many are under way at a time: enough to keep the broker busy, few enough for what else it is asked."""

MARKER_TTL = 3600
"""Seconds after which the broker, from version 2.11 on, forgets that a key was deleted. Before that a
watch tells of it; who looks later finds nothing there, which is the same."""

FAILURES = (nats.errors.Error, OSError, asyncio.TimeoutError)
"""What the client raises where the broker is away, refuses, or does not answer."""

_WRONG_REVISION = (10071, 10164)
"""JSStreamWrongLastSequenceErrF and JSStreamWrongLastSequenceConstantErr of nats-server."""

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"
_MARKER_REASON = "Nats-Marker-Reason"


class Bucket:
    """One bucket, by a connection that lasts as long as this. Used on the loop's thread alone.

    Args:
        client: the connection.
        name: the bucket's.
        register: what is told, and says what to ask.
        replies: answers of the broker.
        told: called after the register was told something.
        start: runs a coroutine as a task, for as long as the connection is used.
        replicas: on how many servers of a cluster the bucket is kept, where it is made.
        patience: seconds that the broker has to answer; it has twice as long to write.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        register: Register,
        replies: Replies[Msg],
        told: Callable[[], object],
        start: Callable[[Coroutine[Any, Any, None]], object],
        *,
        replicas: int,
        patience: float,
    ) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=patience)
        self._name = name
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."
        self._register = register
        self._replies = replies
        self._told = told
        self._start = start
        self._replicas = replicas
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._watch: JetStreamContext.PushSubscription | None = None
        self._latest: Watch | None = None
        self._markers_vanish = False
        self.trouble = f"did not tell the whole directory {name} in time"
        """Why the directory is not known yet, behind "the broker"."""
        self._under_way: dict[str, tuple[float, Put | Delete]] = {}  # by the subject of the answer, in order

    async def close(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            with suppress(nats.errors.Error):
                await self._watch.unsubscribe()

    def lost(self) -> None:
        """The connection is lost: what is under way will have no answer."""
        self._under_way.clear()

    def tick(self, now: float) -> None:
        """Give up what has had no answer for too long."""
        while self._under_way:
            inbox, (since, operation) = next(iter(self._under_way.items()))
            if since + 2 * self._patience > now:
                break
            del self._under_way[inbox]
            self._replies.forget(inbox)
            self._register.failed(operation, now)

    async def carry_out(self) -> None:
        """Ask the broker all that the register wants, as far as there is room."""
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

    async def read(self, key: str) -> tuple[int, bytes | None]:
        """The last revision of a key, 0 if it has none, and its value, `None` if it was deleted. Raises `FAILURES`."""
        try:
            # Not from whichever server is nearest, which may not know the latest.
            found = await self._js.get_last_msg(self._stream, self._prefix + key, direct=False)
        except nats.js.errors.NotFoundError:
            return 0, None
        return found.seq or 0, None if _is_deletion(found.headers) else found.data or b""

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
        except FAILURES as error:
            logger.debug("reading %s: %r", operation.key, error)
            self._register.failed(operation, self._loop.time())
        else:
            self._register.read(operation, revision, value, self._loop.time())
        self._told()

    async def _entry(self, watch: Watch, msg: Msg) -> None:
        metadata = msg.metadata
        key = msg.subject[len(self._prefix) :]
        now = self._loop.time()
        self._register.entry(watch, key, metadata.sequence.stream, None if _is_deletion(msg.headers) else msg.data, now)
        if metadata.num_pending == 0:
            self._register.synced(watch, now)
        self._told()

    async def _begin_watch(self, watch: Watch) -> None:
        self._latest = watch
        try:
            if self._watch is not None:
                before, self._watch = self._watch, None
                with suppress(nats.errors.Error):
                    await before.unsubscribe()
            info = await self._stream_info()
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
        except FAILURES as error:
            why: object = getattr(error, "description", None) or error or type(error).__name__
            if isinstance(error, nats.js.errors.ServiceUnavailableError):
                why = "is JetStream enabled?"
            self.trouble = f"does not tell the directory {self._name}: {why}"
            level = logging.DEBUG if not self._client.is_connected else logging.WARNING
            logger.log(level, "the broker %s", self.trouble)
            self._register.failed(watch, self._loop.time())
        self._told()

    async def _stream_info(self) -> StreamInfo:
        """The bucket, which is made where there is none."""
        try:
            return await self._js.stream_info(self._stream)
        except nats.js.errors.NotFoundError:
            description = "who holds which identity, and which workers live (packetcore-cluster)"
            config = KeyValueConfig(bucket=self._name, description=description, replicas=self._replicas, direct=True)
            await self._js.create_key_value(config)
            return await self._js.stream_info(self._stream)


def _is_deletion(headers: dict[str, str] | None) -> bool:
    return headers is not None and (_OPERATION in headers or _MARKER_REASON in headers)
