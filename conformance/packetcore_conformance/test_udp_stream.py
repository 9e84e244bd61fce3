"""UDP.

Pieces: one frame in several datagrams, as the .NET library sends it, cut here and joined there.
"""

from __future__ import annotations

import sys

import pytest

from packetcore import CloseReason, Config, Malformed, Packet, Reason, encode
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.vectors import PACKETS, VECTORS

pytestmark = pytest.mark.usefixtures("needs_udp")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems treat the loopback interface differently")

CHUNK = 4_096
"""Bytes: where the .NET library cuts, unless told otherwise."""

PIECES = Config(datagram_stream=True, datagram_chunk=CHUNK)
PING = Packet(1, b"ping")
LONG = Packet(7, bytes(range(250)) * 20)


def cut(data: bytes, chunk: int = CHUNK) -> list[bytes]:
    """The datagrams in which a peer sends it."""
    return [data[at : at + chunk] for at in range(0, len(data), chunk)]


HEAD, TAIL = cut(encode(LONG))


def reasons(handler: Recorder, count: int) -> list[Reason]:
    """Wait for as many malformed frames; give why they are."""
    found = handler.wait("malformed", count)
    return [event.reason for event in found if isinstance(event, Malformed)]


def receive(peer: DatagramPeer, size: int) -> bytes:
    """Receive datagrams until there are so many bytes, and see that none is above the chunk."""
    got = b""
    while len(got) < size:
        data = peer.receive()
        assert len(data) <= CHUNK, f"a datagram of {len(data)} bytes exceeds datagram_chunk={CHUNK}"
        got += data
    return got


