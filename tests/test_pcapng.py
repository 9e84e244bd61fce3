"""Captures: what is written is what the format demands, and what was said comes out of any capture again."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore_tap import CaptureError, CaptureWriter, Chunk, Ended, Gap, Heard, Reset, Side, hear
from packetcore_tap._ip import MAX_SEGMENT, NO_FLAGS, End, Flag, checksum, read_packet, tcp_packet, udp_packet
from packetcore_tap._pcapng import (
    Way,
    enhanced_packet,
    interface_description,
    interface_statistics,
    section_header,
)

TIME = 1_790_000_000_123_456_789
CLIENT, SERVER = End(ip_address("10.0.0.1"), 40_000), End(ip_address("10.0.0.2"), 5000)


def heard_in(capture: bytes) -> list[Heard]:
    return list(hear(io.BytesIO(capture)))


def said(heard: Iterable[Heard]) -> list[tuple[int, Side, type, object]]:
    """Whose it was, and what."""
    told: list[tuple[int, Side, type, object]] = []
    for each in heard:
        what = each.data if isinstance(each, Chunk) else each.size if isinstance(each, Gap) else None
        told.append((each.conversation.number, each.sender, type(each), what))
    return told


def stream(heard: Iterable[Heard], side: Side) -> bytes:
    return b"".join(each.data for each in heard if isinstance(each, Chunk) and each.sender is side)


# What is written.


def test_the_blocks_are_as_the_draft_draws_them() -> None:
    assert section_header("x", ["hi"]).hex(" ", 4) == (
        "0a0d0d0a 30000000 4d3c2b1a 01000000 ffffffff ffffffff 01000200 68690000 04000100 78000000 00000000 30000000"
    )
    assert interface_description("x").hex(" ", 4) == (
        "01000000 28000000 65000000 00000000 02000100 78000000 09000100 09000000 00000000 28000000"
    )
    block = enhanced_packet(1, 0x0102030405060708, b"abcde", way=Way.OUTBOUND, dropped=3, comments=["c"])
    assert block.hex(" ", 4) == (
        "06000000 48000000 01000000 04030201 08070605 05000000 05000000 61626364 65000000 "
        "01000100 63000000 02000400 02000000 04000800 03000000 00000000 00000000 48000000"
    )
    assert interface_statistics(2, 1, received=9, dropped=4).hex(" ", 4) == (
        "05000000 34000000 02000000 00000000 01000000 04000800 09000000 00000000 05000800 04000000 00000000 "
        "00000000 34000000"
    )


@given(st.binary(max_size=70))
def test_a_checksum_is_the_ones_complement_of_the_sum_of_all_words(data: bytes) -> None:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == total ^ 0xFFFF


@pytest.mark.parametrize("hosts", [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "fe80::2")])
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(MAX_SEGMENT - 4)])
def test_headers_are_read_as_they_were_made(hosts: tuple[str, str], payload: bytes) -> None:
    one, other = End(ip_address(hosts[0]), 1), End(ip_address(hosts[1]), 65_535)
    packet = tcp_packet(one, other, payload, sequence=1 << 32 | 5, acknowledgement=7, flags=Flag.ACK, options=bytes(4))
    segment = read_packet(packet, len(packet))
    assert segment is not None
    assert (segment.source, segment.destination, segment.payload) == (one, other, payload)
    assert (segment.sequence, segment.acknowledgement, segment.flags, segment.missing) == (5, 7, Flag.ACK, 0)
    packet = udp_packet(one, other, payload)
    segment = read_packet(packet[:60], len(packet))
    assert segment is not None
    head = 28 if one.address.version == 4 else 48
    assert (segment.payload, segment.missing) == (payload[: 60 - head], max(0, len(payload) - 60 + head))


class Cut(io.BytesIO):
    """A file of which a read gives no more than so many bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._most = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most)


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(Side),
        st.binary(min_size=1, max_size=9) | st.integers(1, 3).map(lambda n: bytes(n * 40_000)) | st.integers(1, 99),
    ),
    max_size=20,
)


