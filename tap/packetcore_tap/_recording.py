"""Conversations written to files: a capture that turns, and that never holds up who says what was said.

Blocks are made on the caller's own thread, where they cost what making them takes, and written on another, so
that a slow disk delays nobody. What it has no room for is left out and counted, where it is missing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Literal

from packetcore import Address
from packetcore_tap._capture import CaptureWriter, Side
from packetcore_tap._spool import Spool

logger = logging.getLogger("packetcore")

MIN_BYTES = 1 << 20
"""The least that `max_bytes` may be: a few of the longest chunks that a socket gives at a time."""

_END_COST = 4096
"""Bytes kept free in each file for what it ends with."""


class Recording:
    """A `CaptureWriter` with files behind it; from any thread. `Recorder` records sessions by it.

    The newest file is at `path` and can be read at any time, up to what the disk has. The one before it has a 1
    ahead of its suffix, and so on; what is in `path` already is kept as one of those. Where the file cannot be
    written, as on a full disk, the recording ends with one line in the log.

    Args:
        path: the capture, such as "field.pcapng"; the one before it becomes "field.1.pcapng".
        max_bytes: how long a file may be, in bytes, at least 1 MiB; then the next begins.
        keep: how many files there are at most: so all of them together have `keep * max_bytes` bytes.
        clock: gives the time in nanoseconds since the beginning of 1970.

    Raises:
        OSError: the file cannot be made.
        ValueError: a limit is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 << 20,
        keep: int = 5,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"max_bytes={max_bytes} must be at least {MIN_BYTES}")
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        self.path = os.fspath(path)
        """Where the newest file is."""
        self.missed = 0
        """How many chunks are not in it, because the disk was too slow or they were too long."""
        self.is_closed = False
        """Whether nothing is recorded any more."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.RLock()  # re-entrant: collecting garbage may end a conversation
        self._writer = CaptureWriter()
        self._spool = Spool(path, keep, self._failed)
        self._size = 0  # of the file, with what waits for the disk
        self._begin()

    @property
    def error(self) -> OSError | None:
        """Why it has ended early; `None` if it has not."""
        return self._spool.error

    def opened(
        self,
        conversation: Hashable,
        client: Address | None,
        server: Address | None,
        *,
        kind: Literal["stream", "datagram"] = "stream",
        here: Side | None = None,
        comment: str = "",
    ) -> None:
        """See `CaptureWriter`, and so all that follows. While the disk has no room, a conversation that begins is
        not recorded at all."""
        with self._lock:
            if self.is_closed or self._spool.is_full:
                return
            now = self._make_room(0)
            self._put(self._writer.opened(conversation, client, server, now, kind=kind, here=here, comment=comment))

    def data(self, conversation: Hashable, sender: Side, data: bytes) -> None:
        """One side has sent something."""
        with self._lock:
            if self.is_closed:
                return
            if conversation not in self._writer:
                self.missed += 1
            elif self._spool.is_full or self._writer.most(len(data)) > self._max_bytes // 2:
                self.missed += 1
                self._writer.missed(conversation, sender, len(data))
            else:
                now = self._make_room(len(data))
                self._put(self._writer.data(conversation, sender, data, now))

    def ended(self, conversation: Hashable, sender: Side) -> None:
        """One side of a stream has finished sending."""
        with self._lock:
            if conversation in self._writer:
                now = self._make_room(0)
                self._put(self._writer.ended(conversation, sender, now))

    def has_ended(self, conversation: Hashable, sender: Side) -> bool:
        """Whether one side has finished sending, or the conversation is not recorded."""
        with self._lock:
            return conversation not in self._writer or self._writer.has_ended(conversation, sender)

    def closed(self, conversation: Hashable, *, reset: Side | None = None, comment: str = "") -> None:
        """A conversation is over."""
        with self._lock:
            if conversation in self._writer:
                now = self._make_room(0)
                self._put(self._writer.closed(conversation, now, reset=reset, comment=comment))

    def forget(self, conversation: Hashable) -> None:
        """Nothing more will be known of a conversation."""
        with self._lock:
            self._writer.forget(conversation)

    def close(self) -> None:
        """End the recording, and wait up to 5 seconds for the disk. Idempotent."""
        with self._lock:
            if not self.is_closed:
                self._spool.put(self._writer.finish(self._clock()))
                self.is_closed = True
        if not self._spool.close() and self._spool.error is None:
            logger.error("recording to %s: the disk took too long, the end is missing", self.path)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make_room(self, size: int) -> int:
        """Begin another file where the blocks of a chunk of so many bytes could make this one too long. Gives the
        time."""
        now = self._clock()
        if self._size + self._writer.most(size) > self._max_bytes - _END_COST and not self.is_closed:
            self._spool.put(self._writer.finish(now))
            self._spool.turn()
            self._begin()
        return now

    def _put(self, blocks: bytes) -> None:
        if blocks and not self.is_closed:
            self._size += len(blocks)
            self._spool.put(blocks)

    def _begin(self) -> None:
        head = self._writer.begin()
        self._size = len(head)
        self._spool.put(head)

    def _failed(self, error: OSError) -> None:
        with self._lock:
            self.is_closed = True
        logger.error("recording to %s has ended: %s", self.path, error)
