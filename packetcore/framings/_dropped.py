"""Bytes outside any frame: counted, and not kept but for a sample."""

from __future__ import annotations

from packetcore._events import SAMPLE_SIZE, Malformed
from packetcore._reasons import Reason


class Dropped:
    """Those of one decoder, until they are reported as NOISE."""

    __slots__ = ("_sample", "size")

    size: int
    """How many there are; to be read only."""

    def __init__(self) -> None:
        self.size = 0
        self._sample = b""

    def add(self, data: bytes) -> None:
        """Count bytes, and keep them if they are among the first."""
        self.size += len(data)
        if len(self._sample) < SAMPLE_SIZE:
            self._sample = (self._sample + data[:SAMPLE_SIZE])[:SAMPLE_SIZE]

    def take(self) -> list[Malformed]:
        """One NOISE for all of them, nothing if there are none; and begin anew."""
        if not self.size:
            return []
        noise = Malformed(Reason.NOISE, self.size, self._sample)
        self.size = 0
        self._sample = b""
        return [noise]
