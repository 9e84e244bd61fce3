"""The part of every adapter's `Stream` that does not wait, and the whole of those that block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from packetcore._carrier import Address
from packetcore._errors import SessionClosed
from packetcore._events import Message
from packetcore._implementation import Items
from packetcore._inbox import Inbox
from packetcore._packet import Packet
from packetcore._reasons import CloseReason
from packetcore._session import Session

A = TypeVar("A", bound="AsyncStream")
S = TypeVar("S", bound="SyncStream")


class StreamBase:
    """What every adapter's `Stream` shows of its session; the adapter adds the waiting.

    Args:
        inbox: where what comes is kept.
        wake: wakes whoever waits in the stream; called on any change.
    """

    def __init__(self, inbox: Inbox, wake: Callable[[], object]) -> None:
        self._inbox = inbox
        self.session: Session = inbox.session
        """The session underneath: its id, stats, `bind` and `abort`."""
        inbox.on_change = wake

    @property
    def peer(self) -> Address:
        """The peer's address."""
        return self.session.peer

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the conversation ended; `None` while it has not."""
        return self.session.close_reason

    def _drop(self, payload: bytes | bytearray | memoryview) -> None:
        """To be called where sending raised `SessionClosed`, which goes on unless the inbox
        has it dropped."""
        if not self._inbox.drop(len(payload)):
            raise

    @property
    def has_received(self) -> bool:
        """Whether there is something to `recv`, the end of the conversation included."""
        return self._inbox.is_ready


class AsyncStream(StreamBase, ABC):
    """A `Stream` whose calls are awaited; the adapter adds them.

    `async for packet in stream` ends when the conversation ends cleanly and raises
    `SessionClosed` when it breaks. `async with` closes it.
    """

    @abstractmethod
    def recv(self) -> Awaitable[Packet | Message]:
        """The next packet; the next message where `join_messages` is set. Cancelling the
        wait loses nothing.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
        """

    @abstractmethod
    def close(self) -> Awaitable[None]:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""

    def __aiter__(self) -> AsyncIterator[Packet | Message]:
        return Items(self._inbox.take_queued, self._next)

    def __anext__(self) -> Awaitable[Packet | Message]:
        return self.__aiter__().__anext__()

    async def _next(self) -> Packet | Message:
        try:
            return await self.recv()
        except SessionClosed as closed:
            if closed.is_clean:
                raise StopAsyncIteration from None
            raise

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class SyncStream(StreamBase, ABC):
    """A `Stream` whose calls block, of a thread or of a greenlet; the adapter adds `_wait`.

    `for packet in stream` ends when the conversation ends cleanly and raises `SessionClosed`
    when it breaks. `with stream` closes it. Several threads or greenlets may use it at once.

    Timeouts are in seconds, `None` waits for ever. After a `TimeoutError` the stream goes on.

    Args:
        inbox: where what comes is kept.
        wake: wakes whoever waits in the stream; called on any change.
        clock: tells the time that the session's inputs are given.
    """

    def __init__(self, inbox: Inbox, wake: Callable[[], object], clock: Callable[[], float]) -> None:
        super().__init__(inbox, wake)
        self._clock = clock

    def send(self, item: Packet | Message, *, timeout: float | None = None) -> None:
        """Send a packet, or a message; wait while more than `write_high_water` bytes are unsent.

        What is sent to a peer that was lost is dropped as long as `recv` has not told of that, so
        that who replies gets all that had come; at most `write_high_water` bytes between two
        items received.

        Raises:
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
            TimeoutError: too many bytes are unsent still. They stay queued: do not send again.
        """
        try:
            has_room = self.session.send(item)
        except SessionClosed:
            self._drop(item.payload)
        else:
            if not has_room:
                self._drain(timeout)

    def send_message(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        id: int,
        type: int = 0,
        chunk: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a payload as `Connection.send_message` does, and wait as `send`."""
        try:
            self.session.send_message(payload, id=id, type=type, chunk=chunk)
        except SessionClosed:
            self._drop(payload)
        else:
            self._drain(timeout)

    def recv(self, timeout: float | None = None) -> Packet | Message:
        """The next packet; the next message where `join_messages` is set.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
            TimeoutError: none came in time; none is lost.
        """
        try:
            return self._inbox.take_queued()
        except IndexError:
            return self._next(timeout)

    def __iter__(self) -> Iterator[Packet | Message]:
        take = self._inbox.take_queued
        try:
            while True:
                try:
                    item = take()  # spares a call where there is one
                except IndexError:
                    item = self._next(None)
                yield item
        except SessionClosed as closed:
            if not closed.is_clean:
                raise

    def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        self._wait(lambda: self.session.is_over or None, None)

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self: S, function: Callable[[S], object]) -> None:
        """Run an application over this stream, as a server does, and close it at the end.
        What it raises ends the session with HANDLER_ERROR."""
        try:
            function(self)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self.session.failed(error, self._clock())
        finally:
            self.close()

    def _next(self, timeout: float | None) -> Packet | Message:
        """Wait for an item."""
        item: Packet | Message | None = self._wait(self._inbox.take, timeout)
        if item is None:
            raise TimeoutError(f"nothing was received within timeout={timeout} s")
        return item

    def _drain(self, timeout: float | None) -> None:
        if self._wait(self._room(), timeout) is None:
            raise TimeoutError(f"{self.session.outstanding} bytes are still unsent after timeout={timeout} s")

    def _room(self) -> Callable[[], bool | None]:
        """What gives something once one may send on."""
        return lambda: not self.session.congested(self._clock()) or None

    @abstractmethod
    def _wait(self, attempt: Callable[[], Any], timeout: float | None) -> Any:
        """Try until `attempt` gives something, waiting for a wake between tries; `None` if it
        gave nothing for `timeout` seconds."""
