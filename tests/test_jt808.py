"""examples/jt808: frames as others published them, what is refused, fragments, and the whole scene."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.jt808.bodies import (
    BODIES,
    FAILED,
    OK,
    WRONG,
    Authentication,
    Batch,
    Body,
    Fragment,
    Heartbeat,
    Logout,
    Multimedia,
    MultimediaReply,
    ParameterQuery,
    ParameterReply,
    PlatformReply,
    PositionReport,
    Raw,
    Registration,
    RegistrationReply,
    ResendRequest,
    TerminalReply,
    Text,
    decode_body,
)
from examples.jt808.commands import command
from examples.jt808.fragments import COST, REMEMBERED, Joiner, Unfinished, split
from examples.jt808.gateway import CONFIG, Gateway
from examples.jt808.packet import FRAMING, MAX_BODY, MAX_FRAME, JT808Codec, JT808Packet, answers
from examples.jt808.position import CHINA, Position
from examples.jt808.progress import Progress
from examples.jt808.scene import Scene, new_terminal, photo_data, photo_of, position_of
from examples.jt808.terminal import SignInFailed, Terminal
from packetcore import CloseReason, Malformed, PacketCodec, Reason, Session
from packetcore.framings import ByteStuffing
from packetcore_asyncio import Server, connect, serve

DEADLINE = 10.0

codec = JT808Codec()
of_packetcore: PacketCodec[JT808Packet] = codec

# What others published.

POSITION_OF_README = Position(
    latitude=12.222222,
    longitude=132.444444,
    time=datetime(2018, 10, 15, 10, 10, 10, tzinfo=CHINA),
    altitude=40,
    speed=6.0,
    direction=0,
    status=2,
    alarm=1,
    extras=((1, bytes.fromhex("00000064")), (2, bytes.fromhex("007D"))),
)

PUBLISHED = {
    # README.md of github.com/SmallChi/JT808; with both escapes in it.
    "7E02000026123456789012007D02000000010000000200BA7F0E07E4F11C0028003C0000181015101010"
    "010400000064020200"
    "7D01137E": JT808Packet("123456789012", 126, PositionReport(POSITION_OF_README)),
    # Tests of the same: JT808_0x0100Test, 0x0102Test and 0x0104Test.
    "7E0100002D000123456789000A002800323132333430736D616C6C63686931323330303030303030303043484931323330"
    "01D4C1413132333435BA7E": JT808Packet(
        "000123456789",
        10,
        Registration(
            province=40,
            city=50,
            maker="12340",
            model="smallchi123000000000",
            terminal="CHI1230",
            colour=1,
            plate="粤A12345",
        ),
    ),
    "7E010040540100000000000123456789000A00280032303030303030303132333430303030303030303030303030303030303030"
    "736D616C6C63686931323330303030303030303030303030303030303030303030303043484931323301D4C1413132333435B27E": (
        JT808Packet(
            "00000000000123456789",
            10,
            Registration(
                province=40,
                city=50,
                maker="00000001234",
                model="smallchi123".rjust(30, "0"),
                terminal="CHI123".rjust(30, "0"),
                colour=1,
                plate="粤A12345",
            ),
            version=1,
        )
    ),
    "7E010200090123456789003039343536313231313131BE7E": JT808Packet("012345678900", 12345, Authentication("456121111")),
    "7E0104000C000123456789000A00140100000001040000000A907E": JT808Packet(
        "000123456789", 10, ParameterReply(20, ((1, bytes([0, 0, 0, 10])),))
    ),
    # HuabaoProtocolDecoderTest of github.com/traccar/traccar.
    "7E0100002D013511221122000500000000373031303748422D52303347424400000000000000000000003233363631303402"
    "CBD5424136383630387E": JT808Packet(
        "013511221122",
        5,
        Registration(
            province=0, city=0, maker="70107", model="HB-R03GBD", terminal="2366104", colour=2, plate="苏BA6860"
        ),
    ),
    # huabaotelematics.com, "JT808 common message parsing of GPS electronic lock".
    "7E0102000D002002604325000138333030323030323630343332137E": JT808Packet(
        "002002604325", 1, Authentication("8300200260432")
    ),
    "7E80010005002002604323000900EE020000437E": JT808Packet("002002604323", 9, PlatformReply(0xEE, 0x0200)),
    # e-com-net.com, on the reply to a registration.
    "7E8100000C0404571031660030003000736875616E67776569E07E": JT808Packet(
        "040457103166", 48, RegistrationReply(48, OK, "shuangwei")
    ),
    # codec-utils.ts of github.com/makeclan/xtream-codec, most with the header of 2019.
    "7E8001400501000000000139123443290000006F020000DC7E": JT808Packet(
        "00000000013912344329", 0, PlatformReply(111, 0x0200), 1
    ),
    "7E800300090139123443230000006F030002000300049D7E": JT808Packet("013912344323", 0, ResendRequest(111, (2, 3, 4))),
    "7E8003400A01000000000139123443290000006F0003000200030004D57E": JT808Packet(
        "00000000013912344329", 0, ResendRequest(111, (2, 3, 4)), 1
    ),
    "7E8104400001000000000139123443290000B07E": JT808Packet("00000000013912344329", 0, ParameterQuery(), 1),
    "7E8300001901391234432300000148656C6C6F576F726C6420BABAD7D62047424B20B1E0C2EBF27E": JT808Packet(
        "013912344323", 0, Text("HelloWorld 汉字 GBK 编码")
    ),
    "7E8300401A01000000000139123443290000010148656C6C6F576F726C6420BABAD7D62047424B20B1E0C2EBBB7E": JT808Packet(
        "00000000013912344329", 0, Text("HelloWorld 汉字 GBK 编码", kind=1), 1
    ),
    "7E08014029010000000001391234432900000000006F0000077B000000010000000201D907F2073D336C0064003C004E"
    "14102119510901020304053E7E": JT808Packet(
        "00000000013912344329",
        0,
        Multimedia(
            number=111,
            event=7,
            channel=123,
            position=Position(
                latitude=31.000562,
                longitude=121.451372,
                time=datetime(2014, 10, 21, 19, 51, 9, tzinfo=CHINA),
                altitude=100,
                speed=6.0,
                direction=78,
                status=2,
                alarm=1,
            ),
            data=bytes([1, 2, 3, 4, 5]),
        ),
        1,
    ),
    "7E0704403F01000000000139123443290000000200001C000000010000000101D907F2073D336C029A00210059241029213903"
    "001C000000010000000101D907F3073D336D03090043005A241029213903F87E": JT808Packet(
        "00000000013912344329",
        0,
        Batch(
            0,
            tuple(
                Position(
                    latitude=latitude,
                    longitude=longitude,
                    time=datetime(2024, 10, 29, 21, 39, 3, tzinfo=CHINA),
                    altitude=altitude,
                    speed=speed,
                    direction=direction,
                    status=1,
                    alarm=1,
                )
                for latitude, longitude, altitude, speed, direction in [
                    (31.000562, 121.451372, 666, 3.3, 89),
                    (31.000563, 121.451373, 777, 6.7, 90),
                ]
            ),
        ),
        1,
    ),
}


def decode_all(data: bytes) -> list[Any]:
    """What a stream of bytes holds."""
    return [
        frame if isinstance(frame, Malformed) else codec.decode(frame)
        for frame in FRAMING.decoder(MAX_FRAME).feed(data)
    ]


def test_the_standard_s_own_example_of_escaping() -> None:
    # Section 4.4.2. Its last byte is no check of the others: it shows escapes alone.
    framing = ByteStuffing(flag=0x7E, escape=0x7D, map={0x7E: 2, 0x7D: 1})
    assert framing.encode(bytes.fromhex("30 7E 08 7D 55")) == bytes.fromhex("7E 30 7D 02 08 7D 01 55 7E")
    assert framing.decoder().feed(bytes.fromhex("7E 30 7D 02 08 7D 01 55 7E")) == [bytes.fromhex("30 7E 08 7D 55")]


@pytest.mark.parametrize("frame", PUBLISHED, ids=lambda frame: frame[2:6])
def test_a_published_frame_is_read_and_made(frame: str) -> None:
    assert decode_all(bytes.fromhex(frame)) == [PUBLISHED[frame]]
    assert FRAMING.encode(codec.encode(PUBLISHED[frame])) == bytes.fromhex(frame)


def test_a_published_report_with_items_of_a_maker_s_own() -> None:
    # huabaotelematics.com, as above.
    data = bytes.fromhex(
        "7E 02 00 00 52 00 20 02 60 43 23 00 A4 00 02 00 00 00 0C 00 02 01 58 B9 1B 06 CB 70 61 00 46 00"
        "00 00 59 21 09 22 16 37 58 01 04 00 00 00 01 03 02 00 00 25 04 00 00 00 01 30 01 11 31 01 10 E3"
        "01 00 D5 1B 02 20 02 60 43 23 27 95 93 78 61 60 00 12 20 00 00 12 34 27 95 93 78 61 58 00 12 86 7E"
    )
    (packet,) = decode_all(data)
    position = packet.body.position
    assert (position.latitude, position.longitude) == (22.591771, 113.995873)
    assert position.time == datetime(2021, 9, 22, 16, 37, 58, tzinfo=CHINA)
    assert [number for number, _ in position.extras] == [0x01, 0x03, 0x25, 0x30, 0x31, 0xE3, 0xD5]
    assert FRAMING.encode(codec.encode(packet)) == data


def test_a_published_frame_whose_header_lies_is_refused() -> None:
    # The registration in LuatOS's demo of JT/T 808: three bytes of a serial number, "101", stand for two.
    data = bytes.fromhex(
        "7E01000030018068821447313031000C007B3130303031475438303800000000000000000000000000000000"
        "000000000002003431303438303633323132627E"
    )
    with pytest.raises(ValueError, match="the header says 48 bytes of body, and 49 came"):
        decode_all(data)


# Round trips.

u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
versions = st.none() | st.integers(1, 255)
letters = st.characters(codec="gbk", exclude_characters="\0")
texts = st.text(letters, max_size=40)
times = st.none() | st.datetimes(
    datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(CHINA)
).map(lambda time: time.replace(microsecond=0))  # fmt: skip


def fitting(size: int) -> st.SearchStrategy[str]:
    return texts.map(lambda text: text.encode("gbk")[:size].decode("gbk", "ignore"))


positions = st.builds(
    Position,
    latitude=st.integers(-90_000_000, 90_000_000).map(lambda value: value / 1e6),
    longitude=st.integers(-180_000_000, 180_000_000).map(lambda value: value / 1e6),
    time=times,
    altitude=u16,
    speed=u16.map(lambda tenths: tenths / 10),
    direction=st.integers(0, 359),
    status=u32.map(lambda bits: bits & ~0b1100),
    alarm=u32,
)
items = st.lists(st.tuples(u8, st.binary(max_size=20)), max_size=5).map(tuple)
full_positions = st.builds(lambda position, extras: replace(position, extras=extras), positions, items)


def bodies(version: int | None) -> st.SearchStrategy[Body]:
    maker, model, terminal = (5, 20, 7) if version is None else (11, 30, 30)
    is_new = version is not None
    return st.one_of(
        st.builds(TerminalReply, u16, u16, u8),
        st.builds(PlatformReply, u16, u16, u8),
        st.sampled_from([Heartbeat(), Logout(), ParameterQuery()]),
        st.builds(
            Registration,
            province=u16,
            city=u16,
            maker=fitting(maker),
            model=fitting(model),
            terminal=fitting(terminal),
            colour=u8,
            plate=texts,
        ),
        st.builds(RegistrationReply, u16, st.just(0), texts),
        st.builds(RegistrationReply, u16, u8),
        st.builds(Authentication, texts, *([fitting(15), fitting(20)] if is_new else [])),
        st.builds(PositionReport, full_positions),
        st.builds(Batch, u8, st.lists(full_positions, max_size=4).map(tuple)),
        st.builds(ParameterReply, u16, st.lists(st.tuples(u32, st.binary(max_size=20)), max_size=5).map(tuple)),
        st.builds(Text, texts, u8, *([u8] if is_new else [])),
        st.builds(
            Multimedia,
            number=u32,
            position=positions,
            data=st.binary(max_size=200),
            kind=u8,
            format=u8,
            event=u8,
            channel=u8,
        ),
        st.builds(MultimediaReply, u32),
        st.builds(ResendRequest, u16, st.lists(u16, max_size=255).map(tuple)),
        st.builds(Raw, u16.filter(lambda number: number not in BODIES), st.binary(max_size=MAX_BODY)),
        st.builds(
            lambda number, total, share, data: Fragment(number, total, 1 + share % total, data),
            u16,
            st.integers(1, 65535),
            u16,
            st.binary(max_size=MAX_BODY),
        ),
    )


@st.composite
def packets(draw: st.DrawFn) -> JT808Packet:
    version = draw(versions)
    digits = 12 if version is None else 20
    phone = f"{draw(st.integers(0, 10**digits - 1)):0{digits}}"
    return JT808Packet(phone, draw(u16), draw(bodies(version)), version)


@given(packets())
def test_what_is_sent_is_received(packet: JT808Packet) -> None:
    assert codec.decode(codec.encode(packet)) == packet


@given(st.lists(packets(), max_size=4), st.integers(1, 50))
def test_packets_come_however_the_stream_is_cut(sent: list[JT808Packet], size: int) -> None:
    data = b"".join(FRAMING.encode(codec.encode(packet)) for packet in sent)
    decoder = FRAMING.decoder(MAX_FRAME)
    frames = [frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])]
    assert all(isinstance(frame, bytes) for frame in frames)
    assert [codec.decode(frame) for frame in frames if isinstance(frame, bytes)] == sent


@given(st.binary(max_size=80))
def test_any_bytes_are_a_packet_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        codec.decode(data)


@given(packets(), st.data())
def test_a_damaged_frame_is_a_packet_or_a_value_error(packet: JT808Packet, data: st.DataObject) -> None:
    frame = bytearray(codec.encode(packet))
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(ValueError):
        codec.decode(bytes(frame))


@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=120), versions)
def test_any_bytes_are_a_body_or_a_value_error(number: int, data: bytes, version: int | None) -> None:
    with contextlib.suppress(ValueError):
        decode_body(number, data, version)


# What is refused, made by hand from the standard's layout.

PHONE = "013900000001"
NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=CHINA)


def frame(number: int, body: str = "", *, attributes: int | None = None, phone: str = PHONE, place: str = "") -> bytes:
    data = bytes.fromhex(body)
    attributes = len(data) if attributes is None else attributes
    return bytes.fromhex(f"{number:04X}{attributes:04X}{phone}0007{place}") + data


POSITION = "00000000 00000002 01D907F2 073D336C 0064 003C 004E"
MALFORMED = {
    "nothing": (b"", "a header has 4 bytes or more, not 0"),
    "half a header": (frame(0x0002)[:11], "a header has 12 bytes or more, not 11"),
    "half a header of 2019": (frame(0x0002, attributes=0x4000), "a header of 2019 has 17 bytes or more, not 12"),
    "encrypted": (frame(0x0002, attributes=0x0400), "attributes 0400: the body is encrypted"),
    "a reserved bit": (frame(0x0002, attributes=0x8000), "attributes 8000: bit 15 is reserved"),
    "a phone number of letters": (frame(0x0002, phone="0139000000A1"), "the phone number 0139000000a1 is not BCD"),
    "a body too short": (frame(0x0102, "31", attributes=2), "the header says 2 bytes of body, and 1 came"),
    "a body too long": (frame(0x0102, "313233", attributes=2), "the header says 2 bytes of body, and 3 came"),
    "no place": (frame(0x0801, attributes=0x2000), "the place of a fragment has 4 bytes or more, not 0"),
    "fragment 0": (frame(0x0801, attributes=0x2000, place="00030000"), "fragment 0 of 3"),
    "fragment 4 of 3": (frame(0x0801, attributes=0x2000, place="00030004"), "fragment 4 of 3"),
    "fragment 1 of 0": (frame(0x0801, attributes=0x2000, place="00000001"), "fragment 1 of 0"),
    "a heartbeat that says something": (frame(0x0002, "00"), "message 0002: Heartbeat has no body, and 1 bytes came"),
    "a reply too short": (frame(0x0001, "00078300"), "message 0001: a general reply has 5 bytes, not 4"),
    "a reply too long": (frame(0x8001, "000702000000"), "message 8001: a general reply has 5 bytes, not 6"),
    "a registration too short": (frame(0x0100, "00" * 36), "message 0100: a registration has 37 bytes or more, not 36"),
    "a plate that is not GBK": (frame(0x0100, "00" * 37 + "FF"), "message 0100: plate ff is not GBK"),
    "a code with a failure": (frame(0x8100, "00070331"), "a code '1' goes with the result 0, not with 3"),
    "a position too short": (frame(0x0200, "00" * 27), "message 0200: a position has 28 bytes or more, not 27"),
    "a time that is not BCD": (frame(0x0200, POSITION + "26070112005A"), "the time 26070112005a is not BCD"),
    "a month 13": (frame(0x0200, POSITION + "261301120000"), "the time 261301120000 is none: month must be in 1..12"),
    "a latitude of 91": (
        frame(0x0200, POSITION.replace("01D907F2", "056C8CC0") + "260701120000"),
        "latitude 91000000, longitude 121451372, in millionths, is not on Earth",
    ),
    "a direction of 360": (
        frame(0x0200, POSITION.replace("004E", "0168") + "260701120000"),
        "direction=360 is out of range 0 to 359",
    ),
    "an extra cut off": (
        frame(0x0200, POSITION + "260701120000" + "0104000000"),
        "the extra 1 has 4 bytes, and 3 are left",
    ),
    "half an extra": (frame(0x0200, POSITION + "260701120000" + "01"), "the extra has 2 bytes or more, not 1"),
    "a parameter too many": (frame(0x0104, "0007 00 00000001 01 05"), "a reply with 0 parameters holds 1"),
    "a parameter cut off": (frame(0x0104, "0007 01 00000001 04 05"), "the parameter 1 has 4 bytes, and 1 are left"),
    "a batch of one that holds none": (frame(0x0704, "0001 00"), "a batch of 1 positions holds 0"),
    "a batch cut off": (frame(0x0704, "0001 00 001C 00"), "a position has 28 bytes, and 1 are left"),
    "multimedia without a position": (frame(0x0801, "00" * 8), "message 0801: a position has 28 bytes or more, not 0"),
    "indexes cut off": (frame(0x8003, "0007 02 0001"), "message 8003: 2 indexes have 4 bytes, not 2"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_wrong_with_a_frame_is_said_in_words(case: str) -> None:
    data, words = MALFORMED[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the words follow
        codec.decode(data)
    assert words in str(raised.value)
    assert type(raised.value) is ValueError


HERE = Position(latitude=22.5, longitude=114.0, time=NOW)

UNSENDABLE = {
    "a short phone number": (JT808Packet("13900000001", 0, Heartbeat()), "the phone number has 12 digits"),
    "an old phone number in a new header": (JT808Packet(PHONE, 0, Heartbeat(), 1), "the phone number has 20 digits"),
    "a phone number of letters": (JT808Packet("01390000000A", 0, Heartbeat()), "is not '01390000000A'"),
    "a serial number above 65535": (JT808Packet(PHONE, 65536, Heartbeat()), "a header:"),
    "a body of 1024 bytes": (JT808Packet(PHONE, 0, Raw(9, bytes(1024))), "a body of 1024 bytes exceeds 1023"),
    "fragment 3 of 2": (JT808Packet(PHONE, 0, Fragment(9, 2, 3, b"")), "fragment 3 of 2"),
    "a character that GBK lacks": (JT808Packet(PHONE, 0, Text("🚌")), "text '🚌' is not in GBK"),
    "NUL in a text": (JT808Packet(PHONE, 0, Text("a\0")), r"text 'a\x00' holds NUL"),
    "a kind of text in an old header": (JT808Packet(PHONE, 0, Text("a", kind=1)), "kind=1 is of the header of 2019"),
    "an IMEI in an old header": (JT808Packet(PHONE, 0, Authentication("1", imei="8")), "of the header of 2019"),
    "a code with a failure": (JT808Packet(PHONE, 0, RegistrationReply(0, 1, "c")), "goes with the result 0"),
    "a maker of six letters": (
        JT808Packet(
            PHONE,
            0,
            Registration(province=0, city=0, maker="MAKERS", model="", terminal="", colour=0, plate=""),
        ),
        "maker 'MAKERS' takes 6 bytes and has room for 5",
    ),
    "a time without a zone": (
        JT808Packet(PHONE, 0, PositionReport(Position(latitude=0, longitude=0, time=datetime(2026, 1, 1)))),
        "has no time zone",
    ),
    "a time of the last century": (
        JT808Packet(PHONE, 0, PositionReport(Position(latitude=0, longitude=0, time=NOW - timedelta(days=20_000)))),
        "is not of this century",
    ),
    "a place that is none": (
        JT808Packet(PHONE, 0, PositionReport(Position(latitude=float("nan"), longitude=0, time=None))),
        "is not on Earth",
    ),
    "a speed below 0": (
        JT808Packet(PHONE, 0, PositionReport(Position(latitude=0, longitude=0, time=None, speed=-1))),
        "speed=-1 is out of range",
    ),
    "south twice": (
        JT808Packet(PHONE, 0, PositionReport(Position(latitude=0, longitude=0, time=None, status=4))),
        "status=0x4 says south or west",
    ),
    "a photo with extras": (
        JT808Packet(PHONE, 0, Multimedia(number=1, position=POSITION_OF_README, data=b"")),
        "has no extras",
    ),
}


@pytest.mark.parametrize("case", UNSENDABLE)
def test_what_cannot_be_sent_is_said_in_words(case: str) -> None:
    packet, words = UNSENDABLE[case]
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the words follow
        codec.encode(packet)
    assert words in str(raised.value)


def test_what_is_no_packet_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="only a JT808Packet can be sent, not b'bytes'"):
        of_packetcore.encode(b"bytes")  # type: ignore[arg-type]


def test_a_terminal_without_a_fix_sends_zeros_for_the_time() -> None:
    packet = codec.decode(frame(0x0200, POSITION + "00" * 6))
    assert isinstance(packet.body, PositionReport)
    assert packet.body.position.time is None


def test_a_reply_names_the_packet_that_it_answers() -> None:
    query = JT808Packet(PHONE, 7, ParameterQuery())
    assert answers(query, JT808Packet(PHONE, 0, ParameterReply(7, ())))
    assert answers(query, JT808Packet(PHONE, 0, TerminalReply(7, 0x8104, FAILED)))
    assert not answers(query, JT808Packet(PHONE, 0, ParameterReply(8, ())))
    assert not answers(query, JT808Packet(PHONE, 0, TerminalReply(7, 0x8300)))
    assert not answers(query, JT808Packet(PHONE, 0, RegistrationReply(7, OK)))
    assert not answers(query, JT808Packet(PHONE, 7, Heartbeat()))


# Fragments.

PHOTO = Multimedia(number=5, position=HERE, data=bytes(range(256)) * 8)

PIECES = split(PHONE, 0xFFFD, PHOTO, size=300)
"""Seven, whose serial numbers pass 65535."""


def add_all(joiner: Joiner, sent: Sequence[JT808Packet], now: float = 0.0, *, sender: int = 1) -> list[bytes]:
    """What becomes whole."""
    return [whole for packet in sent if (whole := joiner.add(sender, packet, now)) is not None]


def test_a_short_message_is_not_cut() -> None:
    assert split(PHONE, 3, Heartbeat()) == [JT808Packet(PHONE, 3, Heartbeat())]


def test_a_long_message_is_cut_to_packets_whose_serial_numbers_follow_each_other() -> None:
    assert [packet.serial for packet in PIECES] == [0xFFFD, 0xFFFE, 0xFFFF, 0, 1, 2, 3]
    assert [packet.body.index for packet in PIECES if isinstance(packet.body, Fragment)] == [1, 2, 3, 4, 5, 6, 7]
    assert all(codec.decode(codec.encode(packet)) == packet for packet in PIECES)


def test_a_message_of_too_many_fragments_is_not_cut() -> None:
    with pytest.raises(ValueError, match="takes 65536 packets, and 65535 can be counted"):
        split(PHONE, 0, Raw(9, bytes(65_536)), size=1)


@given(st.lists(st.integers(0, 6), max_size=10), st.permutations(range(7)), st.lists(st.integers(0, 6), max_size=10))
def test_fragments_join_in_any_order_and_however_often_they_come(
    first: list[int], order: list[int], later: list[int]
) -> None:
    joiner = Joiner()
    sent = [PIECES[index] for index in (*first, *order, *later)]
    (whole,) = add_all(joiner, sent)
    assert decode_body(0x0801, whole, None) == PHOTO
    assert joiner.duplicates == len(sent) - 7
    assert (len(joiner), joiner.held) == (0, 0)


def test_messages_of_several_senders_and_of_one_do_not_mix() -> None:
    joiner = Joiner()
    other = split(PHONE, 100, Multimedia(number=6, position=HERE, data=b"~" * 2_000), size=300)
    mixed = [packet for pair in zip(PIECES, other, strict=True) for packet in pair]
    assert len(add_all(joiner, mixed[:-2])) == 0
    assert len(add_all(joiner, mixed[:-2], sender=2)) == 0
    assert [decode_body(0x0801, whole, None) for whole in add_all(joiner, mixed[-2:], sender=2)] == [
        PHOTO,
        Multimedia(number=6, position=HERE, data=b"~" * 2_000),
    ]
    assert len(joiner) == 2
    assert joiner.forget(1) == 2
    assert joiner.forget(1) == 0
    assert (len(joiner), joiner.held) == (0, 0)


def test_missing_fragments_are_asked_for_some_times_and_then_given_up() -> None:
    joiner = Joiner(timeout=60, resend_after=5, resends=2)
    unfinished = Unfinished(1, 0x0801, 0xFFFD, (2, 6))
    add_all(joiner, [PIECES[index] for index in (0, 2, 3, 4, 6)], 100)
    asked = [now for now in range(100, 160) for stalled in joiner.stalled(now) if stalled == unfinished]
    assert asked == [105, 110]
    assert joiner.expire(159.9) == []
    assert joiner.expire(160) == [unfinished]
    assert (len(joiner), joiner.held) == (0, 0)


def test_missing_fragments_that_come_again_make_the_message_whole() -> None:
    joiner = Joiner(resend_after=5)
    add_all(joiner, PIECES[1:], 100)
    (stalled,) = joiner.stalled(105)
    assert stalled.missing == (1,)
    assert len(add_all(joiner, [PIECES[index - 1] for index in stalled.missing], 106)) == 1
    assert list(joiner.stalled(1_000)) == joiner.expire(1_000) == []


def test_one_request_names_255_fragments_at_most() -> None:
    joiner = Joiner()
    add_all(joiner, split(PHONE, 0, Raw(9, bytes(1_000)), size=1)[:1])
    (stalled,) = joiner.stalled(1_000)
    assert stalled.missing == tuple(range(2, 257))
    codec.encode(JT808Packet(PHONE, 0, ResendRequest(stalled.serial, stalled.missing)))


@pytest.mark.parametrize("contradicting", [Fragment(0x0801, 8, 1, b"other"), Fragment(0x0801, 7, 1, b"other")])
def test_a_fragment_that_contradicts_another_begins_the_message_anew(contradicting: Fragment) -> None:
    joiner = Joiner()
    add_all(joiner, PIECES[:6])
    add_all(joiner, [replace(PIECES[0], body=contradicting)])
    assert joiner.held == len(b"other") + COST
    assert add_all(joiner, PIECES[6:]) == []
    assert len(add_all(joiner, PIECES)) == 1


def test_after_a_whole_message_another_may_have_its_serial_numbers() -> None:
    joiner = Joiner()
    other = split(PHONE, 0xFFFD, Multimedia(number=6, position=HERE, data=b"~" * 2_000), size=300)
    assert len(add_all(joiner, [*PIECES, *other])) == 2


def test_no_more_than_some_whole_messages_are_remembered() -> None:
    joiner = Joiner()
    for serial in range(0, 4 * REMEMBERED, 2):
        assert len(add_all(joiner, split(PHONE, serial, Raw(9, b"ab"), size=1))) == 1
    assert len(joiner._whole) == REMEMBERED


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_pieces": 6}, "message 0801: 7 pieces exceed max_pieces=6"),
        ({"max_message": 1_000}, "message 0801: it exceeds max_message=1000"),
        ({"max_held": 1_000}, "message 0801: unfinished messages take max_held=1000 bytes already"),
    ],
)
def test_a_limit_that_is_exceeded_is_named_and_the_message_given_up(limits: dict[str, int], words: str) -> None:
    joiner = Joiner(**limits)
    with pytest.raises(ValueError, match=words):
        add_all(joiner, PIECES)
    assert (len(joiner), joiner.held) == (0, 0)


def test_one_sender_s_unfinished_messages_are_limited_and_not_another_s() -> None:
    joiner = Joiner(max_pending=2)
    for serial in (0, 100):
        add_all(joiner, split(PHONE, serial, PHOTO, size=300)[:3])
    with pytest.raises(ValueError, match="max_pending=2 messages of this sender are unfinished already"):
        add_all(joiner, split(PHONE, 200, PHOTO, size=300)[:3])
    assert len(joiner) == 2
    assert len(add_all(joiner, PIECES, sender=2)) == 1
    assert len(add_all(joiner, split(PHONE, 100, PHOTO, size=300)[3:])) == 1
    assert len(add_all(joiner, split(PHONE, 200, PHOTO, size=300))) == 1


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 8), st.integers(1, 4), st.integers(0, 3), st.binary(max_size=60)),
        max_size=60,
    )
)
def test_whatever_comes_the_joiner_s_books_are_right_and_its_limits_hold(
    sent: list[tuple[int, int, int, int, bytes]],
) -> None:
    joiner = Joiner(max_pieces=3, max_message=400, max_pending=2, max_held=900, timeout=10)
    for now, (sender, serial, total, share, data) in enumerate(sent):
        body = Fragment(9, total, 1 + share % total, data)
        with contextlib.suppress(ValueError):
            joiner.add(sender, JT808Packet(PHONE, serial, body), now)
        held = [pending.held for pending in joiner._pending.values()]
        assert sum(held) == joiner.held <= 900
        assert max(held, default=0) <= 400
        senders = [key[0] for key in joiner._pending]
        assert all(senders.count(sender) == joiner._of[sender] <= 2 for sender in (1, 2, 3))
        assert all(key[0] for key in joiner._pending)
        joiner.expire(now)
        assert all(now - pending.begun < 10 for pending in joiner._pending.values())
    joiner.expire(1_000)
    assert (len(joiner), joiner.held, dict(joiner._of)) == (0, 0, {})


def test_only_fragments_can_be_joined() -> None:
    with pytest.raises(TypeError, match="is no Fragment"):
        Joiner().add(1, JT808Packet(PHONE, 0, Heartbeat()), 0.0)


# Over loopback.


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, DEADLINE))
    gc.collect()  # what was left open warns here, and a warning is an error


async def until(condition: Callable[[], object]) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Server[JT808Packet]]:
    async with await serve(gateway, config=CONFIG, framing=FRAMING, codec=JT808Codec()) as server:
        yield server


@contextlib.asynccontextmanager
async def signed_in(server: Server[JT808Packet], terminal: Terminal) -> AsyncIterator[Terminal]:
    await terminal.connect(*server.address[:2])
    await terminal.sign_in()
    try:
        yield terminal
    finally:
        terminal.session.close()
        assert terminal.over is not None
        await terminal.over


class Silent(Progress):
    """Says nothing."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())


