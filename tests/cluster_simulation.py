"""A cluster in one thread, with a made-up broker, network and clock: a seed says all that goes wrong.

Workers run the register that real ones run. What it is not told by the issue's words: connections break and
what was under way is lost or arrives late, messages come twice, links stall, workers and the broker pause and
die, the broker loses its last writes or all of them, clocks step, and devices go from worker to worker meanwhile,
mostly without a goodbye. Then the network is whole, and after `STATED` seconds each identity must have one holder
where it had any, and every worker must know that.

    python -m tests.cluster_simulation --seeds 1000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from packetcore_cluster._entries import entry_from
from packetcore_cluster._errors import IdentityTakenElsewhere
from packetcore_cluster._keys import key_of
from packetcore_cluster._operations import Operation, Put, Read, Takeover, Watch
from packetcore_cluster._register import Register
from packetcore_cluster._timing import Timing

LEASE = 4.0
TIMING = Timing(lease=LEASE, retry=0.5)
TROUBLE = 60.0
"""Seconds in which things go wrong."""
DETECT = 2.0
"""Seconds after which an end notices that a link is stalled."""
LATE = 3.0
"""Seconds by which what was under way on a lost connection may arrive late."""
STATED = 2 * LEASE + LATE
"""Seconds after which all is well again."""


class Scheduler:
    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (max(when, self.now), self._count, call))

    def run_until(self, end: float) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, call = heappop(self._heap)
            call()
        self.now = end


class Link:
    """One connection between a worker and the broker: in order both ways until it breaks."""

    def __init__(self, world: World, worker: Worker) -> None:
        self.world = world
        self.worker = worker
        self.life = world.broker.life
        self.is_up = True
        self.watch: Watch | None = None
        self._out_at = self._in_at = 0.0
        self._under_way: list[Operation] = []

    def send(self, operation: Operation) -> None:
        """From the worker to the broker."""
        world = self.world
        self._under_way.append(operation)
        self._out_at = max(self._out_at, world.now + world.delay(), world.whole_at(self.worker))
        world.at(self._out_at, lambda: self._arrive(operation))
        if world.random.random() < world.doubled and not isinstance(operation, Watch):
            world.at(self._out_at + world.random.uniform(0, LATE), lambda: self._land_late(operation))

    def _arrive(self, operation: Operation) -> None:
        if self.is_up and operation in self._under_way:
            self._under_way.remove(operation)
            self.world.broker.take(self, operation)

    def _land_late(self, operation: Operation) -> None:
        if not isinstance(operation, Watch) and self.life == self.world.broker.life:
            self.world.broker.take(None, operation)

    def tell(self, call: Callable[[Worker, float], None]) -> None:
        """From the broker to the worker."""
        world = self.world
        self._in_at = max(self._in_at, world.now + world.delay(), world.whole_at(self.worker))
        world.at(self._in_at, lambda: self.worker.hear(self, call))

    def break_off(self) -> None:
        """Either end gives it up. What is under way to the broker is lost, or arrives late."""
        if not self.is_up:
            return
        self.is_up = False
        world = self.world
        for operation in self._under_way:
            if world.random.random() < 0.5:
                when = world.now + world.random.uniform(0, LATE)
                world.at(when, lambda operation=operation: self._land_late(operation))  # type: ignore[misc]
        self._under_way.clear()
        if self in world.broker.links:
            world.broker.links.remove(self)
        self.worker.input(lambda worker, _: worker.lost(self))


class Broker:
    def __init__(self, world: World) -> None:
        self.world = world
        self.is_up = True
        self.life = 0  # no connection outlives the process
        self.paused_until = 0.0
        self.links: list[Link] = []
        self.bucket = "1"
        self.revision = 0
        self.store: dict[str, tuple[int, bytes | None]] = {}
        self.log: list[tuple[str, tuple[int, bytes | None] | None]] = []
        self.winners: dict[str, tuple[str, int]] = {}
        """Whose claim the broker took last, of sessions that had not given way to another worker's."""
        self.has_lost = False

    def take(self, link: Link | None, operation: Operation, life: int | None = None) -> None:
        life = self.life if life is None else life
        if not self.is_up or life != self.life:
            return
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, lambda: self.take(link, operation, life))
            return
        reply = self._do(link, operation)
        if link is not None and link.is_up:
            link.tell(reply)

    def _do(self, link: Link | None, operation: Operation) -> Callable[[Worker, float], None]:
        if isinstance(operation, Watch):
            assert link is not None
            link.watch = operation
            bucket, last = self.bucket, self.revision
            present = sorted(self.store.items(), key=lambda item: item[1][0])

            def begin(worker: Worker, now: float) -> None:
                worker.register.watching(operation, bucket, last, now)

            link.tell(begin)
            for key, (revision, value) in present:
                self._tell(link, key, revision, value)
            return lambda worker, now: worker.register.synced(operation, now)
        revision, value = self.store.get(operation.key, (0, None))
        if isinstance(operation, Read):
            return lambda worker, now: worker.register.read(operation, revision, value, now)
        if self.world.random.random() < self.world.failing:
            return lambda worker, now: worker.register.failed(operation, now)
        if operation.expected is not None and operation.expected != revision:
            return lambda worker, now: worker.register.conflicted(operation, now)
        self.log.append((operation.key, self.store.get(operation.key)))
        self.revision += 1
        new = self.revision, operation.value if isinstance(operation, Put) else None
        self.store[operation.key] = new
        self.world.say(f"broker: {operation.key} {new}")
        entry = None if new[1] is None else entry_from(new[1])
        if entry is not None and not self.world.gave_way(entry.worker, entry.session):
            self.winners[operation.key] = entry.worker, entry.session
        for each in self.links:
            if each.watch is not None:
                self._tell(each, operation.key, *new)
        return lambda worker, now: worker.register.done(operation, new[0], now)

    def _tell(self, link: Link, key: str, revision: int, value: bytes | None) -> None:
        watch = link.watch
        assert watch is not None

        def entry(worker: Worker, now: float) -> None:
            worker.register.entry(watch, key, revision, value, now)

        link.tell(entry)
        if self.world.random.random() < self.world.doubled:
            self.world.at(self.world.now + self.world.random.uniform(0, LATE), lambda: link.tell(entry))

    def crash(self) -> None:
        self.is_up = False
        self.life += 1
        random = self.world.random
        fate = random.random()
        if fate < 0.1:  # all is lost
            self.has_lost = True
            self.bucket = str(int(self.bucket) + 1)
            self.revision = 0
            self.store.clear()
            self.log.clear()
            self.winners.clear()
        elif fate < 0.3:  # what it had not yet written is
            self.has_lost = True
            for _ in range(min(len(self.log), random.randrange(20))):
                key, before = self.log.pop()
                self.winners.pop(key, None)
                self.revision -= 1
                if before is None:
                    del self.store[key]
                else:
                    self.store[key] = before
        for link in [*self.links]:
            link.break_off()


