"""What `for` and `async for` over a stream go through, in Python and in C."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from packetcore import Packet
from packetcore._items import Items as PythonItems

T = TypeVar("T")
Make = Callable[[Callable[[], Any], Callable[[], Any]], Any]


@pytest.fixture(params=["python", "C"])
def items(request: pytest.FixtureRequest) -> Make:
    """`Items` of either kind."""
    if request.param == "python":
        return PythonItems
    make: Make = pytest.importorskip("packetcore._speedups", reason="the extension in C is not built").Items
    return make


class Stop:
    """What a coroutine waits for, to be seen from outside."""

    def __await__(self) -> Any:
        return (yield self)


def result(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that waits for nothing."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    given: T = stopped.value.value
    return given


async def no_more() -> Any:
    raise StopAsyncIteration


async def listed(iterator: AsyncIterator[T]) -> list[T]:
    return [item async for item in iterator]


@pytest.mark.parametrize("odd", [(), (1, 2), None, StopIteration(3), Packet(1, b"x")], ids=repr)
def test_what_is_there_is_given_as_it_is(items: Make, odd: object) -> None:
    assert result(listed(items(deque([1, odd, 2]).popleft, no_more))) == [1, odd, 2]


def test_what_is_not_there_is_waited_for(items: Make) -> None:
    queue = deque([1])

    async def wait() -> int:
        await Stop()
        if not queue:
            raise StopAsyncIteration
        return queue.popleft()

    coroutine = listed(items(queue.popleft, wait))
    assert isinstance(coroutine.send(None), Stop)
    queue += [2, 3]
    assert isinstance(coroutine.send(None), Stop)
    assert result(coroutine) == [1, 2, 3]


def test_what_the_wait_raises_comes_through(items: Make) -> None:
    async def wait() -> object:
        await Stop()
        return None

    coroutine = listed(items(deque[int]().popleft, wait))
    coroutine.send(None)
    with pytest.raises(KeyError, match="from outside"):
        coroutine.throw(KeyError("from outside"))


def test_a_mistake_of_what_takes_is_not_taken_for_an_empty_queue(items: Make) -> None:
    def take() -> object:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        listed(items(take, no_more)).send(None)


def test_an_item_is_given_once(items: Make) -> None:
    async def twice() -> None:
        waiting: Any = items(deque([1, 2]).popleft, no_more).__anext__()
        assert await waiting == 1
        with pytest.raises(RuntimeError, match="already"):
            await waiting

    result(twice())


def test_where_waiting_blocks_the_wait_gives_the_item_and_ends_it(items: Make) -> None:
    queue, later = deque([1, None]), [3, 2]

    def wait() -> int:
        if not later:
            raise StopIteration
        return later.pop()

    assert list(items(queue.popleft, wait)) == [1, None, 2, 3]


def test_a_mistake_where_waiting_blocks_comes_through(items: Make) -> None:
    def mistake() -> object:
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        next(items(mistake, list))
    with pytest.raises(KeyError, match="a mistake"):
        next(items(deque[int]().popleft, mistake))