def test_the_whole_scene() -> None:
    scene = Scene(50, progress=Silent())
    run(scene.play())
    counts = scene.gateway.counts
    assert counts.pop("requests for fragments") >= 5
    assert counts == {
        "registrations": 50,
        "authentications": 55,
        "heartbeats": 50,
        "positions": 150,
        "fragments": counts["fragments"],
        "uploads": 50,
        "sessions ended: REPLACED": 5,
        "sessions ended: PEER": 50,
    }
    assert counts["fragments"] >= 50 * len(split(PHONE, 0, photo_of(new_terminal(0), 8_000), size=512))
    assert scene.photos_alike == 50
    assert (len(scene.gateway.joiner), scene.gateway.joiner.held) == (0, 0)
    assert len(scene.gateway.accounts) == 50


def test_a_terminal_that_comes_again_from_another_port_replaces_its_session() -> None:
    async def main() -> None:
        gateway = Gateway()
        async with serving(gateway) as server, signed_in(server, new_terminal(1)) as terminal:
            first = server.sessions.find(terminal.phone)
            again = Terminal(terminal.phone, terminal.registration, code=terminal.code)
            async with signed_in(server, again):
                assert terminal.over is not None
                assert await terminal.over is CloseReason.PEER
                await until(lambda: gateway.counts["sessions ended: REPLACED"])
                second = server.sessions.find(terminal.phone)
                assert first is not None
                assert second is not None
                assert first.close_reason is CloseReason.REPLACED
                assert first.peer != second.peer
                await again.beat()

    run(main())


