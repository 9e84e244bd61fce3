"""`packetcore decode`: what it says of every byte is what the decoder says."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Decoder, Malformed, Packet, encode
from packetcore_cli.__main__ import main
from packetcore_cli._annotate import Part, marks
from packetcore_cli._dump import DUMPED
from packetcore_cli._framed import spans_of
from packetcore_conformance.strategies import chunked, streams

limits = st.sampled_from([0, 1, 8, 40])
"""Small values of `max_payload`, so that every stream comes near them."""


def decoded(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["decode", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


@given(data=st.data(), max_payload=limits)
def test_the_events_shown_are_the_decoders(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    decoder = Decoder(max_payload=max_payload)
    events: list[Packet | Malformed] = []
    for chunk in data.draw(chunked(stream)):
        events += decoder.feed(chunk)
    events += decoder.feed_eof()
    assert [span.event for span in spans_of(stream, None, max_payload) if span.event is not None] == events


@given(data=st.data(), max_payload=limits)
def test_every_byte_is_one_thing(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    told = [mark for span in spans_of(stream, None, max_payload) for mark in marks(stream, span)]
    assert [at for mark in told for at in range(mark.start, mark.stop)] == list(range(len(stream)))
    assert all((stream[mark.start] == 0xFE) == (mark.part is Part.FLAG) for mark in told)


@given(data=st.data(), max_payload=limits)
def test_the_fields_told_apart_are_the_packets(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    for span in spans_of(stream, None, max_payload):
        if isinstance(span.event, Packet):
            id, payload, type, count = span.event
            fields = dict.fromkeys((Part.ID, Part.TYPE, Part.COUNT, Part.LENGTH, Part.PAYLOAD), b"")
            for mark in marks(stream, span):
                assert (mark.part is Part.ESCAPE) == (0xFD in stream[mark.start : mark.stop])
                fields[mark.field] += mark.plain
            assert b"".join(fields.values()) == struct.pack(">HBHI", id, type, count, len(payload)) + payload


def test_a_dump_names_every_part_of_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    stream = (
        b"noise"
        + encode(Packet(0xFE10, b"\xfe\xfe!", type=3, count=2))
        + bytes.fromhex("6f6f70 fe 0001 00 0001 00000005 61fd33 fe 0001 00 0001 00000005 61 fe 0002 fd")
    )
    assert decoded(capsys, stream.hex()) == [
        "0000  noise    6e 6f 69 73 65  noise",
        "      ^ NOISE: bytes outside any frame",
        "0005  flag     fe",
        "0006  escape   fd 01           stands for fe",
        "0008  id       10              65040 (0xfe10)",
        "0009  type     03              3",
        "000a  count    00 02           2",
        "000c  length   00 00 00 03     3",
        "0010  escape   fd 01 fd 01     stands for fe fe",
        "0014  payload  21              !",
        "0015  flag     fe",
        "0016  noise    6f 6f 70        oop",
        "      ^ TOO_SHORT: a frame shorter than its check or its header",
        "0019  flag     fe",
        "001a  id       00 01           1 (0x01)",
        "001c  type     00              0",
        "001d  count    00 01           1",
        "001f  length   00 00 00 05     5",
        "0023  payload  61              a",
        "0024  escape   fd 33           bad: neither 01 nor 02 follows",
        "      ^ BAD_ESCAPE: an escape byte that no code follows",
        "0026  flag     fe",
        "0027  id       00 01           1 (0x01)",
        "0029  type     00              0",
        "002a  count    00 01           1",
        "002c  length   00 00 00 05     5",
        "0030  payload  61              a",
        "      ^ LENGTH_MISMATCH: a frame whose length field disagrees with its payload",
        "0031  flag     fe",
        "0032  id       00 02           2 (0x02)",
        "0034  escape   fd              bad: nothing follows",
        "      ^ TRUNCATED: the stream or the datagram ended inside a frame",
        "",
        '0000  malformed  NOISE  5 bytes  "noise"',
        "0006  packet     id 65040  type 3  count 2  length 3  payload fe fe 21",
        '0016  malformed  TOO_SHORT  3 bytes  "oop"',
        "001a  malformed  BAD_ESCAPE  12 bytes  00 01 00 00 01 00 00 00 05 61 fd 33",
        "0027  malformed  LENGTH_MISMATCH  10 bytes  00 01 00 00 01 00 00 00 05 61",
        "0032  malformed  TRUNCATED  3 bytes  00 02 fd",
        "1 packet, 5 malformed, 53 bytes",
    ]


def test_a_header_field_that_ends_in_an_escape_still_has_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    lines = decoded(capsys, encode(Packet(0x01FD, type=0xFE)).hex())
    assert lines[1:4] == [
        "0001  id       01",
        "0002  escape   fd 02        stands for fd; id 509 (0x1fd)",
        "0004  escape   fd 01        stands for fe; type 254",
    ]


def test_a_payload_longer_than_the_limit_is_told_where_it_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    lines = decoded(capsys, "--max-payload", "4", encode(Packet(7, b"hello")).hex())
    assert lines[4:8] == [
        "0006  length   00 00 00 05     5",
        "      ^ TOO_LONG: a frame longer than the limit allows",
        "000a  noise    68 65 6c 6c 6f  hello",
        "      ^ NOISE: bytes outside any frame",
    ]


@pytest.mark.parametrize("filler", [b"", b"x"], ids=["even", "odd"])
def test_a_long_stream_is_dumped_in_part_and_listed_in_full(
    filler: bytes, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = encode(Packet(1, filler + b"\xfd" * DUMPED)) + encode(Packet(2)) * 100
    file = tmp_path_factory.mktemp("cli") / "stream"
    file.write_bytes(stream)
    lines = decoded(capsys, str(file))
    gap = lines.index("")
    assert lines[gap - 1].startswith("... the dump ends here: ")
    assert f" of {len(stream)} bytes" in lines[gap - 1]
    assert gap < DUMPED / 16 + 20
    assert not any("bad" in line for line in lines)  # no escape was cut in two
    assert len(lines) == gap + 1 + 101 + 1
    assert lines[-1] == f"101 packets, 0 malformed, {len(stream)} bytes"


def test_nothing_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert decoded(capsys, "") == ["0 packets, 0 malformed, 0 bytes"]
