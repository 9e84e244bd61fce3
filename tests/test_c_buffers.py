"""What the extension is fed: buffers of any shape, that change or go while it reads them, and lengths near the end
of their types."""

from __future__ import annotations

import array
import ctypes
import io
import mmap
import sys
from collections.abc import Callable
from typing import Any

import pytest

import packetcore
from packetcore import Malformed, Reason
from packetcore.framings import Check

if not packetcore.speedups:
    pytest.skip("the extension in C is not in use", allow_module_level=True)

from tests.c_cases import (
    FRAME,
    FUNCTIONS,
    MADE,
    PACKET,
    PLAIN,
    SLIP,
    SOUND,
    Packet,
    Pumping,
    Receiving,
    length_decoder,
    speedups,
    stuffing,
)

HUGE = [sys.maxsize - 1, sys.maxsize, sys.maxsize + 1, 1 << 64, 1 << 100]

Take = Callable[[Any], Any]

TAKERS: dict[str, Callable[[], Take]] = {
    **{f"{name}.feed": lambda name=name: MADE[name]().feed for name in SOUND},  # type: ignore[misc]
    "Receiver.receive_data": lambda: lambda data: Receiving().receive_data(data, 1.0),
    "Pump.received": lambda: received,
    **{name: lambda name=name: FUNCTIONS[name] for name in ("fcs16", "fcs32", "crc16_modbus", "xor")},  # type: ignore[misc]
    "masked": lambda: lambda data: speedups.masked(data, b"abcd"),
}
"""What takes any buffer."""

ONLY_BYTES: dict[str, Callable[[], Take]] = {
    "encode_cobs": lambda: speedups.encode_cobs,
    "encode_cobsr": lambda: speedups.encode_cobsr,
    "Stuffing.encode": lambda: stuffing().encode,
    "Stuffing.encode with a check": lambda: stuffing(Check(1, lambda frame: frame[:1])).encode,
    "Packet": lambda: lambda data: Packet(1, data),
}
"""What takes bytes, bytearrays and memoryviews alone."""

each_taker = pytest.mark.parametrize("taker", [*TAKERS, *ONLY_BYTES])


def received(data: Any) -> list[Any]:
    heard: list[Any] = []
    Pumping(lambda pump, packet: heard.append(packet)).received(data, 1.0)
    return heard


def twice(data: bytes, size: int) -> memoryview:
    """Each item of so many bytes twice."""
    return memoryview(b"".join(data[at : at + size] * 2 for at in range(0, len(data), size)))


def mapped(data: bytes) -> mmap.mmap:
    made = mmap.mmap(-1, len(data))
    made[:] = data
    return made


