"""The session's pump on a made-up host and a made-up clock: no socket, no runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from packetcore import (
    CloseReason,
    Config,
    Endpoint,
    Handler,
    IdentityTaken,
    Inbox,
    LocalProtocolError,
    Message,
    Packet,
    Reason,
    Refusal,
    Session,
    SessionClosed,
    encode,
)
from packetcore.framings import SLIP, LengthPrefix
from tests.made_up_host import MadeUpHost, Recorder, Rig, open_on

PING = Packet(1, b"ping")
PONG = Packet(2, b"pong")


def reply(packet: Packet) -> Callable[[Session], object]:
    return lambda session: session.send(packet)


def test_what_a_handler_sends_for_one_chunk_leaves_in_one_write() -> None:
    rig = Rig()
    session, host = rig.open()
    rig.handler.on["packet"] = reply(PONG)
    session.received(encode(PING) * 10, 101)
    assert host.verbs.count("write") == 1
    assert host.packets() == [PONG] * 10
    assert rig.handler.named("sent") == [("sent", 10 * len(encode(PONG)))]
    assert "wake" not in host.verbs


class Together(Recorder):
    """Takes the packets of a chunk at once."""

    def packets_received(self, session: Session, packets: list[Packet]) -> None:
        self._note(session, "packets", packets)


def test_a_handler_may_take_the_packets_of_a_chunk_at_once() -> None:
    rig = Rig()
    rig.handler = rig.endpoint._handler = Together()
    session, host = rig.open()
    rig.handler.on["packets"] = reply(PONG)
    session.received(encode(PING) * 3 + b"\x01" + encode(PONG) * 2 + encode(PING)[:5], 101)
    session.received(encode(PING)[5:], 102)
    assert rig.handler.calls == [
        ("connected",),
        ("packets", [PING] * 3),
        ("malformed", Reason.TOO_SHORT),
        ("packets", [PONG] * 2),
        ("sent", 2 * len(encode(PONG))),
        ("packets", [PING]),
        ("sent", len(encode(PONG))),
    ]
    assert host.packets() == [PONG] * 3
    assert session.stats.packets_received == 6


def test_packets_taken_at_once_are_those_that_answer_no_request_and_wait_for_a_resume() -> None:
    rig = Rig()
    rig.handler = rig.endpoint._handler = Together()
    session, _ = rig.open()
    replies: list[object] = []
    session.request(PING, replies.append)
    session.request(PING, replies.append, wait=True)
    rig.handler.on["packets"] = lambda session: session.pause()
    session.received(encode(PING), 101)
    session.received(encode(PONG) + encode(PING) + encode(PONG), 102)
    session.received(encode(PING), 103)
    session.received(encode(PONG), 104)
    assert replies == [PING, PING]
    assert rig.handler.named("packets") == [("packets", [PONG] * 2)]
    session.resume()
    session.flush(105)
    assert rig.handler.named("packets")[1:] == [("packets", [PING, PONG])]


def test_a_handler_that_fails_to_take_packets_at_once_ends_its_session_alone() -> None:
    rig = Rig()
    rig.handler = rig.endpoint._handler = Together()
    session, _ = rig.open()
    rig.handler.on["packets"] = lambda session: 1 // 0
    session.received(encode(PING) * 3, 101)
    assert session.close_reason is CloseReason.HANDLER_ERROR
    assert len(rig.handler.named("packets")) == len(rig.log) == 1


def test_a_handler_that_takes_packets_singly_is_given_each_also_where_they_come_together() -> None:
    rig = Rig()
    session, _ = rig.open()
    rig.handler.packets_received(session, [PING, PONG])
    assert rig.handler.named("packet") == [("packet", PING), ("packet", PONG)]


def test_a_send_outside_an_input_wakes_the_host_once() -> None:
    session, host = Rig().open()
    session.send(PING)
    session.send(PONG)
    assert host.verbs.count("wake") == 1
    assert not host.written
    session.flush(101)
    assert host.packets() == [PING, PONG]
    session.send(PING)
    assert host.verbs.count("wake") == 2


def test_activity_never_rearms_the_timer() -> None:
    session, host = Rig(Config(idle_timeout=60)).open()
    assert host.timer == 160
    for now in range(101, 150):
        session.received(encode(PING), now)
    assert host.verbs.count("set_timer") == 1
    session.tick(160)  # it fires early and is told the new deadline
    assert host.timer == 149 + 60
    session.tick(209)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_a_refresh_in_the_pool_keeps_a_silent_session_alive() -> None:
    rig = Rig(Config(idle_timeout=60))
    session, host = rig.open()
    assert rig.endpoint.sessions.refresh(session.id, 150)
    session.tick(160)
    assert session.is_open
    assert host.timer == 210


def test_disconnected_follows_connected_exactly_once_whatever_comes_after_the_end() -> None:
    rig = Rig()
    session, host = rig.open()
    session.close()
    session.close()
    session.flush(101)
    session.eof(102)
    session.lost(None, 103)
    session.lost(OSError("again"), 104)
    session.received(encode(PING), 105)
    session.eof(106)
    session.tick(107)
    session.flush(108)
    session.sent_bytes(1, 109)
    session.abort()
    assert rig.handler.calls == [("connected",), ("disconnected", CloseReason.LOCAL)]
    assert host.verbs.count("close") == 1
    assert host.timer is None
    assert len(rig.endpoint.sessions) == 0
    assert rig.endpoint.stats.closed == {CloseReason.LOCAL: 1}


def test_a_local_close_flushes_then_half_closes_then_waits_for_the_peer() -> None:
    rig = Rig(Config(close_timeout=5))
    session, host = rig.open()
    session.send(PING)
    session.close()
    with pytest.raises(SessionClosed):
        session.send(PONG)
    session.flush(150)
    assert host.verbs[-3:] == ["write", "write_eof", "set_timer"]
    assert host.timer == 155  # the wait began at the flush, not when it was asked for
    session.received(encode(PONG), 151)
    assert session.stats.bytes_discarded == len(encode(PONG))
    session.eof(152)
    assert host.verbs[-1] == "close" or host.verbs[-2:] == ["close", "set_timer"]
    assert session.close_reason is CloseReason.LOCAL


def test_a_session_may_be_closed_with_a_reason_and_flushes_all_the_same() -> None:
    rig = Rig()
    session, host = rig.open()
    session.send(PING)
    session.close(CloseReason.REPLACED)
    session.flush(101)
    assert host.packets() == [PING]
    session.eof(102)
    session.lost(None, 103)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.REPLACED)


def test_a_peer_that_never_closes_is_aborted_after_close_timeout() -> None:
    session, host = Rig(Config(close_timeout=5)).open()
    session.close()
    session.flush(101)
    session.tick(105.9)
    assert "abort" not in host.verbs
    session.tick(106)
    assert host.verbs.count("abort") == 1


def test_a_socket_that_is_slow_to_close_is_aborted_once() -> None:
    session, host = Rig(Config(close_timeout=5)).open()
    session.close()
    session.flush(101)
    session.eof(102)
    session.tick(106.9)
    assert ("abort" in host.verbs, host.timer) == (False, 107)
    session.tick(107)
    session.tick(108)
    session.flush(109)
    assert host.verbs.count("abort") == host.verbs.count("close") == 1


def test_a_tick_between_an_abort_and_its_flush_makes_no_close_of_it() -> None:
    session, host = Rig().open()
    session.abort()
    session.tick(101)
    session.flush(102)
    assert [verb for verb in host.verbs if verb in ("abort", "close")] == ["abort"]


def test_nothing_is_written_behind_the_end_and_that_is_said_once() -> None:
    session, host = Rig(Config(close_timeout=50)).open()
    host.takes = 0
    session.send(PING)
    session.close()
    session.flush(101)
    session.tick(102)
    host.takes = 5
    host.drain()
    session.touch(103)
    session.flush(104)
    assert [verb for verb in host.verbs if verb.startswith("write")] == ["write", "write_eof"]


def test_room_is_what_is_left_of_the_high_water_and_none_while_a_pause_lasts() -> None:
    frame = encode(PING)
    session, host = Rig(Config(write_high_water=3 * len(frame), write_low_water=0)).open()
    host.takes = 0
    for has_room in (True, True, True, False):
        assert session.send(PING) is has_room
        session.flush(101)
    host.takes = 2 * len(frame)
    host.drain()
    assert session.send(PING) is False, "there is a pause until all has gone"


def test_a_peer_turned_away_while_the_server_shuts_down_is_counted_as_such() -> None:
    rig = Rig()
    rig.endpoint.drain(100, lambda: None)
    session, _ = rig.open()
    assert rig.endpoint.stats.refusals == {Refusal.SHUTDOWN: 1}
    assert session.id == 0


def test_of_what_is_not_delivered_the_packets_alone_count_as_such() -> None:
    session, _ = Rig().open()
    session.pause()
    session.received(encode(PING) + b"\xfe\x00\xfe" + encode(PONG), 101)
    session.abort()
    assert (session.stats.packets_discarded, session.stats.malformed) == (2, {Reason.TOO_SHORT: 1})


def test_a_host_is_woken_once_and_not_behind_its_end() -> None:
    session, host = Rig().open()
    session.pause()
    session.resume()
    assert host.verbs.count("wake") == 1
    session.lost(None, 101)
    session.pause()
    assert host.verbs.count("wake") == 1


def test_an_end_of_stream_is_answered_before_the_session_closes() -> None:
    rig = Rig()
    session, host = rig.open()
    rig.handler.on["packet"] = reply(PONG)
    session.received(encode(PING), 101)
    session.eof(101)
    assert host.packets() == [PONG]
    assert host.verbs.index("write") < host.verbs.index("close")
    session.lost(None, 102)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.PEER)


def test_a_handler_may_reply_long_after_the_peer_finished_sending() -> None:
    rig = Rig()
    session, host = rig.open()
    rig.handler.on["eof"] = lambda session: None
    session.eof(101)
    assert "close" not in host.verbs
    session.send(PONG)
    session.close()
    session.flush(130)
    assert host.packets() == [PONG]
    assert session.close_reason is CloseReason.PEER


def test_a_lost_socket_is_a_reset_and_a_frame_cut_short_is_reported() -> None:
    rig = Rig()
    session, _ = rig.open()
    session.received(encode(PING)[:-3], 101)
    session.lost(ConnectionResetError(), 102)
    assert rig.handler.calls[1:] == [("malformed", Reason.TRUNCATED), ("disconnected", CloseReason.RESET)]


def test_a_handler_that_raises_closes_its_own_session_and_loses_no_reply() -> None:
    rig = Rig()
    session, host = rig.open()
    other, other_host = rig.open()

    def fail(session: Session) -> None:
        session.send(PONG)
        raise RuntimeError("a bug of the application")

    rig.handler.on["packet"] = fail
    session.received(encode(PING) * 3, 101)
    assert len(rig.handler.named("packet")) == 1
    assert host.packets() == [PONG]
    assert host.verbs.index("write") < host.verbs.index("close")
    session.lost(None, 102)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.HANDLER_ERROR)
    assert rig.log == [f"handler of session {session.id} with {session.peer} raised"]
    assert other.is_open
    assert "close" not in other_host.verbs


@pytest.mark.parametrize("method", ["connected", "malformed", "sent", "writable", "eof", "disconnected"])
def test_no_handler_method_can_break_the_pump(method: str) -> None:
    rig = Rig(Config(write_high_water=10, write_low_water=5))

    def fail(session: Session) -> None:
        raise RuntimeError(method)

    rig.handler.on[method] = fail
    session, host = rig.open()
    host.takes = 3
    if session.is_open:
        session.send(PING)
        session.flush(101)
    host.takes = 1 << 30
    host.drain()
    session.received(b"noise\xfe", 102)
    session.eof(103)
    session.lost(None, 104)
    assert len(rig.handler.named("disconnected")) == 1
    assert len(rig.log) == 1
    assert len(rig.endpoint.sessions) == 0


class Group(Exception):
    """What task groups raise; the builtin one is younger than Python 3.10."""

    def __init__(self, *exceptions: Exception) -> None:
        self.exceptions = exceptions


def test_a_function_that_ran_into_the_end_is_no_failure_even_in_a_group() -> None:
    rig = Rig()
    session, _ = rig.open()
    session.failed(Group(SessionClosed(), Group(SessionClosed())), 101)
    assert rig.log == []
    other, _ = rig.open()
    other.failed(Group(SessionClosed(), RuntimeError("a bug of the application")), 101)
    assert other.close_reason is CloseReason.HANDLER_ERROR
    assert len(rig.log) == 1


def test_a_close_in_the_middle_of_a_chunk_ends_delivery() -> None:
    rig = Rig()
    session, _ = rig.open()
    rig.handler.on["packet"] = lambda session: session.close()
    session.received(encode(PING) * 5, 101)
    assert len(rig.handler.named("packet")) == 1
    assert session.stats.packets_discarded == 4


def test_nothing_is_delivered_between_pause_and_resume() -> None:
    rig = Rig()
    session, host = rig.open()
    rig.handler.on["packet"] = lambda session: session.pause()
    session.received(encode(PING) * 3, 101)
    assert len(rig.handler.named("packet")) == 1
    assert host.verbs[-1] == "pause_reading"
    session.resume()
    assert "resume_reading" in host.verbs
    session.flush(102)
    assert len(rig.handler.named("packet")) == 2


def test_a_paused_session_is_not_closed_for_the_silence_it_asked_for() -> None:
    rig = Rig(Config(idle_timeout=60, frame_timeout=10))
    session, _ = rig.open()
    session.received(b"\xfe\x01", 100)
    session.pause()
    session.flush(100)
    for now in range(110, 400, 10):
        session.tick(now)
    session.resume()
    session.flush(399)
    assert session.is_open
    session.tick(409)
    assert session.close_reason is CloseReason.FRAME_TIMEOUT


def test_a_timer_that_fires_before_the_flush_of_a_resume_blames_nobody() -> None:
    session, _ = Rig(Config(idle_timeout=60)).open()
    session.pause()
    session.flush(100)
    session.resume()
    session.tick(160)
    assert session.is_open
    session.tick(220)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_what_came_before_the_end_is_delivered_even_to_a_paused_session() -> None:
    rig = Rig()
    session, _ = rig.open()
    rig.handler.on["packet"] = lambda session: session.pause()
    session.received(encode(PING) * 3, 101)
    session.lost(ConnectionResetError(), 102)
    assert len(rig.handler.named("packet")) == 3
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.RESET)


def test_an_inbox_that_is_full_reads_on_when_its_last_packet_is_taken() -> None:
    rig = Rig()
    inbox = rig.endpoint._handler = Inbox()
    session, host = rig.open()
    for number in range(70):  # of 1 KiB
        session.received(encode(Packet(number, bytes(1024))), 101)
        assert (host.verbs[-1:] == ["pause_reading"]) == (number >= 63)
    for number in range(63):
        assert inbox.take_queued() == Packet(number, bytes(1024))
    with pytest.raises(IndexError):
        inbox.take_queued()
    assert inbox.is_ready
    assert "resume_reading" not in host.verbs
    assert inbox.take() == Packet(63, bytes(1024))
    assert host.verbs[-1] != "pause_reading"
    session.flush(102)
    assert [inbox.take() for _ in range(7)] == [*(Packet(number, bytes(1024)) for number in range(64, 70)), None]


def test_an_inbox_that_is_emptied_in_between_is_never_full() -> None:
    rig = Rig()
    inbox = rig.endpoint._handler = Inbox()
    session, host = rig.open()
    for number in range(200):  # of 1 KiB
        session.received(encode(Packet(number, bytes(1024))), 101)
        assert inbox.take() == Packet(number, bytes(1024))
    assert "pause_reading" not in host.verbs


def test_an_inbox_that_another_thread_empties_has_nothing() -> None:
    class Emptied(deque[Packet | Message]):
        def __bool__(self) -> bool:
            return True  # and when it comes to taking, the other was faster

    inbox = Inbox()
    inbox._queue = Emptied()
    assert inbox.take() is None


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    rig = Rig(Config(write_high_water=100, write_low_water=20))
    session, host = rig.open()
    rig.handler.on["packet"] = reply(Packet(1, bytes(200)))
    host.takes = 50
    session.received(encode(PING), 101)
    assert session.write_paused
    assert "pause_reading" in host.verbs
    host.takes = session.outstanding - 21
    host.drain()
    assert "resume_reading" not in host.verbs
    host.takes = 1
    host.drain()
    assert host.verbs[-1] == "resume_reading"
    assert rig.handler.named("writable") == [("writable",)]
    assert session.outstanding == 20


class Feed(Handler):
    """Sends for as long as there is room, and goes on when there is again."""

    def __init__(self) -> None:
        self.left = 100

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.writable(session)

    def writable(self, session: Session) -> None:
        while self.left:
            self.left -= 1
            if not session.send(Packet(1, bytes(50))):
                break


@pytest.mark.parametrize("takes", [0, 200, 1 << 30])
@pytest.mark.parametrize("low", [0, 100])
def test_who_was_told_that_there_is_no_room_is_told_when_there_is_however_fast_it_went(takes: int, low: int) -> None:
    feed = Feed()
    session, host = open_on(Endpoint(feed, Config(write_high_water=200, write_low_water=low)), ("192.0.2.1", 5000))
    host.takes = takes
    session.received(encode(PING), 101)
    while feed.left and session.outstanding:
        host.takes = 50
        host.drain()
    host.takes = 1 << 30
    host.drain()
    assert feed.left == 0
    assert len(host.packets()) == 100
    assert not session.write_paused


def test_a_client_reads_on_while_its_server_does_not_read() -> None:
    rig = Rig(Config(write_high_water=100, write_low_water=20), is_server=False)
    session, host = rig.open()
    host.takes = 0
    session.send(Packet(1, bytes(200)))
    session.flush(101)
    assert session.write_paused
    assert "pause_reading" not in host.verbs


def test_a_slow_reader_that_makes_progress_is_not_idle() -> None:
    rig = Rig(Config(idle_timeout=60, write_high_water=100, write_low_water=20))
    session, host = rig.open()
    host.takes = 0
    session.send(Packet(1, bytes(1000)))
    session.flush(100)
    for host.now in (150.0, 200.0, 250.0):
        host.takes = 10
        host.drain()
        session.tick(host.now)
    assert session.is_open
    session.tick(310)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_more_than_max_outstanding_unread_ends_the_session_at_once() -> None:
    rig = Rig(Config(write_high_water=100, write_low_water=20, max_outstanding=1000))
    session, host = rig.open()
    host.takes = 0

    def flood(session: Session) -> None:
        for _ in range(1000):
            session.send(Packet(1, bytes(100)))

    rig.handler.on["packet"] = flood
    session.received(encode(PING), 101)
    assert session.close_reason is CloseReason.SLOW_CONSUMER
    assert host.verbs[-1] == "abort"
    assert session.outstanding < 1000 + 200
    assert rig.log == []


def test_a_fast_socket_is_given_the_chance_to_take_a_burst() -> None:
    session, host = Rig(Config(write_high_water=100, write_low_water=20, max_outstanding=1000)).open()
    for _ in range(1000):
        session.send(Packet(1, bytes(100)))
    session.flush(101)
    assert session.is_open
    assert len(host.packets()) == 1000


def test_caps_refuse_without_a_call_to_the_handler() -> None:
    rig = Rig(Config(max_sessions=2, max_sessions_per_host=1))
    rig.open("192.0.2.1")
    refused, host = rig.open("192.0.2.1")
    assert refused.close_reason is CloseReason.REFUSED
    assert host.verbs.count("abort") == 1
    rig.open("192.0.2.2")
    rig.open("192.0.2.3")
    refused.lost(None, 101)
    assert rig.handler.calls == [("connected",), ("connected",)]
    assert (rig.endpoint.stats.opened, rig.endpoint.stats.refused) == (2, 2)
    assert len(rig.endpoint.sessions) == 2


def test_an_identity_moves_to_the_session_that_bound_it_last() -> None:
    rig = Rig()
    old, old_host = rig.open()
    new, _ = rig.open()
    old.bind("device 7")
    with pytest.raises(IdentityTaken, match="'device 7' is held by session 1"):
        new.bind("device 7", takeover="reject")
    new.bind("device 7")
    assert rig.endpoint.sessions.find("device 7") is new
    old_host.session.flush(101)
    old.eof(102)
    old.lost(None, 103)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.REPLACED)
    assert rig.endpoint.sessions.find("device 7") is new
    with pytest.raises(LocalProtocolError):
        old.bind("device 8")


def test_draining_lets_sessions_flush_refuses_new_ones_and_says_when_it_is_done() -> None:
    rig = Rig()
    session, host = rig.open()
    host.takes = 0
    session.send(PING)
    done: list[bool] = []
    rig.endpoint.drain(101, lambda: done.append(True))
    refused, _ = rig.open()
    assert refused.close_reason is CloseReason.REFUSED
    assert host.packets() == [PING]
    assert not done
    session.eof(102)
    session.lost(None, 103)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.SHUTDOWN)
    assert done == [True]


def test_one_whose_handshake_was_under_way_is_drained_as_it_begins() -> None:
    rig = Rig()
    done: list[bool] = []
    rig.endpoint.drain(101, lambda: done.append(True), admit_late=True)
    assert done == [True]
    late, _ = rig.open()
    assert rig.handler.named("connected") == [("connected",)]
    late.eof(102)
    late.lost(None, 102)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.SHUTDOWN)
    assert done == [True, True]
    rig.endpoint.abort(103)
    refused, _ = rig.open()
    assert refused.close_reason is CloseReason.REFUSED


def test_an_abort_of_the_endpoint_ends_what_is_left() -> None:
    rig = Rig()
    session, host = rig.open()
    rig.endpoint.abort(101)
    assert host.verbs[-1] == "abort"
    session.lost(None, 102)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.SHUTDOWN)


def test_joined_messages_take_the_place_of_packets() -> None:
    rig = Rig(Config(join_messages=True))
    session, host = rig.open()
    session.send_message(b"x" * 1000, id=7, type=3, chunk=100)
    session.flush(101)
    session.received(bytes(host.written), 102)
    assert rig.handler.named("message") == [("message", Message(7, b"x" * 1000, 3))]
    assert rig.handler.named("packet") == []


def test_a_malformed_frame_ends_the_session_where_the_config_says_so() -> None:
    rig = Rig(Config(on_malformed="close"))
    session, host = rig.open()
    rig.handler.on["packet"] = reply(PONG)
    session.received(encode(PING) + b"\xfe\x01\xfe" + encode(PING), 101)
    session.lost(None, 102)
    assert rig.handler.calls[1:] == [
        ("packet", PING),
        ("malformed", Reason.TOO_SHORT),
        ("sent", len(encode(PONG))),
        ("disconnected", CloseReason.PROTOCOL_ERROR),
    ]
    assert host.packets() == [PONG]
    assert "write_eof" in host.verbs


def test_a_socket_that_fails_inside_a_write_ends_the_session_once() -> None:
    rig = Rig()
    session, host = rig.open()
    rig.handler.on["packet"] = reply(PONG)

    def broken(data: bytes) -> int:
        session.lost(BrokenPipeError(), 101)
        return 0

    host.write = broken  # type: ignore[method-assign]
    session.received(encode(PING) * 2, 101)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.RESET)
    assert len(rig.handler.named("disconnected")) == 1


def test_a_write_that_takes_all_ends_the_pause_that_more_sent_meanwhile_had_kept_up() -> None:
    # A handler that does not ask what was sent, as most: then a write has a shorter way.
    session, host = open_on(Endpoint(Handler(), Config(write_high_water=100, write_low_water=10)), ("192.0.2.1", 5000))
    host.takes = 0
    session.send(Packet(1, bytes(200)))
    session.flush(101)
    assert (session.write_paused, session.has_room) == (True, False)
    session.send(Packet(2, bytes(50)))  # not written yet: more than the low water is left
    host.takes = 1 << 30
    host.drain()
    assert (session.write_paused, session.has_room) == (False, True)


def test_bytes_that_arrive_while_the_pump_runs_wait_their_turn() -> None:
    rig = Rig()
    session, _ = rig.open()
    nested = [encode(PONG)]

    def receive_more(session: Session) -> None:
        if nested:
            session.received(nested.pop(), 101)
            assert rig.handler.calls[-1] == ("packet", PING)

    rig.handler.on["packet"] = receive_more
    session.received(encode(PING), 101)
    assert rig.handler.named("packet") == [("packet", PING), ("packet", PONG)]


def test_what_stands_behind_a_malformed_frame_in_a_full_inbox_is_taken_in_its_order() -> None:
    rig = Rig()
    inbox = rig.endpoint._handler = Inbox()
    session, _ = rig.open()
    big = [Packet(number, bytes(1024)) for number in range(70)]
    session.received(b"".join(map(encode, big)) + b"\xfebroken\xfe" + encode(PING), 101)
    assert session.stats.malformed.total() == 1
    session.lost(ConnectionResetError(), 102)
    assert [inbox.take() for _ in range(71)] == [*big, PING]
    with pytest.raises(SessionClosed):
        inbox.take()


def test_a_write_that_fails_leaves_the_bytes_unsent_and_uncounted() -> None:
    class Broken(MadeUpHost):
        def write(self, data: bytes) -> int:
            raise KeyboardInterrupt

    rig = Rig()
    host = Broken()
    session = host.session = Session(rig.endpoint, host, ("192.0.2.1", 5000), 100)
    session.opened(100)
    session.send(PING)
    with pytest.raises(KeyboardInterrupt):
        session.flush(101)
    assert (session.outstanding, session._unsent) == (0, 0), "they have left the queue and were not taken either"


def test_a_session_says_who_it_is() -> None:
    session, _ = Rig().open()
    assert repr(session) == "<Session 1 ('192.0.2.1', 5000) OPEN>"


def test_a_message_too_long_for_a_peer_that_does_not_read_ends_the_session() -> None:
    session, host = Rig(Config(write_high_water=100, write_low_water=20, max_outstanding=1000)).open()
    host.takes = 0
    session.send_message(bytes(2000), id=1, chunk=100)
    assert session.close_reason is CloseReason.SLOW_CONSUMER


def test_a_sign_of_life_after_the_loss_counts_for_nothing() -> None:
    session, _ = Rig(Config(idle_timeout=10)).open()
    session.touch(105)
    session.tick(110)
    assert session.is_open
    session.lost(None, 111)
    session.touch(120)
    assert session._connection.next_deadline() is None


def test_a_message_is_sent_as_its_packets() -> None:
    session, host = Rig(Config(max_payload=5, write_high_water=60, write_low_water=0)).open()
    host.takes = 0
    assert session.send(Message(7, bytes(10), 3))
    assert not session.send(Message(7, bytes(10), 3)), "there is no room for more"
    session.flush(101)
    assert host.packets() == [Packet(7, bytes(5), type=3, count=2)] * 4
    session.send_message(b"", id=8)
    session.flush(102)
    assert host.packets()[4:] == [Packet(8)]
    session.send_message(bytes(3), id=8, chunk=2)
    session.flush(103)
    assert host.packets()[5:] == [Packet(8, bytes(2), count=2), Packet(8, bytes(1), count=2)]


def test_a_sender_who_can_wait_is_told_whether_to_once_the_socket_had_its_chance() -> None:
    session, host = Rig(Config(write_high_water=20, write_low_water=0)).open()
    session.send(Packet(1, bytes(30)))
    assert not session.has_room
    assert not session.congested(101)
    assert host.packets() == [Packet(1, bytes(30))]
    host.takes = 0
    session.send(Packet(2, bytes(9)))
    assert not session.congested(102), "there is room"
    assert len(host.packets()) == 1, "so nothing was asked of the socket"
    session.send(Packet(2, bytes(9)))
    assert session.congested(103)
    session.lost(None, 104)
    assert not session.congested(104), "no room will come"


def test_messages_are_of_the_default_framing_alone() -> None:
    session, _ = open_on(Endpoint(Recorder(), framing=SLIP()), ("192.0.2.1", 5000))
    words = r"^send_message: messages of several packets are of the default framing alone$"
    with pytest.raises(LocalProtocolError, match=words):
        session.send_message(b"", id=1)


def test_just_what_may_be_outstanding_may_be() -> None:
    for send in (
        lambda session: session.send(Packet(1, bytes(89))),
        lambda session: session.send(Message(1, bytes(89))),
        lambda session: session.send_message(bytes(89), id=1),
        lambda session: (session.pause(), session.send(Packet(1, bytes(89)))),
    ):
        session, host = Rig(Config(write_high_water=100, write_low_water=0, max_outstanding=100)).open()
        host.takes = 0
        send(session)
        session.flush(101)
        assert (session.outstanding, session.is_open, session.write_paused) == (100, True, False)
        send(session)
        session.flush(101)
        assert session.close_reason is CloseReason.SLOW_CONSUMER


def test_an_inbox_says_why_there_will_be_no_more() -> None:
    rig = Rig()
    inbox = rig.endpoint._handler = Inbox()
    session, _ = rig.open()
    rig.endpoint.drain(101, lambda: None)
    with pytest.raises(SessionClosed) as told:
        inbox.take()
    assert told.value.reason is CloseReason.SHUTDOWN
    session.abort()


def test_what_is_sent_to_a_peer_that_was_lost_is_dropped_up_to_a_bound_for_each_item_taken() -> None:
    rig = Rig(Config(write_high_water=10, write_low_water=5))
    inbox = rig.endpoint._handler = Inbox()
    session, _ = rig.open()
    session.received(encode(Packet(1)) + encode(Packet(2, bytes(64 * 1024))), 101)  # the second is kept apart
    assert not inbox.drop(1), "the peer is there"
    session.lost(OSError(), 102)
    for taken in range(3):
        assert [inbox.drop(10), inbox.drop(1), inbox.drop(1)] == [True, True, False]
        if taken < 2:
            inbox.take()
    with pytest.raises(SessionClosed):
        inbox.take()
    assert not inbox.drop(1), "the reader knows"


class Plain(Handler):
    """It does not ask what has gone."""


def test_what_has_gone_is_counted_for_a_handler_that_does_not_ask_for_it() -> None:
    session, host = open_on(Endpoint(Plain()), ("192.0.2.1", 5000))
    for now in (101, 102):
        session.send(PING)
        session.flush(now)
        assert (session.outstanding, session.bytes_gone, session.has_room) == (0, session.bytes_sent, True)
    host.takes = 5
    session.send(PING)
    session.flush(103)
    assert session.outstanding == len(encode(PING)) - 5
    assert session.bytes_gone == session.bytes_sent - session.outstanding
    host.takes, host.now = 100, 104
    host.drain()
    assert (session.outstanding, session.bytes_gone) == (0, session.bytes_sent)


def test_a_peer_that_has_finished_and_takes_what_is_sent_is_not_idle() -> None:
    rig = Rig(Config(idle_timeout=10))
    rig.handler.on["eof"] = lambda session: None
    session, host = rig.open()
    session.eof(101)
    for now in (110, 119, 128):
        session.send(PING)
        session.flush(now)
        session.tick(now)
    assert session.is_open
    host.takes = 0
    session.send(PING)
    session.flush(129)
    session.tick(139)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_a_handler_is_told_once_that_the_server_shuts_down_and_not_at_all_when_it_is_over() -> None:
    class Draining(Recorder):
        def draining(self, session: Session) -> None:
            self._note(session, "draining")

    rig = Rig()
    rig.endpoint._handler = handler = Draining()
    session, _ = rig.open()
    session.drain(101)
    session.drain(102)
    assert handler.named("draining") == [("draining",)]
    over, _ = rig.open()
    over.lost(None, 103)
    over.drain(104)
    assert handler.named("draining") == [("draining",)]


def test_a_handler_that_is_given_packets_at_once_takes_each_with_its_session() -> None:
    session, _ = Rig().open()
    handler, taken = Handler[Packet](), list[object]()
    handler.packet_received = lambda session, packet: taken.append((session, packet))  # type: ignore[method-assign]
    handler.packets_received(session, [PING, PONG])
    assert taken == [(session, PING), (session, PONG)]


class Rude:
    """A codec that ends the session in whose name it encodes."""

    end: Callable[[], object]

    def encode(self, packet: bytes, /) -> bytes:
        self.end()
        return packet

    def decode(self, frame: bytes, /) -> bytes:
        return frame


def test_what_is_encoded_while_its_session_ends_is_not_sent() -> None:
    codec = Rude()
    endpoint: Endpoint[bytes] = Endpoint(Recorder(), framing=SLIP(), codec=codec)  # type: ignore[arg-type]
    session, host = open_on(endpoint, ("192.0.2.1", 5000))  # type: ignore[arg-type]
    codec.end = lambda: session.lost(ConnectionResetError(), 101)
    with pytest.raises(SessionClosed):
        session.send(b"never")  # type: ignore[call-overload]
    assert (session.outstanding, session.bytes_sent, session.stats.packets_sent, bytes(host.written)) == (0, 0, 0, b"")


def test_a_codec_that_ends_its_session_while_it_decodes_has_what_came_before_delivered_first() -> None:
    class Ending(Rude):
        def decode(self, frame: bytes, /) -> bytes:
            if frame == b"end":
                self.end()
            return frame

    codec, handler = Ending(), Recorder()
    endpoint: Endpoint[bytes] = Endpoint(handler, framing=SLIP(), codec=codec)  # type: ignore[arg-type]
    session, _ = open_on(endpoint, ("192.0.2.1", 5000))  # type: ignore[arg-type]
    codec.end = lambda: session.lost(ConnectionResetError(), 101)
    session.received(b"\xc0first\xc0end\xc0", 101)
    assert [call[0] for call in handler.calls][-1] == "disconnected"
    assert handler.named("packet")[:1] == [("packet", b"first")]


def test_replies_to_a_peer_that_has_finished_are_bounded_too() -> None:
    rig = Rig(Config(write_high_water=100, write_low_water=0, max_outstanding=100))
    rig.handler.on["eof"] = lambda session: None
    session, host = rig.open()
    host.takes = 0
    session.eof(101)
    session.send(Packet(1, bytes(89)))
    assert session.is_open
    session.send(PING)
    assert session.close_reason is CloseReason.SLOW_CONSUMER


def test_a_session_that_has_left_the_pool_is_timed_by_what_it_heard_itself() -> None:
    rig = Rig(Config(idle_timeout=10))
    session, _ = rig.open()
    session.received(encode(PING), 105)
    rig.endpoint.sessions.remove(session.id)
    session.tick(114)
    assert session.is_open
    session.tick(115)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


@pytest.mark.parametrize(("framing", "ends"), [(LengthPrefix(1), True), (SLIP(), False)])
def test_a_framing_that_cannot_find_the_next_frame_ends_the_session(framing: Any, ends: bool) -> None:
    endpoint: Endpoint[bytes] = Endpoint(Recorder(), Config(max_payload=2), framing=framing)  # type: ignore[arg-type]
    session, _ = open_on(endpoint, ("192.0.2.1", 5000))  # type: ignore[arg-type]
    session.received(framing.encode(b"long") + framing.encode(b"ok"), 101)
    assert session.is_open is not ends
    session.eof(102)
    assert (session.close_reason is CloseReason.PROTOCOL_ERROR) is ends
