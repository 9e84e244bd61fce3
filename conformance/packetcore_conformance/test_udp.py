"""UDP.

Datagrams: what they hold, how large they may be, where they go.
"""

from __future__ import annotations

import errno
import socket
import sys
import threading
from collections import Counter
from random import Random

import pytest

from packetcore import (
    Config,
    Decoder,
    LocalProtocolError,
    Malformed,
    Packet,
    Reason,
    Session,
    SessionClosed,
    encode,
)
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.strategies import SPECIAL
from packetcore_conformance.vectors import PACKETS, VECTORS

pytestmark = pytest.mark.usefixtures("needs_udp")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems treat the loopback interface differently")

PACKET = Packet(1, b"ping")
PING = encode(PACKET)
BROKEN = b"\xfe\x00\x01\x02\xfe"
LARGEST = Packet(2, bytes(65_507 - 11))
"""What fits IPv4's largest datagram exactly."""


def hostile_datagrams() -> list[bytes]:
    """Empty, nothing but flags, cut short, and random bytes of those that mean something."""
    random = Random(4)
    cut = [PING[:-1], PING[1:], PING[:5], b"\xfe\xfd", BROKEN, b"GET / HTTP/1.1\r\n\r\n"]
    special = [bytes(random.choices(SPECIAL, k=random.randrange(60))) for _ in range(400)]
    return [b"", b"\xfe", b"\xfe" * 30, *cut, *special, *(random.randbytes(random.randrange(300)) for _ in range(200))]


def verdict(datagrams: list[bytes]) -> list[Malformed]:
    """What a decoder that is new for each of them says."""
    found: list[Malformed] = []
    for data in datagrams:
        decoder = Decoder()
        for event in decoder.feed(data) + decoder.feed_eof():
            assert isinstance(event, Malformed)
            found.append(event)
    return found


def test_the_golden_frames_come_back_byte_for_byte(rig: Rig) -> None:
    peer = rig.udp_peer(rig.serve_udp(echo()).address)
    for vector in VECTORS:
        peer.send(vector.wire)
        assert peer.receive() == vector.wire


def test_a_client_with_a_handler_gets_back_what_it_sends(rig: Rig) -> None:
    handler = Recorder()
    session = rig.connect_udp(rig.serve_udp(echo()).address, handler)
    for count, packet in enumerate([*PACKETS, LARGEST], 1):
        rig.call(session.send, packet)
        handler.wait("packet_received", count)
    assert handler.values("packet_received") == [*PACKETS, LARGEST]


def test_a_stream_gets_back_what_it_sends_to_a_function_over_a_stream(rig: Rig) -> None:
    stream = rig.stream_udp(rig.serve_udp().address)
    for packet in [*PACKETS, LARGEST]:
        rig.call(stream.send, packet)
        assert rig.call(stream.recv) == packet


def test_a_datagram_may_hold_several_packets_and_each_reply_is_one_of_its_own(rig: Rig) -> None:
    peer = rig.udp_peer(rig.serve_udp(echo()).address)
    frames = [encode(Packet(at, bytes(at))) for at in range(5)]
    peer.send(b"".join(frames))
    assert peer.receive_many(5) == frames


def test_a_broken_datagram_spoils_neither_the_one_before_nor_the_one_after(rig: Rig) -> None:
    handler = echo()
    peer = rig.udp_peer(rig.serve_udp(handler).address)
    peer.send(PING, BROKEN, PING + BROKEN + PING)
    assert peer.receive_many(3) == [PING] * 3
    assert handler.wait("malformed", 2) == verdict([BROKEN, BROKEN])


def test_a_frame_cut_over_two_datagrams_is_no_packet(rig: Rig) -> None:
    handler = echo()
    peer = rig.udp_peer(rig.serve_udp(handler).address)
    peer.send(PING, PING[:-4], PING[-4:], PING)
    assert peer.receive_many(2) == [PING] * 2
    assert handler.values("packet_received") == [PACKET] * 2
    assert handler.values("malformed") == [
        Malformed.of(Reason.TRUNCATED, PING[1:-4]),
        Malformed.of(Reason.NOISE, PING[-4:-1]),
    ]


