"""UDP.

Peers: a session for each address, its beginning, its end and what goes wrong with it.
"""

from __future__ import annotations

import socket
import sys
import time

import pytest

from packetcore import CloseReason, Config, Packet, ServerBase, Session, SessionClosed, encode
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

pytestmark = pytest.mark.usefixtures("needs_udp")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say where an error comes from")

PACKET = Packet(1, b"ping")
PING = encode(PACKET)
BROKEN = b"\xfe\x00\x01\x02\xfe"


def test_a_peer_is_connected_by_its_first_packet(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    peer, other = rig.udp_peer(server.address), rig.udp_peer(server.address)
    peer.send(BROKEN, b"", BROKEN + PING)
    assert peer.receive() == PING
    assert [call.name for call in handler.calls() if call.name != "sent"] == [
        "connected",
        "malformed",
        "packet_received",
    ]
    assert sum(server.stats.malformed.values()) == 2, "the stranger's or the session's is not counted"
    other.send(PING)
    assert other.receive() == PING
    assert [session.id for session in handler.sessions] == [1, 2]
    assert [session.peer for session in handler.sessions] == [peer.address, other.address]
    assert rig.call(server.sessions.get, 2) is handler.sessions[1]


def test_fifty_peers_at_once_are_never_mixed_up(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    peers = [rig.udp_peer(server.address) for _ in range(50)]
    for round in range(10):
        for id, peer in enumerate(peers):
            peer.send(encode(Packet(id, bytes([round]))))
        for id, peer in enumerate(peers):
            assert peer.receive() == encode(Packet(id, bytes([round])))
    for session in rig.sessions(server, 50):
        id = [peer.address for peer in peers].index(session.peer)
        expected = [Packet(id, bytes([round])) for round in range(10)]
        assert handler.values("packet_received", session.id) == expected


def test_a_silent_peer_is_disconnected_once_and_any_datagram_postpones_it(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, Config(idle_timeout=0.4))
    active, hollow, silent = peers = [rig.udp_peer(server.address) for _ in range(3)]
    for peer in peers:
        peer.send(PING)
        assert peer.receive() == PING
    deadline = time.monotonic() + DEADLINE
    while not handler.calls("disconnected"):
        assert time.monotonic() < deadline
        hollow.send(b"")
        active.send(PING)
        assert active.receive() == PING
        time.sleep(0.02)
    assert [call.session for call in handler.calls("disconnected")] == [3]
    assert handler.wait_reasons(3) == [CloseReason.IDLE_TIMEOUT] * 3
    silent.send(PING)
    assert silent.receive() == PING
    assert [session.id for session in handler.sessions] == [1, 2, 3, 4]
    assert handler.wait_reasons(4) == [CloseReason.IDLE_TIMEOUT] * 4
    assert sorted(call.session for call in handler.calls("disconnected")) == [1, 2, 3, 4]
    rig.until_empty(server)


def test_a_client_whose_server_is_silent_is_told_so(rig: Rig) -> None:
    handler, config = Recorder(), Config(idle_timeout=0.2)
    server = rig.udp_peer()
    session = rig.connect_udp(server.address, handler, config)
    stream = rig.stream_udp(server.address, config)
    assert handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
    with pytest.raises(SessionClosed):
        rig.call(session.send, PACKET)
    with pytest.raises(SessionClosed) as raised:
        rig.call(stream.recv)
    assert raised.value.reason is CloseReason.IDLE_TIMEOUT


def test_peers_over_the_cap_are_refused_and_counted_until_a_place_is_free(rig: Rig) -> None:
    # A paused session is not blamed for its silence: it keeps its place.
    handler = Recorder(connected=lambda session: session.pause())
    server = rig.serve_udp(handler, Config(max_sessions=2, idle_timeout=0.2))
    peers = [rig.udp_peer(server.address) for _ in range(3)]
    for count, peer in enumerate(peers[:2], 1):
        peer.send(PING)
        handler.wait("connected", count)
    peers[2].send(PING, PING, PING)
    rig.until(lambda: server.stats.refused == 3, "each datagram was refused")
    assert len(handler.sessions) == len(server.sessions) == 2
    rig.call(handler.sessions[0].resume)
    assert handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
    peers[2].send(PING)
    handler.wait("connected", 3)
    assert handler.sessions[2].peer == peers[2].address
    assert server.stats.refused == 3


@on_linux
def test_one_host_cannot_take_every_place(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, Config(max_sessions=10, max_sessions_per_host=2))
    for _ in range(2):
        peer = rig.udp_peer(server.address)
        peer.send(PING)
        assert peer.receive() == PING
    rig.udp_peer(server.address).send(PING)
    rig.until(lambda: server.stats.refused == 1, "the third was refused")
    elsewhere = rig.udp_peer(server.address, "127.0.0.2")
    elsewhere.send(PING)
    assert elsewhere.receive() == PING


@on_linux
@pytest.mark.parametrize(
    "host", ["127.0.0.1", pytest.param("::1", marks=pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6"))]
)
def test_an_unreachable_port_is_told_to_its_own_session_and_all_go_on(rig: Rig, host: str) -> None:
    handler = echo()
    server = rig.serve_udp(handler, host=host)
    gone, other = rig.udp_peer(server.address), rig.udp_peer(server.address)
    for peer in (other, gone):
        peer.send(PING)
        assert peer.receive() == PING
    session = handler.sessions[1]
    gone.close()
    rig.call(session.send, PACKET)
    (error,) = handler.wait("error_received")
    assert isinstance(error, ConnectionRefusedError)
    other.send(PING)
    assert other.receive() == PING
    assert [call.session for call in handler.calls("error_received")] == [session.id]
    assert session.stats.errors == 1
    assert session.stats.packets_dropped == 0
    back = rig.udp_peer(server.address, port=gone.address[1])
    rig.call(session.send, PACKET)
    assert back.receive() == PING
    assert len(handler.calls("connected")) == 2


def test_a_client_hears_that_its_server_is_unreachable_and_can_wait_for_it(rig: Rig) -> None:
    server = rig.udp_peer()
    server.close()
    handler = Recorder()
    session = rig.connect_udp(server.address, handler)
    for count in range(1, 4):
        rig.call(session.send, PACKET)
        errors = handler.wait("error_received", count)
        assert isinstance(errors[-1], ConnectionRefusedError)
    back = rig.udp_peer(port=server.address[1])
    rig.call(session.send, PACKET)
    data, client = back.receive_from()
    assert data == PING
    back.send_to(PING, client)
    assert handler.wait("packet_received") == [PACKET]
    assert len(handler.calls("error_received")) == session.stats.errors == 3


def test_a_stream_raises_that_its_server_is_unreachable_and_can_wait_for_it(rig: Rig) -> None:
    server = rig.udp_peer()
    server.close()
    stream = rig.stream_udp(server.address)
    for _ in range(3):
        rig.call(stream.send, PACKET)
        with pytest.raises(ConnectionRefusedError):
            rig.call(stream.recv)
    back = rig.udp_peer(port=server.address[1])
    rig.call(stream.send, PACKET)
    data, client = back.receive_from()
    assert data == PING
    back.send_to(PING, client)
    assert rig.call(stream.recv) == PACKET


def test_sends_to_an_unreachable_server_are_not_dropped_here(rig: Rig) -> None:
    server = rig.udp_peer()
    server.close()
    handler = Recorder()
    session = rig.connect_udp(server.address, handler)

    def send_many() -> None:
        for _ in range(20):
            session.send(PACKET)

    rig.call(send_many)
    handler.wait("error_received")
    assert rig.call(lambda: session.is_open)
    assert session.stats.packets_sent == 20
    assert session.stats.packets_dropped == 0


def bind(session: Session, packet: Packet) -> None:
    """A handler whose peers say in a packet who they are."""
    session.bind(packet.payload)
    session.send(packet)


def send_to(server: ServerBase, identity: bytes, packet: Packet) -> None:
    """What a service outside the handlers does."""
    session = server.sessions.find(identity)
    assert session is not None
    session.send(packet)


def test_a_send_from_outside_a_handler_finds_its_peer(rig: Rig) -> None:
    handler = Recorder(packet_received=bind)
    server = rig.serve_udp(handler)
    peers = {name: rig.udp_peer(server.address) for name in (b"one", b"two")}
    for name, peer in peers.items():
        peer.send(encode(Packet(1, name)))
        peer.receive()
    rig.call(handler.sessions[1].send, Packet(7))
    assert peers[b"two"].receive() == encode(Packet(7))
    for name, peer in peers.items():
        rig.call(send_to, server, name, Packet(8, name))
        assert peer.receive() == encode(Packet(8, name))


def test_a_device_that_comes_back_from_another_port_takes_its_identity_over(rig: Rig) -> None:
    handler = Recorder(packet_received=bind)
    server = rig.serve_udp(handler)
    hello = encode(Packet(1, b"device 7"))
    old, new = rig.udp_peer(server.address), rig.udp_peer(server.address)
    for peer in (old, new):
        peer.send(hello)
        assert peer.receive() == hello
    assert handler.wait_reasons() == [CloseReason.REPLACED]
    assert [call.session for call in handler.calls("disconnected")] == [1]
    assert rig.sessions(server, 1) == [handler.sessions[1]]
    rig.call(send_to, server, b"device 7", Packet(2))
    assert new.receive() == encode(Packet(2))


def test_a_close_comes_at_once_after_its_replies_and_the_next_packet_begins_anew(rig: Rig) -> None:
    def reply_and_close(session: Session, packet: Packet) -> None:
        session.send(packet)
        session.close()

    handler = Recorder(packet_received=reply_and_close)
    server = rig.serve_udp(handler)
    peer = rig.udp_peer(server.address)
    for count in (1, 2):
        peer.send(PING * 3)
        assert peer.receive() == PING
        assert handler.wait_reasons(count) == [CloseReason.LOCAL] * count
    assert [call.session for call in handler.calls("packet_received")] == [1, 2]
    rig.until_empty(server)
    assert handler.sessions[0].stats.packets_discarded == 2


def test_a_close_from_outside_a_handler_is_over_at_once(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    client = Recorder()
    session = rig.connect_udp(server.address, client)
    stream = rig.stream_udp(server.address)
    rig.call(session.send, PACKET)
    client.wait("packet_received")
    rig.call(handler.sessions[0].close)
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    rig.call(session.close)
    assert client.wait_reasons() == [CloseReason.LOCAL]
    rig.call(stream.close)
    assert stream.close_reason is CloseReason.LOCAL
    for send in (session.send, stream.send):
        with pytest.raises(SessionClosed):
            rig.call(send, PACKET)


@pytest.mark.parametrize("method", ["connected", "packet_received", "malformed", "disconnected"])
def test_a_handler_that_raises_ends_its_own_session_only(rig: Rig, method: str) -> None:
    def fail(session: Session, value: object = None) -> None:
        if session.peer == peer.address:
            raise RuntimeError("a bug of the application")
        if isinstance(value, Packet):
            session.send(value)

    handler = echo()
    server = rig.serve_udp(handler)
    other, peer = rig.udp_peer(server.address), rig.udp_peer(server.address)
    other.send(PING)
    assert other.receive() == PING
    handler.act(method, fail)
    peer.send(PING + BROKEN)
    if method == "disconnected":
        handler.wait("malformed")
        rig.call(handler.sessions[1].close)
    expected = CloseReason.LOCAL if method == "disconnected" else CloseReason.HANDLER_ERROR
    assert handler.wait_reasons() == [expected]
    other.send(PING)
    assert other.receive() == PING
    assert [call.session for call in handler.calls("disconnected")] == [2]


@on_linux
def test_a_handler_that_raises_at_an_error_ends_its_own_session_only(rig: Rig) -> None:
    def fail(session: Session, error: OSError) -> None:
        raise error

    handler = Recorder(packet_received=lambda session, packet: session.send(packet), error_received=fail)
    server = rig.serve_udp(handler)
    gone, other = rig.udp_peer(server.address), rig.udp_peer(server.address)
    for peer in (gone, other):
        peer.send(PING)
        assert peer.receive() == PING
    gone.close()
    rig.call(handler.sessions[0].send, PACKET)
    assert handler.wait_reasons() == [CloseReason.HANDLER_ERROR]
    other.send(PING)
    assert other.receive() == PING


def test_a_malformed_datagram_ends_the_session_where_the_config_says_so(rig: Rig) -> None:
    handler = echo()
    peer = rig.udp_peer(rig.serve_udp(handler, Config(on_malformed="close")).address)
    peer.send(BROKEN, PING + BROKEN + PING)
    assert peer.receive() == PING
    assert handler.wait_reasons() == [CloseReason.PROTOCOL_ERROR]
    assert handler.values("packet_received") == [PACKET]
    peer.send(encode(Packet(2)))
    assert peer.receive() == encode(Packet(2))


def test_a_server_that_closes_lets_its_sessions_finish_and_admits_nobody(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.send(packet), draining=lambda session: None)
    server = rig.serve_udp(handler)
    peers = [rig.udp_peer(server.address) for _ in range(3)]
    for peer in peers:
        peer.send(PING)
        assert peer.receive() == PING
    closing = rig.in_background(server.close, DEADLINE)
    handler.wait("draining", 3)
    rig.udp_peer(server.address).send(PING)
    rig.until(lambda: server.stats.refused == 1, "the stranger was refused")
    for peer, session in zip(peers, handler.sessions, strict=True):
        peer.send(PING)
        assert peer.receive() == PING
        rig.call(session.close)
    closing()
    assert handler.wait_reasons(3) == [CloseReason.SHUTDOWN] * 3
    assert sorted(call.session for call in handler.calls("disconnected")) == [1, 2, 3]
    assert server.stats.closed == {CloseReason.SHUTDOWN: 3}
    rig.serve_udp(port=server.address[1])  # which is free again


def test_what_the_grace_did_not_end_is_aborted(rig: Rig) -> None:
    handler = Recorder(draining=lambda session: None)
    server = rig.serve_udp(handler)
    for count in range(1, 4):
        rig.udp_peer(server.address).send(PING)
        handler.wait("connected", count)
    rig.call(server.close, 0.1)
    assert handler.wait_reasons(3) == [CloseReason.SHUTDOWN] * 3


def test_functions_over_streams_end_with_their_peers_and_with_the_server(rig: Rig) -> None:
    server = rig.serve_udp(config=Config(idle_timeout=0.3))
    silent, active = rig.udp_peer(server.address), rig.udp_peer(server.address)
    silent.send(PING)
    assert silent.receive() == PING
    rig.until(lambda: server.stats.closed == {CloseReason.IDLE_TIMEOUT: 1}, "the silent one is gone")
    active.send(PING)
    assert active.receive() == PING
    rig.call(server.close, DEADLINE)
    assert server.stats.closed == {CloseReason.IDLE_TIMEOUT: 1, CloseReason.SHUTDOWN: 1}


def test_what_passes_is_counted(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler)
    peer = rig.udp_peer(server.address)
    for _ in range(20):
        peer.send(PING * 2, BROKEN)
        assert peer.receive_many(2) == [PING] * 2
    peer.send(PING)
    assert peer.receive() == PING
    stats = rig.call(lambda: handler.sessions[0].stats)
    assert stats.packets_received == stats.packets_sent == 41
    assert stats.bytes_received == 41 * len(PING) + 20 * len(BROKEN)
    assert stats.bytes_sent == 41 * len(PING)
    assert sum(stats.malformed.values()) == 20
    assert stats.packets_dropped == stats.errors == 0
    assert sum(count for count in handler.values("sent") if isinstance(count, int)) == 41 * len(PING)
    assert (server.stats.opened, server.stats.refused, server.stats.errors) == (1, 0, 0)
