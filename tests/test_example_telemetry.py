"""`examples/telemetry`: what is counted, stored, held back and shown; and the program, killed and started again."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from examples.telemetry.collector import BATCH, FULL, Collector
from examples.telemetry.reading import CODEC, FRAMING, Reading
from examples.telemetry.show import summary
from examples.telemetry.store import Row, Store, StoreError, open_store
from packetcore.testing import FakeSession
from packetcore_conformance.serial_peer import SerialPeer
from tests.example_program import refused, running, until
from tests.postgresql import postgresql

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no serial lines on Windows")

LINE: dict[str, Any] = {"framing": FRAMING, "codec": CODEC}


@pytest.fixture(scope="module")
def postgresql_url() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "telemetry.db")
    return str(request.getfixturevalue("postgresql_url"))


def frame_of(id: int, value: int = 21_500) -> bytes:
    return FRAMING.encode(CODEC.encode(Reading(id, 1, value)))


class Memory(Store):
    """A store that keeps rows, and does what a test wants of it meanwhile."""

    def __init__(self) -> None:
        self.rows: dict[tuple[float, int], Row] = {}
        self.batches: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.failures = 0

    def append(self, rows: Sequence[Row]) -> None:
        assert self.may_go_on.wait(30)
        self.batches.append(len(rows))
        self.rows |= {(row.time, row.id): row for row in rows}
        if self.failures:
            self.failures -= 1
            raise StoreError("the answer was lost")

    def last_id(self) -> int | None:
        return max((id for _, id in self.rows), default=None)


def test_what_is_missing_is_counted_by_the_ids() -> None:
    collector = Collector(Memory())
    session = FakeSession(collector, **LINE)
    session.feed(*(Reading(id, 1, 0) for id in (0xFFFF_FFFE, 0xFFFF_FFFF, 0, 3)))
    assert (collector.missing, collector.restarts) == (2, 0)
    session.feed(Reading(0, 1, 0), Reading(1, 1, 0))
    assert (collector.missing, collector.restarts) == (2, 1)


def test_noise_costs_the_reading_that_it_touches() -> None:
    collector = Collector(Memory())
    session = FakeSession(collector, **LINE)
    hit = bytearray(frame_of(1))
    hit[3] ^= 4
    session.feed_bytes(frame_of(0) + hit + frame_of(2), chunk=1)
    assert [row.id for row in collector.waiting] == [0, 2]
    assert (collector.missing, collector.malformed_runs) == (1, 1)
    assert collector.waiting[0].value == 21.5


async def _hold_back() -> None:
    store = Memory()
    collector = Collector(store)
    session = FakeSession(collector, **LINE)
    store.may_go_on.clear()
    writing = asyncio.create_task(collector.write())
    for id in range(FULL + 100):
        session.feed_bytes(frame_of(id))
    assert len(collector.waiting) == FULL
    assert session.unread > 0
    store.may_go_on.set()
    while session.unread:
        await asyncio.sleep(0)
        session.advance(0)
    collector.stop()
    await writing
    assert sorted(id for _, id in store.rows) == list(range(FULL + 100))
    assert (collector.missing, max(store.batches)) == (0, 500)


def test_a_slow_store_holds_the_line_back_and_nothing_is_lost() -> None:
    asyncio.run(asyncio.wait_for(_hold_back(), 30))


async def _fail(retry: float) -> None:
    store = Memory()
    store.failures = 3
    collector = Collector(store)
    session = FakeSession(collector, **LINE)
    begun = asyncio.get_running_loop().time()
    writing = asyncio.create_task(collector.write())
    fed = 0
    while not collector.stored:
        if fed < 2 * BATCH:  # what comes meanwhile does not make it ask sooner
            session.feed(Reading(fed, 1, 0))
            fed += 1
        await asyncio.sleep(0)
    assert asyncio.get_running_loop().time() - begun > 3 * retry * 0.9
    collector.stop()
    await writing
    assert [id for _, id in sorted(store.rows)] == list(range(fed))
    assert collector.stored == fed


def test_a_store_that_fails_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.telemetry.collector.RETRY", 0.02)
    asyncio.run(asyncio.wait_for(_fail(0.02), 30))


async def _give_up() -> None:
    store = Memory()
    store.failures = 1
    collector = Collector(store)
    FakeSession(collector, **LINE).feed(Reading(0, 1, 0), Reading(1, 1, 0))
    collector.stop()
    await collector.write()


def test_at_the_end_a_store_that_fails_is_told_of() -> None:
    with pytest.raises(StoreError, match="2 readings are not stored: the answer was lost"):
        asyncio.run(_give_up())


def test_a_store_keeps_what_it_was_given_once(where: str) -> None:
    rows = [Row(1000.5, id, 1, id / 8) for id in range(700)]
    store = open_store(where)
    store.append(rows[:500])
    store.append(rows)  # the answer to the first was lost, say
    store.close()
    again = open_store(where, create=False)
    assert again.last_id() == 699
    assert again.since(1000.5) == rows
    assert again.since(1000.6) == []
    again.close()


def test_a_connection_that_is_lost_is_made_anew(postgresql_url: str) -> None:
    import psycopg

    store = open_store(postgresql_url)
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = 'postgres'"
        )
    rows = [Row(2000.0, 0, 2, 1.5)]
    with pytest.raises(StoreError, match="PostgreSQL: "):
        store.append(rows)
    store.append(rows)
    assert store.since(2000.0) == rows
    store.close()


def test_what_came_is_drawn_with_what_is_missing() -> None:
    rows = [Row(940.0 + second, 3 * second, 1, float(second % 8)) for second in range(60) if second != 30]
    temperature, told = summary(rows, 1000.0, 60)
    assert temperature.startswith("temperature, °C       0.00      3.32      7.00  last      3.00  ▁▂▃▄▅▆▇█▁")
    assert temperature[-30] == " "
    assert told == "59 readings in 60 s, 119 are missing among them"
    assert list(summary([], 1000.0, 60)) == ["nothing came in the last 60 s"]


def test_a_program_that_was_killed_has_lost_nothing_that_was_stored(tmp_path: Path) -> None:
    path, line = tmp_path / "telemetry.db", SerialPeer()
    try:
        with running("telemetry", line.device, "--store", path) as first:
            first.says("session 1 .* opened")
            reader = open_store(str(path))
            line.send(b"".join(map(frame_of, range(100))))
            until(lambda: reader.last_id() == 99, "all is stored")
            first.process.kill()
            first.process.wait(30)
        with running("telemetry", line.device, "--store", path) as second:
            second.says("session 1 .* opened")
            line.send(b"".join(map(frame_of, range(110, 200))))  # 100 to 109 are lost
            until(lambda: reader.last_id() == 199, "the rest is stored")
            line.send(frame_of(200))
            until(lambda: len(reader.since(0)) == 191, "one more is stored")
            second.process.terminate()
            end = second.says(r"the end: (\d+) stored, 0 wait, (\d+) missing")
            assert end.groups() == ("91", "10")
            assert second.process.wait(30) == 0
        assert [row.id for row in reader.since(0)] == [*range(100), *range(110, 201)]
        reader.close()
    finally:
        line.close()


def test_the_example_runs_with_nothing_at_hand(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with running("telemetry", "--store", path, "--rate", 1000, "--noise", 0.2) as program:
        program.says("Ctrl-C ends")
        reader = open_store(str(path))
        until(lambda: (reader.last_id() or 0) > 300, "readings are stored")
        reader.close()
        program.process.send_signal(2)
        end = program.says(r"the end: (\d+) stored, 0 wait, (\d+) missing, (\d+) malformed, 0 restarts")
        assert program.process.wait(30) == 0
    stored, missing, malformed = map(int, end.groups())
    assert stored + missing > 300
    assert 0 < missing <= malformed
    store = open_store(str(path))
    assert len(store.since(0)) == stored
    store.close()
    with running("telemetry.show", "--store", path) as show:
        assert int(show.says(r"^(\d+) readings in 60 s")[1]) == stored


def test_what_it_cannot_start_with_is_one_line(tmp_path: Path) -> None:
    assert refused("telemetry", "--store", tmp_path) == (1, f"telemetry: {tmp_path}: unable to open database file")
    status, said = refused("telemetry.show", "--store", tmp_path / "none")
    assert (status, re.sub(r".*/none: ", "", said)) == (1, "unable to open database file")
