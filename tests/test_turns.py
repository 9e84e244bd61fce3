"""Requests that take turns, and frames with silence between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from packetcore import (
    CloseReason,
    Config,
    DatagramEndpoint,
    Handler,
    LocalProtocolError,
    Packet,
    Request,
    RequestPending,
    Session,
    SessionClosed,
    encode,
)
from packetcore._turns import Turns
from packetcore.testing import FakeSession
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


@pytest.mark.parametrize("delay", [0, 1])
def test_the_end_ends_all_and_sends_nothing_more(delay: float) -> None:
    bus = Bus(delay=delay)
    for id in (1, 2, 3):
        bus.ask(id)
    bus.on_end[2] = lambda: 1 // 0
    with pytest.raises(ZeroDivisionError):
        bus.turns.fail(SessionClosed(CloseReason.RESET))
    assert [getattr(outcome, "reason", None) for _, outcome in bus.ends] == [CloseReason.RESET] * 3
    assert (bus.sent, bus.ended(), len(bus.turns)) == ([1], [1, 2, 3], 0)
    bus.turns.expire(1000)
    assert bus.sent == [1]


def test_a_session_asks_in_turns_and_its_one_timer_serves_them() -> None:
    config = Config(max_requests_in_flight=1, turnaround_delay=0.5, idle_timeout=None, keepalive_interval=None)
    session = FakeSession(Handler(), config)
    outcomes: list[Any] = []
    for id in (1, 2):
        session.session.request(Packet(id), outcomes.append, timeout=5)
    session.advance(1)
    assert session.sent == [Packet(1)]
    session.feed(Packet(1, b"reply"))
    assert outcomes == [Packet(1, b"reply")]
    session.advance(0.375)
    assert session.sent == [Packet(1)]
    session.advance(0.125)
    assert session.sent == [Packet(1), Packet(2)]
    session.session.request(Packet(3), outcomes.append)
    session.session.request(Packet(4), outcomes.append)
    session.advance(5)
    assert session.sent == [Packet(1), Packet(2)], "the turnaround delay is kept after a timeout too"
    session.lost()
    assert [type(outcome) for outcome in outcomes] == [Packet, TimeoutError, SessionClosed, SessionClosed]
    assert session.sent == [Packet(1), Packet(2)]


def test_a_request_that_is_forgotten_outside_an_input_lets_the_next_have_its_turn() -> None:
    session = FakeSession(Handler(), Config(max_requests_in_flight=1, idle_timeout=None))
    first = session.session.request(Packet(1), lambda outcome: None)
    session.session.request(Packet(2), lambda outcome: None)
    session.advance(1)
    session.session.forget(first)
    assert session.sent == [Packet(1), Packet(2)]


# Silence between frames.

DELAY = 0.25
FRAMES = [Packet(number, bytes([number])) for number in range(4)]


def paced(**config: Any) -> tuple[FakeSession, Recorder]:
    handler = Recorder()
    return FakeSession(handler, Config(interframe_delay=DELAY, **{"idle_timeout": None, **config})), handler


def send(session: FakeSession, packets: list[Packet]) -> None:
    for packet in packets:
        session.session.send(packet)


def test_frames_leave_one_at_a_time() -> None:
    session, handler = paced()
    send(session, FRAMES)
    assert session.sent == FRAMES[:1]
    assert session.session.outstanding == sum(len(encode(packet)) for packet in FRAMES[1:])
    for turn in range(1, 4):
        session.advance(DELAY - 0.125)
        assert session.sent == FRAMES[:turn], "it went before its time"
        session.advance(0.125)
        assert session.sent == FRAMES[: turn + 1]
    assert session.session.outstanding == 0
    gone, sent = session.session.bytes_gone, session.session.bytes_sent
    assert sum(n for _, n in handler.named("sent")) == gone == sent  # type: ignore[misc]
    session.advance(100)
    send(session, FRAMES[:1])
    assert len(session.sent) == 5, "after a long silence it waits for nothing"


def test_what_comes_puts_off_what_goes() -> None:
    session, handler = paced()
    handler.on["packet"] = lambda session: session.send(FRAMES[0])
    session.feed(FRAMES[1])
    session.advance(0.125)
    session.feed(b"\xfe")
    session.advance(DELAY - 0.125)
    assert session.sent == []
    session.advance(0.125)
    assert session.sent == FRAMES[:1]


def test_silence_begins_when_the_last_byte_has_left() -> None:
    session, _ = paced()
    session.room = 3
    send(session, FRAMES[:2])
    session.advance(1)
    assert session.writes == [encode(FRAMES[0])], "the frame before has not left yet"
    session.room = None
    session.advance(DELAY - 0.125)
    assert session.sent == FRAMES[:1]
    session.advance(0.125)
    assert session.sent == FRAMES[:2]


def test_what_waits_counts_against_the_limits_and_a_slow_bus_is_no_sign_of_life() -> None:
    session, _ = paced(write_high_water=36, write_low_water=0, max_outstanding=50, idle_timeout=1.0)
    send(session, FRAMES[:3])
    assert session.sent == FRAMES[:1]
    paused = [session.session.write_paused]
    send(session, FRAMES[:2])
    session.clock.settle()
    paused.append(session.session.write_paused)
    assert (paused, session.session.outstanding) == ([False, True], 48)
    send(session, FRAMES[:1])
    assert session.close_reason is CloseReason.SLOW_CONSUMER
    quiet, _ = paced(idle_timeout=1.0)
    send(quiet, FRAMES * 3)
    quiet.advance(1.0)
    assert quiet.close_reason is CloseReason.IDLE_TIMEOUT


def test_a_close_waits_for_what_waits_but_not_for_ever() -> None:
    session, _ = paced(close_timeout=2.0)
    send(session, FRAMES)
    session.session.close()
    session.advance(2 * DELAY)
    assert session.sent == FRAMES[:3]
    assert not session.is_over
    session.advance(DELAY)
    assert session.sent == FRAMES
    assert session.close_reason is CloseReason.LOCAL
    assert not session.was_reset
    late, _ = paced(close_timeout=DELAY / 2)
    send(late, FRAMES)
    late.session.close()
    late.advance(DELAY / 2)
    assert late.was_reset


def send_two_and_close(session: Session) -> None:
    for packet in FRAMES[:2]:
        session.send(packet)
    session.close()


def test_a_peer_that_has_finished_still_gets_what_waits() -> None:
    session, handler = paced(close_timeout=2.0)
    handler.on["eof"] = send_two_and_close
    session.eof()
    assert session.sent == FRAMES[:1]
    assert not session.is_over
    session.advance(DELAY)
    assert session.sent == FRAMES[:2]
    assert session.close_reason is CloseReason.PEER
    stuck, handler = paced(close_timeout=2.0)
    stuck.room = 0
    handler.on["eof"] = send_two_and_close
    stuck.eof()
    stuck.advance(2.0)
    assert stuck.was_reset


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


def test_a_turn_whose_send_finds_the_socket_gone_is_told_once_and_ends_no_turn() -> None:
    bus = Bus()
    bus.ask(1)
    bus.ask(2)

    def send_and_lose(packet: Packet) -> None:
        bus.turns.fail(SessionClosed())
        raise SessionClosed

    bus.turns._send = send_and_lose
    assert bus.turns.take(Packet(1))
    assert (bus.ended(), len(bus.turns), bus.turns._sent) == ([1, 2], 0, {})
    bus.turns._send = lambda packet: bus.turns.fail(SessionClosed())
    bus.ask(3)
    assert (bus.ended(), len(bus.turns), bus.turns._sent) == ([3], 0, {})


def test_while_the_time_is_not_known_the_next_waits_for_it() -> None:
    bus = Bus()
    bus.ask(1)
    bus.ask(2)
    bus.now = None
    assert bus.turns.take(Packet(1))
    assert (bus.ended(), bus.sent) == ([1], [1])
    bus.turns.begin(103)
    assert bus.turns.next_deadline() == 103
    bus.turns.expire(103)
    assert bus.sent == [1, 2]


def test_a_turn_that_another_forgets_at_the_end_of_all_is_told_nothing() -> None:
    bus = Bus()
    first = bus.ask(1)
    bus.on_end[2] = lambda: bus.turns.forget(third)
    bus.ask(2)
    third = bus.ask(3)
    assert bus.turns.forget(first, 100)
    bus.turns.fail(SessionClosed())
    assert bus.ended() == [2]


def on_made_up_host(**config: Any) -> tuple[Session, MadeUpHost, Recorder]:
    """A paced session, each of whose inputs the test gives."""
    rig = Rig(Config(interframe_delay=DELAY, **{"idle_timeout": None, **config}))
    session, host = rig.open()
    return session, host, rig.handler


def test_what_has_left_a_bus_that_is_gone_counts_for_nothing() -> None:
    session, host, handler = on_made_up_host()
    host.takes = 0
    session.send(FRAMES[0])
    session.flush(200.0)
    session.lost(ConnectionResetError(), 201.0)
    session.sent_bytes(11, 202.0)
    session.tick(203.0)
    assert handler.named("sent") == []
    assert handler.named("disconnected") == [("disconnected", CloseReason.RESET)]


def test_a_line_that_is_lost_in_a_write_ends_the_session_once() -> None:
    session, host, handler = on_made_up_host()
    for packet in FRAMES[:2]:
        session.send(packet)
    session.flush(200.0)

    def lose(data: bytes) -> int:
        session.lost(OSError(), 201.0)
        return 0

    host.write = lose  # type: ignore[method-assign]
    session.tick(201.0)
    assert handler.named("disconnected") == [("disconnected", CloseReason.RESET)]


def test_a_timer_with_nothing_to_send_is_that_of_any_session() -> None:
    session, _, _ = on_made_up_host(idle_timeout=1.0)
    session.tick(150.0)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_a_bus_rests_after_a_request_that_was_forgotten_too() -> None:
    bus = Bus(delay=2, hold=5)
    first = bus.ask(1)
    bus.ask(2)
    assert bus.turns.forget(first, 100)
    assert not bus.turns.forget(first, 100)
    assert bus.turns.next_deadline() == 102
    bus.turns.expire(101.9)
    assert bus.sent == [1]
    bus.turns.expire(102)
    assert (bus.sent, bus.turns.next_deadline()) == ([1, 2], 105), "the hold of the id counts from then too"


def test_what_is_sent_while_the_time_is_not_known_waits_for_it_even_where_it_is_too_much() -> None:
    session, host, _ = on_made_up_host(write_high_water=30, write_low_water=0, max_outstanding=40)
    for packet in FRAMES[:3]:
        session.send(packet)
    session.send(FRAMES[3])
    assert host.packets() == [], "when the last frame has left is not known before the flush"
    session.flush(200.0)
    assert session.close_reason is CloseReason.SLOW_CONSUMER


def test_a_rest_that_is_over_keeps_nobody_waiting_and_one_under_way_lasts_as_long_as_it_did() -> None:
    bus = Bus(delay=2)
    first = bus.ask(1)
    assert first.id == 1
    bus.turns.take(Packet(1))
    bus.now = 102.0
    bus.ask(2)
    assert bus.sent == [1, 2]
    bus.turns.take(Packet(2))
    bus.turns.ask_by(lambda packet: True, Packet(3), lambda outcome: None, None, 104.0)
    assert bus.sent == [1, 2, 3]
    both = Bus(most=2, delay=2)
    both.ask(1)
    both.ask(2)
    both.turns.take(Packet(1))
    both.now = None
    both.turns.take(Packet(2))
    both.ask(3)
    both.turns.begin(101)
    assert (both.sent, both.turns.next_deadline()) == ([1, 2], 102)


def test_whatever_is_asked_in_turns_is_asked_as_it_would_be_without() -> None:
    bus, ends = Bus(most=3), list[Any]()
    bus.turns._send = ends.append
    bus.turns.ask(b"payload", None, ends.append, None, 100, type=5)
    assert ends == [Packet(ends[0].id, b"payload", type=5)]
    bus.turns.ask(Packet(7), lambda reply: reply.payload == b"match", ends.append, None, 100)
    assert bus.turns.take(Packet(8, b"match"))
    assert ends[1:] == [Packet(7), Packet(8, b"match")]
    bus.turns.ask(Packet(7), None, ends.append, None, 100)
    bus.turns.ask(Packet(7, b"next"), None, ends.append, None, 100, wait=True)
    bus.turns.take(Packet(7))
    assert ends[3:] == [Packet(7), Packet(7, b"next"), Packet(7)], "the id has passed on when its reply is told"


def test_more_than_may_wait_is_not_too_much_where_the_first_of_it_can_go_at_once() -> None:
    handler = Recorder()
    handler.on["connected"] = lambda session: send_all(session)

    def send_all(session: Session) -> None:
        for packet in FRAMES:
            session.send(packet)

    size = sum(len(encode(packet)) for packet in FRAMES)
    limits = {"write_high_water": 10, "write_low_water": 0, "max_outstanding": size - 1}
    session = FakeSession(handler, Config(interframe_delay=DELAY, idle_timeout=None, **limits))  # type: ignore[arg-type]
    session.advance(100)
    assert session.sent == FRAMES
    assert not session.is_over


def test_a_session_may_be_closed_as_soon_as_its_frame_has_left() -> None:
    session, host, handler = on_made_up_host()
    host.takes = 0
    session.send(FRAMES[0])
    session.flush(200.0)
    handler.on["sent"] = lambda session: session.close()
    host.takes, host.now = 100, 201.0
    host.drain()
    session.flush(202.0)
    session.eof(203.0)
    assert session.close_reason is CloseReason.LOCAL
