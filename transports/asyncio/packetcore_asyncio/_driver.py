"""asyncio on a thread of its own, for tools that are not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

from packetcore import Driver
from packetcore_asyncio._pool import ConnectionPool
from packetcore_asyncio._stream import Stream
from packetcore_asyncio._tcp import connect, serve
from packetcore_asyncio._udp import connect_udp, serve_udp


class AsyncioDriver(Driver):
    """Runs an event loop: uvloop's where that is installed and PACKETCORE_NO_UVLOOP is not
    set in the environment. See `packetcore.Driver`."""

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        super().__init__(serve, connect, _echo, serve_udp, connect_udp, ConnectionPool)
        self._loop = (new_event_loop or _fastest_event_loop)()
        self._thread = threading.Thread(target=self._loop.run_forever, name="packetcore-asyncio", daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        async def called() -> Any:
            result = function(*args)
            return await result if inspect.isawaitable(result) else result

        coroutine = called()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except BaseException:  # interrupted by Ctrl-C, or the loop is closed
            coroutine.close()
            raise
        return self.result(future, timeout)

    def capabilities(self) -> frozenset[str]:
        is_uvloop = type(self._loop).__module__.startswith("uvloop")
        return frozenset({"tcp", "tls", "udp", "reconnect", "pool"} | ({"uvloop"} if is_uvloop else set()))

    def stop(self) -> None:
        if not self._loop.is_closed():
            self.close_all()
            self.call(_cancel_others)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _echo(stream: Stream) -> None:
    async for item in stream:
        await stream.send(item)


def _fastest_event_loop() -> asyncio.AbstractEventLoop:
    if not os.environ.get("PACKETCORE_NO_UVLOOP"):
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop()
    return asyncio.new_event_loop()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
