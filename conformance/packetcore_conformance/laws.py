"""The laws of framings, to hold one of your own to.

    from hypothesis import strategies as st
    from packetcore_conformance import laws

    def test_my_framing() -> None:
        laws.check(MyFraming(), st.binary(max_size=60))

or, with a test for each law:

    @pytest.mark.parametrize("law", laws.LAWS)
    def test_my_framing(law: laws.Law) -> None:
        law(laws.Subject(MyFraming(), st.binary(max_size=60)))

or, with streams of a fuzzer's making in place of hypothesis',

    laws.hold(laws.Subject(MyFraming()), max_frame=40, chunks=[data[:3], data[3:]])

A framing is what `packetcore.framings.Framing` says, and hypothesis looks for frames, streams and
cuts that break a law:

1. `chunking`: however a stream is cut, the events are the same, each at a place that the
   bytes fix, and so is `pending`.
2. `round_trip`: what is encoded is decoded, and nothing is left over.
3. `accounting`: every byte is spoken for once. Each `Malformed` speaks for bytes that follow
   those of the event before it and begin as its sample says. What is left of a stream without
   all those, once it has ended, is frames and delimiters: a new decoder gives the same frames
   for it, nothing malformed, and has nothing pending. (Bytes right behind a `Malformed` that gave
   nothing may be the end of its delimiter, and are left out if that is what it takes.)
4. `bounded_damage`: frames before a damaged one are delivered. Where the framing resynchronises, so are
   those behind it, but for one neighbour; where not, nothing comes behind the first `Malformed`.
5. `bounded_memory`: neither `pending` nor what a decoder holds in fact exceeds a bound that
   `max_frame` fixes, whatever is fed.
6. `linear_time`: to feed four times as much takes four times the work, in lines of Python run, calls
   into C and bytes allocated. (What C code does in place cannot be counted so.)
7. `end_of_stream`: one `Malformed` for all that is pending, and the decoder is as new.
8. `timeout`: `feed_timeout` gives all that is pending as NOISE, or nothing and changes nothing.
9. `timing`: what is pending behind an event came with it, so that a timer for it can begin there.
"""

from __future__ import annotations

import gc
import itertools
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import FrameType, FunctionType, ModuleType
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from packetcore import Malformed, Reason
from packetcore.framings import Decoder, Framing

Frames: TypeAlias = list[bytes | Malformed]
Chunk: TypeAlias = bytes | bytearray | memoryview
TraceFunction: TypeAlias = "Callable[[FrameType, str, object], TraceFunction | None]"


def _twice_and_some(max_frame: int) -> int:
    return 2 * max_frame + 64


def _letters(size: int) -> bytes:
    return b"a" * size


@dataclass(frozen=True)
class Subject:
    """A framing, and what one has to know to test it."""

    framing: Framing
    """What is tested."""

    frames: st.SearchStrategy[bytes] = st.binary(max_size=40)  # noqa: RUF009
    """Frames that it can carry, in any order."""

    long: Callable[[int], bytes] = _letters
    """Gives a frame of about so many bytes; one that it can carry, however many."""

    limits: tuple[int, ...] = (4, 40)
    """Values of `max_frame` to try: small ones, so that streams come near them."""

    bound: Callable[[int], int] = _twice_and_some
    """The most bytes that a decoder may hold, for a `max_frame`."""

    reach: Callable[[int], int] = lambda max_frame: 0
    """How many bytes behind a damaged frame and its neighbour may be lost as well, for a
    `max_frame`: as many as a length field can claim."""

    lookahead: int = 0
    """How many bytes behind an event a decoder may have to see before it gives it: those of the
    magic behind noise, say."""

    examples: int = 50
    """How many examples hypothesis tries of each law."""


Law: TypeAlias = Callable[[Subject], None]


def check(framing: Framing, frames: st.SearchStrategy[bytes] | None = None, **known: object) -> None:
    """Hold a framing to all laws.

    Args:
        framing: it.
        frames: frames that it can carry; by default any of at most 40 bytes.
        known: what else `Subject` says.
    """
    subject = Subject(framing, **({} if frames is None else {"frames": frames}), **known)  # type: ignore[arg-type]
    for law in LAWS:
        law(subject)


def _search(subject: Subject, test: Callable[[st.DataObject], None]) -> None:
    settings(deadline=None, max_examples=subject.examples)(given(st.data())(test))()