class Worker:
    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.shift = world.random.uniform(-1e6, 1e9)  # what its clock shows more than the time
        self.register = Register(name, TIMING, self.clock())
        self.is_alive = True
        self.paused_until = 0.0
        self.stalled_until = 0.0
        self.link: Link | None = None
        self.sessions: dict[int, str] = {}
        """Identities of those that live, all of which believe to hold them."""
        self._last_session = 0
        self._ticks = 0
        self._waiting: list[Callable[[Worker, float], None]] = []
        self._tick()
        self._dial()

    def clock(self) -> float:
        return self.world.now + self.shift

    def holder(self, identity: str) -> int | None:
        return next((session for session, held in self.sessions.items() if held == identity), None)

    def input(self, call: Callable[[Worker, float], None]) -> None:
        if not self.is_alive:
            return
        if self.paused_until > self.world.now:
            self._waiting.append(call)
            return
        call(self, self.clock())
        for ending in self.register.endings():
            if self.sessions.pop(ending.session, None) is not None:
                self.world.end(self, ending.session, ending.reason)
                self.register.release(ending.key, ending.session, self.clock())
        for event in self.register.events():
            self.world.say(f"{self.name}: {event}")
        if self.link is not None:
            for operation in self.register.operations(20):
                self.link.send(operation)

    def hear(self, link: Link, call: Callable[[Worker, float], None]) -> None:
        self.input(lambda worker, now: call(worker, now) if link is worker.link else None)

    def lost(self, link: Link) -> None:
        if link is self.link:
            self.link = None
            self.register.disconnected(self.clock())

    def pause(self, seconds: float) -> None:
        self.paused_until = self.world.now + seconds
        self.world.at(self.paused_until, self._resume)

    def die(self) -> None:
        self.is_alive = False
        if self.link is not None:
            self.link.break_off()
        for session in self.sessions:
            self.world.end(self, session, "died")
        self.sessions.clear()

    def bind(self, identity: str, takeover: Takeover) -> None:
        """A device connects here, unless this process is paused."""
        if not self.is_alive or self.paused_until > self.world.now:
            return
        key, before = key_of(identity), self.holder(identity)
        try:
            self.register.check(key, takeover)
        except IdentityTakenElsewhere:
            return
        if before is not None:
            if takeover == "reject":
                return
            del self.sessions[before]
            self.world.end(self, before, "locally replaced")
        self._last_session += 1
        session = self._last_session
        self.sessions[session] = identity
        self.world.say(f"{self.name}: {identity} is bound to session {session} ({takeover})")
        self.input(lambda worker, now: worker.register.claim(key, session, now, takeover, now))

    def close(self, identity: str) -> None:
        session = self.holder(identity)
        if session is not None and self.paused_until <= self.world.now:
            del self.sessions[session]
            self.world.end(self, session, "closed")
            self.world.say(f"{self.name}: session {session} of {identity} closed")
            self.input(lambda worker, now: worker.register.release(key_of(identity), session, now))

    def _resume(self) -> None:
        if self.paused_until <= self.world.now:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                self.input(call)

    def _tick(self) -> None:
        self._ticks += 1
        ticks = self._ticks
        if not self.is_alive:
            return
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, lambda: self._tick() if ticks == self._ticks else None)
            return
        self.input(lambda worker, now: worker.register.tick(now))
        wait = self.register.next_deadline() - self.clock()
        assert wait > 0, "a deadline that was met is not over"
        self.world.at(self.world.now + wait, lambda: self._tick() if ticks == self._ticks else None)

    def _dial(self) -> None:
        world = self.world
        if not self.is_alive:
            return
        busy = self.link is not None or self.paused_until > world.now
        away = not world.broker.is_up or world.broker.paused_until > world.now or world.whole_at(self) > world.now
        if not (busy or away):
            link = self.link = Link(world, self)
            world.broker.links.append(link)
            self.input(lambda worker, now: worker.register.connected(now))
        world.at(world.now + world.random.uniform(0.2, 1.0), self._dial)


