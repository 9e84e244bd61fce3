"""What clients and servers of each adapter make of a network that misbehaves, and a fault of old that it brings to
light."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from packetcore import Backoff, CloseReason, Config, Driver, Packet, Reason, Session, encode, load_driver
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.tls_peer import TLSPeer
from packetcore_sockets import StreamSocket
from packetcore_tap import Fault, Impairments, Tap

PING = Packet(1, b"ping")
WHOLE = Packet(2, bytes(1_000_000))


@pytest.fixture(scope="module", params=["asyncio", "blocking", "gevent", "twisted"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def driver(transport: str) -> Iterator[Driver]:
    driver = load_driver(transport)
    yield driver
    driver.stop()


def connect(rig: Rig, tap: Any, handler: Recorder, **options: Any) -> Session:
    """A client by way of the tap, which has an address as a server has."""
    return rig.connect(tap, handler, **options)


def is_echoed(rig: Rig, session: Session, handler: Recorder, count: int) -> bool:
    """Whether the next packet comes back, as number `count`."""
    rig.call(session.send, PING)
    return handler.wait("packet_received", count)[count - 1] == PING


@pytest.mark.parametrize(
    ("impairments", "least"),
    [
        (Impairments(latency=0.05), 0.1),
        (Impairments(bandwidth=300), 0.1),
        (Impairments(cut=1, gap=0.004), 0.1),
        (Impairments(merge=0.05), 0.1),
    ],
    ids=["latency", "bandwidth", "cut", "merge"],
)
def test_a_packet_takes_longer_and_arrives_whole(rig: Rig, impairments: Impairments, least: float) -> None:
    server, handler = rig.serve(echo()), Recorder()
    with Tap(server.address, to_server=impairments, to_client=impairments) as tap:
        session = connect(rig, tap, handler)
        began = time.monotonic()
        assert is_echoed(rig, session, handler, 1)
        assert time.monotonic() - began >= least
        assert [seen.event for seen in tap.seen] == [PING, PING]


def test_corrupted_bytes_cost_the_frames_that_they_touch(rig: Rig) -> None:
    heard = echo()
    server, handler = rig.serve(heard), Recorder()
    with Tap(server.address, to_server=Impairments(corrupt=0.002), seed=3) as tap:
        session = connect(rig, tap, handler)
        for number in range(500):
            rig.call(session.send, Packet(number, b"\0" * 8))
        tap.to_server = Impairments()
        rig.call(session.send, Packet(999))
        rig.until(lambda: Packet(999) in heard.values("packet_received"), "the last packet has arrived")
        arrived = len(heard.values("packet_received"))
        assert heard.values("malformed")
        assert 300 < arrived < 501
        assert tap.passed("to_server").packets == arrived


def test_a_frame_that_is_never_finished_is_timed_out(rig: Rig) -> None:
    heard = Recorder()
    server = rig.serve(heard, Config(frame_timeout=0.1))
    with Tap(server.address, faults=[Fault("stall", after_bytes=7, direction="to_server")]) as tap:
        session = connect(rig, tap, Recorder())
        rig.call(session.send, PING)
        assert heard.wait_reasons() == [CloseReason.FRAME_TIMEOUT]


def test_a_frame_that_is_cut_off_by_the_end_is_truncated(rig: Rig) -> None:
    heard = Recorder()
    server = rig.serve(heard)
    with Tap(server.address, faults=[Fault("close", after_bytes=7, direction="to_server")]) as tap:
        handler = Recorder()
        session = connect(rig, tap, handler)
        rig.call(session.send, PING)
        assert heard.wait_reasons() == handler.wait_reasons() == [CloseReason.PEER]
        (malformed,) = heard.values("malformed")
        assert getattr(malformed, "reason", None) is Reason.TRUNCATED


def test_both_hear_of_a_reset(rig: Rig) -> None:
    heard, handler = echo(), Recorder()
    server = rig.serve(heard)
    with Tap(server.address) as tap:
        session = connect(rig, tap, handler)
        assert is_echoed(rig, session, handler, 1)
        tap.reset()
        assert heard.wait_reasons() == handler.wait_reasons() == [CloseReason.RESET]


def test_both_find_a_black_hole_by_its_silence(rig: Rig) -> None:
    heard, handler, impatient = echo(), Recorder(), Config(idle_timeout=0.2)
    server = rig.serve(heard, impatient)
    with Tap(server.address) as tap:
        session = connect(rig, tap, handler, config=impatient)
        assert is_echoed(rig, session, handler, 1)
        tap.black_hole()
        rig.call(session.send, PING)
        assert heard.wait_reasons() == handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
        assert heard.values("packet_received") == [PING]


def test_who_is_not_read_becomes_a_slow_consumer(rig: Rig) -> None:
    heard = Recorder(packet_received=lambda session, packet: [session.send(WHOLE) for _ in range(20)])
    server = rig.serve(heard, Config(max_outstanding=2_000_000))
    with Tap(server.address) as tap:
        session = connect(rig, tap, Recorder())
        tap.stall("to_client")
        rig.call(session.send, PING)
        assert heard.wait_reasons() == [CloseReason.SLOW_CONSUMER]


def test_a_client_comes_back_when_the_server_is_there_again(rig: Rig) -> None:
    heard, handler = echo(), Recorder()
    server = rig.serve(heard)
    with Tap(server.address) as tap:
        client = rig.client(tap.address, handler, Backoff(initial=0.02, maximum=0.05), keep=10)
        handler.wait("connected")
        rig.call(client.send, PING)
        handler.wait("packet_received")
        tap.refuse()
        tap.reset()
        assert handler.wait_reasons() == [CloseReason.RESET]
        rig.call(client.send, PING)
        tap.accept()
        assert handler.wait("packet_received", 2) == [PING, PING]
        assert tap.opened == 2


def test_datagrams_get_lost_and_come_twice(rig: Rig) -> None:
    heard = Recorder()
    server = rig.serve_udp(heard)
    with Tap(server.address, udp=True, to_server=Impairments(loss=0.2, duplication=0.2), seed=5) as tap:
        session = rig.connect_udp(tap.address, Recorder())
        for number in range(200):
            rig.call(session.send, Packet(number))
        tap.wait_for(lambda: tap.connections and tap.passed("to_server").packets > 150)
        tap.to_server = Impairments()
        rig.call(session.send, Packet(999))
        rig.until(lambda: Packet(999) in heard.values("packet_received"), "the last packet has arrived")
        arrived = heard.values("packet_received")
        assert len(set(arrived)) < min(201, len(arrived))


def test_a_device_behind_a_nat_that_forgets_is_a_new_session(rig: Rig) -> None:
    heard, handler = echo(), Recorder()
    server = rig.serve_udp(heard)
    with Tap(server.address, udp=True) as tap:
        session = rig.connect_udp(tap.address, handler)
        for count in (1, 2):
            assert is_echoed(rig, session, handler, count)
            tap.reset()
        assert [each.session for each in heard.calls("packet_received")] == [1, 2]


def test_tls_passes_and_is_told_apart(rig: Rig, certificates: Certificates) -> None:
    server, handler = rig.serve(echo(), tls=certificates.server), Recorder()
    impairments = Impairments(latency=0.01, cut=1000)
    with Tap(server.address, to_server=impairments, to_client=impairments) as tap:
        session = connect(rig, tap, handler, tls=certificates.client)
        assert is_echoed(rig, session, handler, 1)
        assert [each.is_encrypted for each in tap.connections] == [True]
        assert tap.seen == []
        rig.call(session.close)
        assert handler.wait_reasons() == [CloseReason.LOCAL]


@pytest.mark.parametrize("is_planted", [False, True], ids=["as it is", "with the fault"])
@pytest.mark.parametrize("name", ["blocking", "gevent"])
def test_bytes_lost_at_the_end_of_tls_are_found_by_a_line_that_stalls(
    name: str, is_planted: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a session that closed did not wait for its peer: what came after that had the system reset the
    connection, and forget as much of the reply as was still to go."""
    if is_planted:
        monkeypatch.setattr(StreamSocket, "write_eof", StreamSocket.close)

    def reply_and_close(session: Session, packet: object) -> None:
        session.send(WHOLE)
        session.close()

    handler = Recorder(packet_received=reply_and_close)
    second_record, reply_begun = 20_000, 100_000
    faults = [Fault("stall", second_record, direction="to_server"), Fault("stall", reply_begun, direction="to_client")]
    with ExitStack() as opened:
        driver = load_driver(name)
        opened.callback(driver.stop)
        rig = Rig(driver)
        opened.callback(rig.close)
        server = rig.serve(handler, tls=certificates.server)
        tap = opened.enter_context(Tap(server.address, to_client=Impairments(buffer=10_000), faults=faults))
        sock = opened.enter_context(socket.create_connection(tap.address, timeout=DEADLINE))
        client = TLSPeer(sock, certificates.raw_context(), SERVER_NAME)
        client.send(encode(PING) + encode(Packet(3, bytes(30_000))))
        tap.wait_for(lambda: tap.passed("to_client").bytes == reply_begun)
        tap.resume("to_server")
        tap.wait_for(lambda: tap.passed("to_server").bytes > 30_000)
        tap.resume("to_client")
        if is_planted:
            with pytest.raises(ConnectionError):
                client.receive_rest()
        else:
            assert client.receive_rest() == encode(WHOLE)
