"""What the cluster costs: a command to a device on another worker, and a hundred thousand claims.

*Latency.* The caller, the worker that holds the device, the device and the broker are processes of their own. A
request through the cluster goes caller, broker, worker, device and back. Beside it, turn and turn about in the
same run, a plain request of NATS between the same two processes, with the client library's own `request`.

*Claims.* Four workers, each a process, claim their share of the identities through one broker, all at once; the
sessions are made up, so that sockets do not count. How many claims a second, until all workers know all; what a
claim takes in the memory of a worker, whose copy of the directory has all of them, and of the broker. Then the
broker is killed and begins again with what it has stored; then a worker is killed, and one more takes its
identities over.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing.connection import Connection as Pipe
from statistics import median
from typing import Any, TypeVar

import nats
from _common import arguments, save, show, verdict
from _processes import Child, answer, begin_child, memory
from nats.aio.msg import Msg

from packetcore import Config, Handler, Packet, Session
from packetcore_asyncio import connect, serve
from packetcore_cluster import Cluster
from packetcore_cluster.local import LocalBroker

T = TypeVar("T")

WORKERS = 4
LEASE = 10.0
"""Seconds: the default."""
GOAL = 2.0
"""Times a plain request that a command may take."""
WARM_UP = 200
PAYLOAD = b"status?".ljust(64)
PLAIN = "benchmark.plain"
DEADLINE = 120.0
"""Seconds after which something is given up."""


class Loop:
    """An event loop on a thread of its own, since the main thread of a child waits for its parent."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    def on(self, function: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
        return lambda *args: self.run(function(*args))


class Gateway(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        if session.identity is None:
            session.bind(packet.payload.decode())


class Device(Handler):
    def __init__(self, identity: str) -> None:
        self._identity = identity

    def connected(self, session: Session) -> None:
        session.send(Packet(1, self._identity.encode()))

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


def hold(pipe: Pipe, url: str) -> None:
    """The worker that the device is connected to, in a child process; it answers plain requests, too."""
    begin_child()
    loop = Loop()

    async def start() -> int:
        cluster = await Cluster(url, "latency", worker="holder").__aenter__()
        server = await serve(Gateway(), config=Config(idle_timeout=None), sessions=cluster.sessions)
        client = await nats.connect(url)

        async def echo(msg: Msg) -> None:
            await client.publish(msg.reply, msg.data)

        await client.subscribe(PLAIN, cb=echo)
        await client.flush()
        kept.extend((cluster, server, client))
        return int(server.address[1])

    kept: list[object] = []
    answer(pipe, {"start": loop.on(start)})


def be_device(pipe: Pipe, port: int) -> None:
    """The device, in a child process."""
    begin_child()
    loop = Loop()
    kept = [loop.run(connect("127.0.0.1", port, Device("meter 7")))]
    answer(pipe, {"connected": lambda: bool(kept)})


async def latencies(url: str, requests: int) -> dict[str, list[float]]:
    """Seconds of each request, in turns."""
    times: dict[str, list[float]] = {"plain NATS request": [], "cluster.request": [], "cluster.send": []}
    client = await nats.connect(url)
    async with Cluster(url, "latency", worker="caller") as cluster:
        while cluster.find("meter 7") is None:
            await asyncio.sleep(0.01)
        packet = Packet(7, PAYLOAD)
        for number in range(-WARM_UP, requests):
            begun = time.perf_counter()
            await client.request(PLAIN, PAYLOAD, timeout=5)
            plain = time.perf_counter()
            await cluster.request("meter 7", packet, timeout=5)
            asked = time.perf_counter()
            await cluster.send("meter 7", packet)
            sent = time.perf_counter()
            if number >= 0:
                for name, value in zip(times, (plain - begun, asked - plain, sent - asked), strict=True):
                    times[name].append(value)
    await client.close()
    return times


def measure_latency(requests: int) -> dict[str, list[float]]:
    with LocalBroker() as broker, Child(hold, broker.url) as holder:
        port = holder.ask("start")
        with Child(be_device, port) as device:
            device.ask("connected")
            return asyncio.run(latencies(broker.url, requests))


def show_latency(times: dict[str, list[float]]) -> None:
    rows = []
    for name, values in times.items():
        row = [name]
        for part in (0.5, 0.99):
            at, base = (sorted(each)[int(part * len(each))] for each in (values, times["plain NATS request"]))
            goal = GOAL if name == "cluster.request" else None
            row += [f"{at * 1e6:.0f} µs", verdict(at / base, goal, at_most=True)]
        rows.append(row)
    show("A command to a device on another worker, 64 bytes", ("", "median", "times", "p99", "times"), rows)


class MadeUpSession:
    """What a register has in place of a session with a socket."""

    __slots__ = ("id", "identity", "is_open")

    def close(self, reason: object = None) -> None:
        raise AssertionError("nobody takes over here")

    abort = close


def claim(pipe: Pipe, url: str) -> None:
    """A worker with claims, in a child process."""
    begin_child()
    loop = Loop()
    clusters: list[Cluster] = []

    async def start() -> int:
        cluster = Cluster(url, "claims", lease=LEASE, max_sessions=None, max_sessions_per_host=None)
        clusters.append(await cluster.__aenter__())
        return memory().uss

    async def bind(first: int, count: int) -> tuple[float, float]:
        """Claim so many. Gives when that began and when the broker had taken all, by the machine's clock."""
        (cluster,) = clusters
        begun = time.monotonic()
        for number in range(first, first + count):
            session: Any = MadeUpSession()
            session.id = cluster.sessions.add(session, 0.0)
            cluster.sessions.bind(session.id, f"device {number:06d}")
            if number % 200 == 0:
                await asyncio.sleep(0)  # as devices connect, which is not all at once
        await cluster.settled(DEADLINE)
        return begun, time.monotonic()

    async def known(count: int, since: int) -> float:
        """Wait until so many are known and all claims are taken, with so many outages behind. Gives when."""
        (cluster,) = clusters
        while True:
            stats = cluster.stats
            if stats.is_connected and stats.outages >= since and stats.identities == count:
                await cluster.settled(DEADLINE)  # which it is not before all was read anew
                if cluster.stats.identities == count:
                    return time.monotonic()
            await asyncio.sleep(0.02)

    answer(
        pipe,
        {
            "start": loop.on(start),
            "bind": loop.on(bind),
            "known": loop.on(known),
            "memory": lambda: memory().uss,
        },
    )


def together(children: list[Child], what: str, arguments: Sequence[tuple[object, ...]]) -> list[Any]:
    """Ask all at once."""
    answers: list[Any] = [None] * len(children)

    def ask(number: int) -> None:
        answers[number] = children[number].ask(what, *arguments[number], timeout=DEADLINE)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(children))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in answers:
        raise RuntimeError(f"a worker did not answer {what!r}: {answers}")
    return answers


