"""Fuzz, with a time limit and progress.

    python -m fuzz [--seconds N] [TARGET ...]      share the time over these, or over all
    python -m fuzz TARGET --repeat FILE ...        run a target over files, as where it crashed

TARGET is one of `fuzz.TARGETS`, or of those one way, as in `decoder.pure` and `decoder.compiled`. What is found
grows in `.fuzz/corpus`, which is yours; `fuzz/corpus` is what the suite runs. A crash ends with 1 and the command
that repeats it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fuzz import TARGETS
from fuzz.build import ROOT, Build, build

CORPUS = Path(__file__).resolve().parent / "corpus"
OWN = ROOT / ".fuzz"
"""Where processes run, too: Python looks where they do for packages, before it looks for the one that was built."""

LONGEST = 256
"""Bytes of one input: more than twice what a decoder of the longest payload tried holds."""

PATIENCE = 20
"""Seconds that one input may take, and a process to end once it was asked to."""

_PROGRESS = re.compile(r"(?:cov: (?P<edges>\d+) )?ft: (?P<features>\d+) corp: (?P<corpus>\d+)/")
_COUNT = re.compile(r"^fuzzed (\d+) (\d+)$")
_FOUND = re.compile(r"Test unit written to (\S+)")


@dataclass
class Run:
    """One target, one way, and how far it is."""

    name: str
    way: str
    executions: int = 0
    bytes: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    begun: float = 0.0
    seconds: float = 0.0
    """From the first execution to the last that was told of."""
    found: str = ""
    said: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}.{self.way}"

    def hear(self, line: str) -> None:
        """Take a line of the process."""
        if count := _COUNT.match(line):
            self.executions, self.bytes = int(count[1]), int(count[2])
            self.begun = self.begun or time.monotonic()
            self.seconds = time.monotonic() - self.begun
        elif progress := _PROGRESS.search(line):
            self.edges, self.features = int(progress["edges"] or 0), int(progress["features"])
            self.corpus = int(progress["corpus"])
        elif found := _FOUND.search(line):
            self.found = found[1]
        elif line.strip() and not line.startswith(("INFO:", "#")):
            self.said.append(line)

    def line(self) -> str:
        """How far it is, for people."""
        rate = self.executions / self.seconds if self.seconds else 0.0
        return (
            f"{self!s:20} {self.seconds:7.1f} s {self.executions:>12,} executions {rate:>9,.0f}/s "
            f"{self.bytes:>14,} bytes {self.edges:>6,} edges {self.features:>6,} features {self.corpus:>5,} inputs"
        )


def environment(way: str, built: Build) -> dict[str, str]:
    """What a process of one way runs with."""
    pure = "1" if way == "pure" else ""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PACKETCORE_PURE": pure, **built.environment}


def fuzz(run: Run, seconds: float, built: Build, live: Live, *, seed: int | None = None) -> int:
    """Fuzz one target. Returns what its process ended with.

    Args:
        run: which, and where to write down how far it is.
        seconds: for how long.
        built: how the extension was built.
        live: where to show it.
        seed: begin with this and without any corpus; else by chance, with all that is known.
    """
    own, crashes = OWN / "corpus" / run.name, OWN / "crashes"
    for folder in (own, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    known = [str(own), str(CORPUS / run.name)] if seed is None else [f"-seed={seed}"]
    command = [
        *(
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "fuzz.one",
            run.name,
            f"-max_total_time={max(1, round(seconds))}",
        ),
        *(f"-artifact_prefix={crashes}{os.sep}{run}-", f"-max_len={LONGEST}", f"-timeout={PATIENCE}"),
        *("-rss_limit_mb=4096", *built.options, *known),
    ]
    process = subprocess.Popen(
        command,
        env=environment(run.way, built),
        cwd=crashes,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that Ctrl-C is ours to pass on
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            run.hear(line.rstrip("\n"))
            live.update(Text(run.line()))
        return process.wait()
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def runs(names: list[str]) -> Iterator[Run]:
    """The targets of these names, each way.

    Raises:
        ValueError: there is no such target.
    """
    for name in names:
        target, _, only = name.partition(".")
        ways = [way for way in TARGETS.get(target, ()) if only in ("", way)]
        if not ways:
            raise ValueError(f"no target {name!r}: there are {', '.join(TARGETS)}, each also with .pure or .compiled")
        for way in ways:
            yield Run(target, way)


def repeat(run: Run, files: list[str], built: Build) -> int:
    """Run a target over files, with what it shows on this terminal."""
    OWN.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "fuzz.one",
        run.name,
        "--repeat",
        *map(os.path.abspath, files),
    ]
    return subprocess.run(command, env=environment(run.way, built), cwd=OWN, check=False).returncode


def main() -> int:
    """Returns 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Look for inputs that break a law.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=[*TARGETS])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all of them together (default 60)")
    parser.add_argument("--repeat", nargs="+", metavar="FILE", help="run the targets over these, without the fuzzer")
    options = parser.parse_args()
    console = Console(highlight=False)
    try:
        chosen = [*runs(options.targets)]
    except ValueError as error:
        parser.error(str(error))
    built = build() if any(run.way == "compiled" for run in chosen) else Build("")
    if options.repeat:
        return max(repeat(run, options.repeat, built if run.way == "compiled" else Build("")) != 0 for run in chosen)
    if find_spec("atheris") is None:
        console.print("atheris is missing: pip install -r requirements-fuzz.txt (CPython 3.11 to 3.13 on Linux)")
        return 1
    if built.missing:
        console.print(built.missing, style="yellow")
    if built.how:
        console.print(f"the extension in C: {built.how}")
    return search(chosen, options.seconds, built, console)


def search(chosen: list[Run], seconds: float, built: Build, console: Console) -> int:
    """Fuzz one after the other, each for its share of the time."""
    failed = 0
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        for run in chosen:
            code = fuzz(run, seconds / len(chosen), built if run.way == "compiled" else Build(""), live)
            live.update(Text(""))
            console.print(run.line(), style="red" if code else None, soft_wrap=True)
            if code:
                failed += 1
                console.print("\n".join(run.said[-60:]), markup=False, soft_wrap=True)
                where = os.path.relpath(run.found, Path.cwd()) if run.found else "(no input was written)"
                console.print(f"python -m fuzz {run} --repeat {where}", style="bold red", soft_wrap=True)
    executions, size = sum(run.executions for run in chosen), sum(run.bytes for run in chosen)
    console.print(f"{executions:,} executions, {size:,} bytes: {failed or 'no'} target{'s' * (failed != 1)} crashed")
    return int(failed > 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
