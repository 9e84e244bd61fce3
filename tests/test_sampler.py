"""What the console and the table know of a server: that it is right, and that nothing of it is counted twice."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from packetcore import (
    CloseReason,
    Config,
    DatagramEndpoint,
    Driver,
    Endpoint,
    Handler,
    Malformed,
    Packet,
    Reason,
    Session,
    encode,
    load_driver,
)
from packetcore_cli import _sampler
from packetcore_cli._notes import Notes
from packetcore_cli._sampler import Sampler
from packetcore_cli._seen import Row, View, name_of
from tests.made_up_host import MadeUpHost

DEADLINE = 30.0
PERIOD = 0.05
FOREVER = Config(idle_timeout=None, frame_timeout=None, max_sessions_per_host=None)


def until(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up, "never came true"
        time.sleep(0.01)


class Rig:
    """A server whose runtime is this thread."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.soon: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.endpoint: Endpoint[Packet] = Endpoint(handler or Handler(), FOREVER, is_server=True)
        self.endpoint.runs_by(self.soon.put)
        self.now = 0.0

    def open(self, number: int = 1) -> Session[Packet]:
        session = Session(self.endpoint, MadeUpHost(), ("10.0.0.1", number), self.now)
        session.opened(self.now)
        return session

    def run(self, seconds: float = 0.0, condition: Callable[[], Any] = lambda: False) -> None:
        """Do what was asked of the runtime, for a while or until something is so."""
        give_up = time.monotonic() + seconds
        while not condition() and time.monotonic() < give_up:
            try:
                self.soon.get(timeout=0.01)()
            except Empty:
                continue

    def until(self, condition: Callable[[], Any]) -> None:
        self.run(DEADLINE, condition)
        assert condition()


def test_sums_never_go_down_and_are_right_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampler, "SLICE", 3)
    rig, chance = Rig(), random.Random(7)
    there = [rig.open(number) for number in range(7)]
    frame = encode(Packet(1, b"four"))
    for session in there:
        session.received(frame, 0.0)
    with Sampler(rig.endpoint, period=0.01, share=1.0) as sampler:
        before = (0, 0, 0, 0)
        for number in range(150):
            match chance.randrange(4):
                case 0:
                    there.append(rig.open(number))
                case 1 if there:
                    there.pop(chance.randrange(len(there))).lost(None, 0.0)
                case _:
                    for session in chance.sample(there, min(3, len(there))):
                        session.received(frame * chance.randrange(3), 0.0)
                        session.send(Packet(2, bytes(chance.randrange(50))))
                        session.flush(0.0)
            rig.run(0.002)
            counts = sampler.totals.counts
            assert all(new >= old for new, old in zip(counts, before, strict=True))
            before = counts

        def all_counted() -> bool:
            total = rig.endpoint.stats.total
            told = (total.packets_received, total.packets_sent, total.bytes_received, total.bytes_sent)
            return sampler.totals.counts == told and sampler.totals.sessions == len(there)

        rig.until(all_counted)
        assert sampler.totals.closed == rig.endpoint.stats.closed
        assert {row.id for row in sampler.view(stop=1000).rows} == {session.id for session in there}


def test_what_was_there_before_is_no_burst_and_has_no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampler, "SLICE", 1)  # so that one is looked at first, and the others later
    rig = Rig()
    old, *_ = there = [rig.open(number) for number in range(3)]
    for session in there:
        session.received(encode(Packet(1, bytes(100))) * 1000, 0.0)
    with Sampler(rig.endpoint, period=PERIOD) as sampler:
        rig.until(lambda: sampler.totals.counts[0] == 3000)
        new = rig.open(4)
        turn = sampler.turn
        rig.until(lambda: sampler.turn > turn + 1 and sampler.view(stop=9).matched == 4)
        assert max(point.rates[0] for point in sampler.history) == 0.0
        rows = {row.id: row for row in sampler.view(stop=9).rows}
        assert rows[old.id].opened is None
        assert rows[old.id].packets_in == 0.0
        opened = rows[new.id].opened
        assert opened is not None
        assert 0.0 <= time.monotonic() - opened < DEADLINE


