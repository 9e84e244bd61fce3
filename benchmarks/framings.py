"""How fast each framing is decoded, beside the default format and what one would use instead.

Every case is fed the same frames, 64 KiB at a time, in one process and in turns; a figure is the
median of the rounds. The default format is in C where that was built, the framings are in Python.
`cobs` and `msgpack` are in C, sliplib and Twisted's `Int32StringReceiver` are not.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
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


def of_msgpack(frames: list[bytes]) -> float:
    msgpack = import_module("msgpack")
    unpacker = msgpack.Unpacker(max_buffer_size=4 * BATCH)

    def feed(chunk: bytes) -> None:
        unpacker.feed(chunk)
        for _ in unpacker:
            pass

    return timed(feed, b"".join(map(msgpack.packb, frames)), len(frames))


def of_int32(frames: list[bytes]) -> float:
    class Receiver(Int32StringReceiver):
        def stringReceived(self, string: bytes) -> None:  # noqa: N802
            pass

    return timed(Receiver().dataReceived, b"".join(struct.pack(">I", len(one)) + one for one in frames), len(frames))


OTHERS: dict[str, tuple[Callable[[list[bytes]], float], str]] = {
    "default format": (of_default, ""),
    "cobs package": (of_cobs, "COBS"),
    "sliplib": (of_sliplib, "SLIP"),
    "msgpack bin": (of_msgpack, "u32"),
    "Twisted Int32": (of_int32, "u32"),
}
"""Beside which of ours each stands."""


def main() -> None:
    options = arguments(__doc__, rounds=7).parse_args()
    cases: dict[str, Callable[[], float]] = {}
    for size in SIZES:
        frames = frames_of(size)
        for name, new in FRAMINGS.items():
            cases[f"{name} {size}"] = partial(of_framing, new(size), frames)
        for name, (measure, _) in OTHERS.items():
            cases[f"{name} {size}"] = partial(measure, frames)
    results = interleave(cases, options.rounds)
    rate = {name: median(values) for name, values in results.items()}
    for size in SIZES:
        rows = []
        for name in [*FRAMINGS, *OTHERS]:
            figure = rate[f"{name} {size}"]
            against = [f"{figure / rate[f'default format {size}']:.2f} x default"]
            against += [
                f"{figure / rate[f'{other} {size}']:.2f} x {other}"
                for other, (_, ours) in OTHERS.items()
                if ours == name
            ]
            rows.append((name, f"{figure:,.0f}", f"{figure * size / 1e6:,.0f}", ", ".join(against)))
        show(f"decoding frames of {size:,} random bytes", ("framing", "frames/s", "MB/s", "ratio"), rows)
    save(options.json, "framings", "frames per second", results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
