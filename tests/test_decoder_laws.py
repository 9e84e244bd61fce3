"""The seven laws of the decoder, each as a property."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import SupportsIndex, TypeAlias, overload

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Decoder, Malformed, Packet, Reason, encode
from packetcore_conformance.strategies import (
    chunked,
    corrupted,
    frames,
    malformed_frames,
    oversize_headers,
    packets,
    past_the_bound,
    special_bytes,
    streams,
)
from tests.hostile import Reference, size_of

pytestmark = pytest.mark.usefixtures("codec")

Events: TypeAlias = list[Packet | Malformed]
TraceFunction: TypeAlias = "Callable[[FrameType, str, object], TraceFunction | None]"

FLAG = 0xFE
limits = st.sampled_from([0, 1, 8, 40])
"""Small values of `max_payload`, so that every stream comes near them."""


def bound(max_payload: int) -> int:
    return 2 * (max_payload + 9)


def feed_all(decoder: Decoder, chunks: Iterable[bytes]) -> Events:
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@given(st.data(), limits)
def test_law_1_chunking(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    chunks = data.draw(chunked(stream))
    whole, cut = Decoder(max_payload=max_payload), Decoder(max_payload=max_payload)
    assert feed_all(cut, chunks) == whole.feed(stream)
    assert cut.feed_eof() == whole.feed_eof()


@given(st.data(), limits)
def test_law_1_chunking_gives_each_event_at_a_place_that_the_bytes_fix(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    decoder = Decoder(max_payload=max_payload)
    fed, given_so_far = b"", Events()
    for chunk in data.draw(chunked(stream)):
        fed += chunk
        given_so_far += decoder.feed(chunk)
        assert given_so_far == Reference(fed, max_payload).events


@given(st.data(), limits)
def test_what_is_no_frame_begun_is_given_up_and_the_next_frame_delivered(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    reference = Reference(stream, max_payload)
    decoder = Decoder(max_payload=max_payload)
    assert feed_all(decoder, data.draw(chunked(stream))) == reference.events
    assert decoder.feed_timeout() == reference.at_timeout
    if reference.at_timeout:
        assert decoder.pending == 0
        assert decoder.feed_timeout() == []
        assert decoder.feed(b"tail" + encode(Packet(1))) == [Malformed(Reason.NOISE, 4, b"tail"), Packet(1)]
    else:
        assert decoder.feed_eof() == reference.at_eof  # and nothing was taken from a frame begun


@given(st.data(), st.lists(packets(), max_size=6))
def test_law_2_round_trip(data: st.DataObject, sent: list[Packet]) -> None:
    stream = b"".join(map(encode, sent))
    assert feed_all(Decoder(max_payload=64), data.draw(chunked(stream))) == sent


@given(st.data(), limits)
def test_law_3_frames(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    reference = Reference(stream, max_payload)
    decoder = Decoder(max_payload=max_payload)
    events = decoder.feed(stream)
    assert events == reference.events
    assert list(map(type, events)) == list(map(type, reference.events))  # a packet equals a plain tuple
    assert decoder.feed_eof() == reference.at_eof


@given(st.lists(frames(), min_size=1, max_size=6), st.integers(0, 3))
def test_law_3_frames_may_share_a_flag_and_flags_alone_are_nothing(sent: list[bytes], idle_flags: int) -> None:
    idle = b"\xfe" * idle_flags
    shared = idle + b"\xfe" + b"".join(frame[1:] + idle for frame in sent)
    apart = b"".join(sent)
    assert Decoder().feed(shared) == Decoder().feed(apart)


@given(st.data(), limits)
def test_law_3_frames_that_are_malformed_give_no_packet(data: st.DataObject, max_payload: int) -> None:
    events = Decoder(max_payload=max_payload).feed(data.draw(malformed_frames(max_payload)))
    assert events
    assert all(isinstance(event, Malformed) for event in events)


@given(st.data(), limits)
def test_law_4_accounting(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    decoder = Decoder(max_payload=max_payload)
    fed = accounted = 0
    for chunk in data.draw(chunked(stream)):
        events = decoder.feed(chunk)
        fed += len(chunk)
        accounted += chunk.count(FLAG) + sum(map(size_of, events))
        # Noise is counted to its end, but `pending` says no more than what may be held.
        assert decoder.pending == min(fed - accounted, bound(max_payload))
    assert accounted + sum(map(size_of, decoder.feed_eof())) == len(stream)
    assert decoder.pending == 0


@given(st.data(), limits)
def test_law_4_accounting_samples_hold_the_first_64_bytes(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload))
    decoder = Decoder(max_payload=max_payload)
    position = 0
    for event in feed_all(decoder, data.draw(chunked(stream))) + decoder.feed_eof():
        while stream[position] == FLAG:
            position += 1
        if isinstance(event, Malformed):
            assert event.size > 0
            assert event.sample == stream[position : position + event.size][:64]
        position += size_of(event)


@given(st.data(), st.lists(packets(40), min_size=1, max_size=6))
def test_law_5_bounded_damage(data: st.DataObject, sent: list[Packet]) -> None:
    sound = [encode(packet) for packet in sent]
    damaged, at = data.draw(corrupted(b"".join(sound)))
    touched = 0
    while at >= len(sound[touched]):
        at -= len(sound[touched])
        touched += 1
    was_inserted = len(damaged) > sum(map(len, sound))
    before = sent[:touched]
    # A byte inserted in front of an opening flag stands between two frames and touches neither.
    after = sent[touched if was_inserted and at == 0 else touched + 1 :]
    events = feed_all(Decoder(max_payload=40), data.draw(chunked(damaged + b"\xfe")))
    delivered = [event for event in events if isinstance(event, Packet)]
    assert delivered[: len(before)] == before
    assert delivered[len(delivered) - len(after) :] == after


@given(st.data(), limits)
def test_law_5_bounded_damage_whatever_stands_between_two_frames(data: st.DataObject, max_payload: int) -> None:
    first, last = data.draw(packets(max_payload)), data.draw(packets(max_payload))
    between = data.draw(malformed_frames(max_payload) | special_bytes(60) | streams(max_payload))
    events = Decoder(max_payload=max_payload).feed(encode(first) + between + encode(last))
    assert events[0] == first
    assert events[-1] == last


@given(st.data(), limits)
def test_law_6_bounded_memory(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload) | special_bytes(300))
    decoder = Decoder(max_payload=max_payload)
    for chunk in data.draw(chunked(stream)):
        decoder.feed(chunk)
        assert decoder.pending <= bound(max_payload)


@given(st.data(), limits)
def test_law_6_bounded_memory_too_long_comes_with_the_byte_that_proves_it(
    data: st.DataObject, max_payload: int
) -> None:
    header = data.draw(oversize_headers(max_payload))
    beyond = data.draw(past_the_bound(max_payload))[1 : bound(max_payload) + 2]
    proof = data.draw(st.sampled_from([header, beyond, b"\xfd\x01" * 9]))
    assert len(proof) <= bound(max_payload) + 1
    decoder = Decoder(max_payload=max_payload)
    assert feed_all(decoder, one_by_one(b"\xfe" + proof[:-1])) == []
    assert decoder.pending == len(proof) - 1
    assert decoder.feed(proof[-1:]) == [Malformed(Reason.TOO_LONG, len(proof), proof[:64])]
    assert decoder.pending == 0

    noise = data.draw(st.binary(min_size=1, max_size=300)).replace(b"\xfe", b"\xfd")
    assert feed_all(decoder, data.draw(chunked(noise))) == []
    assert decoder.pending == min(len(noise), bound(max_payload))
    assert decoder.feed(b"\xfe") == [Malformed(Reason.NOISE, len(noise), noise[:64])]
    packet = data.draw(packets(max_payload))
    assert decoder.feed(encode(packet)[1:]) == [packet]  # the flag that ended the noise opens it


@pytest.mark.parametrize("prelude", [b"", b"\xfe\x00\x10\x00\x00\x01\xff\xff\xff\xff"], ids=["noise", "too long"])
@pytest.mark.parametrize(
    "chunk", [b"\x00", b"\xfd", b"\x00" * 50, b"\x00" * 10_000], ids=["zero", "escape", "50", "large"]
)
def test_law_6_bounded_memory_noise_is_counted_and_not_kept(codec: str, prelude: bytes, chunk: bytes) -> None:
    slots = Decoder.__slots__ if codec == "python" else ()
    decoder = Decoder(max_payload=8)
    decoder.feed(prelude)
    for _ in range(5_000):
        decoder.feed(chunk)
    held = sys.getsizeof(decoder) + sum(sys.getsizeof(getattr(decoder, name)) for name in slots)
    assert held < 1_000
    assert decoder.pending == bound(8)
    assert decoder.feed_eof() == [Malformed(Reason.NOISE, 5_000 * len(chunk), (chunk * 64)[:64])]


# Law 7 counts work instead of timing it: lines of Python run, calls into C with the bytes
# that the called method may look at, and bytes moved in and out of the run that is kept.


class Tally:
    """What a decoder did, in lines and bytes."""

    def __init__(self) -> None:
        self.work = 0

    def line(self, frame: FrameType, event: str, arg: object) -> TraceFunction:
        self.work += 1
        return self.line

    def call(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "c_call":
            owner = getattr(arg, "__self__", None)
            self.work += 1 + (len(owner) if isinstance(owner, bytes) else 0)


class CountedRun(bytearray):
    """A bytearray that tells its tally how many bytes it takes, gives or moves."""

    tally: Tally

    def __iadd__(self, data: object, /) -> CountedRun:
        assert isinstance(data, bytes)
        self.tally.work += len(data)
        self.extend(data)
        return self

    def __add__(self, data: object, /) -> CountedRun:
        assert isinstance(data, bytes)
        self.tally.work += len(self) + len(data)
        both = CountedRun(bytes(self) + data)
        both.tally = self.tally
        return both

    def __bytes__(self) -> bytes:
        self.tally.work += len(self)
        return b"".join((self,))

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytearray: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> int | bytearray:
        if not isinstance(key, slice):
            return super().__getitem__(key)
        part = super().__getitem__(key)
        self.tally.work += len(part)
        return part


def work(stream: bytes, chunk: int, max_payload: int) -> int:
    """How much a decoder does while it is fed `stream` in chunks of this size."""
    chunks = [stream[at : at + chunk] for at in range(0, len(stream), chunk)]
    decoder = Decoder(max_payload=max_payload)
    tally = Tally()
    run = CountedRun()
    run.tally = tally
    decoder._run = run
    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.setprofile(tally.call)
    sys.settrace(tally.line)
    try:
        for piece in chunks:
            decoder.feed(piece)
    finally:
        sys.settrace(tracer)
        sys.setprofile(profiler)
    assert decoder._run is run, "the run that is counted is the one that is used"
    return tally.work


def whole_frame(payload: bytes) -> bytes:
    return encode(Packet(16, payload))


OVERSIZE = b"\xfe" + struct.pack(">HBHI", 16, 0, 1, 0xFFFFFFFF)
HOSTILE: dict[str, Callable[[int], bytes]] = {
    "a frame of max_payload bytes": lambda n: whole_frame(b"\x00" * n),
    "a frame of nothing but escapes": lambda n: whole_frame(b"\xfe" * (n // 2)),
    "a frame that passes the bound": lambda n: b"\xfe" + b"\x00" * n * 3,
    "all flags": lambda n: b"\xfe" * n,
    "all escapes": lambda n: b"\xfe" + b"\xfd" * n,
    "a flag and a byte, again and again": lambda n: b"\xfe\x00" * (n // 2),
    "a flag and an escape, again and again": lambda n: b"\xfe\xfd" * (n // 2),
    "endless noise": lambda n: b"\x00" * n,
    "a header too large, again and again": lambda n: OVERSIZE * (n // len(OVERSIZE)),
    "a header too large, then noise": lambda n: OVERSIZE + b"\xfd" * n,
    "headers cut before their end": lambda n: OVERSIZE[:-1] * (n // len(OVERSIZE)),
}


@pytest.mark.parametrize("chunk", [1, 7, 1 << 30], ids=["bytes", "sevens", "whole"])
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("limit", [8, 1_000], ids=["small limit", "limit of the same size"])
@pytest.mark.parametrize("codec", ["python"], indirect=True)  # benchmarks/guard.py counts the instructions of the C
def test_law_7_linear_time(codec: str, hostile: str, chunk: int, limit: int) -> None:
    n = 1_000
    small, large = HOSTILE[hostile](n), HOSTILE[hostile](4 * n)
    # The limit grows with the stream, so that what is kept of it may grow as well.
    once, four_times = work(small, chunk, limit), work(large, chunk, limit * 4 if limit == n else limit)
    assert four_times <= 4 * once + 500
    assert four_times <= 200 * len(large) + 500


def test_100_000_hostile_streams_can_be_run_by_hand_and_2_000_are_run_here(codec: str) -> None:
    script = Path(__file__).with_name("hostile.py")
    command = [sys.executable, str(script), "2000", "7"]
    environment = {**os.environ, "PACKETCORE_PURE": "0" if codec == "C" else "1"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("2000 hostile streams, seeds 7 to 2006: no law broken")
