"""What a `SessionPool` costs at 1,000, 300,000 and a million sessions, in nanoseconds a session.

Every operation is O(1), so what remains of a difference is the memory: 300,000 sessions
do not fit into a processor's cache. Refreshing them in the order in which they were added
walks through memory and shows the bookkeeping alone; a random order adds a cache miss or
several to each, whatever the pool does: it is drawn anew in each round.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from statistics import median
from time import perf_counter

from _common import arguments, interleave, save, show

from packetcore import SessionPool

SIZES = (1_000, 300_000, 1_000_000)
GOALS = {"refresh, at random": 250}
"""What is to be reached at the largest size, in nanoseconds."""
BATCH = 1_000
"""Sessions added together, and so expiring together."""
BATCHES = 10
"""How many of them one measurement of expiry, adding or removing takes."""
REFRESHES = 100_000
HOSTS = 1_000


class BenchmarkedPool:
    """A pool of fixed size. Every time unit the oldest batch can be replaced by a new one."""

    def __init__(self, size: int) -> None:
        self._random = random.Random(size)
        self._now = 0.0
        self.pool: SessionPool[object] = SessionPool(size / BATCH, max_sessions=size, max_per_host=size)
        self._hosts = [f"10.0.{host // 256}.{host % 256}" for host in range(HOSTS)]
        self.ids: list[int] = []
        for batch in range(size // BATCH):
            self._now = float(batch)
            self.add()

    def add(self) -> float:
        """Seconds that adding a batch takes."""
        add, now, session, ids, hosts = self.pool.add, self._now, object(), self.ids, self._hosts
        begin = perf_counter()
        for index in range(BATCH):
            ids.append(add(session, now, host=hosts[index]))
        return perf_counter() - begin

    def expire(self) -> float:
        """Seconds that expiring the oldest batch takes."""
        self._now += 1.0
        begin = perf_counter()
        expired = self.pool.expire(self._now)
        elapsed = perf_counter() - begin
        assert len(expired) == BATCH
        del self.ids[:BATCH]
        return elapsed

    def remove(self) -> float:
        """Seconds that removing a batch of random sessions takes."""
        ids, remove = self.ids, self.pool.remove
        ids_removed = []
        for _ in range(BATCH):
            index = self._random.randrange(len(ids))
            ids[index], ids[-1] = ids[-1], ids[index]
            ids_removed.append(ids.pop())
        begin = perf_counter()
        for id in ids_removed:
            remove(id)
        return perf_counter() - begin

    def refresh(self, ids: list[int]) -> float:
        """Seconds that refreshing these sessions takes."""
        refresh, now = self.pool.refresh, self._now
        begin = perf_counter()
        for id in ids:
            refresh(id, now)
        return perf_counter() - begin


def cases_of(size: int) -> dict[str, Callable[[], float]]:
    """What is measured at one size. A random order leaves neighbours in the pool far apart in
    memory, and others would pay for it: so what goes at random has a pool of its own, and what
    expires another, whose times nobody changes."""
    in_order, at_random, expiring = (BenchmarkedPool(size) for _ in range(3))
    order = (in_order.ids * (REFRESHES // size + 1))[: max(REFRESHES, size)]
    draw = random.Random(0)

    def refresh_at_random() -> float:
        disorder = draw.choices(at_random.ids, k=REFRESHES)
        return at_random.refresh(disorder) / len(disorder) * 1e9

    def expire() -> float:
        elapsed = 0.0
        for _ in range(BATCHES):
            elapsed += expiring.expire()
            expiring.add()
        return elapsed / BATCHES / BATCH * 1e9

    def remove() -> float:
        elapsed = 0.0
        for _ in range(BATCHES):
            elapsed += at_random.remove()
            at_random.add()
        return elapsed / BATCHES / BATCH * 1e9

    def add() -> float:
        elapsed = 0.0
        for _ in range(BATCHES):
            expiring.expire()
            elapsed += expiring.add()
        return elapsed / BATCHES / BATCH * 1e9

    def idle() -> float:
        begin = perf_counter()
        for _ in range(BATCH):
            in_order.pool.expire(0.0)
        return (perf_counter() - begin) / BATCH * 1e9

    return {
        f"refresh, in order {size}": lambda: in_order.refresh(order) / len(order) * 1e9,
        f"refresh, at random {size}": refresh_at_random,
        f"expire {size}": expire,
        f"expire, none is due {size}": idle,
        f"add {size}": add,
        f"remove, at random {size}": remove,
    }


def main() -> None:
    options = arguments(__doc__, rounds=20).parse_args()
    cases: dict[str, Callable[[], float]] = {}
    for size in SIZES:
        cases |= cases_of(size)
    # The collector would walk through millions of entries in the midst of whatever is measured.
    gc.collect()
    gc.freeze()
    results = interleave(cases, options.rounds)
    rows = []
    for operation in [name.removesuffix(f" {SIZES[0]}") for name in results if name.endswith(f" {SIZES[0]}")]:
        at_size = [results[f"{operation} {size}"] for size in SIZES]
        figures = [f"{median(values):,.0f} ({min(values):,.0f})" for values in at_size]
        goal = f"under {GOALS[operation]}" if operation in GOALS else ""
        rows.append((operation, *figures, f"{median(at_size[-1]) / median(at_size[0]):.2f} x", goal))
    show(
        "SessionPool by how many sessions it holds, nanoseconds a session: median (best)",
        ("operation", *(f"{size:,}" for size in SIZES), "last by first", "goal"),
        rows,
    )
    save(options.json, "pool", "nanoseconds per session", results)


if __name__ == "__main__":
    main()