def test_commands_are_paired_with_their_replies_by_serial_number() -> None:
    async def main() -> None:
        gateway = Gateway()
        async with serving(gateway) as server, signed_in(server, new_terminal(3)) as terminal:
            session = server.sessions.find(terminal.phone)
            assert session is not None
            bodies: list[Body] = [ParameterQuery(), Text("一"), ParameterQuery(), Text("二"), Raw(0x8105, b"\4")]
            replies = await asyncio.gather(*(command(gateway, session, body) for body in bodies))
            serials = [reply.body.serial for reply in replies if isinstance(reply.body, ParameterReply | TerminalReply)]
            assert serials == [*range(serials[0], serials[0] + 5)]
            assert [type(reply.body) for reply in replies] == [
                ParameterReply,
                TerminalReply,
                ParameterReply,
                TerminalReply,
                TerminalReply,
            ]
            assert terminal.texts == ["一", "二"]
            assert all(reply.version == 1 for reply in replies)

    run(main())


def test_a_command_without_a_reply_is_given_up_and_a_late_reply_is_counted() -> None:
    class Slow(Terminal):
        def packet_received(self, session: Session[JT808Packet], packet: JT808Packet) -> None:
            asyncio.get_running_loop().call_later(0.1, super().packet_received, session, packet)

    async def main() -> None:
        gateway = Gateway()
        terminal = Slow(PHONE, new_terminal(1).registration)
        async with serving(gateway) as server, signed_in(server, terminal):
            session = server.sessions.find(PHONE)
            assert session is not None
            with pytest.raises(TimeoutError):
                await command(gateway, session, ParameterQuery(), timeout=0.02)
            await until(lambda: gateway.counts["replies nobody waits for"])

    run(main())


