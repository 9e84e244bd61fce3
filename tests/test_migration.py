"""What docs/migrating-from-dotnet.md says is true.

The .NET library does not run here. Its frames are those it made itself (the golden vectors); its
receive buffer and the ways in which it ends a connection are imitated below, as its source has them.
"""

from __future__ import annotations

import asyncio
import doctest
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import packetcore
import packetcore_asyncio
import packetcore_blocking
from packetcore import (
    CloseReason,
    Config,
    Decoder,
    Driver,
    Handler,
    Malformed,
    MalformedFrame,
    Message,
    Packet,
    Reason,
    ServerBase,
    Session,
    SessionClosed,
    SessionPool,
    decode,
    encode,
    load_driver,
)
from packetcore.testing import FakeSession
from packetcore_conformance.vectors import PACKETS, STREAM, VECTORS
from tests.made_up_host import Recorder as Notes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migrating-from-dotnet.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if ">>>" not in block]
CHUNK = 4096
"""Bytes: what the .NET library reads at a time and sends in one datagram, unless told otherwise."""
DEADLINE = 10.0
BURST = [packet for packet in PACKETS if len(packet.payload) < 100][:10]
LENIENT = {
    "length below the payload": ("fe001000000100000006010304fd0101fd0202fe", "010304fe01fd", Reason.LENGTH_MISMATCH),
    "bare escape": ("fe00100000010000000301fd03fe", "01fd03", Reason.BAD_ESCAPE),
    "bare escape at the end": ("fe00100000010000000201fdfe", "01fd", Reason.BAD_ESCAPE),
}
"""Frames, what the .NET library takes for their payload, and what is wrong with them here."""


class DotnetPacket:
    """A .NET packet: an object that is filled again and again."""

    id = -1
    payload = b""


class DotnetBuffer:
    """The .NET library's receive buffer: a ring, and one packet for all that come out of it."""

    def __init__(self, capacity: int = CHUNK) -> None:
        self._capacity = capacity
        self._held = b""
        self._packet = DotnetPacket()

    def set_blocks(self, data: bytes) -> bool:
        if len(self._held) + len(data) > self._capacity:
            return False
        self._held += data
        return True

    def get_blocks(self) -> list[DotnetPacket]:
        found: list[DotnetPacket] = []
        while (frame := re.search(rb"\xfe([^\xfe]+)\xfe", self._held)) is not None:
            self._held = self._held[frame.end() :]
            if self._fill(frame[1]):
                found.append(self._packet)
        return found

    def _fill(self, escaped: bytes) -> bool:
        plain = re.sub(rb"\xfd([\x01\x02])", lambda pair: b"\xfe" if pair[1] == b"\x01" else b"\xfd", escaped)
        if len(plain) < 9:
            return False
        id, _, _, length = struct.unpack_from(">HBHI", plain)
        if length > len(plain) - 9:
            return False
        self._packet.id, self._packet.payload = id, plain[9 : 9 + length]
        return True


def seen(buffer: DotnetBuffer, reads: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """What a .NET application finds that asks its buffer once after each read."""
    found: list[tuple[int, bytes]] = []
    for read in reads:
        assert buffer.set_blocks(read)
        found += [(packet.id, packet.payload) for packet in buffer.get_blocks()]
    return found


def told(packets: Iterable[Packet]) -> list[tuple[int, bytes]]:
    return [(packet.id, packet.payload) for packet in packets]


def run_block(marker: str) -> dict[str, Any]:
    """Run the one code block of the page that has `marker` in it."""
    (block,) = [block for block in BLOCKS if marker in block]
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads bring about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)


