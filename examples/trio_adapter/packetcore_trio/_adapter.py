"""All that an application imports."""

from __future__ import annotations

import trio
from trio.lowlevel import checkpoint

from packetcore import AsyncStream, Message, Packet
from packetcore_sockets import AsyncAdapter, AsyncClient, AsyncConnectionPool, AsyncServer
from packetcore_trio._runtime import TrioRuntime


class Stream(AsyncStream):
    """One conversation, to be used from tasks of its own run. Who never has to wait for it lets
    other tasks run nevertheless."""

    async def send(self, item: Packet | Message) -> None:
        await super().send(item)
        await checkpoint()

    async def drain(self) -> None:
        await checkpoint()
        await super().drain()

    async def recv(self) -> Packet | Message:
        await checkpoint()
        return await super().recv()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Packet | Message:
        await checkpoint()
        return await super().__aiter__().__anext__()


class Server(AsyncServer):
    __doc__ = AsyncServer.__doc__

    async def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. Cancelling this aborts at once, and waits until that is done."""
        try:
            await super().close(grace)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await super().close(0.0)
            raise


class Client(AsyncClient):
    __doc__ = AsyncClient.__doc__

    async def close(self) -> None:
        """See `packetcore.ClientBase`. If this is cancelled, the closing goes on."""
        try:
            await super().close()
        except trio.Cancelled:
            self.endpoint.runtime.spawn(super().close(), lambda: None)
            raise


adapter = AsyncAdapter(TrioRuntime, Stream, Server, Client)


class ConnectionPool(AsyncConnectionPool[Stream]):
    __doc__ = AsyncConnectionPool.__doc__
    adapter = adapter
