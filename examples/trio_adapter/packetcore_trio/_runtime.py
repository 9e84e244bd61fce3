"""trio as a `packetcore_sockets.Runtime`: all that goes on is a task of one nursery."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import trio
from trio.lowlevel import current_trio_token, wait_readable, wait_writable

from packetcore import Handle
from packetcore_sockets import Found, Runtime

Callback = Callable[[], object]


class TrioRuntime(Runtime):
    """The run that makes this.

    Args:
        nursery: where it runs tasks. Cancelling that aborts what lives there; it ends by itself once
            all of that was closed.
    """

    time = staticmethod(trio.current_time)
    new_event = staticmethod(trio.Event)

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        """Where it runs tasks."""
        self._token = current_trio_token()
        self._watching: dict[tuple[socket.socket, object], Handle] = {}
        self._held: dict[Callback, trio.Event] = {}

    def call_soon(self, callback: Callback) -> None:
        self._token.run_sync_soon(self._call, callback)

    def call_at(self, when: float, callback: Callback) -> Handle:
        return self._call_after(partial(trio.sleep_until, when), callback, again=False)

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

        self.nursery.start_soon(run)
        return scope

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

    def look_up(
        self, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
    ) -> None:
        """By the resolver that trio is set to."""

        async def ask() -> None:
            found: Found = ConnectionAbortedError("the nursery was cancelled")
            try:
                found = await trio.socket.getaddrinfo(host, port, type=kind, flags=flags)
            except Exception as error:
                found = error
            finally:
                done(found)

        self.nursery.start_soon(ask)

    def _watch(
        self, sock: socket.socket, wait: Callable[[socket.socket], Awaitable[None]], callback: Callback | None
    ) -> None:
        if (watching := self._watching.pop((sock, wait), None)) is not None:
            watching.cancel()  # trio lets go of the socket at once: the next thing may be that it is closed
        if callback is not None:
            self._watching[sock, wait] = self._call_after(partial(wait, sock), callback, again=True)

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except BaseException as error:  # for the nursery to raise: here trio would take it for a fault of its own
            self.call_at(self.time(), partial(_fail, error))

    def _call_after(self, wait: Callable[[], Awaitable[None]], callback: Callback, *, again: bool) -> Handle:
        """Call something after a wait, or after each, until cancelled. Once the nursery has closed
        nothing goes on any more."""
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                while not scope.cancel_called:
                    await wait()
                    if not scope.cancel_called:
                        callback()
                    if not again:
                        break

        with suppress(RuntimeError):
            self.nursery.start_soon(run)
        return scope


def _fail(error: BaseException) -> None:
    raise error
