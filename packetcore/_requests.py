"""Requests that wait for a reply, and which packet is the reply to which."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import chain

from packetcore._deadlines import Deadlines
from packetcore._errors import SessionClosed
from packetcore._events import Message
from packetcore._packet import Packet

Reply = Packet | Message
Match = Callable[[Reply], bool]
Done = Callable[[Reply | Exception], object]


class Request:
    """One that waits."""

    __slots__ = ("done", "id", "match", "timeout")

    def __init__(self, id: int, match: Match | None, done: Done, timeout: float | None) -> None:
        self.id = id
        self.match = match
        self.done = done
        self.timeout = timeout


class Requests:
    """The requests of one session. A packet answers the oldest that it matches: one with a
    `match` function where that says so, else one whose packet had the same id."""

    __slots__ = ("_by_id", "_deadlines", "_matching", "_unbegun", "unanswered")

    def __init__(self) -> None:
        self.unanswered = 0
        """How many were made whose reply never came, those included that wait no longer."""
        self._by_id: dict[int, OrderedDict[Request, None]] = {}
        self._matching: OrderedDict[Request, None] = OrderedDict()
        self._deadlines: Deadlines[Request] = Deadlines()
        self._unbegun: OrderedDict[Request, None] = OrderedDict()  # whose time has not begun

    def __len__(self) -> int:
        """How many wait."""
        return len(self._matching) + sum(map(len, self._by_id.values()))

    def add(self, id: int, match: Match | None, done: Done, timeout: float | None, now: float | None) -> Request:
        """Wait for a reply: `done` is called with it, or with what ended the wait. Its time
        begins at `now`; where that is `None`, at `begin`."""
        request = Request(id, match, done, timeout)
        queue = self._matching if match is not None else self._by_id.setdefault(id, OrderedDict())
        queue[request] = None
        self.unanswered += 1
        if timeout is not None:
            self._unbegun[request] = None
            if now is not None:
                self.begin(now)
        return request

    def begin(self, now: float) -> None:
        """Count the time of those whose time has not begun from `now` on."""
        while self._unbegun:
            request, _ = self._unbegun.popitem(last=False)
            self._deadlines.set(request, now + (request.timeout or 0))

    def discard(self, request: Request) -> bool:
        """Forget a request. Returns whether it waited still."""
        self._deadlines.discard(request)
        self._unbegun.pop(request, None)
        queue = self._matching if request.match is not None else self._by_id.get(request.id)
        if queue is None or request not in queue:
            return False
        del queue[request]
        if not queue and queue is not self._matching:
            del self._by_id[request.id]
        return True

    def withdraw(self, request: Request) -> None:
        """Forget a request that was never sent."""
        if self.discard(request):
            self.unanswered -= 1

    def take(self, reply: Reply) -> bool:
        """Give a packet to the request that it answers. Returns whether there is one."""
        # A copy, since a `match` may make and forget requests.
        matching = [*self._matching]
        request = next((one for one in matching if one.match is not None and one.match(reply)), None)
        if request is None and reply.id in self._by_id:
            request = next(iter(self._by_id[reply.id]))
        if request is None:
            return False
        self.discard(request)
        self.unanswered -= 1
        request.done(reply)
        return True

    def next_deadline(self) -> float | None:
        """When the first of them has waited long enough; `None` if none has a deadline."""
        return self._deadlines.first()

    def expire(self, now: float) -> None:
        """End the waits that are over, with `TimeoutError`."""
        due: list[Request] = []
        while (request := self._deadlines.pop_due(now)) is not None:
            due.append(request)
        self._end(
            (one, TimeoutError(f"no reply to request {one.id} came within timeout={one.timeout} s")) for one in due
        )

    def fail(self, error: Exception) -> None:
        """End every wait with an error."""
        self._end((one, error) for one in [*self._matching, *chain.from_iterable(self._by_id.values())])

    def _end(self, ends: Iterable[tuple[Request, Exception]]) -> None:
        # Where a `done` raises the others are told all the same, and where it forgets one that
        # one is not.
        failed: Exception | None = None
        for request, error in ends:
            try:
                if self.discard(request):
                    request.done(error)
            except Exception as failure:
                if failed is None or isinstance(failed, SessionClosed):
                    failed = failure
        if failed is not None:
            raise failed
