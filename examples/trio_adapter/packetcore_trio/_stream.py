"""A session as a task sees it: await what comes, await room for what goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from packetcore import AsyncStream, Inbox, Message, Packet, Reply, SessionClosed


class Stream(AsyncStream):
    """One conversation, for tasks of the run that it was made in. `async for` ends when the
    conversation ends cleanly and raises `packetcore.SessionClosed` when it breaks.
    `async with` closes it."""

    def __init__(self, inbox: Inbox) -> None:
        self._changed = trio.lowlevel.ParkingLot()
        super().__init__(inbox, self._changed.unpark_all)

    async def send(self, item: Packet | Message) -> None:
        """Send as `Session.send`; wait while more than `write_high_water` bytes are unsent.
        Cancelling the wait does not unsend the packet."""
        try:
            self.session.send(item)
        except SessionClosed:
            self._drop(item.payload)
        await self._drain()

    async def send_message(self, payload: bytes, *, id: int, type: int = 0, chunk: int | None = None) -> None:
        """Send as `Connection.send_message`, and wait as `send`."""
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
        """Send a packet and wait for its reply, which `recv` then does not give; see
        `Session.request`. Any number of tasks may do so at once. Raises `TimeoutError` if no
        reply came within `timeout` seconds. Once cancelled, a reply that comes yet is dropped."""
        replies: list[Reply | Exception] = []
        replied = trio.Event()

        def done(reply: Reply | Exception) -> None:
            replies.append(reply)
            replied.set()

        request = self.session.request(packet, done, type=type, match=match, timeout=timeout, wait=wait)
        try:
            await replied.wait()
        finally:
            self.session.forget(request)
        if isinstance(replies[0], Exception):
            raise replies[0]
        return replies[0]

    async def recv(self) -> Packet | Message:
        """The next packet; the next message where `join_messages` is set. Raises as
        `Inbox.take`. Cancelling the wait loses nothing."""
        await trio.lowlevel.checkpoint()  # a reader who never has to wait lets others run
        while (item := self._inbox.take()) is None:
            await self._changed.park()
        return item

    async def __anext__(self) -> Packet | Message:
        await trio.lowlevel.checkpoint()
        return await super().__anext__()

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        while not self.session.is_over:
            await self._changed.park()

    async def run(self, function: StreamFunction) -> None:
        """Run an application over this stream, and close it at the end."""
        try:
            await function(self)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            self.session.failed(error, trio.current_time())
        finally:
            await self.close()

    async def _drain(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.session.congested(trio.current_time()):
            await self._changed.park()


StreamFunction = Callable[[Stream], Awaitable[object]]
"""An application over a stream. When it returns, the stream is closed."""