def test_a_lost_fragment_is_asked_for_and_one_that_never_comes_is_given_up() -> None:
    async def main() -> None:
        clock = Clock()
        gateway = Gateway(clock, joiner=Joiner(timeout=60, resend_after=5, resends=1))
        async with serving(gateway) as server, signed_in(server, new_terminal(1)) as terminal:
            upload = asyncio.create_task(terminal.upload(PHOTO, size=300, lost=(2, 7)))
            await until(lambda: gateway.counts["fragments"] == 5)
            clock.now = 4.9
            gateway.tick(server.sessions)
            assert gateway.counts["requests for fragments"] == 0
            clock.now = 5
            gateway.tick(server.sessions)
            await upload
            assert (gateway.counts["uploads"], terminal.resent) == (1, 2)

            for packet in split(terminal.phone, 1_000, PHOTO, size=300)[1:]:
                terminal.session.send(packet)
            await until(lambda: len(gateway.joiner) == 1 and gateway.counts["fragments"] == 13)
            clock.now = 10
            gateway.tick(server.sessions)
            assert gateway.counts["requests for fragments"] == 2
            clock.now = 65
            gateway.tick(server.sessions)
            assert gateway.counts["messages given up"] == 1
            assert (len(gateway.joiner), gateway.joiner.held) == (0, 0)

            terminal.session.send(packet)
            await until(lambda: len(gateway.joiner) == 1)
        await until(lambda: gateway.counts["messages given up"] == 2)  # its sender has gone
        assert gateway.joiner.held == 0

    run(main())


