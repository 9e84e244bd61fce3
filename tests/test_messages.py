"""Payloads cut into packets and joined again."""

from __future__ import annotations

import itertools
import tracemalloc
from inspect import signature

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Config, Joiner, Malformed, Message, Packet, Reason, split
from packetcore_conformance.strategies import ids, payloads, types


def part(payload: bytes, count: int, id: int = 1, type: int = 0) -> Packet:
    return Packet(id, payload, type=type, count=count)


def add_all(joiner: Joiner, packets: list[Packet], now: float = 0.0) -> list[Message | Malformed]:
    return [event for packet in packets for event in joiner.add(packet, now)]


@given(payloads(200), ids, types, st.integers(1, 300))
def test_split_cuts_into_full_chunks_that_each_bear_the_count(payload: bytes, id: int, type: int, chunk: int) -> None:
    packets = split(payload, id=id, type=type, chunk=chunk)
    assert b"".join(packet.payload for packet in packets) == payload
    assert all(len(packet.payload) == chunk for packet in packets[:-1])
    assert all((packet.id, packet.type, packet.count) == (id, type, len(packets)) for packet in packets)
    assert len(packets) == max(1, -(-len(payload) // chunk))


@given(payloads(200), ids, types, st.integers(1, 300))
def test_join_is_the_inverse_of_split(payload: bytes, id: int, type: int, chunk: int) -> None:
    *begun, last = split(payload, id=id, type=type, chunk=chunk)
    joiner = Joiner()
    assert add_all(joiner, begun) == []
    assert len(joiner) == (1 if begun else 0)
    assert joiner.add(last, 0.0) == [Message(id, payload, type)]
    assert len(joiner) == 0


@given(st.data(), st.lists(st.tuples(payloads(60), st.integers(1, 20)), min_size=1, max_size=4))
def test_messages_of_different_id_or_type_may_interleave(data: st.DataObject, sent: list[tuple[bytes, int]]) -> None:
    keys = [(1, 0), (1, 1), (2, 0), (2, 1)]
    waiting = [
        split(payload, id=id, type=type, chunk=chunk) for (payload, chunk), (id, type) in zip(sent, keys, strict=False)
    ]
    joiner = Joiner(max_pending=len(sent))
    events: list[Message | Malformed] = []
    while any(waiting):
        turn = data.draw(st.sampled_from([packets for packets in waiting if packets]))
        events += joiner.add(turn.pop(0), 0.0)
    messages = [Message(id, payload, type) for (payload, _), (id, type) in zip(sent, keys, strict=False)]
    assert sorted(events, key=repr) == sorted(messages, key=repr)


@pytest.mark.parametrize("count", [0, 1])
def test_a_count_of_0_or_1_means_whole(count: int) -> None:
    assert Joiner().add(part(b"abc", count), 0.0) == [Message(1, b"abc")]


def test_an_empty_payload_takes_one_empty_packet() -> None:
    assert split(b"", id=1, chunk=10) == [Packet(1)]


@pytest.mark.parametrize("payload", [bytearray(b"abcde"), memoryview(b"abcde")])
def test_split_takes_any_bytes_like_object(payload: bytearray | memoryview) -> None:
    assert [packet.payload for packet in split(payload, id=1, chunk=2)] == [b"ab", b"cd", b"e"]


def test_split_says_what_is_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^chunk=0 must be at least 1 byte$"):
        split(b"abc", id=1, chunk=0)
    with pytest.raises(ValueError, match=r"^id=65536 is out of range 0 to 65535$"):
        split(b"abc", id=65536, chunk=1)
    assert len(split(bytes(65535), id=1, chunk=1)) == 65535
    message = r"^payload of 65536 bytes takes 65536 packets of 1 bytes; a message has at most 65535$"
    with pytest.raises(ValueError, match=message):
        split(bytes(65536), id=1, chunk=1)


def test_a_count_that_changes_midway_refuses_the_run_and_begins_anew() -> None:
    joiner = Joiner()
    assert add_all(joiner, [part(b"old", 3), part(b"er", 3)]) == []
    assert joiner.add(part(b"ne", 2), 0.0) == [Malformed(Reason.COUNT_MISMATCH, 5, b"older")]
    assert joiner.add(part(b"w", 2), 0.0) == [Message(1, b"new")]
    assert len(joiner) == 0


def test_a_whole_packet_in_the_middle_of_a_run_is_delivered() -> None:
    joiner = Joiner()
    events = add_all(joiner, [part(b"begun", 2), part(b"whole", 1)])
    assert events == [Malformed(Reason.COUNT_MISMATCH, 5, b"begun"), Message(1, b"whole")]
    assert len(joiner) == 0


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 10))
def test_max_size_is_the_longest_message_joined(max_size: int, size: int, chunk: int) -> None:
    payload = bytes(range(size))
    events = add_all(Joiner(max_size=max_size), split(payload, id=1, chunk=chunk))
    if size <= max_size:
        assert events == [Message(1, payload)]
    else:
        proof = min(size, (max_size // chunk + 1) * chunk)
        assert events == [Malformed(Reason.MESSAGE_TOO_LONG, proof, payload[:proof])]


@given(st.data(), st.integers(2, 6), st.integers(7, 12))
def test_a_message_too_long_costs_only_itself(data: st.DataObject, count: int, chunk: int) -> None:
    passes_at = data.draw(st.integers(1, count))
    joiner = Joiner(max_size=chunk * passes_at - 1)
    too_long = split(bytes(chunk * count), id=1, chunk=chunk)
    # As many packets, with the same id and type: nothing but counting tells them apart.
    follower = split(b"\x01" * count, id=1, chunk=1)
    assert add_all(joiner, too_long) == [
        Malformed(Reason.MESSAGE_TOO_LONG, chunk * passes_at, bytes(chunk * passes_at)[:64])
    ]
    assert add_all(joiner, follower) == [Message(1, b"\x01" * count)]
    assert len(joiner) == 0


def test_the_rest_of_a_message_too_long_is_dropped_without_a_second_word() -> None:
    joiner = Joiner(max_size=3, max_pending=1, timeout=10.0)
    refused = Malformed(Reason.MESSAGE_TOO_LONG, 4, b"abcd")
    assert joiner.add(part(b"abcd", 3), 0.0) == [refused]
    assert joiner.next_deadline() == 10.0
    assert joiner.expire(10.0) == []
    assert joiner.add(part(b"abcd", 3), 20.0) == [refused]
    assert joiner.add(part(b"ab", 2, id=2), 20.0) == []  # in place of the other
    assert joiner.add(part(b"c", 2, id=2), 20.0) == [Message(2, b"abc")]
    assert joiner.add(part(b"abcd", 3), 20.0) == [refused]
    assert joiner.add(part(b"e", 2), 20.0) == []  # the count tells it from the other
    assert joiner.add(part(b"f", 2), 20.0) == [Message(1, b"ef")]
    assert joiner.add(part(b"abcd", 3), 20.0) == [refused]
    assert joiner.give_up() == []
    assert len(joiner) == 0


def test_a_message_too_long_is_not_kept() -> None:
    joiner = Joiner(max_size=1 << 20)
    tracemalloc.start()
    try:
        add_all(joiner, split(bytes(4 << 20), id=1, chunk=100_000)[:-1])
        held, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(joiner) == 1
    assert held < 100_000


def test_one_run_more_than_max_pending_gives_up_the_oldest() -> None:
    joiner = Joiner(max_pending=2)
    assert add_all(joiner, [part(b"one", 2, id=1), part(b"two", 2, id=2), part(b"whole", 1, id=9)]) == [
        Message(9, b"whole")  # needs no room
    ]
    assert joiner.add(part(b"three", 2, id=3), 0.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 3, b"one")]
    assert len(joiner) == 2
    assert joiner.add(part(b"", 2, id=2), 0.0) == [Message(2, b"two")]


def test_a_run_is_given_up_when_its_time_is_over_counted_from_its_first_packet() -> None:
    joiner = Joiner(timeout=10.0)
    assert joiner.next_deadline() is None
    joiner.add(part(b"a", 3, id=1), 100.0)
    joiner.add(part(b"b", 3, id=2), 104.0)
    joiner.add(part(b"a", 3, id=1), 109.0)
    assert joiner.next_deadline() == 110.0
    assert joiner.expire(109.5) == []
    assert joiner.expire(110.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 2, b"aa")]
    assert joiner.next_deadline() == 114.0
    assert joiner.expire(200.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 1, b"b")]
    assert joiner.next_deadline() is None


