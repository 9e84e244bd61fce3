"""A stream that gives other tasks their turn."""

from __future__ import annotations

from trio.lowlevel import checkpoint

from packetcore import AnyItem, AsyncStream


class Stream(AsyncStream[AnyItem]):
    """One conversation, to be used from tasks of its own run. Who never has to wait for it lets
    other tasks run nevertheless."""

    async def send(self, item: AnyItem) -> None:
        await super().send(item)
        await checkpoint()

    async def drain(self) -> None:
        await checkpoint()
        await super().drain()

    async def recv(self) -> AnyItem:
        await checkpoint()
        return await super().recv()

    def __aiter__(self) -> Stream[AnyItem]:
        return self

    async def __anext__(self) -> AnyItem:
        await checkpoint()
        return await super().__aiter__().__anext__()