def test_a_fragmented_message_that_is_wrong_when_whole_is_answered_so() -> None:
    async def main() -> None:
        gateway = Gateway(joiner=Joiner(max_pieces=5))
        async with serving(gateway) as server, signed_in(server, new_terminal(1)) as terminal:
            for total in (1, 6):
                reply = await terminal.ask(Fragment(0x0200, total, 1, b"short"))
                assert isinstance(reply.body, PlatformReply)
                assert reply.body.result == WRONG
            assert gateway.counts["messages refused"] == 2
            await terminal.beat()

    run(main())


async def talk(server: Server[JT808Packet], *sent: JT808Packet) -> list[tuple[int, int]]:
    """Say something as a stranger: what messages come in reply, with which results, up to the end."""
    host, port, *_ = server.address
    async with await connect(host, port, framing=FRAMING, codec=JT808Codec()) as stream:
        for packet in sent:
            await stream.send(packet)
        bodies: list[Any] = [packet.body async for packet in stream]
        return [(body.message_id, body.result) for body in bodies]


def test_who_has_not_authenticated_is_turned_away() -> None:
    async def main() -> None:
        gateway = Gateway(max_accounts=1)
        registration = new_terminal(1).registration
        async with serving(gateway) as server:
            for body in (PositionReport(HERE), Heartbeat(), Fragment(0x0801, 2, 1, b""), Authentication("guess")):
                assert await talk(server, JT808Packet(PHONE, 0, body)) == [(0x8001, FAILED)]
            async with signed_in(server, Terminal(PHONE, registration)):
                other = replace(registration, plate="another")
                for phone, said in ((PHONE, other), ("000000000002", registration)):
                    terminal = Terminal(phone, said)
                    with pytest.raises(SignInFailed, match="cannot register"):
                        async with signed_in(server, terminal):
                            pass
                    terminal.session.close()
                    assert terminal.over is not None
                    await terminal.over
                assert await talk(server, JT808Packet(PHONE, 0, Authentication("guess"))) == [(0x8001, FAILED)]
            assert gateway.counts["registrations refused"] == 2
            assert gateway.counts["strangers turned away"] == 3
            assert gateway.counts["authentications refused"] == 2

    run(main())


