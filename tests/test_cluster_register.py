"""The register without a broker: what it decides, what it puts into words, and a cluster with a seed."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import packetcore_cluster
from packetcore import LocalProtocolError
from packetcore_cluster import ClaimLost, IdentityTakenElsewhere, Refused, Replaced, WorkerLost, _presence
from packetcore_cluster._broker import without_user
from packetcore_cluster._calls import (
    Call,
    GivenUp,
    Outcome,
    answer_bytes,
    answer_from,
    call_bytes,
    call_from,
    cast_bytes,
    cast_from,
    given_up_bytes,
)
from packetcore_cluster._directory import Directory, Place
from packetcore_cluster._entries import YEARS, Beat, Entry, beat_bytes, beat_from, entry_bytes, entry_from
from packetcore_cluster._keys import MAX_KEY, identity_of, key_of
from packetcore_cluster._location import locations
from packetcore_cluster._operations import Delete, Ending, Operation, Put, Read, Watch
from packetcore_cluster._presence import Presence
from packetcore_cluster._register import Register
from packetcore_cluster._timing import Steady, Timing
from tests.cluster_simulation import World

SEEDS = 150
"""Some two seconds; `python -m tests.cluster_simulation` runs more."""

LEASE = 8.0
METER = key_of("meter 7")
OTHER = entry_bytes(Entry("other", 5, 1.0))
BEAT = beat_bytes(Beat(LEASE, 1, "a machine"))

SOURCES = sorted(Path(packetcore_cluster.__file__).parent.glob("_*.py"))
OTHERS = ("background", "broker", "bucket", "cluster", "home", "log", "member", "node", "threaded")
WITH_A_RUNTIME = {f"_{name}.py" for name in OTHERS}
DECIDING = [path for path in SOURCES if path.name not in WITH_A_RUNTIME]
FORBIDDEN = {"asyncio", "nats", "os", "random", "secrets", "socket", "threading", "time", "logging"}


class Rig:
    """A register that a test tells what a broker would."""

    def __init__(self, worker: str = "me") -> None:
        self.now = 100.0
        self.register = Register(worker, Timing(lease=LEASE), self.now)
        self.revision = 0
        self.deleted: list[str] = []

    def connect(self, *, bucket: str = "b", last: int | None = None, entries: dict[str, bytes] | None = None) -> None:
        self.register.connected(self.now)
        (watch,) = self.register.operations(10)
        assert isinstance(watch, Watch)
        self.watch = watch
        self.register.watching(watch, bucket, self.revision if last is None else last, self.now)
        for key, value in (entries or {}).items():
            self.tell(key, value)
        self.register.synced(watch, self.now)
        self.take_beat()

    def take_beat(self) -> None:
        for operation in self.register.operations(10):
            assert isinstance(operation, Put)
            assert operation.key == "w.me"
            self.revision += 1
            self.register.done(operation, self.revision, self.now)

    def tell(self, key: str, value: bytes | None) -> int:
        """The watch tells of a change. Gives its revision."""
        self.revision += 1
        self.register.entry(self.watch, key, self.revision, value, self.now)
        return self.revision

    def claim(self, session: int = 1, takeover: str = "replace") -> None:
        self.register.claim(METER, session, 1.0, "reject" if takeover == "reject" else "replace", self.now)

    def asked(self) -> list[Operation]:
        return self.register.operations(10)

    def take(self) -> Put | Delete:
        """The broker does the one thing that it is asked."""
        (operation,) = self.asked()
        assert isinstance(operation, Put | Delete)
        self.revision += 1
        self.register.done(operation, self.revision, self.now)
        return operation

    def wait(self, seconds: float, *, beats_are_taken: bool = True) -> None:
        """Time passes, and the register is asked when it wants to be."""
        end = self.now + seconds
        while self.register.next_deadline() <= end:
            self.now = self.register.next_deadline()
            self.register.tick(self.now)
            assert self.register.next_deadline() > self.now
            for operation in self.asked():
                assert isinstance(operation, Put | Delete)
                if isinstance(operation, Delete):
                    self.deleted.append(operation.key)
                elif beats_are_taken:
                    self.register.done(operation, self.tell(operation.key, operation.value), self.now)
                else:
                    self.register.failed(operation, self.now)
        self.now = end


def placed(operation: Operation, session: int) -> bool:
    return isinstance(operation, Put) and entry_from(operation.value) == Entry("me", session, 1.0)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_after_trouble_each_identity_has_one_holder_whom_all_know(seed: int) -> None:
    World(seed).run()


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.name not in WITH_A_RUNTIME], ids=lambda path: path.name
)
def test_what_decides_has_no_clock_no_socket_and_no_chance(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert not {name.partition(".")[0] for name in names} & FORBIDDEN


def test_a_claim_is_put_where_nothing_stands_and_deleted_when_it_is_released() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    assert rig.register.pending == 1
    put = rig.take()
    assert placed(put, 1)
    assert (put.key, put.expected) == (METER, 0)
    assert (rig.register.pending, rig.register.claims) == (0, 1)
    assert rig.asked() == []
    rig.register.release(METER, 1, rig.now)
    delete = rig.take()
    assert isinstance(delete, Delete)
    assert delete.expected == rig.revision - 1
    rig.claim(2)
    assert rig.take().expected == rig.revision - 1  # of the deletion, which is still there
    assert rig.register.events()[1:] == []


def test_who_finds_anothers_entry_in_place_of_its_own_has_lost_and_does_not_take_it_back() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    rig.take()
    rig.tell(METER, OTHER)
    assert rig.register.endings() == [Ending(METER, 1, "replaced")]
    assert rig.register.events()[-1] == Replaced("meter 7", 1, "other")
    assert rig.asked() == []
    rig.register.release(METER, 1, rig.now)
    assert rig.asked() == []


def test_a_claim_that_comes_second_takes_over_from_the_first() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    (put,) = rig.asked()
    assert isinstance(put, Put)
    revision = rig.tell(METER, OTHER)  # which was there a moment before
    rig.register.conflicted(put, rig.now)
    (read,) = rig.asked()
    assert isinstance(read, Read)
    rig.register.read(read, revision, OTHER, rig.now)
    again = rig.take()
    assert placed(again, 1)
    assert again.expected == revision
    assert rig.register.endings() == []


def test_a_claim_with_reject_that_comes_second_is_refused() -> None:
    rig = Rig()
    rig.connect()
    rig.claim(takeover="reject")
    (put,) = rig.asked()
    assert isinstance(put, Put)
    rig.tell(METER, OTHER)
    rig.register.conflicted(put, rig.now)
    assert rig.register.endings() == [Ending(METER, 1, "refused")]
    assert rig.register.events()[-1] == Refused("meter 7", 1, "other")
    with pytest.raises(IdentityTakenElsewhere, match="'meter 7' is held by session 5 of worker other"):
        rig.register.check(METER, "reject")
    rig.register.check(METER, "replace")


def test_a_claim_made_without_a_broker_takes_over_what_was_known_and_gives_way_to_what_came_since() -> None:
    for is_newer in (False, True):
        rig = Rig()
        rig.connect()
        known = rig.tell(METER, OTHER)
        rig.register.disconnected(rig.now)
        rig.claim()
        assert rig.asked() == []
        if is_newer:
            rig.register.connected(rig.now)
            (watch,) = rig.asked()
            assert isinstance(watch, Watch)
            rig.register.watching(watch, "b", known + 1, rig.now)
            rig.register.entry(watch, METER, known + 1, OTHER, rig.now)
            rig.register.synced(watch, rig.now)
            assert rig.register.endings() == [Ending(METER, 1, "replaced")]
        else:
            rig.register.connected(rig.now)
            (watch,) = rig.asked()
            assert isinstance(watch, Watch)
            rig.register.watching(watch, "b", known, rig.now)
            rig.register.entry(watch, METER, known, OTHER, rig.now)
            rig.register.synced(watch, rig.now)
            assert [each.expected for each in rig.asked() if placed(each, 1) and isinstance(each, Put)] == [known]


def test_a_bucket_that_has_lost_everything_is_filled_again() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    rig.take()
    rig.register.disconnected(rig.now)
    rig.register.connected(rig.now)
    (watch,) = rig.asked()
    assert isinstance(watch, Watch)
    rig.register.watching(watch, "another", 0, rig.now)
    rig.register.synced(watch, rig.now)
    beat, put = rig.asked()
    assert placed(put, 1)
    assert isinstance(put, Put)
    assert put.expected == 0
    assert isinstance(beat, Put)


def test_an_entry_in_doubt_is_recognised_and_one_of_nobody_is_removed() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    (put,) = rig.asked()
    assert isinstance(put, Put)
    rig.register.disconnected(rig.now)  # was it done?
    rig.register.connected(rig.now)
    (watch,) = rig.asked()
    assert isinstance(watch, Watch)
    rig.register.watching(watch, "b", 9, rig.now)
    rig.register.entry(watch, METER, 9, put.value, rig.now)
    rig.register.entry(watch, key_of("meter 8"), 10, put.value, rig.now)
    rig.register.synced(watch, rig.now)
    rig.register.done(put, 9, rig.now)  # of the connection before: nobody listens
    assert rig.register.pending == 0
    _, delete = rig.asked()
    assert isinstance(delete, Delete)
    assert (delete.key, delete.expected) == (key_of("meter 8"), 10)


def test_an_operation_of_which_nothing_is_heard_is_looked_into_later() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    (put,) = rig.asked()
    rig.register.failed(put, rig.now)
    assert rig.asked() == []
    assert not rig.register.is_settled
    rig.now += 1.0
    rig.register.tick(rig.now)
    read = next(each for each in rig.asked() if isinstance(each, Read))
    rig.register.read(read, 0, None, rig.now)
    assert placed(rig.take(), 1)
    assert rig.register.is_settled


def test_a_worker_that_is_silent_for_its_lease_is_dead_and_its_entries_are_removed_by_one() -> None:
    for is_janitor in (True, False):
        rig = Rig()
        rig.connect(entries={"w.other": BEAT, METER: OTHER, **({} if is_janitor else {"w.living": BEAT})})
        assert rig.register.place(METER) is not None
        for _ in range(9):
            rig.wait(LEASE / 8)
            if not is_janitor:
                rig.tell("w.living", BEAT)  # which comes first by name
        assert WorkerLost("other", 1) in rig.register.events()
        assert rig.register.place(METER) is None
        assert rig.deleted == ([METER, "w.other"] if is_janitor else [])
        rig.register.tick(rig.now)


def test_of_dead_workers_a_bounded_number_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_presence, "MAX_DEAD", 2)
    presence = Presence(LEASE)
    for number in range(3):
        presence.heard(f"w{number}", LEASE, "", 0.0)
        assert presence.left(f"w{number}")
    assert [presence.is_dead(f"w{number}") for number in range(3)] == [False, True, True]
    presence.named("w0", 1.0)  # by an entry that it has left
    assert presence.expire(1.0 + LEASE) == ["w0"]


def test_silence_that_may_be_ones_own_proves_nothing() -> None:
    rig = Rig()
    rig.connect(entries={"w.other": BEAT, METER: OTHER})
    rig.now += 100 * LEASE  # this process was paused, or the clock stepped
    rig.register.tick(rig.now)
    assert rig.register.place(METER) is not None
    rig.wait(3 * LEASE, beats_are_taken=False)  # the broker takes nothing, of others neither
    assert rig.register.place(METER) is not None
    rig.wait(2 * LEASE)
    assert rig.register.place(METER) is None


def test_a_claim_that_was_deleted_is_made_again_and_gives_way_to_another() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    rig.take()
    revision = rig.tell(METER, None)  # others took this worker for dead
    assert rig.register.events()[-1] == ClaimLost("meter 7", 1)
    (put,) = rig.asked()
    assert isinstance(put, Put)
    assert put.expected == revision
    rig.tell(METER, OTHER)
    rig.register.conflicted(put, rig.now)
    assert rig.register.endings() == [Ending(METER, 1, "replaced")]


def test_a_watch_that_tells_nothing_while_signs_of_life_are_taken_begins_anew() -> None:
    rig = Rig()
    rig.connect()
    end = rig.now + 2 * LEASE
    while rig.now < end:
        rig.now = rig.register.next_deadline()
        rig.register.tick(rig.now)
        for operation in rig.asked():
            if isinstance(operation, Watch):
                assert operation is not rig.watch
                return
            assert isinstance(operation, Put)
            rig.register.done(operation, 99, rig.now)
    raise AssertionError("it still believes the watch")


def test_who_leaves_gives_up_all_and_says_goodbye_last() -> None:
    rig = Rig()
    rig.connect()
    rig.claim()
    rig.take()
    rig.register.leave(rig.now)
    assert rig.take().key == METER
    goodbye = rig.take()
    assert isinstance(goodbye, Delete)
    assert goodbye.key == "w.me"
    assert rig.register.has_left


def test_what_others_write_into_the_bucket_harms_nobody() -> None:
    rig = Rig()
    rig.connect(entries={METER: b"not ours", "w.other": b"[]", "s.=ZZ": OTHER, "x": b"", "w.third": b'{"lease":0}'})
    rig.claim()
    assert placed(rig.take(), 1)
    assert [key for key, place in rig.register.places() if place.worker == "me"] == [METER]


@pytest.mark.parametrize("since", [1e300, float("inf"), float("nan"), YEARS[1], YEARS[0] - 1])
def test_an_entry_of_a_time_that_is_none_is_nobodys(since: float) -> None:
    assert entry_from(entry_bytes(Entry("other", 5, since))) is None
    earliest, latest = (Entry("other", 5, since) for since in (YEARS[0], YEARS[1] - 1))
    for entry in (earliest, latest):
        assert entry_from(entry_bytes(entry)) == entry
        (place,) = locations([(METER, Place(1, *entry))])
        assert place.since.year in (1, 9999)


def test_a_clock_that_steps_is_time_that_passes() -> None:
    steady = Steady(1000.0)
    assert steady.advance(1001.0) == 1.0
    assert steady.advance(1.0) == 0.0
    assert steady.advance(2.0) == 1.0
    assert steady.now == 2.0
    assert steady.shown_at(5.0) == 5.0


IDENTITIES = (
    st.text(max_size=20) | st.integers() | st.binary(max_size=20) | st.sampled_from(["10.0.0.1", "a..b", ".", "="])
)


@given(IDENTITIES, IDENTITIES)
def test_an_identity_has_one_key_and_each_its_own(one: str | int | bytes, two: str | int | bytes) -> None:
    key = key_of(one)
    assert identity_of(key) == one
    assert type(identity_of(key)) is type(one)
    assert (key == key_of(two)) == (one == two and type(one) is type(two))
    assert all(key.split("."))
    assert all(letter.isascii() and (letter.isalnum() or letter in "-/_=.") for letter in key)


def test_an_identity_that_others_could_not_know_is_refused() -> None:
    for wrong in (("meter", 7), 1.5, object()):
        with pytest.raises(TypeError, match="must be str, int or bytes"):
            key_of(wrong)
    with pytest.raises(ValueError, match=f"exceeds {MAX_KEY}"):
        key_of("x" * MAX_KEY)
    for key in ("", "s", "x.y", "s."):
        with pytest.raises(ValueError, match="is of no identity"):
            identity_of(key)


@given(st.binary(max_size=60))
def test_bytes_of_nobody_are_no_message(data: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [call_from, cast_from, answer_from]
    for parse in parsers:
        with suppress(ValueError):
            parse(data)
    assert entry_from(data) is None or json.loads(data)
    assert beat_from(data) is None or json.loads(data)


@given(st.text("abc.=", max_size=20), st.binary(max_size=20), st.booleans(), st.none() | st.floats(0, 1e9))
def test_messages_arrive_as_they_were(key: str, packet: bytes, is_request: bool, timeout: float | None) -> None:
    call = Call(key, packet, is_request, timeout)
    assert call_from(call_bytes(call)) == call
    assert call_from(given_up_bytes(key)) == GivenUp(key)
    assert cast_from(cast_bytes(key, packet)) == (key, packet)
    for outcome in Outcome:
        assert answer_from(answer_bytes(outcome, packet)) == (outcome, packet)


def test_the_copy_of_the_directory_believes_the_higher_revision_and_what_was_read() -> None:
    directory = Directory()
    entry = Entry("other", 5, 1.0)
    assert directory.learn(METER, 7, entry)
    assert not directory.learn(METER, 6, None)
    assert directory.revision(METER) == 7
    directory.begin()
    assert directory.get(METER) is not None  # until all was told
    assert directory.learn(METER, 3, None)  # revisions of another bucket, perhaps
    assert directory.get(METER) is None
    directory.whole()
    directory.correct(METER, 0, None)
    assert directory.revision(METER) == 0


def test_timing_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="lease=0 must be above 0"):
        Timing(lease=0)
    assert issubclass(IdentityTakenElsewhere, LocalProtocolError)


@pytest.mark.parametrize("user", ["", "gateway:secret@", "token@", "gateway:a/b@c://d@"])
@pytest.mark.parametrize("scheme", ["", "nats://", "tls://"])
def test_what_is_told_of_a_broker_is_without_its_password(scheme: str, user: str) -> None:
    assert without_user(f"{scheme}{user}127.0.0.1:4222") == f"{scheme}127.0.0.1:4222"
