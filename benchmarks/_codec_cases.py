"""What `codec.py` measures: a `pyperf` script, each case in a process of its own.

    python benchmarks/_codec_cases.py -o FILE     one round by hand; `--help` lists more

Decoding is fed a stream of messages 64 KiB at a time, as a socket would give it, and walks
over what comes out, as a consumer would. Encoding takes messages one by one and makes frames
that are ready to be sent. Everybody gets the same messages. Each message is checked once for
coming out right before a clock runs; the garbage collector stays on, as it does in a server.

msgpack and cobs are imported as their modules in C, so that no fallback in Python can pass for
them. packetcore and msgpack hand over a message's four fields. cobs and `Int32StringReceiver` know
nothing of a header: they hand over header and payload in one piece, which is less work.

memcpy is a bytes object made of each payload, and nothing else: what no codec can pass. It is measured for the
longest payloads alone, where the call for it is little of that.

With PACKETCORE_PURE=1 in the environment only packetcore is measured, its codec in Python;
that case is called pure.
"""

from __future__ import annotations

import os
import random
import struct
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from time import perf_counter
from typing import NamedTuple

from packetcore import Decoder, Malformed, Packet, encode, speedups

KINDS = ("random", "text")
PAYLOAD_SIZES = (16, 64, 1024, 65536)
CHUNK = 64 * 1024
STREAM_SIZE = 2 * 1024 * 1024
MOST_PACKETS = 10_000
"""How much a stream holds, whichever is less."""
LEAST_TIME = 0.02
"""Seconds that a value takes at least: the stream is gone through as often as that needs."""
HEADER = struct.Struct(">HBHI")
"""packetcore's header, for codecs that know framing only."""

Fields = tuple[int, int, int, bytes]
"""A message as msgpack packs it: id, type, count and payload."""


class Case(NamedTuple):
    """One thing to measure. Its name is these four in a row."""

    direction: str
    """decode or encode."""
    kind: str
    """What payloads hold: random bytes, 1 in 128 of which packetcore escapes, or text, of which
    it escapes nothing."""
    size: int
    """Of a payload, in bytes."""
    codec: str
    """A key of `DECODERS` and `ENCODERS`."""

    @classmethod
    def parse(cls, name: str) -> Case:
        """The case that has a name."""
        direction, kind, size, codec = name.split(maxsplit=3)
        return cls(direction, kind, int(size), codec)

    def __str__(self) -> str:
        return f"{self.direction} {self.kind} {self.size} {self.codec}"


MEMCPY = "memcpy"
OURS = "packetcore" if speedups else "packetcore, pure"
ALONE = os.environ.get("PACKETCORE_PURE", "0") not in ("", "0")
"""Whether packetcore is measured without the others."""