class Recorder(Handler):
    """Keeps what was heard."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.reasons: list[CloseReason] = []
        self.connections = 0

    def connected(self, session: Session) -> None:
        self.connections += 1

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.packets.append(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.reasons.append(reason)


@pytest.fixture(params=["asyncio", "blocking"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = load_driver(request.param)
    yield driver
    driver.stop()


def dial(address: tuple[Any, ...]) -> socket.socket:
    """A .NET client: its socket resets when it is closed."""
    peer = socket.create_connection(address[:2], timeout=DEADLINE)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return peer


# The page itself


def test_the_session_on_the_page_gives_what_it_shows() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_block_on_the_page_is_run_by_a_test() -> None:
    markers = ["async def send_paced", "import time", "as_before", "udp ="]
    assert len(BLOCKS) == len(markers)
    for marker in markers:
        run_block(marker)


def test_the_names_on_the_page_exist() -> None:
    owners = {
        "session": Session,
        "stream": packetcore_blocking.Stream,
        "server": packetcore_blocking.Server,
        "pool": SessionPool(),
        "decoder": Decoder(),
        "packet": Packet(0),
        "Handler": Handler,
    }
    named = set(re.findall(rf"\b({'|'.join(owners)})\.([a-z]\w*)", TEXT))
    assert len(named) > 20
    for owner, name in named:
        assert hasattr(owners[owner], name), f"{owner}.{name}"
    fields = set(re.findall(r"(?<![\w.])(\w+)=[^=]", "".join(re.findall(r"`Config\((.*?)\)`", TEXT))))
    for field in fields:
        assert hasattr(Config(), field), field
    for reason in re.findall(r"`([A-Z]+_[A-Z_]+|RESET|PEER)`", TEXT):
        assert reason in CloseReason.__members__ or reason in Reason.__members__, reason


# A burst in one write


def test_what_a_handler_sends_for_one_chunk_is_one_write() -> None:
    handler = Notes()
    session = FakeSession(handler)
    handler.on["packet"] = lambda session: session.send(Packet(7))
    session.feed(encode(Packet(1)) * 3)
    assert session.writes == [encode(Packet(7)) * 3]


def test_sends_between_which_nothing_waits_are_one_write() -> None:
    session = FakeSession(Handler())
    for packet in BURST:
        session.session.send(packet)
    assert session.writes == [b"".join(map(encode, BURST))]


def test_a_dotnet_receiver_finds_the_last_packet_of_a_read_n_times() -> None:
    assert seen(DotnetBuffer(), [b"".join(map(encode, BURST))]) == told([BURST[-1]]) * len(BURST)


def test_a_packet_that_a_dotnet_receiver_kept_changes_when_the_next_comes() -> None:
    buffer = DotnetBuffer()
    buffer.set_blocks(encode(BURST[0]))
    (kept,) = buffer.get_blocks()
    buffer.set_blocks(encode(BURST[1]))
    buffer.get_blocks()
    assert (kept.id, kept.payload) == (BURST[1].id, BURST[1].payload)


def test_a_dotnet_ring_refuses_a_read_that_it_has_no_room_for() -> None:
    buffer = DotnetBuffer(capacity=128)
    assert not buffer.set_blocks(encode(Packet(1, bytes(90))) + encode(Packet(2, bytes(90))))
    assert buffer.get_blocks() == []


def test_a_dotnet_receiver_that_asks_after_each_closing_flag_finds_every_packet() -> None:
    frames = [frame for vector in VECTORS for frame in (vector.wire[:1], vector.wire[1:])]
    assert b"".join(frames) == STREAM
    assert seen(DotnetBuffer(capacity=1 << 20), frames) == told(PACKETS)


def test_paced_on_asyncio_each_packet_has_left_by_itself_when_its_gap_is_over() -> None:
    names = run_block("async def send_paced")
    reads: list[bytes] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def until_it_is_read(gap: float) -> None:
            assert gap > 0
            reads.append(await loop.sock_recv(peer, CHUNK))

        async def application(stream: packetcore_asyncio.Stream) -> None:
            await stream.recv()
            await names["send_paced"](stream, BURST)
            has_sent_all.set()

        has_sent_all = asyncio.Event()
        names["asyncio"] = type("asyncio", (), {"sleep": staticmethod(until_it_is_read)})
        async with await packetcore_asyncio.serve(application, "127.0.0.1", 0) as server:
            with socket.socket() as peer:
                peer.setblocking(False)
                await loop.sock_connect(peer, server.address[:2])
                await loop.sock_sendall(peer, encode(Packet(1)))
                await has_sent_all.wait()

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert seen(DotnetBuffer(), reads) == told(BURST)


def test_paced_on_blocking_sockets_each_packet_has_left_by_itself_when_its_gap_is_over() -> None:
    names = run_block("import time")
    reads: list[bytes] = []

    def until_it_is_read(gap: float) -> None:
        assert gap > 0
        reads.append(peer.recv(CHUNK))

    def application(stream: packetcore_blocking.Stream) -> None:
        stream.recv()
        names["send_paced"](stream, BURST)

    names["time"] = type("time", (), {"sleep": staticmethod(until_it_is_read)})
    with (
        packetcore_blocking.serve(application, "127.0.0.1", 0) as server,
        socket.create_connection(server.address[:2], timeout=DEADLINE) as peer,
    ):
        peer.sendall(encode(Packet(1)))
        until(lambda: len(reads) == len(BURST))
    assert seen(DotnetBuffer(), reads) == told(BURST)


def test_a_request_at_a_time_leaves_nothing_to_merge() -> None:
    reads: list[bytes] = []

    def application(stream: packetcore_blocking.Stream) -> None:
        stream.recv()
        for packet in BURST:
            stream.request(packet, timeout=DEADLINE)

    with (
        packetcore_blocking.serve(application, "127.0.0.1", 0) as server,
        socket.create_connection(server.address[:2], timeout=DEADLINE) as peer,
    ):
        peer.sendall(encode(Packet(1)))
        while read := peer.recv(CHUNK):
            reads.append(read)
            peer.sendall(encode(Packet(BURST[len(reads) - 1].id)))
    assert seen(DotnetBuffer(), reads) == told(BURST)


# Limits


def test_by_default_a_silent_peer_is_idle_after_60_s_and_a_frame_may_take_10() -> None:
    session = FakeSession(Handler())
    session.feed(Packet(1))
    session.advance(59.9)
    assert session.session.is_open
    session.advance(0.1)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT
    session = FakeSession(Handler())
    session.feed(encode(Packet(1))[:9])
    session.advance(10.0)
    assert session.close_reason is CloseReason.FRAME_TIMEOUT


def test_as_before_a_peer_may_be_silent_for_ever_and_send_16_mib() -> None:
    config = run_block("as_before")["as_before"]
    large = Packet(1, bytes(16 * 2**20))
    handler = Notes()
    session = FakeSession(handler, config)
    frame = encode(large)
    session.feed(frame[:9])
    session.advance(1e9)
    session.feed(frame[9:])
    session.advance(1e9)
    assert handler.calls == [("connected",), ("packet", large)]


def test_by_default_a_frame_above_1_mib_is_refused_in_both_directions() -> None:
    large = Packet(1, bytes(2**20 + 1))
    assert [event.reason for event in Decoder().feed(encode(large)[:12]) if isinstance(event, Malformed)] == [
        Reason.TOO_LONG
    ]
    with pytest.raises(packetcore.LocalProtocolError, match="max_payload"):
        FakeSession(Handler()).session.send(large)


@pytest.mark.parametrize("byte", [0x00, 0xFD, 0xFE])
def test_a_frame_takes_up_to_twice_its_payload_and_20_bytes(byte: int) -> None:
    for size in (0, 100, 0xFDFE):
        packet = Packet(byte << 8 | byte, bytes([byte]) * size, type=byte, count=byte << 8 | byte)
        assert len(encode(packet)) <= 2 * size + 20


def test_a_frame_larger_than_the_dotnet_ring_never_comes_out_of_it() -> None:
    buffer = DotnetBuffer(capacity=CHUNK)
    frame = encode(Packet(1, bytes(5000)))
    assert [buffer.set_blocks(piece) for piece in (frame[:CHUNK], frame[CHUNK:])] == [True, False]
    assert buffer.get_blocks() == []


# Ends


def test_a_client_that_never_finishes_is_a_reset_and_its_packets_are_delivered(driver: Driver) -> None:
    handler = Recorder()
    server = driver.start_server(handler)
    peer = dial(server.address)
    peer.sendall(STREAM)
    peer.close()
    until(lambda: bool(handler.reasons))
    assert handler.reasons == [CloseReason.RESET]
    assert handler.packets == PACKETS


def test_who_iterates_over_a_stream_is_told_of_such_an_end() -> None:
    heard: list[object] = []

    def application(stream: packetcore_blocking.Stream) -> None:
        try:
            heard.extend(stream)
        except SessionClosed as closed:
            heard.append(closed.reason)

    with packetcore_blocking.serve(application, "127.0.0.1", 0) as server:
        peer = dial(server.address)
        peer.sendall(STREAM)
        peer.close()
        until(lambda: CloseReason.RESET in heard)


def test_a_client_that_finishes_and_closes_at_once_is_an_end_or_a_reset(driver: Driver) -> None:
    handler = Recorder()
    server = driver.start_server(handler)
    peer = dial(server.address)
    peer.sendall(STREAM)
    peer.shutdown(socket.SHUT_WR)
    peer.close()
    until(lambda: bool(handler.reasons))
    assert handler.reasons[0] in (CloseReason.PEER, CloseReason.RESET)
    assert handler.packets == PACKETS


def clock(driver: Driver, server: ServerBase[Any]) -> int:
    """Microseconds by the clock that timers go by: uvloop's stands still for up to a millisecond."""
    now: float = driver.call(server.endpoint.runtime.time)
    return round(1e6 * now)


