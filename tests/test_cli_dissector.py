"""`packetcore dissector`: what Wireshark reads in a capture is what the decoder reads in the same bytes."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import pytest

from packetcore import Decoder, Malformed, Packet, Reason, encode
from packetcore_cli.__main__ import main
from packetcore_cli._wire import FIELDS, HEADER_SIZE
from packetcore_conformance.vectors import PACKETS, STREAM, VECTORS
from packetcore_tap import CaptureWriter, Side

PORT = 7000
MAX_PAYLOAD = max(len(packet.payload) for packet in PACKETS)
TIME = 1_790_000_000 * 10**9

Kind = Literal["stream", "datagram"]
Found = Packet | tuple[str, int]
"""A packet, or the reason for which bytes are none and how many they are."""


class Said(NamedTuple):
    """What one side says, and in which pieces."""

    pieces: Sequence[bytes]
    kind: Kind = "stream"
    replies: Sequence[bytes] = ()


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def hostile(random: Random) -> bytes:
    """Bytes of which many mean something, with sound frames among them, which may share a flag."""
    data = b""
    for _ in range(random.randrange(1, 12)):
        kind = random.randrange(6)
        payload = bytes(random.choices(b"\xfe\xfd\x01\x02\x00a", k=random.randrange(20)))
        frame = encode(Packet(random.choice([0, 0xFEFD, 7]), payload, type=random.randrange(256)))
        if kind == 0:
            data += bytes(random.choices(b"\xfe\xfd\x01\x02\x00\x07", k=random.randrange(1, 30)))
        elif kind == 1:  # one byte of it is another
            at = random.randrange(len(frame))
            data += frame[:at] + random.randbytes(1) + frame[at + 1 :]
        elif kind == 2:  # it announces more than is allowed
            data += (
                b"\xfe\x00\x01\x00\x00\x01" + random.choice([struct.pack(">I", MAX_PAYLOAD + 1), b"\xff" * 4]) + payload
            )
        else:
            data += frame[data.endswith(b"\xfe") :]
    return data


def cut(data: bytes, random: Random) -> list[bytes]:
    pieces = []
    while data:
        size = random.choice([1, 2, 7, 30, len(data)])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def read(said: Said) -> list[Found]:
    """What the decoder reads; noise side by side is one, as the dissector shows it in each segment."""
    found: list[Packet | Malformed] = []
    for side in (said.pieces, said.replies):
        decoder = Decoder(max_payload=MAX_PAYLOAD)
        for piece in side:
            found += decoder.feed(piece)
            if said.kind == "datagram":
                found += decoder.feed_eof()
        found += decoder.feed_eof()
    return merged((each.reason.name, each.size) if isinstance(each, Malformed) else each for each in found)


def merged(found: Iterable[Found]) -> list[Found]:
    noise = Reason.NOISE.name
    result: list[Found] = []
    for each in found:
        before = result[-1] if result else None
        if isinstance(each, tuple) and isinstance(before, tuple) and each[0] == before[0] == noise:
            result[-1] = noise, before[1] + each[1]
        else:
            result.append(each)
    return result


def capture(conversations: Sequence[Said], order: Callable[[list[bytes]], list[bytes]] = list) -> bytes:
    """Each in full, its segments in an order of one's own."""
    writer = CaptureWriter()
    parts = [writer.begin()]
    for number, said in enumerate(conversations):
        parts.append(writer.opened(number, ("10.0.0.1", 9000 + number), ("10.0.0.2", PORT), TIME, kind=said.kind))
        for side, pieces in ((Side.CLIENT, said.pieces), (Side.SERVER, said.replies)):
            parts += order([writer.data(number, side, piece, TIME) for piece in pieces])
        parts.append(writer.closed(number, TIME))
    return b"".join(parts)


