"""Every framing: its laws, vectors from outside, and each thing that can be wrong."""

from __future__ import annotations

import copy
import functools
import operator
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from cobs import cobs, cobsr  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from packetcore import LocalProtocolError, Malformed, Packet, Reason, encode
from packetcore._frames import DatagramFrames, FrameCodec
from packetcore.framings import (
    COBS,
    COBSR,
    FEFD,
    HDLC,
    SLIP,
    ByteStuffing,
    Check,
    Decoder,
    Delimiter,
    FixedLength,
    Framing,
    LengthOf,
    LengthPrefix,
)
from packetcore.framings._checks import CHECKS
from packetcore.framings._delimiter import DelimiterDecoder
from packetcore_conformance import laws
from packetcore_conformance.laws import Subject

JT808 = ByteStuffing(0x7E, 0x7D, map={0x7E: 2, 0x7D: 1}, check="xor")
MODBUS_TCP = LengthOf(lambda prefix: 6 + int.from_bytes(prefix[4:6], "big") if len(prefix) >= 6 else None)


def of(letters: bytes, max_size: int = 40, min_size: int = 0) -> st.SearchStrategy[bytes]:
    """Frames, often of nothing but some bytes."""
    table = bytes(letters[byte % len(letters)] for byte in range(256))
    any_bytes = st.binary(min_size=min_size, max_size=max_size)
    return any_bytes | any_bytes.map(lambda frame: frame.translate(table))


def without(*excluded: bytes) -> st.SearchStrategy[bytes]:
    """Frames that hold none of these, often pieces of them."""

    def clean(frame: bytes) -> bytes:
        while any(each in frame for each in excluded):
            for each in excluded:
                frame = frame.replace(each, b"")
        return frame

    return of(b"".join(excluded) + b"x").map(clean)


def modbus_frame(rest: bytes) -> bytes:
    return b"\x00\x01\x00\x00" + len(rest).to_bytes(2, "big") + rest


flagged = of(b"\x7e\x7d\x5e\x5d\x01\x02\x20", min_size=1)
zeros = of(b"\x00\x01\xff\x03")
SUBJECTS: dict[str, Subject] = {
    "SLIP": Subject(SLIP(), of(b"\xc0\xdb\xdc\xdd", min_size=1)),
    "HDLC fcs16": Subject(HDLC(), of(b"\x7e\x7d\x5e\x5d\x20")),
    "HDLC fcs32": Subject(HDLC("fcs32"), of(b"\x7e\x7d\x5e\x5d\x20")),
    "HDLC": Subject(HDLC(None), flagged),
    "FEFD": Subject(FEFD(), of(b"\xfe\xfd\x01\x02", min_size=1)),
    "JT/T 808": Subject(JT808, flagged),
    "modbus check": Subject(ByteStuffing(0x7E, 0x7D, xor=0x20, check="crc16-modbus"), flagged),
    "escape as its own code": Subject(ByteStuffing(0x7E, 0x7D, map={0x7E: 2, 0x7D: 0x7D, 0x11: 3}), flagged),
    "COBS": Subject(COBS(), zeros),
    "COBS/R": Subject(COBSR(), zeros),
    "u32": Subject(LengthPrefix()),
    "u8 that counts itself": Subject(LengthPrefix(1, includes_itself=True), long=lambda n: b"a" * min(n, 200)),
    "u24 little, kept": Subject(
        LengthPrefix(3, byteorder="little", offset=1, adjust=-2, strip=False),
        st.binary(max_size=40).map(lambda rest: b"\xaa" + (len(rest) + 2).to_bytes(3, "little") + rest),
        long=lambda n: b"\xaa" + (n + 2).to_bytes(3, "little") + b"a" * n,
    ),
    "u64": Subject(LengthPrefix(8)),
    "varint": Subject(LengthPrefix("varint")),
    "varint that counts itself": Subject(LengthPrefix("varint", includes_itself=True)),
    "u16 behind a magic": Subject(
        LengthPrefix(2, magic=b"\xca\xfe"),
        without(b"\xca"),
        long=lambda n: b"a" * min(n, 60_000),
        reach=lambda max_frame: max_frame + 4,
        lookahead=2,
    ),
    "a magic of one byte": Subject(
        LengthPrefix(1, magic=b"$"),
        without(b"$"),
        long=lambda n: b"a" * min(n, 200),
        reach=lambda max_frame: max_frame + 2,
    ),
    "varint behind a magic, kept": Subject(
        LengthPrefix("varint", magic=b"aab", offset=4, strip=False),
        without(b"a").map(lambda rest: b"aab." + bytes([len(rest)]) + rest),
        long=lambda n: LengthPrefix("varint", magic=b"aab.").encode(b"x" * n),
        reach=lambda max_frame: max_frame + 14,
        lookahead=3,
    ),
    "CR LF": Subject(Delimiter(b"\r\n"), without(b"\r", b"\n")),
    "lines of any kind": Subject(Delimiter(b"\r\n", b"\n", b"\r"), without(b"\r", b"\n")),
    "delimiters in each other": Subject(
        Delimiter(b"\x00bcd", b"c", b"\x00"),
        of(b"xb").map(lambda frame: frame.translate(None, b"\x00bcd")),
        lookahead=3,
    ),
    "fixed": Subject(FixedLength(5), st.binary(min_size=5, max_size=5), long=lambda n: b"abcde", limits=(5, 40)),
    "Modbus/TCP": Subject(
        MODBUS_TCP,
        st.binary(max_size=30).map(modbus_frame),
        long=lambda n: modbus_frame(b"a" * min(n, 60_000)),
        limits=(6, 40),
        bound=lambda max_frame: max(max_frame, 256),
    ),
}

EXAMPLES = settings().max_examples // 12

each = pytest.mark.parametrize("name", SUBJECTS)


@each
@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_laws(name: str, law: laws.Law) -> None:
    if law is laws.accounting and name == "delimiters in each other":
        return  # where what is malformed is taken out, a delimiter may stand that was none
    law(replace(SUBJECTS[name], examples=EXAMPLES))


def events_of(framing: Framing, stream: bytes, max_frame: int = 1 << 20) -> list[bytes | Malformed]:
    """What comes of a stream and its end; the same whether it comes at once or byte by byte."""
    whole, cut = framing.decoder(max_frame), framing.decoder(max_frame)
    events = [*whole.feed(stream), *whole.feed_eof()]
    assert [event for byte in stream for event in cut.feed(bytes([byte]))] + [*cut.feed_eof()] == events
    return events


