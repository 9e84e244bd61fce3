"""Requests that wait for a reply, and which packet is the reply to which."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain

from packetcore._deadlines import Deadlines
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

    __slots__ = ("_by_id", "_deadlines", "_matching", "_unbegun")

    def __init__(self) -> None:
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

    def discard(self, request: Request) -> None:
        """Forget a request, if it is not forgotten yet."""
        self._deadlines.discard(request)
        self._unbegun.pop(request, None)
        if request.match is not None:
            self._matching.pop(request, None)
        elif (queue := self._by_id.get(request.id)) is not None:
            queue.pop(request, None)
            if not queue:
                del self._by_id[request.id]

    def take(self, reply: Reply) -> bool:
        """Give a packet to the request that it answers. Returns whether there is one."""
        request = next((one for one in self._matching if one.match is not None and one.match(reply)), None)
        if request is None and reply.id in self._by_id:
            request = next(iter(self._by_id[reply.id]))
        if request is None:
            return False
        self.discard(request)
        request.done(reply)
        return True

    def next_deadline(self) -> float | None:
        """When the first of them has waited long enough; `None` if none has a deadline."""
        return self._deadlines.first()

    def expire(self, now: float) -> None:
        """End the waits that are over, with `TimeoutError`."""
        while (request := self._deadlines.pop_due(now)) is not None:
            self.discard(request)
            request.done(TimeoutError(f"no reply to request {request.id} came within timeout={request.timeout} s"))

    def fail(self, error: Exception) -> None:
        """End every wait with an error."""
        waiting = [*self._matching, *chain.from_iterable(self._by_id.values())]
        for request in waiting:
            self.discard(request)
        for request in waiting:
            request.done(error)
