"""A guard against slowness that is no clock: how many instructions the codec takes, a session that
echoes, one that opens and closes, and a pool that is refreshed.

    python benchmarks/guard.py            compare with instructions.json, exit 1 beyond the tolerance
    python benchmarks/guard.py --record   write there what is counted now

Each case is run with N and with 2 N rounds in a process of its own, and the difference is what
N rounds take. `perf stat` counts; where it cannot, as on most virtual machines, valgrind does
(some two minutes), in processes forked from one that has imported all. So the figure does not
depend on the load. It does depend on the interpreter and the libraries, and on the counter, as
valgrind has no AVX-512: figures are kept for each Python version, processor type and counter,
10 % are allowed, and where none are kept only the linear time of the C is looked at: four
times the hostile stream may take at most 4.5 times the instructions.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from _processes import Echo

from packetcore import Carrier, Endpoint, Packet, Session, SessionPool, _codec, _decoder

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

OPENED = {1: 100}
"""For the packets that each connection echoes, how many connections are in one round."""

REFRESHED = {1_000: 1_000}
"""For the sessions in a pool, how many are refreshed in one round."""

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
    """"decode", "encode", "echo", "open and close", "pool refresh" or a hostile stream to decode."""
    size: int
    """Bytes of payload, or of the hostile stream; of an echo the packets that come together;
    of connections the packets that each echoes, of a pool its sessions."""
    chunk: int = CHUNK

    @property
    def units(self) -> int:
        """How many packets, connections, sessions or hostile bytes are in one round."""
        if self.what in COUNTED:
            return COUNTED[self.what][self.size]
        if self.what == "echo":
            return ECHOED
        return self.size if self.what in HOSTILE else SIZES[self.size]

    @property
    def rounds(self) -> int:
        """Enough to stand out from what starting an interpreter takes."""
        return 10 if self.what in HOSTILE else 100 if self.codec == "C" else 20

    def run(self, rounds: int) -> None:
        """Do it so many times."""
        if self.what in RUNS:
            RUNS[self.what](self.size, rounds)
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


def echo(size: int, rounds: int) -> None:
    """Packets that come `size` together and are sent back."""
    session = Session(Endpoint(Echo(), is_server=True), Swallow(), ("192.0.2.1", 1), 0.0)
    session.opened(0.0)
    received = session.received
    chunk = b"".join(_codec.encode(Packet(index, bytes(range(64)))) for index in range(size))
    gc.disable()
    for _ in range(rounds * CHUNKS[size]):
        received(chunk, 0.0)


def open_and_close(size: int, rounds: int) -> None:
    """A server's short connections: each is admitted, echoes `size` packets and is lost."""
    endpoint, host, peer = Endpoint(Echo(), is_server=True), Swallow(), ("192.0.2.1", 1)
    chunk = b"".join(_codec.encode(Packet(index, bytes(range(64)))) for index in range(size))
    gc.disable()
    for number in range(rounds * OPENED[size]):
        session = Session(endpoint, host, peer, float(number))
        session.opened(float(number))
        session.received(chunk, float(number))
        session.lost(None, float(number))


def pool_refresh(size: int, rounds: int) -> None:
    """Each session of a pool gives a sign of life, one after the other."""
    pool: SessionPool[None] = SessionPool()
    ids = [pool.add(None, 0.0) for _ in range(size)]
    refresh = pool.refresh
    gc.disable()
    for number in range(rounds):
        for id in ids:
            refresh(id, float(number))


RUNS: dict[str, Callable[[int, int], None]] = {
    "echo": echo,
    "open and close": open_and_close,
    "pool refresh": pool_refresh,
}
COUNTED = {"decode": SIZES, "encode": SIZES, "echo": dict.fromkeys(CHUNKS, ECHOED)} | {
    "open and close": OPENED,
    "pool refresh": REFRESHED,
}
"""What is counted, and for each size how many are in one round."""

PERF = ["perf", "stat", "-x,", "-e", "instructions:u"]
VALGRIND = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
FIXED = ["setarch", "-R"]
"""Without addresses chosen at random, the same run takes the same instructions."""


