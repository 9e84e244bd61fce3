"""Applications that are functions over a stream: a thread or a greenlet for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from packetcore import Handle, Inbox, SyncStream
from packetcore_sockets._runtime import SyncRuntime

S = TypeVar("S", bound=SyncStream)

StreamFunction = Callable[[S], object]
"""An application over a stream. When it returns, the stream is closed."""


class Functions(Generic[S]):
    """Runs them, and knows which are running.

    Args:
        on_change: called when one has ended.
    """

    def __init__(self, runtime: SyncRuntime, new_stream: type[S], on_change: Callable[[], object]) -> None:
        self._runtime = runtime
        self._new_stream = new_stream
        self._on_change = on_change
        self._running: set[object] = set()

    def are_over(self) -> bool | None:
        """Whether none runs, save one that asks this; `None` if not, to be waited for."""
        return not self._others() or None

    def start(self, function: StreamFunction[S], inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        stream = self._new_stream(inbox, self._runtime.time, self._runtime.new_condition)
        self._running.add(self._runtime.spawn(partial(stream.run, function), self._ended))

    def cancel(self) -> None:
        """End those that run, save one that asks this, where the runtime can."""
        for task in self._others():
            task.cancel()

    def _others(self) -> list[Handle]:
        return [*self._running - {self._runtime.current()}]  # type: ignore[list-item]

    def _ended(self, task: object) -> None:
        with self._runtime.lock:
            self._running.discard(task)
            self._on_change()
