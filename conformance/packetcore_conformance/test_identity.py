"""Identity.

Devices that come back over TCP, over UDP and from other ports, with one register for all.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from packetcore import (
    CloseReason,
    Config,
    IdentityTaken,
    Packet,
    ServerBase,
    Session,
    SessionClosed,
    SessionPool,
    encode,
)
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

pytestmark = pytest.mark.usefixtures("needs_udp")

BIND, BIND_IF_FREE = 1, 2
"""Types of packets: the payload is who the peer says it is."""


def introduce(session: Session, packet: Packet) -> None:
    """A handler's part: bind who introduces itself, and answer; close one whose name is taken."""
    if packet.type:
        try:
            session.bind(packet.payload, "replace" if packet.type == BIND else "reject")
        except IdentityTaken:
            session.close()
            return
    session.send(packet)


class Gateway:
    """A server on TCP and one on UDP with one handler and one register."""

    def __init__(self, rig: Rig, register: SessionPool[Session] | None = None, config: Config | None = None) -> None:
        self.rig = rig
        self.handler = Recorder(packet_received=introduce)
        self.sessions: SessionPool[Session] = SessionPool() if register is None else register
        self.tcp: ServerBase = rig.serve(self.handler, config, sessions=self.sessions)
        self.udp: ServerBase = rig.serve_udp(self.handler, config, sessions=self.sessions)

    def tcp_peer(self, name: bytes, type: int = BIND) -> Peer:
        """A device over TCP that has introduced itself."""
        return self.hello(self.rig.peer(self.tcp), name, type)

    def udp_peer(self, name: bytes, type: int = BIND) -> DatagramPeer:
        """A device over UDP that has introduced itself."""
        peer = self.rig.udp_peer(self.udp.address)
        frame = encode(Packet(1, name, type=type))
        peer.send(frame)
        assert peer.receive() == frame
        return peer

    def hello(self, peer: Peer, name: bytes, type: int = BIND) -> Peer:
        """Have a peer introduce itself."""
        frame = encode(Packet(1, name, type=type))
        peer.send(frame)
        assert peer.receive(len(frame)) == frame
        return peer

    def find(self, name: bytes) -> Session | None:
        """Who holds an identity."""
        found: Session | None = self.rig.call(self.sessions.find, name)
        return found

    def tell(self, name: bytes, packet: Packet) -> None:
        """Send to a device by its name."""
        session = self.find(name)
        assert session is not None
        self.rig.call(session.send, packet)


def test_a_device_that_changes_between_tcp_and_udp_takes_its_identity_along(rig: Rig) -> None:
    gateway = Gateway(rig)
    first = gateway.tcp_peer(b"device 7")
    second = gateway.udp_peer(b"device 7")
    assert first.receive_rest() == b""
    first.close()
    assert gateway.handler.wait_reasons() == [CloseReason.REPLACED]
    gateway.tell(b"device 7", Packet(9))
    assert second.receive() == encode(Packet(9))
    third = gateway.tcp_peer(b"device 7")
    assert gateway.handler.wait_reasons(2) == [CloseReason.REPLACED] * 2
    gateway.tell(b"device 7", Packet(10))
    assert third.receive(len(encode(Packet(10)))) == encode(Packet(10))
    assert [session.id for session in gateway.handler.sessions] == [1, 2, 3]
    assert rig.call(lambda: list(gateway.sessions)) == [gateway.handler.sessions[2]]


def test_an_impostor_is_rejected_on_either_way(rig: Rig) -> None:
    gateway = Gateway(rig)
    over_tcp, over_udp = gateway.tcp_peer(b"first"), gateway.udp_peer(b"second")
    impostor = rig.udp_peer(gateway.udp.address)
    impostor.send(encode(Packet(1, b"first", type=BIND_IF_FREE)))
    assert gateway.handler.wait_reasons() == [CloseReason.LOCAL]
    other = rig.peer(gateway.tcp)
    other.send(encode(Packet(1, b"second", type=BIND_IF_FREE)))
    assert other.receive_rest() == b""
    other.close()
    assert gateway.handler.wait_reasons(2) == [CloseReason.LOCAL] * 2
    gateway.tell(b"first", Packet(9))
    assert over_tcp.receive(len(encode(Packet(9)))) == encode(Packet(9))
    gateway.tell(b"second", Packet(10))
    assert over_udp.receive() == encode(Packet(10))


