"""The protocol of one stream: what is legal when, what comes of it, and what time does."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import (
    TRANSITIONS,
    Closed,
    CloseReason,
    Config,
    Connection,
    Decoder,
    EndOfStream,
    Event,
    Input,
    LocalProtocolError,
    Malformed,
    Message,
    Packet,
    Reason,
    SessionClosed,
    State,
    encode,
)
from packetcore._connection import PacketFraming
from packetcore_conformance.strategies import ids, packets, payloads, types

PACKET = Packet(16, b"hello")
FRAME = encode(PACKET)
BAD_FRAME = b"\xfe\x00\xfe"
BAD = Malformed(Reason.TOO_SHORT, 1, b"\x00")

NO_TIMEOUTS = Config(idle_timeout=None, frame_timeout=None, close_timeout=None, message_timeout=None)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# Every state with every input.

STEPS: dict[Input, Callable[[Connection, float], object]] = {
    Input.DATA: lambda connection, now: connection.receive_data(FRAME, now),
    Input.EOF: lambda connection, now: connection.receive_eof(now),
    Input.SEND: lambda connection, now: connection.send(PACKET),
    Input.CLOSE: lambda connection, now: connection.close(now),
    Input.FAIL: lambda connection, now: connection.fail(CloseReason.RESET, now),
}
LEADING_TO: dict[State, list[Input]] = {
    State.OPEN: [],
    State.HALF_CLOSED: [Input.EOF],
    State.CLOSING: [Input.CLOSE],
    State.CLOSED: [Input.FAIL],
}
ILLEGAL = [pair for pair in itertools.product(State, Input) if pair not in TRANSITIONS]


def connection_in(state: State) -> Connection:
    """One with unsent output, half a frame pending and every timeout on."""
    keepalive = Config(keepalive_interval=45.0, keepalive_packet=Packet(0), max_payload=100)
    connection = Connection(keepalive, now=100.0)
    connection.receive_data(FRAME + BAD_FRAME + FRAME[:5], 101.0)
    connection.send(PACKET)
    for step in LEADING_TO[state]:
        STEPS[step](connection, 102.0)
    assert connection.state is state
    return connection


def observe(connection: Connection) -> list[object]:
    """All that can be seen of it, the time that it believes in too."""
    seen: list[object] = [connection.state, connection.next_deadline(), deepcopy(connection.stats)]
    seen.append(connection.bytes_to_send())
    connection.set_reading(False, 0.0)
    connection.set_reading(True, 0.0)
    seen.append(connection.next_deadline())
    seen.append(connection.close(0.0))
    seen.append(connection.next_deadline())
    seen.append(connection.fail(CloseReason.RESET, 0.0))
    seen += [connection.state, connection.next_deadline(), connection.stats, connection.bytes_to_send()]
    return seen


def test_the_illegal_pairs_are_these() -> None:
    assert set(ILLEGAL) == {
        (State.HALF_CLOSED, Input.DATA),
        (State.HALF_CLOSED, Input.EOF),
        (State.CLOSING, Input.SEND),
        (State.CLOSED, Input.DATA),
        (State.CLOSED, Input.EOF),
        (State.CLOSED, Input.SEND),
    }


@pytest.mark.parametrize(("state", "input"), TRANSITIONS)
def test_a_legal_input_leads_where_the_table_says(state: State, input: Input) -> None:
    connection = connection_in(state)
    STEPS[input](connection, 103.0)
    assert connection.state is TRANSITIONS[state, input]


@pytest.mark.parametrize(("state", "input"), ILLEGAL)
def test_an_illegal_input_raises_and_changes_nothing(state: State, input: Input) -> None:
    connection = connection_in(state)
    message = "the session is clos" if input is Input.SEND else f"{input.name} is not legal while {state.name}$"
    with pytest.raises(LocalProtocolError, match=f"^{message}"):
        STEPS[input](connection, 103.0)
    assert observe(connection) == observe(connection_in(state))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(
    ("send", "error", "message"),
    [
        (
            lambda connection: connection.send(Packet(1, bytes(101))),
            LocalProtocolError,
            r"^payload of 101 bytes exceeds max_payload=100$",
        ),
        (
            lambda connection: connection.send_message(b"a", id=1, chunk=101),
            LocalProtocolError,
            r"^chunk of 101 bytes exceeds max_payload=100$",
        ),
        (lambda connection: connection.send_message(b"a", id=1, chunk=0), ValueError, "^chunk=0 must be at least 1"),
        (lambda connection: connection.send_message(b"a", id=65536), ValueError, "^id=65536 is out of range"),
        (lambda connection: connection.send_message(bytes(65536), id=1, chunk=1), ValueError, "at most 65535$"),
    ],
    ids=["payload too long", "chunk too long", "no chunk", "id", "too many packets"],
)
def test_what_cannot_be_sent_raises_and_changes_nothing(
    state: State, send: Callable[[Connection], object], error: type[Exception], message: str
) -> None:
    connection = connection_in(state)
    if (state, Input.SEND) not in TRANSITIONS:
        error, message = SessionClosed, "^the session is clos"
    with pytest.raises(error, match=message):
        send(connection)
    assert observe(connection) == observe(connection_in(state))


def test_the_error_of_a_late_send_says_why_the_session_ended() -> None:
    connection = connection_in(State.CLOSING)
    with pytest.raises(SessionClosed, match=r"^the session is closing$") as caught:
        connection.send(PACKET)
    assert caught.value.reason is None
    connection.receive_eof(103.0)
    with pytest.raises(SessionClosed, match=r"^the session is closed: LOCAL$") as caught:
        connection.send_message(b"", id=1)
    assert caught.value.reason is CloseReason.LOCAL


# Two connections wired to each other.


class Pair:
    """Two connections and the wire between them, cut into chunks of one size."""

    def __init__(self, config: Config | None = None, *, chunk: int) -> None:
        self.here = Connection(config, now=0.0)
        self.there = Connection(config, now=0.0)
        self._chunk = chunk

    def carry(self) -> tuple[list[Event], list[Event]]:
        """Carry what was sent, both ways. Returns what came of it on either side."""
        return self._carry(self.there, self.here), self._carry(self.here, self.there)

    def _carry(self, source: Connection, target: Connection) -> list[Event]:
        data = source.bytes_to_send()
        assert source.bytes_to_send() == b""
        chunks = [data[at : at + self._chunk] for at in range(0, len(data), self._chunk)]
        return [event for chunk in chunks for event in target.receive_data(chunk, 0.0)]


both_ways_of_cutting = pytest.mark.parametrize("chunk", [1, 1 << 30], ids=["byte by byte", "whole"])


@both_ways_of_cutting
@given(st.lists(packets(), max_size=5), st.lists(packets(), max_size=5))
def test_a_pair_exchanges_packets(chunk: int, one_way: list[Packet], other_way: list[Packet]) -> None:
    pair = Pair(chunk=chunk)
    for packet in one_way:
        pair.here.send(packet)
    for packet in other_way:
        pair.there.send(packet)
    assert pair.carry() == (other_way, one_way)
    assert pair.here.stats.packets_sent == pair.there.stats.packets_received == len(one_way)
    assert pair.here.stats.bytes_sent == pair.there.stats.bytes_received == len(b"".join(map(encode, one_way)))


@both_ways_of_cutting
@given(st.lists(st.tuples(payloads(200), ids, types), max_size=5), st.integers(1, 32) | st.none())
def test_a_pair_exchanges_messages(chunk: int, sent: list[tuple[bytes, int, int]], size: int | None) -> None:
    pair = Pair(Config(join_messages=True, max_payload=32), chunk=chunk)
    for payload, id, type in sent:
        pair.here.send_message(payload, id=id, type=type, chunk=size)
    assert pair.carry() == ([], [Message(id, payload, type) for payload, id, type in sent])
    assert pair.there.stats.messages_received == len(sent)
    assert pair.there.stats.packets_received == pair.here.stats.packets_sent >= len(sent)


@both_ways_of_cutting
def test_a_pair_closes_in_two_steps(chunk: int) -> None:
    pair = Pair(chunk=chunk)
    pair.here.send(PACKET)
    assert pair.here.close(0.0) == []
    assert pair.carry() == ([], [PACKET])
    assert pair.there.receive_eof(0.0) == [EndOfStream()]
    pair.there.send(PACKET)
    assert pair.there.close(0.0) == [Closed(CloseReason.PEER)]
    assert pair.carry() == ([], [])  # dropped: this side said that it has finished
    assert pair.here.stats.bytes_discarded == len(FRAME)
    assert pair.here.receive_eof(0.0) == [Closed(CloseReason.LOCAL)]


# Closing and what ends it.


def test_after_the_peer_has_finished_it_can_still_be_answered() -> None:
    connection = Connection(now=0.0)
    assert connection.receive_data(FRAME, 0.0) == [PACKET]
    assert connection.receive_eof(0.0) == [EndOfStream()]
    assert connection.state is State.HALF_CLOSED
    connection.send(PACKET)
    assert connection.close(0.0) == [Closed(CloseReason.PEER)]
    assert connection.bytes_to_send() == FRAME


@pytest.mark.parametrize("reason", [CloseReason.SHUTDOWN, CloseReason.REPLACED])
def test_a_reason_to_close_outlives_what_happens_while_closing(reason: CloseReason) -> None:
    closing = Connection(now=0.0)
    assert closing.close(0.0, reason) == []
    assert closing.close(0.0, CloseReason.LOCAL) == []
    assert closing.fail(CloseReason.RESET, 0.0) == [Closed(reason)]

    half_closed = Connection(now=0.0)
    half_closed.receive_eof(0.0)
    assert half_closed.close(0.0, reason) == [Closed(reason)]


def test_data_dropped_while_closing_is_counted_and_buys_no_time() -> None:
    connection = Connection(replace(NO_TIMEOUTS, close_timeout=5.0), now=0.0)
    connection.close(0.0)
    assert connection.receive_data(FRAME, 4.0) == []
    assert connection.stats.bytes_discarded == len(FRAME)
    assert connection.stats.packets_received == connection.stats.bytes_received == 0
    assert connection.next_deadline() == 5.0


def test_failing_reports_what_was_cut_short_and_closes_once() -> None:
    connection = Connection(Config(join_messages=True), now=0.0)
    connection.receive_data(encode(Packet(1, b"part", count=2)) + FRAME[:5], 0.0)
    assert connection.fail(CloseReason.RESET, 0.0) == [
        Malformed(Reason.TRUNCATED, 4, FRAME[1:5]),
        Malformed(Reason.MESSAGE_INCOMPLETE, 4, b"part"),
        Closed(CloseReason.RESET),
    ]
    assert connection.stats.malformed == {Reason.TRUNCATED: 1, Reason.MESSAGE_INCOMPLETE: 1}
    assert connection.fail(CloseReason.RESET, 0.0) == []
    assert connection.close(0.0) == []
    assert connection.handle_deadline(1e9) == []


def test_what_was_cut_short_before_it_closed_is_not_reported_when_it_fails() -> None:
    connection = Connection(now=0.0)
    connection.receive_data(FRAME[:5], 0.0)
    connection.close(0.0)
    assert connection.fail(CloseReason.RESET, 0.0) == [Closed(CloseReason.LOCAL)]


def test_all_that_was_cut_short_is_counted() -> None:
    connection = Connection(Config(join_messages=True), now=0.0)
    connection.receive_data(encode(Packet(1, b"a", count=2)) + encode(Packet(2, b"b", count=2)), 0.0)
    connection.fail(CloseReason.RESET, 0.0)
    assert connection.stats.malformed == {Reason.MESSAGE_INCOMPLETE: 2}


def test_a_frame_cut_short_by_the_end_of_the_stream_is_truncated() -> None:
    connection = Connection(now=0.0)
    connection.receive_data(FRAME[:-1], 0.0)
    truncated = Malformed(Reason.TRUNCATED, len(FRAME) - 2, FRAME[1:-1])
    assert connection.receive_eof(0.0) == [truncated, EndOfStream()]
    assert connection.stats.malformed == {Reason.TRUNCATED: 1}


def test_a_message_cut_short_by_the_end_of_the_stream_is_incomplete() -> None:
    connection = Connection(Config(join_messages=True), now=0.0)
    connection.receive_data(encode(Packet(1, b"part", count=2)), 0.0)
    assert connection.receive_eof(0.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 4, b"part"), EndOfStream()]


# Malformed frames.


def test_a_malformed_frame_is_skipped() -> None:
    connection = Connection(now=0.0)
    assert connection.receive_data(FRAME + BAD_FRAME + FRAME, 0.0) == [PACKET, BAD, PACKET]
    assert connection.state is State.OPEN
    assert connection.stats.malformed == {Reason.TOO_SHORT: 1}
    assert connection.stats.packets_received == 2


@pytest.mark.parametrize("join_messages", [False, True])
def test_a_malformed_frame_may_end_it_with_what_came_before_delivered(join_messages: bool) -> None:
    connection = Connection(Config(on_malformed="close", join_messages=join_messages), now=0.0)
    connection.send(PACKET)
    *before, malformed, closed = connection.receive_data(FRAME + BAD_FRAME + BAD_FRAME + FRAME, 0.0)
    assert before == [Message(16, b"hello") if join_messages else PACKET]
    assert (malformed, closed) == (BAD, Closed(CloseReason.PROTOCOL_ERROR))
    assert connection.state is State.CLOSED
    assert connection.stats.malformed == {Reason.TOO_SHORT: 1}
    assert connection.next_deadline() is None
    assert connection.bytes_to_send() == FRAME


def test_a_truncated_frame_may_end_it_too() -> None:
    connection = Connection(Config(on_malformed="close"), now=0.0)
    connection.receive_data(FRAME[:2], 0.0)
    assert connection.receive_eof(0.0) == [
        Malformed(Reason.TRUNCATED, 1, b"\x00"),
        Closed(CloseReason.PROTOCOL_ERROR),
    ]


def test_messages_are_joined_around_what_is_malformed() -> None:
    connection = Connection(Config(join_messages=True, max_message=4), now=0.0)
    one, two = (encode(Packet(1, payload, count=2)) for payload in (b"ab", b"cd"))
    assert connection.receive_data(one + BAD_FRAME + two + FRAME, 0.0) == [
        BAD,
        Message(1, b"abcd"),
        Malformed(Reason.MESSAGE_TOO_LONG, 5, b"hello"),
    ]
    assert connection.stats.packets_received == 3
    assert connection.stats.messages_received == 1


# Time.


def test_a_silent_peer_is_closed_after_idle_timeout() -> None:
    connection = Connection(replace(NO_TIMEOUTS, idle_timeout=60.0), now=100.0)
    assert connection.next_deadline() == 160.0
    connection.receive_data(b"\xfe", 130.0)
    assert connection.receive_data(b"", 140.0) == []  # none mean nothing
    connection.send(PACKET)  # a sign of our life, not of the peer's
    assert connection.next_deadline() == 190.0
    assert connection.handle_deadline(189.75) == []
    assert connection.handle_deadline(190.0) == [Closed(CloseReason.IDLE_TIMEOUT)]
    assert connection.next_deadline() is None


def test_idle_timeout_goes_on_after_the_peer_has_finished() -> None:
    connection = Connection(replace(NO_TIMEOUTS, idle_timeout=60.0), now=100.0)
    connection.receive_eof(110.0)
    assert connection.next_deadline() == 170.0
    assert connection.handle_deadline(170.0) == [Closed(CloseReason.IDLE_TIMEOUT)]


def test_a_touch_is_a_sign_of_life_at_its_own_time() -> None:
    connection = Connection(replace(NO_TIMEOUTS, idle_timeout=60.0), now=100.0)
    connection.touch(120.0)
    assert connection.next_deadline() == 180.0
    connection.set_reading(True, 150.0)
    connection.touch(130.0)  # learnt late: it counts from when it was, not from now
    assert connection.next_deadline() == 190.0
    connection.touch(110.0)
    assert connection.next_deadline() == 190.0


def test_a_frame_is_timed_from_its_first_byte_whatever_trickles_in() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    assert connection.next_deadline() is None
    connection.receive_data(b"\xfe", 1.0)
    assert connection.next_deadline() is None  # a flag alone begins nothing
    for now, byte in enumerate(one_by_one(FRAME[1:8]), start=2):
        assert connection.receive_data(byte, float(now)) == []
        assert connection.next_deadline() == 12.0
    assert connection.handle_deadline(11.75) == []
    assert connection.handle_deadline(12.0) == [
        Malformed(Reason.TRUNCATED, 7, FRAME[1:8]),
        Closed(CloseReason.FRAME_TIMEOUT),
    ]
    assert connection.stats.malformed == {Reason.TRUNCATED: 1}


def test_each_frame_has_a_clock_of_its_own() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    connection.receive_data(FRAME[:5], 1.0)
    assert connection.next_deadline() == 11.0
    assert connection.receive_data(FRAME[5:] + FRAME[:5], 5.0) == [PACKET]
    assert connection.next_deadline() == 15.0
    assert connection.receive_data(FRAME[5:], 6.0) == [PACKET]
    assert connection.next_deadline() is None


@pytest.mark.parametrize("input", [Input.EOF, Input.CLOSE])
def test_no_frame_is_timed_once_either_side_has_finished(input: Input) -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    connection.receive_data(FRAME[:5], 1.0)
    STEPS[input](connection, 2.0)
    assert connection.next_deadline() is None
    assert connection.handle_deadline(20.0) == []


def test_a_malformed_frame_ends_its_clock_as_well() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    connection.receive_data(BAD_FRAME[:-1], 1.0)
    assert connection.receive_data(BAD_FRAME[-1:], 2.0) == [BAD]
    assert connection.next_deadline() is None


def test_noise_is_timed_too() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    for now in range(1, 6):
        connection.receive_data(b"\x00" * 1000, float(now))
    assert connection.next_deadline() == 11.0
    assert connection.handle_deadline(11.0) == [Malformed(Reason.NOISE, 5000, bytes(64))]
    assert (connection.state, connection.next_deadline()) == (State.OPEN, None)


@pytest.mark.parametrize("tail", [b"\r\n", b"\x00", bytes(100)])
def test_a_tail_behind_a_packet_is_noise_once_nothing_follows(tail: bytes) -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    frame = encode(Packet(1, b"x"))
    assert connection.receive_data(frame + tail, 1.0) == [Packet(1, b"x")]
    assert connection.handle_deadline(11.0) == [Malformed(Reason.NOISE, len(tail), tail[:64])]
    assert connection.receive_data(frame, 12.0) == [Packet(1, b"x")]
    assert connection.next_deadline() is None


@pytest.mark.parametrize("before", [b"", encode(Packet(1)), encode(Packet(1)) + b"\r\n", BAD_FRAME])
def test_a_frame_begun_by_a_flag_of_its_own_ends_the_connection_if_it_is_not_finished(before: bytes) -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0), now=0.0)
    connection.receive_data(before + encode(Packet(2, b"y"))[:-1], 1.0)
    assert connection.handle_deadline(11.0)[-1] == Closed(CloseReason.FRAME_TIMEOUT)


def test_what_follows_a_frame_too_long_has_a_clock_of_its_own() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0, max_payload=8), now=0.0)
    header = b"\xfe\x00\x10\x00\x00\x01\x00\x00\x00\x09"
    assert connection.receive_data(header[:-1], 1.0) == []
    assert connection.receive_data(header[-1:], 2.0) == [Malformed(Reason.TOO_LONG, 9, header[1:])]
    assert connection.next_deadline() is None
    connection.receive_data(b"\x00", 3.0)
    connection.receive_data(b"\x00", 4.0)
    assert connection.next_deadline() == 13.0


def test_a_frame_timeout_goes_before_an_idle_timeout() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0, idle_timeout=10.0), now=0.0)
    connection.receive_data(FRAME[:5], 0.0)
    assert connection.handle_deadline(10.0)[-1] == Closed(CloseReason.FRAME_TIMEOUT)


def test_while_nothing_is_read_a_frame_is_not_timed_and_silence_is() -> None:
    connection = Connection(replace(NO_TIMEOUTS, frame_timeout=10.0, idle_timeout=60.0), now=0.0)
    connection.receive_data(FRAME[:5], 1.0)
    connection.set_reading(False, 5.0)
    assert connection.next_deadline() == 61.0
    assert connection.handle_deadline(50.0) == []
    connection.touch(50.0)
    assert connection.next_deadline() == 110.0
    connection.set_reading(True, 70.0)
    assert connection.next_deadline() == 80.0  # the frame's time begins anew
    connection.set_reading(True, 75.0)  # nothing new: it was reading
    assert connection.next_deadline() == 80.0
    assert connection.receive_data(FRAME[5:], 71.0) == [PACKET]
    assert connection.next_deadline() == 135.0
    connection.set_reading(False, 80.0)
    assert connection.handle_deadline(135.0) == [Closed(CloseReason.IDLE_TIMEOUT)]


def test_reading_again_begins_the_idle_timeout_anew() -> None:
    connection = Connection(replace(NO_TIMEOUTS, idle_timeout=60.0), now=0.0)
    connection.set_reading(False, 10.0)
    connection.set_reading(True, 50.0)
    assert connection.next_deadline() == 110.0


def test_a_keepalive_is_sent_when_nothing_else_was() -> None:
    keepalive = Packet(0, b"ping")
    connection = Connection(replace(NO_TIMEOUTS, keepalive_interval=20.0, keepalive_packet=keepalive), now=100.0)
    assert connection.next_deadline() == 120.0
    connection.receive_data(FRAME, 110.0)
    connection.send(PACKET)
    assert connection.next_deadline() == 130.0
    assert connection.bytes_to_send() == FRAME
    assert connection.next_deadline() == 130.0
    assert connection.handle_deadline(129.75) == []
    assert connection.bytes_to_send() == b""
    assert connection.handle_deadline(130.0) == []
    assert connection.next_deadline() == 150.0
    assert connection.handle_deadline(130.0) == []  # one is enough
    assert connection.bytes_to_send() == encode(keepalive)
    assert connection.next_deadline() == 150.0
    connection.receive_eof(140.0)
    assert connection.handle_deadline(150.0) == []
    assert connection.bytes_to_send() == encode(keepalive)
    connection.close(155.0)
    assert connection.next_deadline() is None


def test_a_peer_that_does_not_close_is_waited_for_no_longer_than_close_timeout() -> None:
    connection = Connection(replace(NO_TIMEOUTS, close_timeout=5.0, idle_timeout=60.0), now=0.0)
    connection.receive_data(FRAME[:5], 0.0)
    connection.close(10.0)
    assert connection.next_deadline() == 15.0
    connection.close(12.0)  # it restarts the wait
    assert connection.next_deadline() == 17.0
    assert connection.handle_deadline(16.75) == []
    assert connection.handle_deadline(17.0) == [Closed(CloseReason.LOCAL)]
    assert connection.next_deadline() is None


def test_a_message_that_stays_incomplete_is_given_up_after_message_timeout() -> None:
    connection = Connection(replace(NO_TIMEOUTS, join_messages=True, message_timeout=30.0), now=0.0)
    connection.receive_data(encode(Packet(1, b"a", count=3)), 1.0)
    connection.receive_data(encode(Packet(1, b"b", count=3)), 20.0)
    assert connection.next_deadline() == 31.0
    assert connection.handle_deadline(30.75) == []
    assert connection.handle_deadline(31.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 2, b"ab")]
    assert connection.stats.malformed == {Reason.MESSAGE_INCOMPLETE: 1}
    assert connection.next_deadline() is None
    assert connection.state is State.OPEN


def test_no_more_messages_wait_to_be_whole_than_the_configuration_allows() -> None:
    connection = Connection(replace(NO_TIMEOUTS, join_messages=True, max_pending_messages=1), now=0.0)
    first, second = (encode(Packet(id, b"a", count=2)) for id in (1, 2))
    assert connection.receive_data(first + second, 0.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 1, b"a")]
    assert connection.next_deadline() is None


def test_a_message_given_up_may_end_it_and_then_no_keepalive_is_sent() -> None:
    config = replace(
        NO_TIMEOUTS,
        join_messages=True,
        message_timeout=30.0,
        on_malformed="close",
        keepalive_interval=31.0,
        keepalive_packet=Packet(0),
    )
    connection = Connection(config, now=0.0)
    connection.receive_data(encode(Packet(1, b"a", count=2)), 1.0)
    assert connection.handle_deadline(31.0) == [
        Malformed(Reason.MESSAGE_INCOMPLETE, 1, b"a"),
        Closed(CloseReason.PROTOCOL_ERROR),
    ]
    assert connection.bytes_to_send() == b""


def test_the_first_of_several_deadlines_is_the_next() -> None:
    config = Config(idle_timeout=3.0, frame_timeout=10.0, join_messages=True, message_timeout=20.0)
    connection = Connection(config, now=0.0)
    connection.receive_data(encode(Packet(1, b"a", count=2)) + FRAME[:5], 0.0)
    assert connection.next_deadline() == 3.0


def test_noise_and_a_message_may_be_given_up_at_once() -> None:
    config = replace(NO_TIMEOUTS, frame_timeout=10.0, join_messages=True, message_timeout=10.0)
    connection = Connection(config, now=0.0)
    connection.receive_data(encode(Packet(1, b"a", count=2)) + b"\r\n", 0.0)
    assert connection.handle_deadline(10.0) == [
        Malformed(Reason.NOISE, 2, b"\r\n"),
        Malformed(Reason.MESSAGE_INCOMPLETE, 1, b"a"),
    ]


def test_a_clock_that_steps_back_neither_ends_nor_prolongs_anything() -> None:
    connection = Connection(replace(NO_TIMEOUTS, idle_timeout=60.0, close_timeout=5.0), now=1000.0)
    connection.receive_data(b"\xfe", 10.0)
    assert connection.next_deadline() == 1060.0
    assert connection.handle_deadline(20.0) == []
    connection.touch(30.0)
    connection.set_reading(False, 40.0)
    connection.set_reading(True, 50.0)
    assert connection.next_deadline() == 1060.0
    connection.close(60.0)
    assert connection.next_deadline() == 1005.0
    assert connection.handle_deadline(70.0) == []


def test_without_timeouts_there_is_nothing_to_wait_for() -> None:
    connection = Connection(NO_TIMEOUTS, now=0.0)
    connection.receive_data(FRAME[:5], 0.0)
    assert connection.next_deadline() is None
    assert connection.handle_deadline(1e9) == []
    connection.close(0.0)
    assert connection.next_deadline() is None


# Another framing in place of this one.


class LengthPrefixed:
    """A byte of length, then the payload; ids, types and counts do not travel."""

    def encode(self, packet: Packet, /) -> bytes:
        return bytes([len(packet.payload)]) + packet.payload

    def decoder(self) -> LengthPrefixedDecoder:
        return LengthPrefixedDecoder()


class LengthPrefixedDecoder:
    def __init__(self) -> None:
        self._buffer = b""

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Packet | Malformed]:
        self._buffer += data
        packets: list[Packet | Malformed] = []
        while self._buffer and len(self._buffer) > self._buffer[0]:
            end = self._buffer[0] + 1
            packets.append(Packet(0, self._buffer[1:end]))
            self._buffer = self._buffer[end:]
        return packets

    def feed_eof(self) -> list[Malformed]:
        cut_short, self._buffer = self._buffer, b""
        return [Malformed.of(Reason.TRUNCATED, cut_short)] if cut_short else []

    def feed_timeout(self) -> list[Malformed]:
        return []


def test_another_codec_takes_the_place_of_this_format() -> None:
    config = replace(NO_TIMEOUTS, frame_timeout=10.0, max_payload=5)
    connection = Connection(config, now=0.0, codec=LengthPrefixed())
    connection.send(PACKET)
    connection.send_message(b"sixsix", id=9)
    assert connection.bytes_to_send() == b"\x05hello\x05sixsi\x01x"
    assert connection.stats.bytes_sent == 14
    with pytest.raises(LocalProtocolError, match=r"^payload of 6 bytes exceeds max_payload=5$"):
        connection.send(Packet(1, b"sixsix"))

    assert connection.receive_data(b"\x02o", 1.0) == []
    assert connection.next_deadline() == 11.0
    assert connection.receive_data(b"k\x03n", 2.0) == [Packet(0, b"ok")]
    assert connection.next_deadline() == 12.0
    assert connection.receive_eof(3.0) == [Malformed(Reason.TRUNCATED, 2, b"\x03n"), EndOfStream()]


def test_a_message_is_cut_at_what_a_packet_may_hold_and_refused_where_that_is_nothing() -> None:
    connection = Connection(Config(max_payload=1), now=0)
    connection.send_message(b"ab", id=1)
    assert Decoder().feed(connection.bytes_to_send()) == [Packet(1, b"a", count=2), Packet(1, b"b", count=2)]
    mute = Connection(Config(max_payload=0), now=0)
    mute.send_message(b"", id=1)
    assert mute.bytes_to_send() == encode(Packet(1))
    with pytest.raises(LocalProtocolError, match=r"^payload of 1 bytes exceeds max_payload=0$"):
        mute.send_message(b"a", id=1)
    assert mute.buffered == 0


def test_what_is_discarded_is_added_up() -> None:
    connection = Connection(now=0)
    connection.count_discarded(2)
    connection.count_discarded(3, 7)
    connection.count_error()
    connection.count_error()
    stats = connection.stats
    assert (stats.packets_discarded, stats.bytes_discarded, stats.errors) == (5, 7, 2)


def test_a_codec_that_gives_no_bytes_is_told_so_at_once() -> None:
    class Wrong(PacketFraming):
        encode = staticmethod(lambda packet: packet.payload.decode())

    class Frame(bytes):
        """Bytes like any other."""

    class Right(PacketFraming):
        encode = staticmethod(lambda packet: Frame(packet.payload))

    connection = Connection(now=0, codec=Wrong(10))
    with pytest.raises(TypeError, match=r"^encode\(\) must give bytes, not str$"):
        connection.send(Packet(1, b"text"))
    assert (connection.buffered, connection.stats.packets_sent) == (0, 0)
    connection = Connection(now=0, codec=Right(10))
    connection.send(Packet(1, b"text"))
    assert connection.bytes_to_send() == b"text"
