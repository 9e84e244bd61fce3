"""Resets.

What the system has received is delivered before RESET is told, and a peer that was reset before
it was accepted is a peer like any other.
"""

from __future__ import annotations

import array
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from packetcore import CloseReason, Config, Driver, Handler, Packet, Refusal, Session, SessionClosed, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

fcntl: Any = pytest.importorskip("fcntl")
termios: Any = pytest.importorskip("termios")

CROWD = 120
"""Peers that are reset before they are accepted."""

READS_ALWAYS = Config(write_high_water=1 << 30, max_outstanding=None)
"""So that a server goes on reading from a peer that takes no answers, and its system has room for
all that comes."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems forget what a reset connection received")


class Answering(Handler):
    """Answers each packet; notes what it heard, in order."""

    def __init__(self) -> None:
        self.heard: list[Packet | CloseReason] = []
        self.ended = threading.Event()

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.heard.append(packet)
        session.send(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.heard.append(reason)
        self.ended.set()


@pytest.mark.parametrize("count", [600, 20_000])
def test_a_burst_before_a_reset_is_delivered_whole(rig: Rig, count: int) -> None:
    handler = Answering()
    server = rig.serve(handler, READS_ALWAYS)
    for _ in range(5):
        handler.heard.clear()
        handler.ended.clear()
        peer = rig.peer(server)
        packets = burst(count)
        peer.send(b"".join(map(encode, packets)))
        until_received(peer)
        peer.reset()
        assert handler.ended.wait(DEADLINE)
        expect_in_order(handler.heard, [*packets, CloseReason.RESET])


def test_a_burst_over_tls_before_a_reset_is_delivered_whole(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    needs_tls(driver)
    handler = Answering()
    server = rig.serve(handler, READS_ALWAYS, tls=certificates.server)
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    rig.sessions(server, 1)  # before that the server may still have a part of the handshake to send
    packets = burst(600)
    peer.send(b"".join(map(encode, packets)))
    until_received(peer)
    peer.reset()
    assert handler.ended.wait(DEADLINE)
    expect_in_order(handler.heard, [*packets, CloseReason.RESET])


def test_what_came_while_the_server_did_not_read_is_delivered_before_a_reset(rig: Rig) -> None:
    """Its peer takes none of the answers, so that it waits with reading, and then with nothing
    but the reset to wake it."""
    handler = Answering()
    server = rig.serve(handler)
    peer = rig.peer(server, receive_buffer=4096)
    packet = Packet(1, bytes(5000))
    frame = encode(packet)
    peer.sock.settimeout(0.3)
    sent = 0
    try:
        while True:
            sent += peer.sock.send(frame[sent % len(frame) :])
    except TimeoutError:
        pass
    received = sent - unsent(peer)
    peer.reset()
    assert handler.ended.wait(DEADLINE)
    *packets, reason = handler.heard
    assert reason is CloseReason.RESET
    assert set(packets) == {packet}
    assert len(packets) >= received // len(frame), "packets were lost that the system had received"


def test_a_session_that_its_application_paused_gets_all_before_a_reset(rig: Rig) -> None:
    handler = Answering()
    server = rig.serve(handler)
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    rig.call(session.pause)
    packets = burst(600)
    peer.send(b"".join(map(encode, packets)))
    until_received(peer)
    peer.reset()
    if not handler.ended.wait(0.3):  # not every runtime hears of a reset while it does not read
        assert not handler.heard
        rig.call(session.resume)
        assert handler.ended.wait(DEADLINE)
    expect_in_order(handler.heard, [*packets, CloseReason.RESET])


@pytest.mark.parametrize("count", [600, 20_000])
def test_a_function_that_answers_each_packet_gets_all_before_a_reset(rig: Rig, count: int) -> None:
    got: list[Packet | CloseReason | None] = []
    ended = threading.Event()

    async def answer_async(stream: Any) -> None:
        try:
            async for packet in stream:
                got.append(packet)
                await stream.send(packet)
        except SessionClosed as closed:
            got.append(closed.reason)
        ended.set()

    def answer(stream: Any) -> Any:
        if hasattr(stream, "__aiter__"):
            return answer_async(stream)
        try:
            for packet in stream:
                got.append(packet)
                stream.send(packet)
        except SessionClosed as closed:
            got.append(closed.reason)
        ended.set()
        return None

    function: Any = rig.stream_function(answer)
    server = rig.serve(function, READS_ALWAYS)
    peer = rig.peer(server)
    packets = burst(count)
    peer.send(b"".join(map(encode, packets)))
    until_received(peer)
    peer.reset()
    assert ended.wait(DEADLINE)
    expect_in_order(got, [*packets, CloseReason.RESET])


def test_a_client_gets_all_before_its_server_is_reset(rig: Rig) -> None:
    handler = Answering()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        rig.driver.connect(host, port, handler)
        peer = Peer(listener.accept()[0])
    packets = burst(600)
    peer.send(b"".join(map(encode, packets)))
    until_received(peer)
    peer.reset()
    assert handler.ended.wait(DEADLINE)
    expect_in_order(handler.heard, [*packets, CloseReason.RESET])


def test_peers_that_were_reset_before_they_were_accepted_are_sessions(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    names = reset_unaccepted(rig, server.address)
    assert handler.wait_reasons(CROWD) == [CloseReason.RESET] * CROWD
    assert len(handler.calls("connected")) == CROWD
    assert sorted(session.peer for session in handler.sessions) == sorted(names)
    delivered = {session.peer: handler.values("packet_received", session.id) for session in handler.sessions}
    assert delivered == {name: [Packet(at)] if at % 2 else [] for at, name in enumerate(names)}
    assert server.stats.closed == {CloseReason.RESET: CROWD}


def test_a_reply_to_a_peer_that_was_reset_before_it_was_accepted_is_nobodys_mistake(rig: Rig) -> None:
    handler = Recorder(
        connected=lambda session: session.send(Packet(0, b"welcome")),
        packet_received=lambda session, packet: session.send(packet),
    )
    server = rig.serve(handler)
    reset_unaccepted(rig, server.address)
    assert handler.wait_reasons(CROWD) == [CloseReason.RESET] * CROWD
    assert len(handler.calls("packet_received")) == CROWD // 2
    rig.until_empty(server)


def test_caps_for_each_host_see_peers_that_were_reset_before_they_were_accepted(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(max_sessions_per_host=2))
    staying = [rig.peer(server) for _ in range(2)]
    handler.wait("connected", 2)
    reset_unaccepted(rig, server.address)
    rig.until(lambda: server.stats.refused == CROWD, "every one was refused")
    assert server.stats.refusals == {Refusal.MAX_SESSIONS_PER_HOST: CROWD}
    assert len(handler.calls("connected")) == 2
    for peer in staying:
        peer.send(encode(Packet(1)))
    handler.wait("packet_received", 2)


def test_peers_that_were_reset_before_tls_began_are_counted(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    needs_tls(driver)
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    reset_unaccepted(rig, server.address)
    rig.until(lambda: server.stats.refused == CROWD, "every one was counted")
    assert server.stats.refusals == {Refusal.TLS_FAILED: CROWD}
    assert not handler.calls()


def needs_tls(driver: Driver) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")


def burst(count: int) -> list[Packet]:
    """Packets that are all different."""
    return [Packet(at, at.to_bytes(4, "big")) for at in range(count)]


def expect_in_order(heard: Sequence[object], expected: Sequence[object]) -> None:
    """Compare what was heard, and say first how much is missing."""
    assert len(heard) == len(expected), f"{len(expected) - len(heard)} of {len(expected)} were not told"
    assert heard[-1] is expected[-1]
    assert heard == expected


def unsent(peer: Peer) -> int:
    """Bytes that the other side's system has not acknowledged: what a reset may forget."""
    size = array.array("i", [0])
    fcntl.ioctl(peer.sock.fileno(), termios.TIOCOUTQ, size)
    return size[0]


