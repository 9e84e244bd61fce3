"""Look for what a wrong byte in the codec in C would do: corruption, undefined behaviour, leaks.

python tests/sanitize.py              all of it
python tests/sanitize.py sanitizers   hostile streams under ASan and UBSan (needs gcc or clang)
python tests/sanitize.py leaks        10 million packets, whose memory has to come back
python tests/sanitize.py allocations  each allocation fails once
python tests/sanitize.py warnings     a build with all warnings, each an error
"""

from __future__ import annotations

import importlib
import itertools
import math
import operator
import os
import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packetcore import Connection, Packet, SessionClosed
from packetcore._codec import encode as python_encode
from packetcore._decoder import Decoder as PythonDecoder
from packetcore._implementation import Pump

ROOT = Path(__file__).resolve().parent.parent
STREAMS = 5_000
PACKETS = 10_000_000
STEP = PACKETS // 10


def compile_with(flags: str, folder: Path) -> None:
    """Build the extension into a copy of the package.

    Raises:
        CalledProcessError: the compiler refused it, or warned where warnings are errors.
    """
    package = folder / "packetcore"
    shutil.copytree(ROOT / "packetcore", package, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "_c"))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    target = package / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = ROOT / "packetcore" / "_speedups.c"
    include = f"-I{sysconfig.get_path('include')}"
    command = [*compiler, "-std=c11", "-fPIC", "-shared", *flags.split(), include, str(source), "-o", str(target)]
    subprocess.run(command, check=True)


def warnings() -> None:
    """Build with every warning an error, and once more without what only some compilers have."""
    for more in ("", " -DONLY_AVX2", " -DONLY_SSE2", " -DPLAIN_C", " -O0"):
        with tempfile.TemporaryDirectory() as folder:
            compile_with("-O3 -Wall -Wextra -Werror" + more, Path(folder))
            again(Path(folder), "hostile", "500")
    say("no warnings at -Wall -Wextra; in plain C too")


def sanitizers() -> None:
    """Hostile streams and failing allocations under both sanitizers, with the kernels of any processor."""
    for more in ("", " -DONLY_AVX2", " -DONLY_SSE2"):
        sanitize("-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover" + more)
    say(f"{STREAMS} hostile streams under ASan and UBSan, and failing allocations: clean with each kernel")


def sanitize(flags: str) -> None:
    """Build with sanitizers, and run what they are to watch."""
    with tempfile.TemporaryDirectory() as folder:
        compile_with(flags, Path(folder))
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        libraries = [
            subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
            for name in ("libasan.so", "libubsan.so")
        ]
        # The interpreter keeps some memory to its end: leaks are counted in a way of their own.
        # Python's own allocator would hide a byte too many inside one of its pools.
        environment = {
            "LD_PRELOAD": ":".join(map(str.strip, libraries)),
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        }
        again(Path(folder), "hostile", str(STREAMS), **environment)
        again(Path(folder), "allocations", **environment)


def again(folder: Path, *arguments: str, **environment: str) -> None:
    """Run this script once more, with the package in `folder`."""
    paths = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, **environment, "PYTHONPATH": paths, "SANITIZE_FOLDER": str(folder)}
    subprocess.run([sys.executable, __file__, *arguments], env=environment, check=True)


def hostile(count: int) -> None:
    """Hostile streams through both codecs, from buffers that end where their bytes end."""
    from packetcore import _speedups
    from tests.framing_twins import KINDS, compare
    from tests.hostile import hostile_stream, random_chunks
    from tests.pool_twins import compare as compare_orders

    assert _speedups.__file__.startswith(os.environ["SANITIZE_FOLDER"])
    for seed in range(count):
        rng = random.Random(seed)
        max_payload = rng.choice([0, 1, 8, 40, 200, 2_000])
        stream, packets = hostile_stream(rng, max_payload)
        for packet in packets:
            assert _speedups.encode(packet) == python_encode(packet)
        for chunks in ([stream], list(random_chunks(rng, stream))):
            c, python = _speedups.Decoder(max_payload=max_payload), PythonDecoder(max_payload=max_payload)
            for chunk in chunks:
                # A bytes object has a byte more than it shows; this has none.
                exact = memoryview(bytearray(chunk + b"\x00"))[: len(chunk)]
                assert c.feed(exact) == python.feed(chunk), f"seed {seed}"
                assert c.pending == python.pending, f"seed {seed}"
            assert c.feed_eof() == python.feed_eof(), f"seed {seed}"
        for kind in KINDS:
            compare(kind, seed)
        if seed % 10 == 0:
            compare_orders(seed)


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def leaks() -> None:
    """Decode and encode 10 million packets, good and bad: memory must not grow after the first million."""
    from packetcore import _speedups

    rng = random.Random(0)
    packets = [Packet(rng.randrange(65536), rng.randbytes(rng.choice([0, 16, 64, 700]))) for _ in range(2_000)]
    packets.append(Packet(7, rng.randbytes(200_000)))
    good = b"".join(map(python_encode, packets))
    bad = b"\xfe\x00\xfe\xfd\xfe" + good[:500] + b"\xfe" + b"\xfe\x00\x10\x00\x00\x01\xff\xff\xff\xff rest \xfe"
    chunks = [(good + bad)[at : at + 65_521] for at in range(0, len(good + bad), 65_521)]
    decoder = _speedups.Decoder()
    encode = _speedups.encode
    output = _speedups.Output(encode, 1 << 20)
    done, first, blocks = 0, 0, 0
    while done < PACKETS:
        before = done
        for chunk in chunks:
            for event in decoder.feed(chunk):
                if isinstance(event, Packet):
                    done += 1
                    id, payload, type, count = event
                    encode(event if done % 10 else Packet(id, payload, type=type)._replace(count=count))
                    output.put(event)
            (output.join if done % 2 else output.take)()
        decoder.feed(good[: rng.randrange(len(good))])
        decoder.feed_eof()
        decoder = _speedups.Decoder()
        if before < STEP <= done:
            first, blocks = resident(), sys.getallocatedblocks()
    grown, more = resident() - first, sys.getallocatedblocks() - blocks
    if grown > 4 << 20 or more > 1_000:
        sys.exit(f"{grown} bytes and {more} blocks more after {done} packets than after {STEP}")
    say(f"{done:,} packets: {grown:,} bytes and {more} blocks more at the end than after the first tenth")


