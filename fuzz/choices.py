"""Choices made by a fuzzer's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """What a fuzzer's bytes decide. Once there are none left, every choice is the first one: a program that was
    cut short ends quietly.

    What a program does is read from the front, and what its callbacks do from the back, so that a byte
    more for the one leaves the other as it was.

    Args:
        data: the bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._front = 0
        self._back = len(data)

    def __len__(self) -> int:
        """How many bytes are left."""
        return self._back - self._front

    def byte(self) -> int:
        """The next byte; 0 at the end."""
        if self._front == self._back:
            return 0
        self._front += 1
        return self._data[self._front - 1]

    def callback(self) -> int:
        """The last byte that is left; 0 at the end."""
        if self._front == self._back:
            return 0
        self._back -= 1
        return self._data[self._back]

    def pick(self, options: Sequence[T]) -> T:
        """One of several."""
        return options[self.byte() % len(options)]

    def take(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        start = self._front
        self._front = min(self._back, start + size)
        return self._data[start : self._front]

    def chunks(self) -> list[bytes]:
        """All that is left, cut: not at all, at one place, or into chunks of one size."""
        how = self.byte()
        stream = self.take(len(self))
        if how >= 128:
            at = len(stream) * (how - 128) // 127
            return [stream[:at], stream[at:]]
        size = how or max(1, len(stream))
        return [stream[at : at + size] for at in range(0, len(stream), size)]
