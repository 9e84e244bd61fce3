"""Attackers.

Peers that want to wear a server down, and an honest one beside them that is to notice nothing.
"""

from __future__ import annotations

import re
import sys
import threading
import time

import pytest

from packetcore import CloseReason, Config, Driver, Malformed, Packet, Reason, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.server_process import ServerProcess

PING = encode(Packet(1, b"ping"))


def assert_served(peer: Peer) -> None:
    """See that a peer's packet comes back."""
    peer.send(PING)
    assert peer.receive(len(PING)) == PING


def test_frames_that_trickle_in_on_many_connections_are_all_cut_off(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(frame_timeout=0.4, idle_timeout=DEADLINE))
    honest = rig.peer(server)
    assert_served(honest)
    tricklers = [rig.peer(server) for _ in range(50)]
    deadline = time.monotonic() + DEADLINE
    byte = b"\xfe"
    while len(handler.calls("disconnected")) < 50:
        assert time.monotonic() < deadline
        for peer in tricklers:
            try:
                peer.send(byte)
            except ConnectionError:
                continue
        byte = b"\x00"
        assert_served(honest)
    assert handler.wait_reasons(50) == [CloseReason.FRAME_TIMEOUT] * 50
    assert_served(honest)


def test_silent_connections_are_closed_and_an_honest_one_stays(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(idle_timeout=1.0))
    honest = rig.peer(server)
    for _ in range(100):
        rig.peer(server)
        assert_served(honest)
    deadline = time.monotonic() + DEADLINE
    while len(handler.calls("disconnected")) < 100:
        assert time.monotonic() < deadline
        assert_served(honest)
    assert handler.wait_reasons(100) == [CloseReason.IDLE_TIMEOUT] * 100
    assert_served(honest)


def test_two_hundred_resets_at_once_leave_nothing_behind(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    honest = rig.peer(server)
    peers = [rig.peer(server) for _ in range(100)]
    handler.wait("connected", 101)
    for peer in peers:
        peer.send(PING[:-3])
        peer.reset()
    for _ in range(100):
        rig.peer(server).reset()  # most of them before they are accepted
    assert_served(honest)
    rig.sessions(server, 1)
    honest.close()
    rig.until_empty(server)
    opened = len(handler.calls("connected"))
    assert len(handler.wait_reasons(opened)) == opened == server.stats.opened
    assert handler.wait_reasons().count(CloseReason.RESET) >= 100
    assert server.stats.sessions == 0


def test_a_frame_that_announces_gigabytes_is_refused_before_it_comes(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    honest, liar = rig.peer(server), rig.peer(server)
    header = b"\xfe\x00\x01\x00\x00\x01\xff\xff\xff\xff"
    liar.send(header)
    (found,) = handler.wait("malformed")
    assert found == Malformed.of(Reason.TOO_LONG, header[1:])
    for _ in range(20):
        liar.send(bytes(1_000_000))
        assert_served(honest)
    assert_served(liar)
    assert [item.reason for item in handler.values("malformed") if isinstance(item, Malformed)] == [
        Reason.TOO_LONG,
        Reason.NOISE,
    ]


def test_a_flood_of_connections_is_turned_away_and_counted(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(max_sessions=10))
    admitted = [rig.peer(server) for _ in range(10)]
    rig.sessions(server, 10)
    for _ in range(200):
        rig.peer(server).wait_closed()
    for peer in admitted:
        assert_served(peer)
    stats = server.stats
    assert (stats.opened, stats.refused, stats.closed) == (10, 200, {})
    assert len(handler.calls("connected")) == 10
    assert not handler.calls("disconnected")
    admitted[0].close()
    handler.wait_reasons()
    assert_served(rig.peer(server))


def test_a_client_that_is_turned_away_is_told_so_by_its_end(rig: Rig) -> None:
    server = rig.serve(echo(), Config(max_sessions=1))
    rig.peer(server)
    rig.sessions(server, 1)
    client = Recorder()
    rig.connect(server, client)
    assert client.wait_reasons()[0] in (CloseReason.PEER, CloseReason.RESET)


def test_handshakes_that_never_end_hold_up_nobody(rig: Rig, driver: Driver, certificates: Certificates) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    handler = echo()
    server = rig.serve(handler, Config(connect_timeout=1), tls=certificates.server)
    silent = [rig.peer(server) for _ in range(20)]
    for peer in silent[10:]:
        peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01")  # the beginning of a ClientHello
    honest = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    assert_served(honest)
    for peer in silent:
        peer.wait_closed()
    assert_served(honest)
    assert len(handler.calls("connected")) == 1
    assert server.stats.opened == 1


def test_a_server_closes_without_waiting_for_a_handshake(rig: Rig, driver: Driver, certificates: Certificates) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    server = rig.serve(echo(), Config(connect_timeout=60), tls=certificates.server)
    silent = rig.peer(server)
    assert_served(rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME))
    rig.call(server.close, 0)
    silent.wait_closed()


@pytest.mark.skipif(sys.platform == "win32", reason="the system sets no limit on descriptors")
def test_a_server_out_of_descriptors_waits_for_some_and_says_so_once(transport: str) -> None:
    with ServerProcess(transport, descriptors=20) as server:
        peers = [Peer.connect(server.address) for _ in range(35)]
        served: list[Peer] = []
        some = threading.Condition()

        def talk(peer: Peer) -> None:
            peer.send(PING)
            if peer.receive(len(PING)) == PING:
                with some:
                    served.append(peer)
                    some.notify_all()

        threads = [threading.Thread(target=talk, args=(peer,), daemon=True) for peer in peers]
        try:
            for thread in threads:
                thread.start()
            with some:
                assert some.wait_for(lambda: len(served) >= 10, DEADLINE)
            time.sleep(1.5)  # time to spin in
            with some:
                first = len(served)
                assert first < 35
                for peer in served:
                    peer.close()
                assert some.wait_for(lambda: len(served) == 35, DEADLINE), f"{len(served)} of 35 were served"
        finally:
            for peer in peers:
                peer.close()
        for thread in threads:
            thread.join(DEADLINE)
        listened, worked, log = server.finish()
    assert worked < listened / 3
    assert len(re.findall(r"accepting .* failed", log)) == 1, log
    assert len(re.findall(r"accepting .* again$", log, re.MULTILINE)) == 1, log
    assert "Traceback" not in log
