"""How fast each framing is decoded and encoded, beside the default format and what one would use instead.

Every case has the same frames, in one process and in turns; a figure is the median of the rounds.
Streams are fed 64 KiB at a time. Where the extension was built, the default format is in C, and so are
byte stuffing, COBS and length prefixes; delimiters and fixed lengths are in Python. `cobs` and
`msgpack` are in C; sliplib, simplehdlc, Twisted's `Int32StringReceiver` and `construct`, compiled, are not.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from io import BytesIO
from statistics import median
from typing import Any

from _common import arguments, interleave, save, show
from twisted.protocols.basic import Int32StringReceiver

from packetcore import Decoder, Packet, encode
from packetcore.framings import COBS, COBSR, HDLC, SLIP, Delimiter, FixedLength, Framing, LengthPrefix

CHUNK = 64 * 1024
SIZES = (64, 1024)
BATCH = 1 << 20
"""About how many bytes of frames one measurement decodes."""

FRAMINGS: dict[str, Callable[[int], Framing]] = {
    "SLIP": lambda size: SLIP(),
    "HDLC fcs16": lambda size: HDLC(),
    "HDLC fcs32": lambda size: HDLC(check="fcs32"),
    "HDLC": lambda size: HDLC(check=None),
    "COBS": lambda size: COBS(),
    "COBS/R": lambda size: COBSR(),
    "u32": lambda size: LengthPrefix(4),
    "varint": lambda size: LengthPrefix("varint"),
    "magic u16": lambda size: LengthPrefix(2, magic=b"\xaa\x55"),
    "delimiter": lambda size: Delimiter(b"\x00\xff\x00"),
    "fixed length": FixedLength,
}


def frames_of(size: int) -> list[bytes]:
    """Random frames, in which no delimiter stands."""
    random_bytes = random.Random(size).randbytes
    return [random_bytes(size).replace(b"\x00\xff", b"\x01\xff") for _ in range(max(1, BATCH // size))]


def timed(feed: Callable[[bytes], Any], stream: bytes, count: int) -> float:
    """Frames a second of a decoder that is fed a stream."""
    chunks = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]
    begin = time.perf_counter()
    for chunk in chunks:
        feed(chunk)
    return count / (time.perf_counter() - begin)


def each(function: Callable[[Any], Any], arguments: Sequence[Any]) -> float:
    """Calls a second of a function."""
    begin = time.perf_counter()
    for argument in arguments:
        function(argument)
    return len(arguments) / (time.perf_counter() - begin)


def of_framing(framing: Framing, frames: list[bytes]) -> float:
    return timed(framing.decoder().feed, b"".join(map(framing.encode, frames)), len(frames))


def of_default(frames: list[bytes]) -> float:
    return timed(Decoder().feed, b"".join(encode(Packet(1, frame)) for frame in frames), len(frames))


def of_cobs(frames: list[bytes]) -> float:
    """What one writes around `cobs`, which knows frames and no streams."""
    decode, rest = import_module("cobs.cobs").decode, b""

    def feed(chunk: bytes) -> None:
        nonlocal rest
        *runs, rest = (rest + chunk).split(b"\x00")
        for run in runs:
            decode(run)

    return timed(feed, b"".join(COBS().encode(frame) for frame in frames), len(frames))


def of_sliplib(frames: list[bytes]) -> float:
    driver = import_module("sliplib").Driver()

    def feed(chunk: bytes) -> None:
        driver.receive(chunk)
        while driver.get(block=False):
            pass

    return timed(feed, b"".join(map(driver.send, frames)), len(frames))


def of_simplehdlc(frames: list[bytes]) -> float:
    """A format of its own, with HDLC's flags and escapes, a length and FCS-32."""
    hdlc = import_module("simplehdlc").SimpleHDLC
    decoder = hdlc(lambda frame: None, max(SIZES))
    return timed(decoder.parse, b"".join(map(hdlc.encode, frames)), len(frames))


def of_msgpack(frames: list[bytes]) -> float:
    msgpack = import_module("msgpack")
    unpacker = msgpack.Unpacker(max_buffer_size=4 * BATCH)

    def feed(chunk: bytes) -> None:
        unpacker.feed(chunk)
        for _ in unpacker:
            pass

    return timed(feed, b"".join(map(msgpack.packb, frames)), len(frames))


