"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext, create_default_context
from typing import Any, overload

from packetcore import Address, Backoff, Config, Endpoint, Handler, Inbox, Refusal, ServerBase, Session, SessionPool
from packetcore_asyncio._client import Client
from packetcore_asyncio._functions import Functions, StreamFunction
from packetcore_asyncio._runtime import tie
from packetcore_asyncio._socket import SocketProtocol
from packetcore_asyncio._stream import Stream
from packetcore_asyncio._tls import TLSProtocol
from packetcore_sockets import ACCEPT_PAUSE, BACKLOG, Listener, TLSRecords, open_tcp_listeners, prepare


class Server(ServerBase):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        sessions: SessionPool[Session] | None = None,
        endpoint: Callable[..., Endpoint] = Endpoint,
        ssl: SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._functions = Functions(self._loop)
        self._ssl = ssl
        self._listeners: list[Listener] = []
        self._opening: set[asyncio.Task[None]] = set()
        super().__init__(handler, self._functions.start, config, endpoint=endpoint, sessions=sessions)
        tie(self.endpoint, self._loop, self._stop_listening)

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close. `SystemExit` and `KeyboardInterrupt` of a handler
        close the server too, and come out of the event loop as they would without it."""
        try:
            await self._loop.create_future()
        finally:
            await self.close()

    async def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. Cancelling this aborts at once."""
        self._stop_listening()
        empty = asyncio.Event()
        self.endpoint.drain(self._loop.time(), empty.set)
        over = {self._loop.create_task(empty.wait()), *self._functions.running}
        try:
            await asyncio.wait(over, timeout=grace)
        finally:
            self.endpoint.abort(self._loop.time())
            for task in self._functions.running:
                task.cancel()
            await asyncio.wait(over)

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.remove_reader(listener.sock)
            listener.sock.close()
        for task in self._opening:
            task.cancel()

    def _listen(self, sockets: list[socket.socket]) -> None:
        self.addresses = [sock.getsockname() for sock in sockets]
        self._listeners = [Listener(sock, self._accepted) for sock in sockets]
        for listener in self._listeners:
            self._watch(listener)

    def _watch(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.sock, self._accept, listener)

    def _accept(self, listener: Listener) -> None:
        if not listener.accept():
            self._loop.remove_reader(listener.sock)
            self._loop.call_later(ACCEPT_PAUSE, self._watch, listener)

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        prepare(sock)
        task = self._loop.create_task(self._open(sock, peer))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket, peer: Address) -> None:
        protocol: SocketProtocol
        if self._ssl is None:
            protocol = SocketProtocol(self.endpoint, self._loop, peer)
        else:
            try:
                records = TLSRecords(self._ssl, server_side=True)
            except OSError:  # a context for the other side
                sock.close()
                self.endpoint.refused(peer, Refusal.TLS_FAILED)
                return
            protocol = TLSProtocol(self.endpoint, self._loop, records, peer, is_server=True)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
            if protocol.opened is not None:
                await protocol.opened
        except OSError:
            pass  # the peer has gone, or failed to speak TLS
        except asyncio.CancelledError:
            protocol.dropped()
            raise


async def serve(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    ssl: SSLContext | None = None,
    backlog: int = BACKLOG,
) -> Server:
    """Listen on TCP and serve.

    Args:
        handler: a `packetcore.Handler` for all sessions, or an `async def` function that
            is run over a `Stream` for each.
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of UDP for instance.
        ssl: for TLS.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, config, sessions, ssl=ssl)
    infos = await server._loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    server._listen(open_tcp_listeners(infos, port, backlog))
    return server


@overload
async def connect(
    host: str, port: int, handler: None = None, *, config: Config | None = None, **options: Any
) -> Stream: ...
@overload
async def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction,
    *,
    reconnect: Backoff,
    keep: int = 0,
    config: Config | None = None,
    **options: Any,
) -> Client: ...
@overload
async def connect(
    host: str, port: int, handler: Handler, *, config: Config | None = None, **options: Any
) -> Session: ...
async def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction | None = None,
    *,
    reconnect: Backoff | None = None,
    keep: int = 0,
    config: Config | None = None,
    **options: Any,
) -> Stream | Session | Client:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        reconnect: connect again and again, waiting in between as this says. You get a `Client`
            at once, and its handler may be a function over a `Stream`, run for each connection.
        keep: how many packets a `Client` keeps that are sent while it is not connected.
        config: limits and timeouts.
        options: `ssl`, an `SSLContext` to speak TLS by (or `True` for the default one), and
            `server_hostname`, the name in the server's certificate where it is not `host`; what
            else `loop.create_connection` takes for plain TCP. `connect_timeout` is for a TLS
            handshake too, `close_timeout` for its end.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed. With `reconnect` these go to the log.
    """
    loop = asyncio.get_running_loop()
    context, name = options.pop("ssl", None), options.pop("server_hostname", None)
    if context is True:  # which reads files
        context = await loop.run_in_executor(None, create_default_context)

    async def dial(endpoint: Endpoint) -> Session:
        protocol: SocketProtocol
        if context is None or context is False:
            protocol = SocketProtocol(endpoint, loop)
        else:
            name_or_none = (host if name is None else name) or None  # "" asks for none, as in asyncio
            protocol = TLSProtocol(endpoint, loop, TLSRecords(context, server_hostname=name_or_none))

        async def reach() -> None:
            await loop.create_connection(lambda: protocol, host, port, **options)
            if protocol.opened is not None:
                await protocol.opened

        connecting = loop.create_task(reach())
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes with the result.
            if not (await asyncio.wait({connecting}, timeout=endpoint.config.connect_timeout))[0]:
                raise endpoint.connect_timed_out(host, port)
            connecting.result()
            return protocol.session
        except BaseException:
            connecting.add_done_callback(lambda task: protocol.dropped())
            connecting.cancel()
            raise

    if reconnect is not None and handler is not None:
        return Client(handler, config, reconnect, keep, dial)
    if reconnect is not None or not (handler is None or isinstance(handler, Handler)):
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    tie(endpoint, loop)
    session = await dial(endpoint)
    return Stream(inbox, loop) if handler is None else session
