"""Receiving: chunks and the time in, what they complete out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packetcore._codec import FrameDecoder
from packetcore._events import Malformed
from packetcore._messages import Joiner
from packetcore._state import State

_OPEN = State.OPEN
"""Looking a member up in its enum takes longer than all else that a check costs."""


class Receiver:
    """The part of a connection that is done for each chunk it receives."""

    __slots__ = (
        "_bytes_received",
        "_decoder",
        "_heard",
        "_joiner",
        "_now",
        "_packets_received",
        "frame_since",
        "state",
    )

    state: State
    """Where the conversation stands; to be read only."""
    frame_since: float | None
    """When the bytes pending began to come, `None` if there are none; to be read only."""
    _decoder: FrameDecoder[Any]
    _joiner: Joiner | None
    _now: float
    _heard: float  # when the peer last showed a sign of life
    _packets_received: int
    _bytes_received: int

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Any]:
        """Take bytes that came from the peer, in order, cut anywhere; none mean nothing.

        Returns:
            What they complete. After a `Closed` there is nothing more to feed.

        Raises:
            LocalProtocolError: the peer's stream has ended already.
        """
        if self.state is not _OPEN:
            return self._receive_late(data, now)
        if now < self._now:
            now = self._now
        self._now = now
        if not data:
            return []
        self._heard = now
        decoder = self._decoder
        frames = decoder.feed(data)
        # An event ends all bytes before it, so what is pending after one began just now.
        if not decoder.pending:
            self.frame_since = None
        elif frames or self.frame_since is None:
            self.frame_since = now
        self._bytes_received += len(data)
        if self._joiner is None and Malformed not in map(type, frames):
            self._packets_received += len(frames)
            return [*frames]
        return self._deliver(frames)

    def _receive_late(self, data: bytes | bytearray | memoryview, now: float) -> list[Any]:
        raise NotImplementedError

    def _deliver(self, frames: Sequence[Any]) -> list[Any]:
        raise NotImplementedError