def test_a_rate_is_what_came_in_the_time() -> None:
    rig = Rig()
    session = rig.open()
    with Sampler(rig.endpoint, period=PERIOD) as sampler:
        rig.until(lambda: sampler.turn > 1)
        sizes = 0
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            session.received(encode(Packet(1, bytes(10))) * 10, 0.0)
            sizes += 10
            rig.run(0.01)
        rate = sizes / (time.monotonic() - begun)
        (row,) = sampler.view(stop=1).rows
        assert rate / 3 < row.packets_in < rate * 3
        assert row.bytes_in == pytest.approx(row.packets_in * 21)
        assert rate / 3 < sampler.history[-2].rates[0] < rate * 3


def test_a_runtime_that_is_stuck_is_said_to_be() -> None:
    rig = Rig()
    with Sampler(rig.endpoint, period=PERIOD) as sampler:
        rig.until(lambda: sampler.turn > 0)
        points = len(sampler.history)
        until(lambda: not sampler.totals.is_answering)  # nobody runs the runtime
        until(lambda: len(sampler.history) > points)
        rig.until(lambda: sampler.totals.is_answering)


def test_a_runtime_that_has_ended_is_said_to_be() -> None:
    rig = Rig()

    def closed(function: Callable[[], object]) -> None:
        raise RuntimeError("Event loop is closed")

    with Sampler(rig.endpoint, period=PERIOD) as sampler:
        rig.until(lambda: sampler.turn > 0)
        rig.endpoint.runs_by(closed)
        rig.until(lambda: not sampler.totals.is_answering)


def rows_of(*sessions: tuple[int, str, float]) -> Sampler:
    """A sampler that has seen these, and sees no more."""
    rig = Rig()
    sampler = Sampler(rig.endpoint)
    sampler.close()
    for port, name, rate in sessions:
        row = Row(rig.open(port), None, 0.0)
        row.name, row.packets_in = name, rate
        sampler._rows[row.id] = row
    return sampler


def test_the_list_is_searched_sorted_and_cut() -> None:
    sampler = rows_of((50001, "meter 7", 1.0), (50002, "Meter 8", 5.0), (50003, "", 3.0), (50004, "pump", 4.0))

    def ports(view: View) -> list[object]:
        return [row.session.peer[1] for row in view.rows]

    assert ports(sampler.view(stop=10)) == [50001, 50002, 50003, 50004]
    assert ports(sampler.view("METER", stop=10)) == [50001, 50002]
    assert ports(sampler.view("50003", stop=10)) == [50003]
    assert ports(sampler.view(sort="packets_in", descending=True, start=1, stop=3)) == [50004, 50003]
    assert sampler.view(sort="packets_in", stop=1).matched == 4
    assert ports(sampler.view(sort="identity", stop=10)) == [50002, 50001, 50004, 50003]
    assert ports(sampler.view(sort="age", stop=1)) == [50004]  # the youngest
    assert sampler.view("nobody", stop=10) == ([], 0)


class Untold:
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (None, ""),
        (7, "7"),
        ("plain", "plain"),
        ("\x1b[31m\u202eevil\n", "\ufffd[31m\ufffdevil\ufffd"),
        ("x" * 101, "x" * 99 + "…"),
        (Untold(), "(Untold without text: ZeroDivisionError)"),
    ],
)
def test_an_identity_is_shown_whatever_it_is(identity: Any, name: str) -> None:
    assert name_of(identity) == name


def test_what_is_malformed_is_kept_up_to_a_bound() -> None:
    rig = Rig()
    session = rig.open()
    with Sampler(rig.endpoint, period=PERIOD) as sampler:
        session.bind("meter 7")
        for _ in range(60):
            session.received(b"\xfe\x01\x02\xfe", 0.0)
        latest = sampler.malformed
        assert [noted.number for noted in latest] == [*range(60, 10, -1)]
        assert (latest[0].identity, latest[0].peer, latest[0].session) == ("meter 7", session.peer, session.id)
        assert latest[0].malformed == Malformed(Reason.TOO_SHORT, 2, b"\x01\x02")
        rig.until(lambda: sampler.totals.malformed == 60)


# What the core tells those who look.