def message_count(size: int) -> int:
    """How many messages a stream of such payloads holds."""
    return min(MOST_PACKETS, STREAM_SIZE // size)


def packets_of(kind: str, size: int) -> list[Packet]:
    """A stream's messages, the same ones in every run."""
    source = random.Random(size)
    text = telemetry(source, 2 * size) if kind == "text" else b""
    payloads = (
        text[at : at + size] if text else source.randbytes(size)
        for at in (source.randrange(size) for _ in range(message_count(size)))
    )
    return [Packet(index % 65536, payload) for index, payload in enumerate(payloads)]


def telemetry(source: random.Random, size: int) -> bytes:
    """So much text in lines, or a little more."""
    lines = [
        f"id={source.randrange(100_000):05d} seq={number:06d} t={source.uniform(-20, 40):+06.2f} "
        f"v={source.random():.3f} ok\n"
        for number in range(size // 32 + 1)
    ]
    return "".join(lines).encode("ascii")


def fields_of(packet: Packet) -> Fields:
    return packet.id, packet.type, packet.count, packet.payload


def in_one_piece(packet: Packet) -> bytes:
    """Header and payload, for codecs that know framing only."""
    return HEADER.pack(*fields_of(packet)[:3], len(packet.payload)) + packet.payload


class Decoding(NamedTuple):
    """How one codec decodes."""

    stream: bytes
    """What it is fed, in chunks."""
    walk: Callable[[Sequence[bytes]], None]
    """Decodes chunks and walks over what they hold: what is measured."""
    collect: Callable[[Sequence[bytes]], list[object]]
    """Does the same and gives what they hold."""
    expected: Sequence[object]
    """What that must be."""


def decoding_packetcore(packets: list[Packet]) -> Decoding:
    def walk(chunks: Sequence[bytes]) -> None:
        feed = Decoder().feed
        for chunk in chunks:
            for _ in feed(chunk):
                pass

    def collect(chunks: Sequence[bytes]) -> list[object]:
        feed = Decoder().feed
        events: list[Packet | Malformed] = [event for chunk in chunks for event in feed(chunk)]
        return [*events]

    return Decoding(b"".join(map(encode, packets)), walk, collect, packets)


def decoding_msgpack(packets: list[Packet]) -> Decoding:
    msgpack = import_module("msgpack._cmsgpack")

    def walk(chunks: Sequence[bytes]) -> None:
        unpacker = msgpack.Unpacker(use_list=False)
        feed = unpacker.feed
        for chunk in chunks:
            feed(chunk)
            for _ in unpacker:
                pass

    def collect(chunks: Sequence[bytes]) -> list[object]:
        unpacker = msgpack.Unpacker(use_list=False)
        messages: list[object] = []
        for chunk in chunks:
            unpacker.feed(chunk)
            messages += unpacker
        return messages

    messages = [fields_of(packet) for packet in packets]
    return Decoding(b"".join(map(msgpack.Packer().pack, messages)), walk, collect, messages)


def decoding_cobs(packets: list[Packet]) -> Decoding:
    cobs = import_module("cobs.cobs._cobs_ext")

    def walk(chunks: Sequence[bytes], decode: Callable[[bytes], object] = cobs.decode) -> None:
        rest = b""
        for chunk in chunks:
            *frames, after = chunk.split(b"\0")
            if frames:
                frames[0] = rest + frames[0]
                rest = after
                for frame in frames:
                    decode(frame)
            else:
                rest += after

    def collect(chunks: Sequence[bytes]) -> list[object]:
        messages: list[object] = []
        walk(chunks, lambda frame: messages.append(cobs.decode(frame)))
        return messages

    pieces = list(map(in_one_piece, packets))
    return Decoding(b"".join(cobs.encode(piece) + b"\0" for piece in pieces), walk, collect, pieces)


def decoding_int32(packets: list[Packet]) -> Decoding:
    from twisted.protocols.basic import Int32StringReceiver

    class Receiver(Int32StringReceiver):
        MAX_LENGTH = 1 << 20

        def stringReceived(self, string: bytes) -> None:  # noqa: N802
            pass

    class Collector(Receiver):
        def __init__(self) -> None:
            self.received: list[object] = []

        def stringReceived(self, string: bytes) -> None:  # noqa: N802
            self.received.append(string)

    def walk(chunks: Sequence[bytes]) -> None:
        feed: Callable[[bytes], None] = Receiver().dataReceived
        for chunk in chunks:
            feed(chunk)

    def collect(chunks: Sequence[bytes]) -> list[object]:
        collector = Collector()
        feed: Callable[[bytes], None] = collector.dataReceived
        for chunk in chunks:
            feed(chunk)
        return collector.received

    pieces = list(map(in_one_piece, packets))
    stream = b"".join(struct.pack(Int32StringReceiver.structFormat, len(piece)) + piece for piece in pieces)
    return Decoding(stream, walk, collect, pieces)


def decoding_memcpy(packets: list[Packet]) -> Decoding:
    size = len(packets[0].payload)

    def walk(chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            view = memoryview(chunk)
            for at in range(0, len(view), size):
                bytes(view[at : at + size])

    def collect(chunks: Sequence[bytes]) -> list[object]:
        return [bytes(memoryview(chunk)[at : at + size]) for chunk in chunks for at in range(0, len(chunk), size)]

    payloads = [packet.payload for packet in packets]
    return Decoding(b"".join(payloads), walk, collect, payloads)


class Encoding(NamedTuple):
    """How one codec encodes."""

    encode_all: Callable[[], None]
    """Encodes every message: what is measured."""
    frames: list[bytes]
    """What one call for each message gave."""


def encoding_packetcore(packets: list[Packet]) -> Encoding:
    def encode_all() -> None:
        for packet in packets:
            encode(packet)

    return Encoding(encode_all, list(map(encode, packets)))


def encoding_msgpack(packets: list[Packet]) -> Encoding:
    messages = [fields_of(packet) for packet in packets]
    pack = import_module("msgpack._cmsgpack").Packer().pack

    def encode_all() -> None:
        for message in messages:
            pack(message)

    return Encoding(encode_all, list(map(pack, messages)))


def encoding_cobs(packets: list[Packet]) -> Encoding:
    messages = [fields_of(packet) for packet in packets]
    cobs_encode = import_module("cobs.cobs._cobs_ext").encode
    pack = HEADER.pack

    def frame(message: Fields) -> bytes:
        id, type, count, payload = message
        result: bytes = cobs_encode(pack(id, type, count, len(payload)) + payload) + b"\0"
        return result

    def encode_all() -> None:
        for id, type, count, payload in messages:  # the same as `frame`, without a call
            cobs_encode(pack(id, type, count, len(payload)) + payload) + b"\0"

    return Encoding(encode_all, list(map(frame, messages)))


def encoding_memcpy(packets: list[Packet]) -> Encoding:
    views = [memoryview(packet.payload) for packet in packets]

    def encode_all() -> None:
        for view in views:
            bytes(view)

    return Encoding(encode_all, list(map(bytes, views)))


DECODERS: dict[str, Callable[[list[Packet]], Decoding]] = {
    OURS: decoding_packetcore,
    "msgpack": decoding_msgpack,
    "cobs": decoding_cobs,
    "Twisted Int32": decoding_int32,
    MEMCPY: decoding_memcpy,
}
ENCODERS: dict[str, Callable[[list[Packet]], Encoding]] = {
    OURS: encoding_packetcore,
    "msgpack": encoding_msgpack,
    "cobs": encoding_cobs,
    MEMCPY: encoding_memcpy,
}


def cases(round: int = 0) -> list[Case]:
    """What this process can measure. Those that are compared stand side by side, in a new
    order each round."""
    order = random.Random(round)
    chosen: list[Case] = []
    for direction, kind, codecs in (
        ("decode", "random", DECODERS),
        ("decode", "text", DECODERS),
        ("encode", "random", ENCODERS),
    ):
        for size in PAYLOAD_SIZES:
            group = [
                Case(direction, kind, size, codec)
                for codec in codecs
                if codec == OURS or (not ALONE and (codec != MEMCPY or size == CHUNK))
            ]
            chosen += order.sample(group, len(group))
    return chosen


@cache
def prepare(case: Case) -> Callable[[], None]:
    """One pass over a case's messages, once they were seen to come out right.

    Raises:
        RuntimeError: they did not.
    """
    packets = packets_of(case.kind, case.size)
    decoding = DECODERS[case.codec](packets)
    if case.direction == "encode":
        encoding = ENCODERS[case.codec](packets)
        check(case, decoding.collect(encoding.frames), decoding.expected)
        return encoding.encode_all
    stream = decoding.stream
    chunks = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]
    check(case, decoding.collect(chunks), decoding.expected)
    return lambda: decoding.walk(chunks)


def check(case: Case, messages: Sequence[object], expected: Sequence[object]) -> None:
    """Compare what came out with what went in."""
    if len(messages) != len(expected):
        raise RuntimeError(f"{case}: {len(messages)} messages came out and {len(expected)} went in")
    for index, (message, right) in enumerate(zip(messages, expected, strict=True)):
        if message != right:
            raise RuntimeError(f"{case}: message {index} came out as {message!r:.80}, not {right!r:.80}")


def seconds(loops: int, case: Case) -> float:
    """How long so many passes over a case's messages take."""
    one_pass = prepare(case)
    passes = 0
    begin = perf_counter()
    while (elapsed := perf_counter() - begin) < LEAST_TIME:
        one_pass()
        passes += 1
    return elapsed / passes * loops


def pass_on(command: list[str], options: Namespace) -> None:
    """Give a worker the options that are ours: it counts through the same cases."""
    command += ["--round", str(options.round)]


def main() -> None:
    # A pass is short and repeated by `seconds`, so that pyperf has no loops to calibrate.
    runner = import_module("pyperf").Runner(processes=1, values=3, warmups=1, loops=1, add_cmdline_args=pass_on)
    runner.argparser.description = __doc__
    runner.argparser.add_argument("--round", type=int, default=0, help="what the order of the cases depends on")
    options = runner.parse_args()
    for case in cases(options.round):
        runner.bench_time_func(str(case), seconds, case, inner_loops=message_count(case.size))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
