"""A client that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import random

from packetcore import Backoff, ClientBase, Config, Endpoint, Handler
from packetcore_asyncio._functions import Functions, StreamFunction
from packetcore_asyncio._runtime import tie


class Client(ClientBase):
    """A client that comes back; `connect` with `reconnect` gives it. `async with` closes it at
    the end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        dial: Callable[[Endpoint], Awaitable[object]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._functions = Functions(self._loop)
        self._changed = asyncio.Event()
        self._dial = dial
        super().__init__(
            handler, self._functions.start, config, reconnect, keep=keep, random=random, clock=self._loop.time
        )
        tie(self.endpoint, self._loop, self._stop)
        self._dial_after(0)

    async def close(self) -> None:
        """See `packetcore.ClientBase`. It takes `close_timeout` at most."""
        self._stop()
        while self.session is not None:
            self._changed.clear()
            await self._changed.wait()
        await asyncio.gather(self._dialing, *self._functions.running, return_exceptions=True)

    def _stop(self) -> None:
        self._begin_closing()
        self._dialing.cancel()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _dial_after(self, delay: float) -> None:
        self._dialing = self._loop.create_task(self._try_after(delay))

    async def _try_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            await self._dial(self.endpoint)
        except Exception as error:
            self._failed(error)

    def _on_change(self) -> None:
        self._changed.set()