@each
def test_a_long_frame_in_small_chunks_is_not_looked_at_again_and_again(name: str) -> None:
    framing = SUBJECTS[name].framing
    frame = SUBJECTS[name].long(1 << 19)
    stream = framing.encode(frame)
    decoder = framing.decoder()
    events = [event for at in range(0, len(stream), 7) for event in decoder.feed(stream[at : at + 7])]
    assert events == [frame]


@each
def test_values_are_equal_hashable_and_can_be_pickled(name: str) -> None:
    framing = SUBJECTS[name].framing
    assert hash(framing) == hash(copy.copy(framing))
    assert framing == copy.copy(framing)
    if framing is not MODBUS_TCP:  # a lambda
        assert pickle.loads(pickle.dumps(framing)) == framing


def test_what_a_value_was_made_of_can_be_changed_without_it() -> None:
    codes = {0x7E: 2, 0x7D: 1}
    framing = ByteStuffing(0x7E, 0x7D, map=codes)
    codes[0x7E] = 3
    assert framing == ByteStuffing(0x7E, 0x7D, map={0x7E: 2, 0x7D: 1})
    with pytest.raises(FrozenInstanceError):
        framing.flag = 1  # type: ignore[misc]


@each
def test_encode_takes_bytes_of_any_kind_and_nothing_else(name: str) -> None:
    framing = SUBJECTS[name].framing
    frame = SUBJECTS[name].long(5)
    for kind in (bytearray, memoryview):
        assert framing.encode(kind(frame)) == framing.encode(frame)  # type: ignore[arg-type]
    for wrong in ("text", 5, None, [1, 2]):
        with pytest.raises(TypeError, match="encode\\(\\) takes bytes, not "):
            framing.encode(wrong)  # type: ignore[arg-type]


@each
@pytest.mark.parametrize("size", [20, 254 * 3])
def test_a_decoder_takes_a_frame_of_max_frame_bytes_and_no_less_than_one(name: str, size: int) -> None:
    subject = SUBJECTS[name]
    frame = subject.long(size)
    stream = subject.framing.encode(frame)
    assert subject.framing.decoder(len(frame)).feed(stream) == [frame]
    if name != "fixed":
        events = events_of(subject.framing, stream, len(frame) - 1)
        assert isinstance(events[0], Malformed)
        assert events[0].reason is (Reason.BAD_LENGTH if name == "Modbus/TCP" else Reason.TOO_LONG)
    with pytest.raises(ValueError, match="max_frame=0 is below"):
        subject.framing.decoder(0)
    if name != "fixed":
        assert subject.framing.decoder(1).feed_eof() == []


# Checks


@pytest.mark.parametrize(
    ("name", "check"),
    [("fcs16", "6e90"), ("fcs32", "2639f4cb"), ("crc16-modbus", "374b"), ("xor", "31")],
)
def test_checks_have_the_values_of_the_crc_catalogue(name: str, check: str) -> None:
    assert CHECKS[name].function(b"123456789") == bytes.fromhex(check)


@given(st.binary(max_size=300))
def test_the_check_of_a_frame_and_its_check_is_the_good_fcs_of_rfc_1662(frame: bytes) -> None:
    fcs16, fcs32 = CHECKS["fcs16"].function, CHECKS["fcs32"].function
    assert int.from_bytes(fcs16(frame + fcs16(frame)), "little") ^ 0xFFFF == 0xF0B8
    assert int.from_bytes(fcs32(frame + fcs32(frame)), "little") ^ 0xFFFFFFFF == 0xDEBB20E3


@given(st.binary(max_size=300))
def test_xor_is_that_of_all_bytes(frame: bytes) -> None:
    assert CHECKS["xor"].function(frame) == bytes([functools.reduce(operator.xor, frame, 0)])


@pytest.mark.parametrize("frame", ["01030000000ac5cd", "010402ffffb880"])
def test_modbus_rtu_frames_from_the_field_have_this_check(frame: str) -> None:
    body = bytes.fromhex(frame)
    assert CHECKS["crc16-modbus"].function(body[:-2]) == body[-2:]


# Byte stuffing


@pytest.mark.parametrize(
    ("framing", "frame", "sent"),
    [
        (SLIP(), "01c0db02", "c001dbdcdbdd02c0"),
        (SLIP(), "dbdc", "c0dbdddcc0"),
        (SLIP(), "c0c0", "c0dbdcdbdcc0"),
        (HDLC(None), "017e7d20", "7e017d5e7d5d207e"),
        (HDLC(), b"123456789".hex(), "7e3132333435363738396e907e"),
        (HDLC("fcs32"), b"123456789".hex(), "7e3132333435363738392639f4cb7e"),
        # The example of the standard's section on escapes, without a check.
        (ByteStuffing(0x7E, 0x7D, map={0x7E: 2, 0x7D: 1}), "307e087d55", "7e307d02087d01557e"),
        # A position report, as JT808 libraries show it.
        (
            JT808,
            "0200002612345678901200 7e 000000010000000200ba7f0e07e4f11c0028003c0000181015101010010400000064020200 7d",
            "7e0200002612345678901200 7d02 000000010000000200ba7f0e07e4f11c0028003c0000181015101010010400000064020200"
            "7d01 13 7e",
        ),
        (FEFD(), "001000000100000007010304fe01fd02", "fe001000000100000007010304fd0101fd0202fe"),
    ],
)
def test_stuffed_frames_as_others_send_them(framing: Framing, frame: str, sent: str) -> None:
    assert framing.encode(bytes.fromhex(frame)) == bytes.fromhex(sent)
    assert events_of(framing, bytes.fromhex(sent)) == [bytes.fromhex(frame)]


def test_fefd_is_the_outer_layer_of_a_packet() -> None:
    packet = Packet(0xFEFD, b"\xfd\xfe" * 3, type=7, count=2)
    body = struct.pack(">HBHI", packet.id, packet.type, packet.count, len(packet.payload)) + packet.payload
    assert FEFD().encode(body) == encode(packet)
    assert FEFD().decoder().feed(encode(packet)) == [body]


def test_slip_needs_no_flag_before_a_frame_and_may_share_one() -> None:
    assert events_of(SLIP(), b"one\xc0two\xc0\xc0\xc0three\xc0") == [b"one", b"two", b"three"]


def test_hdlc_frames_may_share_a_flag_and_escape_what_they_like() -> None:
    framing = HDLC(None)
    needless = b"".join(bytes([0x7D, byte ^ 0x20]) for byte in b"\x00\x11\x13a") + b"\x7d\x7d"
    assert events_of(framing, b"~one~two~~" + needless + b"~") == [b"one", b"two", b"\x00\x11\x13a\x5d"]


