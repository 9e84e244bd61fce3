"""Files that a thread of its own writes, so that whoever has something to say never waits for a disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

CAPACITY = 16 << 20
"""Bytes that wait for the disk at most: a quarter of a second of what one may write."""

BATCH = 1 << 20
"""Bytes that are written at once."""

ITEM_COST = 100
"""Bytes that an item counts beside its own: what Python keeps for it, about."""

FLUSH_TIMEOUT = 5.0
"""Seconds that `close` waits for a disk."""


class Spool:
    """A file that is written behind the back of its writer, and the older ones beside it.

    The newest is always at `path`; the one before it has a 1 ahead of its suffix, as in `field.1.pcapng`, and so
    on. What is at `path` already, and such older ones, are renamed likewise, and the oldest deleted. Files are for
    their owner's eyes alone, as dumpcap's are. What is no regular file, as a named pipe, is written as it is, all in
    one.

    Args:
        path: the file.
        keep: how many files there are at most, this one included.
        failed: called on the thread that writes when it cannot, with why; nothing is written after that.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], keep: int, failed: Callable[[OSError], object]) -> None:
        self.error: OSError | None = None
        """Why nothing is written any more."""
        self._path = Path(path)
        self._keep = keep
        self._failed = failed
        self._waiting: deque[bytes | None] = deque()  # `None` for another file
        self._size = 0
        self._is_ending = False
        self._is_idle = False
        self._changed = threading.Condition()
        self._is_regular = self._path.is_file() or not self._path.exists()
        self._written = 0  # bytes of the file that are whole
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="packetcore-spool", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether the disk is so far behind that nothing more should be put, save what must be."""
        return self._size >= CAPACITY

    def put(self, data: bytes) -> None:
        """Write some bytes soon, behind all that was put. Never blocks."""
        self._put(data, len(data))

    def turn(self) -> None:
        """Begin another file with what is put next."""
        self._put(None, 0)

    def close(self) -> bool:
        """Write what waits, for at most `FLUSH_TIMEOUT` seconds, and close. Idempotent.

        Returns:
            Whether all was written.
        """
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(FLUSH_TIMEOUT)
        return not self._thread.is_alive() and self.error is None

    def _put(self, item: bytes | None, size: int) -> None:
        with self._changed:
            if self._is_ending or self.error is not None:
                return
            self._waiting.append(item)
            self._size += size + ITEM_COST
            if self._is_idle:
                self._changed.notify()

    def _run(self) -> None:
        try:
            while batch := self._taken():
                self._write(batch)
        except OSError as error:
            with self._changed:
                self.error = error
                self._waiting.clear()
                self._size = 0
            self._failed(error)
        finally:
            self._file.close()

    def _taken(self) -> list[bytes | None]:
        """What is written next; nothing once the end has come."""
        with self._changed:
            self._is_idle = True
            self._changed.wait_for(lambda: self._waiting or self._is_ending)
            self._is_idle = False
            batch: list[bytes | None] = []
            size = 0
            while self._waiting and size < BATCH:
                item = self._waiting.popleft()
                batch.append(item)
                size += len(item or b"")
            self._size -= size + ITEM_COST * len(batch)
            return batch

    def _write(self, batch: list[bytes | None]) -> None:
        parts: list[bytes] = []
        for item in batch:
            if item is not None:
                parts.append(item)
                continue
            if self._is_regular:
                self._write_all(b"".join(parts))
                parts.clear()
                self._file.close()
                self._file = self._open()
        self._write_all(b"".join(parts))

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with suppress(OSError):  # a full disk: leave no half block behind
                self._file.truncate(self._written)
            raise
        self._written += len(data)

    def _open(self) -> FileIO:
        self._written = 0
        if not self._is_regular:
            return FileIO(self._path, "w", opener=_open_private)
        paths = [self._path, *(self._older(number) for number in range(1, self._keep))]
        for older, newer in zip(paths[:0:-1], paths[-2::-1], strict=True):
            with suppress(FileNotFoundError):
                os.replace(newer, older)
        return FileIO(self._path, "w", opener=_open_private)

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number}{self._path.suffix}")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
