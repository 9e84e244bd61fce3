"""`FreeIds` against a model: a set of what is taken, that is searched from end to end."""

from __future__ import annotations

import random
from itertools import chain

from packetcore._free_ids import FreeIds

ALL = 65_536


def next_free(taken: set[int], start: int) -> int | None:
    if len(taken) == ALL:
        return None
    return next(id for id in chain(range(start % ALL, ALL), range(start % ALL)) if id not in taken)


def test_it_goes_round_all_ids_and_skips_those_that_are_taken() -> None:
    for seed in range(20):
        chance, ids, taken, start = random.Random(seed), FreeIds(), set[int](), 0
        # Whole blocks are taken in some runs and nearly all ids in others.
        for id in chance.sample(range(ALL), chance.choice([0, 500, ALL - 30])):
            ids.take(id)
            taken.add(id)
        for block in chance.sample(range(256), chance.choice([0, 3, 200])):
            for id in range(block * 256, block * 256 + 256):
                ids.take(id)
                taken.add(id)
        for _ in range(300):
            picked = ids.pick()
            assert picked == next_free(taken, start)
            if picked is not None:
                start = picked + 1
                if chance.random() < 0.5:
                    ids.take(picked)
                    taken.add(picked)
            for _ in range(chance.randrange(3)):
                if taken and chance.random() < 0.4:
                    freed = chance.choice([min(taken), max(taken)])
                    ids.give_back(freed)
                    taken.discard(freed)


def test_an_id_given_back_is_the_last_to_come_again() -> None:
    ids = FreeIds()
    assert [ids.pick() for _ in range(ALL + 1)] == [*range(ALL), 0]


def test_with_one_id_free_it_is_found_and_with_none_that_is_said() -> None:
    ids = FreeIds()
    for id in range(ALL):
        ids.take(id)
    assert ids.pick() is None
    for id in (0, 255, 256, 40_000, 65_535, 3):
        ids.give_back(id)
        assert ids.pick() == ids.pick() == id
        ids.take(id)
        assert ids.pick() is None


def test_ids_that_are_free_take_no_memory() -> None:
    ids = FreeIds()
    for id in range(ALL):
        ids.take(id)
        ids.give_back(id)
        ids.give_back(id)
    assert not ids._blocks
    assert not ids._full


def test_behind_a_full_block_the_next_begins_at_its_first_id() -> None:
    ids = FreeIds()
    for id in range(256):
        ids.take(id)
    assert ids.pick() == 256
    ids.give_back(1000)
    assert 3 not in ids._blocks


def test_behind_the_last_id_the_round_begins_again_at_the_first() -> None:
    ids = FreeIds()
    for id in range(300, ALL):
        ids.take(id)
    assert [ids.pick() for _ in range(301)] == [*range(300), 0]
