"""Tornado on a thread of its own, for tools that know no coroutines."""

from __future__ import annotations

import asyncio

from tornado.locks import Event

from packetcore_sockets import AsyncDriver, Started
from packetcore_tornado._adapter import ConnectionPool, adapter
from packetcore_tornado._runtime import TornadoRuntime


class TornadoDriver(AsyncDriver):
    """Runs an `IOLoop`. See `packetcore.Driver`."""

    def __init__(self) -> None:
        super().__init__(adapter, ConnectionPool)

    def run(self, started: Started) -> None:
        async def main() -> None:
            over = Event()
            started(TornadoRuntime(), over.set)
            await over.wait()

        asyncio.run(main())
