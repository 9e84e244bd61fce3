"""Applications that are functions over a stream: a task, thread or greenlet for each."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from packetcore import Handle, Inbox
from packetcore_sockets._runtime import Runtime

_running_here: ContextVar[Any] = ContextVar("packetcore_sockets.running_here")
"""The stream whose function runs in this context: of a task, a thread or a greenlet."""


class Functions:
    """Runs them.

    Args:
        runtime: on which.
        new_stream: makes a stream of an inbox.
        on_change: called when one has ended.
    """

    def __init__(
        self, runtime: Runtime, new_stream: Callable[[Inbox[Any], Any], Any], on_change: Callable[[], object]
    ) -> None:
        self._runtime = runtime
        self._new_stream = new_stream
        self._on_change = on_change
        self._running: dict[Any, Handle] = {}  # by their streams
        self._cancelled: list[Handle] = []

    def others(self) -> list[Handle]:
        """Those that run, save one that asks this."""
        asking = _running_here.get(None)
        return [task for stream, task in self._running.items() if stream is not asking]

    def start(self, function: Callable[[Any], Any], inbox: Inbox[Any]) -> None:
        """Run one over the stream of a new session."""
        stream = self._new_stream(inbox, self._runtime)

        def done() -> None:
            with self._runtime.lock:
                task = self._running.pop(stream)
                if task in self._cancelled:
                    self._cancelled.remove(task)
                self._on_change()

        def call(stream: Any) -> Any:
            _running_here.set(stream)
            return function(stream)

        self._running[stream] = self._runtime.run_function(stream, call, done)

    def cancel(self) -> None:
        """End those that run, where the runtime can; each once, for what they do at their end may
        wait."""
        for task in self.others():
            if task not in self._cancelled:
                self._cancelled.append(task)
                task.cancel()
