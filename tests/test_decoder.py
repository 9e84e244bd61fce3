"""The codec by example: one frame at a time, and each thing that can be wrong with it."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Decoder, Malformed, MalformedFrame, Packet, Reason, decode, encode
from packetcore_conformance.strategies import corrupted, frames, malformed_frames, packets

pytestmark = pytest.mark.usefixtures("codec")

README_PACKET = Packet(16, bytes.fromhex("010304fe01fd02"))
README_FRAME = bytes.fromhex("fe001000000100000007010304fd0101fd0202fe")


def frame(hexadecimal: str) -> bytes:
    return b"\xfe" + bytes.fromhex(hexadecimal) + b"\xfe"


def test_the_example_of_the_format() -> None:
    assert encode(README_PACKET) == README_FRAME
    assert decode(README_FRAME) == README_PACKET


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_can_be_decoded_and_fed(kind: type) -> None:
    assert decode(kind(README_FRAME)) == README_PACKET
    events = Decoder().feed(kind(README_FRAME))
    assert events == [README_PACKET]
    assert isinstance(events[0], Packet)
    assert type(events[0].payload) is bytes


def test_a_buffer_may_be_reused_after_it_was_fed() -> None:
    decoder = Decoder()
    buffer = bytearray(README_FRAME[:12])
    decoder.feed(buffer)
    buffer[:] = bytes(12)
    assert decoder.feed(README_FRAME[12:]) == [README_PACKET]


@given(packets())
def test_decode_is_the_inverse_of_encode(packet: Packet) -> None:
    again = decode(encode(packet))
    assert again == packet
    assert type(again) is Packet


@pytest.mark.parametrize(
    ("data", "reason", "message"),
    [
        (b"", Reason.TRUNCATED, "no closing FE in 0 bytes"),
        (b"\xfe", Reason.TRUNCATED, "no closing FE in 1 bytes"),
        (README_FRAME[:-1], Reason.TRUNCATED, "no closing FE in 19 bytes"),
        (b"\xfe\xfe", Reason.TOO_SHORT, "nothing between the two flags"),
        (frame("0010000001000000"), Reason.TOO_SHORT, r"header \(8 bytes between flags\)"),
        (frame("00100000010000000001"), Reason.LENGTH_MISMATCH, r"payload \(10 bytes between flags\)"),
        (frame("001000000100000001"), Reason.LENGTH_MISMATCH, "length field"),
        (frame("001000000100000001fd"), Reason.BAD_ESCAPE, "escape byte"),
        (frame("001000000100000001fd03"), Reason.BAD_ESCAPE, "escape byte"),
        (frame("fdfd0010000001000000"), Reason.BAD_ESCAPE, "escape byte"),
        (README_FRAME[1:], Reason.NOISE, "a frame begins with FE, not 00"),
        (b"\x00" + README_FRAME, Reason.NOISE, "a frame begins with FE, not 00"),
        (README_FRAME + b"\x00", Reason.NOISE, "1 bytes after the closing FE"),
        (README_FRAME + b"\xfe", Reason.NOISE, "1 bytes after the closing FE"),
        (README_FRAME + README_FRAME, Reason.NOISE, "20 bytes after the closing FE"),
    ],
)
def test_decode_takes_exactly_one_sound_frame(data: bytes, reason: Reason, message: str) -> None:
    with pytest.raises(MalformedFrame, match=rf"^{reason.name}: .*{message}") as caught:
        decode(data)
    assert caught.value.reason is reason


@given(st.data(), malformed_frames() | frames())
def test_decode_never_raises_anything_else(data: st.DataObject, frame: bytes) -> None:
    damaged, _at = data.draw(corrupted(frame))
    try:
        packet = decode(damaged)
    except MalformedFrame:
        return
    assert encode(packet) == damaged  # there is one frame for each packet and no other


def test_a_malformed_frame_can_be_pickled() -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode(b"")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.reason is caught.value.args[0] is Reason.TRUNCATED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("00", Reason.TOO_SHORT),
        ("0010000001000000", Reason.TOO_SHORT),
        ("00100000010000000000", Reason.LENGTH_MISMATCH),
        ("001000000100000009", Reason.TOO_LONG),
        ("fd", Reason.BAD_ESCAPE),
        ("fd00", Reason.BAD_ESCAPE),
        ("001000000100000001fd00", Reason.BAD_ESCAPE),
    ],
)
def test_a_bad_frame_between_two_good_ones_costs_only_itself(body: str, reason: Reason) -> None:
    bad = bytes.fromhex(body)
    events = Decoder(max_payload=8).feed(README_FRAME + frame(body) + README_FRAME)
    assert events == [README_PACKET, Malformed(reason, len(bad), bad), README_PACKET]


def test_a_stray_flag_costs_one_frame() -> None:
    stray = README_FRAME[:8] + b"\xfe" + README_FRAME[8:]
    events = Decoder().feed(README_FRAME + stray + README_FRAME)
    assert [event for event in events if isinstance(event, Packet)] == [README_PACKET, README_PACKET]


def test_an_escape_before_a_flag_does_not_hide_the_flag() -> None:
    events = Decoder().feed(README_FRAME[:-1] + b"\xfd\xfe" + README_FRAME[1:])
    assert events == [Malformed(Reason.BAD_ESCAPE, 19, README_FRAME[1:-1] + b"\xfd"), README_PACKET]


@pytest.mark.parametrize("max_payload", [0, 1, 7, 1 << 20])
def test_max_payload_is_the_longest_payload_accepted(max_payload: int) -> None:
    longest = Packet(1, b"\xfe" * max_payload)
    longer = Packet(1, b"\xfe" * (max_payload + 1))
    decoder = Decoder(max_payload=max_payload)
    assert decoder.feed(encode(longest)) == [longest]
    too_long, noise = decoder.feed(encode(longer))
    assert isinstance(too_long, Malformed)
    assert too_long.reason is Reason.TOO_LONG
    assert noise == Malformed(Reason.NOISE, 2 * (max_payload + 1), (b"\xfd\x01" * 32)[: 2 * (max_payload + 1)])


@pytest.mark.parametrize("max_payload", [-1, 1 << 32])
def test_max_payload_out_of_range_is_named(max_payload: int) -> None:
    with pytest.raises(ValueError, match=rf"^max_payload={max_payload} is out of range 0 to 4294967295$"):
        Decoder(max_payload=max_payload)


def test_a_decoder_is_as_new_after_the_end_of_a_stream() -> None:
    decoder = Decoder()
    assert decoder.feed_eof() == []
    assert decoder.feed(README_FRAME[:-1]) == []
    assert decoder.feed_eof() == [Malformed(Reason.TRUNCATED, 18, README_FRAME[1:-1])]
    assert decoder.feed_eof() == []
    assert decoder.feed(b"\x00" + README_FRAME) == [Malformed(Reason.NOISE, 1, b"\x00"), README_PACKET]
    assert decoder.feed(b"\xfe\x00\x10\x00\x00\x01\xff\xff\xff\xff") == [
        Malformed(Reason.TOO_LONG, 9, b"\x00\x10\x00\x00\x01\xff\xff\xff\xff")
    ]
    assert decoder.feed_eof() == []


def test_the_end_of_a_stream_right_after_a_flag_cuts_nothing_short() -> None:
    decoder = Decoder()
    assert decoder.feed(README_FRAME) == [README_PACKET]
    assert decoder.feed_eof() == []


def test_what_follows_noise_that_was_given_up_is_noise_up_to_the_next_flag() -> None:
    decoder = Decoder()
    assert decoder.feed(README_FRAME + b"\r") == [README_PACKET]
    assert decoder.feed_timeout() == [Malformed(Reason.NOISE, 1, b"\r")]
    assert decoder.feed(b"\n" + README_FRAME) == [Malformed(Reason.NOISE, 1, b"\n"), README_PACKET]


@pytest.mark.parametrize("chunk", [1, 100])
def test_a_run_may_be_as_long_as_a_frame_of_nothing_but_escapes_and_no_longer(chunk: int) -> None:
    header = b"\x00\x10\x00\x00\x01\x00\x00\x00\x00"
    for size, reason in (20, Reason.LENGTH_MISMATCH), (21, Reason.TOO_LONG):
        decoder, run = Decoder(max_payload=1), header.ljust(size, b"x")
        sent = b"\xfe" + run + b"\xfe"
        events = [event for at in range(0, len(sent), chunk) for event in decoder.feed(sent[at : at + chunk])]
        assert events == [Malformed(reason, size, run)]


def test_a_tail_is_noise_however_the_frame_before_it_was_cut() -> None:
    decoder = Decoder()
    decoder.feed(README_FRAME[:5])
    assert decoder.feed(README_FRAME[5:] + b"\r") == [README_PACKET]
    assert decoder.feed_timeout() == [Malformed(Reason.NOISE, 1, b"\r")]


def test_nothing_between_two_flags_is_no_frame() -> None:
    with pytest.raises(MalformedFrame, match=r"nothing between the two flags$") as caught:
        decode(b"\xfe\xfe")
    assert caught.value.reason is Reason.TOO_SHORT
