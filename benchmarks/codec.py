"""How fast the codec is, in C and in Python (pure), beside msgpack and cobs, which are written
in C, and Twisted's `Int32StringReceiver`, which is not. Of 65,536 bytes it says which part of the speed of a mere
copy each has.

The cases and what is fair about them stand in `_codec_cases.py`. `pyperf` runs each in a process
of its own, one after the other, so it is told to do that once a round: a slow spell of the
machine then hits all of them alike. A round's figure is the median of its values.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from _codec_cases import ALONE, KINDS, MEMCPY, PAYLOAD_SIZES, Case, cases
from _common import Results, arguments, save, show
from rich.console import Console
from rich.progress import Progress

from packetcore import speedups

CASES = Path(__file__).with_name("_codec_cases.py")
PATIENCE = 60
"""Seconds that one case may take in a round."""
OURS, PURE, BASE = "packetcore", "packetcore, pure", "msgpack"
ORDER = (OURS, PURE, BASE, "cobs", "Twisted Int32", MEMCPY)


class Bar(NamedTuple):
    """What a figure is to reach."""

    least: float
    unit: str
    """Packets a second, bytes of payload a second, or times msgpack's packets a second."""
    text: str


BARS = {
    **{f"decode {kind} {size} {OURS}": Bar(1.5, "msgpack", "1.5 x") for kind in KINDS for size in (16, 64, 1024)},
    f"decode random 65536 {OURS}": Bar(5e9, "bytes", "5 GB/s"),
    f"decode random 64 {PURE}": Bar(900e3, "packets", "900 k/s"),
    f"decode random 65536 {PURE}": Bar(250e6, "bytes", "250 MB/s"),
    f"encode random 64 {OURS}": Bar(8e6, "packets", "8 M/s"),
    f"encode random 65536 {OURS}": Bar(1.5e9, "bytes", "1.5 GB/s"),
}
"""By the case that is held against it."""


def run(into: Path, round: int, *, pure: bool) -> Iterator[str]:
    """Measure once what one kind of process can. Gives a line for each case that is done.

    Args:
        into: the file of `pyperf` that takes the values.
        round: counted from 0.
        pure: whether packetcore's codec is the one in Python.
    """
    command: list[str | Path] = [sys.executable, "-u", CASES, "--quiet", "--append", into, "--round", str(round)]
    command += ["--inherit-environ", "PACKETCORE_PURE", "--timeout", str(PATIENCE)]
    environment = os.environ | {"PACKETCORE_PURE": "1" if pure else "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        raise SystemExit(f"{CASES.name} failed in round {round + 1}")


def measure(rounds: int, into: Path) -> None:
    """Measure every case once a round, the codec in Python in turn with the others."""
    names = cases()
    each = {case[:3] for case in names}
    in_turn = (False, True) if speedups else (ALONE,)
    steps = rounds * (len(names) + (len(each) if speedups else 0))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=steps)
        for round in range(rounds):
            for pure in in_turn:
                for line in run(into, round, pure=pure):
                    progress.update(task, advance=1, description=f"{round + 1} of {rounds}: {line.partition(':')[0]}")


def load(path: Path) -> Results:
    """Packets a second of every case, one value a round."""
    suite = import_module("pyperf").BenchmarkSuite.load(str(path))
    return {bench.get_name(): [1 / median(run.values) for run in bench.get_runs()] for bench in suite.get_benchmarks()}


def rows_of(medians: dict[Case, float], direction: str, kind: str) -> Iterator[Sequence[str]]:
    """The table of one direction and one kind of payload."""
    for size in PAYLOAD_SIZES:
        group = {case.codec: rate for case, rate in medians.items() if case[:3] == (direction, kind, size)}
        base, copied = group.get(BASE), group.get(MEMCPY)
        for codec in sorted(group, key=ORDER.index):
            rate = group[codec]
            figures = {"packets": rate, "bytes": rate * size, "msgpack": rate / base if base else None}
            bar = BARS.get(str(Case(direction, kind, size, codec)))
            figure = None if bar is None else figures[bar.unit]
            yield (
                f"{size:,} {codec}",
                f"{rate:,.0f}",
                f"{rate * size / 1e6:,.0f}",
                f"{rate / base:.2f}" if base else "",
                f"{rate / copied:.2f}" if copied else "",
                "" if bar is None else bar.text,
                "" if bar is None or figure is None else "yes" if figure >= bar.least else "no",
            )


def main() -> None:
    parser = arguments(__doc__, rounds=6)
    parser.add_argument("--pyperf", type=Path, metavar="FILE", help="keep what pyperf wrote, for its `compare_to`")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder, "pyperf.json")
        measure(options.rounds, path)
        results = load(path)
        if options.pyperf is not None:
            options.pyperf.write_bytes(path.read_bytes())
    medians = {Case.parse(name): median(values) for name, values in results.items()}
    for direction, kind, title in (
        ("decode", "random", "decoding random bytes, 64 KiB at a time"),
        ("decode", "text", "decoding text, 64 KiB at a time"),
        ("encode", "random", "encoding random bytes"),
    ):
        show(
            f"{title}: medians of {options.rounds} rounds",
            ("bytes of payload", "packets/s", "MB/s", "x msgpack", "x memcpy", "bar", "met"),
            list(rows_of(medians, direction, kind)),
        )
    save(options.json, "codec", "packets per second", results)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
