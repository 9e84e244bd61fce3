"""What is done to a simulation, and when: a list of plain values, which a seed gives, a person can read and
`shrink` makes shorter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from packetcore_conformance.simulation._simulation import USUAL, Simulation
from packetcore_tap import Impairments

T = TypeVar("T")


class Step(NamedTuple):
    """Something that is done at a time."""

    at: float
    """Seconds since the beginning."""
    verb: str
    """What: one of `FAULTS`, or a scenario's own."""
    where: str = ""
    """A host's name, or of a path both, as "gateway|meter"."""
    value: float | str = 0.0
    """How long, in seconds; of "impair" a name in `WEATHER`; of a scenario's own what it likes."""

    def __str__(self) -> str:
        return repr(tuple(self))


WEATHER = {
    "usual": USUAL,
    "slow": Impairments(latency=0.4, jitter=0.3),
    "narrow": Impairments(latency=0.02, bandwidth=2_000.0, buffer=4_096),
    "choppy": Impairments(latency=0.005, cut=7),
    "dripping": Impairments(latency=0.01, cut=40, gap=0.002, buffer=16_384),
    "sticky": Impairments(latency=0.01, merge=0.25),
    "tight": Impairments(latency=0.02, buffer=600),
    "tiny": Impairments(latency=0.005, bandwidth=4_000.0, buffer=64),
    "lossy": Impairments(latency=0.03, jitter=0.2, loss=0.2, duplication=0.2),
}
"""What a path may be like."""

PATH_FAULTS = ("impair", "part", "reset", "forget")
HOST_FAULTS = ("pause", "crash", "lose_power", "limit_sockets")

FAULTS = (*PATH_FAULTS, *HOST_FAULTS)
"""The verbs that any scenario knows, of paths and of hosts."""


def pick(random: Random, choices: Sequence[str]) -> str:
    """One of several, by `random.random()` alone."""
    return choices[int(random.random() * len(choices))]


def draw_faults(random: Random, paths: Sequence[str], hosts: Sequence[str], seconds: float, count: int) -> list[Step]:
    """Faults at random.

    Args:
        random: where chance comes from.
        paths: those that may have some, as "gateway|meter".
        hosts: those that may.
        seconds: within which time.
        count: how many.
    """
    steps = []
    for _ in range(count):
        at = round(random.random() * seconds, 3)
        verb = pick(random, FAULTS if hosts else PATH_FAULTS)
        where = pick(random, paths if verb in PATH_FAULTS else hosts)
        value: float | str = round(0.01 + random.random() ** 3 * 30, 3)
        steps.append(Step(at, verb, where, pick(random, [*WEATHER]) if verb == "impair" else value))
    return sorted(steps)


def do_fault(simulation: Simulation, step: Step) -> None:
    """Do what one of `FAULTS` says."""
    if step.verb in PATH_FAULTS:
        path = simulation.path(*step.where.split("|"))
        simulation.world.tell(step.where, f"{step.verb} {step.value}")
        if step.verb == "impair":
            path.impair(WEATHER[str(step.value)])
        elif step.verb == "part":
            path.part()
            simulation.at(simulation.now + float(step.value), path.heal)
        elif step.verb == "reset":
            path.reset()
        else:
            path.forget()
        return
    host = simulation.host(step.where)
    if step.verb == "pause":
        host.pause(float(step.value))
    elif step.verb == "crash":
        host.crash(float(step.value))
    elif step.verb == "lose_power":
        host.lose_power(float(step.value))
    else:
        host.limit_sockets(float(step.value))


def shrink(steps: Sequence[T], fails: Callable[[list[T]], bool], most: int = 400) -> list[T]:
    """The fewest steps that still fail: none of them can be left out.

    Zeller's and Hildebrandt's delta debugging ("Simplifying and Isolating Failure-Inducing Input", 2002), which
    leaves out ever smaller parts.

    Args:
        steps: those that fail, or what stands for them.
        fails: tries some of them.
        most: how many times to try.
    """
    left, parts, tried = [*steps], 2, 0
    while left and tried < most:
        size = -(-len(left) // parts)
        for start in range(0, len(left), size):
            rest = left[:start] + left[start + size :]
            tried += 1
            if fails(rest):
                left, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(left), 2 * parts)
    return left
