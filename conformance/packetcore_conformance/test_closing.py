"""Closing.

How conversations end, and that both sides and the application are told the same.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from packetcore import CloseReason, Config, Malformed, Packet, Reason, Session, encode
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


def test_the_peer_closes(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peer = rig.peer(server)
    handler.wait("connected")
    peer.close()
    assert handler.wait_reasons() == [CloseReason.PEER]
    rig.until_empty(server)


def test_replies_still_reach_a_peer_that_has_finished_sending(rig: Rig) -> None:
    handler = echo()
    peer = rig.peer(rig.serve(handler))
    peer.send(PING * 1000)
    peer.finish()
    assert peer.receive_rest() == PING * 1000
    assert handler.wait_reasons() == [CloseReason.PEER]


def test_a_long_reply_reaches_a_peer_that_has_finished_sending(rig: Rig) -> None:
    def reply_at_length(session: Session) -> None:
        for _ in range(12):
            session.send(Packet(2, bytes(500_000)))
        session.close()

    handler = Recorder(eof_received=reply_at_length)
    peer = rig.peer(rig.serve(handler), receive_buffer=4096)
    peer.finish()
    assert peer.receive_rest() == encode(Packet(2, bytes(500_000))) * 12
    assert handler.wait_reasons() == [CloseReason.PEER]


def test_a_reply_may_come_long_after_the_peer_has_finished_sending(rig: Rig) -> None:
    handler = Recorder(eof_received=lambda session: None)
    server = rig.serve(handler)
    peer = rig.peer(server)
    peer.send(PING)
    peer.finish()
    handler.wait("eof_received")
    (session,) = rig.sessions(server, 1)
    rig.call(session.send, Packet(1, b"ping"))
    assert peer.receive(len(PING)) == PING
    rig.call(session.close)
    assert peer.receive_rest() == b""
    assert handler.wait_reasons() == [CloseReason.PEER]


def test_a_stream_replies_after_the_peer_has_finished_sending(rig: Rig) -> None:
    peer = rig.peer(rig.serve())
    peer.send(PING * 1000)
    peer.finish()
    assert peer.receive_rest() == PING * 1000


def test_a_reset_in_the_middle_of_a_frame(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peer = rig.peer(server)
    peer.send(PING + PING[:-4])
    handler.wait("packet_received")
    (session,) = rig.sessions(server, 1)
    rig.until_received(session, 2 * len(PING) - 4)
    peer.reset()
    assert handler.wait_reasons() == [CloseReason.RESET]
    assert handler.values("malformed") == [Malformed.of(Reason.TRUNCATED, PING[1:-4])]
    rig.until_empty(server)


def test_a_close_from_a_handler_comes_after_its_replies(rig: Rig) -> None:
    def reply_and_close(session: Session, packet: Packet) -> None:
        session.send(packet)
        session.close()

    handler = Recorder(packet_received=reply_and_close)
    peer = rig.peer(rig.serve(handler))
    peer.send(PING * 3)
    assert peer.receive_rest() == PING
    peer.close()
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    assert len(handler.calls("packet_received")) == 1


def test_a_close_from_outside_a_handler(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    rig.call(session.close)
    assert peer.receive_rest() == b""
    peer.close()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_a_close_during_a_send_loses_no_byte(rig: Rig) -> None:
    packet = Packet(1, bytes(range(256)) * 2000)

    def flood(session: Session) -> None:
        for _ in range(16):
            session.send(packet)
        session.close()

    handler = Recorder(connected=flood)
    # However slow the machine is: it is not about how long a peer may take.
    peer = rig.peer(rig.serve(handler, Config(close_timeout=None, idle_timeout=None)), receive_buffer=64 * 1024)
    assert peer.receive_rest() == encode(packet) * 16, "a close lost what had been sent before it"
    peer.close()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_an_abort_ends_both_sides_at_once(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    rig.call(session.abort)
    peer.wait_closed()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_a_peer_that_never_closes_is_cut_off(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.close())
    server = rig.serve(handler, Config(close_timeout=0.2))
    peer = rig.peer(server)
    peer.send(PING)
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    rig.until_empty(server)


def test_a_peer_that_does_not_read_cannot_hold_up_a_close(rig: Rig) -> None:
    def flood(session: Session) -> None:
        for _ in range(12):
            session.send(Packet(1, bytes(1_000_000)))
        session.close()

    handler = Recorder(connected=flood)
    server = rig.serve(handler, Config(close_timeout=0.3))
    rig.peer(server, receive_buffer=4096)
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    rig.until_empty(server)


def test_disconnected_comes_exactly_once_for_each_connected(rig: Rig) -> None:
    def react(session: Session, packet: Packet) -> None:
        match packet.id:
            case 1:
                session.close()
            case 2:
                session.abort()
            case 3:
                raise RuntimeError("a bug of the application")
            case 4:
                session.close()
                session.abort()

    handler = Recorder(packet_received=react)
    server = rig.serve(handler)
    for at in range(60):
        peer = rig.peer(server)
        peer.send(encode(Packet(at % 6)))
        handler.wait("packet_received", at + 1)
        if at % 2:
            peer.reset()
        else:
            peer.close()
    rig.until_empty(server)
    assert len(handler.wait_reasons(60)) == 60
    assert sorted(call.session for call in handler.calls("disconnected")) == list(range(1, 61))
    assert server.stats.opened == 60
    assert sum(server.stats.closed.values()) == 60


@pytest.mark.parametrize("method", ["connected", "packet_received", "malformed", "disconnected"])
def test_a_handler_that_raises_ends_its_own_session_only(rig: Rig, method: str) -> None:
    def fail(session: Session, value: object = None) -> None:
        if session is handler.sessions[-1]:
            raise RuntimeError("a bug of the application")

    def send_back(session: Session, packet: Packet) -> None:
        session.send(packet)
        if method == "packet_received":
            fail(session)

    handler = Recorder(packet_received=send_back)
    server = rig.serve(handler)
    other = rig.peer(server)
    rig.sessions(server, 1)
    if method != "packet_received":
        handler.act(method, fail)
    peer = rig.peer(server)
    if method != "connected":
        peer.send(PING + b"\xfe\x01\xfe")
    if method in ("packet_received", "malformed"):
        assert peer.receive(len(PING)) == PING
    if method == "disconnected":
        peer.finish()
    peer.wait_closed()
    peer.close()
    expected = CloseReason.PEER if method == "disconnected" else CloseReason.HANDLER_ERROR
    assert handler.wait_reasons() == [expected]
    if method == "packet_received":
        other.finish()
    else:
        other.send(PING)
        assert other.receive(len(PING)) == PING


def test_a_server_that_closes_tells_every_session(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peers = [rig.peer(server) for _ in range(5)]
    handler.wait("connected", 5)
    closing = rig.in_background(server.close, 5.0)
    for peer in peers:
        assert peer.receive_rest() == b""
        peer.close()
    closing()
    assert handler.wait_reasons(5) == [CloseReason.SHUTDOWN] * 5
    with pytest.raises(ConnectionRefusedError):
        Peer.connect(server.address)


def test_a_server_flushes_before_it_closes(rig: Rig) -> None:
    def flood(session: Session) -> None:
        for _ in range(12):
            session.send(Packet(1, bytes(500_000)))

    handler = Recorder(connected=flood)
    server = rig.serve(handler)
    peer = rig.peer(server, receive_buffer=4096)
    handler.wait("connected")
    closing = rig.in_background(server.close, 10.0)
    assert peer.receive_rest() == encode(Packet(1, bytes(500_000))) * 12
    peer.close()
    closing()
    assert handler.wait_reasons() == [CloseReason.SHUTDOWN]


def test_what_the_grace_did_not_end_is_aborted(rig: Rig) -> None:
    handler = Recorder(draining=lambda session: None)
    server = rig.serve(handler)
    peers = [rig.peer(server) for _ in range(3)]
    handler.wait("connected", 3)
    rig.call(server.close, 0.1)
    assert handler.wait_reasons(3) == [CloseReason.SHUTDOWN] * 3
    for peer in peers:
        peer.wait_closed()


def test_a_stream_function_finishes_its_work_within_the_grace(rig: Rig) -> None:
    server = rig.serve()
    peer = rig.peer(server)
    peer.send(PING)
    assert peer.receive(len(PING)) == PING
    closing = rig.in_background(server.close, 5.0)
    assert peer.receive_rest() == b""
    peer.close()
    closing()
    assert server.stats.closed == {CloseReason.SHUTDOWN: 1}


def test_a_server_that_drains_admits_nobody_and_serves_those_it_has(rig: Rig) -> None:
    def say_goodbye(session: Session) -> None:
        with suppress(ConnectionRefusedError):  # it listens no more when handlers are told
            Peer.connect(server.address).close()
            admitted.append(session)
        session.send(Packet(0, b"goodbye"))

    admitted: list[Session] = []
    handler = echo()
    handler.act("draining", say_goodbye)
    server = rig.serve(handler)
    leaving, staying = rig.peer(server), rig.peer(server)
    handler.wait("connected", 2)
    closing = rig.in_background(server.close, 60.0)
    goodbye = encode(Packet(0, b"goodbye"))
    for peer in (leaving, staying):
        assert peer.receive(len(goodbye)) == goodbye
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
    assert not admitted
    leaving.finish()
    assert handler.wait_reasons() == [CloseReason.SHUTDOWN]
    by_server = next(session for session in handler.sessions if session.is_open)
    rig.call(by_server.close)
    assert staying.receive_rest() == b""
    staying.close()
    closing()
    assert handler.wait_reasons(2) == [CloseReason.SHUTDOWN] * 2
    assert len(handler.calls("draining")) == 2


def test_a_second_close_without_grace_ends_the_first_at_once(rig: Rig) -> None:
    handler = Recorder(draining=lambda session: None)
    server = rig.serve(handler)
    peers = [rig.peer(server) for _ in range(3)]
    handler.wait("connected", 3)
    closing = rig.in_background(server.close, 60.0)
    handler.wait("draining", 3)
    rig.call(server.close, 0)
    closing()
    assert handler.wait_reasons(3) == [CloseReason.SHUTDOWN] * 3
    for peer in peers:
        peer.wait_closed()


def test_a_server_restarts_on_its_port_at_once(rig: Rig) -> None:
    port = 0
    for _ in range(10):
        handler = echo()
        server = rig.serve(handler, port=port)
        port = server.address[1]
        peer = rig.peer(server)
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
        rig.call(server.close, 0)
        peer.close()


def test_a_port_in_use_is_an_os_error(rig: Rig) -> None:
    server = rig.serve(Recorder())
    with pytest.raises(OSError, match=r"(?i)in use"):
        rig.serve(Recorder(), port=server.address[1])


def test_two_hundred_connections_at_once(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    peers = [rig.peer(server) for _ in range(200)]
    for at, peer in enumerate(peers):
        peer.send(encode(Packet(at, bytes([at]) * at)))
    for at, peer in enumerate(peers):
        frame = encode(Packet(at, bytes([at]) * at))
        assert peer.receive(len(frame)) == frame
    rig.sessions(server, 200)
    for peer in peers:
        peer.close()
    assert handler.wait_reasons(200) == [CloseReason.PEER] * 200
    rig.until_empty(server)
