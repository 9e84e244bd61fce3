"""Frames in several datagrams, on a made-up socket and clock: cut, joined, lost and mixed."""

from __future__ import annotations

from collections import Counter
from errno import EAGAIN, EHOSTUNREACH
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packetcore import (
    Address,
    CloseReason,
    Config,
    Decoder,
    LocalProtocolError,
    Malformed,
    Packet,
    Reason,
    Session,
    encode,
)
from packetcore._pieces import MAX_SOURCES, PieceDecoder, pieces
from packetcore_conformance.strategies import chunked, packets, special_bytes, streams
from packetcore_conformance.vectors import PACKETS, STREAM, VECTORS
from tests.test_datagram import DATAGRAM, PING, PONG, A, B, C, MadeUpHost, Rig, nothing

STREAMED = Config(datagram_stream=True)
LONG = Packet(7, bytes(5_000))
HEAD, TAIL = pieces(encode(LONG), 4_096)

Event = Packet | Malformed


class RawHost(MadeUpHost):
    """A socket that keeps datagrams as they are, and fails at those a test names by their number."""

    def __init__(self) -> None:
        super().__init__()
        self.datagrams: list[bytes] = []
        self.failing: dict[int, OSError] = {}

    def write_to(self, data: bytes, addr: Address) -> None:
        self.attempts += 1
        if self.attempts in self.failing:
            raise self.failing[self.attempts]
        self.datagrams.append(data)


def raw(rig: Rig) -> RawHost:
    """Give a rig a socket that keeps datagrams as they are."""
    host = RawHost()
    rig.host = rig.endpoint.host = host
    return host


def events_of(rig: Rig, addr: Address) -> list[tuple[object, ...]]:
    """What the handler of one peer was given, packets and reasons."""
    return [call[::2] for call in rig.handler.calls if call[1] == addr and call[0] in ("packet", "malformed")]


def decoded(data: bytes, max_payload: int) -> list[tuple[object, ...]]:
    """What a stream's decoder makes of the same bytes."""
    found = Decoder(max_payload=max_payload).feed(data)
    return [("packet", event) if isinstance(event, Packet) else ("malformed", event.reason) for event in found]


# Cutting.


@given(st.binary(max_size=300), st.none() | st.integers(1, 400))
def test_pieces_are_the_frame_and_none_but_the_last_is_shorter_than_the_chunk(frame: bytes, chunk: int | None) -> None:
    cut = pieces(frame, chunk)
    assert b"".join(cut) == frame
    if chunk is None:
        assert cut == [frame]
    else:
        assert all(len(piece) == chunk for piece in cut[:-1])
        assert len(cut[-1]) <= chunk


def test_a_packet_above_the_chunk_goes_out_in_datagrams_of_at_most_that_and_counts_once() -> None:
    rig = Rig(Config(datagram_chunk=4_096, datagram_stream=True, max_datagram=4_096, max_payload=20_000))
    session, host = rig.open(A), raw(rig)
    rig.handler.on["sent"] = nothing
    session.send(LONG)
    session.send(PONG)
    session.send_message(bytes(10_000), id=3)
    rig.endpoint.flush(101)
    third = encode(Packet(3, bytes(10_000)))
    assert host.datagrams == [HEAD, TAIL, encode(PONG), *(third[at : at + 4_096] for at in (0, 4_096, 8_192))]
    assert [call[2] for call in rig.handler.named("sent")] == [len(HEAD + TAIL), len(encode(PONG)), len(third)]
    stats = session.stats
    assert (stats.packets_sent, stats.packets_dropped) == (3, 0)
    assert stats.bytes_sent == session.bytes_sent == session.bytes_gone == sum(map(len, host.datagrams))


