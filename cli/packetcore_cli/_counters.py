"""The counters of all workers, for threads that ask: those that ask together have one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

from packetcore import EndpointStats
from packetcore_cli._place import Place, processes_of

PATIENCE = 2.0
"""Seconds that a scrape waits for a worker; then it has its last numbers."""


class Counters:
    """Gathers them from the workers.

    Args:
        places: of the workers.
        wake: has the parent's thread call `go_on`.
    """

    def __init__(self, places: Sequence[Place], wake: Callable[[], object]) -> None:
        self._places = places
        self._wake = wake
        self._asked: SimpleQueue[Future[dict[str, EndpointStats]]] = SimpleQueue()
        self._reading: list[Future[dict[str, EndpointStats]]] = []
        self._until = 0.0

    def read(self) -> dict[str, EndpointStats]:
        """Those of each place, by its number: for other threads.

        Raises:
            TimeoutError: the parent does not answer.
        """
        answer: Future[dict[str, EndpointStats]] = Future()
        self._asked.put(answer)
        self._wake()
        return answer.result(PATIENCE * 3)

    def last(self) -> dict[str, EndpointStats]:
        """The same as last told: for the parent's thread."""
        return {str(place.index): place.stats for place in self._places}

    def go_on(self, now: float) -> None:
        """Ask the workers where somebody has asked, and answer once they have or had the time: for the parent's
        thread."""
        serving = [process for process in processes_of(self._places) if process.is_serving]
        if not self._reading and not self._asked.empty():
            while not self._asked.empty():
                self._reading.append(self._asked.get())
            self._until = now + PATIENCE
            for process in serving:
                process.ask_stats(now)
        if self._reading and (now >= self._until or all(process.asked_at is None for process in serving)):
            for answer in self._reading:
                answer.set_result(self.last())
            self._reading.clear()
