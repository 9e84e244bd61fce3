"""A session as a coroutine sees it: await what comes, await room for what goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from packetcore import AsyncStream, Inbox, Message, Packet, Reply, SessionClosed


class Stream(AsyncStream):
    """One conversation, to be used from coroutines on its event loop.

    `async for packet in stream` ends when the conversation ends cleanly and raises
    `packetcore.SessionClosed` when it breaks. `async with` closes it.
    """

    def __init__(self, inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed = asyncio.Event()
        super().__init__(inbox, self._changed.set)

    async def send(self, item: Packet | Message) -> None:
        """Send a packet, or a message; wait while more than `write_high_water` bytes are unsent.

        Packets of several tasks never mix. Cancelling the wait does not unsend the packet.

        Raises:
            SessionClosed: the conversation is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        try:
            has_room = self.session.send(item)
        except SessionClosed:
            self._drop(item.payload)
        else:
            if not has_room:
                await self._drain()

    async def send_message(
        self, payload: bytes | bytearray | memoryview, *, id: int, type: int = 0, chunk: int | None = None
    ) -> None:
        """Send a payload as `packetcore.Connection.send_message` does, and wait as `send`."""
        try:
            self.session.send_message(payload, id=id, type=type, chunk=chunk)
        except SessionClosed:
            self._drop(payload)
        await self._drain()

    async def request(
        self,
        packet: Packet | bytes | bytearray | memoryview,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Reply:
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
        replied: asyncio.Future[Reply] = self._loop.create_future()
        request = self.session.request(
            packet, partial(_settle, replied), type=type, match=match, timeout=timeout, wait=wait
        )
        try:
            return await replied
        finally:
            self.session.forget(request)

    async def recv(self) -> Packet | Message:
        """The next packet; the next message where `join_messages` is set. Cancelling the
        wait loses nothing.

        Raises:
            SessionClosed: there will be no more. After PEER a reply is still possible.
        """
        while (item := self._inbox.take()) is None:
            await self._change()
        return item

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        while not self.session.is_over:
            await self._change()

    async def _drain(self) -> None:
        while self.session.congested(self._loop.time()):
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()  # whoever else waits was told, though it may not have run yet
        await self._changed.wait()


def _settle(replied: asyncio.Future[Reply], reply: Reply | Exception) -> None:
    if replied.done():
        return
    if isinstance(reply, Exception):
        replied.set_exception(reply)
    else:
        replied.set_result(reply)
