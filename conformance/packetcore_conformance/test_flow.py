"""Flow.

Slow peers, fast senders, and what the operating system has taken.
"""

from __future__ import annotations

import time

import pytest

from packetcore import CloseReason, Config, Packet, Session, encode
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))
CHUNK = Packet(2, bytes(100_000))


def test_every_byte_sent_is_told_once(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    peer = rig.peer(server)
    for _ in range(20):
        peer.send(PING * 50)
        assert peer.receive(50 * len(PING)) == PING * 50
    (session,) = rig.sessions(server, 1)
    rig.until(lambda: session.outstanding == 0, "the system has taken everything")
    assert sum(count for count in handler.values("sent") if isinstance(count, int)) == 1000 * len(PING)
    assert session.stats.bytes_sent == session.stats.bytes_received == 1000 * len(PING)
    assert session.stats.packets_sent == session.stats.packets_received == 1000


def test_a_backlog_is_told_as_it_drains(rig: Rig) -> None:
    def flood(session: Session) -> None:
        for _ in range(100):
            session.send(CHUNK)

    handler = Recorder(connected=flood)
    server = rig.serve(handler)
    peer = rig.peer(server, receive_buffer=4096)
    (session,) = rig.sessions(server, 1)
    rig.until(lambda: session.write_paused, "the session is above high water")
    total = 100 * len(encode(CHUNK))
    assert sum(count for count in handler.values("sent") if isinstance(count, int)) < total
    assert peer.receive(total) == encode(CHUNK) * 100
    handler.wait("writable")
    rig.until(lambda: session.outstanding == 0, "the backlog is gone")
    assert sum(count for count in handler.values("sent") if isinstance(count, int)) == total
    assert not rig.call(lambda: session.write_paused)


def test_a_peer_that_does_not_read_is_not_read_from(rig: Rig) -> None:
    def reply_at_length(session: Session, packet: Packet) -> None:
        session.send(CHUNK)

    handler = Recorder(packet_received=reply_at_length)
    server = rig.serve(handler, Config(max_outstanding=None))
    peer = rig.peer(server, receive_buffer=4096)
    (session,) = rig.sessions(server, 1)
    peer.sock.settimeout(0.3)
    large = encode(Packet(1, bytes(500_000)))
    try:
        for _ in range(200):
            peer.send(large)
    except TimeoutError:
        pass
    else:
        raise AssertionError("the server read on from a peer that does not read")
    assert rig.call(lambda: session.write_paused)
    assert session.stats.bytes_received < 100 * len(large)


def test_a_client_that_sends_much_at_once_gets_all_of_it_back(rig: Rig) -> None:
    server = rig.serve(echo())
    handler = Recorder()
    session = rig.connect(server, handler, Config(max_outstanding=None))

    def flood() -> None:
        for _ in range(300):
            session.send(CHUNK)

    rig.call(flood)
    assert len(handler.wait("packet_received", 300)) == 300


def test_a_slow_peer_delays_no_other(rig: Rig) -> None:
    def reply_at_length(session: Session, packet: Packet) -> None:
        session.send(packet)
        if packet.id == 2:
            for _ in range(100):
                session.send(CHUNK)

    handler = Recorder(packet_received=reply_at_length)
    server = rig.serve(handler)
    slow = rig.peer(server, receive_buffer=4096)
    slow.send(encode(Packet(2)))
    rig.until(lambda: any(session.write_paused for session in server.sessions), "one peer is slow")
    other = rig.peer(server)
    for _ in range(200):
        other.send(PING)
        assert other.receive(len(PING)) == PING


def test_a_peer_that_lets_too_much_pile_up_is_reset(rig: Rig) -> None:
    def flood(session: Session, packet: Packet) -> None:
        for _ in range(1000):
            session.send(CHUNK)

    handler = Recorder(packet_received=flood)
    server = rig.serve(handler, Config(max_outstanding=1_000_000))
    peer = rig.peer(server, receive_buffer=4096)
    peer.send(PING)
    assert handler.wait_reasons() == [CloseReason.SLOW_CONSUMER]
    with pytest.raises(ConnectionResetError):  # data was lost: no end in good order
        peer.receive_rest()
    peer.wait_closed()
    rig.until_empty(server)


def test_who_sends_no_more_than_writable_allows_never_has_much_unsent(rig: Rig) -> None:
    total = 200
    unsent: list[int] = []

    def send_one(session: Session, value: object = None) -> None:
        if not session.write_paused and session.stats.packets_sent < total:
            session.send(CHUNK)
            unsent.append(session.outstanding)

    handler = Recorder(connected=send_one, sent=send_one, writable=send_one)
    server = rig.serve(handler)
    peer = rig.peer(server, receive_buffer=4096)
    assert peer.receive(total * len(encode(CHUNK))) == encode(CHUNK) * total
    assert len(unsent) == total
    assert max(unsent) <= Config().write_high_water + 2 * len(encode(CHUNK))


def test_a_peer_that_never_reads_is_closed_before_much_piles_up_and_delays_no_other(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(max_outstanding=1_000_000))
    slow = rig.peer(server, receive_buffer=4096)
    (session,) = rig.sessions(server, 1)
    other = rig.peer(server)
    unsent: list[int] = []

    def push() -> None:
        session.send(CHUNK)
        unsent.append(session.outstanding)

    for _ in range(4000):  # 400 MB
        if not rig.call(lambda: session.is_open):
            break
        rig.call(push)
        other.send(PING)
        assert other.receive(len(PING)) == PING
    assert handler.wait_reasons() == [CloseReason.SLOW_CONSUMER]
    assert max(unsent) <= 1_000_000 + len(encode(CHUNK))
    slow.wait_closed()
    other.send(PING)
    assert other.receive(len(PING)) == PING


def test_a_stream_whose_reader_does_not_read_keeps_no_more_than_its_bound(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(max_outstanding=None))
    stream = rig.stream(server)
    (session,) = rig.sessions(server, 1)

    def push() -> None:
        for _ in range(20_000):
            session.send(Packet(1, bytes(1000)))

    rig.call(push)
    rig.until(lambda: session.write_paused, "the sender's buffer fills")
    rig.call(session.send, Packet(2))
    assert rig.call(lambda: stream.session.stats.bytes_received) < 1_000_000
    received = [rig.call(stream.recv) for _ in range(500)]  # it goes on where it stopped
    assert received == [Packet(1, bytes(1000))] * 500


def test_a_paused_session_gets_nothing_until_it_is_resumed(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.pause())
    server = rig.serve(handler)
    peer = rig.peer(server)
    peer.send(PING * 3)
    handler.wait("packet_received")
    (session,) = rig.sessions(server, 1)
    peer.send(PING)
    time.sleep(0.1)
    assert len(handler.calls("packet_received")) == 1
    for count in (2, 3, 4):
        rig.call(session.resume)
        handler.wait("packet_received", count)
    assert len(handler.calls("packet_received")) == 4


def test_a_paused_session_is_not_blamed_for_silence(rig: Rig) -> None:
    handler = Recorder(connected=lambda session: session.pause())
    server = rig.serve(handler, Config(idle_timeout=0.15, frame_timeout=0.15))
    peer = rig.peer(server)
    peer.send(PING)
    time.sleep(0.6)
    assert not handler.calls("disconnected")
    (session,) = rig.sessions(server, 1)
    rig.call(session.resume)
    handler.wait("packet_received")


def test_who_was_told_that_there_is_no_room_is_told_when_there_is(rig: Rig) -> None:
    left = [CHUNK] * 30

    def send_on(session: Session, packet: object = None) -> None:
        while left and session.send(left.pop()):
            pass

    server = rig.serve(Recorder(packet_received=send_on, writable=send_on))
    peer = rig.peer(server)  # as fast as it can
    peer.send(PING)
    assert peer.receive(30 * len(encode(CHUNK))) == encode(CHUNK) * 30