def test_a_session_speaks_for_one_terminal() -> None:
    async def main() -> None:
        gateway = Gateway()
        async with serving(gateway) as server:
            async with signed_in(server, Terminal(PHONE, new_terminal(1).registration)) as terminal:
                terminal.phone = "000000000002"
                with contextlib.suppress(Exception):
                    await terminal.beat()
                assert terminal.over is not None
                await terminal.over
            assert gateway.counts["strangers turned away"] == 1
            assert gateway.counts["heartbeats"] == 0

    run(main())


def test_a_terminal_that_logs_out_has_to_register_again() -> None:
    async def main() -> None:
        gateway = Gateway()
        async with serving(gateway) as server:
            async with signed_in(server, new_terminal(1)) as terminal:
                await terminal.ask(Logout())
            assert gateway.accounts == {}
            code = Authentication(terminal.code)
            assert await talk(server, JT808Packet(terminal.phone, 0, code)) == [(0x8001, FAILED)]

    run(main())


def test_bad_frames_are_counted_and_the_session_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        gateway = Gateway()
        async with serving(gateway) as server, signed_in(server, new_terminal(1)) as terminal:
            session = server.sessions.find(terminal.phone)
            reader, writer = await asyncio.open_connection(*server.address[:2])
            bad_check = bytearray(FRAMING.encode(frame(0x0002)))
            bad_check[5] ^= 1
            wrong = [data for data, _ in MALFORMED.values()]
            writer.write(b"".join(map(FRAMING.encode, wrong)) + bytes(bad_check) + FRAMING.encode(bytes(MAX_FRAME + 1)))
            writer.write(FRAMING.encode(codec.encode(JT808Packet(PHONE, 0, Heartbeat()))))
            assert [packet.body for packet in decode_all(await reader.read())] == [PlatformReply(0, 2, FAILED)]
            writer.close()
            await writer.wait_closed()
            assert gateway.counts["malformed: NO_PACKET"] == len(wrong)
            assert gateway.counts[f"malformed: {Reason.BAD_CHECK.name}"] == 1
            assert gateway.counts[f"malformed: {Reason.TOO_LONG.name}"] == 1
            assert session is not None
            assert session.is_open
            await terminal.beat()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.records == []


