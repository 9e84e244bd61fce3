"""`Deadlines` against a model: a dict that is searched from end to end."""

from __future__ import annotations

from weakref import ref

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from packetcore._deadlines import Deadlines

times = st.integers(0, 20).map(float)
keys = st.integers(0, 5)


class DeadlinesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.deadlines: Deadlines[int] = Deadlines()
        self.model: dict[int, float] = {}

    @rule(key=keys, at=times, repeat=st.sampled_from([1, 1, 1, 300]))
    def set(self, key: int, at: float, repeat: int) -> None:
        for _ in range(repeat):
            self.deadlines.set(key, at)
        self.model[key] = at

    @rule(key=keys)
    def discard(self, key: int) -> None:
        self.deadlines.discard(key)
        self.model.pop(key, None)

    @rule(now=times)
    def pop_all_that_is_due(self, now: float) -> None:
        before = float("-inf")
        while (key := self.deadlines.pop_due(now)) is not None:
            at = self.model.pop(key)
            assert before <= at <= now, "the earliest goes first"
            before = at
        assert all(at > now for at in self.model.values())

    @rule(now=times)
    def pop_one(self, now: float) -> None:
        key = self.deadlines.pop_due(now)
        due = [at for at in self.model.values() if at <= now]
        assert (key is None) is (not due)
        if key is not None:
            assert self.model.pop(key) == min(due)

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        assert len(self.deadlines) == len(self.model)
        assert self.deadlines.first() == self.deadlines.first() == min(self.model.values(), default=None)

    @invariant()
    def what_it_keeps_is_bounded_by_what_it_holds(self) -> None:
        assert len(self.deadlines._heap) <= 2 * len(self.model) + 101


TestDeadlines = DeadlinesMachine.TestCase
# A run is many examples in one; to explain a failure would take minutes.
TestDeadlines.settings = settings(max_examples=settings().max_examples // 4, phases=set(Phase) - {Phase.explain})


def test_moving_deadlines_keeps_no_memory_of_where_they_were() -> None:
    deadlines: Deadlines[int] = Deadlines()
    largest = 0
    for n in range(100_000):
        deadlines.set(n % 10, 1_000_000.0 - n)
        largest = max(largest, len(deadlines._heap))
    assert len(deadlines) == 10
    assert deadlines.first() == 1_000_000.0 - 99_999
    assert largest < 200
    for n in range(10, 10_000):
        deadlines.set(n, 5.0)
    for n in range(10_000):
        deadlines.discard(n)
    assert len(deadlines._heap) < 200


def test_those_of_one_time_come_in_the_order_in_which_they_were_set() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for key in "cab":
        deadlines.set(key, 5.0)
    deadlines.set("c", 5.0)  # again: it is the last now
    assert [deadlines.pop_due(5.0) for _ in range(4)] == ["a", "b", "c", None]


def test_keys_need_no_order_of_their_own() -> None:
    deadlines: Deadlines[object] = Deadlines()
    one, other = object(), object()
    deadlines.set(one, 1.0)
    deadlines.set(other, 1.0)
    assert [deadlines.pop_due(1.0), deadlines.pop_due(1.0)] == [one, other]


def test_a_key_whose_deadline_was_called_off_is_let_go() -> None:
    class Key:
        pass

    deadlines: Deadlines[Key] = Deadlines()
    key = Key()
    deadlines.set(key, 1.0)
    deadlines.discard(key)
    last = ref(key)
    del key
    assert last() is None
