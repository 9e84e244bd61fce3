"""trio on a thread of its own, for tools that know no tasks."""

from __future__ import annotations

from typing import Any

import trio

from packetcore_sockets import AsyncDriver, Started
from packetcore_trio._adapter import ConnectionPool, adapter
from packetcore_trio._runtime import TrioRuntime


class TrioDriver(AsyncDriver):
    """Runs trio. See `packetcore.Driver`."""

    runtime: TrioRuntime

    def __init__(self) -> None:
        super().__init__(adapter, ConnectionPool)

    def where(self) -> dict[str, Any]:
        return {"nursery": self.runtime.nursery}

    def run(self, started: Started) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                started(TrioRuntime(nursery), nursery.cancel_scope.cancel)
                await trio.sleep_forever()

        trio.run(main)