def test_a_server_waits_the_whole_grace_for_a_client_that_never_finishes(driver: Driver) -> None:
    handler = Recorder()
    server = driver.start_server(handler)
    with dial(server.address):
        until(lambda: handler.connections == 1)
        began = clock(driver, server)
        driver.call(lambda: server.close(0.3))
        assert clock(driver, server) - began >= 300_000
    assert handler.reasons == [CloseReason.SHUTDOWN]


def test_close_timeout_bounds_the_wait_of_a_server(driver: Driver) -> None:
    handler = Recorder()
    server = driver.start_server(handler, config=Config(close_timeout=0.2))
    with dial(server.address):
        until(lambda: handler.connections == 1)
        began = clock(driver, server)
        driver.call(lambda: server.close(30.0), timeout=60.0)
        assert 200_000 <= clock(driver, server) - began < 1e6 * DEADLINE
    assert handler.reasons == [CloseReason.SHUTDOWN]


def test_close_timeout_bounds_the_wait_of_a_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = packetcore_blocking.connect(*listener.getsockname(), config=Config(close_timeout=0.2))
        accepted, _ = listener.accept()
        with accepted:
            began = time.monotonic()
            stream.close()
            assert 0.2 <= time.monotonic() - began < DEADLINE


# Frames


@pytest.mark.parametrize(("wire", "payload", "reason"), LENIENT.values(), ids=LENIENT)
def test_a_frame_that_the_dotnet_library_takes_is_refused_and_the_next_delivered(
    wire: str, payload: str, reason: Reason
) -> None:
    frame = bytes.fromhex(wire)
    assert seen(DotnetBuffer(), [frame]) == [(0x10, bytes.fromhex(payload))]
    with pytest.raises(MalformedFrame) as refused:
        decode(frame)
    assert refused.value.reason is reason
    handler = Notes()
    session = FakeSession(handler)
    session.feed(frame + VECTORS[0].wire)
    assert handler.calls[1:] == [("malformed", reason), ("packet", VECTORS[0].packet)]
    assert session.session.stats.malformed == {reason: 1}
    assert Decoder().feed(frame) == [Malformed(reason, len(frame) - 2, frame[1:-1])]


