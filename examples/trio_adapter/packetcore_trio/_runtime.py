"""trio as a `packetcore_sockets.Runtime`: all that goes on is a task in one nursery."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio
from trio.lowlevel import checkpoint, current_trio_token, wait_readable, wait_writable

from packetcore import AsyncCondition, Handle
from packetcore_sockets import Found, Runtime

Callback = Callable[[], object]


class TrioRuntime(Runtime):
    """A nursery. Cancelling it aborts what lives in it; it ends by itself once all of that was closed."""

    time = staticmethod(trio.current_time)
    new_event = staticmethod(trio.Event)

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self._token = current_trio_token()
        self._watching: dict[tuple[socket.socket, object], Handle] = {}
        self._held: dict[Callback, trio.Event] = {}

    def call_soon(self, callback: Callback) -> None:
        self._token.run_sync_soon(self._call, callback)

    def call_at(self, when: float, callback: Callback) -> Handle:
        async def fire() -> None:
            await trio.sleep_until(when)
            await checkpoint()  # sockets that are ready come first
            callback()

        return self._start(fire)

    def set_reader(self, sock: socket.socket, callback: Callback | None) -> None:
        self._watch(sock, wait_readable, callback)

    def set_writer(self, sock: socket.socket, callback: Callback | None) -> None:
        self._watch(sock, wait_writable, callback)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callback) -> Handle:
        scope = trio.CancelScope()

        async def run() -> None:
            try:
                with suppress(Exception), scope:
                    await coroutine
            finally:
                done()

        try:
            self.nursery.start_soon(run)
        except RuntimeError:  # it has closed
            coroutine.close()
            done()
        return scope

    def look_up(
        self, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
    ) -> None:
        """By the resolver that trio is set to."""

        async def ask() -> None:
            found: Found
            try:
                found = await trio.socket.getaddrinfo(host, port, type=kind, flags=flags)
            except Exception as error:
                found = error
            done(found)

        self._start(ask)

    async def within(self, limit: float | None, changed: AsyncCondition, predicate: Callable[[], object]) -> None:
        """In a scope that was cancelled already, this belongs to the end of what was cancelled."""
        with trio.CancelScope(shield=trio.current_effective_deadline() == float("-inf")):
            await super().within(limit, changed, predicate)

    def hold(self, end: Callback) -> None:
        released = self._held[end] = trio.Event()

        async def live() -> None:
            try:
                await released.wait()
            finally:
                if self._held.pop(end, None) is not None:
                    end()

        self.nursery.start_soon(live)

    def release(self, end: Callback) -> None:
        if (released := self._held.pop(end, None)) is not None:
            released.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[TrioRuntime]:
        """What is begun ends with the nursery, wherever it is awaited."""
        with trio.CancelScope() as scope:
            self.hold(scope.cancel)
            try:
                yield self
            finally:
                self.release(scope.cancel)
        if scope.cancelled_caught:
            raise ConnectionAbortedError("the nursery was cancelled")

    def _watch(
        self, sock: socket.socket, wait: Callable[[socket.socket], Awaitable[None]], callback: Callback | None
    ) -> None:
        if (watching := self._watching.pop((sock, wait), None)) is not None:
            watching.cancel()  # trio lets go of the socket at once: the next thing may be that it is closed
        if callback is None:
            return

        async def watch() -> None:
            while not scope.cancel_called:
                await wait(sock)
                if not scope.cancel_called:
                    callback()

        scope = self._watching[sock, wait] = self._start(watch)

    def _start(self, function: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        """Run something until it is cancelled; once the nursery has closed, not at all."""
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await function()

        with suppress(RuntimeError):
            self.nursery.start_soon(run)
        return scope

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except BaseException as error:  # the nursery is to raise it: here trio would call it a fault of its own
            self.call_at(self.time(), partial(_fail, error))


def _fail(error: BaseException) -> None:
    raise error
