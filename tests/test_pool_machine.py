"""`SessionPool` against a model: a list of records that is searched from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from packetcore import IdentityTaken, LocalProtocolError, PoolFull, SessionPool


@dataclass
class Record:
    id: int
    session: object
    host: str | None
    refreshed: float
    identity: str | None = None


steps = st.integers(-40, 80).map(lambda n: n / 4)
"""How far the clock goes before an operation, in seconds; it may go back."""

caps = st.none() | st.integers(1, 5)
any_id = st.integers(0, 12)
identities = st.sampled_from(["red", "green", "blue"])


class PoolMachine(RuleBasedStateMachine):
    """The model keeps its records in the order of their last refresh."""

    @initialize(timeout=st.none() | st.sampled_from([1.0, 10.0]), max_sessions=caps, max_per_host=caps, now=steps)
    def make(self, timeout: float | None, max_sessions: int | None, max_per_host: int | None, now: float) -> None:
        self.timeout, self.max_sessions, self.max_per_host = timeout, max_sessions, max_per_host
        self.pool: SessionPool[object] = SessionPool(timeout, max_sessions=max_sessions, max_per_host=max_per_host)
        self.records: list[Record] = []
        self.last_id = 0
        self.clock = now
        self.latest = float("-inf")

    def at(self, step: float) -> float:
        self.clock += step
        return self.clock

    def record(self, id: int) -> Record | None:
        return next((record for record in self.records if record.id == id), None)

    def holder(self, identity: str) -> Record | None:
        return next((record for record in self.records if record.identity == identity), None)

    def count(self, now: float) -> float:
        self.latest = max(self.latest, now)
        return self.latest

    @rule(step=steps, host=st.sampled_from([None, "a", "b"]))
    def add(self, step: float, host: str | None) -> None:
        now = self.at(step)
        session = object()
        full = self.max_sessions is not None and len(self.records) >= self.max_sessions
        if host is not None and self.max_per_host is not None:
            full |= sum(record.host == host for record in self.records) >= self.max_per_host
        if full:
            with pytest.raises(PoolFull):
                self.pool.add(session, now, host=host)
            return
        self.last_id += 1
        assert self.pool.add(session, now, host=host) == self.last_id
        self.records.append(Record(self.last_id, session, host, self.count(now)))

    @rule(step=steps, id=any_id)
    def refresh(self, step: float, id: int) -> None:
        now = self.at(step)
        record = self.record(id)
        assert self.pool.refresh(id, now) is (record is not None)
        if record is not None:
            record.refreshed = self.count(now)
            self.records.remove(record)
            self.records.append(record)

    @rule(id=any_id)
    def remove(self, id: int) -> None:
        record = self.record(id)
        assert self.pool.remove(id) is (None if record is None else record.session)
        if record is not None:
            self.records.remove(record)

    @rule(id=any_id)
    def unbind(self, id: int) -> None:
        record = self.record(id)
        assert self.pool.unbind(id) == (None if record is None else record.identity)
        if record is not None:
            record.identity = None

    @rule(id=any_id, identity=identities, takeover=st.sampled_from(["replace", "reject"]))
    def bind(self, id: int, identity: str, takeover: Literal["replace", "reject"]) -> None:
        record, holder = self.record(id), self.holder(identity)
        if record is None:
            with pytest.raises(LocalProtocolError):
                self.pool.bind(id, identity, takeover)
        elif holder is None or holder is record:
            assert self.pool.bind(id, identity, takeover) is None
            record.identity = identity
        elif takeover == "reject":
            with pytest.raises(IdentityTaken) as caught:
                self.pool.bind(id, identity, takeover)
            assert (caught.value.identity, caught.value.holder) == (identity, holder.id)
        else:
            assert self.pool.bind(id, identity, takeover) is holder.session
            holder.identity, record.identity = None, identity

    @rule(step=steps)
    def expire(self, step: float) -> None:
        now = self.at(step)
        expired = self.pool.expire(now)
        self.count(now)
        over = [
            record
            for record in self.records
            if self.timeout is not None and record.refreshed + self.timeout <= self.latest
        ]
        assert expired == [record.session for record in over]
        self.records = [record for record in self.records if record not in over]
        deadline = self.pool.next_deadline()
        assert deadline is None or deadline > self.latest

    @rule(early=st.sampled_from([0.25, 0.0]))
    def expire_just_then(self, early: float) -> None:
        deadline = self.pool.next_deadline()
        if deadline is not None:
            self.expire(deadline - early - self.clock)

    @invariant()
    def it_holds_what_the_model_holds_in_its_order(self) -> None:
        assert list(self.pool) == [record.session for record in self.records]
        assert len(self.pool) == len(self.records)
        assert self.pool.oldest() is (self.records[0].session if self.records else None)

    @invariant()
    def the_next_deadline_is_the_first_and_asking_changes_nothing(self) -> None:
        times = [record.refreshed + self.timeout for record in self.records if self.timeout is not None]
        assert self.pool.next_deadline() == self.pool.next_deadline() == min(times, default=None)

    @invariant()
    def ids_and_identities_find_what_they_should(self) -> None:
        for id in range(self.last_id + 2):
            record = self.record(id)
            assert (id in self.pool) is (record is not None)
            assert self.pool.get(id) is (None if record is None else record.session)
            assert self.pool.identity(id) == (None if record is None else record.identity)
            assert self.pool.refreshed(id) == (None if record is None else record.refreshed)
        for identity in ("red", "green", "blue"):
            holder = self.holder(identity)
            assert self.pool.find(identity) is (None if holder is None else holder.session)


TestSessionPool = PoolMachine.TestCase
# A run is many examples in one; to explain a failure would take minutes.
TestSessionPool.settings = settings(max_examples=settings().max_examples // 2, phases=set(Phase) - {Phase.explain})
