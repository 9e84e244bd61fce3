"""A loop with coroutines: what servers and clients are written in, once, whoever waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

from packetcore import AsyncCondition, AsyncEvent, Handle
from packetcore_sockets._network import Network
from packetcore_sockets._task import Event, Task


class Stopped(ConnectionAbortedError):
    """What waits on a runtime that has been stopped raise."""


class Runtime(Network):
    """A loop with coroutines. One that has none of its own has these, over `call_soon`."""

    lock: AbstractContextManager[None] = nullcontext()
    """Excludes other threads, where they may use a session."""

    def new_event(self) -> AsyncEvent:
        """What coroutines of this runtime can wait for."""
        return Event(self.call_soon)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callable[[], object]) -> Handle:
        """Run a coroutine, but not before this returns.

        Args:
            done: called once it is over, however that came, also where it was cancelled before it
                began; an exception that it raised is lost with it, save what ends a program.

        Returns:
            What raises in it where it waits. Who calls this keeps it until `done`, and cancels once
            at most.
        """
        return Task(coroutine, self.call_soon, done)

    def run_function(self, stream: Any, function: Callable[[Any], Any], done: Callable[[], object]) -> Handle:
        """Run an application over a stream, by the stream's own `run`; else as `spawn`."""
        return self.spawn(stream.run(function), done)

    def start(self) -> None:
        """Serve sockets while nobody waits, too, where that takes a thread. Idempotent."""

    @asynccontextmanager
    async def held(self: R) -> AsyncIterator[R]:
        """Hold it while something is begun."""

        def end() -> None:
            """Who waits for that is told by the loop."""

        self.hold(end)
        try:
            yield self
        finally:
            self.release(end)

    async def within(self, limit: float | None, changed: AsyncCondition, predicate: Callable[[], object]) -> None:
        """Wait until something is true, which may change wherever `changed` is notified, for at most
        so many seconds, `None` for ever, or until the runtime is stopped."""
        late: list[bool] = []

        def time_out() -> None:
            late.append(True)
            changed.notify_all()

        timer = None if limit is None else self.call_at(self.time() + limit, time_out)
        try:
            with suppress(Stopped):
                await changed.wait_for(lambda: late or predicate())
        finally:
            if timer is not None:
                timer.cancel()


R = TypeVar("R", bound=Runtime)
