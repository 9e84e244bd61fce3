"""The order of a pool in C beside that in Python: random operations that both have to take alike."""

from __future__ import annotations

import random
from typing import Any

from packetcore import _speedups as speedups
from packetcore._order import Entry, Order


class Twins:
    """Both orders, with the same entries in them."""

    def __init__(self) -> None:
        make: Any = speedups.Order
        self.c: Any = make()
        self.python: Order[int] = Order()
        self.ids: list[int] = []
        self.last_id = 0

    def both(self, method: str, *arguments: object) -> Any:
        """Call a method of both. Returns what they give, which is the same."""
        given = getattr(self.c, method)(*arguments)
        expected = getattr(self.python, method)(*arguments)
        assert given == expected, method
        return expected

    def put(self, now: float) -> None:
        """Add an entry, which has to get the next id."""
        self.last_id += 1
        assert self.both("_put", Entry(self.last_id, None), now) == self.last_id
        self.ids.append(self.last_id)

    def take(self, id: int) -> None:
        """Let an entry go."""
        entry = self.both("_take", id)
        assert (entry is not None) == (id in self.ids)
        if entry is not None:
            self.ids.remove(id)

    def check(self, rng: random.Random) -> None:
        """Compare all that can be seen."""
        assert [entry.session for entry in self.both("_entries")] == self.by_time()
        self.both("_first")
        self.both("_since")
        self.both("__len__")
        for id in [*rng.choices(range(-1, self.last_id + 3), k=20), *self.ids[:20]]:
            self.both("__contains__", id)
            self.both("refreshed", id)
            self.both("_entry", id)

    def by_time(self) -> list[int]:
        """The ids, which stand in the entries."""
        ids = [entry.session for entry in self.python._entries()]
        assert sorted(ids) == sorted(self.ids)
        return ids


def compare(seed: int) -> None:
    """Let both grow and shrink, with ids far apart and side by side: in all ways to be in a table."""
    rng = random.Random(seed)
    twins = Twins()
    now = 0.0
    for _ in range(rng.randrange(1, 8)):
        stay = rng.choice([1, 2, 4, 32, 64, 1_000])
        way = rng.randrange(4)
        for _ in range(rng.choice([3, 30, 300])):
            now += rng.choice([0.0, 0.5, -3.0, 1.0])
            if way == 0 or (way == 1 and len(twins.ids) < 300):  # it grows
                twins.put(now)
            elif way == 1:  # those that came long ago stay, the others come and go
                twins.put(now)
                twins.take(twins.ids[-rng.randrange(1, 100)])
            elif way == 2 and twins.ids:  # of those side by side one of so many stays
                id = rng.choice(twins.ids)
                if id % stay:
                    twins.take(id)
            else:
                last = twins.both("_advance", now)
                entry = twins.both("_take_silent", rng.choice([1.0, 20.0, 100.0]), last)
                if entry is not None:
                    twins.ids.remove(entry.session)
            for _ in range(rng.randrange(3)):
                twins.both("refresh", rng.choice(twins.ids or [5]) + rng.choice([0, 0, 0, 1, stay]), now)
        twins.check(rng)