class World(Scheduler):
    """One run.

    Args:
        seed: of all that happens.
        say: is told what does.
    """

    def __init__(self, seed: int, say: Callable[[str], object] | None = None) -> None:
        super().__init__()
        self.random = Random(seed)
        self._say = say
        self.doubled = self.random.choice([0, 0.05])
        self.failing = self.random.choice([0, 0.03])
        self._slow = self.random.choice([0.02, 0.3])
        self.ended: dict[tuple[str, int], str] = {}
        self.counts = {"events": 0, "replaced": 0, "refused": 0}
        self.broker = Broker(self)
        self.identities = [f"meter {number}" for number in range(self.random.randint(1, 8))]
        self.workers = [Worker(self, f"w{number}") for number in range(self.random.randint(2, 4))]
        self._is_whole = False

    def say(self, what: str) -> None:
        self.counts["events"] += 1
        if self._say is not None:
            self._say(f"{self.now:8.3f} {what}")

    def end(self, worker: Worker, session: int, why: str) -> None:
        self.ended[worker.name, session] = why
        if why in self.counts:
            self.counts[why] += 1

    def gave_way(self, worker: str, session: int) -> bool:
        return self.ended.get((worker, session)) in ("replaced", "refused")

    def delay(self) -> float:
        return self.random.uniform(0.001, self._slow) if self.random.random() < 0.95 else self.random.uniform(0, 1)

    def whole_at(self, worker: Worker) -> float:
        return max(worker.stalled_until, self.broker.paused_until)

    def run(self) -> None:
        """Let it all happen, and see how it ends.

        Raises:
            AssertionError: not well.
        """
        self.at(0.0, self._devices)
        self.at(2.0, self._trouble)
        self.run_until(TROUBLE)
        self._heal()
        had_one = {identity for worker in self.workers for identity in worker.sessions.values()}
        self.run_until(TROUBLE + STATED)
        self._check(had_one)

    def _devices(self) -> None:
        if self._is_whole:
            return
        identity = self.random.choice(self.identities)
        worker = self.random.choice(self.workers)
        if self.random.random() < 0.25:
            worker.close(identity)
        else:
            worker.bind(identity, "reject" if self.random.random() < 0.15 else "replace")
            if self.random.random() < 0.2:  # at the same instant elsewhere
                self.random.choice(self.workers).bind(identity, "replace")
        self.at(self.now + self.random.expovariate(1.5), self._devices)

    def _trouble(self) -> None:
        if self._is_whole:
            return
        random, worker = self.random, self.random.choice(self.workers)
        length = min(random.choice([0.3, 1.5, 3.0, 2 * LEASE, 20.0]), TROUBLE - self.now)
        match random.randrange(8):
            case 0:
                self.say(f"{worker.name} is cut off for {length} s")
                worker.stalled_until = max(worker.stalled_until, self.now + length)
                if length > DETECT and worker.link is not None:
                    self.at(self.now + DETECT, worker.link.break_off)
            case 1 if worker.link is not None:
                self.say(f"{worker.name} loses its connection")
                worker.link.break_off()
            case 2:
                self.say(f"{worker.name} pauses for {length} s")
                worker.pause(length)
                if length > DETECT and worker.link is not None:
                    self.at(self.now + DETECT, worker.link.break_off)
            case 3 if len(self.workers) < 8:
                self.say(f"{worker.name} dies, and another worker begins")
                worker.die()
                self.workers.append(Worker(self, random.choice("abxy") + str(len(self.workers))))
            case 4 if self.broker.is_up:
                self.say(f"the broker dies for {length} s")
                self.broker.crash()
                self.at(self.now + length, self._restart)
            case 5:
                self.say(f"the broker pauses for {length} s")
                self.broker.paused_until = self.now + length
                if length > DETECT:
                    for link in self.broker.links:
                        self.at(self.now + DETECT, link.break_off)
            case 6:
                step = random.choice([random.uniform(-1, 1), random.uniform(-1e5, 1e5)])
                self.say(f"the clock of {worker.name} steps by {step:.1f} s")
                worker.shift += step
                worker._tick()
            case _:
                pass
        self.at(self.now + random.expovariate(0.5), self._trouble)

    def _restart(self) -> None:
        self.broker.is_up = True

    def _heal(self) -> None:
        self.say("the network is whole")
        self._is_whole = True
        self.doubled = self.failing = 0
        self._slow = 0.02
        self.broker.is_up = True

    def _check(self, had_one: set[str]) -> None:
        alive = [worker for worker in self.workers if worker.is_alive]
        held = [(identity, worker.name, session) for worker in alive for session, identity in worker.sessions.items()]
        assert len({identity for identity, _, _ in held}) == len(held), f"two holders: {held}"
        expected = {key_of(identity): (name, session) for identity, name, session in held}
        stored = {
            key: entry_from(value)
            for key, (_, value) in self.broker.store.items()
            if value is not None and key.startswith("s.")
        }
        found = {key: None if entry is None else (entry.worker, entry.session) for key, entry in stored.items()}
        assert found == expected, f"the directory has {found}, the workers {expected}"
        for worker in alive:
            register = worker.register
            assert register.is_synced, worker.name
            assert register.is_settled, vars(register._agenda)
            assert register.pending == 0
            known = {key: (place.worker, place.session) for key, place in register.places()}
            assert known == expected, f"{worker.name} knows {known}, not {expected}"
            assert {*register.presence} == {other.name for other in alive if other is not worker}
        for identity in self.identities:
            winner = self.broker.winners.get(key_of(identity))
            if winner is not None:
                assert not self.gave_way(*winner), f"{winner} had {identity} last, and lost it"
            if identity in had_one and key_of(identity) not in expected and not self.broker.has_lost:
                # It gave way to one whose device has gone, or whose worker has died, meanwhile.
                assert winner is not None, f"nobody has {identity} any more, and nobody took it"
                assert winner in self.ended, winner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1000, help="how many (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="tell all that happens")
    options = parser.parse_args()
    say: Any = (lambda what: sys.stdout.write(what + "\n")) if options.verbose else None
    began = time.monotonic()
    totals: dict[str, int] = {}
    for seed in range(options.first, options.first + options.seeds):
        world = World(seed, say)
        try:
            world.run()
        except AssertionError as error:
            sys.exit(f"seed {seed}: {error}")
        for name, count in world.counts.items():
            totals[name] = totals.get(name, 0) + count
    sys.stdout.write(f"{options.seeds} seeds in {time.monotonic() - began:.0f} s: {totals}\n")


if __name__ == "__main__":
    main()