@pytest.mark.parametrize(("failing", "gone"), [(1, 0), (2, 4_096), (3, 8_192)])
@pytest.mark.parametrize("number", [EAGAIN, EHOSTUNREACH])
def test_a_packet_of_which_the_system_took_a_part_is_dropped_once_and_its_rest_is_not_sent(
    number: int, failing: int, gone: int
) -> None:
    rig = Rig(Config(datagram_chunk=4_096))
    session, host = rig.open(A), raw(rig)
    rig.handler.on["sent"] = nothing
    host.failing[failing] = OSError(number, "made up")
    session.send(Packet(3, bytes(10_000)))
    session.send(PONG)
    rig.endpoint.flush(101)
    rig.endpoint.flush(101)
    assert host.attempts == failing + 1
    assert sum(map(len, host.datagrams[:-1])) == gone
    assert host.datagrams[-1] == encode(PONG)
    assert sum(call[2] for call in rig.handler.named("sent") if isinstance(call[2], int)) == gone + len(encode(PONG))
    stats = session.stats
    assert (stats.packets_sent, stats.packets_dropped) == (2, 1)
    assert stats.errors == len(rig.handler.named("error")) == (number == EHOSTUNREACH)
    assert session.outstanding == 0
    assert session.is_open


def test_a_payload_above_the_limit_is_refused_where_frames_are_cut_too() -> None:
    rig = Rig(Config(datagram_chunk=100, max_payload=1_000))
    session, host = rig.open(A), raw(rig)
    with pytest.raises(LocalProtocolError, match="payload of 1001 bytes exceeds max_payload=1000"):
        session.send(Packet(1, bytes(1_001)))
    with pytest.raises(LocalProtocolError, match=r"message of 90 bytes exceeds chunk=50.*max_payload=1000"):
        session.send_message(bytes(90), id=1, chunk=50)
    rig.endpoint.flush(101)
    assert host.datagrams == []


def test_a_keepalive_longer_than_a_datagram_is_cut_as_well() -> None:
    rig = Rig(Config(datagram_chunk=10, max_datagram=14, keepalive_interval=25, keepalive_packet=PING))
    host = raw(rig)
    rig.endpoint.open(A, 100)
    rig.endpoint.tick(125)
    assert host.datagrams == pieces(DATAGRAM, 10)


# Joining.


@pytest.mark.parametrize("chunk", [1, 2, 7, 512, 1_472, 4_096])
def test_golden_frames_in_pieces_are_the_packets_they_are(chunk: int) -> None:
    rig = Rig(STREAMED)
    for vector in VECTORS:
        for piece in pieces(vector.wire, chunk):
            rig.endpoint.received(piece, A, 100)
    assert events_of(rig, A) == [("packet", packet) for packet in PACKETS]
    assert rig.endpoint.stats.opened == 1
    assert not rig.endpoint.stats.malformed


@pytest.mark.parametrize("chunk", [7, 512, 4_096])
def test_golden_frames_joined_and_then_cut_are_the_packets_they_are(chunk: int) -> None:
    rig = Rig(STREAMED)
    for piece in pieces(STREAM, chunk):
        rig.endpoint.received(piece, A, 100)
    assert events_of(rig, A) == [("packet", packet) for packet in PACKETS]


