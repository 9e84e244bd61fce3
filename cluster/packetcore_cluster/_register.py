"""The register: which session of which worker holds an identity, decided without a socket or a clock.

Each worker has one. It knows the claims of its own sessions, a copy of the directory, and which
workers live; from these it says what to ask of the broker (`operations`), which sessions have to end
(`endings`) and what happened (`events`). The broker's order of revisions is the only order there is:
an entry replaces another only by naming the revision that it replaces, so that of two workers that
claim at once one is told that it came second.

Who holds an identity when claims meet:

1. A claim made while the broker is there takes the identity over from any other, in the order in
   which the broker takes them. With takeover "reject" it gives way to any worker that lives.
2. A claim that could not be made at once, for want of a broker, or that was lost there, is made when
   that is possible. It takes over what was known here when the session was bound, and gives way to
   what others claimed since.
3. Who finds another's entry in place of its own has lost it, and ends its session. It never takes
   it back.

So an entry's worker is the holder, once it has heard of its entry and the others of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator

from packetcore_cluster._agenda import Agenda
from packetcore_cluster._directory import Directory, Place
from packetcore_cluster._entries import Beat, Entry, beat_bytes, beat_from, entry_bytes, entry_from
from packetcore_cluster._errors import IdentityTakenElsewhere
from packetcore_cluster._events import (
    BrokerLost,
    BrokerReached,
    ClaimLost,
    ClusterEvent,
    Refused,
    Replaced,
    WorkerLeft,
    WorkerLost,
    WorkerSeen,
)
from packetcore_cluster._keys import WORKER, identity_of
from packetcore_cluster._operations import Delete, Ending, Operation, Put, Read, Takeover, Watch
from packetcore_cluster._presence import Presence
from packetcore_cluster._timing import Steady, Timing

_GRAIN = 1e-3
"""Seconds by which a deadline may be met early: clocks that count from 1970 do not show much less."""


class _Claim:
    """What a session of this worker holds, or wants to."""

    __slots__ = ("known", "link", "session", "since", "takeover", "was_held")

    def __init__(self, session: int, since: float, takeover: Takeover, known: int, link: int) -> None:
        self.session = session
        self.since = since
        self.takeover = takeover
        self.known = known
        """The last revision that was known here when it was made."""
        self.link = link
        """During which connection with the broker it was made and not yet taken; 0 for none."""
        self.was_held = False


class Register:
    """One worker's part of the cluster. Times are seconds of any clock, which may step.

    Args:
        worker: its name, never used before.
        timing: how long things take at most.
        now: the time.
        about: what the worker says of itself, for people.
    """

    def __init__(self, worker: str, timing: Timing, now: float, about: str = "") -> None:
        self.worker = worker
        self.directory = Directory()
        self.presence = Presence(timing.lease)
        self.is_connected = False
        """Whether the broker can be reached."""
        self.is_synced = False
        """Whether all that stands in the directory is known, and changes are told."""
        self._timing = timing
        self._time = Steady(now)
        self._about = about
        self._own_key = WORKER + worker
        self._claims: dict[str, _Claim] = {}
        self._pending: set[str] = set()  # those of them whose entry is not there
        self._agenda = Agenda()
        self._link = 0
        self._bucket = ""
        self._watch: Watch | None = None
        self._watch_at: float | None = None
        self._is_watch_asked = False
        self._told_at = 0.0  # when the watch last told something
        self._worker_keys: set[str] = set()
        self._beats = 0
        self._beat_at = 0.0
        self._beat_is_due = False
        self._beat_told_at = 0.0
        self._beats_untold = 0
        self._is_leaving = False
        self._has_left = False
        self._endings: list[Ending] = []
        self._events: list[ClusterEvent] = []

    # What the sessions of this worker do.

    def check(self, key: str, takeover: Takeover) -> None:
        """Whether a claim would be refused by what is known now.

        Raises:
            IdentityTakenElsewhere: a session of another worker holds it and `takeover` is "reject".
        """
        place = self.place(key) if takeover == "reject" else None
        if place is not None and place.worker != self.worker:
            raise IdentityTakenElsewhere(identity_of(key), place.session, place.worker)

    def claim(self, key: str, session: int, since: float, takeover: Takeover, now: float) -> None:
        """A session here holds an identity, from whomever it takes it. Whether it may keep it turns
        out later: see `endings`."""
        self._advance(now)
        known = self.directory.last_revision
        self._claims[key] = _Claim(session, since, takeover, known, self._link if self.is_connected else 0)
        self._pending.add(key)
        self._judge(key)

    def release(self, key: str, session: int, now: float) -> None:
        """A session here does not hold an identity any more. Does nothing if another does."""
        self._advance(now)
        claim = self._claims.get(key)
        if claim is not None and claim.session == session:
            self._drop(key)
            self._judge(key)

    def leave(self, now: float) -> None:
        """The worker goes: give up all its claims, and say goodbye."""
        self._advance(now)
        self._is_leaving = True
        self._beat_is_due = False
        for key in [*self._claims]:
            self._drop(key)
            self._judge(key)

    # What there is to know.

    @property
    def claims(self) -> int:
        """How many identities sessions of this worker hold or claim."""
        return len(self._claims)

    @property
    def pending(self) -> int:
        """How many of them the broker has not taken."""
        return len(self._pending)

    @property
    def is_settled(self) -> bool:
        """Whether the broker has all that it is to have."""
        return self.is_synced and self._agenda.is_done(but=self._own_key)

    @property
    def has_left(self) -> bool:
        """Whether all was given up, and the goodbye was taken."""
        return self._has_left

    def place(self, key: str) -> Place | None:
        """Where the session is that holds an identity; `None` if none does on a worker that lives.
        One of this worker counts from when it is bound."""
        claim = self._claims.get(key)
        if claim is not None:
            return Place(0, self.worker, claim.session, claim.since)
        place = self.directory.get(key)
        return place if place is not None and place.worker in self.presence else None

    def places(self) -> Iterator[tuple[str, Place]]:
        """All of them by key; nothing may change meanwhile."""
        for key, claim in self._claims.items():
            yield key, Place(0, self.worker, claim.session, claim.since)
        for key, place in self.directory.items():
            if key not in self._claims and place.worker in self.presence:
                yield key, place

    # What the broker does.

    def connected(self, now: float) -> None:
        """The broker can be reached, at first or again."""
        self._advance(now)
        if self.is_connected:
            self._lose()
        self.is_connected = True
        self._link += 1
        self._ask_watch()

    def disconnected(self, now: float) -> None:
        """The broker cannot be reached: what was asked of it may have been done or not."""
        self._advance(now)
        if self.is_connected:
            self._lose()
            self._events.append(BrokerLost())

    def watching(self, watch: Watch, bucket: str, last_revision: int, now: float) -> None:
        """A watch has begun.

        Args:
            watch: the operation that asked for it.
            bucket: which bucket it is; one made anew has another name.
            last_revision: the last one there.
        """
        self._advance(now)
        if watch is not self._watch:
            return
        if bucket != self._bucket:
            for claim in self._claims.values():
                claim.known = 0
        if bucket != self._bucket or last_revision < self.directory.last_revision:
            self.directory.forget_revisions()
        self._bucket = bucket
        self.directory.begin()
        self.presence.begin()
        self._worker_keys.clear()
        self.presence.excuse(self._time.now)
        self._told_at = self._time.now

    def entry(self, watch: Watch, key: str, revision: int, value: bytes | None, now: float) -> None:
        """A watch tells of a key: its value, or `None` where it was deleted."""
        self._advance(now)
        if watch is self._watch:
            self._told_at = self._time.now
            self._beats_untold = 0
            self._learn(key, revision, value)

    def synced(self, watch: Watch, now: float) -> None:
        """A watch has told all that there was when it began."""
        self._advance(now)
        if watch is not self._watch or self.is_synced:
            return
        self.is_synced = True
        self.directory.whole()
        self._beat_told_at = self._time.now
        self._beat_is_due = not self._is_leaving
        self.presence.excuse(self._time.now)
        repeated = 0
        for key, claim in self._claims.items():
            if self._is_ours(key, claim.session):
                self._held(key, claim)
            else:
                repeated += claim.was_held
                self._pending.add(key)
                self._agenda.look_at(key)
        identities = len(self.directory)
        self._events.append(BrokerReached(identities, len(self.presence), repeated))

    def done(self, operation: Put | Delete, revision: int, now: float) -> None:
        """The broker did what it was asked: by this revision."""
        self._advance(now)
        if not self._agenda.answered(operation):
            return
        if operation.key == self._own_key:
            self._beats_untold += 1
            self._has_left |= isinstance(operation, Delete)
            return
        if not operation.key.startswith(WORKER):
            entry = entry_from(operation.value) if isinstance(operation, Put) else None
            self.directory.learn(operation.key, revision, entry)
            self._judge(operation.key)

    def conflicted(self, operation: Put | Delete, now: float) -> None:
        """The broker did not, since the key has another revision."""
        self._advance(now)
        if self._agenda.answered(operation):
            self._agenda.read(operation.key)

    def failed(self, operation: Operation, now: float) -> None:
        """Nobody knows whether the broker did, or will: it refused, or did not answer in time."""
        self._advance(now)
        if isinstance(operation, Watch):
            if operation is self._watch:
                self._watch, self._watch_at = None, self._time.now + self._timing.retry
        elif self._agenda.answered(operation) and operation.key != self._own_key:
            self._agenda.retry(operation.key, self._time.now + self._timing.retry)

    def read(self, operation: Read, revision: int, value: bytes | None, now: float) -> None:
        """What was read of a key: its last revision, 0 if it has none, and its value, `None` if it
        was deleted."""
        self._advance(now)
        if self._agenda.answered(operation):
            self._correct(operation.key, revision, value)

    def found(self, key: str, revision: int, value: bytes | None, now: float) -> None:
        """The same for a key that somebody else has read."""
        self._advance(now)
        self._correct(key, revision, value)

    # Time.

    def tick(self, now: float) -> None:
        """A deadline may have come."""
        self._advance(now)
        time = self._time.now + _GRAIN
        if time >= self._beat_at:
            self._beat_at = time + self._timing.beat
            self._beat_is_due = self.is_synced and not self._is_leaving
        while (key := self._agenda.due(time)) is not None:
            (self._agenda.look_at if key.startswith(WORKER) else self._agenda.read)(key)
        if self._watch_at is not None and time >= self._watch_at:
            self._ask_watch()
        is_silent = self._watch is not None and self._told_at + self._timing.lease <= time
        if is_silent and (not self.is_synced or self._beats_untold > 1):
            self._lose_watch()  # it does not tell of what it should
            self._ask_watch()
        if not self.is_synced:
            return
        if self._beat_told_at + 2 * self._timing.beat <= time:
            self.presence.excuse(time)  # not even ours have come back: others' may be as late
        else:
            for worker in self.presence.expire(time):
                self._events.append(WorkerLost(worker, self._bury(worker)))

    def next_deadline(self) -> float:
        """When to call `tick`, by the clock of the times given."""
        deadlines = [self._beat_at]
        for deadline in (self._agenda.next_retry(), self._watch_at):
            if deadline is not None:
                deadlines.append(deadline)
        if self.is_synced and (expiry := self.presence.next_deadline()) is not None:
            deadlines.append(expiry)
        return self._time.shown_at(min(deadlines))

    # What follows from all that.

    def operations(self, room: int) -> list[Operation]:
        """What to ask of the broker now, and to tell of when it is done; none of it is given twice.

        Args:
            room: how many at most.
        """
        if self._is_watch_asked:
            self._is_watch_asked = False
            self._watch = Watch()
            self._told_at = self._time.now
            return [self._watch]
        given: list[Operation] = []
        if not self.is_synced:
            return given
        if self._beat_is_due and self._own_key not in self._agenda:
            self._beat_is_due = False
            self._beats += 1
            given.append(self._agenda.ask(Put(self._own_key, self._beat(), None)))
        given += self._agenda.take(room - len(given), self._next)
        if self._is_leaving and not self._has_left and self.is_settled and self._own_key not in self._agenda:
            given.append(self._agenda.ask(Delete(self._own_key, None)))
        return given

    def endings(self) -> list[Ending]:
        """Which sessions have to end, each once."""
        taken, self._endings = self._endings, []
        return taken

    def events(self) -> list[ClusterEvent]:
        """What happened, each once."""
        taken, self._events = self._events, []
        return taken

    # Inside.

    def _advance(self, now: float) -> None:
        # Ticks come every beat. If none did for longer, this process was paused, or the clock has
        # stepped: what others said meanwhile may be waiting to be read.
        if self._time.advance(now) > 2 * self._timing.beat:
            self.presence.excuse(self._time.now)
            self._told_at = self._beat_told_at = self._time.now

    def _beat(self) -> bytes:
        return beat_bytes(Beat(self._timing.lease, self._beats, self._about))

    def _ask_watch(self) -> None:
        self._watch_at = None
        self._is_watch_asked = self.is_connected

    def _lose_watch(self) -> None:
        self.is_synced = False
        self._watch = self._watch_at = None
        self._beats_untold = 0

    def _lose(self) -> None:
        self.is_connected = self._is_watch_asked = False
        self._lose_watch()
        self._agenda = Agenda()  # all is looked at again when the directory is known

    def _learn(self, key: str, revision: int, value: bytes | None) -> None:
        if key.startswith(WORKER):
            self.directory.last_revision = max(self.directory.last_revision, revision)
            self._learn_of_worker(key.removeprefix(WORKER), value)
            return
        entry = self._entry(value)
        if self.directory.learn(key, revision, entry):
            self._judge(key)

    def _correct(self, key: str, revision: int, value: bytes | None) -> None:
        self.directory.correct(key, revision, self._entry(value))
        self._judge(key)

    def _entry(self, value: bytes | None) -> Entry | None:
        if value is None:
            return None
        entry = entry_from(value)
        if entry is None:
            return Entry("", 0, 0.0)  # somebody wrote something else there: nobody holds it
        if entry.worker != self.worker:
            self.presence.named(entry.worker, self._time.now)
        return entry

    def _learn_of_worker(self, worker: str, value: bytes | None) -> None:
        if worker == self.worker:
            if value is not None:
                self._beat_told_at = self._time.now
            elif self.is_synced and not self._is_leaving:
                self._beat_is_due = True  # who deleted it believes that this worker is dead
            return
        if value is None:
            self._worker_keys.discard(worker)
        else:
            self._worker_keys.add(worker)
        beat = None if value is None else beat_from(value)
        if beat is not None:
            if self.presence.heard(worker, beat.lease, beat.about, self._time.now):
                self._events.append(WorkerSeen(worker))
        elif value is None and self.presence.left(worker):
            self._events.append(WorkerLeft(worker))
            self._bury(worker)

    def _bury(self, worker: str) -> int:
        """A worker is dead: look at all that it held, and, since it may have been for that one to
        tidy up, at what others before it did. Gives how much it held."""
        dead = [(key, place.worker) for key, place in self.directory.items() if self.presence.is_dead(place.worker)]
        for key, _ in dead:
            self._judge(key)
        for name in self._worker_keys:
            if self.presence.is_dead(name):
                self._agenda.look_at(WORKER + name)
        return sum(holder == worker for _, holder in dead)

    def _is_janitor(self) -> bool:
        """Whether it is for this worker to tidy up behind dead ones: one is enough, and it would
        do no harm if two did."""
        return not self._is_leaving and all(self.worker < other for other in self.presence)

    def _is_ours(self, key: str, session: int) -> bool:
        place = self.directory.get(key)
        return place is not None and place.worker == self.worker and place.session == session

    def _held(self, key: str, claim: _Claim) -> None:
        claim.was_held = True
        claim.link = 0
        self._pending.discard(key)

    def _drop(self, key: str) -> None:
        del self._claims[key]
        self._pending.discard(key)

    def _judge(self, key: str) -> None:
        """Something about a key has changed."""
        claim = self._claims.get(key)
        if claim is None:
            place = self.directory.get(key)
            if place is not None and (place.worker == self.worker or self.presence.is_dead(place.worker)):
                self._agenda.look_at(key)
            return
        place = self.directory.get(key)
        if place is not None and place.worker == self.worker and place.session == claim.session:
            self._held(key, claim)
            return
        if place is not None and place.worker != self.worker and self._gives_way(claim, place):
            self._lose_claim(key, claim, place)
            return
        if self.is_synced and key not in self._pending:
            self._events.append(ClaimLost(identity_of(key), claim.session))
        self._pending.add(key)
        self._agenda.look_at(key)

    def _gives_way(self, claim: _Claim, place: Place) -> bool:
        if not self.is_connected or place.worker not in self.presence:
            return False
        if claim.takeover == "reject":
            return True
        return claim.link != self._link and place.revision > claim.known

    def _lose_claim(self, key: str, claim: _Claim, place: Place) -> None:
        self._drop(key)
        identity = identity_of(key)
        if claim.takeover == "reject" and not claim.was_held:
            self._endings.append(Ending(key, claim.session, "refused"))
            self._events.append(Refused(identity, claim.session, place.worker))
        else:
            self._endings.append(Ending(key, claim.session, "replaced"))
            self._events.append(Replaced(identity, claim.session, place.worker))

    def _next(self, key: str) -> Put | Delete | None:
        """What to ask of the broker for a key."""
        if key.startswith(WORKER):
            worker = key.removeprefix(WORKER)
            is_left = worker in self._worker_keys and self.presence.is_dead(worker)
            return Delete(key, None) if is_left and self._is_janitor() else None
        claim = self._claims.get(key)
        place = self.directory.get(key)
        if claim is not None:
            if self._is_ours(key, claim.session):
                return None
            value = entry_bytes(Entry(self.worker, claim.session, claim.since))
            expected = self.directory.revision(key)
            # Should nobody know whether it was done, it is for us to try again: it may be done yet.
            claim.known = max(claim.known, expected)
            return Put(key, value, expected)
        if place is None:
            return None
        if place.worker == self.worker or (self.presence.is_dead(place.worker) and self._is_janitor()):
            return Delete(key, place.revision)
        return None
