"""Reconnect.

Clients that come back: when they try again, what they keep meanwhile, and how they are closed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from packetcore import (
    Address,
    Backoff,
    CloseReason,
    Config,
    Handler,
    LocalProtocolError,
    NotConnected,
    Packet,
    Session,
    SessionClosed,
)
from packetcore_conformance.descriptors import are_listed, expect_at_most, open_descriptors
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.server_process import ServerProcess

pytestmark = pytest.mark.usefixtures("needs_reconnect")

SOON = Backoff(initial=0.01, maximum=0.05)
ONCE = Backoff(initial=0.02, factor=1e6, maximum=1e6, jitter=0)
"""One try after a moment, the next one days later."""


@contextmanager
def nobody() -> Iterator[Address]:
    """An address that refuses connections until a server listens there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def test_a_server_that_is_down_at_first_is_reached_once_it_is_up(rig: Rig) -> None:
    handler = Recorder()
    with nobody() as address:
        client = rig.client(address, handler, SOON)
        rig.until(lambda: client.stats.closed[CloseReason.CONNECT_FAILED] >= 3, "three tries failed")
        assert handler.calls() == []
        rig.serve(echo(), port=address[1])
        handler.wait("connected")
    rig.call(client.send, Packet(1))
    assert handler.wait("packet_received") == [Packet(1)]
    assert not handler.calls("disconnected")
    assert client.stats.opened == 1


def test_each_connection_that_was_made_is_one_connected_and_one_disconnected(rig: Rig) -> None:
    server = rig.serve(echo())
    handler = Recorder()
    client = rig.client(server.address, handler, SOON)
    for at in range(1, 6):
        handler.wait("connected", at)
        rig.call(client.send, Packet(at))
        assert handler.wait("packet_received", at)[-1] == Packet(at)
        rig.call(server.close, 0)
        handler.wait_reasons(at)
        server = rig.serve(echo(), port=server.address[1])
    handler.wait("connected", 6)
    names = [call.name for call in handler.calls() if call.name not in ("sent", "packet_received", "eof_received")]
    assert names == ["connected", "disconnected"] * 5 + ["connected"]
    assert [session.id for session in handler.sessions] == [1, 2, 3, 4, 5, 6]
    assert set(handler.wait_reasons(5)) <= {CloseReason.PEER, CloseReason.RESET}
    assert client.session is handler.sessions[-1]


def test_a_server_that_accepts_and_closes_at_once_is_left_alone_for_longer_and_longer(rig: Rig) -> None:
    server = rig.serve(Recorder(connected=lambda session: session.close()))
    patient, eager = Recorder(), Recorder()
    client = rig.client(server.address, patient, ONCE)
    rig.client(server.address, eager, Backoff(initial=0.02, factor=1, jitter=0))
    patient.wait("disconnected", 2)
    eager.wait("disconnected", len(eager.calls("disconnected")) + 10)
    assert len(patient.calls("connected")) == 2
    rig.call(client.close)
    assert client.session is None


def test_a_connection_that_stayed_up_makes_the_waits_begin_anew(rig: Rig) -> None:
    server = rig.serve(Recorder(), Config(idle_timeout=0.25))
    handler = Recorder()
    backoff = Backoff(initial=0.02, factor=1e6, maximum=1e6, jitter=0, reset_after=0.05)
    rig.client(server.address, handler, backoff)
    handler.wait("connected", 4)


def test_without_leave_to_keep_packets_a_send_while_disconnected_is_refused(rig: Rig) -> None:
    with nobody() as address:
        client = rig.client(address, Recorder(), SOON)
        with pytest.raises(NotConnected, match=r"^not connected$"):
            rig.call(client.send, Packet(1))
    assert client.kept == 0


def test_kept_packets_follow_the_hello_in_their_order_and_before_later_ones(rig: Rig) -> None:
    received = Recorder()
    handler = Recorder(connected=lambda session: session.send(Packet(0, b"hello")))
    kept = [Packet(id) for id in range(1, 4)]
    with nobody() as address:
        client = rig.client(address, handler, SOON, keep=3, config=Config(max_payload=100))
        for packet in kept:
            rig.call(client.send, packet)
        with pytest.raises(NotConnected, match="keep=3"):
            rig.call(client.send, Packet(4))
        assert client.kept == 3
        rig.serve(received, port=address[1])
        handler.wait("connected")
    rig.call(client.send, Packet(5))
    assert received.wait("packet_received", 5) == [Packet(0, b"hello"), *kept, Packet(5)]
    assert client.kept == 0


def test_a_payload_over_the_limit_is_refused_before_it_is_kept(rig: Rig) -> None:
    with nobody() as address:
        client = rig.client(address, Recorder(), SOON, keep=3, config=Config(max_payload=100))
        with pytest.raises(LocalProtocolError, match="payload of 101 bytes exceeds max_payload=100"):
            rig.call(client.send, Packet(1, bytes(101)))
    assert client.kept == 0