def test_what_is_malformed_is_told_before_the_handler_hears_of_it() -> None:
    told: list[object] = []

    class Told(Handler):
        def malformed(self, session: Session, malformed: Malformed) -> None:
            told.append("handler")

    rig = Rig(Told())
    session = rig.open()
    rig.endpoint.on_malformed = lambda *what: told.append(what)
    session.received(b"\xfe\x01\xfe", 0.0)
    assert told == [(Malformed(Reason.TOO_SHORT, 1, b"\x01"), session.peer, session), "handler"]


def test_what_strangers_send_is_told_without_a_session() -> None:
    told: list[tuple[object, ...]] = []
    endpoint: DatagramEndpoint[Packet] = DatagramEndpoint(Handler(), is_server=True)
    endpoint.on_malformed = lambda *what: told.append(what)
    endpoint.received(b"\xfe\x01\xfenoise", ("10.0.0.1", 5), 0.0)
    assert [each[1:] for each in told] == [(("10.0.0.1", 5), None)] * 2
    assert endpoint.past.malformed.total() == 2


def test_the_past_is_what_those_that_are_over_have_counted() -> None:
    rig = Rig()
    over, open_still = rig.open(1), rig.open(2)
    for session in (over, open_still):
        session.received(encode(Packet(1)), 0.0)
    over.lost(None, 0.0)
    past, stats = rig.endpoint.past, rig.endpoint.stats
    assert (past.total.packets_received, stats.total.packets_received) == (1, 2)
    assert (
        (past.sessions, past.opened, past.closed)
        == (stats.sessions, stats.opened, stats.closed)
        == (
            1,
            2,
            {CloseReason.PEER: 1},
        )
    )


def test_notes_that_are_closed_keep_no_session_though_others_have_hooked_on_behind_them() -> None:
    rig = Rig()
    first, second = Notes(rig.endpoint), Notes(rig.endpoint)
    first.close()
    session = rig.open()
    session.received(b"\xfe\x01\xfe", 0.0)
    session.lost(None, 0.0)
    reading = first.rest([])
    assert (reading.came, reading.left, first.malformed) == ([], [], [])
    reading = second.rest([])
    assert ([one for one, _ in reading.came], reading.left) == ([session], [session.id])
    assert len(second.malformed) == 1


def test_who_listened_before_hears_on_and_alone_again_in_the_end() -> None:
    rig, heard = Rig(), []
    hooks = rig.endpoint.on_admitted, rig.endpoint.on_finished, rig.endpoint.on_malformed = (
        lambda session: heard.append("admitted"),
        lambda session: heard.append("finished"),
        lambda *what: heard.append("malformed"),
    )
    with Sampler(rig.endpoint, period=PERIOD):
        session = rig.open()
        session.received(b"\xfe\x01\xfe", 0.0)
        session.lost(None, 0.0)
        assert heard == ["admitted", "malformed", "finished"]
    assert (rig.endpoint.on_admitted, rig.endpoint.on_finished, rig.endpoint.on_malformed) == hooks


# On the adapters.


class Bound(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())
        session.send(packet)


@pytest.fixture(params=["asyncio", "blocking", "gevent", "twisted"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    running = load_driver(request.param)
    yield running
    running.stop()


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_it_sees_the_sessions_of_every_adapter(driver: Driver, udp: bool) -> None:
    server = driver.start_udp_server(Bound()) if udp else driver.start_server(Bound())
    threads = threading.active_count()
    with Sampler(server.endpoint, period=PERIOD) as sampler:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as peer:
            peer.settimeout(DEADLINE)
            peer.connect(server.address)
            frame = encode(Packet(1, b"meter 7"))
            peer.sendall(frame)
            assert peer.recv(100) == frame
            until(lambda: sampler.totals.counts == (1, 1, len(frame), len(frame)))
            until(lambda: [row.name for row in sampler.view(stop=9).rows] == ["meter 7"])
        if not udp:
            until(lambda: sampler.totals.closed == {CloseReason.PEER: 1})
            until(lambda: sampler.view(stop=9).matched == 0)
            assert sampler.totals.counts == (1, 1, len(frame), len(frame))
    until(lambda: threading.active_count() <= threads)
