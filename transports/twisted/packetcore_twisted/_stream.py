"""A session with Deferreds: for what comes, and for room for what goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from packetcore import AsyncStream, Inbox, Message, Packet, Reply, SessionClosed
from packetcore_twisted._reactor import clock_of


class Stream(AsyncStream):
    """One conversation, to be used on its reactor's thread. Methods give Deferreds.

    In a coroutine, `async for packet in stream` ends when the conversation ends cleanly and
    raises `packetcore.SessionClosed` when it breaks; `async with` closes it.
    """

    def __init__(self, inbox: Inbox, reactor: Any) -> None:
        super().__init__(inbox, self._wake)
        self._reactor = reactor
        self._time = clock_of(reactor)
        self._waiting: dict[Deferred[Any], Callable[[], object]] = {}
        self._replied: list[tuple[Deferred[Reply], Reply | Exception]] = []
        self._waking = False

    def send(self, item: Packet | Message) -> Deferred[None]:
        """Send a packet, or a message; wait while more than `write_high_water` bytes are unsent.

        Packets of several senders never mix. Cancelling the wait does not unsend the packet.

        Raises:
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        try:
            try:
                has_room = self.session.send(item)
            except SessionClosed:
                self._drop(item.payload)
                has_room = True
        except Exception:
            return fail()
        return succeed(None) if has_room else self._until(self._drained)

    def send_message(
        self, payload: bytes | bytearray | memoryview, *, id: int, type: int = 0, chunk: int | None = None
    ) -> Deferred[None]:
        """Send a payload as `packetcore.Connection.send_message` does, and wait as `send`."""
        return self._until(self._drained, partial(self.session.send_message, payload, id=id, type=type, chunk=chunk))

    def request(
        self,
        packet: Packet | bytes | bytearray | memoryview,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Deferred[Reply]:
        """Send a packet and wait for its reply, which `recv` then does not give. Any number may
        wait at once. Cancelling the wait forgets the request:
        a reply that comes yet is dropped.

        Args:
            packet: what to ask, or its payload alone: then an id is picked that no request has.
            type: of a packet made of a payload; 0 if not given.
            match: which packet is the reply; by default the next one of the same id.
            timeout: how long to wait, in seconds; `None` for ever.
            wait: whether to wait until its id is free, rather than raise `RequestPending`.

        Raises:
            RequestPending: another request has the id, or was given up with it and the reply
                may come yet; see `Config.request_hold`.
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
            TimeoutError: no reply came in time.
        """
        replied: Deferred[Reply] = Deferred(lambda _: self.session.forget(request))
        try:
            request = self.session.request(
                packet, partial(self._reply, replied), type=type, match=match, timeout=timeout, wait=wait
            )
        except Exception:
            replied.errback()
        return replied

    def recv(self) -> Deferred[Packet | Message]:
        """The next packet; the next message where `join_messages` is set. Cancelling the
        wait loses nothing.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
        """
        try:
            item = self._inbox.take()
        except Exception:
            return fail()
        return self._until(self._inbox.take) if item is None else succeed(item)

    def close(self) -> Deferred[None]:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        return self._until(lambda: self.session.is_over, self.session.close)

    def _drained(self) -> bool:
        return not self.session.congested(self._time())

    def _until(self, ready: Callable[[], object], *begin: Callable[[], object]) -> Deferred[Any]:
        """Begin something, then wait until `ready` gives neither `None` nor `False`."""
        waiter: Deferred[Any] = Deferred(self._forget)
        if not self._settle(waiter, *begin, ready):
            self._waiting[waiter] = ready
        return waiter

    def _settle(self, waiter: Deferred[Any], *steps: Callable[[], object]) -> bool:
        try:
            for step in steps:
                result = step()
        except Exception:
            waiter.errback()
        else:
            if result is None or result is False:
                return False
            waiter.callback(None if result is True else result)
        return True

    def _forget(self, waiter: Deferred[Any]) -> None:
        self._waiting.pop(waiter, None)

    def _reply(self, replied: Deferred[Reply], reply: Reply | Exception) -> None:
        self._replied.append((replied, reply))
        self._wake()

    def _wake(self) -> None:
        # Not at once: the session is in the middle of its work, and who wakes may send.
        if (self._waiting or self._replied) and not self._waking:
            self._waking = True
            self._reactor.callLater(0, self._look)

    def _look(self) -> None:
        self._waking = False
        answered, self._replied = self._replied, []
        for replied, reply in answered:
            if not replied.called:
                replied.errback(reply) if isinstance(reply, Exception) else replied.callback(reply)
        waiting, self._waiting = self._waiting, {}
        for waiter, ready in waiting.items():
            if not waiter.called and not self._settle(waiter, ready):
                self._waiting[waiter] = ready