SHAPES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "bytes of another type": type("Bytes", (bytes,), {}),
    "a view": memoryview,
    "a view of a part": lambda data: memoryview(bytearray(b"12345" + data + b"6"))[5:-1],
    "read-only": lambda data: memoryview(bytearray(data)).toreadonly(),
    "with gaps": lambda data: twice(data, 1)[::2],
    "backwards": lambda data: memoryview(data[::-1])[::-1],
    "of two dimensions": lambda data: memoryview(data).cast("B", shape=[8, len(data) // 8]),
    "of ints": lambda data: memoryview(data).cast("I"),
    "of ints with gaps": lambda data: twice(data, 4).cast("I")[::2],
    "of doubles": lambda data: array.array("d", data),
    "of structures": lambda data: (ctypes.c_uint16 * (len(data) // 4) * 2).from_buffer_copy(data),
    "a map": mapped,
    "of a file in memory": lambda data: io.BytesIO(data).getbuffer(),
}


def of_eight(data: bytes) -> bytes:
    """As many bytes as any shape can have."""
    return data + bytes(-len(data) % 16)


@each_taker
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_of_any_shape_are_read_as_what_they_hold_and_let_go_of(taker: str, shape: str) -> None:
    make = {**TAKERS, **ONLY_BYTES}[taker]
    for data in (FRAME * 2 + b"\xfe1\xfe", PLAIN * 5, bytes(16)):
        buffer = SHAPES[shape](of_eight(data))
        if taker in ONLY_BYTES and not isinstance(buffer, (bytes, bytearray, memoryview)):
            with pytest.raises(TypeError, match="bytes"):
                make()(buffer)
        else:
            assert make()(buffer) == make()(of_eight(data))
        if isinstance(buffer, bytearray):
            buffer += b"x"  # which a buffer that someone holds does not allow
        elif isinstance(buffer, memoryview):
            buffer.release()
        elif isinstance(buffer, mmap.mmap):
            buffer.close()


@each_taker
def test_no_bytes_at_all_have_any_shape_too(taker: str) -> None:
    make = {**TAKERS, **ONLY_BYTES}[taker]
    for empty in (b"", bytearray(), memoryview(b""), memoryview(b"ab")[1:1], memoryview(b"abc")[:0:2]):
        if taker == "Stuffing.encode":
            with pytest.raises(ValueError, match="empty"):
                make()(empty)
        elif taker == "Stuffing.encode with a check":
            with pytest.raises(ValueError, match="gave 0 bytes"):
                make()(empty)
        else:
            assert make()(empty) == make()(b"")


class Raising:
    """From Python 3.12 on a buffer can be made of anything."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 5

    def __buffer__(self, flags: int) -> Any:
        if self.error is not None:
            raise self.error
        return b"no view"


@each_taker
def test_what_is_no_buffer_is_refused_and_changes_nothing(taker: str) -> None:
    take = {**TAKERS, **ONLY_BYTES}[taker]()
    owner = getattr(take, "__self__", None)
    pending = getattr(owner, "pending", None)
    released = memoryview(bytearray(b"gone"))
    released.release()
    for wrong in ("text", None, 7, [1], object(), Raising(None)):
        if taker == "Pump.received" and not wrong:
            continue  # it has nothing to say then
        with pytest.raises(TypeError):
            take(wrong)
    with pytest.raises(ValueError, match="released"):
        take(released)
    for error in (ZeroDivisionError("in a buffer"), BufferError("in a buffer"), KeyboardInterrupt("in a buffer")):
        expected = type(error) if sys.version_info >= (3, 12) and taker in TAKERS else TypeError
        with pytest.raises(expected):
            take(Raising(error))
    assert getattr(owner, "pending", None) == pending


def test_a_key_is_a_buffer_like_any_other() -> None:
    expected = speedups.masked(PLAIN, b"abcd")
    for key in (bytearray(b"abcd"), memoryview(b"aXbXcXdX")[::2], array.array("I", b"abcd")):
        assert speedups.masked(PLAIN, key) == expected
    for wrong in ("abcd", None, 7):
        with pytest.raises(TypeError):
            speedups.masked(PLAIN, wrong)


def meddle(buffer: Any, change: str) -> bool:
    """Do to a buffer that is being read what its owner may try. Gives whether it was as it should be."""
    try:
        if change == "contents":
            buffer[:] = bytes(reversed(buffer))
        elif change == "grow":
            buffer.extend(b"x" * 100_000)
        elif change == "go":
            buffer.clear()
        else:
            buffer.release()
    except BufferError:
        return change != "contents"
    return change == "contents"


@pytest.mark.parametrize("taker", [*SOUND, "Receiver", "Pump", "Stuffing.encode"])
@pytest.mark.parametrize("change", ["contents", "grow", "go", "release"])
def test_a_buffer_that_is_being_read_cannot_change_its_size_nor_go(
    taker: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application's code runs meanwhile: a check, or what a `Malformed` is made by."""
    noise = b"noise\xfe\x01\xfe" + b"\x10\x00\x00\x01" * 20
    sent = SOUND.get(taker, SOUND["Decoder"])[0]
    data = bytearray((noise + sent) * 3 + b"\x00\xff\xff\xff\xff" + noise * 2)
    buffer: Any = memoryview(data) if change == "release" else data
    meddled: list[bool] = []

    def __init__(self: Malformed, *arguments: object) -> None:  # noqa: N807
        meddled.append(meddle(buffer, change))

    def check(frame: bytes) -> bytes:
        meddled.append(meddle(buffer, change))
        return frame[:1]

    monkeypatch.setattr(Malformed, "__init__", __init__)
    if taker == "Stuffing.encode":
        speedups.Stuffing(*SLIP, Check(1, check)).encode(buffer)
    elif taker == "StuffingDecoder":
        speedups.StuffingDecoder(stuffing(Check(1, check)), 100).feed(buffer)
    elif taker == "Receiver":
        Receiving().receive_data(buffer, 1.0)
    elif taker == "Pump":
        Pumping().received(buffer, 1.0)
    else:
        MADE[taker]().feed(buffer)
    assert set(meddled) == {True}
    if change == "release":
        buffer.release()
    data.extend(b"x")


def test_a_header_that_announces_the_most_there_is_sets_little_aside() -> None:
    decoder = speedups.Decoder(max_payload=0xFFFFFFFF)
    empty = sys.getsizeof(decoder)
    decoder.feed(b"\xfe\x00\x10\x00\x00\x01\xff\xff\xff\xff")
    for _ in range(4):
        decoder.feed(bytes(30_000))
    assert sys.getsizeof(decoder) - empty <= 1 << 18
    sample = b"\x00\x10\x00\x00\x01" + b"\xff" * 4 + bytes(55)
    assert decoder.feed(FRAME) == [Malformed(Reason.LENGTH_MISMATCH, 120_009, sample), PACKET]


@pytest.mark.parametrize("size", [4, 8, "varint"])
@pytest.mark.parametrize("strip", [True, False])
@pytest.mark.parametrize("adjust", [0, -5, 5, -(1 << 62) + 1, (1 << 62) - 1])
def test_lengths_near_the_end_of_their_type_are_too_long_or_waited_for(size: Any, strip: bool, adjust: int) -> None:
    for max_frame in (*HUGE, 100):
        for value in (
            0,
            1,
            4,
            99,
            100,
            101,
            *(1 << bits for bits in (31, 32, 60, 62, 63)),
            (1 << 63) - 1,
            (1 << 64) - 1,
        ):
            if size == "varint":
                field = bytes(value >> shift & 0x7F | 0x80 for shift in range(0, 63, 7)) + bytes([value >> 63])
            else:
                field = (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")
                value = int.from_bytes(field, "big")
            decoder = speedups.LengthPrefixDecoder(size, "big", 0, adjust, 0, strip, b"", max_frame)
            empty = sys.getsizeof(decoder)
            events = decoder.feed(field + bytes(100))
            following = value + adjust
            longest = min(max_frame, sys.maxsize // 8)
            if following < 0:
                assert events[0].reason is Reason.BAD_LENGTH
            elif following + (0 if strip else len(field)) > longest:
                assert events[0].reason is Reason.TOO_LONG
            elif following <= 100:
                assert events[0] == (b"" if strip else field) + bytes(following)
            else:
                assert events == []
                assert decoder.pending == len(field) + 100
            assert sys.getsizeof(decoder) - empty < 1_000


@pytest.mark.parametrize("huge", HUGE)
def test_limits_above_what_there_is_are_none(huge: int) -> None:
    for decoder in (
        speedups.COBSDecoder(huge),
        speedups.StuffingDecoder(stuffing(Check(1, bytes)), huge),
        length_decoder(max_frame=huge),
    ):
        decoder.feed(b"\xc0\x02a" * 1_000)
        decoder.feed_eof()
        assert sys.getsizeof(decoder) < 10_000
    with pytest.raises(ValueError, match="max_payload"):
        speedups.Decoder(max_payload=huge)
    with pytest.raises((ValueError, OverflowError)):
        speedups.Stuffing(*SLIP, Check(huge, bytes))
    with pytest.raises((ValueError, OverflowError)):
        speedups.LengthPrefixDecoder(4, "big", huge, 0, 0, 1, b"", 9)
    for adjust in (huge, -huge):
        with pytest.raises((ValueError, OverflowError)):
            speedups.LengthPrefixDecoder(4, "big", 0, adjust, 1, 1, b"", 9)
    for name in ("id", "type", "count"):
        with pytest.raises(ValueError, match=f"{name}="):
            PACKET._replace(**{name: huge})
    order = MADE["Order"]()
    for id in (huge, -huge):
        assert (order._entry(id), id in order, order.refresh(id, 0)) == (None, False, False)
    latch = speedups.Latch()
    speedups.open_latches([latch])
    latch.wait(float(huge))


def test_more_than_can_be_counted_is_refused_before_it_is_taken() -> None:
    pump = Pumping()
    pump.send(PACKET)
    pump._unsent = sys.maxsize
    with pytest.raises(MemoryError):
        pump._write()
    pump._unsent = 0
    assert pump._output.size == len(FRAME)
    pump._write()
    assert pump._output.size == 0
