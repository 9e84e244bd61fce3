"""How who uses a session waits: what a runtime has for that, and no more of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Handle(Protocol):
    """Something that was put off, or goes on."""

    def cancel(self) -> object:
        """Call it off. Idempotent."""


class AsyncEvent(Protocol):
    """What wakes coroutines once, such as `asyncio.Event`."""

    def set(self) -> object:
        """Wake those that wait, soon: who calls this may be in the middle of its work."""

    def wait(self) -> Awaitable[Any]:
        """Wait until woken."""
        raise NotImplementedError


class AsyncCondition:
    """What any number of coroutines wait for, again and again.

    Args:
        new_event: makes an event of the runtime.
    """

    def __init__(self, new_event: Callable[[], AsyncEvent]) -> None:
        self._new_event = new_event
        self._event: AsyncEvent | None = None

    def notify_all(self) -> None:
        """Wake those that wait now."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    def wait(self) -> Awaitable[Any]:
        """Wait until the next `notify_all`."""
        if self._event is None:
            self._event = self._new_event()
        return self._event.wait()

    async def wait_for(self, predicate: Callable[[], object]) -> None:
        """Wait until something is true, which may change wherever `notify_all` is called."""
        while not predicate():
            await self.wait()


class SyncCondition(Protocol):
    """What threads or greenlets wait for, again and again."""

    @property
    def is_served(self) -> bool:
        """Whether sockets are served while nobody waits; it does not change as long as a stream lives."""
        raise NotImplementedError

    def notify_all(self) -> object:
        """Wake those that wait now."""

    def wait_for(self, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
        """Try until `attempt` gives something, again after each `notify_all`, and give that; `None`
        if it gave nothing for `timeout` seconds."""