def test_a_check_can_be_of_any_kind() -> None:
    total = Check(1, lambda frame: bytes([sum(frame) & 0xFF]))
    framing = ByteStuffing(0xAA, 0xAB, xor=0x20, check=total)
    assert events_of(framing, framing.encode(b"abc") + b"abc\x00\xaa") == [
        b"abc",
        Malformed(Reason.BAD_CHECK, 4, b"abc\x00"),
    ]
    with pytest.raises(ValueError, match="a check of size=2 gave 1 bytes"):
        ByteStuffing(0x7E, 0x7D, xor=0x20, check=Check(2, total.function)).encode(b"a")


@given(st.data())
@settings(max_examples=EXAMPLES * 3)
def test_stuffing_agrees_with_a_reading_byte_by_byte(data: st.DataObject) -> None:
    byte = st.integers(0, 5)
    flag, escape = data.draw(st.lists(byte, min_size=2, max_size=2, unique=True))
    if data.draw(st.booleans()):
        xor = data.draw(st.integers(1, 7).filter(lambda xor: escape ^ xor != flag))
        framing = ByteStuffing(flag, escape, xor=xor)
        known = {code: code ^ xor for code in range(256) if code != flag}
    else:
        codes = data.draw(st.lists(st.integers(6, 12) | st.just(escape), min_size=2, max_size=2, unique=True))
        framing = ByteStuffing(flag, escape, map=dict(zip((flag, escape), codes, strict=True)))
        known = dict(zip(codes, (flag, escape), strict=True))
    run = bytes(data.draw(st.lists(st.integers(0, 12).filter(lambda byte: byte != flag), min_size=1, max_size=12)))
    plain: bytearray | None = bytearray()
    each_byte = iter(run)
    for value in each_byte:
        if value == escape:
            code = next(each_byte, -1)
            if code not in known:
                plain = None
                break
            value = known[code]
        assert plain is not None
        plain.append(value)
    between = bytes([flag])
    expected = Malformed(Reason.BAD_ESCAPE, len(run), run) if plain is None else bytes(plain)
    assert framing.decoder().feed(between + run + between) == [expected]
    assert framing.decoder().feed(framing.encode(run)) == [run]


# COBS


def up_to(first: int, last: int) -> bytes:
    return bytes(range(first, last + 1))


@pytest.mark.parametrize(
    ("frame", "sent"),
    [
        (b"", "01"),
        (b"\x00", "0101"),
        (b"\x00\x00", "010101"),
        (b"\x00\x11\x00", "01021101"),
        (b"\x11\x22\x00\x33", "0311220233"),
        (b"\x11\x22\x33\x44", "0511223344"),
        (b"\x11\x00\x00\x00", "0211010101"),
        (up_to(1, 0xFE), "ff" + up_to(1, 0xFE).hex()),
        (b"\x00" + up_to(1, 0xFE), "01ff" + up_to(1, 0xFE).hex()),
        (up_to(1, 0xFF), "ff" + up_to(1, 0xFE).hex() + "02ff"),
        (up_to(2, 0xFF) + b"\x00", "ff" + up_to(2, 0xFF).hex() + "0101"),
        (up_to(3, 0xFF) + b"\x00\x01", "fe" + up_to(3, 0xFF).hex() + "0201"),
        # The packet in figure 2 of the paper.
        (bytes.fromhex("4500002c4c79000040064f37"), "024501042c4c790105400 64f37".replace(" ", "")),
    ],
)
def test_cobs_frames_as_the_paper_and_others_have_them(frame: bytes, sent: str) -> None:
    assert COBS().encode(frame) == bytes.fromhex(sent) + b"\x00"
    assert events_of(COBS(), bytes.fromhex(sent) + b"\x00") == [frame]


@pytest.mark.parametrize(
    ("frame", "sent"),
    [
        ("", "01"),
        ("2fa200927302", "032fa204927302"),
        ("2fa200927326", "032fa2269273"),
        ("01", "0201"),
        ("02", "02"),
        ("03", "03"),
        ("00", "0101"),
        ("ff", "ff"),
        ("0002", "0102"),
        (up_to(1, 0xFE).hex(), "ff" + up_to(1, 0xFE).hex()),
        (up_to(2, 0xFF).hex(), "ff" + up_to(2, 0xFE).hex()),
    ],
)
def test_cobsr_frames_as_its_author_has_them(frame: str, sent: str) -> None:
    assert COBSR().encode(bytes.fromhex(frame)) == bytes.fromhex(sent) + b"\x00"
    assert events_of(COBSR(), bytes.fromhex(sent) + b"\x00") == [bytes.fromhex(frame)]


runs = st.lists(
    st.sampled_from([b"\x00", b"\x01", b"\xff", up_to(1, 0xFD), up_to(1, 0xFE), up_to(2, 0xFF), b"\x01\xff\x03"]),
    max_size=8,
).map(b"".join)


@given(runs | st.binary(max_size=600), st.booleans())
def test_cobs_and_cobsr_encode_as_the_package_of_the_author_of_the_latter(frame: bytes, reduced: bool) -> None:
    ours, theirs = (COBSR(), cobsr) if reduced else (COBS(), cobs)
    assert ours.encode(frame) == theirs.encode(frame) + b"\x00"


@given(runs.map(lambda run: run.replace(b"\x00", b"\x02")) | st.binary(max_size=30), st.booleans())
def test_cobs_and_cobsr_decode_as_the_package_of_the_author_of_the_latter(run: bytes, reduced: bool) -> None:
    run = run.replace(b"\x00", b"\x02") or b"\x01"
    ours, theirs = (COBSR(), cobsr) if reduced else (COBS(), cobs)
    try:
        expected: bytes | Malformed = theirs.decode(run)
    except cobs.DecodeError:
        expected = Malformed(Reason.BAD_LENGTH, len(run), run[:64])
    assert ours.decoder().feed(run + b"\x00") == [expected]


# Lengths