def test_a_packet_in_pieces_is_delivered_also_as_the_first_of_its_peer(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve_udp(handler, Config(datagram_stream=True))
    peer = rig.udp_peer(server.address)
    for count in range(1, 6):
        peer.send(HEAD, TAIL)
        assert handler.wait("packet_received", count) == [LONG] * count
    assert handler.calls("malformed") == []
    assert len(handler.calls("connected")) == server.stats.opened == 1


def test_a_packet_in_pieces_is_none_to_who_was_not_made_to_join_them(rig: Rig) -> None:
    handler = echo()
    peer = rig.udp_peer(rig.serve_udp(handler).address)
    peer.send(encode(PING), HEAD, TAIL, encode(PING))
    assert peer.receive_many(2) == [encode(PING)] * 2
    assert reasons(handler, 2) == [Reason.TRUNCATED, Reason.NOISE]


@pytest.mark.parametrize("chunk", [20, 512, CHUNK])
def test_the_golden_frames_in_pieces_come_back(rig: Rig, chunk: int) -> None:
    handler = echo()
    peer = rig.udp_peer(rig.serve_udp(handler, PIECES).address)
    for vector in VECTORS:
        peer.send(*cut(vector.wire, chunk))
        assert receive(peer, len(vector.wire)) == vector.wire
    assert handler.values("packet_received") == PACKETS


def test_a_long_packet_leaves_in_datagrams_of_at_most_the_chunk(rig: Rig) -> None:
    handler = echo()
    peer = rig.udp_peer(rig.serve_udp(handler, PIECES).address)
    peer.send(HEAD, TAIL, encode(PING))
    assert peer.receive_many(3) == [HEAD, TAIL, encode(PING)]
    (session,) = handler.sessions
    stats = session.stats
    assert (stats.packets_sent, stats.packets_dropped) == (2, 0)
    assert stats.bytes_sent == len(HEAD + TAIL + encode(PING))


def test_a_client_and_a_server_exchange_packets_longer_than_a_datagram(rig: Rig) -> None:
    server = rig.serve_udp(echo(), PIECES)
    handler = Recorder()
    session = rig.connect_udp(server.address, handler, PIECES)
    longest = Packet(8, bytes(66_000))
    sent = [LONG, PING, longest, LONG]
    for count, packet in enumerate(sent, 1):
        rig.call(session.send, packet)
        handler.wait("packet_received", count)
    assert handler.values("packet_received") == sent
    stream = rig.stream_udp(server.address, PIECES)
    for packet in sent:
        rig.call(stream.send, packet)
        assert rig.call(stream.recv) == packet
    rig.call(lambda: stream.send_message(longest.payload, id=8))
    assert rig.call(stream.recv) == longest


def test_a_lost_piece_costs_its_packet_and_no_other(rig: Rig) -> None:
    for left in (HEAD, TAIL):
        handler = Recorder()
        peer = rig.udp_peer(rig.serve_udp(handler, Config(datagram_stream=True)).address)
        peer.send(HEAD, TAIL, left, HEAD, TAIL, encode(PING))
        assert handler.wait("packet_received", 3) == [LONG, LONG, PING]
        assert handler.calls("malformed")
        assert handler.sessions[0].is_open


def test_pieces_of_peers_that_take_turns_are_never_mixed(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve_udp(handler, Config(datagram_stream=True))
    packets = [Packet(number, bytes([number]) * 5_000) for number in range(8)]
    peers = [rig.udp_peer(server.address) for _ in packets]
    for at in range(2):
        for peer, packet in zip(peers, packets, strict=True):
            peer.send(cut(encode(packet))[at])
    handler.wait("packet_received", len(packets))
    assert handler.calls("malformed") == []
    for session in rig.sessions(server, len(packets)):
        number = [peer.address for peer in peers].index(session.peer)
        assert handler.values("packet_received", session.id) == [packets[number]]


def test_a_packet_that_stays_unfinished_is_given_up_and_its_peer_is_not(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, Config(datagram_stream=True, datagram_chunk=CHUNK, frame_timeout=0.1))
    peer = rig.udp_peer(server.address)
    peer.send(HEAD)
    assert reasons(handler, 1) == [Reason.TRUNCATED]
    peer.send(TAIL, HEAD, TAIL)
    assert receive(peer, len(HEAD + TAIL)) == HEAD + TAIL
    assert reasons(handler, 2) == [Reason.TRUNCATED, Reason.NOISE]
    assert handler.calls("disconnected") == []


def test_a_peer_that_begins_a_packet_and_falls_silent_is_idle(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve_udp(handler, Config(datagram_stream=True, frame_timeout=0.1, idle_timeout=0.3))
    rig.udp_peer(server.address).send(HEAD)
    assert handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
    assert reasons(handler, 1) == [Reason.TRUNCATED]
    rig.until_empty(server)


def test_what_begins_no_packet_opens_nothing(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, PIECES)
    stranger, known = rig.udp_peer(server.address), rig.udp_peer(server.address)
    stranger.send(TAIL, b"GET / HTTP/1.1\r\n\r\n", b"", b"\xfe\x00\x01\x02\xfe")
    known.send(encode(PING))  # its reply says that what came before it has been read
    assert known.receive() == encode(PING)
    assert [session.peer for session in handler.sessions] == [known.address]
    assert server.stats.malformed == {Reason.NOISE: 2, Reason.TOO_SHORT: 1}


def test_who_begins_packets_takes_places_up_to_the_cap(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve_udp(handler, Config(datagram_stream=True, max_sessions=2))
    peers = [rig.udp_peer(server.address) for _ in range(3)]
    for count, peer in enumerate(peers[:2], 1):
        peer.send(HEAD)
        handler.wait("connected", count)
    peers[2].send(HEAD)
    rig.until(lambda: server.stats.refused == 1, "the third was refused")
    for count, peer in enumerate(peers[:2], 1):
        peer.send(TAIL)
        handler.wait("packet_received", count)
    assert len(handler.sessions) == 2


def test_a_chunk_longer_than_a_datagram_is_refused(rig: Rig) -> None:
    with pytest.raises(ValueError, match="datagram_chunk=4096 is out of range 1 to max_datagram=1200"):
        rig.serve_udp(Recorder(), Config(datagram_chunk=CHUNK, max_datagram=1_200))


def test_joining_messages_is_refused_where_datagrams_are_joined_too(rig: Rig) -> None:
    with pytest.raises(ValueError, match="join_messages"):
        rig.serve_udp(Recorder(), Config(datagram_stream=True, join_messages=True))


@on_linux
def test_long_answers_of_several_to_one_broadcast_are_never_mixed(rig: Rig) -> None:
    stream_config = Config(datagram_stream=True)
    answering = [rig.udp_peer(host="0.0.0.0")]
    everyone = ("127.255.255.255", answering[0].address[1])
    stream = rig.stream_udp(everyone, stream_config, broadcast=True)
    rig.call(stream.send, PING)
    data, client = answering[0].receive_from()
    assert data == encode(PING)
    answering += [rig.udp_peer() for _ in range(3)]
    answers = [Packet(number, bytes([number]) * 5_000) for number in range(4)]
    for at in range(2):
        for peer, packet in zip(answering, answers, strict=True):
            peer.send_to(cut(encode(packet))[at], client)
    assert [rig.call(stream.recv) for _ in answers] == answers
    assert rig.call(lambda: stream.session.stats.malformed) == {}
