"""An event loop as a `packetcore_sockets.Runtime`. TCP goes by its own transports: uvloop does not
call back on a reset, and the proactor of Windows has no readers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from ssl import SSLContext, create_default_context
from threading import get_ident
from time import monotonic
from typing import Any

from packetcore import Address, Dial, Endpoint, Handle, Session
from packetcore_asyncio._opening import Opening
from packetcore_asyncio._socket import SocketProtocol
from packetcore_asyncio._tls import TLSProtocol
from packetcore_sockets import Runtime, TLSRecords, prepare


class EventLoop(Runtime):
    """The event loop that runs. Its verbs are those of `packetcore_sockets`."""

    def __init__(self) -> None:
        self.loop = loop = asyncio.get_running_loop()
        """The event loop itself."""
        self._thread = get_ident()
        # A loop that has asyncio's own way to tell the time is asked without the detour.
        is_usual = getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
        self.time = monotonic if is_usual else loop.time  # type: ignore[method-assign]

    def time(self) -> float:
        return self.loop.time()

    def call_soon(self, callback: Callable[[], object]) -> None:
        if get_ident() == self._thread:
            self.loop.call_soon(callback)
        else:
            self.loop.call_soon_threadsafe(callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        return self.loop.call_at(when, callback)

    def new_event(self) -> Event:
        return Event(self.loop)

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        if callback is None:
            self.loop.remove_reader(sock)
        else:
            self.loop.add_reader(sock, callback)

    def set_writer(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        if callback is None:
            self.loop.remove_writer(sock)
        else:
            self.loop.add_writer(sock, callback)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callable[[], object]) -> Handle:
        task = self.loop.create_task(coroutine)
        task.add_done_callback(lambda task: done())
        return task

    def accept(
        self,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        context: SSLContext | None,
        done: Callable[[Session[Any] | Exception], object],
    ) -> Handle | None:
        prepare(sock)
        try:
            tls = None if context is None else TLSRecords(context, server_side=True)
        except OSError:  # a context for the other side
            sock.close()
            raise

        async def reach(opening: Opening) -> None:
            protocol = self._protocol(endpoint, opening, peer, tls)
            await self.loop.connect_accepted_socket(lambda: protocol, sock)

        limit = None if tls is None else endpoint.config.connect_timeout
        return Opening(self.loop, reach, limit, TimeoutError, done)

    def dialler(
        self,
        host: str,
        port: int,
        *,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> Dial:
        """See `packetcore_sockets.Network`.

        Args:
            ssl: `True` means the default context.
            server_hostname: "" asks for none, as in asyncio.
            options: what else `loop.create_connection` takes for plain TCP.
        """
        name = (host if server_hostname is None else server_hostname) or None

        async def reach(endpoint: Endpoint[Any], opening: Opening) -> None:
            # The default context reads files.
            context = await self.loop.run_in_executor(None, create_default_context) if ssl is True else ssl
            tls = TLSRecords(context, server_hostname=name) if context else None
            protocol = self._protocol(endpoint, opening, None, tls)
            await self.loop.create_connection(lambda: protocol, host, port, **options)

        def dial(endpoint: Endpoint[Any], done: Callable[[Session[Any] | Exception], object]) -> Handle:
            limit, timed_out = endpoint.config.connect_timeout, partial(endpoint.connect_timed_out, host, port)
            return Opening(self.loop, partial(reach, endpoint), limit, timed_out, done)

        return dial

    def _protocol(
        self, endpoint: Endpoint[Any], opening: Opening, peer: Address | None, tls: TLSRecords | None
    ) -> SocketProtocol:
        if tls is None:
            return SocketProtocol(endpoint, self.loop, self.time, opening, peer)
        return TLSProtocol(endpoint, self.loop, self.time, opening, peer, tls)


class Event:
    """Wakes tasks, once, for half of what asyncio's own costs: the `packetcore.AsyncEvent`."""

    __slots__ = ("_is_set", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._is_set = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        waiter = self._loop.create_future()
        if self._is_set:
            waiter.set_result(None)
        else:
            self._waiting.append(waiter)
        return waiter
