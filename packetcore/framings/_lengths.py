"""Streams in which the length of a frame is known before its end comes."""

from __future__ import annotations

from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings._dropped import Dropped
from packetcore.framings._framing import Data, Frames, as_bytes


class LengthDecoder:
    """The part of a decoder that holds what is incomplete; a subclass cuts off what is not.

    Args:
        bound: the most bytes that are held, as `pending` has it.
        begun: how many of its first bytes make a frame begun.
    """

    __slots__ = ("_begun", "_bound", "_dropped", "_held", "_lost", "_need")

    def __init__(self, bound: int, begun: int = 1) -> None:
        self._bound = bound
        self._begun = begun
        self._held = bytearray()
        self._need = 0  # how many bytes must be held for `_cut` to find anything new
        self._lost = False  # nobody can tell any more where a frame begins
        self._dropped = Dropped()

    @property
    def pending(self) -> int:
        return min(self._dropped.size + len(self._held), self._bound)

    def feed(self, data: Data, /) -> Frames:
        data = as_bytes(data)
        events: Frames = []
        if self._lost:
            self._keep(data)
            return []
        held = self._held
        if held:
            held += data
            if len(held) < self._need:
                return events
            data = bytes(held)
            held.clear()
        at = self._cut(data, events)
        if at < len(data):
            self._keep(data[at:])
        return events

    def feed_eof(self) -> list[Malformed]:
        events = self._take_noise()
        if self._held:
            events.append(Malformed.of(Reason.TRUNCATED, self._held))
            self._held.clear()
        self._lost = False
        return events

    def feed_timeout(self) -> list[Malformed]:
        if len(self._held) < self._begun:
            self._dropped.add(bytes(self._held))
            self._held.clear()
        return self._take_noise()

    def _keep(self, rest: bytes) -> None:
        if self._lost:
            self._dropped.add(rest)
        else:
            self._held += rest

    def _take_noise(self) -> list[Malformed]:
        """All that is pending, if there is noise in it: no frame is begun then."""
        if self._dropped.size:
            self._dropped.add(bytes(self._held))
            self._held.clear()
        return self._dropped.take()

    def _cut(self, data: bytes, events: Frames) -> int:
        """Give what is complete, and where in `data` the rest begins; and set `_need` for that,
        or `_lost`."""
        raise NotImplementedError