HELLO = b"HELLO, WORLD"
NETTY: list[tuple[LengthPrefix, bytes, bytes]] = [
    (LengthPrefix(2, strip=False), b"\x00\x0c" + HELLO, b"\x00\x0c" + HELLO),
    (LengthPrefix(2), b"\x00\x0c" + HELLO, HELLO),
    (LengthPrefix(2, adjust=-2, strip=False), b"\x00\x0e" + HELLO, b"\x00\x0e" + HELLO),
    (LengthPrefix(2, includes_itself=True, strip=False), b"\x00\x0e" + HELLO, b"\x00\x0e" + HELLO),
    (LengthPrefix(3, offset=2, strip=False), b"\xca\xfe\x00\x00\x0c" + HELLO, b"\xca\xfe\x00\x00\x0c" + HELLO),
    (LengthPrefix(3, adjust=2, strip=False), b"\x00\x00\x0c\xca\xfe" + HELLO, b"\x00\x00\x0c\xca\xfe" + HELLO),
    (LengthPrefix(2, offset=1, adjust=1), b"\xca\x00\x0c\xfe" + HELLO, b"\xfe" + HELLO),
    (LengthPrefix(2, offset=1, adjust=-3), b"\xca\x00\x10\xfe" + HELLO, b"\xfe" + HELLO),
    (LengthPrefix(2, offset=1, adjust=-1, includes_itself=True), b"\xca\x00\x10\xfe" + HELLO, b"\xfe" + HELLO),
]
"""The examples in the documentation of Netty's `LengthFieldBasedFrameDecoder`, two of them in both ways
that there are here."""


@pytest.mark.parametrize(("framing", "sent", "frame"), NETTY)
def test_netty_decodes_its_examples_so(framing: LengthPrefix, sent: bytes, frame: bytes) -> None:
    assert events_of(framing, sent * 2) == [frame] * 2
    if framing.strip and framing.offset:
        with pytest.raises(ValueError, match="the 1 bytes before the length field are not known"):
            framing.encode(frame)
    else:
        assert framing.encode(frame) == sent


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (LengthPrefix(), "00000003616263"),
        (LengthPrefix(1), "03616263"),
        (LengthPrefix(2, byteorder="little"), "0300616263"),
        (LengthPrefix(3, byteorder="little"), "030000616263"),
        (LengthPrefix(8), "0000000000000003616263"),
        (LengthPrefix(2, includes_itself=True), "0005616263"),
        (LengthPrefix("varint"), "03616263"),
        (LengthPrefix("varint", includes_itself=True), "04616263"),
        (LengthPrefix(1, magic=b"\xaa\x55"), "aa5503616263"),
        (LengthPrefix(1, magic=b"\xaa\x55", offset=2), "aa5503616263"),
    ],
)
def test_lengths_as_they_are_sent(framing: LengthPrefix, sent: str) -> None:
    assert framing.encode(b"abc") == bytes.fromhex(sent)
    assert events_of(framing, bytes.fromhex(sent)) == [b"abc"]
    assert framing.resynchronises is bool(framing.magic)


def test_varints_are_those_of_protocol_buffers() -> None:
    assert LengthPrefix("varint").encode(b"a" * 300)[:2] == b"\xac\x02"
    padded = b"\x83\x80\x80\x00abc"  # longer than need be, as some send it
    assert events_of(LengthPrefix("varint"), padded) == [b"abc"]
    for size in (126, 127, 128, 16381, 16382, 16383, 16384):
        assert events_of(LengthPrefix("varint"), LengthPrefix("varint").encode(b"a" * size)) == [b"a" * size]
        both = LengthPrefix("varint", includes_itself=True)
        assert events_of(both, both.encode(b"a" * size)) == [b"a" * size]


def test_length_prefixes_at_the_limits_of_their_arguments() -> None:
    assert LengthPrefix(2, byteorder="little").encode(b"a") == b"\x01\x00a"
    assert LengthPrefix(1, magic=b"AB", offset=2, strip=False).encode(b"AB\x01x") == b"AB\x01x"
    assert LengthPrefix("varint", adjust=-(1 << 31)).encode(b"") == b"\x80" * 4 + b"\x08"
    with pytest.raises(ValueError, match="is out of range"):
        LengthPrefix(adjust=1 << 70)
    assert events_of(LengthOf(lambda prefix: 1), b"abc") == [b"a", b"b", b"c"]
    assert LengthOf(lambda prefix: 1).encode(b"a") == b"a"


def test_length_of_is_asked_no_more_than_it_takes() -> None:
    asked: list[bytes] = []

    def length_of(prefix: bytes) -> int | None:
        asked.append(prefix)
        return prefix[2] + 3 if len(prefix) >= 3 else None

    decoder = LengthOf(length_of, least=2).decoder()
    for byte in b"ab\x05":
        assert decoder.feed(bytes([byte])) == []
    for _ in range(4):
        assert decoder.feed(b"x") == []
    assert decoder.feed(b"xcd\x00ef") == [b"ab\x05xxxxx", b"cd\x00"]
    assert asked == [b"ab", b"ab\x05", b"cd", b"cd\x00", b"ef"]
    assert decoder.feed(b"\x09") == []
    assert decoder.feed_eof() == [Malformed(Reason.TRUNCATED, 3, b"ef\x09")]
    assert decoder.feed(b"ab\x01c") == [b"ab\x01c"]


# Delimiters


@given(st.data())
@settings(max_examples=EXAMPLES * 8)
def test_delimiters_of_any_shape_are_found_at_the_earliest_place_the_longest_first(data: st.DataObject) -> None:
    letters = st.text("ab", min_size=1, max_size=4).map(str.encode)
    delimiters = data.draw(st.lists(letters, min_size=1, max_size=4, unique=True))
    stream = data.draw(st.text("abx", max_size=40)).encode() + b"zzzz"
    frames: list[bytes] = []
    start = at = 0
    while at < len(stream):
        longest = max((each for each in delimiters if stream.startswith(each, at)), key=len, default=b"")
        if longest:
            frames.append(stream[start:at])
            start = at + len(longest)
        at = at + len(longest) if longest else at + 1
    decoder = Delimiter(*delimiters).decoder(50)
    assert [event for chunk in data.draw(laws.cuts(stream)) for event in decoder.feed(chunk)] == frames
    rest = stream[start:]
    assert decoder.feed_eof() == [Malformed(Reason.TRUNCATED, len(rest), rest)]

    small, whole = Delimiter(*delimiters).decoder(2), Delimiter(*delimiters).decoder(2)
    stream = stream[: data.draw(st.integers(0, len(stream)))]
    cut = [event for chunk in data.draw(laws.cuts(stream)) for event in small.feed(chunk)]
    assert cut == whole.feed(stream)
    assert small.feed_eof() == whole.feed_eof()


@given(st.data())
@settings(max_examples=EXAMPLES * 8)
def test_a_frame_that_delimiters_let_through_comes_out_as_it_went_in(data: st.DataObject) -> None:
    letters = st.text("ab", min_size=1, max_size=4).map(str.encode)
    framing = Delimiter(*data.draw(st.lists(letters, min_size=1, max_size=4, unique=True)))
    sent: list[bytes] = []
    stream = b""
    for frame in data.draw(st.lists(st.text("abxxx", max_size=5).map(str.encode), max_size=6)):
        try:
            stream += framing.encode(frame)
        except ValueError:
            continue
        sent.append(frame)
    assert framing.decoder().feed(stream) == sent