def test_a_device_that_comes_back_from_another_port_is_reached_there(rig: Rig) -> None:
    gateway = Gateway(rig)
    peers = [gateway.udp_peer(b"device 7") for _ in range(5)]
    gateway.tell(b"device 7", Packet(9))
    assert peers[-1].receive() == encode(Packet(9))
    assert gateway.handler.wait_reasons(4) == [CloseReason.REPLACED] * 4
    assert len(rig.sessions(gateway.udp, 1)) == 1
    for peer in peers[:-1]:  # nothing was sent to the ports where it is no more
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.receive()


def test_a_stale_id_finds_nothing_and_a_stale_session_reaches_nobody(rig: Rig) -> None:
    gateway = Gateway(rig)
    peer = gateway.udp_peer(b"device 7")
    stale = gateway.handler.sessions[0]
    rig.call(stale.close)
    gateway.handler.wait_reasons()
    peer.send(encode(Packet(2)))  # the same address, and another conversation
    assert peer.receive() == encode(Packet(2))
    assert gateway.find(b"device 7") is None
    assert rig.call(gateway.sessions.get, stale.id) is None
    assert gateway.handler.sessions[1].id == stale.id + 1
    with pytest.raises(SessionClosed):
        rig.call(stale.send, Packet(666))
    gateway.hello(rig.peer(gateway.tcp), b"device 8")
    assert gateway.handler.sessions[2].id == stale.id + 2
    peer.send(encode(Packet(3)))
    assert peer.receive() == encode(Packet(3))


def test_hundreds_of_reconnects_leave_exactly_the_live_sessions(rig: Rig) -> None:
    gateway = Gateway(rig)
    random = Random(5)
    names = [b"device %d" % at for at in range(20)]
    live: dict[bytes, Peer | DatagramPeer] = {}
    gone = 0

    def leave(peer: Peer) -> None:
        random.choice((peer.reset, peer.close, peer.finish))()

    for _ in range(400):
        name = random.choice(names)
        before = live.get(name)
        if isinstance(before, Peer) and random.random() < 0.5:
            leave(before)
        arrive: Callable[[bytes], Peer | DatagramPeer] = random.choice((gateway.tcp_peer, gateway.udp_peer))
        live[name] = arrive(name)
        gone += before is not None
        if isinstance(before, Peer):
            before.close()
    gateway.handler.wait_reasons(gone)
    rig.until(lambda: len(gateway.sessions) == len(live), "only the live sessions are left")
    for at, (name, peer) in enumerate(live.items()):
        frame = encode(Packet(at))
        gateway.tell(name, Packet(at))
        assert (peer.receive(len(frame)) if isinstance(peer, Peer) else peer.receive()) == frame
    assert len({session.id for session in gateway.handler.sessions}) == 400
    assert gateway.tcp.stats.sessions + gateway.udp.stats.sessions == len(live)


def test_the_caps_of_a_shared_register_hold_for_all_who_share_it(rig: Rig) -> None:
    gateway = Gateway(rig, SessionPool(max_sessions=3))
    gateway.tcp_peer(b"first")
    second = gateway.tcp_peer(b"second")
    gateway.udp_peer(b"third")
    rig.peer(gateway.tcp).wait_closed()
    stranger = rig.udp_peer(gateway.udp.address)
    stranger.send(encode(Packet(1)))
    rig.until(lambda: gateway.tcp.stats.refused == gateway.udp.stats.refused == 1, "one each was refused")
    second.close()
    gateway.handler.wait_reasons()
    stranger.send(encode(Packet(1)))
    assert stranger.receive() == encode(Packet(1))


def test_a_server_that_closes_leaves_the_sessions_of_the_other(rig: Rig) -> None:
    gateway = Gateway(rig)
    over_tcp, over_udp = gateway.tcp_peer(b"first"), gateway.udp_peer(b"second")
    rig.call(gateway.tcp.close, 0)
    over_tcp.wait_closed()
    assert gateway.handler.wait_reasons() == [CloseReason.SHUTDOWN]
    assert gateway.find(b"first") is None
    gateway.tell(b"second", Packet(9))
    assert over_udp.receive() == encode(Packet(9))
    assert len(rig.call(lambda: list(gateway.sessions))) == 1


def test_silence_ends_the_sessions_of_each_by_its_own_timeout(rig: Rig) -> None:
    register: SessionPool[Session] = SessionPool(0.2)
    gateway = Gateway(rig, register, Config(idle_timeout=0.2))
    gateway.tcp_peer(b"first")
    gateway.udp_peer(b"second")
    assert gateway.handler.wait_reasons(2) == [CloseReason.IDLE_TIMEOUT] * 2
    rig.until(lambda: len(register) == 0, "the register is empty")
