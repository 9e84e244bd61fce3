"""What a thread waits for that another wakes, in Python and in C."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from packetcore import _latch


@pytest.fixture(params=["python", "C"])
def kind(request: pytest.FixtureRequest) -> Any:
    """`Latch` and `open_latches` of either kind."""
    if request.param == "python":
        return _latch
    return pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Some."""
    with ThreadPoolExecutor() as pool:
        yield pool


def test_threads_wait_until_all_are_woken_at_once(kind: Any, threads: ThreadPoolExecutor) -> None:
    latches = [kind.Latch() for _ in range(3)]
    begun = threading.Barrier(4)

    def wait(latch: Any) -> None:
        begun.wait(10)
        latch.wait(10.0)

    waits = [threads.submit(wait, latch) for latch in latches]
    begun.wait(10)
    assert not any(each.done() for each in waits)
    kind.open_latches(latches)
    assert [each.result(5) for each in waits] == [None, None, None]


def test_one_that_is_open_holds_up_nobody(kind: Any) -> None:
    latch = kind.Latch()
    kind.open_latches([latch])
    latch.wait(1e9)


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_a_wait_ends_in_time_and_the_latch_may_be_opened_later(kind: Any, timeout: float) -> None:
    latch = kind.Latch()
    latch.wait(timeout)
    kind.open_latches([latch])


def test_only_latches_are_opened(kind: Any) -> None:
    kind.open_latches([])
    with pytest.raises((TypeError, AttributeError)):
        kind.open_latches([SimpleNamespace()])
