"""What a server does, looked at from a thread of its own: its sessions with their rates, and how it went lately.

The runtime is asked for a slice of the sessions at a time, by `call_soon`, and reads a few counters there; all else
is done here. Who asks and who answers take no more than `SHARE` of a core together, however many sessions there
are: with more of them each is looked at less often.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from itertools import islice
from typing import Any

from packetcore import Endpoint, EndpointStats, LocalProtocolError
from packetcore_cli._notes import Notes, Reading, Values
from packetcore_cli._seen import SORTS, Noted, Point, Row, Totals, View, name_of

SHARE = 0.05
"""Of a core, what sampling may take. Reading and counting one session take 1.6 to 3 µs on Python 3.11: up to some
15,000 sessions each is looked at once a second, and 100,000 take 3 to 6 s."""

PERIOD = 1.0
"""Seconds from one look at a session to the next, at least, and from one point of the history to the next."""

SLICE = 250
"""Sessions read in one call on the runtime's thread: under half a millisecond."""

POINTS = 300
"""Points of the history that are kept: five minutes."""

HEARING = 0.2
"""Seconds between two moments in which the end is heard for certain."""


class Sampler:
    """Looks at the sessions of a server until `close`. Make it anywhere; on the runtime's thread too.

    Args:
        endpoint: what the server's sessions share, `server.endpoint`.
        share: see `SHARE`.
        period: see `PERIOD`.
    """

    def __init__(self, endpoint: Endpoint[Any], *, share: float = SHARE, period: float = PERIOD) -> None:
        self.endpoint = endpoint
        self._share = share
        self._period = period
        self._lock = threading.Lock()
        self._rows: dict[int, Row] = {}
        self._totals = Totals()
        self._history: deque[Point] = deque(maxlen=POINTS)
        self._sums = [0, 0, 0, 0]
        self._outstanding = 0
        self._past = EndpointStats()
        self._point_at = time.monotonic()
        self._point: Totals | None = None
        self._earlier = [0, 0, 0, 0]
        self._age = 0.0
        self._is_answering = True
        self._ending = threading.Event()
        self._turn = 0
        self._notes = Notes(endpoint)
        self._thread = threading.Thread(target=self._run, name="packetcore-sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more, and keep what was seen last. Waits for nobody. Where the server is closed already, the
        totals are its last."""
        self._ending.set()
        self._notes.close()
        with self._lock, suppress(RuntimeError):  # another thread counts on
            self._merge((), self._notes.rest([]), 0.0)
            self._settle(time.monotonic())

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def totals(self) -> Totals:
        """What the server has seen until now."""
        with self._lock:
            return self._totals

    @property
    def history(self) -> list[Point]:
        """The last `POINTS` seconds, the oldest first."""
        with self._lock:
            return list(self._history)

    @property
    def malformed(self) -> list[Noted]:
        """What was malformed lately, the latest first."""
        return self._notes.malformed

    def view(self, search: str = "", sort: str = "id", *, descending: bool = False, start: int = 0, stop: int) -> View:
        """A part of the list of sessions. Costs time in proportion to how many there are.

        Args:
            search: in the identity, the peer's address or the id; in any case of letters.
            sort: one of `SORTS`.
            descending: whether the greatest come first.
            start: how many to leave out.
            stop: where to end.
        """
        with self._lock:
            rows = list(self._rows.values())
        if search:
            wanted = search.casefold()
            rows = [row for row in rows if wanted in f"{row.id} {row.peer} {row.name}".casefold()]
        first = heapq.nlargest if descending else heapq.nsmallest
        return View(first(stop, rows, key=SORTS[sort])[start:], len(rows))

    @property
    def turn(self) -> int:
        """Goes up with each point of the history."""
        return self._turn

    def _run(self) -> None:
        try:
            there = self._asked(self._notes.own)
            with self._lock:
                for session in there or ():
                    self._rows.setdefault(session.id, Row(session, None, float("inf")))
            while there is not None and self._sweep():
                pass
        except (RuntimeError, OSError, LocalProtocolError):  # the runtime has ended
            pass
        with self._lock:
            self._is_answering = self._ending.is_set()
            self._settle(time.monotonic())

    def _sweep(self) -> bool:
        """Look at every session once. Returns whether to go on."""
        begun = time.monotonic()
        rows = iter(list(self._rows.values()))
        while True:
            chunk = list(islice(rows, SLICE))
            sessions = [row.session for row in chunk]
            asked = time.monotonic()
            reading = self._asked(lambda done, sessions=sessions: self._notes.read(sessions, done))  # type: ignore[misc]
            if reading is None:
                return False
            at = time.perf_counter()
            with self._lock:
                self._merge(chunk, reading, asked)
                self._settle(time.monotonic())
            took = reading.took + time.perf_counter() - at
            is_last = len(chunk) < SLICE
            if is_last:
                self._age = time.monotonic() - begun
            pause = took / self._share - took
            if is_last:
                pause = max(pause, begun + self._period - time.monotonic())
            if self._ending.wait(max(pause, 0.0)):
                return False
            if is_last:
                return True

    def _asked(self, function: Callable[[Future[Any]], object]) -> Any:
        """What a function gives on the runtime's thread; `None` once that is not wanted any more."""
        done: Future[Any] = Future()
        self.endpoint.call_soon(function, done)
        patience = time.monotonic() + self._period
        while not self._ending.is_set():
            if wait([done], HEARING).done:
                return done.result()
            if time.monotonic() >= patience:
                with self._lock:
                    self._is_answering = False
                    self._settle(time.monotonic())
        return None

    def _merge(self, chunk: Sequence[Row], reading: Reading, now: float) -> None:
        self._is_answering = True
        rows = self._rows
        for session, opened in reading.came:
            rows.setdefault(session.id, Row(session, opened, opened)).opened = opened
        for id in reading.left:
            if (gone := rows.pop(id, None)) is not None:
                self._forget(gone)
        for row, values in zip(chunk, reading.values, strict=True):
            if rows.get(row.session.id) is not row:
                continue
            if values is None:
                self._forget(rows.pop(row.session.id))
            else:
                self._update(row, values, now)
        self._past = reading.past

    def _forget(self, row: Row) -> None:
        self._outstanding -= row.outstanding
        for place, count in enumerate(row.counts):
            self._sums[place] -= count

    def _update(self, row: Row, values: Values, now: float) -> None:
        *_, outstanding, identity = values
        counts, before, sums = values[:4], row.counts, self._sums
        if counts != before:
            for place in range(4):
                sums[place] += counts[place] - before[place]
                if row.at > now:  # that was before anybody looked
                    self._earlier[place] += counts[place]
            row.counts = counts
            if row.at > now:
                before = counts
        passed = max(now - row.at, self._period / 2)
        row.packets_in = (counts[0] - before[0]) / passed
        row.packets_out = (counts[1] - before[1]) / passed
        row.bytes_in = (counts[2] - before[2]) / passed
        row.bytes_out = (counts[3] - before[3]) / passed
        row.at = now
        self._outstanding += outstanding - row.outstanding
        row.outstanding = outstanding
        if identity is not row.identity:
            row.identity, row.name = identity, name_of(identity)

    def _settle(self, now: float) -> None:
        """Say what is known now, and once in a `PERIOD` add a point to the history."""
        past, total, sums = self._past, self._past.total, self._sums
        counts = (
            total.packets_received + sums[0],
            total.packets_sent + sums[1],
            total.bytes_received + sums[2],
            total.bytes_sent + sums[3],
        )
        rates, before, passed = self._totals.rates, self._point, now - self._point_at
        is_point = before is not None and passed >= self._period * 0.9
        if before is not None and is_point:
            new = zip(counts, before.counts, self._earlier, strict=True)
            a, b, c, d = ((one - other - earlier) / passed for one, other, earlier in new)
            rates = (a, b, c, d)
        self._totals = Totals(
            sessions=past.sessions,
            opened=past.opened,
            outstanding=self._outstanding,
            counts=counts,
            rates=rates,
            closed=past.closed,
            refused=past.refused,
            malformed=self._notes.count,
            age=self._age,
            is_answering=self._is_answering,
        )
        if before is None:
            self._point, self._point_at = self._totals, now
        elif is_point:
            closed = {reason.name: n for reason, n in (past.closed - before.closed).items()}
            malformed, refused = self._notes.count - before.malformed, past.refused - before.refused
            point = Point(time.time(), past.sessions, self._outstanding, rates, closed, malformed, refused)
            self._history.append(point)
            self._point, self._point_at = self._totals, now
            self._earlier = [0, 0, 0, 0]
            self._turn += 1