def test_a_time_before_one_given_earlier_counts_as_that_one() -> None:
    joiner = Joiner(timeout=10.0)
    joiner.add(part(b"a", 2, id=1), 100.0)
    joiner.add(part(b"b", 2, id=2), 50.0)
    joiner.add(part(b"a", 2, id=1), 60.0)
    assert joiner.next_deadline() == 110.0
    assert joiner.expire(70.0) == []
    assert joiner.expire(110.0) == [Malformed(Reason.MESSAGE_INCOMPLETE, 1, b"b")]


def test_a_run_without_timeout_waits_for_ever() -> None:
    joiner = Joiner(timeout=None)
    joiner.add(part(b"a", 2), 0.0)
    assert joiner.next_deadline() is None
    assert joiner.expire(1e9) == []
    assert joiner.add(part(b"b", 2), 1e9) == [Message(1, b"ab")]


def test_the_end_of_the_stream_gives_up_every_run_the_oldest_first() -> None:
    joiner = Joiner()
    add_all(joiner, [part(b"b", 2, id=2), part(b"a" * 100, 2, id=1)])
    assert joiner.give_up() == [
        Malformed(Reason.MESSAGE_INCOMPLETE, 1, b"b"),
        Malformed(Reason.MESSAGE_INCOMPLETE, 100, b"a" * 64),
    ]
    assert (len(joiner), joiner.give_up()) == (0, [])


def test_limits_that_are_too_small_are_named() -> None:
    for limits in itertools.product([0, 1], [0, 1], [0.0, 1.0]):
        if 0 in limits:
            message = "max_size={}, max_pending={}, timeout={} must be above 0".format(*limits)
            with pytest.raises(ValueError, match=f"^{message}$"):
                Joiner(*limits)


def test_its_limits_are_those_of_a_config_and_any_time_above_0_will_do() -> None:
    defaults = [parameter.default for parameter in signature(Joiner).parameters.values()]
    config = Config()
    assert defaults == [config.max_message, config.max_pending_messages, config.message_timeout]
    joiner = Joiner(timeout=0.5)
    for id in (1, 2):
        assert joiner.add(Packet(id, b"half", count=2), 100) == []
    assert joiner.next_deadline() == 100.5
    assert joiner.expire(100.5) == [Malformed.of(Reason.MESSAGE_INCOMPLETE, b"half")] * 2