def test_a_client_that_waits_can_be_closed_and_never_comes(rig: Rig) -> None:
    backoff = Backoff(initial=0.5, factor=1, maximum=0.5, jitter=0)
    closed, control = Recorder(), Recorder()
    with nobody() as address:
        client = rig.client(address, closed, backoff, keep=1)
        rig.until(lambda: client.stats.closed[CloseReason.CONNECT_FAILED] == 1, "one try failed")
        rig.call(client.send, Packet(1))
        for _ in range(2):
            rig.call(client.close)
        assert client.is_closed
        assert client.kept == 0
        with pytest.raises(SessionClosed) as raised:
            rig.call(client.send, Packet(1))
        assert not isinstance(raised.value, NotConnected)
        later = rig.client(address, control, backoff)
        rig.until(lambda: later.stats.closed[CloseReason.CONNECT_FAILED] == 1, "the other's first try failed")
        server = rig.serve(Recorder(), port=address[1])
    control.wait("connected")
    rig.sessions(server, 1)
    assert closed.calls() == []


@are_listed
def test_a_client_that_dials_can_be_closed_and_leaves_no_descriptor(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address: tuple[str, int] = deaf.getsockname()
        clogs = [socket.socket() for _ in range(4)]
        for clog in clogs:  # fill the accept queue, so that the next one hangs
            clog.setblocking(False)
            clog.connect_ex(address)
        try:
            handler = Recorder()
            before = open_descriptors()
            client = rig.client(address, handler, SOON, config=Config(connect_timeout=60))
            rig.until(lambda: open_descriptors() > before, "it dials")
            rig.call(client.close)
            expect_at_most(before, "a dial survived the close of its client")
        finally:
            for clog in clogs:
                clog.close()
    assert handler.calls() == []


def test_a_client_that_is_connected_can_be_closed_by_several_at_once(rig: Rig) -> None:
    received, handler = Recorder(), Recorder()
    server = rig.serve(received)
    client = rig.client(server.address, handler, SOON)
    handler.wait("connected")
    rig.call(client.send, Packet(1, bytes(500_000)))
    for wait in [rig.in_background(client.close) for _ in range(3)]:
        wait()
    rig.call(client.close)
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    assert received.wait("packet_received") == [Packet(1, bytes(500_000))]
    assert received.wait_reasons() == [CloseReason.PEER]
    assert client.session is None


def test_a_client_that_was_closed_does_not_come_back(rig: Rig) -> None:
    server = rig.serve(Recorder())
    closed, control = Recorder(), Recorder(connected=lambda session: session.close())
    client = rig.client(server.address, closed, SOON)
    closed.wait("connected")
    rig.call(client.close)
    rig.client(server.address, control, SOON)
    control.wait("connected", 3)  # so there was time enough
    assert len(closed.calls("connected")) == 1


def test_a_handler_may_close_the_client(rig: Rig) -> None:
    server = rig.serve(echo())
    handler = Recorder(packet_received=lambda session, packet: session.close())
    client = rig.client(server.address, handler, SOON)
    handler.wait("connected")
    rig.call(client.send, Packet(1))
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    handler.wait("connected", 2)  # it closed its session, not the client


def test_a_function_over_a_stream_is_run_anew_for_each_connection(rig: Rig) -> None:
    received = Recorder()
    server = rig.serve(received)
    client = rig.client(server.address, rig.stream_function(lambda stream: stream.send(Packet(7, b"hello"))), SOON)
    assert received.wait("packet_received", 4)[:4] == [Packet(7, b"hello")] * 4
    rig.call(client.close)
    rig.until_empty(server)
    assert [len(received.values("packet_received", session.id)) for session in received.sessions[:3]] == [1] * 3
    assert set(received.wait_reasons(4)) == {CloseReason.PEER}


def test_keepalives_hold_a_connection_that_would_be_closed_for_silence(rig: Rig) -> None:
    received = Recorder()
    server = rig.serve(received, Config(idle_timeout=0.4))
    alive, silent = Recorder(), Recorder()
    config = Config(keepalive_interval=0.1, keepalive_packet=Packet(99, b"alive"))
    rig.client(server.address, alive, SOON, config=config)
    alive.wait("connected")
    rig.call(alive.sessions[0].abort)  # so that it is a later connection which is held
    alive.wait("connected", 2)
    rig.client(server.address, silent, SOON)
    silent.wait("disconnected", 2)
    assert len(alive.calls("connected")) == 2
    assert len(alive.calls("disconnected")) == 1
    assert set(received.values("packet_received")) == {Packet(99, b"alive")}


class PingPong(Handler):
    """Keeps some packets under way, and counts."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.replies = 0

    def connected(self, session: Session) -> None:
        self.heard.append("connected")
        for id in range(8):
            session.send(Packet(id, bytes(1000)))

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.replies += 1
        session.send(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.heard.append(reason)


def test_a_server_killed_under_load_is_noticed_by_every_client_and_found_again(rig: Rig, transport: str) -> None:
    players = [PingPong() for _ in range(20)]
    with ServerProcess(transport) as server:
        clients = [rig.client(server.address, player, SOON) for player in players]
        rig.until(lambda: all(player.replies >= 20 for player in players), "every client is served")
        server.kill()
        rig.until(lambda: all(len(player.heard) == 2 for player in players), "every client was told")
    replies = [player.replies for player in players]
    with ServerProcess(transport, server.address[1]):
        rig.until(
            lambda: all(player.replies >= before + 20 for player, before in zip(players, replies, strict=True)),
            "every client is served again",
        )
        for player in players:
            connected, reason, again = player.heard
            assert connected == again == "connected"
            assert reason in (CloseReason.PEER, CloseReason.RESET)
        for client in clients:
            rig.call(client.close)
