"""Iterating over what comes, where most of it is there already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Items(Generic[T]):
    """An asynchronous iterator that waits only where it must.

    Args:
        take: gives the next item, or raises `IndexError` where there is none yet.
        wait: waits for one; raises `StopAsyncIteration` at the end.
    """

    __slots__ = ("_take", "_wait")

    def __init__(self, take: Callable[[], T], wait: Callable[[], Awaitable[T]], /) -> None:
        self._take = take
        self._wait = wait

    def __aiter__(self) -> Items[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return self._take()
        except IndexError:
            pass
        return await self._wait()