@settings(max_examples=settings().max_examples // 3)  # each draws three streams
@given(st.data(), st.sampled_from([0, 1, 8, 40]))
def test_however_peers_take_turns_each_is_decoded_as_the_stream_of_its_own_datagrams(
    data: st.DataObject, max_payload: int
) -> None:
    rig = Rig(Config(datagram_stream=True, max_payload=max_payload))
    sent = {addr: data.draw(streams(max_payload, 5).flatmap(chunked)) for addr in (A, B, C)}
    for addr in sent:
        rig.endpoint.received(encode(Packet(1)), addr, 100)
    rig.handler.calls.clear()
    turns = data.draw(st.permutations([addr for addr, datagrams in sent.items() for _ in datagrams]))
    left = {addr: iter(datagrams) for addr, datagrams in sent.items()}
    for addr in turns:
        rig.endpoint.received(next(left[addr]), addr, 100)
    for addr, datagrams in sent.items():
        assert events_of(rig, addr) == decoded(encode(Packet(1)) + b"".join(datagrams), max_payload)[1:]
    assert rig.log == []


@given(st.data(), st.sampled_from([1, 3, 10, 40]))
def test_a_datagram_lost_doubled_or_overtaken_costs_only_the_frames_it_touches(data: st.DataObject, chunk: int) -> None:
    """A frame is untouched if its datagrams come one after the other, whatever comes around them."""
    rig = Rig(STREAMED)
    rig.open(A)
    rig.handler.calls.clear()
    sent = data.draw(st.lists(packets(20), min_size=1, max_size=6))
    cut = [
        [(number, at, piece) for at, piece in enumerate(pieces(encode(packet), chunk))]
        for number, packet in enumerate(sent)
    ]
    arriving = [piece for frame in cut for piece in frame]
    for fault in data.draw(st.lists(st.sampled_from(["lost", "doubled", "late"]), max_size=4)):
        at = data.draw(st.integers(0, len(arriving) - 1)) if arriving else 0
        to = data.draw(st.integers(0, len(arriving)))
        if fault == "doubled" and arriving:
            arriving.insert(to, arriving[at])
        elif fault == "late" and arriving:
            arriving.insert(to, arriving.pop(at))
        else:
            del arriving[at : at + 1]
    for _, _, piece in arriving:
        rig.endpoint.received(piece, A, 100)
    untouched: list[Packet] = []
    for packet, frame in zip(sent, cut, strict=True):
        untouched += [packet] * sum(arriving[at : at + len(frame)] == frame for at in range(len(arriving)))
    given_packets = Counter(call[2] for call in rig.handler.named("packet"))
    assert Counter(untouched) <= given_packets
    if len(arriving) == sum(map(len, cut)) and all(one[:2] < other[:2] for one, other in pairwise(arriving)):
        assert given_packets == Counter(untouched)
    assert rig.endpoint.stats.sessions == 1


def test_a_lost_piece_costs_its_packet_and_no_other() -> None:
    for lost in (HEAD, TAIL):
        rig = Rig(STREAMED)
        session = rig.open(A)
        rig.handler.calls.clear()
        for piece in (HEAD, TAIL, TAIL if lost is HEAD else HEAD, HEAD, TAIL, DATAGRAM):
            rig.endpoint.received(piece, A, 101)
        assert [event for event in events_of(rig, A) if event[0] == "packet"] == [
            ("packet", LONG),
            ("packet", LONG),
            ("packet", PING),
        ]
        assert sum(session.stats.malformed.values()) == 1
        assert session.is_open


def test_a_datagram_that_was_cut_by_the_system_ends_what_was_begun() -> None:
    rig = Rig(Config(datagram_stream=True, max_datagram=100))
    rig.open(A)
    rig.handler.calls.clear()
    frame = encode(Packet(3, bytes(250)))
    for piece in (frame[:100], frame[100:201], frame[201:], DATAGRAM):
        rig.endpoint.received(piece, A, 101)
    assert events_of(rig, A) == [
        ("malformed", Reason.TRUNCATED),
        ("malformed", Reason.DATAGRAM_TOO_LONG),
        ("malformed", Reason.NOISE),
        ("packet", PING),
    ]


def test_what_comes_before_a_discarded_datagram_is_not_joined_with_what_comes_after() -> None:
    rig = Rig(STREAMED)
    session = rig.open(A)
    rig.handler.calls.clear()
    rig.endpoint.received(HEAD, A, 101)
    session.pause()
    rig.endpoint.flush(101)
    rig.endpoint.received(TAIL, A, 102)
    rig.endpoint.received(HEAD, A, 102)
    session.resume()
    rig.endpoint.flush(103)
    rig.endpoint.received(TAIL, A, 104)  # of another packet of that size: without a word it would do
    rig.endpoint.received(DATAGRAM, A, 104)
    assert events_of(rig, A) == [("malformed", Reason.TRUNCATED), ("malformed", Reason.NOISE), ("packet", PING)]
    assert session.stats.bytes_discarded == len(TAIL + HEAD)


def test_what_was_discarded_is_told_of_though_nothing_comes_after_it() -> None:
    rig = Rig(Config(datagram_stream=True, frame_timeout=10))
    session = rig.open(A)
    rig.endpoint.received(HEAD, A, 101)
    session.pause()
    rig.endpoint.flush(101)
    rig.endpoint.received(TAIL, A, 102)
    session.resume()
    rig.endpoint.flush(103)
    rig.endpoint.tick(113)
    assert rig.handler.calls[2:] == [("malformed", A, Reason.TRUNCATED)]
    assert session.is_open


def test_on_malformed_close_ends_the_session_at_a_lost_piece() -> None:
    rig = Rig(Config(datagram_stream=True, on_malformed="close"))
    for piece in (HEAD, TAIL, HEAD, HEAD):
        rig.endpoint.received(piece, A, 101)
    assert rig.handler.calls[-1] == ("disconnected", A, CloseReason.PROTOCOL_ERROR)


# Time.


def test_a_frame_that_stays_unfinished_is_given_up_and_the_session_goes_on() -> None:
    rig = Rig(Config(datagram_stream=True, frame_timeout=10, idle_timeout=60))
    session = rig.open(A)
    rig.endpoint.received(HEAD, A, 101)
    assert rig.host.timer == 111
    rig.endpoint.tick(110.9)
    assert not rig.handler.named("malformed")
    rig.endpoint.tick(111)
    assert rig.handler.named("malformed") == [("malformed", A, Reason.TRUNCATED)]
    assert session.is_open
    assert rig.host.timer == 161
    rig.endpoint.received(TAIL, A, 112)
    rig.endpoint.received(HEAD, A, 112)
    rig.endpoint.received(TAIL, A, 121)
    assert events_of(rig, A)[2:] == [("malformed", Reason.NOISE), ("packet", LONG)]
    rig.endpoint.tick(181)
    assert rig.handler.calls[-1] == ("disconnected", A, CloseReason.IDLE_TIMEOUT)


def test_noise_is_told_of_after_frame_timeout_and_costs_nothing() -> None:
    rig = Rig(Config(datagram_stream=True, frame_timeout=10))
    session = rig.open(A)
    rig.endpoint.received(b"\r\n", A, 101)
    rig.endpoint.tick(111)
    assert rig.handler.calls[2:] == [("malformed", A, Reason.NOISE)]
    rig.endpoint.received(DATAGRAM, A, 112)
    assert rig.handler.calls[3:] == [("packet", A, PING)]
    assert session.is_open


def test_without_a_frame_timeout_what_was_begun_waits_and_is_told_of_at_the_end() -> None:
    rig = Rig(Config(datagram_stream=True, frame_timeout=None, idle_timeout=1_000))
    rig.open(A)
    rig.endpoint.received(HEAD, A, 101)
    rig.endpoint.tick(1_100)
    assert not rig.handler.named("malformed")
    rig.endpoint.tick(1_101)
    assert rig.handler.calls[2:] == [
        ("malformed", A, Reason.TRUNCATED),
        ("disconnected", A, CloseReason.IDLE_TIMEOUT),
    ]


# Strangers.


@pytest.mark.parametrize("first", [HEAD, b"\xfe", b"\xfe\xfe", HEAD[:3], b"noise" + HEAD, DATAGRAM[:-1] + HEAD])
def test_a_stranger_whose_datagram_begins_a_frame_has_a_session(first: bytes) -> None:
    rig = Rig(STREAMED)
    rig.endpoint.received(first, A, 100)
    assert rig.handler.named("connected") == [("connected", A)]
    assert rig.held()[:2] == (1, 1)


@pytest.mark.parametrize(
    ("datagram", "reasons"),
    [
        (b"", []),
        (b"noise", [Reason.NOISE]),
        (TAIL, [Reason.NOISE]),
        (b"\xfe\x01\xfe\xfd\xfe", [Reason.TOO_SHORT, Reason.BAD_ESCAPE]),
        (b"\xfe\x00\x01\x00\x00\x01\x00\x00\x20\x00rest", [Reason.TOO_LONG, Reason.NOISE]),
        (b"\xfe" * 4_097, [Reason.DATAGRAM_TOO_LONG]),
    ],
    ids=["empty", "noise", "tail", "malformed", "announces too much", "too long"],
)
def test_a_stranger_whose_datagram_begins_nothing_is_counted_and_opens_nothing(
    datagram: bytes, reasons: list[Reason]
) -> None:
    rig = Rig(Config(datagram_stream=True, max_payload=5_000, max_datagram=4_096))
    rig.endpoint.received(datagram, A, 100)
    assert rig.held() == (0, 0, 0)
    assert rig.handler.calls == []
    assert rig.endpoint.stats.malformed == Counter(reasons)


def test_what_forged_addresses_begin_is_held_up_to_the_caps_and_given_up_in_time() -> None:
    rig = Rig(Config(datagram_stream=True, max_sessions=50, max_sessions_per_host=10, frame_timeout=10))
    for n in range(5_000):
        rig.endpoint.received(HEAD, (f"10.0.{n % 20}.1", 1_024 + n), 100)
    assert rig.held()[:2] == (50, 50)
    assert (rig.endpoint.stats.opened, rig.endpoint.stats.refused) == (50, 4_950)
    rig.endpoint.tick(110)
    assert rig.endpoint.stats.malformed == {Reason.TRUNCATED: 50}
    rig.endpoint.tick(160)
    assert rig.held() == (0, 0, 0)


# One session that hears many.


def test_what_different_peers_send_to_a_sole_session_is_never_mixed() -> None:
    rig = Rig(STREAMED, is_server=False)
    everyone: Address = ("192.0.2.255", 5_000)
    rig.endpoint.open(everyone, 100, sole=True)
    frames = {addr: pieces(encode(Packet(n, bytes([n]) * 5_000)), 1_000) for n, addr in enumerate((A, B, C))}
    for at in range(6):
        for addr, cut in frames.items():
            rig.endpoint.received(cut[at], addr, 101)
    assert events_of(rig, everyone) == [("packet", Packet(n, bytes([n]) * 5_000)) for n in range(3)]


def test_what_peers_of_a_sole_session_leave_unfinished_is_given_up_for_all_of_them() -> None:
    rig = Rig(Config(datagram_stream=True, frame_timeout=10), is_server=False)
    session = rig.endpoint.open(("192.0.2.255", 5_000), 100, sole=True)
    for addr in (A, B):
        rig.endpoint.received(HEAD, addr, 101)
    rig.endpoint.received(b"noise", C, 101)
    rig.endpoint.tick(111)
    assert [call[2] for call in rig.handler.named("malformed")] == [Reason.TRUNCATED, Reason.TRUNCATED, Reason.NOISE]
    assert session.is_open
    assert session.stats.malformed == {Reason.TRUNCATED: 2, Reason.NOISE: 1}


def test_a_discarded_datagram_of_one_peer_of_a_sole_session_costs_no_other() -> None:
    rig = Rig(STREAMED, is_server=False)
    session = rig.endpoint.open(("192.0.2.255", 5_000), 100, sole=True)
    rig.endpoint.received(HEAD, A, 101)
    rig.endpoint.received(HEAD, B, 101)
    session.pause()
    rig.endpoint.flush(101)
    rig.endpoint.received(TAIL, A, 102)
    session.resume()
    rig.endpoint.flush(103)
    rig.endpoint.received(TAIL, B, 104)
    assert [call[2] for call in rig.handler.calls[1:]] == [Reason.TRUNCATED, LONG]


source_addresses = st.sampled_from([A, B, C, ("192.0.2.1", 5_001)])


@settings(max_examples=settings().max_examples // 3)  # each draws many streams
@given(
    st.lists(st.tuples(source_addresses, streams(8, 3) | special_bytes(60) | st.just(b"\xfe")), max_size=12),
    st.sampled_from([0, 1, 8]),
)
def test_it_holds_no_more_than_a_streams_decoder_whatever_comes_from_wherever(
    datagrams: list[tuple[Address, bytes]], max_payload: int
) -> None:
    decoder = PieceDecoder(max_payload, 50)
    for addr, data in datagrams:
        decoder.source = addr
        decoder.feed(data)
        assert decoder.pending <= 2 * (max_payload + 9)
    assert bool(decoder.pending) == bool(decoder.feed_timeout())
    assert decoder.pending == 0


def test_beyond_so_many_sources_the_longest_silent_ones_frame_is_given_up() -> None:
    decoder, begun = PieceDecoder(1_000, 4_096), DATAGRAM[:-1]
    addresses = [("10.0.0.1", port) for port in range(MAX_SOURCES + 1)]

    def feed(addr: Address, data: bytes) -> list[Event]:
        decoder.source = addr
        return decoder.feed(data)

    for addr in addresses[:-1]:
        assert feed(addr, begun[:5]) == []
    assert feed(addresses[0], begun[5:]) == []  # heard once more: the second is the longest silent now
    assert feed(addresses[-1], DATAGRAM) == [PING]  # which has begun nothing, and costs nobody anything
    assert feed(addresses[-1], begun) == [Malformed.of(Reason.TRUNCATED, begun[1:5])]
    assert [feed(addr, b"\xfe") for addr in (addresses[0], addresses[-1])] == [[PING]] * 2
    for addr in addresses[2:-1]:
        assert feed(addr, DATAGRAM[5:]) == [PING]


def test_beyond_so_many_bytes_the_longest_silent_ones_frame_is_given_up() -> None:
    decoder = PieceDecoder(len(LONG.payload), 4_096)
    given_up: list[Event] = []
    for addr in (A, B, C):
        decoder.source = addr
        given_up += decoder.feed(HEAD)
    assert given_up == [Malformed.of(Reason.TRUNCATED, HEAD[1:])]
    for addr in (C, B):
        decoder.source = addr
        assert decoder.feed(TAIL) == [LONG]
    assert decoder.feed_eof() == []


def test_a_session_that_ends_tells_of_what_was_unfinished() -> None:
    rig = Rig(STREAMED)
    session: Session = rig.open(A)
    rig.endpoint.received(HEAD, A, 101)
    session.abort()
    rig.endpoint.flush(102)
    assert rig.handler.calls[2:] == [
        ("malformed", A, Reason.TRUNCATED),
        ("disconnected", A, CloseReason.LOCAL),
    ]


def test_a_discarded_datagram_of_one_that_had_nothing_unfinished_costs_nothing() -> None:
    decoder = PieceDecoder(100, 100)
    decoder.source = A
    decoder.miss()
    assert decoder.feed(encode(Packet(1))) == [Packet(1)]
    assert decoder.feed_eof() == []


def test_what_comes_in_one_datagram_or_of_several_peers_is_all_told() -> None:
    decoder = PieceDecoder(1_000, 100)
    decoder.source = A
    decoder.feed(DATAGRAM[:5])
    decoder.miss()
    decoder.feed(DATAGRAM[:4])
    decoder.source = B
    decoder.feed(DATAGRAM[:3])
    assert decoder.feed_eof() == [Malformed.of(Reason.TRUNCATED, DATAGRAM[1:size]) for size in (4, 3)]
    assert (decoder.feed_eof(), decoder.feed_timeout()) == ([], [])
    decoder.feed(DATAGRAM[:3])
    decoder.miss()
    assert decoder.feed(bytes(101)) == [
        Malformed.of(Reason.TRUNCATED, DATAGRAM[1:3]),
        Malformed.of(Reason.DATAGRAM_TOO_LONG, bytes(101)),
    ]


def test_two_sources_hold_no_more_than_one_stream_and_no_less() -> None:
    decoder = PieceDecoder(41, 100)
    for addr, size in ((A, 51), (B, 51)):
        decoder.source = addr
        assert decoder.feed(encode(Packet(1, bytes(41)))[:size]) == []
    decoder.source = B
    assert decoder.pending == 100 == 2 * (41 + 9)
    assert decoder.feed(b"\x00") == [Malformed.of(Reason.TRUNCATED, encode(Packet(1, bytes(41)))[1:51])]