@pytest.mark.parametrize(
    ("wire", "reason"),
    [("fe001000000100000008010304fd0101fd0202fe", Reason.LENGTH_MISMATCH), ("fe0010000001fe", Reason.TOO_SHORT)],
)
def test_what_the_dotnet_library_drops_in_silence_is_told_here(wire: str, reason: Reason) -> None:
    frame = bytes.fromhex(wire)
    assert seen(DotnetBuffer(), [frame]) == []
    assert [event.reason for event in Decoder().feed(frame) if isinstance(event, Malformed)] == [reason]


def test_what_the_dotnet_library_encodes_is_never_refused() -> None:
    assert [decode(vector.wire) for vector in VECTORS] == PACKETS
    assert seen(DotnetBuffer(capacity=1 << 20), [vector.wire for vector in VECTORS]) == told(PACKETS)


def test_any_count_is_legal_and_0_is_the_same_as_1() -> None:
    zero = decode(bytes.fromhex("feffff01000000000001fd01fe"))  # as the .NET library made it
    assert zero == Packet(65535, b"\xfe", type=1, count=0)
    assert zero in PACKETS
    session = FakeSession(Handler())
    session.session.send(zero)
    assert session.sent == [zero]
    handler = Notes()
    FakeSession(handler, Config(join_messages=True)).feed(zero)
    assert handler.named("message") == [("message", Message(65535, b"\xfe", type=1))]


