"""What came for a reader who takes packets one at a time: a queue with a bound.

Every adapter's `Stream` is an inbox and a way to wait. How much is queued, when reading
stops and goes on, and what the reader is told at the end are decided here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

from packetcore._errors import SessionClosed
from packetcore._events import AnyItem
from packetcore._handler import Handler
from packetcore._packet import AnyPacket
from packetcore._reasons import CloseReason
from packetcore._session import Session

F = TypeVar("F", bound=Callable[..., Any])

HIGH_WATER = 64 * 1024
"""Bytes that may come while the reader has something left; after more of them the session stops
reading until he takes the last. It is what one read brings at most, so that the socket's own
buffers do the waiting."""


class Inbox(Handler[Any], Generic[AnyItem]):
    """A handler that keeps packets, or messages, until they are taken.

    Args:
        on_connected: called with this inbox once it has a session.
    """

    session: Session[Any]
    """The session, from `connected` on."""

    def __init__(self, on_connected: Callable[[Inbox[AnyItem]], object] | None = None) -> None:
        self.on_change: Callable[[], object] = _nothing
        """Called when there may be something to take, or room to send again, or the end
        has come: set it to what wakes whoever waits."""
        self._on_connected = on_connected
        self._queue: deque[AnyItem] = deque()
        self.take_queued: Callable[[], AnyItem] = self._queue.popleft
        """Gives the next packet, or message, and raises `IndexError` where `take` is to be asked,
        which knows more: a call of Python's own costs less."""
        self._last: AnyItem | None = None  # kept apart, for `take`, while reading is paused
        self._came = 0  # bytes, at the last packet
        self._came_before = 0  # the same when nothing was left
        self._end: CloseReason | None = None
        self._has_told_end = False
        self._unread = inf  # items, when something sent was dropped last
        self._dropped = 0  # bytes, since one was taken
        self._error: OSError | None = None

    @property
    def is_ready(self) -> bool:
        """Whether `take` gives something, or raises."""
        return bool(self._queue) or self._last is not None or self._end is not None or self._error is not None

    def take(self) -> AnyItem | None:
        """The next packet, or message where `join_messages` is set; `None` if there is
        none yet.

        Raises:
            SessionClosed: there will be no more. Its reason is PEER when the peer has
                finished sending, though a reply may still be possible then.
            OSError: the system reported an error of this peer (UDP); the session goes on.
        """
        try:  # not after a look: another thread may take without the lock that this one holds
            return self._queue.popleft()
        except IndexError:
            pass
        if self._last is not None:
            last, self._last = self._last, None
            self.session.resume()
            return last
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._end is not None:
            self._has_told_end = True
            raise SessionClosed(self._end)
        return None

    def drop(self, size: int) -> bool:
        """Whether something that can be sent no more may be dropped without a word: to a peer that
        was lost, as long as the reader has not been told of that. What is sent in reply is then
        lost as in the network, and the reader gets all that had come. At most
        `write_high_water` bytes for each item taken, so that who only sends is told too; one
        without a byte counts as one.

        Args:
            size: bytes of payload; 0 where it has no length.
        """
        unread = len(self._queue) + (self._last is not None)
        if unread < self._unread:
            self._dropped = 0
        self._unread = unread
        limit = self.session.endpoint.config.write_high_water
        if self._has_told_end or self._end is not CloseReason.RESET or self._dropped > limit:
            return False
        self._dropped += max(1, size)
        return True

    def connected(self, session: Session[Any]) -> None:
        self.session = session
        if self._on_connected is not None:
            self._on_connected(self)

    def packets_received(self, session: Session[Any], packets: Sequence[AnyItem]) -> None:
        was_empty = not self._queue and self._last is None  # so who waits for a packet found none
        if was_empty:
            self._came_before = self._came
        self._came = session.bytes_received
        if self._last is not None:
            self._queue.append(self._last)
            self._last = None
        if self._came - self._came_before > HIGH_WATER:
            *packets, self._last = packets
            session.pause()
        self._queue.extend(packets)
        if was_empty:
            self.on_change()

    def message_received(self, session: Session[Any], message: Any) -> None:
        self.packets_received(session, [message])

    def writable(self, session: Session[Any]) -> None:
        self.on_change()

    def eof_received(self, session: Session[Any]) -> None:
        self._finish(CloseReason.PEER)

    def error_received(self, session: Session[Any], error: OSError) -> None:
        self._error = error
        self.on_change()

    def draining(self, session: Session[Any]) -> None:
        self._finish(CloseReason.SHUTDOWN)

    def disconnected(self, session: Session[Any], reason: CloseReason) -> None:
        self._finish(reason)

    def _finish(self, reason: CloseReason) -> None:
        if self._end is None:
            self._end = reason
        self.on_change()


def handler_of(
    application: Handler[AnyPacket] | F, start: Callable[[F, Inbox[Any]], object]
) -> Handler[AnyPacket] | Callable[[], Handler[AnyPacket]]:
    """What an endpoint takes for an application: a handler as it is; of a function over the
    adapter's `Stream` a new inbox for each session, with which `start` runs it."""
    return application if isinstance(application, Handler) else lambda: Inbox(partial(start, application))


def _nothing() -> None:
    pass