@given(EVENTS, st.sampled_from([None, *Side]), st.integers(1000, 1 << 20))
def test_what_was_written_comes_out_again_chunk_by_chunk(
    events: list[tuple[int, Side, bytes | int]], here: Side | None, cut: int
) -> None:
    writer = CaptureWriter()
    parts = [writer.begin("whole")]
    for at in range(4):
        client, server = (("10.0.0.1", 4000 + at), ("10.0.0.2", 5000)) if at < 3 else (("",), ("/x",))
        kind: Literal["stream", "datagram"] = "datagram" if at == 1 else "stream"
        parts.append(writer.opened(at, client, server, TIME, kind=kind, here=here, comment=f"number {at}"))
    expected: list[tuple[int, Side, type, object]] = []
    for at, side, what in events:
        if isinstance(what, bytes):
            what = what if at != 1 else what[:65_507]
            parts.append(writer.data(at, side, what, TIME + len(parts)))
            expected.append((at, side, Chunk, what))
        elif at != 1:
            writer.missed(at, side, what)
            parts.append(writer.data(at, side, b"!", TIME + len(parts)))
            expected += [(at, side, Gap, what), (at, side, Chunk, b"!")]
    parts += [writer.ended(0, Side.SERVER, TIME), writer.closed(0, TIME), writer.closed(2, TIME, reset=Side.CLIENT)]
    expected += [(0, Side.SERVER, Ended, None), (0, Side.CLIENT, Ended, None), (2, Side.CLIENT, Reset, None)]
    capture = b"".join(parts) + writer.finish(TIME)
    heard = list(hear(Cut(capture, cut)))
    numbers = {each.conversation.number: int(each.conversation.comments[0].split()[-1]) for each in heard}
    assert [(numbers[number], *rest) for number, *rest in said(heard)] == expected
    assert all(each.time >= TIME for each in heard)


def test_a_file_that_goes_on_says_anew_whose_conversation_it_is() -> None:
    writer = CaptureWriter()
    writer.begin()
    writer.opened(1, ("10.0.0.1", 99), ("10.0.0.2", 5000), TIME, here=Side.CLIENT, comment="session 1")
    writer.data(1, Side.SERVER, b"before", TIME)
    capture = writer.begin() + writer.data(1, Side.SERVER, b"after", TIME)
    (chunk,) = heard_in(capture)
    assert isinstance(chunk, Chunk)
    assert (chunk.data, chunk.sender, chunk.conversation.comments) == (b"after", Side.SERVER, ["session 1"])
    assert (chunk.conversation.client.port, chunk.conversation.has_beginning) == (99, False)


def test_ends_of_two_families_or_none_are_made_to_fit() -> None:
    writer = CaptureWriter()
    parts = [writer.begin()]
    ends = [(("::1%lo", 1, 0, 0), ("127.0.0.1", 2)), (None, ("::1", 2, 0, 0)), (("unknown", 0), None)]
    for at, (client, server) in enumerate(ends):
        parts += [writer.opened(at, client, server, TIME), writer.data(at, Side.CLIENT, b"x", TIME)]
    told = [str(each.conversation) for each in heard_in(b"".join(parts))]
    assert told == [
        f"tcp [::1]:1 > [{ip_address('::ffff:127.0.0.1')}]:2",
        "tcp [2001:db8::1]:49153 > [::1]:2",
        "tcp 192.0.2.1:49154 > 192.0.2.2:49151",
    ]


# Captures of others.


def segment(
    side: Side, sequence: int, payload: bytes = b"", flags: Flag = Flag.ACK, *, ack: int = 0, ports: int = 40_000
) -> bytes:
    one, other = End(CLIENT.address, ports), SERVER
    source, destination = (one, other) if side is Side.CLIENT else (other, one)
    return tcp_packet(source, destination, payload, sequence=sequence, acknowledgement=ack, flags=flags)


def pcap(packets: Iterable[bytes], *, link_type: int = 101, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65_535, link_type)]
    for packet in packets:
        parts += [struct.pack(f"{order}IIII", 1000, 7, len(packet), len(packet)), packet]
    return b"".join(parts)


