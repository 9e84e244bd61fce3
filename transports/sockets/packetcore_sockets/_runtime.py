"""A loop whose users wait: in coroutines, or in threads or greenlets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from packetcore import AsyncEvent, Handle, SyncCondition
from packetcore_sockets._network import Network
from packetcore_sockets._task import Event, Task


class Runtime(Network):
    """A loop with coroutines. One that has none of its own has these, over `call_soon`."""

    def new_event(self) -> AsyncEvent:
        """What coroutines of this runtime can wait for."""
        return Event(self.call_soon)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callable[[], object]) -> Handle:
        """Run a coroutine, but not before this returns.

        Args:
            done: called once it is over, however that came; an exception that it raised is lost
                with it, save what ends a program.
        """
        return Task(coroutine, self.call_soon, done)


class SyncRuntime(Network):
    """A loop whose users block, each of them alone."""

    lock: AbstractContextManager[None] = nullcontext()
    """Excludes other threads, where there are any."""

    def start(self) -> None:
        """Serve sockets while nobody waits, too, where that takes a thread. Idempotent."""

    @abstractmethod
    def new_condition(self) -> SyncCondition:
        """What threads or greenlets of this runtime can wait for."""

    @abstractmethod
    def spawn(self, function: Callable[[], object], done: Callable[[object], object]) -> Handle:
        """Run a function in a thread or greenlet of its own, but not before this returns.

        Args:
            done: called once it is over, with what this returns.
        """

    @abstractmethod
    def current(self) -> object:
        """The thread or greenlet that asks: what `spawn` returned, if it came from there."""
