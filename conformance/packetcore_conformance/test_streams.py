"""Streams.

The adapter's own `Stream`, in its tasks, greenlets, threads or Deferreds.
"""

from __future__ import annotations

import socket

import pytest

from packetcore import CloseReason, Config, LocalProtocolError, Message, Packet, SessionClosed, encode
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.vectors import PACKETS


def test_a_stream_gets_back_what_it_sends(rig: Rig) -> None:
    stream = rig.stream(rig.serve())
    for packet in PACKETS:
        rig.call(stream.send, packet)
    assert [rig.call(stream.recv) for _ in PACKETS] == PACKETS
    rig.call(stream.close)
    assert stream.close_reason is CloseReason.LOCAL


def test_senders_at_once_never_mix_frames_and_keep_their_own_order(rig: Rig) -> None:
    handler = Recorder()
    stream = rig.stream(rig.serve(handler))

    def send(id: int) -> None:
        for at in range(40):
            rig.call(stream.send, Packet(id, at.to_bytes(2, "big") * 2000))

    waits = [rig.in_thread(send, id) for id in range(8)]
    for wait in waits:
        wait()
    got = [packet for packet in handler.wait("packet_received", 8 * 40) if isinstance(packet, Packet)]
    for id in range(8):
        assert [int.from_bytes(packet.payload[:2], "big") for packet in got if packet.id == id] == list(range(40))


def test_a_receiver_is_told_why_there_is_no_more(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.close())
    stream = rig.stream(rig.serve(handler))
    rig.call(stream.send, Packet(1))
    with pytest.raises(SessionClosed) as raised:
        rig.call(stream.recv)
    assert raised.value.reason is CloseReason.PEER
    rig.call(stream.close)
    with pytest.raises(SessionClosed):
        rig.call(stream.send, Packet(1))


def test_a_receiver_is_told_of_a_reset(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        stream = rig.driver.connect(host, port)
        peer = Peer(listener.accept()[0])
    rig.call(stream.send, Packet(1))
    assert peer.receive(len(encode(Packet(1)))) == encode(Packet(1))
    peer.reset()
    with pytest.raises(SessionClosed) as raised:
        rig.call(stream.recv)
    assert raised.value.reason is CloseReason.RESET


def test_a_receive_that_is_given_up_loses_no_packet(rig: Rig) -> None:
    handler = echo()
    stream = rig.stream(rig.serve(handler))
    for at in range(10):
        with pytest.raises(TimeoutError):
            rig.call(stream.recv, timeout=0.02)
        rig.call(stream.send, Packet(at))
        assert rig.call(stream.recv) == Packet(at)


def test_a_sender_waits_for_a_peer_that_does_not_read(rig: Rig) -> None:
    handler = Recorder(connected=lambda session: session.pause())
    stream = rig.stream(rig.serve(handler))
    total = 300

    def push() -> None:
        for _ in range(total):
            rig.call(stream.send, Packet(1, bytes(100_000)))

    wait = rig.in_thread(push)
    rig.until(lambda: stream.session.write_paused, "the sender waits")
    assert rig.call(lambda: stream.session.outstanding) < 1_000_000
    assert stream.session.stats.packets_sent < total
    rig.call(handler.sessions[0].resume)
    wait()
    assert len(handler.wait("packet_received", total)) == total


def test_a_slow_receiver_stops_a_fast_sender(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(max_outstanding=None))
    stream = rig.stream(server)
    handler.wait("connected")
    for _ in range(400):
        rig.call(handler.sessions[0].send, Packet(1, bytes(100_000)))
    rig.until(lambda: handler.sessions[0].write_paused, "the sender's buffer fills")
    assert stream.session.stats.packets_received < 200
    for _ in range(400):
        assert len(rig.call(stream.recv).payload) == 100_000


def test_messages_pass_through_streams(rig: Rig) -> None:
    config = Config(join_messages=True)
    stream = rig.stream(rig.serve(config=config), config)
    rig.call(lambda: stream.send_message(b"\xfe" * 50_000, id=3, chunk=1000))
    assert rig.call(stream.recv) == Message(3, b"\xfe" * 50_000)


def test_a_payload_over_the_limit_is_refused_and_changes_nothing(rig: Rig) -> None:
    config = Config(max_payload=100)
    stream = rig.stream(rig.serve(config=config), config)
    with pytest.raises(LocalProtocolError, match="payload of 101 bytes exceeds max_payload=100"):
        rig.call(stream.send, Packet(1, bytes(101)))
    rig.call(stream.send, Packet(1, bytes(100)))
    assert rig.call(stream.recv) == Packet(1, bytes(100))


def test_a_client_with_a_handler_hears_the_same_as_a_server(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(echo())
    session = rig.connect(server, handler)
    for packet in PACKETS:
        rig.call(session.send, packet)
    assert handler.wait("packet_received", len(PACKETS)) == PACKETS
    rig.call(session.close)
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    rig.until_empty(server)
    assert server.stats.closed == {CloseReason.PEER: 1}