def construct_frame() -> Any:
    """The default format's fields without flags and escapes, as one declares them for `construct`."""
    construct = import_module("construct")
    fields = (
        "id" / construct.Int16ub,
        "type" / construct.Int8ub,
        "count" / construct.Int16ub,
        "payload" / construct.Prefixed(construct.Int32ub, construct.GreedyBytes),
    )
    return construct.Struct(*fields).compile()


def of_construct(frames: list[bytes]) -> float:
    """All of the stream at once: of one that is cut anywhere it knows nothing."""
    frame = construct_frame()
    stream = BytesIO(b"".join(frame.build({"id": 1, "type": 0, "count": 1, "payload": one}) for one in frames))
    begin = time.perf_counter()
    for _ in frames:
        frame.parse_stream(stream)
    return len(frames) / (time.perf_counter() - begin)


def encode_construct(frames: list[bytes]) -> float:
    return each(construct_frame().build, [{"id": 1, "type": 0, "count": 1, "payload": one} for one in frames])


def of_int32(frames: list[bytes]) -> float:
    class Receiver(Int32StringReceiver):
        def stringReceived(self, string: bytes) -> None:  # noqa: N802
            pass

    return timed(Receiver().dataReceived, b"".join(struct.pack(">I", len(one)) + one for one in frames), len(frames))


def alone_cobs(frames: list[bytes]) -> float:
    return each(COBS().decoder().feed, [COBS().encode(frame) for frame in frames])


def alone_others(frames: list[bytes]) -> float:
    cobs = import_module("cobs.cobs")
    return each(cobs.decode, [cobs.encode(frame) for frame in frames])


def encode_default(frames: list[bytes]) -> float:
    return each(encode, [Packet(1, frame) for frame in frames])


def encode_others(package: str, name: str, frames: list[bytes]) -> float:
    return each(getattr(import_module(package), name), frames)


Measure = Callable[[int, list[bytes]], float]


def decoding(new: Callable[[int], Framing]) -> Measure:
    return lambda size, frames: of_framing(new(size), frames)


def encoding(new: Callable[[int], Framing]) -> Measure:
    return lambda size, frames: each(new(size).encode, frames)


def other(measure: Callable[[list[bytes]], float]) -> Measure:
    return lambda size, frames: measure(frames)


BESIDE = {
    "SLIP": ("sliplib",),
    "HDLC fcs32": ("simplehdlc",),
    "COBS": ("cobs package",),
    "u32": ("msgpack bin", "Twisted Int32"),
    "default format": ("construct",),
}
"""What one would use instead."""

TABLES: dict[str, dict[str, Measure]] = {
    "decoding a stream of": {
        **{name: decoding(new) for name, new in FRAMINGS.items()},
        "default format": other(of_default),
        "sliplib": other(of_sliplib),
        "simplehdlc": other(of_simplehdlc),
        "cobs package": other(of_cobs),
        "msgpack bin": other(of_msgpack),
        "Twisted Int32": other(of_int32),
        "construct": other(of_construct),
    },
    "decoding one by one": {"COBS": other(alone_cobs), "cobs package": other(alone_others)},
    "encoding": {
        **{name: encoding(new) for name, new in FRAMINGS.items()},
        "default format": other(encode_default),
        "cobs package": other(partial(encode_others, "cobs.cobs", "encode")),
        "msgpack bin": other(partial(encode_others, "msgpack", "packb")),
        "construct": other(encode_construct),
    },
}


def main() -> None:
    options = arguments(__doc__, rounds=7).parse_args()
    cases: dict[str, Callable[[], float]] = {}
    for size in SIZES:
        frames = frames_of(size)
        for title, table in TABLES.items():
            for name, measure in table.items():
                cases[f"{title} {size}: {name}"] = partial(measure, size, frames)
    results = interleave(cases, options.rounds)
    rate = {name: median(values) for name, values in results.items()}
    for title, table in TABLES.items():
        for size in SIZES:
            rows = []
            for name in table:
                figure = rate[f"{title} {size}: {name}"]
                against = [
                    f"{figure / rate[f'{title} {size}: {one}']:.2f} x {one}"
                    for one in ("default format", *BESIDE.get(name, ()))
                    if one in table and one != name
                ]
                rows.append((name, f"{figure:,.0f}", f"{figure * size / 1e6:,.0f}", ", ".join(against)))
            show(f"{title} frames of {size:,} random bytes", ("framing", "frames/s", "MB/s", "ratio"), rows)
    save(options.json, "framings", "frames per second", results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
