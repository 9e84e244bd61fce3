"""Two ends joined: one direction of a stream or of datagrams, that misbehaves as it is told.

Time is an argument and never goes back; chance comes from the caller's `Random`, of which `random()` alone is
used, so that a seed gives the same on every Python.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf
from random import Random

from packetcore_tap._impairments import Impairments

SEGMENT = 1460
"""Bytes that leave together where there is a bandwidth: what a TCP segment holds on Ethernet (RFC 9293, 3.7.1)."""


class _Link:
    """What links have in common."""

    def __init__(self, impairments: Impairments, random: Random) -> None:
        self.impairments = impairments
        self.size = 0
        """Bytes that it holds."""
        self.is_stalled = False
        """Whether nothing arrives until `resume`."""
        self.is_black_hole = False
        """Whether it takes everything and nothing ever arrives."""
        self._random = random
        self._free_at = -inf  # when the bytes sent until now have left

    def stall(self) -> None:
        """Let nothing arrive until `resume`: what is sent fills the buffer."""
        self.is_stalled = True

    def resume(self) -> None:
        """End a stall: what was due meanwhile arrives now."""
        self.is_stalled = False

    @property
    def _is_silent(self) -> bool:
        return self.is_stalled or self.is_black_hole

    def _arrival(self, size: int, now: float) -> float:
        """When so many bytes arrive that are sent now."""
        impairments = self.impairments
        leaves = now
        if impairments.bandwidth is not None:
            leaves = self._free_at = max(now, self._free_at) + size / impairments.bandwidth
        arrives = leaves + impairments.latency
        return arrives + impairments.jitter * self._random.random() if impairments.jitter else arrives


class StreamLink(_Link):
    """One direction of a stream. In order, and complete unless it is a black hole or corrupts.

    Args:
        impairments: what it does; may be replaced at any time, for what is sent from then on.
        random: where chance comes from.
    """

    def __init__(self, impairments: Impairments, random: Random) -> None:
        super().__init__(impairments, random)
        self._held: deque[tuple[float, bytes]] = deque()
        self._last = -inf  # when the last piece arrives
        self._ends_at: float | None = None

    @property
    def room(self) -> int | None:
        """How many bytes it would take now; `None` for any number."""
        buffer = self.impairments.buffer
        return None if buffer is None else max(0, buffer - self.size)

    def send(self, data: bytes, now: float) -> int:
        """Take bytes, as many as there is room for.

        Returns:
            How many it took.

        Raises:
            ValueError: the stream was ended.
        """
        if self._ends_at is not None:
            raise ValueError("send after send_eof")
        room = self.room
        if room is not None and len(data) > room:
            data = data[:room]
        if self.is_black_hole or not data:
            return len(data)
        impairments = self.impairments
        if impairments.corrupt:
            data = _corrupted(data, impairments.corrupt, self._random)
        self.size += len(data)
        if impairments.cut is not None:
            self._cut(data, now, impairments.cut)
        elif impairments.bandwidth is not None:
            for start in range(0, len(data), SEGMENT):
                self._take(data[start : start + SEGMENT], now)
        else:
            self._take(data, now)
        return len(data)

    def send_eof(self, now: float) -> None:
        """End the stream after what was sent. Idempotent."""
        if self._ends_at is None:
            self._ends_at = max(self._last, now + self.impairments.latency)

    def has_ended(self, now: float) -> bool:
        """Whether all has been received, and then the end has come."""
        return self._ends_at is not None and not self._held and self._ends_at <= now and not self._is_silent

    def receive(self, now: float) -> list[bytes]:
        """What has arrived by now and was not received yet: the pieces as they came, each for one read."""
        if self.is_stalled:
            return []
        pieces = []
        held = self._held
        while held and held[0][0] <= now:
            pieces.append(held.popleft()[1])
        if not pieces:
            return pieces
        self.size -= sum(map(len, pieces))
        return [b"".join(pieces)] if self.impairments.merge else pieces

    def next_deadline(self) -> float | None:
        """When the next piece or the end arrives; `None` while that is not known."""
        if self._is_silent:
            return None
        return self._held[0][0] if self._held else self._ends_at

    def black_hole(self) -> None:
        """Lose what is under way and what is sent from now on, the end as well."""
        self.is_black_hole = True
        self._held.clear()
        self.size = 0

    def _cut(self, data: bytes, now: float, most: int) -> None:
        start = 0
        while start < len(data):
            end = start + 1 + int(self._random.random() * most)
            self._take(data[start:end], now, self.impairments.gap)
            start = end

    def _take(self, piece: bytes, now: float, gap: float = 0.0) -> None:
        arrives, merge = self._arrival(len(piece), now), self.impairments.merge
        if merge and arrives > self._last:
            arrives += merge  # the first of those that wait for each other
        self._last = max(self._last + gap, arrives)
        self._held.append((self._last, piece))


class DatagramLink(_Link):
    """One direction between two datagram sockets: it may lose, double and reorder.

    Args:
        impairments: what it does; may be replaced at any time, for what is sent from then on.
        random: where chance comes from.
    """

    def __init__(self, impairments: Impairments, random: Random) -> None:
        super().__init__(impairments, random)
        self._held: list[tuple[float, int, bytes]] = []
        self._count = 0

    def send(self, data: bytes, now: float) -> bool:
        """Take one datagram.

        Returns:
            Whether there was room for it; one that is lost on the way was taken.
        """
        impairments, random = self.impairments, self._random
        if impairments.buffer is not None and self.size + len(data) > impairments.buffer:
            return False
        if self.is_black_hole or (impairments.loss and random.random() < impairments.loss):
            return True
        copies = 2 if impairments.duplication and random.random() < impairments.duplication else 1
        for _ in range(copies):
            arrives = self._arrival(len(data), now)
            self._count += 1
            self.size += len(data)
            copy = _corrupted(data, impairments.corrupt, random) if impairments.corrupt else data
            heappush(self._held, (arrives, self._count, copy))
        return True

    def receive(self, now: float) -> list[bytes]:
        """The datagrams that have arrived by now and were not received yet, in the order in which they did."""
        arrived: list[bytes] = []
        while not self.is_stalled and self._held and self._held[0][0] <= now:
            arrived.append(heappop(self._held)[2])
        self.size -= sum(map(len, arrived))
        return arrived

    def next_deadline(self) -> float | None:
        """When the next one arrives; `None` if none is under way, or while that is not known."""
        return self._held[0][0] if self._held and not self._is_silent else None

    def black_hole(self) -> None:
        """Lose what is under way and what is sent from now on."""
        self.is_black_hole = True
        self._held.clear()
        self.size = 0


def _corrupted(data: bytes, chance: float, random: Random) -> bytes:
    changed = bytearray(data)
    for index in range(len(changed)):
        if random.random() < chance:
            changed[index] ^= 1 + int(random.random() * 255)
    return bytes(changed)