def count(counter: list[str], cases: Iterable[Case]) -> dict[Case, float]:
    """What one packet, connection or the like of each case takes, in instructions."""
    cases = list(cases)
    # Forks all begin alike, so that fewer rounds stand out.
    rounds_of = {case: max(1, case.rounds // (10 if VALGRIND[0] in counter else 1)) for case in cases}
    runs = [(case, times * rounds_of[case]) for case in cases for times in (1, 2)]
    totals: list[int] = []
    for pure in ("1", "0"):  # with packets in Python too
        wanted = [[*map(str, case), str(rounds)] for case, rounds in runs if (case.codec == "python") == (pure == "1")]
        # Valgrind follows a fork, so that its slow start is paid for once.
        for some in [wanted] if VALGRIND[0] in counter and wanted else [[each] for each in wanted]:
            command = [*counter, sys.executable, __file__, "--run", json.dumps(some)]
            environment = {**os.environ, "PYTHONHASHSEED": "0", "LC_ALL": "C", "PACKETCORE_PURE": pure}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            if VALGRIND[0] in counter:
                refs = dict(re.findall(r"^==(\d+)== I +refs: +([\d,]+)", done.stderr, re.MULTILINE))
                totals += [int(refs[pid].replace(",", "")) for pid in done.stdout.split()]
            else:
                totals.append(int(done.stderr.strip().splitlines()[-1].split(",")[0]))
    ordered = sorted(cases, key=lambda case: case.codec != "python")  # as they were run
    return {
        case: (twice - once) / rounds_of[case] / case.units
        for case, once, twice in zip(ordered, totals[::2], totals[1::2], strict=True)
    }


def run_all(runs: list[list[str]]) -> None:
    """Run the only one here, or each of several in a fork, whose process id is printed."""
    for codec, what, size, chunk, rounds in runs:
        pid = os.fork() if len(runs) > 1 else 0
        if pid == 0:
            Case(codec, what, int(size), int(chunk)).run(int(rounds))
            if len(runs) > 1:
                os._exit(0)
        elif os.waitpid(pid, 0)[1] == 0:
            print(pid, flush=True)
        else:
            sys.exit(f"{codec} {what} {size} failed")


def works(command: list[str]) -> bool:
    """Whether a counter can be run here, and counts: without counters `perf` says so and ends well."""
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and "<not " not in done.stderr


def main() -> None:
    """Count, then compare or record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="write what is counted to instructions.json")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_all(json.loads(options.run))
        return
    counter = next((counter for counter in (PERF, VALGRIND) if works(counter)), None)
    if counter is None:
        sys.exit("neither `perf stat -e instructions` nor valgrind works here: nothing was counted")
    place = f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])} {platform.machine()}"
    if counter is VALGRIND:
        place += " valgrind"
    if works([*FIXED, *counter]):
        counter = [*FIXED, *counter]

    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    kept = figures.get(place, {})
    counted: dict[str, int] = {}
    slow: list[str] = []
    cases = [Case(codec, what, size) for codec in IMPLEMENTATIONS for what in COUNTED for size in COUNTED[what]]
    chunks = (1, CHUNK) if "C" in IMPLEMENTATIONS else ()
    hostile = {
        (what, chunk): (Case("C", what, HOSTILE_SIZE, chunk), Case("C", what, 4 * HOSTILE_SIZE, chunk))
        for chunk in chunks
        for what in HOSTILE
    }
    taken = count(counter, [*cases, *(case for both in hostile.values() for case in both)])
    for case in cases:
        name = f"{case.codec} {case.what} {case.size}"
        counted[name] = round(taken[case])
        if counted[name] > kept.get(name, counted[name]) * TOLERANCE:
            slow.append(name)
        print(f"{name:24} {counted[name]:12,} instructions each, {kept.get(name, 0):12,} kept")
    for (what, chunk), both in hostile.items():
        once, four_times = (taken[case] for case in both)
        if four_times > once * LINEAR / 4 + 1:
            slow.append(f"{what}, chunk {chunk}")
        print(f"{what:24} {once:12,.2f} instructions a byte, {four_times:12,.2f} of four times as many, chunk {chunk}")
    if options.record:
        figures[place] = counted
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    elif not kept:
        print(f"no figures are kept for {place}; --record keeps these")
    if slow and not options.record:
        sys.exit("more instructions than allowed: " + "; ".join(slow))


if __name__ == "__main__":
    main()
