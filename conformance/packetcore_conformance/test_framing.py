"""Framing.

Packets out of bytes and bytes out of packets, wherever the bytes are cut.
"""

from __future__ import annotations

import pytest

from packetcore import CloseReason, Config, Malformed, Packet, Reason, encode
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.vectors import PACKETS, STREAM

GOOD = Packet(7, b"\xfd\x01\xfe good", type=2)

BROKEN = {
    Reason.BAD_ESCAPE: b"\xfe\x00\x01\xfd\x05\xfe",
    Reason.TOO_SHORT: b"\xfe\x00\x01\x02\xfe",
    Reason.LENGTH_MISMATCH: b"\xfe\x00\x01\x00\x00\x01\x00\x00\x00\x05only\xfe",
    Reason.TOO_LONG: b"\xfe\x00\x01\x00\x00\x01\x00\x20\x00\x00 more than announced \xfe",
}


def test_the_golden_frames_are_received(rig: Rig) -> None:
    handler = Recorder()
    rig.peer(rig.serve(handler)).send(STREAM)
    assert handler.wait("packet_received", len(PACKETS)) == PACKETS


def test_the_golden_frames_are_sent(rig: Rig) -> None:
    def send_all(session: object) -> None:
        for packet in PACKETS:
            handler.sessions[0].send(packet)

    handler = Recorder(connected=send_all)
    assert rig.peer(rig.serve(handler)).receive(len(STREAM)) == STREAM


def test_the_golden_frames_come_back_byte_for_byte_when_sent_one_byte_at_a_time(rig: Rig) -> None:
    peer = rig.peer(rig.serve(echo()))
    for at in range(4000):  # the shorter vectors, and the beginning of a long one
        peer.send(STREAM[at : at + 1])
    peer.send(STREAM[4000:])
    assert peer.receive(len(STREAM)) == STREAM


def test_packets_stuck_together_are_told_apart(rig: Rig) -> None:
    handler = Recorder()
    packets = [Packet(at, bytes([at & 0xFF]) * (at % 50)) for at in range(2000)]
    rig.peer(rig.serve(handler)).send(b"".join(map(encode, packets)))
    assert handler.wait("packet_received", len(packets)) == packets


def test_a_frame_cut_at_any_byte_is_put_together(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    peer = rig.peer(server)
    (session,) = rig.sessions(server, 1)
    frame = encode(GOOD)
    for at in range(1, len(frame)):
        fed = (at - 1) * len(frame)
        peer.send(frame[:at])
        rig.until_received(session, fed + at)
        peer.send(frame[at:])
        assert handler.wait("packet_received", at) == [GOOD] * at


def test_noise_before_the_first_flag_is_reported_and_skipped(rig: Rig) -> None:
    handler = Recorder()
    rig.peer(rig.serve(handler)).send(b"GET / HTTP/1.1\r\n\r\n" + encode(GOOD))
    assert handler.wait("packet_received") == [GOOD]
    assert handler.values("malformed") == [Malformed(Reason.NOISE, 18, b"GET / HTTP/1.1\r\n\r\n")]


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_frame_is_named_and_the_next_one_delivered(rig: Rig, reason: Reason) -> None:
    handler = Recorder()
    server = rig.serve(handler)
    rig.peer(server).send(encode(GOOD) + BROKEN[reason] + encode(GOOD))
    assert handler.wait("packet_received", 2) == [GOOD, GOOD]
    found = handler.values("malformed")
    assert isinstance(found[0], Malformed)
    assert found[0].reason is reason
    (session,) = rig.sessions(server, 1)
    assert session.stats.malformed[reason] == 1


def test_a_frame_that_the_stream_ends_in_is_truncated(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler))
    peer.send(encode(GOOD) + encode(GOOD)[:-1])
    peer.finish()
    assert handler.wait_reasons() == [CloseReason.PEER]
    assert handler.values("packet_received") == [GOOD]
    assert handler.values("malformed") == [Malformed.of(Reason.TRUNCATED, encode(GOOD)[1:-1])]


def test_a_malformed_frame_ends_the_session_where_the_config_says_so(rig: Rig) -> None:
    handler = echo()
    peer = rig.peer(rig.serve(handler, Config(on_malformed="close")))
    peer.send(encode(GOOD) + BROKEN[Reason.TOO_SHORT] + encode(GOOD))
    assert peer.receive(len(encode(GOOD))) == encode(GOOD)
    peer.wait_closed()
    peer.close()
    assert handler.wait_reasons() == [CloseReason.PROTOCOL_ERROR]
    assert handler.values("packet_received") == [GOOD]


@pytest.mark.parametrize("filler", [b"\x00", b"\xfd"], ids=["plain", "escaped"])
def test_a_payload_of_the_largest_size_goes_both_ways(rig: Rig, filler: bytes) -> None:
    packet = Packet(1, filler * Config().max_payload)
    peer = rig.peer(rig.serve(echo()))
    frame = encode(packet)
    peer.send(frame)
    assert peer.receive(len(frame)) == frame


def test_a_payload_over_the_limit_is_refused_and_the_next_packet_delivered(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(max_payload=100))
    rig.peer(server).send(encode(Packet(1, bytes(101))) + encode(GOOD))
    assert handler.wait("packet_received") == [GOOD]
    found = handler.values("malformed")
    assert [item.reason for item in found if isinstance(item, Malformed)] == [Reason.TOO_LONG, Reason.NOISE]


def test_replies_keep_the_order_of_requests_over_many_chunks(rig: Rig) -> None:
    packets = [Packet(at & 0xFFFF, at.to_bytes(4, "big") * (at % 40)) for at in range(20_000)]
    wire = b"".join(map(encode, packets))
    peer = rig.peer(rig.serve(echo()))
    got = bytearray()
    for at in range(0, len(wire), 100_000):
        peer.send(wire[at : at + 100_000])
        got += peer.receive(len(wire[at : at + 100_000]) // 2)  # keep the pipe half full
    got += peer.receive(len(wire) - len(got))
    assert bytes(got) == wire
