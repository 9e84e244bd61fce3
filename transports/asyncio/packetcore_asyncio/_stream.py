"""A session as a coroutine sees it: await what comes, await room for what goes."""

from __future__ import annotations

import asyncio
from types import TracebackType

from packetcore import Address, CloseReason, Inbox, Message, Packet, Session, SessionClosed


class Stream:
    """One conversation, to be used from coroutines on its event loop.

    `async for packet in stream` ends when the conversation ends cleanly and raises
    `packetcore.SessionClosed` when it breaks. `async with` closes it.
    """

    def __init__(self, inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
        self._inbox = inbox
        self._loop = loop
        self._waiters: set[asyncio.Future[None]] = set()
        inbox.on_change = self._wake

    @property
    def session(self) -> Session:
        """The session underneath: its id, stats, `bind` and `abort`."""
        return self._inbox.session

    @property
    def peer(self) -> Address:
        """The peer's address."""
        return self.session.peer

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the conversation ended; `None` while it has not."""
        return self.session.close_reason

    async def send(self, packet: Packet) -> None:
        """Send a packet; wait while more than `write_high_water` bytes are unsent.

        Packets of several tasks never mix. Cancelling the wait does not unsend the packet.

        Raises:
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        self.session.send(packet)
        await self._drain()

    async def send_message(
        self, payload: bytes | bytearray | memoryview, *, id: int, type: int = 0, chunk: int | None = None
    ) -> None:
        """Send a payload as one packet, or as several of at most `chunk` bytes each.

        Raises:
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: `chunk` exceeds `max_payload`.
            ValueError: a field is out of range, or it takes more than 65535 packets.
        """
        self.session.send_message(payload, id=id, type=type, chunk=chunk)
        await self._drain()

    async def recv(self) -> Packet | Message:
        """The next packet; the next message where `join_messages` is set. Cancelling the
        wait loses nothing.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
        """
        while (item := self._inbox.take()) is None:
            await self._change()
        return item

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Packet | Message:
        try:
            return await self.recv()
        except SessionClosed as closed:
            if closed.reason is not None and closed.reason.is_clean:
                raise StopAsyncIteration from None
            raise

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        while not self.session.is_over:
            await self._change()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _drain(self) -> None:
        while self.session.congested(self._loop.time()):
            await self._change()

    async def _change(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
