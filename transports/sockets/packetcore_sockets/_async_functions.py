"""Applications that are functions over a stream: a task for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from packetcore import AsyncStream, Handle, Inbox
from packetcore_sockets._runtime import Runtime

S = TypeVar("S", bound=AsyncStream)

StreamFunction = Callable[[S], Awaitable[object]]
"""An application over a stream. When it returns, the stream is closed."""


class Functions(Generic[S]):
    """Runs applications that are functions over a stream, a task for each.

    Args:
        on_change: called when one has ended.
    """

    def __init__(self, runtime: Runtime, new_stream: type[S], on_change: Callable[[], object]) -> None:
        self._runtime = runtime
        self._new_stream = new_stream
        self._on_change = on_change
        self.running: dict[S, Handle] = {}
        """The tasks, by their streams."""

    def start(self, function: StreamFunction[S], inbox: Inbox) -> None:
        """Run one over the stream of a new session."""
        stream = self._new_stream(inbox, self._runtime.time, self._runtime.new_event)

        def done() -> None:
            del self.running[stream]
            self._on_change()

        self.running[stream] = self._runtime.spawn(stream.run(function), done)

    def cancel(self) -> None:
        """End those that run, soon."""
        for task in [*self.running.values()]:
            task.cancel()
