"""Requests that take turns, and frames with silence between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from packetcore import (
    CloseReason,
    Config,
    DatagramEndpoint,
    LocalProtocolError,
    Packet,
    Request,
    RequestPending,
    Session,
    SessionClosed,
    encode,
)
from packetcore._turns import Turns
from tests.made_up_host import MadeUpHost, Recorder, Rig


class Bus:
    """A `Turns`, what it sent, and how each wait ended."""

    def __init__(self, most: int = 1, delay: float = 0.0, hold: float | None = 60.0) -> None:
        self.now: float | None = 100.0
        self.sent: list[int] = []
        self.ends: list[tuple[int, Any]] = []
        self.broken: set[int] = set()
        self.on_end: dict[int, Callable[[], object]] = {}
        self.turns = Turns(self.send, hold, most, delay, lambda: self.now)

    def send(self, packet: Packet) -> None:
        if packet.id in self.broken:
            raise LocalProtocolError(f"{packet.id} cannot be sent")
        self.sent.append(packet.id)

    def ask(self, id: int, timeout: float | None = None) -> Request:
        def done(outcome: Any) -> None:
            self.ends.append((id, outcome))
            self.on_end.get(id, lambda: None)()

        return self.turns.ask(Packet(id), None, done, timeout, self.now)

    def ended(self) -> list[int]:
        ids = [id for id, _ in self.ends]
        self.ends.clear()
        return ids


def test_each_is_sent_when_the_one_before_has_its_reply_in_the_order_of_asking() -> None:
    bus = Bus()
    for id in (1, 2, 3):
        bus.ask(id)
    assert (bus.sent, len(bus.turns)) == ([1], 3)
    assert bus.turns.take(Packet(1))
    assert (bus.sent, bus.ended()) == ([1, 2], [1])
    assert not bus.turns.take(Packet(3)), "it answers what was not asked yet"
    assert bus.turns.take(Packet(2))
    assert bus.turns.take(Packet(3))
    assert (bus.sent, bus.ended(), len(bus.turns), bus.turns.unanswered) == ([1, 2, 3], [2, 3], 0, 0)


def test_so_many_are_in_flight() -> None:
    bus = Bus(most=2)
    for id in range(1, 6):
        bus.ask(id)
    assert bus.sent == [1, 2]
    bus.turns.take(Packet(2))
    assert bus.sent == [1, 2, 3]
    bus.turns.take(Packet(1))
    bus.turns.take(Packet(3))
    assert bus.sent == [1, 2, 3, 4, 5]


def test_the_time_of_one_begins_with_its_turn_and_its_end_is_the_turn_of_the_next() -> None:
    bus = Bus()
    bus.ask(1, timeout=5)
    bus.ask(2, timeout=3)
    assert bus.turns.next_deadline() == 105
    bus.now = 105.0
    bus.turns.expire(105)
    assert (bus.sent, bus.ended()) == ([1, 2], [1])
    assert bus.turns.next_deadline() == 108
    assert bus.turns.take(Packet(1)), "the late reply is dropped"
    assert bus.turns.late == 1


def test_the_turnaround_delay_counts_from_the_reply_or_the_timeout() -> None:
    bus = Bus(delay=2)
    bus.ask(1)
    bus.ask(2, timeout=10)
    bus.now = 110.0
    bus.turns.take(Packet(1))
    assert (bus.sent, bus.turns.next_deadline()) == ([1], 112)
    bus.turns.expire(111.9)
    assert bus.sent == [1]
    bus.now = 112.0
    bus.turns.expire(112)
    assert (bus.sent, bus.turns.next_deadline()) == ([1, 2], 122)
    bus.now = 122.0
    bus.turns.expire(122)
    bus.ask(3)
    assert (bus.sent, bus.turns.next_deadline()) == ([1, 2], 124)
    bus.now = 124.5
    bus.ask(4)
    assert bus.sent == [1, 2], "it went past one that asked before"
    bus.turns.expire(124.5)
    assert bus.sent == [1, 2, 3]


def test_a_time_that_is_not_known_is_that_of_begin() -> None:
    bus = Bus(delay=1)
    bus.now = None
    first = bus.ask(1, timeout=5)
    bus.ask(2)
    assert bus.sent == [1]
    assert bus.turns.forget(first, None)
    assert not bus.turns.forget(first, None)
    assert bus.turns.next_deadline() is None
    bus.turns.begin(200)
    assert bus.turns.next_deadline() == 201
    bus.turns.begin(300)
    assert bus.turns.next_deadline() == 201
    bus.turns.expire(201)
    assert bus.sent == [1, 2]
    assert bus.ended() == []


def test_one_that_waits_for_its_turn_and_is_forgotten_is_never_sent() -> None:
    bus = Bus()
    bus.ask(1)
    waiting = bus.ask(2, timeout=1)
    bus.ask(3)
    assert bus.turns.forget(waiting, 100)
    assert not bus.turns.forget(waiting, 100)
    bus.turns.take(Packet(1))
    assert (bus.sent, bus.ended()) == ([1, 3], [1])


def test_what_cannot_be_sent_tells_its_own_wait_and_holds_up_nobody() -> None:
    bus = Bus()
    bus.broken = {1, 3}
    with pytest.raises(LocalProtocolError):
        bus.ask(1)
    bus.ask(2)
    bus.ask(3)
    bus.ask(4)
    bus.ask(2)
    bus.turns.take(Packet(2))
    assert bus.sent == [2, 4]
    assert [(id, type(outcome)) for id, outcome in bus.ends] == [(2, Packet), (3, LocalProtocolError)]
    bus.turns.take(Packet(4))
    assert bus.sent == [2, 4, 2]


def test_an_id_that_is_held_when_its_turn_comes_is_pending() -> None:
    bus = Bus()
    bus.ask(1, timeout=1)
    bus.ask(1)
    bus.ask(2)
    bus.now = 101.0
    bus.turns.expire(101)
    assert isinstance(bus.ends[1][1], RequestPending)
    assert bus.sent == [1, 2]


def test_one_that_asks_at_the_end_of_its_own_waits_behind_those_before() -> None:
    bus = Bus()
    bus.ask(1)
    bus.ask(2)
    bus.on_end[1] = lambda: bus.ask(3)
    bus.turns.take(Packet(1))
    assert bus.sent == [1, 2]
    bus.turns.take(Packet(2))
    assert bus.sent == [1, 2, 3]


def test_a_wait_that_raises_holds_up_nobody() -> None:
    bus = Bus()
    bus.on_end[1] = lambda: 1 // 0
    bus.ask(1)
    bus.ask(2)
    with pytest.raises(ZeroDivisionError):
        bus.turns.take(Packet(1))
    assert bus.sent == [1, 2]


def test_the_end_ends_all_and_sends_nothing_more() -> None:
    bus = Bus(delay=1)
    for id in (1, 2, 3):
        bus.ask(id)
    bus.on_end[2] = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        bus.turns.fail(SessionClosed(CloseReason.RESET))
    assert (bus.sent, bus.ended(), len(bus.turns)) == ([1], [1, 2, 3], 0)
    bus.turns.expire(1000)
    assert bus.sent == [1]


def test_a_session_asks_in_turns_and_its_one_timer_serves_them() -> None:
    rig = Rig(Config(max_requests_in_flight=1, turnaround_delay=0.5, idle_timeout=None, keepalive_interval=None))
    session, host = rig.open()
    outcomes: list[Any] = []
    for id in (1, 2):
        session.request(Packet(id), outcomes.append, timeout=5)
    session.flush(100.0)
    assert host.packets() == [Packet(1)]
    session.received(encode(Packet(1, b"reply")), 101.0)
    assert outcomes == [Packet(1, b"reply")]
    assert host.timer == 101.5
    session.tick(101.5)
    assert host.packets() == [Packet(1), Packet(2)]
    assert host.timer == 106.5
    session.request(Packet(3), outcomes.append)
    session.lost(None, 102.0)
    assert [type(outcome) for outcome in outcomes] == [Packet, SessionClosed, SessionClosed]
    assert host.packets() == [Packet(1), Packet(2)]


def test_a_request_that_is_forgotten_outside_an_input_lets_the_next_have_its_turn() -> None:
    rig = Rig(Config(max_requests_in_flight=1, idle_timeout=None))
    session, host = rig.open()
    first = session.request(Packet(1), lambda outcome: None)
    session.request(Packet(2), lambda outcome: None)
    session.flush(100.0)
    session.forget(first)
    session.flush(101.0)
    assert host.timer == 101.0
    session.tick(101.0)
    assert host.packets() == [Packet(1), Packet(2)]


# Silence between frames.

DELAY = 0.25
FRAMES = [Packet(number, bytes([number])) for number in range(4)]


def paced(**config: Any) -> tuple[Session, MadeUpHost, Recorder]:
    rig = Rig(Config(interframe_delay=DELAY, **{"idle_timeout": None, **config}))
    session, host = rig.open()
    return session, host, rig.handler


def test_frames_leave_one_at_a_time() -> None:
    session, host, handler = paced()
    for packet in FRAMES:
        session.send(packet)
    session.flush(200.0)
    assert host.packets() == FRAMES[:1]
    assert session.outstanding == sum(len(encode(packet)) for packet in FRAMES[1:])
    assert host.timer == 200.0 + DELAY
    session.tick(200.1)
    assert host.packets() == FRAMES[:1], "it went before its time"
    for turn in range(1, 4):
        session.tick(200.0 + turn * DELAY)
        assert host.packets() == FRAMES[: turn + 1]
    assert session.outstanding == 0
    assert sum(n for _, n in handler.named("sent")) == session.bytes_gone == session.bytes_sent  # type: ignore[misc]
    session.send(FRAMES[0])
    session.flush(300.0)
    assert len(host.packets()) == 5, "after a long silence it waits for nothing"


def test_what_comes_puts_off_what_goes() -> None:
    session, host, handler = paced()
    handler.on["packet"] = lambda session: session.send(FRAMES[0])
    session.received(encode(FRAMES[1]), 200.0)
    assert (host.packets(), host.timer) == ([], 200.0 + DELAY)
    session.received(b"\xfe", 200.1)
    session.tick(200.0 + DELAY)
    assert host.packets() == []
    assert host.timer == pytest.approx(200.1 + DELAY)
    session.tick(200.1 + DELAY)
    assert host.packets() == FRAMES[:1]


def test_silence_begins_when_the_last_byte_has_left() -> None:
    session, host, _ = paced()
    host.takes = 3
    session.send(FRAMES[0])
    session.send(FRAMES[1])
    session.flush(200.0)
    session.tick(201.0)
    assert host.packets() == FRAMES[:1], "the frame before has not left yet"
    host.takes, host.now = 100, 202.0
    host.drain()
    assert host.timer == 202.0 + DELAY
    session.tick(202.0 + DELAY)
    assert host.packets() == FRAMES[:2]


def test_what_waits_counts_against_the_limits_and_a_slow_bus_is_no_sign_of_life() -> None:
    session, _, _ = paced(write_high_water=36, write_low_water=0, max_outstanding=50, idle_timeout=1.0)
    for packet in FRAMES[:3]:
        session.send(packet)
    session.flush(200.0)
    paused = [session.write_paused]
    for packet in FRAMES[:2]:
        session.send(packet)
    session.flush(200.0)
    paused.append(session.write_paused)
    assert (paused, session.outstanding) == ([False, True], 48)
    session.send(FRAMES[0])
    session.flush(200.0)
    assert session.close_reason is CloseReason.SLOW_CONSUMER
    quiet, _, _ = paced(idle_timeout=1.0)
    for packet in FRAMES * 3:
        quiet.send(packet)
    quiet.flush(200.0)
    now = 200.0
    while quiet.is_open and now < 210:
        now += DELAY
        quiet.tick(now)
    assert quiet.close_reason is CloseReason.IDLE_TIMEOUT
    assert now < 202


def test_a_close_waits_for_what_waits_but_not_for_ever() -> None:
    session, host, _ = paced(close_timeout=2.0)
    for packet in FRAMES:
        session.send(packet)
    session.close()
    session.flush(200.0)
    for turn in range(1, 4):
        assert "write_eof" not in host.verbs
        session.tick(200.0 + turn * DELAY)
    assert host.packets() == FRAMES
    assert "write_eof" in host.verbs
    late, host, _ = paced(close_timeout=DELAY / 2)
    for packet in FRAMES:
        late.send(packet)
    late.close()
    late.flush(200.0)
    late.tick(200.0 + DELAY / 2)
    assert "abort" in host.verbs


def send_two_and_close(session: Session) -> None:
    for packet in FRAMES[:2]:
        session.send(packet)
    session.close()


def test_a_peer_that_has_finished_still_gets_what_waits() -> None:
    session, host, handler = paced(close_timeout=2.0)
    handler.on["eof"] = send_two_and_close
    session.eof(200.0)
    assert host.packets() == FRAMES[:1]
    assert "close" not in host.verbs
    session.tick(200.0 + DELAY)
    assert host.packets() == FRAMES[:2]
    assert "close" in host.verbs
    stuck, host, handler = paced(close_timeout=2.0)
    host.takes = 0
    handler.on["eof"] = send_two_and_close
    stuck.eof(200.0)
    stuck.tick(202.0)
    assert "abort" in host.verbs


def test_bad_values_are_refused() -> None:
    for options in (
        {"max_requests_in_flight": 0},
        {"turnaround_delay": 0.1},
        {"turnaround_delay": -1, "max_requests_in_flight": 1},
        {"interframe_delay": -0.1},
        {"interframe_delay": float("nan")},
        {"interframe_delay": float("inf")},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            Config(**options)
    with pytest.raises(ValueError, match="interframe_delay"):
        DatagramEndpoint(Recorder(), Config(interframe_delay=0.1))