def until_received(peer: Peer) -> None:
    """Wait until the other side's system has all that a peer sent."""
    deadline = time.monotonic() + DEADLINE
    while unsent(peer):
        assert time.monotonic() < deadline, f"{unsent(peer)} bytes are on their way still"
        time.sleep(0.001)


def reset_unaccepted(rig: Rig, address: Any) -> list[Any]:
    """While the runtime is held busy, connect and be reset, every second one after a packet.

    Returns:
        The peers' own addresses.
    """
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        assert done.wait(DEADLINE)

    holding = rig.in_background(hold)
    assert held.wait(DEADLINE)
    names = []
    try:
        for at in range(CROWD):
            peer = Peer.connect(address)
            names.append(peer.sock.getsockname())
            if at % 2:
                peer.send(encode(Packet(at)))
                until_received(peer)
            peer.reset()
    finally:
        done.set()
    holding()
    return names


def test_an_abort_is_a_reset_where_frames_still_wait_for_their_silence(rig: Rig) -> None:
    def answer_and_leave(session: Session, packet: Packet) -> None:
        for _ in range(3):
            session.send(packet)
        session.abort()

    server = rig.serve(Recorder(packet_received=answer_and_leave), Config(interframe_delay=5.0))
    peer = rig.peer(server)
    peer.send(encode(Packet(7)))
    with pytest.raises(ConnectionResetError):  # data was lost: no end in good order
        peer.receive_rest()