def _feed_all(decoder: Decoder, chunks: Iterable[Chunk]) -> Frames:
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def _one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def _size_of(events: Iterable[bytes | Malformed]) -> int:
    return sum(event.size for event in events if isinstance(event, Malformed))


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` as chunks, some of them empty: whole, byte by byte, or cut anywhere."""
    how = draw(st.sampled_from(["whole", "bytes", "cut", "cut"]))
    if how == "whole" or not data:
        return [data]
    if how == "bytes":
        return _one_by_one(data)
    places = [0, *sorted(draw(st.lists(st.integers(0, len(data)), max_size=8))), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> tuple[bytes, int]:
    """`data` with one byte changed, inserted or deleted, and where. It must not be empty."""
    at = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["change", "insert", "delete"]))
    byte = b"" if how == "delete" else bytes([draw(st.sampled_from(data) | st.integers(0, 255))])
    return data[:at] + byte + data[at + (how != "insert") :], at


@st.composite
def streams(draw: st.DrawFn, subject: Subject, max_frame: int, max_pieces: int = 6) -> bytes:
    """Sound frames, near misses, frames that are too long, and noise, in any order."""
    pieces: list[bytes] = []
    for _ in range(draw(st.integers(0, max_pieces))):
        sound = subject.framing.encode(draw(subject.frames))
        kind = draw(
            st.sampled_from(["sound", "sound", "head", "tail", "damaged", "long", "own bytes", "one byte", "any"])
        )
        if kind == "long":
            sound = subject.framing.encode(subject.long(max_frame + draw(st.integers(0, 3))))
        if kind == "any" or not sound:
            sound = draw(st.binary(max_size=16))
        elif kind == "head":
            sound = sound[: draw(st.integers(0, len(sound)))]
        elif kind == "tail":
            sound = sound[draw(st.integers(0, len(sound))) :]
        elif kind == "damaged":
            sound, _at = draw(damaged(sound))
        elif kind == "own bytes":
            sound = bytes(sound[byte % len(sound)] for byte in draw(st.binary(max_size=12)))
        elif kind == "one byte":
            sound = bytes([draw(st.sampled_from(sound))]) * draw(st.integers(1, subject.bound(max_frame) + 3))
        pieces.append(sound)
    return b"".join(pieces)


def chunking(subject: Subject) -> None:
    """However a stream is cut, the same events come at the same places."""

    def law(data: st.DataObject) -> None:
        max_frame = data.draw(st.sampled_from(subject.limits))
        chunks = data.draw(cuts(data.draw(streams(subject, max_frame))))
        kinds = st.sampled_from([bytes, bytearray, memoryview])
        _comes_however_cut(subject.framing, max_frame, [data.draw(kinds)(chunk) for chunk in chunks])

    _search(subject, law)


def _comes_however_cut(framing: Framing, max_frame: int, chunks: Iterable[Chunk]) -> None:
    cut, whole = framing.decoder(max_frame), framing.decoder(max_frame)
    fed, given_so_far = b"", Frames()
    for chunk in chunks:
        whole = framing.decoder(max_frame)
        fed += chunk
        given_so_far += cut.feed(chunk)
        assert given_so_far == whole.feed(fed)
        assert all(isinstance(event, bytes | Malformed) for event in given_so_far)
        assert cut.pending == whole.pending
    assert cut.feed_eof() == whole.feed_eof()


def round_trip(subject: Subject) -> None:
    """What is encoded is decoded."""

    def law(data: st.DataObject) -> None:
        sent = data.draw(st.lists(subject.frames, max_size=6))
        stream = b"".join(map(subject.framing.encode, sent))
        decoder = subject.framing.decoder()
        assert _feed_all(decoder, data.draw(cuts(stream))) == sent
        assert decoder.pending == 0
        assert decoder.feed_eof() == []

    _search(subject, law)


def accounting(subject: Subject) -> None:
    """Every byte is spoken for once."""

    def law(data: st.DataObject) -> None:
        max_frame = data.draw(st.sampled_from(subject.limits))
        stream = data.draw(streams(subject, max_frame))
        _speaks_for_every_byte(subject.framing, max_frame, stream)

    _search(subject, law)


def _speaks_for_every_byte(framing: Framing, max_frame: int, stream: bytes) -> None:
    decoder = framing.decoder(max_frame)
    frames = Frames()
    rest = b""  # the stream without what was malformed
    bare = b""  # nor with what right behind it gave nothing: the end of a delimiter, say
    bad = False
    start = 0  # where what no event speaks for begins
    for stop, byte in enumerate(_one_by_one(stream), 1):
        before = decoder.pending
        events = decoder.feed(byte)
        pending = decoder.pending
        if not events:
            # Held, counted beyond the bound, or a delimiter that ends nothing, or its end.
            assert pending in (before, before + 1, 0)
            if pending == 0:
                rest += stream[start:stop]
                bare += b"" if bad else stream[start:stop]
                start = stop
            continue
        end = stop - pending
        bad = isinstance(events[-1], Malformed)
        for event in events:
            if isinstance(event, Malformed):
                assert event.size > 0
                assert event.sample == stream[start : start + event.size][:64]
                start += event.size
                assert start <= end
            else:
                frames.append(event)
                rest += stream[start:end]
                bare += stream[start:end]
                start = end
        rest += stream[start:end]
        bare += stream[start:end]
        start = end
    assert decoder.pending <= len(stream) - start
    last = decoder.feed_eof()
    assert _size_of(last) == len(stream) - start
    assert [event.sample for event in last] == [stream[start:][:64]][: len(last)]
    ways: list[tuple[Frames, int]] = []
    for sound in (rest, bare):
        again = framing.decoder(max_frame)
        ways.append((again.feed(sound), again.pending))
    assert (frames, 0) in ways


def bounded_damage(subject: Subject) -> None:
    """Damage costs what it touches; or all that follows it, where nothing resynchronises."""

    def law(data: st.DataObject) -> None:
        max_frame = max(subject.limits)
        sent = data.draw(st.lists(subject.frames.filter(lambda frame: len(frame) <= max_frame), min_size=1, max_size=8))
        sound = [subject.framing.encode(frame) for frame in sent]
        whole, at = data.draw(damaged(b"".join(sound)))
        starts = [0, *itertools.accumulate(map(len, sound))]
        touched = max(index for index in range(len(sound)) if starts[index] <= at)
        decoder = subject.framing.decoder(max_frame)
        events = _feed_all(decoder, data.draw(cuts(whole)))
        delivered = [event for event in events if isinstance(event, bytes)]
        assert delivered[:touched] == sent[:touched]
        if subject.framing.resynchronises:
            far = starts[touched + 1] + subject.reach(max_frame)
            after = [frame for index, frame in enumerate(sent) if index >= touched + 2 and starts[index] >= far]
            assert delivered[len(delivered) - len(after) :] == after

    def nothing_comes_behind(data: st.DataObject) -> None:
        max_frame = data.draw(st.sampled_from(subject.limits))
        _ends_with_damage(subject.framing, max_frame, data.draw(cuts(data.draw(streams(subject, max_frame)))))

    def whatever_stands_between(data: st.DataObject) -> None:
        max_frame = max(subject.limits)
        short = subject.frames.filter(lambda frame: len(frame) <= max_frame)
        first, last = data.draw(short), data.draw(short)
        between = data.draw(streams(subject, max_frame))
        neighbour = subject.framing.encode(data.draw(short))
        behind = neighbour + neighbour * (subject.reach(max_frame) // max(1, len(neighbour)) + 1)
        stream = subject.framing.encode(first) + between + behind + subject.framing.encode(last)
        events = _feed_all(subject.framing.decoder(max_frame), data.draw(cuts(stream)))
        assert events[0] == first
        assert events[-1] == last

    _search(subject, law)
    _search(subject, whatever_stands_between if subject.framing.resynchronises else nothing_comes_behind)


def _ends_with_damage(framing: Framing, max_frame: int, chunks: Iterable[Chunk]) -> None:
    events = _feed_all(framing.decoder(max_frame), chunks)
    assert not any(isinstance(event, Malformed) for event in events[:-1])


_SHARED = (type, ModuleType, FunctionType, str, int)


def _memory(decoder: Decoder, framing: Framing) -> int:
    """What a decoder holds, in bytes, its framing left out."""
    seen, total = {id(framing)}, 0
    found: list[object] = [decoder]
    while found:
        each = found.pop()
        if id(each) in seen or isinstance(each, _SHARED):
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        found += gc.get_referents(each)
    return total


def hostile(subject: Subject, size: int) -> dict[str, bytes]:
    """Streams of about `size` bytes that make a careless decoder hold or do too much."""
    encode = subject.framing.encode
    short, long = encode(subject.long(3)), encode(subject.long(size))
    chance = random.Random(7)
    some, any_bytes = bytes(chance.choices(short, k=99)), chance.randbytes(99)
    found = {
        "a frame as long as the stream": long,
        "a frame without its end": long[:-1],
        "short frames": short * (size // len(short)),
        "beginnings of frames": short[: len(short) // 2] * (2 * size // len(short)),
        "ends of frames": short[len(short) // 2 :] * (2 * size // len(short)),
        "bytes of frames": some * (size // 99 + 1),
        "any bytes": any_bytes * (size // 99 + 1),
        "zeros": b"\x00" * size,
    }
    for byte in sorted({*short[:2], *short[-2:]}):
        found[f"{byte:02X} alone"] = bytes([byte]) * size
    return found


def bounded_memory(subject: Subject) -> None:
    """No decoder holds more than the bound."""
    framing = subject.framing
    for max_frame in subject.limits:
        bound = subject.bound(max_frame)
        for name, stream in hostile(subject, 20 * bound + 2_000).items():
            decoder = framing.decoder(max_frame)
            most = _memory(decoder, framing) + 2 * bound + 1_000
            for at in range(0, len(stream), 97):
                decoder.feed(stream[at : at + 97])
                assert decoder.pending <= bound, name
            assert _memory(decoder, framing) <= most, name

    def law(data: st.DataObject) -> None:
        max_frame = data.draw(st.sampled_from(subject.limits))
        _holds_no_more(subject, max_frame, data.draw(cuts(data.draw(streams(subject, max_frame)))))

    _search(subject, law)


def _holds_no_more(subject: Subject, max_frame: int, chunks: Iterable[Chunk]) -> None:
    decoder = subject.framing.decoder(max_frame)
    for chunk in chunks:
        for event in decoder.feed(chunk):
            assert isinstance(event, Malformed) or len(event) <= max_frame
        assert decoder.pending <= subject.bound(max_frame)


def steps(decoder: Decoder, chunks: Iterable[bytes]) -> int:
    """How many lines of Python a decoder runs for `chunks`, and calls into C."""
    count = 0

    def line(frame: FrameType, event: str, arg: object) -> TraceFunction:
        nonlocal count
        count += 1
        return line

    def call(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "c_call"

    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.setprofile(call)
    sys.settrace(line)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
    finally:
        sys.settrace(tracer)
        sys.setprofile(profiler)
    return count


def allocated(decoder: Decoder, chunks: Iterable[bytes]) -> int:
    """How many bytes a decoder allocates for `chunks`: the most at a time in each feed, summed up."""
    total, traces = 0, tracemalloc.is_tracing()
    if not traces:
        tracemalloc.start()
    try:
        for chunk in chunks:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            decoder.feed(chunk)
            total += tracemalloc.get_traced_memory()[1] - before
    finally:
        if not traces:
            tracemalloc.stop()
    return total


def linear_time(subject: Subject) -> None:
    """Four times as many bytes take four times the work."""
    for (work, size), chunk in itertools.product(((steps, 100), (allocated, 500)), (1, 7, 1 << 30)):
        smaller, larger = hostile(subject, size), hostile(subject, 4 * size)
        for name, grows in itertools.product(smaller.keys() & larger.keys(), (True, False)):
            for _ in range(3):  # another thread's work is counted too
                once, four_times = (
                    work(
                        subject.framing.decoder(max(subject.limits) + (len(stream) if grows else 0)),
                        [stream[at : at + chunk] for at in range(0, len(stream), chunk)],
                    )
                    for stream in (smaller[name], larger[name])
                )
                # And some more, for what is not quite alike in the two streams.
                most = 6 * once + 20 * size
                if four_times <= most:
                    break
            assert four_times <= most, f"{name}, by {chunk}: {once} {work.__name__}, and then {four_times}"


def end_of_stream(subject: Subject) -> None:
    """The end speaks once for all that is pending, and the decoder is as new."""

    def law(data: st.DataObject) -> None:
        max_frame = data.draw(st.sampled_from(subject.limits))
        decoder = subject.framing.decoder(max_frame)
        for _ in range(2):
            first, second = data.draw(streams(subject, max_frame)), data.draw(streams(subject, max_frame))
            _begins_anew(decoder, subject.framing.decoder(max_frame), first, second)

    def cut_short(data: st.DataObject) -> None:
        sent = data.draw(st.lists(subject.frames, max_size=2))
        whole = subject.framing.encode(data.draw(subject.frames))
        part = whole[: data.draw(st.integers(0, max(0, len(whole) - 1)))]
        decoder = subject.framing.decoder()
        events = decoder.feed(b"".join(map(subject.framing.encode, sent)) + part)
        assert events[: len(sent)] == sent
        pending = decoder.pending
        if len(events) > len(sent):  # a part of its delimiter is a delimiter too
            return
        assert pending <= len(part)
        expected = [Malformed(Reason.TRUNCATED, pending, part[len(part) - pending :][:64])] if pending else []
        assert decoder.feed_eof() == expected

    _search(subject, law)
    _search(subject, cut_short)


def _begins_anew(decoder: Decoder, new: Decoder, first: bytes, second: bytes) -> None:
    decoder.feed(first)
    pending = decoder.pending
    last = decoder.feed_eof()
    assert len(last) == bool(pending)
    assert all(event.reason in (Reason.TRUNCATED, Reason.NOISE) for event in last)
    assert _size_of(last) >= pending
    assert decoder.pending == 0
    assert decoder.feed_eof() == []
    assert decoder.feed(second) == new.feed(second)
    assert decoder.pending == new.pending
    assert decoder.feed_eof() == new.feed_eof()


def timeout(subject: Subject) -> None:
    """What is no frame begun is given as noise, and else nothing changes."""

    def law(data: st.DataObject) -> None:
        max_frame = max(subject.limits)
        stream, more = data.draw(streams(subject, max_frame)), data.draw(streams(subject, max_frame))
        decoder = subject.framing.decoder(max_frame)
        if _times_out(decoder, subject.framing.decoder(max_frame), stream, more) and subject.framing.resynchronises:
            frame = subject.framing.encode(data.draw(subject.frames.filter(lambda frame: len(frame) <= max_frame)))
            assert isinstance(decoder.feed(frame * 3)[-1], bytes)

    _search(subject, law)


def _times_out(decoder: Decoder, other: Decoder, stream: bytes, more: bytes) -> bool:
    """Whether something was given up."""
    assert decoder.feed(stream) == other.feed(stream)
    pending = decoder.pending
    noise = decoder.feed_timeout()
    if noise:
        assert [event.reason for event in noise] == [Reason.NOISE]
        assert _size_of(noise) >= pending > 0
        assert noise == [Malformed(Reason.NOISE, event.size, event.sample) for event in other.feed_eof()]
        assert decoder.pending == 0
        assert decoder.feed_timeout() == []
    else:
        assert decoder.pending == pending
        assert decoder.feed(more) == other.feed(more)
        assert decoder.feed_eof() == other.feed_eof()
    return bool(noise)


def timing(subject: Subject) -> None:
    """What is pending behind an event came with it."""

    def law(data: st.DataObject) -> None:
        max_frame = data.draw(st.sampled_from(subject.limits))
        _came_with_it(subject, max_frame, data.draw(streams(subject, max_frame)))

    _search(subject, law)


def _came_with_it(subject: Subject, max_frame: int, stream: bytes) -> None:
    decoder = subject.framing.decoder(max_frame)
    for byte in _one_by_one(stream):
        if decoder.feed(byte):
            assert decoder.pending <= max(1, subject.lookahead)


LAWS: tuple[Law, ...] = (
    chunking,
    round_trip,
    accounting,
    bounded_damage,
    bounded_memory,
    linear_time,
    end_of_stream,
    timeout,
    timing,
)
"""All of them, each a function of a `Subject`."""


def hold(subject: Subject, max_frame: int, chunks: Sequence[Chunk], *, accounts: bool = True) -> None:
    """Hold a framing to what a single stream can show of the laws, whoever made it: a fuzzer, or a peer that
    somebody wrote down. `round_trip`, `linear_time` and the damage done to frames that are known are not among it.

    Args:
        subject: the framing, and what one has to know of it; its `frames` and `examples` are not looked at.
        max_frame: the longest frame that the decoder hands out, in bytes.
        chunks: the stream, cut as it came.
        accounts: whether to hold it to `accounting`.

    Raises:
        AssertionError: a law is broken.
    """
    framing = subject.framing
    stream = b"".join(chunks)
    _comes_however_cut(framing, max_frame, chunks)
    if accounts:
        _speaks_for_every_byte(framing, max_frame, stream)
    if not framing.resynchronises:
        _ends_with_damage(framing, max_frame, chunks)
    _holds_no_more(subject, max_frame, chunks)
    half = len(stream) // 2
    _begins_anew(framing.decoder(max_frame), framing.decoder(max_frame), stream[:half], stream[half:])
    _times_out(framing.decoder(max_frame), framing.decoder(max_frame), stream[:half], stream[half:])
    _came_with_it(subject, max_frame, stream)