@pytest.mark.parametrize(
    ("delimiters", "frame", "message"),
    [
        ([b"\r\n"], b"a\r\nb", r"contains the delimiter b'\\r\\n' at 1"),
        ([b"\r\n", b"\n"], b"a\nb", r"contains the delimiter b'\\n' at 1"),
        ([b"\n", b"\r\n"], b"a\r", r"contains the delimiter b'\\r\\n' at 1"),
        ([b"aa"], b"xa", r"contains the delimiter b'aa' at 1"),
        ([b"\r", b"\r\n"], b"\nx", r"makes b'\\r\\n' of the delimiter before it"),
        ([b"c", b"xcd"], b"x", "may begin another one"),
    ],
)
def test_a_frame_that_would_be_cut_is_refused(delimiters: list[bytes], frame: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Delimiter(*delimiters).encode(frame)


def test_what_is_held_is_not_searched_again() -> None:
    decoder = Delimiter(b"\r\n", b"\n").decoder()
    assert isinstance(decoder, DelimiterDecoder)
    search = decoder._rules.pattern.search
    searched = 0

    class Pattern:
        @staticmethod
        def search(data: bytes, start: int, stop: int) -> re.Match[bytes] | None:
            nonlocal searched
            searched += stop - start
            return search(data, start, stop)

    decoder._rules.pattern = Pattern  # type: ignore[assignment]
    for _ in range(2_000):
        assert decoder.feed(b"a") == []
    assert decoder.feed(b"\n") == [b"a" * 2_000]
    assert searched <= 2 * 2_001


def test_empty_lines_are_frames() -> None:
    assert events_of(Delimiter(b"\r\n", b"\n"), b"a\n\r\n\nb\r\n") == [b"a", b"", b"", b"b"]


# What can be wrong

BAD_ESCAPE, BAD_CHECK, BAD_LENGTH = Reason.BAD_ESCAPE, Reason.BAD_CHECK, Reason.BAD_LENGTH
NOISE, TOO_LONG, TOO_SHORT, TRUNCATED = Reason.NOISE, Reason.TOO_LONG, Reason.TOO_SHORT, Reason.TRUNCATED
Expected = list[bytes | tuple[Reason, bytes]]
MALFORMED: list[tuple[Framing, bytes, Expected]] = [
    (SLIP(), b"a\xdb\xddb\xc0a\xdbb\xc0ok\xc0", [b"a\xdbb", (BAD_ESCAPE, b"a\xdbb"), b"ok"]),
    (SLIP(), b"a\xdb\xc0ok\xc0cut", [(BAD_ESCAPE, b"a\xdb"), b"ok", (TRUNCATED, b"cut")]),
    (SLIP(), b"123456789\xc0ok\xc0", [(TOO_LONG, b"123456789"), b"ok"]),
    (SLIP(), b"x" * 20 + b"\xc0ok\xc0", [(TOO_LONG, b"x" * 17), (NOISE, b"xxx"), b"ok"]),
    (SLIP(), b"x" * 20, [(TOO_LONG, b"x" * 17), (NOISE, b"xxx")]),
    (HDLC(), b"noise~\x00\x00~", [(NOISE, b"noise"), b""]),
    (HDLC(), b"~a~ab~abc~", [(TOO_SHORT, b"a"), (BAD_CHECK, b"ab"), (BAD_CHECK, b"abc")]),
    (HDLC(), b"~123456}~" + HDLC().encode(b"ok"), [(BAD_ESCAPE, b"123456}"), b"ok"]),
    (HDLC("fcs32"), b"~abc~123456789&9\xf4\xcb~", [(TOO_SHORT, b"abc"), (TOO_LONG, b"123456789&9\xf4\xcb")]),
    (HDLC(None), b"~ab", [(TRUNCATED, b"ab")]),
    (FEFD(), b"ab\xfeok\xfe\xfd\x03\xfe", [(NOISE, b"ab"), b"ok", (BAD_ESCAPE, b"\xfd\x03")]),
    (FEFD(), b"ab", [(NOISE, b"ab")]),
    (JT808, b"~ok\x04~ok\x05~}\x03~", [b"ok", (BAD_CHECK, b"ok\x05"), (BAD_ESCAPE, b"}\x03")]),
    (JT808, b"\x00~~x~", [(NOISE, b"\x00"), (BAD_CHECK, b"x")]),
    (COBS(), b"\x03a\x00\x03ok\x00\x02", [(BAD_LENGTH, b"\x03a"), b"ok", (TRUNCATED, b"\x02")]),
    (COBS(), b"\x01\x05a\x00\xffab\x00", [(BAD_LENGTH, b"\x01\x05a"), (BAD_LENGTH, b"\xffab")]),
    (COBS(), b"\x0a123456789\x00\x03ok\x00", [(TOO_LONG, b"\x0a123456789"), b"ok"]),
    (COBS(), b"\x0bx123456789\x00", [(TOO_LONG, b"\x0bx12345678"), (NOISE, b"9")]),
    (COBSR(), b"k\x00\x0a123456789\x00ko\x00", [b"k", (TOO_LONG, b"\x0a123456789"), b"ok"]),
    (COBSR(), b"ko", [(TRUNCATED, b"ko")]),
    (
        LengthPrefix(2),
        b"\x00\x02ok\x00\x09more\x00\x02ok",
        [b"ok", (TOO_LONG, b"\x00\x09"), (NOISE, b"more\x00\x02ok")],
    ),
    (LengthPrefix(2), b"\x00\x02ok\x00\x09", [b"ok", (TOO_LONG, b"\x00\x09")]),
    (LengthPrefix(2), b"\x00\x02ok\x00", [b"ok", (TRUNCATED, b"\x00")]),
    (LengthPrefix(2), b"\x00\x03ok", [(TRUNCATED, b"\x00\x03ok")]),
    (LengthPrefix(2, includes_itself=True), b"\x00\x01ok", [(BAD_LENGTH, b"\x00\x01"), (NOISE, b"ok")]),
    (LengthPrefix(1, offset=1, adjust=-4), b"a\x03ok", [(BAD_LENGTH, b"a\x03"), (NOISE, b"ok")]),
    (LengthPrefix(1, strip=False), b"\x07seven..\x08", [b"\x07seven..", (TOO_LONG, b"\x08")]),
    (LengthPrefix(4), b"\xff\xff\xff\xff", [(TOO_LONG, b"\xff" * 4)]),
    (LengthPrefix("varint"), b"\x80" * 12, [(BAD_LENGTH, b"\x80" * 10), (NOISE, b"\x80\x80")]),
    (LengthPrefix("varint"), b"\xff" * 9 + b"\x02", [(BAD_LENGTH, b"\xff" * 9 + b"\x02")]),
    (LengthPrefix("varint"), b"\xff" * 9 + b"\x01", [(TOO_LONG, b"\xff" * 9 + b"\x01")]),
    (LengthPrefix("varint"), b"\x02ok\x80", [b"ok", (TRUNCATED, b"\x80")]),
    (LengthPrefix(1, magic=b"AB"), b"xAxAB\x02okyA", [(NOISE, b"xAx"), b"ok", (NOISE, b"yA")]),
    (LengthPrefix(1, magic=b"AB"), b"AB\x02okA", [b"ok", (TRUNCATED, b"A")]),
    (LengthPrefix(1, magic=b"AB"), b"AB\x09moreAB\x02ok", [(TOO_LONG, b"AB\x09"), (NOISE, b"more"), b"ok"]),
    (LengthPrefix(1, magic=b"AAB"), b"AB", [(NOISE, b"AB")]),
    (LengthPrefix(1, magic=b"AB"), b"AAB\x02ok", [(NOISE, b"A"), b"ok"]),
    (Delimiter(b"\r\n"), b"ok\r\ncut\r", [b"ok", (TRUNCATED, b"cut\r")]),
    (Delimiter(b"\r\n"), b"123456789\r\nok\r\n", [(TOO_LONG, b"123456789\r"), (NOISE, b"\n"), b"ok"]),
    (Delimiter(b"\r\n"), b"123456789abc\r\nok\r\n", [(TOO_LONG, b"123456789a"), (NOISE, b"bc\r\n"), b"ok"]),
    (Delimiter(b"\r\n", b"\n"), b"123456789\nok\n", [(TOO_LONG, b"123456789\n"), b"ok"]),
    (Delimiter(b"\n"), b"12345678901", [(TOO_LONG, b"123456789"), (NOISE, b"01")]),
    (Delimiter(b"xcy", b"c"), b"1xcy2c3xcz", [b"1", b"2", b"3x", (TRUNCATED, b"z")]),
    (Delimiter(b"xcy", b"c"), b"1xcy2xc", [b"1", (TRUNCATED, b"2xc")]),
    (FixedLength(3), b"abcdefgh", [b"abc", b"def", (TRUNCATED, b"gh")]),
    (LengthOf(lambda prefix: prefix[0]), b"\x03ok\x00\x03ok", [b"\x03ok", (BAD_LENGTH, b"\x00"), (NOISE, b"\x03ok")]),
    (LengthOf(lambda prefix: 9), b"ok", [(BAD_LENGTH, b"o"), (NOISE, b"k")]),
    (LengthOf(lambda prefix: prefix[1]), b"ok", [(BAD_LENGTH, b"o"), (NOISE, b"k")]),
    (LengthOf(lambda prefix: None, most=3), b"abcd", [(BAD_LENGTH, b"abc"), (NOISE, b"d")]),
    (LengthOf(lambda prefix: "3"), b"ab", [(BAD_LENGTH, b"a"), (NOISE, b"b")]),  # type: ignore[arg-type,return-value]
    (LengthOf(lambda prefix: None, least=3), b"ab", [(TRUNCATED, b"ab")]),
]
"""With a `max_frame` of 8."""


@pytest.mark.parametrize(("framing", "stream", "expected"), MALFORMED)
def test_what_is_malformed_is_given_with_its_reason_size_and_sample(
    framing: Framing, stream: bytes, expected: Expected
) -> None:
    events = [each if isinstance(each, bytes) else Malformed.of(*each) for each in expected]
    assert events_of(framing, stream, 8) == events


def test_a_sample_has_64_bytes_and_noise_is_counted_in_all() -> None:
    decoder = LengthPrefix(1, magic=b"AB").decoder(8)
    for _ in range(1_000):
        assert decoder.feed(b"noise") == []
    assert decoder.pending == 11
    assert decoder.feed(b"AB\x00") == [Malformed(NOISE, 5_000, (b"noise" * 13)[:64]), b""]


@pytest.mark.parametrize("framing", [HDLC(None), JT808, FEFD()], ids=["HDLC", "JT/T 808", "FEFD"])
def test_a_tail_behind_a_frame_is_noise_however_the_frame_was_cut(framing: Framing) -> None:
    sent = framing.encode(b"frame")
    for cut in range(len(sent)):
        decoder = framing.decoder()
        assert [*decoder.feed(sent[:cut]), *decoder.feed(sent[cut:] + b"\r")] == [b"frame"]
        assert decoder.feed_timeout() == [Malformed(Reason.NOISE, 1, b"\r")]
        assert decoder.feed(b"\n" + sent) == [Malformed(Reason.NOISE, 1, b"\n"), b"frame"]
        decoder.feed_eof()
        decoder.feed(sent[:-1])
        assert decoder.feed_timeout() == [], "one that has begun is no noise"


def test_what_is_no_frame_begun_is_given_up_in_time() -> None:
    slip, flagged, magic, lost = (
        framing.decoder(8) for framing in (SLIP(), FEFD(), LengthPrefix(1, magic=b"AB"), LengthPrefix(1))
    )
    assert [slip.feed(b"a"), slip.feed_timeout(), slip.feed(b"b\xc0")] == [[], [], [b"ab"]]
    assert flagged.feed(b"\xfea\xfe\r\n") == [b"a"]
    assert flagged.feed_timeout() == [Malformed(NOISE, 2, b"\r\n")]
    assert flagged.feed(b"\xfe\xfea") == []
    assert flagged.feed_timeout() == []  # a frame was begun
    assert magic.feed(b"xA") == []
    assert magic.feed_timeout() == [Malformed(NOISE, 2, b"xA")]
    assert magic.feed(b"AB\x01") == []
    assert magic.feed_timeout() == []
    assert lost.feed(b"\x09ab") == [Malformed(TOO_LONG, 1, b"\x09")]
    assert lost.feed_timeout() == [Malformed(NOISE, 2, b"ab")]
    assert lost.feed(b"\x01a") == []
    assert lost.feed_eof() == [Malformed(NOISE, 2, b"\x01a")]
    assert lost.feed(b"\x01a") == [b"a"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ByteStuffing(0x100, 1, xor=1), ValueError, "flag=256 is out of range 0 to 255"),
        (lambda: ByteStuffing(b"~", 1, xor=1), TypeError, "flag is an int, not bytes"),  # type: ignore[arg-type]
        (lambda: ByteStuffing(1, -1, xor=1), ValueError, "escape=-1 is out of range 0 to 255"),
        (lambda: ByteStuffing(0x7E, 0x7E, xor=1), ValueError, "flag and escape are the same byte 7E"),
        (lambda: ByteStuffing(0x7E, 0x7D), ValueError, "either xor or map"),
        (lambda: ByteStuffing(0x7E, 0x7D, xor=1, map={}), ValueError, "either xor or map"),
        (lambda: ByteStuffing(0x7E, 0x7D, xor=0), ValueError, "xor=0 is out of range 1 to 255"),
        (lambda: ByteStuffing(0x7E, 0x7D, xor=3), ValueError, "the code of 7D is the flag 7E"),
        (lambda: ByteStuffing(0x7E, 0x7D, map={0x7D: 1}), ValueError, "map has no code for the flag 7E"),
        (lambda: ByteStuffing(0x7E, 0x7D, map={0x7E: 1}), ValueError, "map has no code for the escape 7D"),
        (lambda: ByteStuffing(0x7E, 0x7D, map={0x7E: 1, 0x7D: 1}), ValueError, "have the same code"),
        (lambda: ByteStuffing(0x7E, 0x7D, map={0x7E: 1, 0x7D: 256}), ValueError, "the code of 7D=256 is out of range"),
        (
            lambda: ByteStuffing(1, 2, map={1: 3, 2: 4, 256: 5}),
            ValueError,
            "a byte in map=256 is out of range",
        ),
        (lambda: ByteStuffing(0x7E, 0x7D, map={0x7E: 1, 0x7D: 2, 2: 3}), ValueError, "the code 02 is a byte that is"),
        (
            lambda: ByteStuffing(0x7E, 0x7D, xor=0x20, check="crc7"),  # type: ignore[arg-type]
            ValueError,
            "check='crc7' is none of 'fcs16', 'fcs32', 'crc16-modbus', 'xor', a Check or None",
        ),
        (lambda: Check(0, lambda frame: b""), ValueError, "size=0 checks nothing"),
        (lambda: HDLC("xor"), ValueError, "check='xor' is neither 'fcs16' nor"),  # type: ignore[arg-type]
        (lambda: LengthPrefix(5), ValueError, "size=5 is none of 1, 2, 3, 4, 8, 'varint'"),
        (lambda: LengthPrefix(byteorder="middle"), ValueError, "byteorder='middle' is neither"),  # type: ignore[arg-type]
        (lambda: LengthPrefix(offset=-1), ValueError, "offset=-1 is out of range 0 to "),
        (lambda: LengthPrefix(adjust="1"), TypeError, "adjust is an int, not str"),  # type: ignore[arg-type]
        (lambda: LengthPrefix(magic="AB"), TypeError, "magic is bytes, not str"),  # type: ignore[arg-type]
        (lambda: LengthPrefix(magic=b"AB", offset=1), ValueError, "offset=1 lies within the magic, which has 2 bytes"),
        (lambda: Delimiter(), ValueError, "at least one delimiter is needed"),
        (lambda: Delimiter(b"a", b""), ValueError, "at least one byte"),
        (lambda: Delimiter(b"a", b"b", b"a"), ValueError, "the delimiter b'a' comes twice"),
        (lambda: Delimiter("a"), TypeError, "a delimiter is bytes, not str"),  # type: ignore[arg-type]
        (lambda: FixedLength(0), ValueError, "size=0 is below 1"),
        (lambda: FixedLength(9).decoder(8), ValueError, "max_frame=8 is below 9"),
        (lambda: LengthOf(5), TypeError, "length_of is a function, not int"),  # type: ignore[arg-type]
        (lambda: LengthOf(len, least=0), ValueError, "least=0 is below 1"),
        (lambda: LengthOf(len, least=9, most=8), ValueError, "most=8 is below 9"),
        (lambda: SLIP().encode(b""), ValueError, "an empty frame without a check is nothing"),
        (lambda: FixedLength(3).encode(b"ab"), ValueError, "a frame has 3 bytes, not 2"),
        (lambda: LengthPrefix(1).encode(b"a" * 256), ValueError, "256 is out of range 0 to 255"),
        (lambda: LengthPrefix(1, adjust=4).encode(b"a"), ValueError, "-3 is out of range 0 to 255"),
        (lambda: LengthPrefix("varint", adjust=4).encode(b"a"), ValueError, "-3 is no varint"),
        (lambda: LengthPrefix(2, strip=False).encode(b"\x00"), ValueError, "1 bytes ends before its length field does"),
        (lambda: LengthPrefix(2, strip=False).encode(b"\x00\x05ab"), ValueError, "says that 5 bytes follow, not 2"),
        (lambda: LengthPrefix(1, strip=False, magic=b"A").encode(b"B\x00"), ValueError, "not with the magic b'A'"),
        (
            lambda: MODBUS_TCP.encode(b"\x00\x01\x00\x00\x00\x05a"),
            ValueError,
            "has 7 bytes, and its first 6 tell of 11",
        ),
        (lambda: MODBUS_TCP.encode(b"\x00"), ValueError, r"\(1 bytes\) do not tell its length"),
    ],
)
def test_wrong_arguments_are_refused_in_clear_words(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_any_byte_may_be_a_flag_an_escape_or_a_code() -> None:
    framing = ByteStuffing(0xFF, 0, map={0xFF: 1, 0: 0xFE})
    assert framing.encode(b"\xff\x00") == b"\xff\x00\x01\x00\xfe\xff"
    assert HDLC("fcs32").decoder(9).feed(HDLC("fcs32").encode(b"~}")) == [b"~}"]


@pytest.mark.parametrize("careless", [lambda frame: frame[9], lambda frame: {}[frame], lambda frame: 1 // frame[0]])
def test_a_careless_packet_codec_lets_no_bytes_raise_out_of_the_core(careless: Callable[[bytes], object]) -> None:
    class Careless:
        encode = bytes
        decode = staticmethod(careless)

    log: list[str] = []
    decoder = FrameCodec[Any](FixedLength(1), Careless(), 1, log.append).decoder()
    (malformed,) = decoder.feed(b"\x00")
    assert malformed == Malformed.of(Reason.NO_PACKET, b"\x00")
    assert malformed.detail.partition(":")[0] in ("IndexError", "KeyError", "ZeroDivisionError")
    assert log == []


def test_check_takes_a_framing_of_ones_own() -> None:
    laws.check(COBS(), st.binary(max_size=20), examples=3)
    with pytest.raises(AssertionError):
        laws.check(Forgetful(), st.just(b"a"), examples=20)


class Forgetful(FixedLength):
    """A framing that breaks a law: what a chunk leaves over is lost."""

    def __init__(self) -> None:
        super().__init__(1)

    def encode(self, frame: bytes, /) -> bytes:
        return b"(" + frame + b")"

    def decoder(self, max_frame: int = 0) -> Decoder:
        return ForgetfulDecoder()


class ForgetfulDecoder:
    pending = 0

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[bytes | Malformed]:
        return [*re.findall(rb"\((.)\)", bytes(data))]

    def feed_eof(self) -> list[Malformed]:
        return []

    def feed_timeout(self) -> list[Malformed]:
        return []


def test_only_bytes_can_be_framed_of_whatever_kind() -> None:
    codec = FrameCodec[Any](FixedLength(2), None, 2)
    assert codec.encode(bytearray(b"ab")) == codec.encode(memoryview(b"ab")) == b"ab"
    with pytest.raises(TypeError, match="only bytes can be sent, not str"):
        codec.encode("ab")
    with pytest.raises(LocalProtocolError, match="frame of 3 bytes exceeds max_payload=2"):
        codec.encode(b"abc")


class Upper:
    """A packet codec."""

    @staticmethod
    def encode(packet: str) -> bytes:
        return packet.encode()

    @staticmethod
    def decode(frame: bytes) -> str:
        if frame == b"!":
            raise AttributeError("a bug of the codec")
        return frame.decode().upper()

    def __repr__(self) -> str:
        return "Upper()"


def test_a_bug_of_a_packet_codec_is_logged_and_costs_its_frame() -> None:
    log: list[str] = []
    codec = FrameCodec[Any](FixedLength(1), Upper(), 1, log.append)
    assert codec.encode("a") == b"a"
    decoder = codec.decoder()
    _, malformed, _ = decoder.feed(b"a!b")
    assert malformed == Malformed.of(Reason.NO_PACKET, b"!")
    assert malformed.detail == "AttributeError: a bug of the codec"
    assert log == ["the packet codec Upper() raised on a frame of 1 bytes"]


def test_what_cannot_be_framed_is_a_mistake_of_this_side() -> None:
    with pytest.raises(LocalProtocolError, match=r"^a frame has 1 bytes, not 2$"):
        FrameCodec[Any](FixedLength(1), None, 9).encode(b"ab")
    with pytest.raises(TypeError, match=r"^only bytes can be sent, not int$"):
        FrameCodec[Any](FixedLength(1), None, 9).encode(1)


def test_the_limit_of_a_codec_is_that_of_its_decoder() -> None:
    (malformed, *_) = FrameCodec[Any](SLIP(), None, 3).decoder().feed(b"\xc0abcdefghi")
    assert malformed == Malformed(Reason.TOO_LONG, 7, b"abcdefg")
    assert type(FrameCodec[Any](SLIP(), None, 3).decoder()).__name__ != "_Guarded", (
        "ours is not asked by way of another"
    )


class Slow(FixedLength):
    """A framing that is none of ours, and fails at a question mark."""

    def decoder(self, max_frame: int = 0) -> Decoder:
        return SlowDecoder()


class SlowDecoder:
    def __init__(self) -> None:
        self.held = b""

    @property
    def pending(self) -> int:
        return len(self.held)

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[bytes | Malformed]:
        self.held += bytes(data)
        if b"?" in self.held:
            raise RuntimeError("a bug of the framing")
        frame, self.held = self.held[:-1], self.held[-1:]
        return [frame] if frame else []

    def feed_eof(self) -> list[Malformed]:
        return self.feed_timeout()

    def feed_timeout(self) -> list[Malformed]:
        held, self.held = self.held, b""
        return [Malformed.of(Reason.TRUNCATED, held)] if held else []


@pytest.mark.parametrize("codec", [None, Upper()], ids=["frames", "packets"])
def test_a_framing_of_ones_own_is_asked_what_is_pending_and_told_of_the_end(codec: Any) -> None:
    log: list[str] = []
    decoder = FrameCodec[Any](Slow(1), codec, 9, log.append).decoder()
    for end in (decoder.feed_eof, decoder.feed_timeout):
        assert decoder.feed(b"ab") == ["A" if codec else b"a"]
        assert decoder.pending == 1
        assert end() == [Malformed(Reason.TRUNCATED, 1, b"b")]
        assert (decoder.pending, end()) == (0, [])
    decoder.feed(b"ab")
    detail = "RuntimeError: a bug of the framing"
    for size, sample in ((4, b""), (3, b"cd?")):
        (malformed,) = decoder.feed(b"cd?")
        assert malformed == Malformed(Reason.FRAMING_FAILED, size, sample)
        assert malformed.detail == detail
    assert Malformed.of(Reason.NOISE, b"x").detail == ""
    assert (decoder.pending, log) == (0, ["the framing raised on 3 bytes"] * 2)


def test_a_framing_that_fails_at_the_end_loses_what_it_held_and_reports_nothing_where_that_was_nothing() -> None:
    class Failing(SlowDecoder):
        def feed_timeout(self) -> list[Malformed]:
            raise RuntimeError("a bug of the framing")

    class OfThem(Slow):
        def decoder(self, max_frame: int = 0) -> Decoder:
            return Failing()

    decoder = FrameCodec[Any](OfThem(1), None, 9).decoder()
    assert decoder.feed_eof() == []
    decoder.feed(b"ab")
    assert decoder.feed_eof() == [Malformed(Reason.FRAMING_FAILED, 1, b"")]


def test_a_datagram_of_another_framing_is_whole_and_no_longer_than_it_may_be() -> None:
    frames = DatagramFrames(FrameCodec[Any](SLIP(), None, 100), 6)
    assert frames.encode(b"abcd") == b"\xc0abcd\xc0"
    with pytest.raises(LocalProtocolError, match="packet of 7 bytes as sent exceeds max_datagram=6"):
        frames.encode(b"abcde")
    assert frames.feed(b"\xc0ab\xc0cd") == [b"ab", Malformed(Reason.TRUNCATED, 2, b"cd")]
    assert frames.feed(b"\xc0a\xc0b\xc0") == [b"a", b"b"]
    assert frames.feed(b"\xc0abcde\xc0") == [Malformed(Reason.DATAGRAM_TOO_LONG, 7, b"\xc0abcde\xc0")]
    assert (frames.pending, frames.feed_eof(), frames.feed_timeout(), frames.may_begin(b"ab", [])) == (0, [], [], False)
