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
from packetcore_asyncio._opening import Accepting, Opening, Reaching
from packetcore_asyncio._racing import connected
from packetcore_asyncio._socket import SocketProtocol
from packetcore_asyncio._tls import TLSProtocol
from packetcore_sockets import ATTEMPT_DELAY, Attempts, Records, Runtime, TLSRecords, checked_delay, is_address, prepare


class EventLoop(Runtime):
    """The event loop that runs. Its verbs are those of `packetcore_sockets`."""

    def __init__(self) -> None:
        self.loop = loop = asyncio.get_running_loop()
        """The event loop itself."""
        self.is_uvloop = type(loop).__module__.startswith("uvloop")
        """See `Place`."""
        self._thread = get_ident()
        # A loop that has asyncio's own way to tell the time is asked without the detour.
        is_usual = getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
        self.time: Callable[[], float] = monotonic if is_usual else loop.time

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
        try:
            tls = None if context is None else TLSRecords(context, server_side=True)
        except OSError:  # a context for the other side
            sock.close()
            raise
        return self._accept(endpoint, sock, peer, tls, done)

    def accept_over(
        self,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        records: SSLContext | Records,
        done: Callable[[Session[Any] | Exception], object],
    ) -> Handle:
        """See `packetcore_sockets.Network`."""
        over = records if isinstance(records, Records) else TLSRecords(records, server_side=True)
        return self._accept(endpoint, sock, peer, over, done)

    def _accept(
        self,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        tls: Records | None,
        done: Callable[[Session[Any] | Exception], object],
    ) -> Handle:
        if self.is_uvloop:
            sock.setblocking(False)  # uvloop does the rest itself; asyncio's loop not for a socket that was accepted
        else:
            prepare(sock)
        if tls is None:
            accepting = Accepting(self.loop, sock, done)
            protocol = SocketProtocol(endpoint, self, accepting, peer)
            accepting.begin(self.loop.connect_accepted_socket(lambda: protocol, sock))
            return accepting

        async def reach(opening: Opening) -> None:
            protocol = self._protocol(endpoint, opening, peer, tls)
            await self.loop.connect_accepted_socket(lambda: protocol, sock)

        opening = Reaching(self.loop, reach, endpoint.config.connect_timeout, TimeoutError, done)
        if opening.drop is None:  # its task has not begun, and may be given up before it does
            opening.drop = sock.close
        return opening

    def dialler(
        self,
        host: str,
        port: int,
        *,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
        attempt_delay: float = ATTEMPT_DELAY,
        **options: Any,
    ) -> Dial:
        """See `packetcore_sockets.Network`.

        Args:
            ssl: `True` means the default context.
            server_hostname: "" asks for none, as in asyncio.
            attempt_delay: for a name; see `packetcore_sockets.Attempts`.
            options: what else `loop.create_connection` takes for plain TCP, which then goes its own way
                about the addresses of a name, too.

        Raises:
            ValueError: `attempt_delay` is not within what RFC 8305 recommends.
        """
        name = (host if server_hostname is None else server_hostname) or None

        async def new_records() -> Records | None:
            # The default context reads files.
            context = await self.loop.run_in_executor(None, create_default_context) if ssl is True else ssl
            return TLSRecords(context, server_hostname=name) if context else None

        return self._dialler(host, port, new_records, attempt_delay, options)

    def dialler_over(
        self, host: str, port: int, new_records: Callable[[], Records], *, attempt_delay: float = ATTEMPT_DELAY
    ) -> Dial:
        """See `packetcore_sockets.Network`."""

        async def at_once() -> Records:
            return new_records()

        return self._dialler(host, port, at_once, attempt_delay, {})

    def _dialler(
        self,
        host: str,
        port: int,
        new_records: Callable[[], Coroutine[Any, Any, Records | None]],
        attempt_delay: float,
        options: dict[str, Any],
    ) -> Dial:
        delay = checked_delay(attempt_delay)
        is_one = bool(options) or is_address(host)  # of which uvloop's look-up loses the scope

        async def reach(endpoint: Endpoint[Any], told: list[Attempts], opening: Opening) -> None:
            protocol = self._protocol(endpoint, opening, None, await new_records())
            if is_one:
                await self.loop.create_connection(lambda: protocol, host, port, **options)
                return
            infos: Any = await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            told.append(Attempts(infos, delay))
            sock = await connected(self.loop, self, told[0])
            if sock is None:
                raise told[0].error(host, port)
            await self.loop.create_connection(lambda: protocol, sock=sock)

        def dial(endpoint: Endpoint[Any], done: Callable[[Session[Any] | Exception], object]) -> Handle:
            told: list[Attempts] = []

            def timed_out() -> Exception:
                error = endpoint.connect_timed_out(host, port)
                return told[0].timed_out(error) if told else error

            limit = endpoint.config.connect_timeout
            return Reaching(self.loop, partial(reach, endpoint, told), limit, timed_out, done)

        return dial

    def _protocol(
        self, endpoint: Endpoint[Any], opening: Opening, peer: Address | None, tls: Records | None
    ) -> SocketProtocol:
        if tls is None:
            return SocketProtocol(endpoint, self, opening, peer)
        return TLSProtocol(endpoint, self, opening, peer, tls)


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
