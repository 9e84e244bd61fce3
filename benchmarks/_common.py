"""What the benchmarks share: interleaved rounds, servers in processes, a table, a JSON file.

A machine's speed swings while a benchmark runs, twofold on a shared one. So every case is
measured once a round, in a new order each round: a slow spell then hits all of them alike.
The median says what to expect, the best what the code can do, and cases are compared by
the ratio of their medians within one run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

Results = dict[str, list[float]]
"""For each case, by name, one value a round."""

T = TypeVar("T")


def arguments(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser for the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each case is measured (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE as well")
    return parser


def interleave(cases: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: bool = True) -> dict[str, list[T]]:
    """Measure every case once a round.

    Args:
        warm_up: whether a round comes before that does not count; of no use to cases that start
            processes of their own each time.
    """
    results: dict[str, list[T]] = {name: [] for name in cases}
    order = random.Random(0)
    numbers = range(0 if warm_up else 1, rounds + 1)
    for round in track(numbers, "measuring", console=Console(stderr=True), transient=True):
        for name in order.sample(list(cases), len(cases)):
            value = cases[name]()
            if round:
                results[name].append(value)
    return results


@contextmanager
def serving(run: Callable[[str, str, Pipe], object], server: str, loop: str) -> Iterator[tuple[int, Pipe]]:
    """Run a server in a process of its own.

    Args:
        run: called there; it sends its port through the pipe once it listens.
        server: which one, its first argument.
        loop: on which loop, its second.

    Returns:
        Its port, and our end of the pipe.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=run, args=(server, loop, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        if not ours.poll(30):
            raise TimeoutError(f"the {server} server on {loop} did not start")
        try:
            port: int = ours.recv()
        except EOFError:
            raise RuntimeError(f"the {server} server on {loop} ended before it listened") from None
        yield port, ours
    finally:
        process.terminate()
        process.join()


def pin(index: int) -> None:
    """Keep this process on one CPU, counted from 0, where the system allows it.

    Left alone, a scheduler may put a client and the server it waits for on the same CPU,
    and does so for one server and not for another.
    """
    if sys.platform == "linux":
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[index % len(cpus)]})


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, the first column to the left and figures to the right."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def verdict(ratio: float, goal: float | None, *, at_most: bool = False) -> str:
    """A ratio, and if there is a goal for it, whether that is met, and the goal.

    Args:
        at_most: whether the goal is the most that the ratio may be, rather than the least.
    """
    if goal is None:
        return f"{ratio:.2f}"
    is_met = ratio <= goal if at_most else ratio >= goal
    return f"{ratio:.2f} {'✓' if is_met else '✗'} {'≤' if at_most else '≥'} {goal:.2f}"


def save(path: Path | None, benchmark: str, unit: str, results: Results) -> None:
    """Write all values with their medians, and where they were measured."""
    if path is None:
        return
    document = {
        "benchmark": benchmark,
        "unit": unit,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cases": {name: {"median": statistics.median(values), "values": values} for name, values in results.items()},
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
