"""Timeouts.

Peers that fall silent, trickle, never finish; and clients that cannot connect.
"""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from packetcore import CloseReason, Config, Packet, Reason, encode
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


def test_a_silent_peer_is_closed(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(idle_timeout=0.2))
    peer = rig.peer(server)
    assert peer.receive_rest() == b""
    assert handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
    rig.until_empty(server)


def test_an_active_peer_outlives_a_silent_one(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(idle_timeout=0.4))
    active, silent = rig.peer(server), rig.peer(server)
    silent.sock.setblocking(False)
    deadline = time.monotonic() + DEADLINE
    while not handler.calls("disconnected"):
        assert time.monotonic() < deadline
        active.send(PING)
        assert active.receive(len(PING)) == PING
        time.sleep(0.02)
    assert handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
    active.send(PING)
    assert active.receive(len(PING)) == PING


def test_a_peer_whose_bytes_waited_while_the_loop_was_busy_is_not_silent(rig: Rig) -> None:
    server = rig.serve(config=Config(idle_timeout=0.4))
    peers = [rig.peer(server) for _ in range(20)]
    for peer in peers:
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
    busy = rig.in_background(time.sleep, 0.8)
    time.sleep(0.1)
    for peer in peers:
        peer.send(PING)
    busy()
    for peer in peers:
        assert peer.receive(len(PING)) == PING, "a peer was called silent whose bytes were waiting"


def test_a_refresh_in_the_pool_keeps_a_silent_session(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(idle_timeout=0.8))
    active = rig.peer(server)
    handler.wait("connected", 1)
    rig.peer(server)
    handler.wait("connected", 2)
    rig.peer(server)
    handler.wait("connected", 3)
    clock, vouched_for, silent = handler.sessions

    def vouch() -> None:
        now = server.sessions.refreshed(clock.id)
        assert now is not None
        assert server.sessions.refresh(vouched_for.id, now)

    deadline = time.monotonic() + DEADLINE
    while not handler.calls("disconnected"):
        assert time.monotonic() < deadline
        active.send(PING)
        assert active.receive(len(PING)) == PING
        rig.call(vouch)
        time.sleep(0.02)
    assert [call.session for call in handler.calls("disconnected")] == [silent.id]


def test_a_trickled_frame_is_cut_off(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(frame_timeout=0.3, idle_timeout=DEADLINE)))
    peer.send(b"\xfe")
    deadline = time.monotonic() + DEADLINE
    while not handler.calls("disconnected"):
        assert time.monotonic() < deadline
        try:
            peer.send(b"\x00")
        except ConnectionError:
            break
        time.sleep(0.02)
    assert handler.wait_reasons() == [CloseReason.FRAME_TIMEOUT]


@pytest.mark.parametrize("noise", [b"\r\n", b"alive"])
@pytest.mark.parametrize("before", [b"", PING])
def test_noise_is_reported_in_time_and_ends_nothing(rig: Rig, before: bytes, noise: bytes) -> None:
    handler = echo()
    peer = rig.peer(rig.serve(handler, Config(frame_timeout=0.3, idle_timeout=DEADLINE)))
    for times in (1, 2):
        peer.send(before + noise)
        assert peer.receive(len(before)) == before
        seen: list[Any] = handler.wait("malformed", times)
        while sum(malformed.size for malformed in seen) < times * len(noise):  # it came in parts
            seen = handler.wait("malformed", len(seen) + 1)
        assert {malformed.reason for malformed in seen} == {Reason.NOISE}, "noise after a packet was called a frame"
    peer.send(PING)
    assert peer.receive(len(PING)) == PING, "a session ended because of bytes outside any frame"
    assert not handler.calls("disconnected")


def test_each_frame_has_a_clock_of_its_own(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(frame_timeout=1.0)))
    for at in range(6):  # longer than one frame may take, never idle between two
        peer.send(PING[-3:] + PING[:-3] if at else PING[:-3])
        time.sleep(0.25)
    peer.send(PING[-3:])
    handler.wait("packet_received", 6)
    assert not handler.calls("disconnected")


def test_a_keepalive_is_sent_when_nothing_else_is(rig: Rig) -> None:
    config = Config(keepalive_interval=0.1, keepalive_packet=Packet(99, b"alive"))
    peer = rig.peer(rig.serve(Recorder(), config))
    frame = encode(Packet(99, b"alive"))
    assert peer.receive(3 * len(frame)) == frame * 3


def test_a_refused_connection_is_an_os_error(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        rig.driver.connect("127.0.0.1", port, Recorder())
    with pytest.raises(ConnectionRefusedError):
        rig.driver.connect("127.0.0.1", port)


def test_connect_timeout_is_kept_and_named(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address: tuple[str, int] = deaf.getsockname()
        clogs = [socket.socket() for _ in range(4)]
        for clog in clogs:  # fill the accept queue, so that the next one hangs
            clog.setblocking(False)
            clog.connect_ex(address)
        try:
            with pytest.raises(TimeoutError, match=r"connect_timeout=0\.3"):
                rig.driver.connect(*address, handler=Recorder(), config=Config(connect_timeout=0.3))
        finally:
            for clog in clogs:
                clog.close()


def test_a_peer_that_takes_a_long_reply_slowly_is_not_idle(rig: Rig) -> None:
    reply = Packet(2, bytes(1_000_000))
    handler = Recorder(packet_received=lambda session, packet: session.send(reply if packet.id == 1 else packet))
    config = Config(idle_timeout=2.0, write_high_water=64 << 20, max_outstanding=64 << 20)  # so that it is read from
    peer = rig.peer(rig.serve(handler, config), receive_buffer=64 * 1024)
    peer.send(PING * 12)
    frame = encode(reply)
    began = time.monotonic()
    for count in range(12):
        assert peer.receive(len(frame)) == frame
        if count == 5:
            assert not handler.calls("disconnected"), "a peer that was taking a reply was called idle"
        time.sleep(0.25)  # the peer is slow, and takes longer than idle_timeout in all
    assert time.monotonic() - began > 2.0
    last = encode(Packet(9, b"still here"))
    peer.send(last)
    assert peer.receive(len(last)) == last, "the packet of a peer that had taken a long reply was lost"


def test_no_keepalive_is_put_behind_bytes_that_wait(rig: Rig) -> None:
    beat = Packet(9, b"beat")
    config = Config(keepalive_interval=0.05, keepalive_packet=beat, idle_timeout=DEADLINE)
    handler = Recorder(connected=lambda session: [session.send(Packet(2, bytes(1_000_000))) for _ in range(12)])
    server = rig.serve(handler, config)
    peer = rig.peer(server, receive_buffer=4096)
    (session,) = rig.sessions(server, 1)
    time.sleep(0.5)  # ten keepalives, were there any
    assert rig.call(lambda: session.outstanding) > 0
    assert rig.call(lambda: session.stats.packets_sent) == 12, "keepalives were put behind bytes that wait"
    peer.close()
