"""A simulation: hosts, the paths between them, and time that passes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from packetcore_conformance.simulation._host import Host
from packetcore_conformance.simulation._machine import Path, Wires
from packetcore_conformance.simulation._watch import Watch
from packetcore_conformance.simulation._world import World
from packetcore_tap import Impairments

USUAL = Impairments(latency=0.01)
"""A path unless it is told otherwise."""


class Simulation:
    """Hosts on a made-up network, on a clock that jumps from one thing that happens to the next.

    Args:
        seed: what all chance comes from: the same seed gives the same trace.
        impairments: what the paths do unless they are told otherwise.
        trace: called with each line of the trace.
        tolerant: whether handlers and programs may raise; else that is a `Violation`.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        impairments: Impairments = USUAL,
        trace: Callable[[str], object] | None = None,
        tolerant: bool = False,
    ) -> None:
        self.world = World(seed, trace)
        self.wires = Wires(self.world, impairments)
        self.watch = Watch(self.world)
        self.watch.is_tolerant = tolerant
        self.hosts: dict[str, Host] = {}
        """By their names."""
        self.random: Random = self.world.chance("simulation")
        """For whoever sets a simulation up. Use its `random()`."""
        self._names: dict[str, tuple[str, ...]] = {}

    @property
    def seed(self) -> int:
        """What all chance comes from."""
        return self.world.seed

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return self.world.now

    @property
    def digest(self) -> str:
        """Stands for the whole trace until now."""
        return self.world.digest

    def host(self, name: str, *addresses: str) -> Host:
        """A host, new unless there is one of that name, which is how others find it.

        Args:
            name: its own.
            addresses: of IPv4; one of 10.0.0.0/8 if none are given.
        """
        host = self.hosts.get(name)
        if host is None:
            number = len(self.hosts) + 1
            own = addresses or (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",)
            host = self.hosts[name] = Host(self.world, self.wires, self.watch, name, own)
            host.names = self._names
            self._names[name] = own
            self.wires.machines.update(dict.fromkeys(own, host.machine))
        return host

    def path(self, one: Host | str, other: Host | str) -> Path:
        """What is between two hosts."""
        ends = [self.host(each) if isinstance(each, str) else each for each in (one, other)]
        return self.wires.path(ends[0].machine, ends[1].machine)

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Have something happen at a time, in seconds since the beginning."""
        self.world.at(when, action)

    def run(self, seconds: float) -> None:
        """Let so much time pass.

        Raises:
            Violation: something came about that must not.
        """
        self.world.run(lambda: False, self.now + seconds)

    def run_until(self, is_true: Callable[[], object], seconds: float = 3600.0) -> None:
        """Let time pass until something is true.

        Raises:
            Violation: it was not within so many seconds, or something came about that must not.
        """
        self.world.run(is_true, self.now + seconds)
        if not is_true():
            self.fail(f"still waiting for {getattr(is_true, '__name__', is_true)} after {seconds} s")

    def complete(self, program: Coroutine[Any, Any, Any], host: Host | None = None, seconds: float = 3600.0) -> Any:
        """Run a coroutine, on a host of its own unless one is named, until it is over, and give or raise what it
        does.

        Raises:
            Violation: it was not over within so many seconds, or something came about that must not.
        """
        results: list[Any] = []
        over: list[bool] = []

        async def run() -> None:
            try:
                results.append(await program)
            except Exception as error:
                results.append(error)

        (host or self.host("director")).spawn(run(), lambda: over.append(True))
        self.world.run(lambda: over, self.now + seconds)
        if not over:
            self.fail(f"{program} is not over after {seconds} s")
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    def heal(self) -> None:
        """Let all paths through again."""
        for path in self.wires.paths:
            path.heal()

    def finish(self) -> None:
        """See that nothing is left of any program: call it once all have closed what they had opened.

        Raises:
            Violation: something is, or something came about that must not.
        """
        self.run(1.0)
        for host in self.hosts.values():
            for what in host.leftovers:
                self.world.violate(what)
        for live in self.watch.live.values():
            self.world.violate(f"{live.host}: {live.session} was never disconnected")
        self.run(0.0)

    def close(self) -> None:
        """End all that still waits, so that nothing is left of it in this process. Idempotent."""
        for host in self.hosts.values():
            host.end_tasks()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fail(self, what: str) -> None:
        """Raise a `Violation`, and put it into the trace."""
        self.world.violate(what)
        self.run(0.0)
