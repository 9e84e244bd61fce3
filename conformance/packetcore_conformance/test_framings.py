"""Framings.

Any of them takes the place of the default: handlers, streams, clients, pools and UDP get its frames.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pytest

from packetcore import AnyPacket, Backoff, CloseReason, Config, Malformed, Packet, Reason, Session
from packetcore.framings import COBS, HDLC, SLIP, Decoder, Delimiter, FixedLength, Framing, LengthPrefix
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

FRAMINGS: list[Framing] = [COBS(), HDLC(), SLIP(), Delimiter(b"\r\n"), LengthPrefix(2), FixedLength(4)]

FRAMES = [b"\x00\x7e\xc0\xdb", b"ping", bytes(4)]
"""Of four bytes each, those among them that framings give a meaning."""


@pytest.fixture(autouse=True)
def needs_framing(rig: Rig) -> None:
    if "framing" not in rig.driver.capabilities():
        pytest.skip("the adapter says that it knows no other framing")


each_framing = pytest.mark.parametrize("framing", FRAMINGS, ids=lambda framing: type(framing).__name__)


@dataclass(frozen=True)
class Reading:
    """What an application may have for a packet."""

    meter: int
    value: int


class Readings:
    """The `packetcore.PacketCodec` of them."""

    def encode(self, reading: Reading) -> bytes:
        """See `packetcore.PacketCodec`."""
        if not isinstance(reading, Reading):
            raise TypeError(f"only a Reading can be sent, not {reading!r}")
        return struct.pack(">HH", reading.meter, reading.value)

    def decode(self, frame: bytes) -> Reading:
        """See `packetcore.PacketCodec`."""
        if len(frame) > 4:
            raise ValueError(f"a reading has 4 bytes, not {len(frame)}")
        return Reading(*struct.unpack(">HH", frame))


def echo(session: Session[AnyPacket], frame: AnyPacket) -> None:
    session.send(frame)


def malformed_of(handler: Recorder, count: int = 1) -> Any:
    return handler.wait("malformed", count)


def connect(rig: Rig, server: Any, *args: Any, **options: Any) -> Any:
    connected = rig.driver.connect(*server.address[:2], *args, **options)
    rig._clients.append(getattr(connected, "session", connected))
    return connected


@each_framing
def test_frames_that_come_cut_anywhere_reach_the_handler_and_its_replies_the_peer(rig: Rig, framing: Framing) -> None:
    handler = Recorder(packet_received=echo)
    peer = rig.peer(rig.serve(handler, framing=framing))
    sent = b"".join(map(framing.encode, FRAMES))
    for at in range(len(sent)):
        peer.send(sent[at : at + 1])
    assert handler.wait("packet_received", len(FRAMES)) == FRAMES
    assert peer.receive(len(sent)) == sent
    peer.send(sent * 100)
    assert peer.receive(len(sent) * 100) == sent * 100


@each_framing
def test_a_stream_speaks_it_on_both_sides(rig: Rig, framing: Framing) -> None:
    stream = connect(rig, rig.serve(framing=framing), framing=framing)

    def talk() -> Any:
        return stream.send(FRAMES[0])

    for _ in range(3):
        rig.call(talk)
        assert rig.call(lambda: stream.recv()) == FRAMES[0]


@pytest.mark.usefixtures("needs_udp")
@each_framing
def test_a_datagram_holds_whole_frames(rig: Rig, framing: Framing) -> None:
    server = rig.serve_udp(Recorder(packet_received=echo), framing=framing)
    peer = rig.udp_peer(server.address)
    peer.send(b"".join(map(framing.encode, FRAMES)))
    assert [peer.receive() for _ in FRAMES] == [*map(framing.encode, FRAMES)]


def test_bytes_that_are_no_frame_are_told_and_the_next_frame_comes(rig: Rig) -> None:
    framing = HDLC()
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(on_malformed="skip"), framing=framing))
    good = framing.encode(b"good")
    broken = good[:3] + bytes([good[3] ^ 1]) + good[4:]
    peer.send(good + broken + good)
    assert handler.wait("packet_received", 2) == [b"good"] * 2
    (malformed,) = handler.wait("malformed")
    assert isinstance(malformed, Malformed)
    assert malformed.reason is Reason.BAD_CHECK


def test_a_framing_that_cannot_find_the_next_frame_ends_the_session_at_the_first_bad_one(rig: Rig) -> None:
    handler = Recorder()
    framing = LengthPrefix(4)
    server = rig.serve(handler, Config(on_malformed="skip", max_payload=100), framing=framing)
    peer = rig.peer(server)
    peer.send(framing.encode(b"good") + b"\xff\xff\xff\xff" + framing.encode(b"rubbish"))
    assert peer.receive_rest() == b""
    peer.close()
    assert handler.wait_reasons() == [CloseReason.PROTOCOL_ERROR]
    assert handler.values("packet_received") == [b"good"]


def test_a_codec_gives_the_application_packets_of_its_own(rig: Rig) -> None:
    handler = Recorder(packet_received=echo)
    options: dict[str, Any] = {"framing": COBS(), "codec": Readings()}
    server = rig.serve(handler, Config(on_malformed="skip"), **options)
    stream = connect(rig, server, **options)
    rig.call(lambda: stream.send(Reading(7, 230)))
    assert rig.call(lambda: stream.recv()) == Reading(7, 230)
    with pytest.raises(TypeError, match="only a Reading can be sent"):
        rig.call(lambda: stream.send(b"bytes"))
    peer = rig.peer(server)
    peer.send(b"".join(COBS().encode(frame) for frame in (b"no reading", b"cut", Readings().encode(Reading(8, 1)))))
    assert handler.wait("packet_received", 2)[1] == Reading(8, 1)
    too_long, cut = malformed_of(handler, 2)
    assert [too_long, cut] == [Malformed.of(Reason.NO_PACKET, frame) for frame in (b"no reading", b"cut")]
    assert too_long.detail == "ValueError: a reading has 4 bytes, not 10"
    assert cut.detail.startswith("error: unpack requires")


def test_a_match_function_knows_the_reply_to_a_request(rig: Rig) -> None:
    options: dict[str, Any] = {"framing": COBS(), "codec": Readings()}
    stream = connect(rig, rig.serve(Recorder(packet_received=echo), **options), **options)

    def ask() -> Any:
        return stream.request(Reading(7, 1), match=lambda reading: reading.meter == 7, timeout=DEADLINE)

    assert rig.call(ask) == Reading(7, 1)
    with pytest.raises(TypeError, match="match=None"):
        rig.call(lambda: stream.request(Reading(7, 1)))


class Careless(Readings):
    """A codec with a mistake in it, that some frames bring to light."""

    def decode(self, frame: bytes) -> Reading:
        """See `packetcore.PacketCodec`."""
        if frame == b"oops":
            raise RuntimeError("a mistake")
        return super().decode(frame)


class Broken(SLIP):
    """A framing whose decoder raises, which none should, at some frames and at the end of a stream."""

    def decoder(self, max_frame: int = 1 << 20) -> Any:
        """See `packetcore.framings.Framing`."""
        return BrokenDecoder(super().decoder(max_frame))


class BrokenDecoder:
    pending = 0

    def __init__(self, whole: Decoder) -> None:
        self._whole = whole
        self.feed_timeout = whole.feed_timeout

    def feed(self, data: bytes) -> list[bytes | Malformed]:
        """See `packetcore.framings.Decoder`."""
        if b"oops" in data:
            raise RuntimeError("a mistake")
        return self._whole.feed(data)

    def feed_eof(self) -> list[Malformed]:
        """See `packetcore.framings.Decoder`."""
        raise RuntimeError("a mistake")


def test_a_framing_that_raises_costs_what_it_was_fed(rig: Rig) -> None:
    handler = Recorder(packet_received=echo)
    server = rig.serve(handler, Config(on_malformed="skip"), framing=Broken())
    peer = rig.peer(server)
    peer.send(b"oops")
    (malformed,) = malformed_of(handler)
    assert malformed == Malformed.of(Reason.FRAMING_FAILED, b"oops")
    assert malformed.detail == "RuntimeError: a mistake"
    peer.send(SLIP().encode(b"ping"))
    assert peer.receive(len(SLIP().encode(b"ping"))) == SLIP().encode(b"ping")
    peer.finish()
    assert handler.wait_reasons() == [CloseReason.PEER]


@pytest.mark.usefixtures("needs_udp")
def test_a_framing_that_raises_costs_a_datagram_of_a_stranger(rig: Rig) -> None:
    handler = Recorder(packet_received=echo)
    peer = rig.udp_peer(rig.serve_udp(handler, framing=Broken()).address)
    for datagram in (b"oops", SLIP().encode(b"ping")):
        peer.send(datagram)
    assert handler.wait("packet_received") == [b"ping"]


def test_a_keepalive_is_a_packet_of_the_codec(rig: Rig) -> None:
    config = Config(keepalive_interval=0.1, keepalive_packet=Reading(0, 0))
    peer = rig.peer(rig.serve(config=config, framing=SLIP(), codec=Readings()))
    assert peer.receive(6) == SLIP().encode(bytes(4))


def test_what_is_of_another_framing_is_refused(rig: Rig) -> None:
    with pytest.raises(TypeError, match="keepalive_packet=b'beat' is no Packet"):
        rig.serve(config=Config(keepalive_packet=b"beat"))
    with pytest.raises(TypeError, match=r"keepalive_packet=.*only bytes can be sent"):
        rig.serve(config=Config(keepalive_packet=Packet(1)), framing=COBS())
    with pytest.raises(ValueError, match="keepalive_packet: a frame has 4 bytes, not 5"):
        rig.serve(config=Config(keepalive_packet=b"12345"), framing=FixedLength(4))
    config = Config(join_messages=True)
    with pytest.raises(ValueError, match="COBS"):
        rig.serve(config=config, framing=COBS())
    connect: Any = rig.driver.connect
    with pytest.raises(ValueError, match="COBS"):
        connect("127.0.0.1", 1, Recorder(), config=config, framing=COBS(), reconnect=Backoff())
    with pytest.raises(TypeError, match="give one"):
        rig.serve(codec=Readings())


@pytest.mark.usefixtures("needs_pool")
def test_the_streams_of_a_pool_speak_it(rig: Rig) -> None:
    server = rig.serve(Recorder(packet_received=echo), framing=SLIP())
    pool = rig.connection_pool(server.address, framing=SLIP())

    def use(stream: Any) -> Any:
        return stream.request(b"\xc0", match=lambda frame: frame == b"\xc0", timeout=DEADLINE)

    assert rig.borrow(pool, use) == b"\xc0"


@pytest.mark.usefixtures("needs_reconnect")
def test_a_client_that_comes_back_keeps_frames_for_the_next_connection(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, framing=COBS())
    connect: Any = rig.driver.connect
    backoff = Backoff(initial=0.01, maximum=0.05)
    client = connect(*server.address[:2], Recorder(), framing=COBS(), reconnect=backoff, keep=1)
    rig._returning.append(client)
    rig.call(client.send, b"\x00frame")
    assert handler.wait("packet_received") == [b"\x00frame"]
