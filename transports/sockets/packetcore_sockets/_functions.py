"""Applications that are functions over a stream: a task, thread or greenlet for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packetcore import Handle, Inbox
from packetcore_sockets._runtime import Runtime


class Functions:
    """Runs them.

    Args:
        runtime: on which.
        new_stream: makes a stream of an inbox.
        on_change: called when one has ended.
    """

    def __init__(
        self, runtime: Runtime, new_stream: Callable[[Inbox, Any], Any], on_change: Callable[[], object]
    ) -> None:
        self._runtime = runtime
        self._new_stream = new_stream
        self._on_change = on_change
        self._running: dict[Any, Handle] = {}  # by their streams

    def others(self) -> list[Handle]:
        """Those that run, save one that asks this, where that can be told."""
        current = self._runtime.current()
        return [task for task in self._running.values() if task is not current]

    def start(self, function: Callable[[Any], Any], inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        stream = self._new_stream(inbox, self._runtime)

        def done() -> None:
            with self._runtime.lock:
                del self._running[stream]
                self._on_change()

        self._running[stream] = self._runtime.run_function(stream, function, done)

    def cancel(self) -> None:
        """End those that run, where the runtime can."""
        for task in self.others():
            task.cancel()