def pcapng(packets: Iterable[bytes], *, order: str = ">", resolution: bytes = b"", offset: int = 0) -> bytes:
    """As others write it: any byte order, and in the default resolution."""

    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack(f"{order}I", len(body) + 12)
        return struct.pack(f"{order}I", kind) + size + body + size

    options = struct.pack(f"{order}HHcxxx", 9, 1, resolution) if resolution else b""
    options += struct.pack(f"{order}HHq", 14, 8, offset) if offset else b""
    parts = [block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))]
    parts.append(block(0x0BAD, bytes(8)))  # a block that nobody knows
    parts.append(block(1, struct.pack(f"{order}HHI", 101, 0, 0) + options))
    for packet in packets:
        head = struct.pack(f"{order}IIIII", 0, 0, 5_000_000, len(packet), len(packet))
        parts.append(block(6, head + packet + bytes(-len(packet) % 4)))
        parts.append(block(3, struct.pack(f"{order}I", len(packet)) + packet + bytes(-len(packet) % 4)))
    return b"".join(parts)


HELLO = [
    segment(Side.CLIENT, 99, flags=Flag.SYN),
    segment(Side.SERVER, 499, flags=Flag.SYN | Flag.ACK, ack=100),
    segment(Side.CLIENT, 100, b"hello", ack=500),
    segment(Side.SERVER, 500, b"hi", ack=105),
    segment(Side.CLIENT, 105, flags=Flag.FIN | Flag.ACK, ack=502),
]
TOLD = [(1, Side.CLIENT, Chunk, b"hello"), (1, Side.SERVER, Chunk, b"hi"), (1, Side.CLIENT, Ended, None)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_of_both_orders_and_units_is_read(order: str, magic: int, unit: int) -> None:
    capture = pcap(HELLO, order=order, magic=magic)
    heard = heard_in(capture)
    assert said(hear(Cut(capture, 1))) == TOLD
    assert said(heard) == TOLD
    assert {each.time for each in heard} == {1000 * 10**9 + 7 * unit}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("resolution", "offset", "time"),
    [(b"", 0, 5 * 10**9), (b"\x03", 0, 5000 * 10**9), (b"\x94", 3, 3 * 10**9 + 5_000_000 * 10**9 // 2**20)],
)
def test_pcapng_of_both_orders_and_all_resolutions_is_read(
    order: str, resolution: bytes, offset: int, time: int
) -> None:
    heard = heard_in(pcapng(HELLO, order=order, resolution=resolution, offset=offset))
    assert said(hear(Cut(pcapng(HELLO, order=order), 1))) == TOLD
    assert said(heard) == TOLD  # the Simple Packet Blocks are retransmissions of all that
    assert heard[0].time == time


IP = (0x0800).to_bytes(2, "big")
LINKS = {
    "ethernet": (1, bytes(12) + IP),
    "vlan": (1, bytes(12) + b"\x81\x00\x00\x07" + IP),
    "null": (0, b"\x02\0\0\0"),
    "cooked": (113, bytes(14) + IP),
    "cooked 2": (276, IP + bytes(18)),
    "ipv4": (228, b""),
    "raw of old": (12, b""),
}


@pytest.mark.parametrize("name", LINKS)
def test_what_stands_before_ip_is_known(name: str) -> None:
    link_type, head = LINKS[name]
    padded = [head + packet + bytes(6 if name == "ethernet" else 0) for packet in HELLO]  # short frames have padding
    assert said(heard_in(pcap(padded, link_type=link_type))) == TOLD


def test_a_kind_of_network_that_is_not_known_is_said() -> None:
    with pytest.raises(CaptureError, match="link type 105 are not understood: RAW, Ethernet"):
        heard_in(pcap(HELLO, link_type=105))


@given(st.binary(min_size=1, max_size=60), st.integers(0, (1 << 32) - 1), st.randoms(use_true_random=False))
def test_a_stream_is_whole_however_its_segments_come(data: bytes, begin: int, random: Random) -> None:
    """In any order, twice, and cut in another way when sent again; the numbers may pass 2**32."""
    packets = []
    for _ in range(2):
        start = 0
        while start < len(data):
            size = random.randint(1, 20)
            packets.append(segment(Side.CLIENT, begin + 1 + start, data[start : start + size]))
            start += size
    random.shuffle(packets)
    end = segment(Side.CLIENT, begin + 1 + len(data), flags=Flag.FIN | Flag.ACK)
    packets.insert(random.randint(0, len(packets)), end)
    heard = heard_in(pcap([segment(Side.CLIENT, begin, flags=Flag.SYN), *packets]))
    assert stream(heard, Side.CLIENT) == data
    assert [type(each) for each in heard if not isinstance(each, Chunk)] == [Ended]
    assert isinstance(heard[-1], Ended)


def test_what_is_missing_is_a_gap_once_the_other_side_has_it_or_the_capture_ends() -> None:
    packets = [
        HELLO[0],
        HELLO[1],
        segment(Side.CLIENT, 103, b"lo", ack=500),
        segment(Side.SERVER, 500, b"hi", ack=105),
        segment(Side.CLIENT, 110, b"late", ack=502),
    ]
    assert said(heard_in(pcap(packets))) == [
        (1, Side.CLIENT, Gap, 3),
        (1, Side.CLIENT, Chunk, b"lo"),
        (1, Side.SERVER, Chunk, b"hi"),
        (1, Side.CLIENT, Gap, 5),
        (1, Side.CLIENT, Chunk, b"late"),
    ]


def test_a_packet_cut_short_by_the_capture_leaves_a_gap() -> None:
    packet = segment(Side.CLIENT, 100, b"hello")
    capture = pcap([HELLO[0]]) + struct.pack("<IIII", 1000, 7, len(packet) - 3, len(packet)) + packet[:-3]
    assert said(heard_in(capture)) == [(1, Side.CLIENT, Chunk, b"he"), (1, Side.CLIENT, Gap, 3)]


def test_ports_used_once_more_are_another_conversation_and_a_repeated_beginning_is_not() -> None:
    again = [segment(Side.CLIENT, 7000, flags=Flag.SYN), segment(Side.CLIENT, 7001, b"anew")]
    assert said(heard_in(pcap([HELLO[0], HELLO[0], *HELLO[1:], *again]))) == [*TOLD, (2, Side.CLIENT, Chunk, b"anew")]


def test_a_capture_that_begins_in_the_midst_takes_the_lower_port_for_the_servers() -> None:
    heard = heard_in(pcap([segment(Side.SERVER, 5, b"tick"), segment(Side.CLIENT, 9, b"tock")]))
    assert said(heard) == [(1, Side.SERVER, Chunk, b"tick"), (1, Side.CLIENT, Chunk, b"tock")]
    assert not heard[0].conversation.has_beginning


def test_a_reset_is_told_once_and_packets_that_say_nothing_are_no_conversation() -> None:
    reset = segment(Side.SERVER, 502, flags=Flag.RST)
    alone = segment(Side.CLIENT, 1, ports=1234)
    assert said(heard_in(pcap([*HELLO[:4], reset, reset, alone]))) == [*TOLD[:2], (1, Side.SERVER, Reset, None)]


def test_fragments_what_is_cut_short_and_what_is_not_tcp_or_udp_are_passed_over() -> None:
    fragment = bytearray(HELLO[2])
    fragment[6] = 0x20
    icmp = bytearray(HELLO[2])
    icmp[9] = 1
    one, other = End(ip_address("::1"), 1), End(ip_address("::2"), 2)
    short = [packet[:size] for packet in (HELLO[2], udp_packet(one, other, b"x")) for size in range(40)]
    assert said(heard_in(pcap([bytes(fragment), bytes(icmp), *short, HELLO[2]]))) == [TOLD[0]]


# Damage.


def test_of_a_file_cut_anywhere_comes_what_is_whole_and_then_an_error() -> None:
    for capture in (pcap(HELLO), pcapng(HELLO, order="<"), pcapng(HELLO)):
        whole = said(heard_in(capture))
        clean = 0
        for size in range(1, len(capture)):
            heard: list[Heard] = []
            try:
                heard.extend(hear(io.BytesIO(capture[:size])))
                clean += 1
            except CaptureError as error:
                assert "ends in the midst" in str(error) or "no capture" in str(error)  # noqa: PT017
        assert clean <= 2 * len(HELLO) + 4  # between two blocks, where nobody can tell
        assert said(heard_in(capture)) == whole


def test_what_stood_before_the_damage_is_given() -> None:
    capture = pcapng(HELLO)
    heard: list[Heard] = []
    with pytest.raises(CaptureError, match=r"the file ends in the midst of a block, after \d+ bytes of it \(at byte"):
        heard.extend(hear(io.BytesIO(capture[:-5])))
    assert said(heard) == TOLD


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        (b"", "no capture, neither pcapng nor pcap: it is empty"),
        (b"hello", "no capture, neither pcapng nor pcap: it begins with 68656c6c"),
        (section_header("x")[:8] + bytes(8), "byte order magic 00000000"),
        (section_header("x") + bytes(12), "a block of 0 bytes: 12 to 16777216 in steps of 4"),
        (section_header("x") + enhanced_packet(0, 0, b""), "interface 0, where 0 are described"),
        (section_header("x") + interface_description("y")[:-4] + bytes(4), "ends with another length"),
        (pcap([]) + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "a packet of 1073741824 bytes: 16777216 are"),
    ],
)
def test_damage_is_named_with_its_place(capture: bytes, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        heard_in(capture)


@given(
    st.sampled_from([pcap(HELLO), pcapng(HELLO), pcapng(HELLO, order="<")]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_never_raises_anything_else(capture: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(capture)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    try:
        heard_in(bytes(damaged))
    except CaptureError as error:
        assert str(error)  # noqa: PT017


# Wireshark's own word.


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_wireshark_follows_the_streams_and_finds_nothing_wrong(tmp_path: Path) -> None:
    writer = CaptureWriter()
    time = TIME
    parts = [writer.begin()]
    sent = dict.fromkeys(Side, b"")
    random = Random(17)
    for at, ends in enumerate([(("10.0.0.1", 4000), ("10.0.0.2", 5000)), (("::1", 4000), ("::1", 5000)), (None, None)]):
        parts.append(writer.opened(at, *ends, time, here=Side.SERVER, comment=f"session {at}"))
        for _ in range(30):
            side, data = random.choice(list(Side)), random.randbytes(random.choice([1, 500, 70_000]))
            time += 1000
            parts.append(writer.data(at, side, data, time))
            sent[side] += data if at == 0 else b""
        parts += [writer.ended(at, random.choice(list(Side)), time), writer.closed(at, time)]
    parts += [writer.opened(9, ("10.0.0.1", 1), ("10.0.0.2", 2), time, kind="datagram"), writer.finish(time)]
    path = tmp_path / "capture.pcapng"
    path.write_bytes(b"".join(parts))

    def tshark(*arguments: str) -> str:
        checks = [f"-o{protocol}.check_checksum:TRUE" for protocol in ("ip", "tcp", "udp")]
        command = ["tshark", "-r", str(path), *checks, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout

    amiss = "_ws.expert.severity >= 6291456 or tcp.analysis.flags or tcp.checksum.status == 0"  # a warning, or an error
    assert tshark("-Y", amiss) == ""
    followed = tshark("-q", "-z", "follow,tcp,raw,0").splitlines()
    lines = followed[followed.index(next(line for line in followed if line.startswith("Node 1"))) + 1 : -1]
    for side, begin in ((Side.CLIENT, ""), (Side.SERVER, "\t")):
        mine = [line.strip() for line in lines if line.startswith("\t") == bool(begin)]
        assert bytes.fromhex("".join(mine)) == sent[side]
    first = json.loads(tshark("-T", "json", "-c", "1"))[0]["_source"]["layers"]
    assert "session 0" in json.dumps(first)
    assert first["frame"]["frame.interface_id_tree"]["frame.interface_name"] == "packetcore server"
    assert NO_FLAGS == 0
