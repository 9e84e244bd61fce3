"""Simulate for many seeds, or repeat one.

python -m packetcore_conformance.simulation --seeds 1000
python -m packetcore_conformance.simulation --seed 17 --only 3,22 --trace
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import time
from ast import literal_eval
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from packetcore_conformance.simulation._scenario import Played, command, play, report
from packetcore_conformance.simulation._steps import Step


def main(words: Sequence[str] | None = None) -> int:
    """Run it. Returns 1 where a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m packetcore_conformance.simulation", description=__doc__)
    parser.add_argument(
        "scenario",
        nargs="?",
        default="packetcore_conformance.simulation.standard:Standard",
        help="whose: MODULE:CLASS, by default the product's own",
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--only", help='the numbers of the steps to do, as "3,22", or "none"')
    parser.add_argument("--schedule", type=Path, help="a file of steps, as a Python list, to do instead")
    parser.add_argument("--steps", action="store_true", help="print the steps of --seed")
    parser.add_argument("--trace", action="store_true", help="print the trace of --seed")
    given = parser.parse_args(words)
    for number in (given.seeds, given.first):
        if number < 0:
            parser.error(f"{number} is below 0")
    logging.getLogger("packetcore").addHandler(logging.NullHandler())
    scenario = _scenario(parser, given.scenario)
    if given.seed is not None:
        return _repeat(scenario, given)
    return _explore(scenario, range(given.first, given.first + given.seeds))


def _scenario(parser: argparse.ArgumentParser, name: str) -> Any:
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute or "Standard")
    except (ImportError, AttributeError) as error:
        parser.error(f"{name} is no scenario: {error}")


def _repeat(scenario: Any, given: argparse.Namespace) -> int:
    steps = None
    if given.schedule is not None:
        steps = [Step(*step) for step in literal_eval(given.schedule.read_text(encoding="utf-8"))]
    only = None if given.only is None else [int(each) for each in given.only.split(",") if each != "none"]
    played = play(scenario, given.seed, steps=steps, only=only, trace=_say if given.trace else None)
    if given.steps:
        for number, step in enumerate(played.steps):
            _say(f"{number:4} {step}")
    _say(f"seed {played.seed}: {played.violation or 'well'}")
    _say(f"{played.seconds:.3f} virtual seconds, {played.events} events, trace {played.digest}")
    if played.violation is None:
        return 0
    if only is None and steps is None:
        _say(report(scenario, played))
    return 1


def _explore(scenario: Any, seeds: range) -> int:
    from rich.console import Console
    from rich.progress import track

    began = time.perf_counter()
    console = Console(stderr=True)
    failed: list[Played] = []
    count, seconds, events, reasons = 0, 0.0, 0, Counter[str]()
    with suppress(KeyboardInterrupt):  # what was done until then is told
        for seed in track(seeds, "simulating", console=console, disable=not console.is_terminal):
            played = play(scenario, seed)
            count += 1
            seconds += played.seconds
            events += played.events
            reasons.update({reason.name: ended for reason, ended in played.reasons.items()})
            if played.violation is not None:
                failed.append(played)
                _say(f"seed {seed}: {played.violation}\n    {command(scenario, seed)}")
    took = time.perf_counter() - began
    _say(f"{count} seeds, {len(failed)} failed; {seconds:,.0f} virtual seconds, {events:,} events in {took:.1f} s")
    _say("sessions ended: " + ", ".join(f"{name} {count}" for name, count in sorted(reasons.items())))
    if failed:
        _say("the first of them, with the fewest steps:\n" + report(scenario, failed[0]))
    return 1 if failed else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    raise SystemExit(main())
