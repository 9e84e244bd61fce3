"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any, overload

import trio
from trio import Nursery

from packetcore import Address, Config, Endpoint, Handler, Inbox, ServerBase, Session
from packetcore_trio._socket import StreamHost
from packetcore_trio._stream import Stream

StreamFunction = Callable[[Stream], Awaitable[object]]
"""An application over a stream. When it returns, the stream is closed."""


class Server(ServerBase):
    """A server that listens; `serve` gives it."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None = None,
        ssl: SSLContext | None = None,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        self._ssl = ssl
        self._accepting = trio.CancelScope()
        self._handshakes: set[trio.CancelScope] = set()
        self._gone = trio.Event()
        self._on_empty: Callable[[], object] = lambda: None  # the nursery knows when all is gone
        super().__init__(handler, self._start, config, endpoint=endpoint)

    async def close(self, grace: float = 5.0) -> None:
        """As `ServerBase.close`. Cancelling this aborts at once."""
        for scope in (self._accepting, *self._handshakes):
            scope.cancel()
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
                task_status.started()
                await receive()
        finally:
            self._gone.set()

    async def _listen(self, listeners: list[trio.SocketListener]) -> None:
        with self._accepting:
            await trio.serve_listeners(self._accepted, listeners, handler_nursery=self._nursery)

    async def _accepted(self, socket: trio.SocketStream) -> None:
        host = None
        with trio.move_on_after(self.endpoint.config.connect_timeout or math.inf) as scope:
            self._handshakes.add(scope)
            with suppress(trio.BrokenResourceError):
                host = await _host(self.endpoint, socket, self._ssl)
        self._handshakes.discard(scope)
        if host is not None:
            await host.run()

    def _start(self, function: StreamFunction, inbox: Inbox) -> None:
        self._nursery.start_soon(self._run_function, function, Stream(inbox))

    async def _run_function(self, function: StreamFunction, stream: Stream) -> None:
        try:
            await function(stream)
        except Exception as error:
            stream.session.failed(error, trio.current_time())
        finally:
            await stream.close()


async def serve(
    handler: Handler | StreamFunction, host: str | None = "127.0.0.1", port: int = 0, *, nursery: Nursery, **kwargs: Any
) -> Server:
    """Listen on TCP, with a handler for all sessions or a function that is run over a `Stream`
    for each. It runs in `nursery` until it is closed. Takes `config`, and for TLS an `ssl` context.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, **kwargs)
    listeners = await trio.open_tcp_listeners(port, host=host)
    server.address = listeners[0].socket.getsockname()
    await nursery.start(server._run, partial(server._listen, listeners))
    return server


@overload
async def connect(host: str, port: int, handler: None = None, *, nursery: Nursery, **kwargs: Any) -> Stream: ...
@overload
async def connect(host: str, port: int, handler: Handler, *, nursery: Nursery, **kwargs: Any) -> Session: ...
async def connect(
    host: str, port: int, handler: Handler | None = None, *, nursery: Nursery, config: Config | None = None, **tls: Any
) -> Stream | Session:
    """Connect to a server; without a handler you get a `Stream` to receive from. The connection
    runs in `nursery` until it is over. TLS takes `ssl`, an `ssl.SSLContext`, and
    `server_hostname`, where the certificate has another name than `host`.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`.
    """
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    timeout = endpoint.config.connect_timeout
    tls["server_hostname"] = tls.get("server_hostname") or host
    try:
        with trio.fail_after(timeout or math.inf):
            connection = await _host(endpoint, await trio.open_tcp_stream(host, port), **tls)
    except trio.TooSlowError:
        raise TimeoutError(f"connecting to {host} port {port} took longer than connect_timeout={timeout} s") from None
    except (OSError, trio.BrokenResourceError) as error:  # trio's own; what the system said is its cause
        cause = error.__cause__ or error
        raise getattr(cause, "exceptions", [cause])[0] from None
    await nursery.start(connection.run)
    return Stream(inbox) if handler is None else connection.session


async def _host(
    endpoint: Endpoint, sock: trio.SocketStream, ssl: SSLContext | None = None, server_hostname: str | None = None
) -> StreamHost:
    """Speak TLS, as a server where no name is given; where that fails the socket is closed."""
    stream: trio.abc.Stream = sock
    peer: Address = ("unknown", 0)
    with suppress(OSError):  # it may be gone already
        peer = sock.socket.getpeername()
    if ssl is not None:
        stream = secured = trio.SSLStream(sock, ssl, server_hostname=server_hostname, server_side=not server_hostname)
        try:
            await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(sock)
            raise
    return StreamHost(endpoint, stream, peer)