def layers(text: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Of which conversation a packet of the capture is, and what the dissector shows in it."""
    for packet in json.loads(text):
        layer = packet["_source"]["layers"]
        ports = layer.get("tcp") or layer["udp"]
        numbers = {int(port) for key, port in ports.items() if key.endswith((".srcport", ".dstport"))} - {PORT}
        shown = layer["packetcore"]
        yield numbers.pop() - 9000, shown if isinstance(shown, list) else [shown]


def found_in(shown: dict[str, Any]) -> Found:
    if "packetcore.reason" in shown:
        assert shown["_ws.malformed"]
        return shown["packetcore.reason"], int(shown["packetcore.size"])
    payload = bytes.fromhex(shown.get("packetcore.payload", "").replace(":", ""))
    assert int(shown["packetcore.length"]) == len(payload)
    id, type, count = (int(shown[f"packetcore.{name}"]) for name in ("id", "type", "count"))
    return Packet(id, payload, type=type, count=count)


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    assert main(["dissector", "--port", str(PORT), "--max-payload", str(MAX_PAYLOAD)]) == 0
    path = tmp_path / "packetcore.lua"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def tshark(script: Path, capture: bytes, *options: str) -> str:
    path = script.with_name("capture.pcapng")
    path.write_bytes(capture)
    command = ["tshark", "-X", f"lua_script:{script}", "-r", str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "Lua:" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("passes", [(), ("-2",)], ids=["one pass", "two passes"])
def test_wireshark_reads_what_the_decoder_reads(script: Path, passes: tuple[str, ...]) -> None:
    golden = [vector.wire for vector in VECTORS]
    head = b"".join(golden[:9])
    shared = b"\xfe".join(wire[1:-1] for wire in golden)
    damaged = (
        b"noise" + golden[0] + b"\xfe\x00\x01\xfd\x07\xfe" + b"\xfe12\xfe" + golden[1][:-1] + b"\x00\xfe" + golden[2]
    )
    conversations = [
        Said(golden),
        Said(golden, "datagram"),
        Said([STREAM]),
        Said(in_pieces(head, 1)),
        Said([b"\xfe" + shared + b"\xfe"]),
        Said(in_pieces(b"\xfe" + shared[:300], 1)),
        Said([damaged]),
        Said([damaged], "datagram"),
        Said(in_pieces(damaged, 1)),
        Said(in_pieces(STREAM, 1000), replies=in_pieces(STREAM, 700)),
        *(Said([head[:at], head[at:]]) for at in range(1, len(head))),
    ]
    random = Random(1019)
    for _ in range(150):
        kind: Kind = random.choice(["stream", "stream", "datagram"])
        conversations.append(Said(cut(hostile(random), random), kind))
    read_by_wireshark: list[list[Found]] = [[] for _ in conversations]
    text = tshark(
        script, capture(conversations), *passes, "-Y", "packetcore", "-T", "json", "--no-duplicate-keys", "-j",
        "tcp udp packetcore",
    )  # fmt: skip
    for number, shown in layers(text):
        read_by_wireshark[number] += map(found_in, shown)
    for number, said in enumerate(conversations):
        assert merged(read_by_wireshark[number]) == read(said), said
    assert read_by_wireshark[0] == PACKETS
    reasons = {each[0] for found in read_by_wireshark for each in found if isinstance(each, tuple)}
    assert reasons == {"NOISE", "BAD_ESCAPE", "TOO_SHORT", "LENGTH_MISMATCH", "TOO_LONG", "TRUNCATED"}


def test_segments_that_overtake_each_other_are_read_in_their_order(script: Path) -> None:
    random = Random(7)
    packets = [Packet(at, random.randbytes(random.randrange(60))) for at in range(120)]
    frames = [encode(packet) for packet in packets]
    conversations = [Said(cut(b"".join(frames[at : at + 6]), random)) for at in range(0, len(frames), 6)]

    def shuffled(segments: list[bytes]) -> list[bytes]:
        for at in range(len(segments) - 1):
            if random.randrange(3) == 0:
                segments[at : at + 2] = reversed(segments[at : at + 2])
        return [segment for segment in segments for _ in range(random.choice([1, 1, 2]))]

    options = ("-o", "tcp.reassemble_out_of_order:TRUE", "-Y", "packetcore", "-T", "fields", "-e", "packetcore.id")
    text = tshark(script, capture(conversations, shuffled), *options)
    assert text.replace(",", "\n").split() == [str(packet.id) for packet in packets]


def test_filters_columns_and_experts_name_what_there_is(script: Path) -> None:
    packets = [Packet(0xFE10, b"\xfe\xfd!", type=3, count=2), Packet(7)]
    data = capture([Said([b"".join(map(encode, packets)) + b"\xfe\x00\xfd\x07\xfe"]), Said([b"lost"], "datagram")])

    def fields(filter: str, *names: str) -> list[str]:
        options = [word for name in names for word in ("-e", name)]
        return tshark(script, data, "-Y", filter, "-T", "fields", *options).splitlines()

    assert fields("packetcore.id == 0xfe10 && packetcore.payload == fe:fd:21", "packetcore.length") == ["3,0"]
    info = "id 65040  type 3  count 2  length 3 | id 7  type 0  count 1  length 0 | BAD_ESCAPE "
    found = fields("packetcore.bad_escape", "_ws.expert.message", "_ws.col.Info")
    assert found == [f"{Reason.BAD_ESCAPE.value}\t{info}"]
    assert fields('packetcore.reason == "NOISE"', "_ws.col.Protocol", "udp.srcport") == ["packetcore\t9001"]


def test_it_is_for_its_ports_alone_and_others_are_decoded_as_it(script: Path) -> None:
    data = capture([Said([encode(Packet(7))], replies=[encode(Packet(8))])])
    other = script.with_name("other.lua")
    text = script.read_text(encoding="utf-8")
    other.write_text(text.replace(f"PORTS = {{ {PORT} }}", "PORTS = {  }"), encoding="utf-8")
    options = ("-Y", "packetcore", "-T", "fields", "-e", "packetcore.id")
    assert tshark(script, data, *options).split() == ["7", "8"]
    assert tshark(other, data, *options) == ""
    assert tshark(other, data, "-d", f"tcp.port=={PORT},packetcore", *options).split() == ["7", "8"]


def test_where_reassembly_is_off_a_frame_that_goes_on_is_no_malformed_one(script: Path) -> None:
    frame = encode(Packet(7, b"hello"))
    data = capture([Said([frame + frame[:5], frame[5:]])])
    options = ("-o", "tcp.desegment_tcp_streams:FALSE", "-Y", "packetcore", "-V")
    text = tshark(script, data, *options)
    assert "packetcore, a frame that goes on: reassembly of TCP is off in the preferences" in text
    assert "TRUNCATED" not in text


def test_what_is_filled_in_is_the_format() -> None:
    frame = encode(Packet(0x0102, b"payload", type=0x03, count=0x0405))
    values = {name: int.from_bytes(frame[1 + at : 1 + at + size], "big") for name, (at, size) in FIELDS.items()}
    assert values == {"id": 0x0102, "type": 0x03, "count": 0x0405, "length": 7}
    assert sum(size for _, size in FIELDS.values()) == HEADER_SIZE


def test_a_port_out_of_range_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dissector", "--port", "0"]) == 1
    assert capsys.readouterr() == ("", "packetcore: port=0 is out of range 1 to 65535\n")