def measure_claims(identities: int) -> dict[str, float]:
    share = identities // WORKERS
    total = share * WORKERS
    found: dict[str, float] = {}
    with LocalBroker() as broker:
        workers = [Child(claim, broker.url) for _ in range(WORKERS)]
        try:
            begun_with = together(workers, "start", [()] * WORKERS)
            broker_before = memory(broker.pid).uss
            times = together(workers, "bind", [(number * share, share) for number in range(WORKERS)])
            known = together(workers, "known", [(total, 0)] * WORKERS)
            begun = min(begin for begin, _ in times)
            found["claims a second, taken by the broker"] = total / (max(end for _, end in times) - begun)
            found["claims a second, known to all"] = total / (max(known) - begun)
            after = together(workers, "memory", [()] * WORKERS)
            grown = sum(now - before for now, before in zip(after, begun_with, strict=True)) / WORKERS
            found["bytes an identity in each worker"] = grown / total
            found["bytes an identity in the broker"] = (memory(broker.pid).uss - broker_before) / total

            killed = time.monotonic()
            broker.kill()
            broker.start()
            found["s until the broker listens again"] = time.monotonic() - killed
            known = together(workers, "known", [(total, 1)] * WORKERS)
            found["s until all are known again, broker killed"] = max(known) - killed

            killed = time.monotonic()
            workers.pop(0).kill()
            known = together(workers, "known", [(total - share, 1)] * len(workers))
            found["s until a killed worker's claims have ended"] = max(known) - killed
            begun = time.monotonic()
            workers.append(Child(claim, broker.url))
            workers[-1].ask("start")
            found["s until a new worker has begun"] = time.monotonic() - begun
            workers[-1].ask("bind", 0, share, timeout=DEADLINE)
            known = together(workers, "known", [(total, 1)] * (WORKERS - 1) + [(total, 0)])
            found["s until it has claimed them, and all are known"] = max(known) - begun
        finally:
            for worker in workers:
                worker.kill()
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--requests", type=int, default=3000, help="of each kind (%(default)s)")
    parser.add_argument("--identities", type=int, default=100_000, help="claimed (%(default)s); 0 for none")
    options = parser.parse_args()
    results: dict[str, list[float]] = {}
    misses = 0
    for _ in range(options.rounds):
        times = measure_latency(options.requests)
        show_latency(times)
        for name, values in times.items():
            results.setdefault(f"{name}, median, s", []).append(median(values))
            results.setdefault(f"{name}, p99, s", []).append(sorted(values)[int(0.99 * len(values))])
        misses += median(times["cluster.request"]) > GOAL * median(times["plain NATS request"])
        if options.identities:
            found = measure_claims(options.identities)
            rows = [(name, f"{value:,.0f}" if value > 100 else f"{value:.2f}") for name, value in found.items()]
            show(f"{options.identities:,} identities of {WORKERS} workers, lease {LEASE:.0f} s", ("", ""), rows)
            for name, value in found.items():
                results.setdefault(name, []).append(value)
    save(options.json, "cluster", "see the names", results)
    if misses:
        sys.exit(f"cluster.request took more than {GOAL} times a plain request")


if __name__ == "__main__":
    main()
