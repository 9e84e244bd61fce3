"""The order of a pool in C is that in Python, whatever is done with it, and lets go of it."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import pytest

from packetcore import SessionPool
from packetcore._order import Entry, Order

speedups = pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")

from tests.pool_twins import compare  # noqa: E402  it needs the extension

ORDERS = pytest.mark.parametrize("order", [speedups.Order, Order], ids=["C", "python"])
PLACE = 32
"""Bytes that a place takes in the table in C."""


def test_both_keep_the_same_order() -> None:
    for seed in range(300):
        try:
            compare(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


@ORDERS
def test_a_refresh_takes_its_arguments_by_name_too(order: Any) -> None:
    entries = order()
    id = entries._put(Entry("a", None), 1)
    assert entries.refresh(now=2, id=id) is entries.refresh(id, now=3) is True
    assert entries.refresh(id=id + 1, now=9) is False
    assert entries.refreshed(id=id) == 3.0
    for arguments, names in [((), {}), ((id,), {}), ((id, 4, 5), {}), ((id,), {"id": id}), ((id, 4), {"now": 5})]:
        with pytest.raises(TypeError, match="refresh"):
            entries.refresh(*arguments, **names)
    for name in ("when", "ID"):
        with pytest.raises(TypeError, match="refresh"):
            entries.refresh(id, **{name: 4})
    with pytest.raises(TypeError):
        entries.refresh(id, "soon")
    assert entries.refreshed(id) == 3.0


@ORDERS
@pytest.mark.parametrize("id", [0, -1, 2, 1 << 31, 1 << 63, 1 << 64, (1 << 64) + 1, -(1 << 70), "1", None, 1.5])
def test_what_is_no_id_is_not_there(order: Any, id: object) -> None:
    entries = order()
    for _ in range(2):
        assert id not in entries
        assert entries.refresh(id, 1.0) is False
        assert entries.refreshed(id) is entries._entry(id) is entries._take(id) is None
        entries._put(Entry("a", None), 1.0)
        entries._put(Entry("b", None), 1.0)
        entries._take(2)
        if id == 2:
            break
    assert True in entries, "as a number it is 1"


def test_memory_comes_back_when_most_have_gone() -> None:
    pool: SessionPool[object] = SessionPool()
    order = speedups.Order()
    tracemalloc.start()
    try:
        empty = tracemalloc.get_traced_memory()[0]
        for _ in range(20_000):
            order._put(pool, 0.0)
        full = tracemalloc.get_traced_memory()[0] - empty
        assert full < 3 * PLACE * 20_000 * 1.01, "a third is in use at least"
        for id in range(1, 19_901):
            order._take(id)
        left = tracemalloc.get_traced_memory()[0] - empty
    finally:
        tracemalloc.stop()
    assert left < 7 * PLACE * len(order), "a sixth is in use at least"


class Watched:
    """A session that does something with its pool when it ends."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def __del__(self) -> None:
        ended.append((len(self.order._entries()), self.order.refresh(1, 1.0), self.order._take(2) is None))
        self.order._put("after the end", 1.0)


ended: list[object] = []


def test_what_a_session_does_at_its_end_finds_an_order_that_is_sound() -> None:
    ended.clear()
    order = speedups.Order()
    for _ in range(20):
        order._put(Watched(order), 0.0)
    del order
    gc.collect()
    assert len(ended) == 20
    assert (20, True, False) in ended
    assert not [found for found in gc.get_objects() if type(found) is speedups.Order and len(found)]


def test_a_pool_that_a_session_refers_to_is_collected() -> None:
    class Session:
        pool: SessionPool[Any]

    pool: SessionPool[Session] = SessionPool()
    gone = []
    for number in range(50):
        session = Session()
        session.pool = pool
        pool.add(session, float(number), host="a")
        gone.append(weakref.ref(session))
    del pool, session
    gc.collect()
    assert [reference() for reference in gone] == [None] * 50


def test_a_collection_in_the_midst_of_a_list_may_change_the_order() -> None:
    order = speedups.Order()
    for _ in range(40):
        order._put("entry", 0.0)

    class Cycle:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            order._take_silent(0.0, 0.0)

    gc.collect()
    threshold = gc.get_threshold()
    try:
        for _ in range(40):
            Cycle()
            before = len(order)
            gc.set_threshold(1)
            entries = order._entries()
            gc.set_threshold(*threshold)
            assert entries == ["entry"] * len(entries)
            assert len(order) <= len(entries) <= before  # from Python 3.12 on it may be right behind the call
    finally:
        gc.set_threshold(*threshold)
