"""A session as a thread sees it: wait for what comes, wait for room for what goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Condition
from time import monotonic
from typing import TypeVar

from packetcore import Inbox, Message, Packet, Reply, SessionClosed, SyncStream
from packetcore_blocking._loop import Loop, after

T = TypeVar("T")


class Stream(SyncStream):
    """One conversation, to be used from any thread.

    A client's has no thread behind it: its socket is served while some thread waits in it.
    So its `send` waits until the system has taken everything.
    """

    def __init__(self, inbox: Inbox, loop: Loop) -> None:
        self._loop = loop
        self._changed = Condition(loop.lock)
        super().__init__(inbox, partial(loop.notify, self._changed), monotonic)

    def request(
        self,
        packet: Packet | bytes | bytearray | memoryview,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Reply:
        """Send a packet and wait for its reply, which `recv` then does not give. Any number of
        threads may do so at once.

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
        replies: list[Reply | Exception] = []
        replied = Condition(self._loop.lock)

        def done(reply: Reply | Exception) -> None:
            replies.append(reply)
            self._loop.notify(replied)

        request = self.session.request(packet, done, type=type, match=match, timeout=timeout, wait=wait)
        try:
            self._wait_for(replied, lambda: replies or None, None)
        finally:
            self.session.forget(request)
        reply = replies[0] if replies else SessionClosed(self.close_reason)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def send(self, item: Packet | Message, *, timeout: float | None = None) -> None:
        """See `packetcore.SyncStream`."""
        try:
            has_room = self.session.send(item)
        except SessionClosed:
            self._drop(item.payload)
        else:
            if not has_room or self._loop.thread is None:
                self._drain(timeout)

    def _room(self) -> Callable[[], bool | None]:
        if self._loop.thread is not None:
            return super()._room()
        session = self.session
        sent = session.bytes_sent  # others may send on: it is not for them to wake this thread

        def has_gone() -> bool | None:
            if session.outstanding:
                session.flush(monotonic())
            return session.bytes_gone >= sent or not session.is_open or None

        return has_gone

    def _wait(self, attempt: Callable[[], T | None], timeout: float | None) -> T | None:
        return self._wait_for(self._changed, attempt, timeout)

    def _wait_for(self, changed: Condition, attempt: Callable[[], T | None], timeout: float | None) -> T | None:
        try:
            return self._loop.wait(changed, attempt, after(timeout))
        finally:
            if self._loop.thread is None and self.session.is_over:
                self._loop.close()  # it was there for this stream
