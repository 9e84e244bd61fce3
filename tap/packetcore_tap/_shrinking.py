"""The shortest part of a recording that still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from packetcore_tap._heard import Chunk, Heard

T = TypeVar("T")


def shortest(items: Sequence[T], fails: Callable[[list[T]], bool]) -> Iterator[list[T]]:
    """Leave out ever more, as long as what is left fails: the minimizing delta debugging of Zeller and
    Hildebrandt ("Simplifying and Isolating Failure-Inducing Input", 2002), with complements alone.

    Args:
        items: what fails, as a whole.
        fails: whether some of them, in their order, fail.

    Returns:
        Each list that is shorter than the one before. Of the last no single item can be left out.
    """
    left = list(items)
    parts = 2
    while left:
        size = -(-len(left) // parts)
        start = 0
        was = len(left)
        while start < len(left):
            fewer = left[:start] + left[start + size :]
            if fails(fewer):
                left = fewer
                yield left
            else:
                start += size
        if len(left) == was and size == 1:
            return
        parts = min(max(2, parts if len(left) < was else 2 * parts), max(1, len(left)))


class Shrinking:
    """Shrinks a recording that fails: first conversations are left out, then what was said, then bytes.

    Args:
        heard: the recording, which fails.
        fails: whether one does.
    """

    def __init__(self, heard: Sequence[Heard], fails: Callable[[list[Heard]], bool]) -> None:
        self.best = list(heard)
        """The shortest that failed until now."""
        self.tries = 0
        """How many were tried."""
        self._fails = fails

    def run(self) -> Iterator[list[Heard]]:
        """Give each that is shorter than the one before; the last is the result. Of that nothing can be left
        out, no conversation, chunk, end or byte, without its failing no more."""
        numbers = list(dict.fromkeys(each.conversation for each in self.best))
        whole = self.best
        for some in shortest(numbers, lambda some: self._try([each for each in whole if each.conversation in some])):
            yield self._keep([each for each in whole if each.conversation in some])
        for left in shortest(self.best, self._try):
            yield self._keep(left)
        place = 0
        while place < len(self.best):
            yield from self._bytes_of(place)
            place += 1

    def _bytes_of(self, place: int) -> Iterator[list[Heard]]:
        chunk = self.best[place]
        if not isinstance(chunk, Chunk):
            return

        def with_data(data: list[int]) -> list[Heard]:
            return [*self.best[:place], replace(chunk, data=bytes(data)), *self.best[place + 1 :]]

        for data in shortest(chunk.data, lambda data: self._try(with_data(data))):
            yield self._keep(with_data(data))

    def _try(self, heard: list[Heard]) -> bool:
        self.tries += 1
        return self._fails(heard)

    def _keep(self, heard: list[Heard]) -> list[Heard]:
        self.best = heard
        return heard
