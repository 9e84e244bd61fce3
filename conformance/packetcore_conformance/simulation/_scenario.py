"""A scenario: hosts, programs and what is done to them; played for one seed or for many."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from packetcore import CloseReason
from packetcore_conformance.simulation._simulation import USUAL, Simulation
from packetcore_conformance.simulation._steps import FAULTS, Step, do_fault, draw_faults, shrink
from packetcore_conformance.simulation._world import Violation


class Scenario:
    """What is simulated. Override `begin` and `end`, and what else you need.

    Args:
        simulation: new.
    """

    seconds = 300.0
    """How long steps are done."""

    patience = 120.0
    """How long there is peace after that, before `check`: as long as it takes all to be well again."""

    faults = 12
    """How many are drawn."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def begin(self) -> None:
        """Make hosts and give them their programs. Draw from `simulation.random`."""
        raise NotImplementedError

    def steps(self, random: Random) -> list[Step]:
        """Draw what is to be done: by default faults, of the paths between any two hosts and of the hosts."""
        hosts = [*self.simulation.hosts]
        paths = [f"{one}|{other}" for index, one in enumerate(hosts) for other in hosts[index + 1 :]]
        return draw_faults(random, paths, hosts, self.seconds, self.faults)

    def do(self, step: Step) -> None:
        """Do a step: a fault, or what a method `do_VERB` does with it."""
        if step.verb in FAULTS:
            do_fault(self.simulation, step)
        else:
            getattr(self, f"do_{step.verb}")(step)

    def chance(self, step: Step) -> Random:
        """A generator of its own for a step, the same whatever other steps there are."""
        return self.simulation.world.chance(str(step))

    def check(self) -> None:
        """See, in peace, that all is well again. `simulation.fail` says that it is not."""

    async def end(self) -> None:
        """Close whatever was opened. Nothing may be left then."""
        raise NotImplementedError


@dataclass
class Played:
    """What came of one seed."""

    seed: int
    steps: list[Step]
    """What was done."""
    digest: str = ""
    """Stands for the whole trace."""
    seconds: float = 0.0
    """Virtual ones."""
    events: int = 0
    """How many things happened."""
    reasons: dict[CloseReason, int] = field(default_factory=dict)
    """How many sessions ended why."""
    violation: str | None = None
    """What must not have come about."""


def play(
    scenario: Callable[[Simulation], Scenario],
    seed: int,
    *,
    steps: Sequence[Step] | None = None,
    only: Iterable[int] | None = None,
    trace: Callable[[str], object] | None = None,
) -> Played:
    """Play a scenario once.

    Args:
        scenario: a `Scenario`.
        seed: what all chance comes from.
        steps: what to do, in place of what the seed draws.
        only: the numbers of those steps that are to be done.
        trace: called with each line of the trace.
    """
    simulation = Simulation(seed, trace=trace)
    played = scenario(simulation)
    outcome = Played(seed, [])
    try:
        played.begin()
        drawn = played.steps(simulation.world.chance("steps")) if steps is None else [*steps]
        outcome.steps = drawn if only is None else [drawn[number] for number in only]
        for step in outcome.steps:
            simulation.at(step.at, lambda step=step: played.do(step))  # type: ignore[misc]
        simulation.run(played.seconds)
        make_peace(simulation)
        simulation.run(played.patience)
        played.check()
        simulation.complete(played.end())
        simulation.finish()
    except Violation as violation:
        outcome.violation = str(violation)
    except Exception as error:
        outcome.violation = f"at {simulation.now:.6f}: {type(error).__name__}: {error}"
    finally:
        simulation.close()
    outcome.digest, outcome.events = simulation.digest, simulation.world.events
    outcome.seconds, outcome.reasons = simulation.now, simulation.watch.reasons
    return outcome


def make_peace(simulation: Simulation) -> None:
    """Let all paths be as usual from now on, and all hosts go on."""
    for path in simulation.wires.paths:
        if path.ends[0] is not path.ends[1]:
            path.impair(USUAL)
        path.heal()
    for host in simulation.hosts.values():
        host.machine.most_sockets = None


def shrunk(scenario: Callable[[Simulation], Scenario], failed: Played) -> list[int]:
    """The numbers of the fewest steps with which a seed still fails in the same way."""
    kind = _kind(failed.violation)

    def fails(numbers: list[int]) -> bool:
        steps = [failed.steps[number] for number in numbers]
        return _kind(play(scenario, failed.seed, steps=steps).violation) == kind

    return shrink(range(len(failed.steps)), fails)


def command(scenario: Callable[[Simulation], Scenario], seed: int, only: Sequence[int] | None = None) -> str:
    """What repeats it."""
    module, name = scenario.__module__, getattr(scenario, "__qualname__", "")
    words = ["python -m packetcore_conformance.simulation"]
    if not module.startswith("packetcore_conformance."):
        words.append(f"{module}:{name}")
    words.append(f"--seed {seed}")
    if only is not None:
        words.append("--only " + (",".join(map(str, only)) or "none"))
    return " ".join(words)


def report(scenario: Callable[[Simulation], Scenario], failed: Played) -> str:
    """What to say of a seed that failed: the fault, the fewest steps and the command."""
    only = shrunk(scenario, failed)
    lines = [f"seed {failed.seed}: {failed.violation}", command(scenario, failed.seed, only)]
    lines.append(f"{len(only)} of {len(failed.steps)} steps are needed:")
    lines += [f"    {failed.steps[number]}" for number in only]
    again = play(scenario, failed.seed, steps=[failed.steps[number] for number in only])
    return "\n".join([*lines, f"then {again.violation}"])


def explore(scenario: Callable[[Simulation], Scenario], seeds: Iterable[int]) -> list[Played]:
    """Play a scenario for each of many seeds: for a test.

    Raises:
        Violation: one failed. The message has the fewest steps, and the command that repeats it.
    """
    outcomes = []
    for seed in seeds:
        outcome = play(scenario, seed)
        if outcome.violation is not None:
            raise Violation(report(scenario, outcome))
        outcomes.append(outcome)
    return outcomes


def _kind(violation: str | None) -> str | None:
    """A violation without its numbers, names and times."""
    return violation and re.sub(r"\d+(\.\d+)?|<[^>]*>|^[^:]*:", "", violation)
