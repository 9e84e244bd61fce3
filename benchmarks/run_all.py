"""All benchmarks of speed and memory, one after the other, and the drawing of what they found.

Each runs as a process of its own, prints its tables and writes `results/NAME.json` beside this
file. One that fails, or misses a goal that ends it, stops none of the others; in the end it is named, and the exit
status is 1. Names as arguments run those alone: `run_all.py codec memory`. `--quick` takes about two
minutes: few rounds, and of what takes long one transport, uvloop. Its figures are real, a ratio of two that it
gives is worth no more than a third, and they go with their drawing to `results/quick/`.

What proves behaviour rather than speed is not here: `outage.py`, `serial_damage.py` and `soak.py`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

from rich.console import Console

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PATIENCE = 1800.0
"""Seconds that one benchmark may take."""
LEAVE = 15.0
"""Seconds that one has to end after Ctrl-C, or once its time is over."""

LEAN = ("uvloop", "gevent", "twisted", "blocking")
"""On these fewer connections are held: what one costs is the same, and it takes less time."""

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "codec": ("codec.py",),
    "framings": ("framings.py",),
    "echo": ("echo.py",),
    "echo_tls": ("echo.py", "--tls"),
    "echo_udp": ("echo_udp.py",),
    "latency": ("latency.py",),
    "churn": ("churn.py",),
    "websocket": ("websocket.py",),
    "pool": ("pool.py",),
    "memory": ("memory.py",),
    "connections_asyncio": ("connections.py", "--connections", "10000", "--transport", "asyncio"),
    "connections": (
        "connections.py",
        "--connections",
        "2000",
        *(f"--transport={name}" for name in LEAN if name == "blocking" or find_spec(name) is not None),
    ),
    "scale": ("scale.py",),
    "slow_peer": ("slow_peer.py",),
    "workers": ("workers.py",),
}
"""By the name of its results: a script and its options."""

QUICK: dict[str, tuple[str, ...]] = {
    "codec.py": ("--rounds", "1"),
    "framings.py": ("--rounds", "2"),
    "echo.py": ("--rounds", "2", "--seconds", "0.05"),
    "echo_udp.py": ("--rounds", "1", "--transport", "asyncio", "--transport", "uvloop"),
    "latency.py": ("--rounds", "3", "--seconds", "0.3", "--only", "uvloop"),
    "churn.py": ("--rounds", "2", "--seconds", "0.2", "--only", "uvloop"),
    "websocket.py": ("--rounds", "1", "--seconds", "0.2", "--loop", "uvloop"),
    "pool.py": ("--rounds", "1"),
    "connections.py": ("--connections", "500"),
    "scale.py": ("--rounds", "1", "--seconds", "0.3", "--connections", "1000", "--only", "uvloop"),
    "slow_peer.py": ("--transport", "uvloop", "--case", "slow consumer"),
    "workers.py": ("--rounds", "1", "--seconds", "1"),
}
"""By script: the options that make it short. They come last and so have the last word."""


def run(script: str, options: Sequence[str]) -> int:
    """Run one script of this folder to its end. Returns its exit status."""
    process = subprocess.Popen([sys.executable, HERE / script, *options])
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        print(f"{script} took longer than {PATIENCE:.0f} s", file=sys.stderr)
        return 1
    finally:
        # Ctrl-C reached it too; it has servers of its own to end.
        try:
            process.wait(LEAVE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", nargs="*", metavar="NAME", help=f"only these of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="in about two minutes: few rounds")
    options = parser.parse_args()
    names: list[str] = options.name or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose from {', '.join(BENCHMARKS)}")
    console = Console(stderr=True)
    folder = RESULTS / "quick" if options.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for number, name in enumerate(names, 1):
        script, *more = BENCHMARKS[name]
        console.rule(f"{number} of {len(names)}: {name}")
        more += ["--json", str(folder / f"{name}.json")]
        if options.quick:
            more += QUICK.get(script, ())
        begin = monotonic()
        status = run(script, more)
        console.print(f"{name}: {monotonic() - begin:.0f} s{f', exit status {status}' if status else ''}")
        if status:
            failed.append(name)
    console.rule("drawing")
    if run(
        "draw.py", ("--results", str(folder), *(("--out", str(folder / "benchmarks.svg")) if options.quick else ()))
    ):
        failed.append("draw")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
