"""asyncio on a thread of its own, for tools that are not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from packetcore_asyncio._adapter import ConnectionPool, adapter
from packetcore_asyncio._runtime import EventLoop
from packetcore_sockets import AsyncDriver, Started


class AsyncioDriver(AsyncDriver):
    """Runs an event loop: uvloop's where that is installed and PACKETCORE_NO_UVLOOP is not
    set in the environment. See `packetcore.Driver`."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._loop = (new_event_loop or _fastest_event_loop)()
        super().__init__(adapter, ConnectionPool)

    def run(self, started: Started) -> None:
        """See `packetcore_sockets.ThreadDriver`."""
        self._loop.run_until_complete(_run(started))
        self._loop.close()

    def capabilities(self) -> frozenset[str]:
        """See `packetcore.Driver`."""
        is_uvloop = type(self._loop).__module__.startswith("uvloop")
        return super().capabilities() | ({"uvloop"} if is_uvloop else set())


async def _run(started: Started) -> None:
    stopping = asyncio.Event()
    started(EventLoop(), stopping.set)
    await stopping.wait()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _fastest_event_loop() -> asyncio.AbstractEventLoop:
    if not os.environ.get("PACKETCORE_NO_UVLOOP"):
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
