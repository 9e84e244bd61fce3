"""Every adapter's `Stream`: a session as a task, a thread or a greenlet sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized
from typing import Any, Generic, Protocol, TypeVar, overload

from packetcore._carrier import Address
from packetcore._errors import SessionClosed
from packetcore._events import AnyItem
from packetcore._implementation import Items, Sender
from packetcore._inbox import Inbox
from packetcore._packet import AnyPacket, Packet
from packetcore._reasons import CloseReason
from packetcore._requests import Payload, Reply
from packetcore._session import Session
from packetcore._waiting import AsyncCondition, AsyncEvent, SyncCondition

A = TypeVar("A", bound="AsyncStream[Any]")
S = TypeVar("S", bound="SyncStream[Any]")


class _Underneath(Protocol):
    """For type checkers: whose session it is, where items may be messages too."""

    @overload
    def __get__(self, stream: StreamBase, kind: object, /) -> Session: ...
    @overload
    def __get__(self, stream: StreamBase[AnyPacket], kind: object, /) -> Session[AnyPacket]: ...
    def __set__(self, stream: StreamBase[Any], session: Session[Any], /) -> None: ...


class StreamBase(Generic[AnyItem]):
    """What every adapter's `Stream` shows of its session. Of a framing's frames it is a `Stream[bytes]`.

    Args:
        inbox: where what comes is kept.
        wake: wakes whoever waits in the stream; called on any change.
    """

    session: _Underneath
    """The session underneath: its id, stats, `bind` and `abort`."""

    def __init__(self, inbox: Inbox[AnyItem], wake: Callable[[], object]) -> None:
        self._inbox = inbox
        self.session = inbox.session
        inbox.on_change = wake

    @property
    def peer(self) -> Address:
        """The peer's address."""
        return self.session.peer

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the conversation ended; `None` while it has not."""
        return self.session.close_reason

    @property
    def has_received(self) -> bool:
        """Whether there is something to `recv`, the end of the conversation included."""
        return self._inbox.is_ready

    def recv_nowait(self) -> AnyItem | None:
        """The next packet, or message, if one has come; else `None`.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
        """
        return self._inbox.take()

    def _drop(self, item: Any) -> None:
        """To be called where sending raised `SessionClosed`, which goes on unless the inbox
        has it dropped.

        Args:
            item: a packet or a payload.
        """
        payload = getattr(item, "payload", item)
        if not self._inbox.drop(len(payload) if isinstance(payload, Sized) else 0):
            raise


class AsyncStream(StreamBase[AnyItem]):
    """One conversation, to be used from tasks of its own runtime.

    `async for packet in stream` ends when the conversation ends cleanly and raises
    `SessionClosed` when it breaks. `async with` closes it.

    Args:
        inbox: where what comes is kept.
        clock: tells the time that the session's inputs are given.
        new_event: makes an event of the runtime.
        sent: makes what `send` gives where there is room, if a runtime has that cheaper than a coroutine.
    """

    def __init__(
        self,
        inbox: Inbox[AnyItem],
        clock: Callable[[], float],
        new_event: Callable[[], AsyncEvent],
        sent: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._clock = clock
        self._new_event = new_event
        self._changed = AsyncCondition(new_event)
        super().__init__(inbox, self._changed.notify_all)
        if sent is not None:
            self.send = Sender(self.session, self.drain, self.send, Exception, sent)  # type: ignore[method-assign]

    async def send(self, item: AnyItem) -> None:
        """Send a packet, or a message; wait while more than `write_high_water` bytes are unsent.

        What is sent to a peer that was lost is dropped as long as `recv` has not told of that, so
        that who replies gets all that had come; at most `write_high_water` bytes between two
        items received. Packets of several tasks never mix. Cancelling the wait does not unsend the
        packet.

        Raises:
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        try:
            has_room = self.session.send(item)
        except SessionClosed:
            self._drop(item)
        else:
            if not has_room:
                await self.drain()

    async def send_message(
        self: AsyncStream, payload: Payload, *, id: int, type: int = 0, chunk: int | None = None
    ) -> None:
        """Send a payload as `Connection.send_message` does, and wait as `send`."""
        try:
            self.session.send_message(payload, id=id, type=type, chunk=chunk)
        except SessionClosed:
            self._drop(payload)
        await self.drain()

    async def drain(self) -> None:
        """Wait while more than `write_high_water` bytes are unsent."""
        while self.session.congested(self._clock()):
            await self._changed.wait()

    async def recv(self) -> AnyItem:
        """The next packet; the next message where `join_messages` is set. Cancelling the
        wait loses nothing.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
        """
        while (item := self._inbox.take()) is None:
            await self._changed.wait()
        return item

    @overload
    async def request(
        self: AsyncStream,
        packet: Packet | Payload,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Reply: ...
    @overload
    async def request(
        self, packet: AnyItem, *, match: Callable[[AnyItem], bool], timeout: float | None = None
    ) -> AnyItem: ...
    async def request(
        self: AsyncStream[Any],
        packet: Any,
        *,
        type: int | None = None,
        match: Callable[[Any], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Any:
        """Send a packet and wait for its reply, which `recv` then does not give. Any number of
        tasks may do so at once. Once cancelled, a reply that comes yet is dropped.

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
        return await ask(self.session, self._new_event, packet, type=type, match=match, timeout=timeout, wait=wait)

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        while not self.session.is_over:
            await self._changed.wait()

    async def run(self: A, function: Callable[[A], Awaitable[object]]) -> None:
        """Run an application over this stream, as a server does, and close it at the end.
        What it raises ends the session with HANDLER_ERROR."""
        try:
            await function(self)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self.session.failed(error, self._clock())
        finally:
            await self.close()

    def __aiter__(self) -> AsyncIterator[AnyItem]:
        return Items(self._inbox.take_queued, self._next)

    def __anext__(self) -> Awaitable[AnyItem]:
        return self.__aiter__().__anext__()

    async def _next(self) -> AnyItem:
        try:
            while (item := self._inbox.take()) is None:  # as `recv`, without a coroutine for that
                await self._changed.wait()
        except SessionClosed as closed:
            if closed.is_clean:
                raise StopAsyncIteration from None
            raise
        return item

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


@overload
async def ask(
    session: Session, new_event: Callable[[], AsyncEvent], packet: Packet | Payload, **options: Any
) -> Reply: ...
@overload
async def ask(
    session: Session[AnyPacket],
    new_event: Callable[[], AsyncEvent],
    packet: AnyPacket,
    *,
    match: Callable[[AnyPacket], bool],
    **options: Any,
) -> AnyPacket: ...
async def ask(session: Session[Any], new_event: Callable[[], AsyncEvent], packet: Any, **options: Any) -> Any:
    """Send a packet on a session and wait for its reply, as `AsyncStream.request` says.

    Args:
        new_event: makes an event of the runtime.
        options: what else `Session.request` takes.
    """
    replied, replies = new_event(), list[Any]()

    def done(reply: Any) -> None:
        replies.append(reply)
        replied.set()

    request = session.request(packet, done, **options)
    try:
        await replied.wait()
    finally:
        session.forget(request)
    return _given(replies[0])


class SyncStream(StreamBase[AnyItem]):
    """One conversation whose calls block a thread or a greenlet.

    `for packet in stream` ends when the conversation ends cleanly and raises `SessionClosed`
    when it breaks. `with stream` closes it. Several threads or greenlets may use it at once.

    Timeouts are in seconds, `None` waits for ever. After a `TimeoutError` the stream goes on.

    Args:
        inbox: where what comes is kept.
        clock: tells the time that the session's inputs are given.
        new_condition: makes a condition of the runtime.
    """

    def __init__(
        self, inbox: Inbox[AnyItem], clock: Callable[[], float], new_condition: Callable[[], SyncCondition]
    ) -> None:
        self._clock = clock
        self._new_condition = new_condition
        self._changed = new_condition()
        self._is_served = self._changed.is_served
        if not self._is_served:
            self.send = self._send_through  # type: ignore[method-assign]  # spares the others a look a packet
        super().__init__(inbox, self._changed.notify_all)
        if self._is_served and type(self).send is SyncStream.send:
            self.send = Sender(self.session, self._drain, self.send, SessionClosed)  # type: ignore[method-assign]

    def send(self, item: AnyItem, *, timeout: float | None = None) -> None:
        """Send a packet, or a message; wait while more than `write_high_water` bytes are unsent.
        Where sockets are served only while somebody waits, wait until the system has taken it.

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
            self._drop(item)
        else:
            if not has_room:
                self._drain(timeout)

    def send_message(
        self: SyncStream,
        payload: Payload,
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

    def recv(self, timeout: float | None = None) -> AnyItem:
        """The next packet; the next message where `join_messages` is set.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
            TimeoutError: none came in time; none is lost.
        """
        try:
            return self._inbox.take_queued()
        except IndexError:
            return self._next(timeout)

    @overload
    def request(
        self: SyncStream,
        packet: Packet | Payload,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Reply: ...
    @overload
    def request(
        self, packet: AnyItem, *, match: Callable[[AnyItem], bool], timeout: float | None = None
    ) -> AnyItem: ...
    def request(
        self: SyncStream[Any],
        packet: Any,
        *,
        type: int | None = None,
        match: Callable[[Any], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Any:
        """Send a packet and wait for its reply, which `recv` then does not give. Any number of
        threads or greenlets may do so at once.

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
        return ask_and_wait(
            self.session, self._new_condition, packet, type=type, match=match, timeout=timeout, wait=wait
        )

    def __iter__(self) -> Iterator[AnyItem]:
        return Items(self._inbox.take_queued, self._next_or_end)

    def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        self._changed.wait_for(lambda: self.session.is_over or None)

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

    def _next_or_end(self) -> AnyItem:
        try:
            return self._next(None)
        except SessionClosed as closed:
            if closed.is_clean:
                raise StopIteration from None
            raise

    def _next(self, timeout: float | None) -> AnyItem:
        """Wait for an item."""
        item: AnyItem | None = self._changed.wait_for(self._inbox.take, timeout)
        if item is None:
            raise TimeoutError(f"nothing was received within timeout={timeout} s")
        return item

    def _send_through(self, item: AnyItem, *, timeout: float | None = None) -> None:
        SyncStream.send(self, item, timeout=timeout)
        self._drain(timeout)

    def _drain(self, timeout: float | None = None) -> None:
        has_room = self._has_room if self._is_served else self._has_gone(self.session.bytes_sent)
        if self._changed.wait_for(has_room, timeout) is None:
            raise TimeoutError(f"{self.session.outstanding} bytes are still unsent after timeout={timeout} s")

    def _has_room(self) -> bool | None:
        return not self.session.congested(self._clock()) or None

    def _has_gone(self, sent: int) -> Callable[[], bool | None]:
        """Whether the system has taken what was sent by now: others may send on."""
        session = self.session

        def has_gone() -> bool | None:
            if session.outstanding:
                session.flush(self._clock())
            return session.bytes_gone >= sent or not session.is_open or None

        return has_gone


@overload
def ask_and_wait(
    session: Session, new_condition: Callable[[], SyncCondition], packet: Packet | Payload, **options: Any
) -> Reply: ...
@overload
def ask_and_wait(
    session: Session[AnyPacket],
    new_condition: Callable[[], SyncCondition],
    packet: AnyPacket,
    *,
    match: Callable[[AnyPacket], bool],
    **options: Any,
) -> AnyPacket: ...
def ask_and_wait(session: Session[Any], new_condition: Callable[[], SyncCondition], packet: Any, **options: Any) -> Any:
    """Send a packet on a session and wait for its reply, as `SyncStream.request` says.

    Args:
        new_condition: makes a condition of the runtime.
        options: what else `Session.request` takes.
    """
    replied, replies = new_condition(), list[Any]()

    def done(reply: Any) -> None:
        replies.append(reply)
        replied.notify_all()

    request = session.request(packet, done, **options)
    try:
        replied.wait_for(lambda: replies or None)
    finally:
        session.forget(request)
    # Nobody may have told: who served the session has been stopped.
    return _given(replies[0] if replies else SessionClosed(session.close_reason))


def _given(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply
