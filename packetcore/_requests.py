"""Requests that wait for a reply, and which packet is the reply to which.

An id stands for one request at a time. One given up before its reply came, because its time
was over or it was forgotten, leaves its id held: the late reply is dropped when it comes, and
cannot answer a newer request. The id is free again once it came, or after the hold.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, takewhile
from typing import Any

from packetcore._connection import earlier
from packetcore._deadlines import Deadlines
from packetcore._errors import RequestPending, SessionClosed
from packetcore._events import Message
from packetcore._free_ids import FreeIds
from packetcore._packet import Packet

Reply = Packet | Message
Match = Callable[[Any], bool]
Done = Callable[[Any], object]  # with a reply or an exception
Payload = bytes | bytearray | memoryview

_NEVER = float("inf")


class Request:
    """One that waits.

    Attributes:
        id: of its packet; `None` while one that picks its id waits for a free one.
    """

    __slots__ = ("done", "id", "is_sent", "match", "timeout")

    def __init__(self, id: int | None, match: Match | None, done: Done, timeout: float | None) -> None:
        self.id = id
        self.match = match
        self.done = done
        self.timeout = timeout
        self.is_sent = False  # else it waits for its id


class Requests:
    """The requests of one session. A packet answers the oldest with a `match` function that says
    so, else the one whose packet had the same id.

    Each call takes the same few steps, however many wait or are held, besides asking each
    `match`. Memory is proportional to those that wait and the ids held, 65,536 at most.

    Args:
        send: sends a packet.
        hold: how long the id of one given up is held, in seconds; `None` until its reply comes.
    """

    __slots__ = (
        "_deadlines",
        "_free",
        "_held",
        "_hold",
        "_in_flight",
        "_matching",
        "_send",
        "_unbegun",
        "_waiting",
        "late",
        "unanswered",
    )

    def __init__(self, send: Callable[[Any], object], hold: float | None) -> None:
        self.unanswered = 0
        """How many were sent whose reply never came, those included that wait no longer."""
        self.late = 0
        """How many replies came too late and were dropped."""
        self._send = send
        self._hold = hold
        self._free = FreeIds()
        self._in_flight: dict[int, Request] = {}
        self._matching: OrderedDict[Request, None] = OrderedDict()
        self._waiting: dict[int | None, OrderedDict[Request, Packet]] = {}  # for that id, or for any
        self._held: OrderedDict[int, float] = OrderedDict()  # until when, the first to end first
        self._deadlines: Deadlines[Request] = Deadlines()
        self._unbegun: OrderedDict[Request | int, None] = OrderedDict()  # whose time, or hold, has not begun

    def __len__(self) -> int:
        """How many wait."""
        return len(self._matching) + len(self._in_flight) + sum(map(len, self._waiting.values()))

    def ask(
        self,
        what: Packet | Payload,
        match: Match | None,
        done: Done,
        timeout: float | None,
        now: float | None,
        *,
        type: int | None = None,
        wait: bool = False,
    ) -> Request:
        """Send a packet, or a payload with an id that is free, and wait for the reply: `done` is
        called with it, or with what ended the wait. The time begins at `now`; where that is
        `None`, at `begin`.

        Raises:
            RequestPending: the id is not free, and it is not to `wait` for it.
            TypeError: there is a type for what is a packet already.
        """
        id: int | None
        if isinstance(what, (bytes, bytearray, memoryview)):  # a union takes longer
            id = self._free.pick()
            packet = Packet(id or 0, what, type=type or 0)
        elif type is not None:
            raise TypeError(f"type={type} is for a payload: a packet has one")
        else:
            packet, id = what, what.id
        request = Request(id, match, done, timeout)
        must_wait = id is None or (match is None and self._is_taken(id))
        if must_wait and not wait:
            raise self._pending(id)
        if timeout is not None:
            self._unbegun[request] = None
            if now is not None:
                self.begin(now)
        if id is None or must_wait:
            self._waiting.setdefault(id, OrderedDict())[request] = packet
            return request
        self._register(request)
        try:
            self._send(packet)
        except Exception:
            self._withdraw(request)
            self._pass_on(id)
            raise
        return request

    def ask_by(self, match: Match, packet: Any, done: Done, timeout: float | None, now: float | None) -> Request:
        """Send a packet of any type, whose reply `match` knows; see `ask`."""
        request = Request(None, match, done, timeout)
        if timeout is not None:
            self._unbegun[request] = None
            if now is not None:
                self.begin(now)
        self._register(request)
        try:
            self._send(packet)
        except Exception:
            self._withdraw(request)
            raise
        return request

    def begin(self, now: float) -> None:
        """Count the time of those whose time has not begun from `now` on."""
        while self._unbegun:
            key, _ = self._unbegun.popitem(last=False)
            if isinstance(key, Request):
                self._deadlines.set(key, now + (key.timeout or 0))
            else:
                self._held[key] = now + (self._hold or 0)

    def forget(self, request: Request, now: float | None = None) -> bool:
        """Wait no longer for a reply. Returns whether it waited still."""
        if not self._remove(request):
            return False
        self._give_up(request, now)
        return True

    def take(self, reply: Any) -> bool:
        """Give a packet to the request that it answers, or drop it where that was given up.
        Returns whether it is a reply."""
        request: Request | None = None
        if self._matching:
            # A copy, since a `match` may make and forget requests.
            matching = [*self._matching]
            request = next((one for one in matching if one.match is not None and one.match(reply)), None)
        if request is None and (self._in_flight or self._held):  # packets of another framing have no id
            request = self._in_flight.get(reply.id)
        if request is None:
            if not self._held or reply.id not in self._held:
                return False
            self.late += 1
            self.unanswered -= 1
            self._release(reply.id)
            return True
        self.unanswered -= 1
        self._remove(request)
        try:
            if request.match is None:
                self._release(reply.id)
        finally:
            request.done(reply)
        return True

    def next_deadline(self, *, may_send: bool = True) -> float | None:
        """When the first of them has waited long enough, or the first hold is over, which is
        nothing to one that sends no more; `None` if there is no such time."""
        hold = next(iter(self._held.values()), _NEVER) if may_send else _NEVER
        return earlier(self._deadlines.first(), hold if hold < _NEVER else None)

    def expire(self, now: float) -> None:
        """End the waits that are over, with `TimeoutError`, and the holds."""
        over = [*takewhile(lambda id: self._held[id] <= now, self._held)]
        due: list[Request] = []
        while (request := self._deadlines.pop_due(now)) is not None:
            due.append(request)
        due.sort(key=lambda one: one.is_sent)  # first those not sent yet: they are not to be now
        call_all(
            chain(
                (partial(self._end, one, _timed_out(one), now) for one in due),
                (partial(self._release, id) for id in over if self._held.get(id, _NEVER) <= now),
            )
        )

    def fail(self, error: Exception) -> None:
        """End every wait with an error, and every hold: no reply will come."""
        while self._held:
            self._make_free(next(iter(self._held)))
        requests = [*self._matching, *self._in_flight.values(), *chain.from_iterable(self._waiting.values())]
        call_all(partial(self._end_for_ever, one, error) for one in requests)

    # How an id passes from one request to the next.

    def _is_taken(self, id: int) -> bool:
        return id in self._in_flight or id in self._held

    def _pending(self, id: int | None) -> RequestPending:
        hold = "until its reply comes" if self._hold is None else f"for request_hold={self._hold} s"
        if id is None:
            return RequestPending(
                None,
                f"no id is free: {len(self._in_flight)} have a request in flight, and {len(self._held)} had one "
                f"that was given up, for which each is held {hold}",
            )
        if id in self._held:
            or_less = "" if self._hold is None else ", or until its reply comes"
            return RequestPending(id, f"a request with id={id} was given up, and the id is held {hold}{or_less}")
        return RequestPending(id, f"a request with id={id} is in flight, and none other may have the id")

    def _register(self, request: Request) -> None:
        """It is about to be sent. First, since the send may find out that the socket is gone,
        and then all that wait are told."""
        request.is_sent = True
        self.unanswered += 1
        if request.match is not None:
            self._matching[request] = None
        else:
            assert request.id is not None
            self._in_flight[request.id] = request
            self._free.take(request.id)

    def _withdraw(self, request: Request) -> bool:
        """It was not sent after all. Returns whether it waited still."""
        if not self._remove(request):
            return False
        self.unanswered -= 1
        if request.match is None and request.id is not None:
            self._make_free(request.id)
        return True

    def _remove(self, request: Request) -> bool:
        """It waits no longer. Returns whether it did. Its id stays taken, if it was."""
        self._deadlines.discard(request)
        self._unbegun.pop(request, None)
        id = request.id
        if request in self._matching:
            del self._matching[request]
        elif id is not None and self._in_flight.get(id) is request:
            del self._in_flight[id]
        elif request in self._waiting.get(id, ()):
            self._leave_queue(id, request)
        else:
            return False
        return True

    def _leave_queue(self, id: int | None, request: Request) -> Packet:
        queue = self._waiting[id]
        packet = queue.pop(request)
        if not queue:
            del self._waiting[id]
        return packet

    def _give_up(self, request: Request, now: float | None) -> None:
        """It was removed before its reply came: hold its id."""
        id = request.id
        if not request.is_sent or request.match is not None or id is None:
            return  # there is no reply to come, or nothing to know it by
        if self._hold == 0:
            self._release(id)
            return
        self._held[id] = _NEVER
        if self._hold is not None:
            self._unbegun[id] = None
            if now is not None:
                self.begin(now)

    def _release(self, id: int) -> None:
        """There is nothing more to wait for with this id: the next request may have it."""
        self._make_free(id)
        self._pass_on(id)

    def _make_free(self, id: int) -> None:
        self._held.pop(id, None)
        self._unbegun.pop(id, None)
        self._free.give_back(id)

    def _pass_on(self, id: int) -> None:
        """Send the next request that waits for this id, or for any, if it is free."""
        if self._waiting:
            call_all(self._next_sends(id))

    def _next_sends(self, id: int) -> Iterator[Callable[[], object]]:
        # Where one cannot be sent, the one after it has its turn. Those with a `match` take no id.
        while not self._is_taken(id):
            key = id if id in self._waiting else None
            if key not in self._waiting:
                return
            request = next(iter(self._waiting[key]))
            packet = self._leave_queue(key, request)
            if key is None:
                request.id = id
                packet = Packet(id, packet.payload, type=packet.type)
            yield partial(self._send_late, request, packet)

    def _send_late(self, request: Request, packet: Packet) -> None:
        self._register(request)
        try:
            self._send(packet)
        except Exception as error:
            if self._withdraw(request):
                request.done(error)

    def _end(self, request: Request, error: Exception, now: float) -> None:
        if self._remove(request):
            try:
                self._give_up(request, now)
            finally:
                request.done(error)

    def _end_for_ever(self, request: Request, error: Exception) -> None:
        if self._remove(request):
            if request.is_sent and request.match is None and request.id is not None:
                self._make_free(request.id)
            request.done(error)


def _timed_out(request: Request) -> TimeoutError:
    within = f"within timeout={request.timeout} s"
    if request.is_sent:
        which = "the request" if request.id is None else f"request {request.id}"
        return TimeoutError(f"no reply to {which} came {within}")
    which = "no id was" if request.id is None else f"id {request.id} was not"
    return TimeoutError(f"{which} free for a request {within}: it was not sent")


def call_all(calls: Iterable[Callable[[], object]]) -> None:
    """Make every call, though some raise; raise the first that is not of the session's end."""
    failed: Exception | None = None
    for call in calls:
        try:
            call()
        except Exception as failure:
            if failed is None or isinstance(failed, SessionClosed):
                failed = failure
    if failed is not None:
        raise failed
