"""A file that grows, read like one that does not: `packetcore decode --follow`. What became of it is told: others took
its place, as with logs that are rotated, or it was cut short and begins anew."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator

from packetcore_cli._failure import Failure, reason_of

INTERVAL = 0.1
"""Seconds between two looks at a file of which all was read."""


class Growing:
    """One file, from its beginning: `read` waits for what is not there yet.

    Args:
        path: where it is; `-` for standard input.
        tell: told in a sentence why a stream has ended before another begins.
        waiting: called again and again while there is nothing to read, and may raise what ends the wait.

    Raises:
        Failure: it cannot be opened.
    """

    def __init__(self, path: str, tell: Callable[[str], object], waiting: Callable[[], object]) -> None:
        self._path = path
        self._tell = tell
        self._waiting = waiting
        self._descriptor = self._open()
        self._at = 0
        self._is_gone = False
        self._has_more = True  # whether another stream may follow this one

    def streams(self) -> Iterator[Growing]:
        """This, once for each stream that it turns out to hold."""
        while self._has_more:
            yield self

    def read(self, size: int, /) -> bytes:
        """Wait for bytes, at most so many; none at the end of a stream.

        Raises:
            Failure: it cannot be read.
        """
        while True:
            try:
                data = os.read(self._descriptor, size)
                if data:
                    self._at += len(data)
                    return data
                now = os.fstat(self._descriptor)
            except OSError as error:
                raise Failure(f"cannot read {self._path!r}: {reason_of(error)}") from None
            if not stat.S_ISREG(now.st_mode):  # a pipe or a terminal that has ended
                self._has_more = False
                return b""
            if now.st_size < self._at:
                self._tell(f"{self._name} was cut short: from its beginning again")
                os.lseek(self._descriptor, 0, os.SEEK_SET)
                self._at = 0
                return b""
            if self._has_follower(now) and now.st_size == self._at:
                self._replace()
                return b""
            self._waiting()
            time.sleep(INTERVAL)

    def close(self) -> None:
        """Close the file, unless it is standard input."""
        if self._path != "-":
            os.close(self._descriptor)

    @property
    def _name(self) -> str:
        return "standard input" if self._path == "-" else repr(self._path)

    def _open(self) -> int:
        if self._path == "-":
            if sys.stdin is None:
                raise Failure("standard input is closed")
            return sys.stdin.fileno()
        try:
            return os.open(self._path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except (OSError, ValueError) as error:
            raise Failure(f"cannot read {self._path!r}: {reason_of(error)}") from None

    def _has_follower(self, now: os.stat_result) -> bool:
        """Whether another file has taken the place of this one, which goes on until then."""
        if self._path == "-":
            return False
        try:
            is_gone, is_another = False, not os.path.samestat(now, os.stat(self._path))
        except FileNotFoundError:
            is_gone, is_another = True, False
        except OSError as error:
            raise Failure(f"cannot read {self._path!r}: {reason_of(error)}") from None
        if is_gone and not self._is_gone:
            self._tell(f"{self._name} is gone: waiting for another")
        self._is_gone = is_gone
        return is_another

    def _replace(self) -> None:
        following = self._open()
        os.close(self._descriptor)
        self._descriptor, self._at = following, 0
        self._tell(f"another file took the place of {self._name}: from its beginning")
