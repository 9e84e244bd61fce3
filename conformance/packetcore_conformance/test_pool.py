"""Pool.

A server's register of sessions: insert, find, refresh, expire, caps and identities.
"""

from __future__ import annotations

import pytest

from packetcore import CloseReason, Config, IdentityTaken, LocalProtocolError, Packet, Session, encode
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


def test_a_connection_is_inserted_found_counted_and_removed(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    assert session is handler.sessions[0]
    assert session.peer[:2] == peer.sock.getsockname()[:2]
    assert rig.call(server.sessions.get, session.id) is session
    peer.close()
    rig.until_empty(server)
    assert rig.call(server.sessions.get, session.id) is None


def test_ids_count_up_and_a_stale_one_finds_nothing(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    for at in range(1, 6):
        rig.peer(server).close()
        handler.wait_reasons(at)
    assert [session.id for session in handler.sessions] == [1, 2, 3, 4, 5]
    rig.peer(server)
    rig.sessions(server, 1)
    assert all(rig.call(server.sessions.get, id) is None for id in range(1, 6))
    with pytest.raises(LocalProtocolError):
        rig.call(handler.sessions[0].send, Packet(1))


def test_what_comes_refreshes_a_session(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    first, second = rig.peer(server), rig.peer(server)
    sessions = rig.sessions(server, 2)
    assert rig.call(server.sessions.oldest) is sessions[0]
    oldest = first if sessions[0].peer[1] == first.sock.getsockname()[1] else second
    oldest.send(PING)
    assert oldest.receive(len(PING)) == PING
    assert rig.call(server.sessions.oldest) is sessions[1]


def test_sessions_over_the_cap_are_refused_and_counted(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(max_sessions=2))
    first = rig.peer(server)
    rig.peer(server)
    rig.sessions(server, 2)
    for _ in range(3):
        rig.peer(server).wait_closed()
    rig.until(lambda: server.stats.refused == 3, "three were refused")
    assert len(handler.calls("connected")) == 2
    first.close()
    handler.wait_reasons(1)
    rig.peer(server)
    handler.wait("connected", 3)


def test_one_host_cannot_take_every_place(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(max_sessions=10, max_sessions_per_host=2))
    rig.peer(server)
    rig.peer(server)
    rig.sessions(server, 2)
    rig.peer(server).wait_closed()
    rig.until(lambda: server.stats.refused == 1, "the third was refused")


def bind(session: Session, packet: Packet) -> None:
    """A handler whose peers say in a packet who they are."""
    try:
        session.bind(packet.payload, "reject" if packet.type else "replace")
    except IdentityTaken:
        session.close()
    else:
        session.send(packet)


def test_a_device_that_comes_back_takes_its_identity_over(rig: Rig) -> None:
    handler = Recorder(packet_received=bind)
    server = rig.serve(handler)
    hello = encode(Packet(1, b"device 7"))
    old = rig.peer(server)
    old.send(hello)
    assert old.receive(len(hello)) == hello
    new = rig.peer(server)
    new.send(hello)
    assert new.receive(len(hello)) == hello
    assert old.receive_rest() == b""
    old.close()
    assert handler.wait_reasons() == [CloseReason.REPLACED]
    assert rig.call(server.sessions.find, b"device 7") is handler.sessions[1]
    rig.sessions(server, 1)


def test_a_second_holder_of_an_identity_can_be_rejected(rig: Rig) -> None:
    handler = Recorder(packet_received=bind)
    server = rig.serve(handler)
    hello = encode(Packet(1, b"device 7", type=1))
    first = rig.peer(server)
    first.send(hello)
    assert first.receive(len(hello)) == hello
    second = rig.peer(server)
    second.send(hello)
    assert second.receive_rest() == b""
    assert rig.call(server.sessions.find, b"device 7") is handler.sessions[0]
    first.close()
    rig.until(lambda: server.sessions.find(b"device 7") is None, "the identity is free again")