def test_with_join_messages_a_count_that_nobody_meant_holds_the_packet_back() -> None:
    (stray,) = [packet for packet in PACKETS if packet.count == 2005]
    handler = Notes()
    FakeSession(handler, Config(join_messages=True)).feed(stray)
    assert handler.calls == [("connected",)]


# Datagrams


def cut(frame: bytes) -> list[bytes]:
    """The datagrams that the .NET library makes of a frame."""
    return [frame[at : at + CHUNK] for at in range(0, len(frame), CHUNK)]


@pytest.mark.parametrize("joins", [False, True])
def test_a_frame_in_several_datagrams_arrives_where_they_are_joined(driver: Driver, joins: bool) -> None:
    large, small = Packet(7, bytes(5000)), Packet(8)
    config = run_block("udp =")["udp"] if joins else Config()
    handler = Recorder()
    server = driver.start_udp_server(handler, config=config)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect(server.address[:2])
        for datagram in [*cut(encode(large)), encode(small)]:
            peer.send(datagram)
        until(lambda: small in handler.packets)
    assert handler.packets == ([large, small] if joins else [small])


def test_a_lost_datagram_costs_the_frames_that_it_touches(driver: Driver) -> None:
    first, last = Packet(7, bytes(5000)), Packet(8, bytes(5000))
    handler = Recorder()
    server = driver.start_udp_server(handler, config=run_block("udp =")["udp"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect(server.address[:2])
        for datagram in [*cut(encode(first))[:1], *cut(encode(last))]:
            peer.send(datagram)
        until(lambda: last in handler.packets)
    assert handler.packets == [last]


@pytest.mark.parametrize("cuts", [False, True])
def test_a_large_packet_reaches_a_dotnet_peer_in_pieces_of_its_chunk(driver: Driver, cuts: bool) -> None:
    large, small = Packet(7, bytes(5000)), Packet(8)
    config = run_block("udp =")["udp"] if cuts else Config()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(DEADLINE)
        stream = driver.connect_udp(*peer.getsockname(), config=config)
        for packet in (large, small):
            driver.call(stream.send, packet)
        reads: list[bytes] = []
        while reads[-1:] != [encode(small)]:
            reads.append(peer.recv(CHUNK))  # what is longer than the buffer is cut off
    assert seen(DotnetBuffer(capacity=1 << 20), reads) == told([large, small] if cuts else [])
    if cuts:
        assert reads == [*cut(encode(large)), encode(small)]
