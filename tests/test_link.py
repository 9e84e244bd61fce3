"""Links that misbehave do it as told, and no more."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore_tap import DatagramLink, Impairments, StreamLink

SECONDS = st.floats(0, 10)
STREAMS = st.builds(
    Impairments,
    latency=SECONDS,
    jitter=SECONDS,
    bandwidth=st.none() | st.floats(1, 1e6),
    buffer=st.none() | st.integers(1, 5000),
    cut=st.none() | st.integers(1, 9),
    gap=SECONDS,
)
MERGING = st.builds(Impairments, latency=SECONDS, jitter=SECONDS, merge=SECONDS)
SENT = st.lists(st.tuples(SECONDS, st.binary(max_size=3000)), max_size=20)


@given(STREAMS | MERGING, SENT, st.randoms(use_true_random=False))
def test_a_stream_arrives_whole_in_order_and_not_before_its_latency(
    impairments: Impairments, sent: list[tuple[float, bytes]], random: Random
) -> None:
    link = StreamLink(impairments, random)
    now, taken, arrived = -50.0, b"", b""
    for wait, data in sent:
        now += wait
        arrived += b"".join(link.receive(now))
        size = link.send(data, now)
        assert size == len(data) or link.room == 0
        taken += data[:size]
        assert link.size == len(taken) - len(arrived)
        due = link.next_deadline()
        assert due is None or not data or due >= now - sum(wait for wait, _ in sent) + impairments.latency
    link.send_eof(now)
    while not link.has_ended(now):
        due = link.next_deadline()
        assert due is not None
        now = max(now, due)
        pieces = link.receive(now)
        if impairments.cut is not None:
            assert all(len(piece) <= impairments.cut for piece in pieces)
        if impairments.merge:
            assert len(pieces) <= 1
        arrived += b"".join(pieces)
    assert arrived == taken
    assert link.size == 0


def test_bandwidth_spreads_what_is_sent_at_once() -> None:
    link = StreamLink(Impairments(bandwidth=1000, latency=1), Random(0))
    link.send(bytes(4000), 0.0)
    arrived = {second: len(b"".join(link.receive(second))) for second in (1.0, 2.5, 4.0, 5.0)}
    assert arrived == {1.0: 0, 2.5: 1460, 4.0: 1460, 5.0: 1080}


def test_what_follows_within_the_merge_arrives_together() -> None:
    link = StreamLink(Impairments(merge=1.0), Random(0))
    for now in (0.0, 0.5, 1.0, 1.5):
        link.send(b"%d" % (now * 10), now)
    assert link.receive(0.9) == []
    assert link.receive(1.0) == [b"0510"]
    assert link.next_deadline() == 2.5


def test_pieces_of_what_was_cut_are_a_gap_apart_and_under_way_together() -> None:
    link = StreamLink(Impairments(cut=1, gap=0.5, latency=10.0), Random(0))
    link.send(b"ab", 0.0)
    link.send(b"c", 0.0)
    due = []
    while (at := link.next_deadline()) is not None:
        due.append((at, *link.receive(at)))
    assert due == [(10.0, b"a"), (10.5, b"b"), (11.0, b"c")]


def test_a_stall_fills_the_buffer_and_loses_nothing() -> None:
    link = StreamLink(Impairments(buffer=5), Random(0))
    link.stall()
    assert link.send(b"abcdefg", 0.0) == 5
    assert (link.room, link.receive(9.0), link.next_deadline()) == (0, [], None)
    link.resume()
    assert link.next_deadline() == 0.0
    assert link.receive(9.0) == [b"abcde"]
    assert link.send(b"fg", 9.0) == 2


def test_a_black_hole_takes_all_and_never_ends() -> None:
    link = StreamLink(Impairments(buffer=5), Random(0))
    link.send(b"abc", 0.0)
    link.black_hole()
    assert link.send(b"defgh", 0.0) == 5
    link.send_eof(0.0)
    assert (link.receive(9.0), link.next_deadline(), link.has_ended(9.0), link.size) == ([], None, False, 0)


def test_nothing_follows_the_end() -> None:
    link = StreamLink(Impairments(), Random(0))
    link.send_eof(0.0)
    with pytest.raises(ValueError, match="after send_eof"):
        link.send(b"a", 0.0)


def test_corruption_changes_bytes_and_not_their_number() -> None:
    link = StreamLink(Impairments(corrupt=0.1), Random(1))
    link.send(bytes(10_000), 0.0)
    (arrived,) = link.receive(0.0)
    assert 800 < len(arrived) - arrived.count(0) < 1200
    assert len(arrived) == 10_000


def test_datagrams_are_lost_doubled_and_overtake_each_other() -> None:
    link = DatagramLink(Impairments(loss=0.2, duplication=0.2, jitter=5.0, latency=1.0), Random(2))
    sent = [b"%d" % number for number in range(1000)]
    for number, data in enumerate(sent):
        assert link.send(data, number / 100)
    assert link.receive(0.99) == []
    arrived = link.receive(100.0)
    copies = Counter(Counter(arrived).values())
    assert 550 < copies[1] < 730
    assert 110 < copies[2] < 210
    assert arrived != sorted(arrived, key=sent.index)
    assert (link.size, link.next_deadline()) == (0, None)


def test_datagrams_stall_and_vanish() -> None:
    link = DatagramLink(Impairments(), Random(0))
    link.stall()
    assert link.send(b"abc", 0.0)
    assert (link.receive(9.0), link.next_deadline(), link.size) == ([], None, 3)
    link.resume()
    assert link.receive(9.0) == [b"abc"]
    link.send(b"def", 9.0)
    link.black_hole()
    assert link.send(b"ghi", 9.0)
    assert (link.receive(99.0), link.next_deadline(), link.size) == ([], None, 0)


def test_a_datagram_needs_room() -> None:
    link = DatagramLink(Impairments(buffer=5, bandwidth=1), Random(0))
    assert [link.send(b"abc", 0.0), link.send(b"def", 0.0), link.send(b"gh", 0.0)] == [True, False, True]
    assert link.next_deadline() == 3.0
    assert link.receive(5.0) == [b"abc", b"gh"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"latency": -1.0}, "latency=-1.0 must not be below 0"),
        ({"loss": 1.5}, "loss=1.5 must be from 0 to 1"),
        ({"cut": 0}, "cut=0 must be above 0, or None"),
        ({"cut": 3, "merge": 1.0}, "cut=3 and merge=1.0 contradict each other"),
    ],
)
def test_wrong_impairments_are_named(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Impairments(**wrong)  # type: ignore[arg-type]
