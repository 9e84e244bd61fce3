"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import math
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any, overload

import trio
from trio import Nursery

from packetcore import Address, Backoff, Config, Endpoint, Handler, Inbox, Refusal, ServerBase, Session, SessionPool
from packetcore_sockets import ACCEPT_PAUSE, Listener, TLSRecords, open_tcp_listeners, prepare
from packetcore_trio._client import Client
from packetcore_trio._runtime import tie
from packetcore_trio._socket import StreamHost, secure
from packetcore_trio._stream import Stream, StreamFunction


class Server(ServerBase):
    """A server that listens; `serve` gives it."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None = None,
        sessions: SessionPool[Session] | None = None,
        ssl: SSLContext | None = None,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        self._ssl = ssl
        self._accepting = trio.CancelScope()
        self._sockets: list[socket.socket] = []
        self._gone = trio.Event()
        self._on_empty: Callable[[], object] = lambda: None  # the nursery knows when all is gone
        super().__init__(handler, self._start, config, endpoint=endpoint, sessions=sessions)

    async def close(self, grace: float = 5.0) -> None:
        """As `ServerBase.close`. Cancelling this aborts at once."""
        self._accepting.cancel()
        for sock in self._sockets:  # their task gets its turn only later
            sock.close()
        self.endpoint.drain(trio.current_time(), self._on_empty)
        try:
            with trio.move_on_after(grace):
                await self._gone.wait()
        finally:
            self.endpoint.abort(trio.current_time())
            self._nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await self._gone.wait()

    async def _run(self, receive: Callable[[], Awaitable[object]], *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                tie(self.endpoint, self._nursery)
                task_status.started()
                await receive()
        finally:
            self._gone.set()

    async def _listen(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        with self._accepting:  # handshakes are part of that: they end with it
            async with trio.open_nursery() as self._opening:
                for sock in sockets:
                    self._opening.start_soon(self._accept, Listener(sock, self._accepted))

    async def _accept(self, listener: Listener) -> None:
        with listener.sock:
            while listener.sock.fileno() >= 0:
                await trio.lowlevel.wait_readable(listener.sock)
                if not listener.accept():
                    await trio.sleep(ACCEPT_PAUSE)

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        prepare(sock)
        if self._ssl is None:
            self._nursery.start_soon(StreamHost(self.endpoint, sock, peer).run)
        else:
            self._opening.start_soon(self._open, sock, peer, TLSRecords(self._ssl, server_side=True))

    async def _open(self, sock: socket.socket, peer: Address, tls: TLSRecords) -> None:
        early: bytes | None = None
        try:
            with trio.move_on_after(self.endpoint.config.connect_timeout or math.inf), suppress(OSError):
                early = await secure(sock, tls)
                self._nursery.start_soon(StreamHost(self.endpoint, sock, peer, tls, early).run)
        finally:
            if early is None:
                sock.close()
                self.endpoint.refused(peer, Refusal.TLS_FAILED)

    def _start(self, function: StreamFunction, inbox: Inbox) -> None:
        self._nursery.start_soon(Stream(inbox).run, function)


async def serve(
    handler: Handler | StreamFunction, host: str | None = "127.0.0.1", port: int = 0, *, nursery: Nursery, **kwargs: Any
) -> Server:
    """Listen on TCP, with a handler for all sessions or a function that is run over a `Stream`
    for each. It runs in `nursery` until it is closed. Takes `config`, `sessions`, a register that
    other servers use too, and for TLS an `ssl` context.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, **kwargs)
    infos = await trio.socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets = open_tcp_listeners(infos, port)
    server.addresses = [sock.getsockname() for sock in sockets]
    await nursery.start(server._run, partial(server._listen, sockets))
    return server


@overload
async def connect(host: str, port: int, handler: None = None, *, nursery: Nursery, **kwargs: Any) -> Stream: ...
@overload
async def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction,
    *,
    nursery: Nursery,
    reconnect: Backoff,
    keep: int = 0,
    **kwargs: Any,
) -> Client: ...
@overload
async def connect(host: str, port: int, handler: Handler, *, nursery: Nursery, **kwargs: Any) -> Session: ...
async def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction | None = None,
    *,
    nursery: Nursery,
    reconnect: Backoff | None = None,
    keep: int = 0,
    config: Config | None = None,
    **tls: Any,
) -> Stream | Session | Client:
    """Connect to a server; without a handler you get a `Stream` to receive from. The connection
    runs in `nursery` until it is over. TLS takes `ssl`, an `ssl.SSLContext`, and
    `server_hostname`, where the certificate has another name than `host`.

    With `reconnect` it connects again and again, waiting in between as that says: you get a
    `Client` at once, which keeps up to `keep` packets that are sent while it is not connected.
    Its handler may be a function over a `Stream`, run for each connection.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`. With
            `reconnect` these go to the log.
    """

    async def dial(endpoint: Endpoint, nursery: Nursery) -> Session:
        tie(endpoint, nursery)
        try:
            with trio.fail_after(endpoint.config.connect_timeout or math.inf):
                connection = await _dial(endpoint, host, port, **tls)
        except trio.TooSlowError:
            raise endpoint.connect_timed_out(host, port) from None
        except OSError as error:  # trio's own; what the system said is its cause
            cause = error.__cause__ or error
            raise getattr(cause, "exceptions", [cause])[0] from None
        await nursery.start(connection.run)  # if this is cancelled, so is the connection
        return connection.session

    if reconnect is not None and handler is not None:
        client = Client(handler, config, reconnect, keep, dial)
        await nursery.start(client.run)
        return client
    if isinstance(handler, Handler):
        return await dial(Endpoint(handler, config), nursery)
    if handler is not None or reconnect is not None:
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")
    inbox = Inbox()
    await dial(Endpoint(inbox, config), nursery)
    return Stream(inbox)


async def _dial(
    endpoint: Endpoint, host: str, port: int, ssl: SSLContext | None = None, server_hostname: str | None = None
) -> StreamHost:
    stream = await trio.open_tcp_stream(host, port)
    sock = socket.socket(fileno=stream.socket.detach())
    try:
        prepare(sock)
        peer = sock.getpeername()
        tls = None if ssl is None else TLSRecords(ssl, server_hostname=server_hostname or host)
        return StreamHost(endpoint, sock, peer, tls, b"" if tls is None else await secure(sock, tls))
    except BaseException:
        sock.close()
        raise
