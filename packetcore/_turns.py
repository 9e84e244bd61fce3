"""Requests that take turns, for a bus on which one at a time may speak.

Masters of such buses ask one device at a time ("MODBUS over Serial Line" V1.02, 2.4.1) and leave it
a while after that, the turnaround delay.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from packetcore._connection import earlier
from packetcore._requests import Done, Match, Request, Requests, call_all

Begin = Callable[[Done, float | None], Request]


class Turn(Request):
    """One that waits for its turn, or has it."""

    __slots__ = ("begin", "is_over")

    def __init__(self, done: Done, begin: Begin) -> None:
        super().__init__(None, None, done, None)
        self.begin = begin
        self.is_over = False


class Turns(Requests):
    """The requests of one session, so many in flight at a time. The others wait, those first that
    asked first. Each call takes the same few steps, however many wait.

    Args:
        send: see `Requests`, and so `hold`.
        most: how many are in flight at a time.
        delay: how long a turn lasts on after its reply came or nobody waits for it any more, in seconds.
        clock: called when a turn has ended, after which `next_deadline` may be nearer; gives the time, or
            `None` where it is not known before `begin`.
    """

    __slots__ = ("_clock", "_delay", "_has_failed", "_most", "_queue", "_resting", "_sent")

    def __init__(
        self,
        send: Callable[[Any], object],
        hold: float | None,
        most: int,
        delay: float,
        clock: Callable[[], float | None],
    ) -> None:
        super().__init__(send, hold)
        self._most = most
        self._delay = delay
        self._clock = clock
        self._queue: OrderedDict[Turn, None] = OrderedDict()
        self._sent: dict[Request, Request] = {}  # by the turn the request in flight
        self._resting: deque[float | None] = deque()  # until when; `None` for the delay from `begin` on
        self._has_failed = False

    def __len__(self) -> int:
        return super().__len__() + len(self._queue)

    def ask(
        self,
        what: Any,
        match: Match | None,
        done: Done,
        timeout: float | None,
        now: float | None,
        *,
        type: int | None = None,
        wait: bool = False,
    ) -> Request:
        """See `Requests`. The time of one that waits for its turn begins with that, and what then
        keeps it from being sent goes to `done`."""
        ask = super().ask
        return self._take_turn(
            Turn(done, lambda heard, now: ask(what, match, heard, timeout, now, type=type, wait=wait)), now
        )

    def ask_by(self, match: Match, packet: Any, done: Done, timeout: float | None, now: float | None) -> Request:
        """See `Requests`, and `ask`."""
        ask_by = super().ask_by
        begin: Begin = lambda heard, now: ask_by(match, packet, heard, timeout, now)  # noqa: E731
        return self._take_turn(Turn(done, begin), now)

    def begin(self, now: float) -> None:
        """See `Requests`."""
        super().begin(now)
        if self._resting and self._resting[-1] is None:
            self._resting = deque(now + self._delay if until is None else until for until in self._resting)

    def forget(self, request: Request, now: float | None = None) -> bool:
        """See `Requests`."""
        if isinstance(request, Turn) and request in self._queue:
            del self._queue[request]
            return True
        sent = self._sent.pop(request, None)
        if sent is None or not super().forget(sent, now):
            return False
        self._resting.append(None if now is None else now + self._delay)
        return True

    def next_deadline(self, *, may_send: bool = True) -> float | None:
        """See `Requests`; besides when the next has its turn."""
        rest = self._resting[0] if may_send and self._queue and self._resting else None
        return earlier(super().next_deadline(may_send=may_send), rest)

    def expire(self, now: float) -> None:
        """See `Requests`; besides, send those whose turn it is."""
        try:
            super().expire(now)
        finally:
            self._send_next(now)

    def fail(self, error: Exception) -> None:
        """See `Requests`."""
        self._has_failed = True
        try:
            super().fail(error)
        finally:
            call_all(partial(self._end_turn, turn, error) for turn in [*self._queue])

    def _end_turn(self, turn: Turn, error: Exception) -> None:
        if turn in self._queue:  # else another has forgotten it at its own end
            del self._queue[turn]
            self._tell(turn, error)

    def _take_turn(self, turn: Turn, now: float | None) -> Turn:
        if now is not None:
            self._rise(now)
        if self._queue or not self._is_free():
            self._queue[turn] = None
        else:
            self._start(turn, now)
        return turn

    def _is_free(self) -> bool:
        return len(self._sent) + len(self._resting) < self._most

    def _rise(self, now: float) -> None:
        """End the rests that are over."""
        while self._resting and (until := self._resting[0]) is not None and until <= now:
            self._resting.popleft()

    def _start(self, turn: Turn, now: float | None) -> None:
        sent = turn.begin(partial(self._ended, turn), now)
        turn.id = sent.id
        if not turn.is_over:
            self._sent[turn] = sent

    def _start_late(self, turn: Turn, now: float | None) -> None:
        try:
            self._start(turn, now)
        except Exception as error:
            self._tell(turn, error)

    def _ended(self, turn: Turn, outcome: Any) -> None:
        """Its reply came, or its wait has ended otherwise."""
        now = self._clock()
        self._sent.pop(turn, None)
        if self._delay or now is None:
            self._resting.append(None if now is None else now + self._delay)
        try:
            self._tell(turn, outcome)
        finally:
            if now is not None:
                self._send_next(now)

    def _tell(self, turn: Turn, outcome: Any) -> None:
        if not turn.is_over:
            turn.is_over = True
            turn.done(outcome)

    def _send_next(self, now: float) -> None:
        if not self._has_failed:
            self._rise(now)
            call_all(self._next_turns(now))

    def _next_turns(self, now: float) -> Iterator[Callable[[], object]]:
        while self._queue and self._is_free():
            turn, _ = self._queue.popitem(last=False)
            yield partial(self._start_late, turn, now)
