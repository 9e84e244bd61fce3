"""The wire format is that of the .NET library: its own output, in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Decoder, Packet, decode, encode
from packetcore_conformance.strategies import chunked
from packetcore_conformance.vectors import PACKETS, STREAM, VECTORS

pytestmark = pytest.mark.usefixtures("codec")

each_vector = pytest.mark.parametrize(("packet", "wire"), VECTORS, ids=range(len(VECTORS)))


def test_there_are_80() -> None:
    assert len(VECTORS) == 80


@each_vector
def test_encode_gives_the_frame_of_the_dotnet_library(packet: Packet, wire: bytes) -> None:
    assert encode(packet) == wire


@each_vector
def test_decode_gives_the_packet_of_the_dotnet_library(packet: Packet, wire: bytes) -> None:
    assert decode(wire) == packet


@each_vector
def test_a_frame_may_be_cut_at_every_position(packet: Packet, wire: bytes) -> None:
    for cut in range(len(wire) + 1):
        decoder = Decoder()
        first, second = decoder.feed(wire[:cut]), decoder.feed(wire[cut:])
        assert (first, second) == (([], [packet]) if cut < len(wire) else ([packet], []))


@each_vector
def test_a_frame_may_come_byte_by_byte(packet: Packet, wire: bytes) -> None:
    decoder = Decoder()
    assert [event for byte in wire[:-1] for event in decoder.feed(bytes([byte]))] == []
    assert decoder.feed(wire[-1:]) == [packet]


def test_all_frames_stream_as_a_whole() -> None:
    assert Decoder().feed(STREAM) == PACKETS


def test_all_frames_stream_byte_by_byte() -> None:
    decoder = Decoder()
    assert [event for byte in STREAM for event in decoder.feed(bytes([byte]))] == PACKETS


@given(chunked(STREAM))
def test_all_frames_stream_in_any_chunks(chunks: list[bytes]) -> None:
    decoder = Decoder()
    assert [event for chunk in chunks for event in decoder.feed(chunk)] == PACKETS


@given(st.integers(1, 200))
def test_all_frames_stream_in_chunks_of_any_one_size(size: int) -> None:
    decoder = Decoder()
    chunks = (STREAM[at : at + size] for at in range(0, len(STREAM), size))
    assert [event for chunk in chunks for event in decoder.feed(chunk)] == PACKETS
