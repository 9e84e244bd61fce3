"""How long a client waits before it tries again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Backoff, Redial


def waits(backoff: Backoff, chance: float, tries: int) -> list[float]:
    redial = Redial(backoff, lambda: chance)
    return [redial.lost(float(now)) for now in range(tries)]


def test_the_wait_doubles_up_to_the_maximum_and_stays_there() -> None:
    assert waits(Backoff(initial=0.5, maximum=3, jitter=0), 0.9, 6) == [0.5, 1, 2, 3, 3, 3]
    assert waits(Backoff(initial=1, maximum=100, factor=10, jitter=0), 0.9, 4) == [1, 10, 100, 100]
    assert waits(Backoff(initial=1, factor=1, jitter=0), 0.9, 3) == [1, 1, 1]


def test_chance_takes_the_jitter_s_part_of_a_wait_and_adds_nothing() -> None:
    assert waits(Backoff(initial=8, maximum=8, jitter=0.25), 0.5, 1) == [7]
    assert waits(Backoff(initial=8, maximum=8, jitter=1), 0.75, 1) == [2]
    assert waits(Backoff(initial=8, maximum=8, jitter=1), 0.0, 1) == [8]


@given(
    st.floats(0.01, 100),
    st.floats(1, 100),
    st.floats(1, 10),
    st.floats(0, 1),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=30),
)
def test_no_wait_is_longer_than_the_maximum_or_shorter_than_jitter_allows(
    initial: float, times: float, factor: float, jitter: float, chances: list[float]
) -> None:
    backoff = Backoff(initial=initial, maximum=initial * times, factor=factor, jitter=jitter)
    draws = iter(chances)
    redial = Redial(backoff, lambda: next(draws))
    longest = initial
    for _ in chances:
        wait = redial.lost(0)
        assert longest * (1 - jitter) * 0.999 <= wait <= longest <= backoff.maximum
        longest = min(longest * factor, backoff.maximum)


def test_a_thousand_devices_cut_off_together_do_not_come_back_together() -> None:
    chance = random.Random(7)
    first = [Redial(Backoff(), chance.random).lost(0) for _ in range(1000)]
    in_each_tenth = [sum(0.25 + 0.025 * n <= wait < 0.25 + 0.025 * (n + 1) for wait in first) for n in range(10)]
    assert sum(in_each_tenth) == 1000
    assert max(in_each_tenth) < 200


def test_the_waits_begin_anew_only_after_a_connection_has_stayed_up() -> None:
    redial = Redial(Backoff(initial=1, maximum=8, jitter=0, reset_after=10), lambda: 0.5)
    assert [redial.lost(0), redial.lost(1)] == [1, 2]
    redial.connected(100)
    assert redial.lost(109.9) == 4  # a server that accepts and closes is no better than one that refuses
    redial.connected(200)
    assert redial.lost(210) == 1
    assert redial.lost(500) == 2, "a long time without a connection is not one that stayed up"
    redial.connected(600)
    assert redial.lost(550) == 4, "a clock that stepped back proves nothing"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial", 0),
        ("initial", -1),
        ("initial", 61),
        ("maximum", 0.1),
        ("factor", 0.99),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("reset_after", -1),
        *((name, float("nan")) for name in ("initial", "maximum", "factor", "jitter", "reset_after")),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value}"):
        Backoff(**{name: value})


def test_any_connection_may_count_as_one_that_stayed_up() -> None:
    redial = Redial(Backoff(initial=1, jitter=0, reset_after=0), lambda: 0.5)
    assert [redial.lost(0), redial.lost(1)] == [1, 2]
    redial.connected(3)
    assert redial.lost(3) == 1