def test_positions_are_kept_for_each_terminal() -> None:
    async def main() -> None:
        gateway = Gateway()
        heard: list[tuple[str, Body]] = []
        gateway.on_message = lambda phone, body: heard.append((phone, body))
        async with serving(gateway) as server, signed_in(server, new_terminal(7)) as terminal:
            position = position_of(terminal, 0)
            await terminal.report(position)
            (kept,) = [account.position for account in gateway.accounts.values()]
            assert kept is not None
            assert kept.latitude == pytest.approx(position.latitude, abs=1e-6)
            batch = Batch(1, (HERE, HERE))
            await terminal.ask(batch)
            assert heard[1] == (terminal.phone, batch)

    run(main())


# What a user sees.

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_it_runs_as_a_program() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-X", "utf8", "-m", "jt808", "--terminals", "20"],
        cwd=EXAMPLES,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    complaints = [line for line in run.stderr.splitlines() if not line.startswith("Executing ")]
    assert (run.returncode, complaints) == (0, [])
    assert "register and authenticate" in run.stdout
    assert "         22  authentications" in run.stdout
    assert "          2  sessions ended: REPLACED" in run.stdout
    assert run.stdout.endswith("Every photo arrived, and every takeover closed the old session.\n")


def test_progress_is_a_line_for_each_step() -> None:
    out = io.StringIO()
    with Progress(out).step("photos", 3) as done:
        done()
        done()
    assert out.getvalue().startswith("photos                       ████████████████········             2 of 3 ")
    assert out.getvalue().count("\n") == 1


def test_progress_grows_on_a_terminal() -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Tty()
    with Progress(out).step("photos", 1_000) as done:
        done()
        time.sleep(0.06)
        done()
    lines = out.getvalue().split("\r")
    assert len(lines) == 4
    assert all(" of 1,000" in line for line in lines[1:])
    assert out.getvalue().endswith("\n")


def test_each_terminal_s_photo_is_its_own() -> None:
    assert len(photo_data("1", 100)) == 100
    assert photo_data("1", 100) != photo_data("2", 100)