def allocations() -> None:
    """Let the first allocation of a call fail, then the second and so on, until the call succeeds."""
    from packetcore import _speedups

    _testcapi = importlib.import_module("_testcapi")  # of CPython alone, and not typed

    packet = Packet(1000, b"\x01\xfe\xfd" * 300, count=1000)
    frame = python_encode(packet)
    long = python_encode(Packet(1000, bytes(200_000)))
    decoder = _speedups.Decoder()
    failures = 0

    def begun() -> None:
        decoder.feed_eof()
        decoder.feed(long[:100_000])

    output = _speedups.Output(_speedups.encode, 1_000)

    # Not made in the call: what Python itself does there need not be sound.
    pump, batches = Pumping(Pump.send), Pumping(operator.is_)
    batches._on_packets = operator.is_

    def begin_output() -> None:
        output.take()
        output.put(packet)
        output.put(packet)

    queue: deque[Packet] = deque()
    make_items: Any = _speedups.Items
    items = make_items(queue.popleft, queue.popleft)

    sender = _speedups.Sender(pump, queue.clear, pump.send, SessionClosed)

    def more() -> None:
        queue.clear()
        queue.append(packet)

    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "a sound frame": (decoder.feed_eof, lambda: decoder.feed(frame)),
        "many": (decoder.feed_eof, lambda: decoder.feed(frame * 5)),
        "malformed": (decoder.feed_eof, lambda: decoder.feed(b"noise\xfe\x01\xfe\xfd\xfe" + frame[:20] + b"\xfe")),
        "too long": (decoder.feed_eof, lambda: decoder.feed(b"\xfe\x00\x10\x00\x00\x01\xff\xff\xff\xff rest \xfe")),
        "the end of a long payload": (begun, lambda: decoder.feed(long[100_000:])),
        "a long payload goes on": (begun, lambda: decoder.feed(long[100_000:150_000])),
        "a buffer with gaps": (decoder.feed_eof, lambda: decoder.feed(memoryview(frame)[::2])),
        "the end of a stream": (begun, decoder.feed_eof),
        "encode": (decoder.feed_eof, lambda: _speedups.encode(Packet(1, b"\xfe" * 99))),
        "encode a long payload": (
            decoder.feed_eof,
            lambda: _speedups.encode(Packet(1, bytes(2_000) + b"\xfe" * 2_000)),
        ),
        "a packet": (decoder.feed_eof, lambda: Packet(1000, bytearray(b"abc"), type=2, count=3)),
        "another packet": (decoder.feed_eof, lambda: packet._replace(type=200)),
        "what a packet shows": (decoder.feed_eof, lambda: (repr(packet), tuple(packet), hash(packet))),
        "an output": (decoder.feed_eof, lambda: _speedups.Output(_speedups.encode, 10)),
        "sending": (pump.begin, lambda: pump.send(packet)),
        "a chunk that is echoed": (pump.begin, lambda: pump.received(frame * 3, 1.0)),
        "a chunk's packets together": (batches.begin, lambda: batches.received(frame * 3, 1.0)),
        "putting": (output.take, lambda: output.put(packet)),
        "putting several": (begin_output, lambda: output.put_all([packet] * 3)),
        "taking": (begin_output, lambda: output.take()),
        "joining": (begin_output, lambda: output.join()),
        "an item": (more, items.__anext__),
        "an item at once": (more, items.__next__),
        "a latch": (decoder.feed_eof, lambda: _speedups.open_latches([_speedups.Latch(), _speedups.Latch()])),
        "a stream's sending": (pump.begin, lambda: sender(packet)),
        "a decoder": (decoder.feed_eof, lambda: _speedups.Decoder(max_payload=1 << 31)),
    }
    for name, (prepare, call) in calls.items():
        prepare()
        expected = call()
        for nth in range(1_000):
            prepare()
            given: object = None
            failed = False
            _testcapi.set_nomemory(nth, nth + 1)
            try:
                given = call()
            except MemoryError:
                failed = True
            finally:
                _testcapi.remove_mem_hooks()
            failures += failed
            if failed:
                # At worst the frame that this cut into is lost, never the next one.
                assert decoder.feed(frame * 2)[-1:] == [packet], (name, nth)
                assert decoder.pending == 0, (name, nth)
            elif nth > 50:
                assert given == expected or name in ("a decoder", "an output", "an item"), (name, nth)
                break
    failures += framing_allocations() + order_allocations()
    assert failures > 60, failures
    say(f"{failures} allocations failed: a MemoryError each, and the decoder goes on")