def test_hostile_datagrams_of_a_known_peer_are_malformed_or_nothing(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    peer = rig.udp_peer(server.address)
    peer.send(PING)
    assert peer.receive() == PING
    datagrams = hostile_datagrams()
    for at in range(0, len(datagrams), 50):
        peer.send(*datagrams[at : at + 50], PING)
        assert peer.receive() == PING
    assert handler.values("malformed") == verdict(datagrams)
    assert server.stats.malformed == rig.call(lambda: handler.sessions[0].stats.malformed)


def test_hostile_datagrams_of_a_stranger_are_counted_and_open_nothing(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    known, stranger = rig.udp_peer(server.address), rig.udp_peer(server.address)
    datagrams = hostile_datagrams()
    for at in range(0, len(datagrams), 50):
        stranger.send(*datagrams[at : at + 50])
        known.send(PING)  # its reply says that what came before it has been read
        assert known.receive() == PING
    assert len(handler.calls("connected")) == 1
    assert handler.calls("malformed") == []
    assert server.stats.malformed == Counter(malformed.reason for malformed in verdict(datagrams))
    stranger.send(PING)
    assert stranger.receive() == PING


def test_hostile_datagrams_of_a_server_are_malformed_or_nothing(rig: Rig) -> None:
    server = rig.udp_peer()
    handler = Recorder()
    session = rig.connect_udp(server.address, handler)
    rig.call(session.send, PACKET)
    data, client = server.receive_from()
    assert data == PING
    datagrams = hostile_datagrams()
    for count, at in enumerate(range(0, len(datagrams), 50), 1):
        for data in [*datagrams[at : at + 50], PING]:
            server.send_to(data, client)
        handler.wait("packet_received", count)
    assert handler.values("malformed") == verdict(datagrams)


def test_a_datagram_that_the_receive_buffer_cuts_is_reported_as_too_long(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, Config(max_datagram=100))
    known, stranger = rig.udp_peer(server.address), rig.udp_peer(server.address)
    whole, long = encode(Packet(1, bytes(89))), encode(Packet(1, bytes(90))) + PING
    stranger.send(long)
    known.send(whole, long, whole)
    assert known.receive_many(2) == [whole, whole]
    assert handler.values("malformed") == [Malformed.of(Reason.DATAGRAM_TOO_LONG, long[:101])]
    assert server.stats.malformed == {Reason.DATAGRAM_TOO_LONG: 2}, "the stranger's or the session's is not counted"
    assert len(handler.calls("connected")) == 1


def test_a_packet_longer_than_a_datagram_is_an_error_that_names_both_sizes_and_changes_nothing(rig: Rig) -> None:
    server = rig.serve_udp(echo())
    handler, config = Recorder(), Config(max_datagram=100)
    session = rig.connect_udp(server.address, handler, config)
    stream = rig.stream_udp(server.address, config)
    for send in (session.send, stream.send):
        with pytest.raises(LocalProtocolError, match=r"101 bytes.* max_datagram=100"):
            rig.call(send, Packet(1, bytes(90)))
        with pytest.raises(LocalProtocolError, match=r"111 bytes.* max_datagram=100"):
            rig.call(send, Packet(1, b"\xfe" * 50))  # as sent, an escaped byte takes two
        rig.call(send, Packet(1, bytes(89)))
    assert handler.wait("packet_received") == [Packet(1, bytes(89))]
    assert rig.call(stream.recv) == Packet(1, bytes(89))
    assert session.stats.packets_sent == 1


def test_a_payload_over_the_limit_is_refused_both_ways(rig: Rig) -> None:
    handler = echo()
    config = Config(max_payload=100)
    server = rig.serve_udp(handler, config)
    peer = rig.udp_peer(server.address)
    peer.send(PING, encode(Packet(1, bytes(101))), PING)
    assert peer.receive_many(2) == [PING] * 2
    found = handler.values("malformed")
    assert isinstance(found[0], Malformed)
    assert found[0].reason is Reason.TOO_LONG
    with pytest.raises(LocalProtocolError, match="payload of 101 bytes exceeds max_payload=100"):
        rig.call(handler.sessions[0].send, Packet(1, bytes(101)))


def test_a_message_is_one_packet_or_an_error(rig: Rig) -> None:
    handler = Recorder()
    session = rig.connect_udp(rig.serve_udp(echo()).address, handler, Config(max_datagram=1000))
    with pytest.raises(LocalProtocolError, match=r"50 bytes .*chunk=49.* max_datagram=1000"):
        rig.call(lambda: session.send_message(bytes(50), id=3, chunk=49))
    with pytest.raises(LocalProtocolError, match=r"1011 bytes .*max_datagram=1000"):
        rig.call(lambda: session.send_message(bytes(1000), id=3))
    rig.call(lambda: session.send_message(bytes(50), id=3, type=4, chunk=50))
    assert handler.wait("packet_received") == [Packet(3, bytes(50), type=4)]


def test_joining_messages_is_refused(rig: Rig) -> None:
    config = Config(join_messages=True)
    address = rig.udp_peer().address
    with pytest.raises(ValueError, match="join_messages"):
        rig.serve_udp(Recorder(), config)
    with pytest.raises(ValueError, match="join_messages"):
        rig.connect_udp(address, Recorder(), config)
    with pytest.raises(ValueError, match="join_messages"):
        rig.stream_udp(address, config)


@on_linux
def test_a_datagram_that_the_system_does_not_take_is_counted_and_told_once(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, Config(max_datagram=65_527))  # more than IPv4 carries
    peer = rig.udp_peer(server.address)
    peer.send(PING)
    assert peer.receive() == PING
    session = handler.sessions[0]
    rig.call(session.send, Packet(1, bytes(65_510)))
    (error,) = handler.wait("error_received")
    assert isinstance(error, OSError)
    assert error.errno == errno.EMSGSIZE
    peer.send(PING)
    assert peer.receive() == PING
    assert len(handler.calls("error_received")) == session.stats.errors == session.stats.packets_dropped == 1
    assert server.stats.errors == 1


def test_several_hundred_datagrams_in_a_burst_are_all_answered(rig: Rig) -> None:
    peer = rig.udp_peer(rig.serve_udp(echo()).address)
    for at in range(0, 800, 100):  # as many as socket buffers hold
        frames = [encode(Packet(id)) for id in range(at, at + 100)]
        peer.send(*frames)
        assert sorted(peer.receive_many(100)) == sorted(frames)


def test_an_endpoint_with_much_to_read_does_not_starve_another(rig: Rig) -> None:
    released = threading.Event()

    def hold(session: Session, packet: Packet) -> None:
        if packet == PACKET:
            released.wait(DEADLINE)

    handler = Recorder(packet_received=hold)
    flooded, other = (rig.udp_peer(rig.serve_udp(handler).address) for _ in range(2))
    flooded.send(PING)
    handler.wait("packet_received")
    flooded.send(*(encode(Packet(2)) for _ in range(150)))
    other.send(encode(Packet(3)))
    released.set()
    assert handler.wait("packet_received", 152)[-1] == Packet(2)


def test_a_paused_session_discards_what_comes_and_counts_it(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.pause())
    peer = rig.udp_peer(rig.serve_udp(handler).address)
    peer.send(PING * 2)
    handler.wait("packet_received")
    session = handler.sessions[0]
    peer.send(PING, b"\xfe")
    rig.until(lambda: session.stats.bytes_discarded == len(PING) + 1, "two datagrams were discarded")
    assert len(handler.calls("packet_received")) == 1
    rig.call(session.resume)
    handler.wait("packet_received", 2)  # the other half of the first datagram
    rig.call(session.resume)
    peer.send(encode(Packet(3)))
    assert handler.wait("packet_received", 3) == [PACKET, PACKET, Packet(3)]


def test_a_keepalive_is_sent_when_nothing_else_is(rig: Rig) -> None:
    config = Config(keepalive_interval=0.1, keepalive_packet=Packet(99, b"alive"))
    peer = rig.udp_peer(rig.serve_udp(Recorder(), config).address)
    peer.send(PING)
    assert peer.receive_many(3) == [encode(Packet(99, b"alive"))] * 3


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, Config(max_datagram=65_527), host="::1")
    peer = rig.udp_peer(server.address)
    largest = encode(Packet(1, bytes(65_527 - 11)))
    peer.send(largest)
    assert peer.receive() == largest
    assert handler.sessions[0].peer[:2] == peer.address[:2]
    stream = rig.stream_udp(server.address)
    rig.call(stream.send, PACKET)
    assert rig.call(stream.recv) == PACKET
    assert stream.peer[:2] == server.address[:2]


def test_a_client_hears_nobody_but_its_server(rig: Rig) -> None:
    server, stranger = rig.udp_peer(), rig.udp_peer()
    handler = Recorder()
    session = rig.connect_udp(server.address, handler)
    rig.call(session.send, PACKET)
    _, client = server.receive_from()
    stranger.send_to(encode(Packet(666)), client)
    server.send_to(PING, client)
    assert handler.wait("packet_received") == [PACKET]
    assert len(handler.calls("connected")) == 1


@on_linux
def test_a_broadcast_is_heard_and_every_answer_to_it(rig: Rig) -> None:
    port = rig.serve_udp(echo(), host=None).address[1]
    everyone = ("127.255.255.255", port)
    handler = Recorder()
    session = rig.connect_udp(everyone, handler, broadcast=True)
    rig.call(session.send, PACKET)
    assert handler.wait("packet_received") == [PACKET]
    assert [session.peer for session in handler.sessions] == [everyone, ("127.0.0.1", port)]
    for session in handler.sessions:  # who replies has a session too, which keeps the socket open
        rig.call(session.close)
    handler.wait_reasons(2)
    stream = rig.stream_udp(everyone, broadcast=True)
    rig.call(stream.send, PACKET)
    assert rig.call(stream.recv) == PACKET


@on_linux
def test_replies_to_a_broadcast_of_a_stream_are_its_own_whoever_sends_them(rig: Rig) -> None:
    port = rig.serve_udp(echo(), host=None).address[1]
    stream = rig.stream_udp(("127.255.255.255", port), broadcast=True)
    for at in range(3):
        rig.call(stream.send, Packet(at))
        assert rig.call(stream.recv) == Packet(at)
    sessions = rig.call(stream.session.endpoint.own_sessions)
    assert sessions == [stream.session], "who replied to a stream got a session beside the stream's"
    assert stream.session.stats.packets_received == 3
    rig.call(stream.close)
    with pytest.raises(SessionClosed):
        rig.call(stream.recv)


@on_linux
def test_a_broadcast_that_was_not_asked_for_is_an_os_error(rig: Rig) -> None:
    everyone = ("127.255.255.255", rig.udp_peer().address[1])
    with pytest.raises(OSError, match="broadcast=True"):
        rig.connect_udp(everyone, Recorder())
    with pytest.raises(OSError, match="broadcast=True"):
        rig.stream_udp(everyone)


@on_linux
def test_a_multicast_reaches_all_who_joined_the_group_and_nobody_else(rig: Rig) -> None:
    group, other_group = "239.1.2.3", "239.1.2.4"
    port = rig.serve_udp(echo(), multicast_group=group).address[1]
    rig.serve_udp(echo(), port=port, multicast_group=group)
    outsider = Recorder()
    rig.serve_udp(outsider, port=port, multicast_group=other_group)
    stream = rig.stream_udp((group, port), local_host="127.0.0.1")
    rig.call(stream.send, PACKET)
    assert [rig.call(stream.recv) for _ in range(2)] == [PACKET] * 2
    session = rig.connect_udp((other_group, port), Recorder(), local_host="127.0.0.1")
    rig.call(session.send, Packet(2))
    assert outsider.wait("packet_received") == [Packet(2)]


@pytest.mark.parametrize("group", ["127.0.0.1", "::1", "everybody"])
def test_a_group_that_is_no_multicast_address_is_refused(rig: Rig, group: str) -> None:
    with pytest.raises(ValueError, match=f"multicast_group='{group}' is no multicast address"):
        rig.serve_udp(Recorder(), multicast_group=group)


def test_an_address_that_cannot_be_had_is_an_os_error(rig: Rig) -> None:
    with pytest.raises(OSError, match=r"(?i)in use"):
        rig.serve_udp(Recorder(), port=rig.udp_peer().address[1])
    foreign = "198.51.100.1"  # of a block kept for documentation: nobody has it
    with pytest.raises(OSError, match=foreign):
        rig.serve_udp(Recorder(), host=foreign)
    with pytest.raises(OSError, match=r"(?i)assign"):
        rig.stream_udp(rig.udp_peer().address, local_host=foreign)
