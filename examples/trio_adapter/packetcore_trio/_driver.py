"""trio on a thread of its own, for tools that are not asynchronous."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from packetcore import Driver
from packetcore_trio._pool import ConnectionPool
from packetcore_trio._stream import Stream
from packetcore_trio._tcp import connect, serve
from packetcore_trio._udp import connect_udp, serve_udp


class TrioDriver(Driver):
    """Runs trio. See `packetcore.Driver`."""

    def __init__(self) -> None:
        running = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main, running), daemon=True)
        self._thread.start()
        running.wait()
        super().__init__(
            partial(serve, nursery=self._nursery),
            partial(connect, nursery=self._nursery),
            _echo,
            partial(serve_udp, nursery=self._nursery),
            partial(connect_udp, nursery=self._nursery),
            partial(ConnectionPool, nursery=self._nursery),
        )

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        async def called() -> Any:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                result = function(*args)
                return await result if inspect.isawaitable(result) else result
            raise TimeoutError(f"not done after {timeout} s")

        try:
            return trio.from_thread.run(called, trio_token=self._token)
        except trio.Cancelled:
            raise TimeoutError("cancelled: the driver was stopped") from None

    def capabilities(self) -> frozenset[str]:
        return frozenset({"tcp", "tls", "udp", "reconnect", "pool"})

    def stop(self) -> None:
        if self._thread.is_alive():
            self.close_all()
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
            self._thread.join()

    async def _main(self, running: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            running.set()
            await trio.sleep_forever()


async def _echo(stream: Stream) -> None:
    async for item in stream:
        await stream.send(item)