def framing_allocations() -> int:
    """The same for the framings. Gives how many allocations failed."""
    from packetcore.framings import COBS, COBSR, HDLC, SLIP, ByteStuffing, Check, Framing, LengthPrefix

    _testcapi = importlib.import_module("_testcapi")
    summed = Check(1, lambda frame: bytes([len(frame) & 0xFF]))
    framings: list[Framing] = [
        SLIP(),
        HDLC(),
        ByteStuffing(0x7E, 0x7D, xor=0x20, check=summed),
        COBS(),
        COBSR(),
        LengthPrefix(),
        LengthPrefix("varint", magic=b"!!"),
    ]
    frame = bytes(range(1, 256)) * 3
    failures = 0
    for framing in framings:
        sent, decoder = framing.encode(frame), framing.decoder(2_000)
        streams = [sent * 3, b"!noise" + sent + b"\xff" * 40 + sent[:9], sent[:200], sent[200:] + sent, b"\x01" * 9_000]
        for stream, nth in itertools.product(streams, range(40)):
            _testcapi.set_nomemory(nth, nth + 1)
            try:
                framing.encode(frame)
                decoder.feed(stream)
                decoder.feed_timeout()
                decoder.feed_eof()
            except MemoryError:
                failures += 1
            finally:
                _testcapi.remove_mem_hooks()
            decoder.feed_eof()
            assert decoder.feed(sent)[-1:] == [frame], (framing, nth)
            assert decoder.pending == 0, (framing, nth)
    return failures


def order_allocations() -> int:
    """The same for the order of a pool. Gives how many allocations failed."""
    from packetcore import _speedups

    _testcapi = importlib.import_module("_testcapi")
    make: Any = _speedups.Order
    failures = 0
    for held, nth in itertools.product((0, 4, 10, 21), range(8)):
        for call in ("grow", "list", "shrink"):
            order = make()
            for number in range(held):
                order._put(number, 1000.5)
            before = order._entries()
            _testcapi.set_nomemory(nth, nth + 1)
            try:
                if call == "grow":
                    order._put("more", 1000.5)
                elif call == "list":
                    order._entries(), order.refreshed(1)
                else:
                    while order._take(held - len(order) + 1) is not None:
                        pass
            except MemoryError:
                failures += 1
                assert order._entries() == before, (held, call, nth)
            finally:
                _testcapi.remove_mem_hooks()
            assert len(order) == len(order._entries())
            assert order._put("last", 1000.5) > held
            assert order._entries()[-1] == "last"
    return failures


class Swallow:
    """A host that takes everything."""

    write = staticmethod(len)


class Pumping(Pump):
    """The pump of an open connection, in which nothing but what is asked for runs Python's code."""

    _connection: Connection

    def __init__(self, on_packet: Callable[[Any, Any], object]) -> None:
        self._connection = Connection(now=0.0)
        self._output = self._connection.output
        self._host: Any = Swallow()
        self._on_packet = on_packet
        self._on_packets = self._on_sent = self._tap = None
        self._now = 0.0
        self._refresh_at = math.inf
        self._unsent = 0
        self._ease = self._room = 1_000_000
        self._paused = self._write_paused = self._lost = self._must_arm = False

    def begin(self) -> None:
        self._output.take()
        self._connection._decoder.feed_eof()
        self._connection.frame_since = None
        self._queue = []
        self._running = self._woken = False

    def _overflow(self) -> None:
        pass

    def _wake(self) -> None:
        self._woken = True

    def _settle(self) -> None:
        pass

    def _handler_failed(self, error: BaseException) -> None:
        raise error


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do what the arguments ask for."""
    match sys.argv[1:]:
        case []:
            for task in (warnings, allocations, sanitizers, leaks):
                task()
        case ["hostile", count]:
            hostile(int(count))
        case ["warnings" | "sanitizers" | "leaks" | "allocations" as name]:
            {"warnings": warnings, "sanitizers": sanitizers, "leaks": leaks, "allocations": allocations}[name]()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
