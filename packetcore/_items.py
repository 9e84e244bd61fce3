"""Iterating over what comes, where most of it is there already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Items(Generic[T]):
    """An iterator, for `for` or for `async for`, that waits only where it must.

    Args:
        take: gives the next item, or raises `IndexError` where there is none yet.
        wait: waits for one, and gives it, or of `async for` something to await; raises `StopIteration`
            or `StopAsyncIteration` at the end.
    """

    __slots__ = ("_take", "_wait")

    def __init__(self, take: Callable[[], T], wait: Callable[[], T | Awaitable[T]], /) -> None:
        self._take = take
        self._wait: Callable[[], Any] = wait

    def __aiter__(self) -> Items[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return self._take()
        except IndexError:
            pass
        item: T = await self._wait()
        return item

    def __iter__(self) -> Items[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._take()
        except IndexError:
            pass
        item: T = self._wait()
        return item
