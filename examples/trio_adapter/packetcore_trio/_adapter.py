"""All that an application imports."""

from __future__ import annotations

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


Server = AsyncServer
Client = AsyncClient

adapter = AsyncAdapter(TrioRuntime, Stream, Server, Client)
serve, connect, request = adapter.serve, adapter.connect, adapter.request
serve_udp, connect_udp = adapter.serve_udp, adapter.connect_udp


class ConnectionPool(AsyncConnectionPool[Stream]):
    adapter = adapter
