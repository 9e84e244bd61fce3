"""Stats.

Counters of sessions, servers and clients, and what the log says of each session.
"""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from packetcore import Backoff, CloseReason, Config, Packet, Reason, Session, encode
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(9, b"ping"))


def test_the_totals_are_the_sums_of_what_was_sent_while_open_and_after(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    peers = [rig.peer(server) for _ in range(5)]
    sent = Counter[str]()
    for at, peer in enumerate(peers):
        frames = [encode(Packet(at, bytes(size))) for size in range(50 * at)]
        broken = b"\xfe\x00\x01\x02\xfe" * at
        peer.send(b"".join(frames) + broken + PING)
        assert len(peer.receive(sum(map(len, frames)) + len(PING)))
        sent.update(packets=len(frames) + 1, reply=sum(map(len, frames)) + len(PING), broken=len(broken), faults=at)
    rig.until(lambda: server.stats.outstanding == 0, "the system has taken everything")
    for is_over in (False, True):
        if is_over:
            for peer in peers:
                peer.close()
            rig.until_empty(server)
        stats = rig.call(lambda: server.stats)
        assert (stats.opened, stats.sessions) == (5, 0 if is_over else 5)
        assert stats.total.packets_received == stats.total.packets_sent == sent["packets"]
        assert stats.total.bytes_received == sent["reply"] + sent["broken"]
        assert stats.total.bytes_sent == sent["reply"]
        assert stats.total.malformed == {Reason.TOO_SHORT: sent["faults"]}
        assert stats.closed == ({CloseReason.PEER: 5} if is_over else {})


def act(session: Session, packet: Packet) -> None:
    """A handler whose peers choose their end by the id that they send."""
    match packet.id:
        case 1:
            session.close()
        case 2:
            raise RuntimeError("a bug of the application")
        case 3:
            session.bind("device 7")
        case 4:
            for _ in range(30):
                session.send(Packet(1, bytes(1_000_000)))
    session.send(packet)


def test_every_end_is_counted_under_the_reason_that_the_handler_heard(rig: Rig) -> None:
    handler = Recorder(packet_received=act)
    server = rig.serve(handler, Config(on_malformed="close", frame_timeout=0.2, max_outstanding=1_000_000))
    ends: list[object] = []

    def end_by(reason: CloseReason, data: bytes) -> Peer:
        peer = rig.peer(server, receive_buffer=4096)
        handler.wait("connected", len(ends) + 1)
        ends.append(reason)
        peer.send(data)
        return peer

    for reason, data in (
        (CloseReason.LOCAL, encode(Packet(1))),
        (CloseReason.HANDLER_ERROR, encode(Packet(2))),
        (CloseReason.SLOW_CONSUMER, encode(Packet(4))),
        (CloseReason.PROTOCOL_ERROR, b"\xfe\x00\x01\x02\xfe"),
        (CloseReason.FRAME_TIMEOUT, PING[:-3]),
    ):
        peer = end_by(reason, data)
        peer.wait_closed()
        peer.close()
        assert handler.wait_reasons(len(ends)) == ends
    end_by(CloseReason.PEER, PING).finish()
    assert handler.wait_reasons(len(ends)) == ends
    reset = end_by(CloseReason.RESET, PING)
    assert reset.receive(len(PING)) == PING
    reset.reset()
    assert handler.wait_reasons(len(ends)) == ends
    replaced = end_by(CloseReason.REPLACED, encode(Packet(3)))
    assert replaced.receive(len(encode(Packet(3)))) == encode(Packet(3))
    end_by(CloseReason.SHUTDOWN, encode(Packet(3)))
    replaced.wait_closed()
    replaced.close()
    assert handler.wait_reasons(len(ends) - 1) == ends[:-1]
    rig.call(server.close, 0)
    assert handler.wait_reasons(len(ends)) == ends
    assert server.stats.closed == Counter(ends)
    assert server.stats.opened == len(ends)


def test_what_piles_up_is_counted_while_it_does(rig: Rig) -> None:
    handler = Recorder(packet_received=act)
    server = rig.serve(handler, Config(max_outstanding=None))
    peer = rig.peer(server, receive_buffer=4096)
    peer.send(encode(Packet(4)))
    rig.until(lambda: server.stats.outstanding > 10_000_000, "much is outstanding")
    (session,) = rig.sessions(server, 1)
    assert rig.call(lambda: server.stats.outstanding == session.outstanding)
    peer.receive(30 * len(encode(Packet(1, bytes(1_000_000)))) + len(encode(Packet(4))))
    rig.until(lambda: server.stats.outstanding == 0, "nothing is outstanding")


def test_stats_are_a_copy(rig: Rig) -> None:
    server = rig.serve(echo())
    peer = rig.peer(server)
    peer.send(PING)
    assert peer.receive(len(PING)) == PING
    stats = rig.call(lambda: server.stats)
    stats.closed[CloseReason.RESET] += 1
    stats.total.packets_received = stats.opened = 1000
    stats.total.malformed[Reason.NOISE] += 1
    stats = rig.call(lambda: server.stats)
    assert (stats.opened, stats.total.packets_received, stats.closed, stats.total.malformed) == (1, 1, {}, {})


@pytest.mark.usefixtures("needs_udp")
def test_a_udp_server_counts_the_same(rig: Rig) -> None:
    server = rig.serve_udp(echo(), Config(idle_timeout=0.3))
    for at in range(1, 4):
        peer = rig.udp_peer(server.address)
        for _ in range(at):
            peer.send(PING)
            assert peer.receive() == PING
    rig.until_empty(server)
    stats = rig.call(lambda: server.stats)
    assert (stats.opened, stats.sessions, stats.closed) == (3, 0, {CloseReason.IDLE_TIMEOUT: 3})
    assert stats.total.packets_received == stats.total.packets_sent == 6
    assert stats.total.bytes_received == stats.total.bytes_sent == 6 * len(PING)


@pytest.mark.usefixtures("needs_reconnect")
def test_a_client_that_comes_back_counts_all_its_connections(rig: Rig) -> None:
    server = rig.serve(echo())
    handler = Recorder()
    client = rig.client(server.address, handler, Backoff(initial=0.01, maximum=0.05))
    for at in range(1, 4):
        handler.wait("connected", at)
        rig.call(client.send, Packet(9, b"ping"))
        handler.wait("packet_received", at)
        rig.call(handler.sessions[-1].abort)
    handler.wait("connected", 4)
    rig.call(client.close)
    stats = client.stats
    assert (stats.opened, stats.sessions, stats.closed) == (4, 0, {CloseReason.LOCAL: 4})
    assert stats.total.packets_received == stats.total.packets_sent == 3
    assert stats.total.bytes_received == stats.total.bytes_sent == 3 * len(PING)


def test_the_log_tells_of_each_session_by_its_id_its_peer_and_its_identity(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder(packet_received=act)
    server = rig.serve(handler, Config(max_sessions=1))
    with caplog.at_level(logging.INFO, "packetcore"):
        peer = rig.peer(server)
        peer.send(encode(Packet(3)))
        assert peer.receive(len(encode(Packet(3)))) == encode(Packet(3))
        refused = rig.peer(server)
        refused.wait_closed()
        peer.close()
        handler.wait_reasons()
        rig.until_empty(server)
    address = handler.sessions[0].peer
    told = [record for record in caplog.records if record.name == "packetcore" and record.levelno == logging.INFO]
    opened, turned_away, closed = told
    for record, identity in ((opened, None), (closed, "device 7")):
        about = vars(record)
        assert (about["session"], about["peer"], about["identity"]) == (1, address, identity)
    assert "PEER" in closed.getMessage()
    assert vars(turned_away)["peer"][1] != address[1]
