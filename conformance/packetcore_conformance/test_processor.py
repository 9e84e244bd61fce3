"""The processor.

An idle session costs none: a reader is off after the end of the stream, a writer once nothing waits.
"""

from __future__ import annotations

import ssl
import time
from typing import Any

import pytest

from packetcore import Config, Driver, Packet, Session, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig
from packetcore_conformance.tls_peer import TLSPeer

WINDOW = 0.4
"""Seconds in which nothing happens."""

BUSY = 0.1
"""The part of them that a loop without end takes at the least, on a machine that is busy with
much else too; one that waits takes a hundredth."""

PATIENT = Config(idle_timeout=None, close_timeout=None)


def expect_idle(what: str) -> None:
    """See that this process, all its threads together, has nothing to do."""
    for _ in range(3):  # what others have left to do may disturb one look
        began = time.process_time()
        time.sleep(WINDOW)
        share = (time.process_time() - began) / WINDOW
        if share < BUSY:
            return
    raise AssertionError(f"{what}: the loop is busy for {share:.0%} of the time while nothing happens")


def test_a_peer_that_has_finished_sending_costs_nothing_while_its_session_lives_on(rig: Rig) -> None:
    handler = Recorder(eof_received=lambda session: None)
    server = rig.serve(handler, PATIENT)
    peer = rig.peer(server)
    peer.finish()
    handler.wait("eof_received")
    (session,) = rig.sessions(server, 1)
    expect_idle("a reader was left on after the end of the stream")
    rig.call(session.pause)
    rig.call(session.resume)
    expect_idle("a reader was resumed after the end of the stream")


def test_over_tls_it_costs_nothing_either(rig: Rig, driver: Driver, certificates: Certificates) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    handler = Recorder(eof_received=lambda session: None)
    server = rig.serve(handler, PATIENT, tls=certificates.server)
    raw = rig.peer(server)
    peer: Any = TLSPeer(raw.sock, certificates.raw_context(), SERVER_NAME)
    peer.finish()
    handler.wait("eof_received")
    expect_idle("a reader over TLS was left on after the end of the stream")


def test_a_handshake_that_the_peer_does_not_go_on_with_costs_nothing(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    server = rig.serve(Recorder(), Config(connect_timeout=60), tls=certificates.server)
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        certificates.raw_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname=SERVER_NAME).do_handshake()
    peer = rig.peer(server)
    peer.send(hello.read())
    peer.receive(1)
    expect_idle("a handshake that waits for the peer is busy")


def test_a_session_whose_backlog_has_drained_costs_nothing(rig: Rig) -> None:
    frame = encode(Packet(1, bytes(1_000_000)))

    def flood(session: Session) -> None:
        for _ in range(8):
            session.send(Packet(1, bytes(1_000_000)))

    handler = Recorder(connected=flood)
    server = rig.serve(handler, PATIENT)
    peer = rig.peer(server, receive_buffer=64 * 1024)
    for _ in range(8):
        assert peer.receive(len(frame)) == frame
    (session,) = rig.sessions(server, 1)
    rig.until(lambda: session.outstanding == 0, "the backlog is gone")
    expect_idle("a writer was not switched off")


def test_a_session_that_waits_for_its_peer_to_close_costs_nothing(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.close())
    peer = rig.peer(rig.serve(handler, PATIENT))
    peer.send(encode(Packet(1)))
    assert peer.receive_rest() == b""
    expect_idle("a session that waits for its peer's end is busy")
    peer.close()
    handler.wait("disconnected")
