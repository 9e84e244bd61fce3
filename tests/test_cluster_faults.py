"""Workers and a broker that are killed and paused, as processes: the invariants of the simulation on real ones."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import ExitStack
from random import Random

import pytest

from packetcore import NotConnected, Packet
from packetcore_asyncio import Stream, connect
from packetcore_cluster import Cluster, SlowConsumer, WorkerLeft, WorkerLost
from packetcore_cluster.local import LocalBroker
from tests.cluster_broker import start_broker, until
from tests.cluster_worker import WorkerProcess

LEASE = 1.5
STATED = 2 * LEASE + 2.0
"""Seconds after which all is well again; two of them for a machine that has other work."""


async def device(worker: WorkerProcess, identity: str) -> Stream:
    stream = await connect("127.0.0.1", worker.port)
    await stream.send(Packet(1, identity.encode()))
    return stream


async def holder(cluster: Cluster, identity: str, worker: WorkerProcess) -> None:
    def found() -> bool:
        place = cluster.find(identity)
        return place is not None and place.worker == worker.worker

    await until(found, f"{identity} is at {worker.worker}")


async def send_once_the_broker_knows(cluster: Cluster, identity: str) -> None:
    """Send; what the broker hands to a worker in the moment in which that dies is never answered."""
    while True:
        try:
            await cluster.send(identity, Packet(1), timeout=0.1)
        except TimeoutError:
            continue
        return


def test_a_worker_that_is_killed_loses_its_claims_and_sends_to_them_are_refused_at_once() -> None:
    async def test() -> None:
        with start_broker() as broker, WorkerProcess(broker.url, "one", LEASE) as one:
            async with Cluster(broker.url, "faults", lease=LEASE, on_event=events.append) as witness:
                streams = [await device(one, name) for name in ("meter 1", "meter 2")]
                await holder(witness, "meter 1", one)
                await holder(witness, "meter 2", one)
                one.kill()
                killed = time.monotonic()
                with pytest.raises(NotConnected):
                    await send_once_the_broker_knows(witness, "meter 1")
                assert time.monotonic() - killed < LEASE  # and not when it counts as dead
                assert witness.find("meter 1") is not None
                with WorkerProcess(broker.url, "two", LEASE) as two:
                    streams.append(await device(two, "meter 2"))  # need not wait for that
                    await holder(witness, "meter 2", two)
                    await until(lambda: witness.find("meter 1") is None, "its claims have ended", STATED)
                    # Of the two that noticed, one tidies up, and the other may see that first.
                    assert {WorkerLost(one.worker, 1), WorkerLeft(one.worker)} & {*events}
                    assert two.ask()["held"] == ["meter 2"]
                    for stream in streams:
                        stream.session.abort()
                await until(lambda: witness.stats.identities == 0, "nothing is left in the directory", 2 * STATED)

    events: list[object] = []
    asyncio.run(test())


def test_a_worker_that_was_paused_finds_that_others_have_taken_over() -> None:
    async def test() -> None:
        with (
            start_broker() as broker,
            WorkerProcess(broker.url, "one", LEASE) as one,
            WorkerProcess(broker.url, "two", LEASE) as two,
        ):
            async with Cluster(broker.url, "faults", lease=LEASE) as witness:
                streams = [await device(one, name) for name in ("meter 1", "meter 2")]
                await holder(witness, "meter 1", one)
                await holder(witness, "meter 2", one)
                one.signal(signal.SIGSTOP)
                calls = [witness.send("meter 2", Packet(1), timeout=0.3) for _ in range(1001)]
                told = Counter(type(error) for error in await asyncio.gather(*calls, return_exceptions=True))
                assert told == {TimeoutError: 1000, SlowConsumer: 1}  # it does not answer, and no more may wait
                streams.append(await device(two, "meter 1"))
                await holder(witness, "meter 1", two)
                await until(lambda: witness.find("meter 2") is None, "the paused one counts as dead", STATED)
                one.signal(signal.SIGCONT)
                await holder(witness, "meter 2", one)  # which it still has, and nobody else
                await until(lambda: one.ask()["held"] == ["meter 2"], "it has given up what another has", STATED)
                assert two.ask()["held"] == ["meter 1"]
                for stream in streams:
                    stream.session.abort()

    asyncio.run(test())


class Trouble:
    """Devices that move between workers while those and the broker are killed and paused."""

    def __init__(self, seed: int, broker: LocalBroker, stack: ExitStack) -> None:
        self.random = Random(seed)
        self.broker = broker
        self.stack = stack
        self.workers: list[WorkerProcess] = []
        self.paused: set[WorkerProcess] = set()
        self.streams: list[Stream] = []
        self.started = 0
        for _ in range(3):
            self.start_worker()

    def start_worker(self) -> None:
        self.started += 1
        self.workers.append(self.stack.enter_context(WorkerProcess(self.broker.url, f"w{self.started}", LEASE)))

    async def move(self, identity: str) -> WorkerProcess | None:
        worker = self.random.choice(self.workers)
        if worker in self.paused:
            return None
        self.streams.append(await device(worker, identity))
        return worker

    def resume(self) -> None:
        for worker in self.paused:
            worker.signal(signal.SIGCONT)
        self.paused.clear()

    async def step(self) -> None:
        worker = self.random.choice(self.workers)
        match self.random.randrange(4):
            case 0:
                worker.kill()
                self.workers.remove(worker)
                self.paused.discard(worker)
                self.start_worker()
            case 1:
                worker.signal(signal.SIGSTOP)
                self.paused.add(worker)
            case 2:
                self.broker.kill()
                await self.moves(0.5)
                self.broker.start()
            case _:
                self.broker.pause()
                await self.moves(1.0)
                self.broker.resume()

    async def moves(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.move(f"meter {self.random.randrange(10)}")
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2])
def test_after_trouble_each_identity_has_one_holder_whom_every_worker_knows(seed: int) -> None:
    async def test() -> None:
        with start_broker() as broker, ExitStack() as stack:
            trouble = Trouble(seed, broker, stack)
            for _ in range(5):
                await trouble.moves(0.4)
                await trouble.step()
                if trouble.random.random() < 0.5:
                    trouble.resume()
            trouble.resume()

            def has_settled() -> bool:
                said = [worker.ask() for worker in trouble.workers]
                return all(each["connected"] and not each["pending"] for each in said)

            await until(has_settled, "all have the broker again", STATED)
            last = {}
            for number in range(10):  # all of them once more
                last[f"meter {number}"] = await trouble.move(f"meter {number}")
            deadline = time.monotonic() + STATED
            while True:
                said = [worker.ask() for worker in trouble.workers]
                held = Counter(identity for each in said for identity in each["held"])
                wanted = {
                    identity: worker.worker
                    for each, worker in zip(said, trouble.workers, strict=True)
                    for identity in each["held"]
                }
                if all(each["known"] == wanted for each in said) and held == Counter([*last]):
                    break
                assert time.monotonic() < deadline, f"held {held}, known {[each['known'] for each in said]}"
                await asyncio.sleep(0.05)
            for stream in trouble.streams:
                stream.session.abort()

    asyncio.run(test())
