"""A session as a task sees it: await what comes, await room for what goes."""

from __future__ import annotations

import trio

from packetcore import AsyncStream, Inbox, Message, Packet


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
        self._send(item)
        await self._drain()

    async def send_message(self, payload: bytes, *, id: int, type: int = 0, chunk: int | None = None) -> None:
        """Send as `Connection.send_message`, and wait as `send`."""
        self.session.send_message(payload, id=id, type=type, chunk=chunk)
        await self._drain()

    async def recv(self) -> Packet | Message:
        """The next packet; the next message where `join_messages` is set. Raises as
        `Inbox.take`. Cancelling the wait loses nothing."""
        await trio.lowlevel.checkpoint()  # a reader who never has to wait lets others run
        while (item := self._inbox.take()) is None:
            await self._changed.park()
        return item

    async def close(self) -> None:
        """Send what is unsent, close, and wait until the conversation is over, which takes
        `close_timeout` at most."""
        self.session.close()
        while not self.session.is_over:
            await self._changed.park()

    async def _drain(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.session.congested(trio.current_time()):
            await self._changed.park()
