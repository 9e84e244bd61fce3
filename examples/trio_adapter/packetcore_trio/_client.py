"""A client that comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import random

import trio

from packetcore import Backoff, ClientBase, Config, Endpoint, Handler, Inbox
from packetcore_trio._runtime import tie
from packetcore_trio._stream import Stream, StreamFunction


class Client(ClientBase):
    """A client that comes back; `connect` with `reconnect` gives it. `async with` closes it at
    the end, and so does cancelling the nursery that it runs in."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        dial: Callable[[Endpoint, trio.Nursery], Awaitable[object]],
    ) -> None:
        self._dial = dial
        self._gone = trio.Event()
        super().__init__(handler, self._start, config, reconnect, keep=keep, random=random, clock=trio.current_time)

    async def close(self) -> None:
        """As `ClientBase.close`; the functions over its streams have ended too then. If this is
        cancelled, the closing goes on."""
        self._begin_closing()
        self._dialing.cancel()
        await self._gone.wait()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until it was closed. There is always a task before that, and at the end none: one
        that waits to dial, or dials, or runs the connection, which starts the next as it ends."""
        try:
            async with trio.open_nursery() as self._nursery:
                tie(self.endpoint, self._nursery)
                self._dial_after(0)
                task_status.started()
        finally:
            self._begin_closing()
            self._gone.set()

    def _start(self, function: StreamFunction, inbox: Inbox) -> None:
        self._nursery.start_soon(Stream(inbox).run, function)

    def _dial_after(self, delay: float) -> None:
        self._dialing = trio.CancelScope()
        self._nursery.start_soon(self._try_after, delay, self._dialing)

    async def _try_after(self, delay: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(delay)
            try:
                await self._dial(self.endpoint, self._nursery)
            except Exception as error:
                self._failed(error)

    def _on_change(self) -> None:
        """`close` waits for `run`."""
