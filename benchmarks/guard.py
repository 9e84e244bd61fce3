"""A guard against slowness that is no clock: how many instructions the codec takes, and a session
that echoes.

    python benchmarks/guard.py            compare with instructions.json, exit 1 beyond the tolerance
    python benchmarks/guard.py --record   write there what is counted now

Each case is run with N and with 2 N rounds in a process of its own, and the difference is what
N rounds take; `perf stat` counts, so the figure does not depend on the load. It does depend
on the interpreter and the libraries: figures are kept for each Python version and processor
type, 10 % are allowed, and where none are kept only the linear time of the C is looked at:
four times the hostile stream may take at most 4.5 times the instructions.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from _processes import Echo

from packetcore import Carrier, Endpoint, Packet, Session, _codec, _decoder

FIGURES = Path(__file__).with_name("instructions.json")
TOLERANCE = 1.10
LINEAR = 4.5
CHUNK = 64 * 1024
HOSTILE_SIZE = 40_000
OVERSIZE = b"\xfe" + struct.pack(">HBHI", 16, 0, 1, 0xFFFFFFFF)

IMPLEMENTATIONS: dict[str, tuple[type[_decoder.Decoder], Callable[[Packet], bytes]]] = {
    "python": (_decoder.Decoder, _codec.encode)
}
try:
    from packetcore import _speedups
except ImportError:
    pass
else:
    IMPLEMENTATIONS["C"] = _speedups.Decoder, _speedups.encode

SIZES = {16: 1_000, 64: 1_000, 1024: 200, 65536: 4}
"""For each size of payload, how many packets are in one round."""

ECHOED = 320
CHUNKS = {1: ECHOED, 32: ECHOED // 32}
"""For each number of packets of 64 bytes that come together, how many chunks are in one round of
`ECHOED` packets."""

HOSTILE: dict[str, Callable[[int], bytes]] = {
    "one frame": lambda n: _codec.encode(Packet(1, bytes(n))),
    "sound escapes": lambda n: _codec.encode(Packet(1, b"\xfe" * (n // 2))),
    "escapes": lambda n: b"\xfe" + b"\xfd" * n,
    "flags": lambda n: b"\xfe" * n,
    "noise": bytes,
    "headers too large": lambda n: OVERSIZE * (n // len(OVERSIZE)),
    "flags and escapes": lambda n: b"\xfe\xfd" * (n // 2),
}


class Swallow:
    """A host that takes everything."""

    def write(self, data: bytes) -> int:
        return len(data)

    def nothing(self, *_: object) -> None:
        pass

    write_eof = set_timer = pause_reading = resume_reading = close = abort = wake = nothing

    def carrier(self) -> Carrier:
        return Carrier("tcp")


class Case(NamedTuple):
    """One thing to count."""

    codec: str
    what: str
    """"decode", "encode", "echo" or a hostile stream to decode."""
    size: int
    """Bytes of payload, or of the hostile stream; of an echo the packets that come together."""
    chunk: int = CHUNK

    @property
    def units(self) -> int:
        """How many packets, or hostile bytes, are in one round."""
        if self.what == "echo":
            return ECHOED
        return self.size if self.what in HOSTILE else SIZES[self.size]

    @property
    def rounds(self) -> int:
        """Enough to stand out from what starting an interpreter takes."""
        return 10 if self.what in HOSTILE else 100 if self.codec == "C" else 20

    def run(self, rounds: int) -> None:
        """Do it so many times."""
        if self.what == "echo":
            self._echo(rounds)
            return
        decoder, encode = IMPLEMENTATIONS[self.codec]
        packets: list[Packet] = []
        if self.what in HOSTILE:
            stream = HOSTILE[self.what](self.size)
        else:
            random_bytes = random.Random(self.size).randbytes
            packets = [Packet(index * 7, random_bytes(self.size)) for index in range(self.units)]
            stream = b"".join(map(_codec.encode, packets))
        chunks = [stream[at : at + self.chunk] for at in range(0, len(stream), self.chunk)]
        gc.disable()  # how often it runs depends on what else there is
        for _ in range(rounds):
            if self.what == "encode":
                for packet in packets:
                    encode(packet)
            else:
                feed = decoder(max_payload=max(self.size, 1 << 16)).feed
                for chunk in chunks:
                    feed(chunk)

    def _echo(self, rounds: int) -> None:
        session = Session(Endpoint(Echo(), is_server=True), Swallow(), ("192.0.2.1", 1), 0.0)
        session.opened(0.0)
        received = session.received
        chunk = b"".join(_codec.encode(Packet(index, bytes(range(64)))) for index in range(self.size))
        gc.disable()
        for _ in range(rounds * CHUNKS[self.size]):
            received(chunk, 0.0)

    def instructions(self) -> float:
        """What one packet or one hostile byte takes."""
        once, twice = (self._instructions(rounds) for rounds in (self.rounds, 2 * self.rounds))
        return (twice - once) / self.rounds / self.units

    def _instructions(self, rounds: int) -> int:
        arguments = [*map(str, self), str(rounds)]
        command = [*COUNT, sys.executable, __file__, "--run", *arguments]
        pure = "1" if self.codec == "python" else "0"  # with packets in Python too
        environment = {**os.environ, "PYTHONHASHSEED": "0", "LC_ALL": "C", "PACKETCORE_PURE": pure}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(done.stderr.strip().splitlines()[-1].split(",")[0])


COUNT = ["perf", "stat", "-x,", "-e", "instructions:u"]
FIXED = ["setarch", "-R"]
"""Without addresses chosen at random, the same run takes the same instructions."""


def works(command: list[str]) -> bool:
    """Whether a command can be run here."""
    try:
        return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main() -> None:
    """Count, then compare or record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="write what is counted to instructions.json")
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        codec, what, size, chunk, rounds = options.run
        Case(codec, what, int(size), int(chunk)).run(int(rounds))
        return
    if not works(COUNT):
        sys.exit(f"`{' '.join(COUNT)}` does not work here: nothing was counted")
    if works([*FIXED, *COUNT]):
        COUNT[:0] = FIXED

    place = f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])} {platform.machine()}"
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    kept = figures.get(place, {})
    counted: dict[str, int] = {}
    slow: list[str] = []
    whats = {"decode": SIZES, "encode": SIZES, "echo": CHUNKS}
    for case in [Case(codec, what, size) for codec in IMPLEMENTATIONS for what in whats for size in whats[what]]:
        name = f"{case.codec} {case.what} {case.size}"
        counted[name] = round(case.instructions())
        if counted[name] > kept.get(name, counted[name]) * TOLERANCE:
            slow.append(name)
        print(f"{name:24} {counted[name]:12,} instructions a packet, {kept.get(name, 0):12,} kept", flush=True)
    for chunk in (1, CHUNK) if "C" in IMPLEMENTATIONS else ():
        for what in HOSTILE:
            once, four_times = (Case("C", what, times * HOSTILE_SIZE, chunk).instructions() for times in (1, 4))
            if four_times > once * LINEAR / 4 + 1:
                slow.append(f"{what}, chunk {chunk}")
            print(
                f"{what:24} {once:12,.2f} instructions a byte, {four_times:12,.2f} of four times as many, chunk {chunk}"
            )
    if options.record:
        figures[place] = counted
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    elif not kept:
        print(f"no figures are kept for {place}; --record keeps these")
    if slow and not options.record:
        sys.exit("more instructions than allowed: " + "; ".join(slow))


if __name__ == "__main__":
    main()
