"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, overload

from packetcore import Config, Endpoint, Handler, Inbox, ServerBase, Session
from packetcore_asyncio._socket import SocketProtocol
from packetcore_asyncio._stream import Stream

StreamFunction = Callable[[Stream], Awaitable[object]]
"""An application over a stream. When it returns, the stream is closed."""


class Server(ServerBase):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        super().__init__(handler, self._start, config, endpoint=endpoint)

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close."""
        try:
            await self._loop.create_future()
        finally:
            await self.close()

    async def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. Cancelling this aborts at once."""
        if self._listener is not None:
            self._listener.close()
        empty = asyncio.Event()
        self.endpoint.drain(self._loop.time(), empty.set)
        over = {self._loop.create_task(empty.wait()), *self._tasks}
        try:
            await asyncio.wait(over, timeout=grace)
        finally:
            self.endpoint.abort(self._loop.time())
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(over)

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self.close()

    def _start(self, function: StreamFunction, inbox: Inbox) -> None:
        task = self._loop.create_task(self._run(function, Stream(inbox, self._loop)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, function: StreamFunction, stream: Stream) -> None:
        try:
            await function(stream)
        except Exception as error:
            stream.session.failed(error, self._loop.time())
        finally:
            await stream.close()


async def serve(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    **options: Any,
) -> Server:
    """Listen on TCP and serve.

    Args:
        handler: a `packetcore.Handler` for all sessions, or an `async def` function that
            is run over a `Stream` for each.
        host: the address to listen on; `None` means every one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        options: what else `loop.create_server` takes, such as `ssl` and `backlog`.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, config)
    loop, endpoint = server._loop, server.endpoint
    if options.get("ssl") is not None:
        options.setdefault("ssl_handshake_timeout", endpoint.config.connect_timeout)
    listener = await loop.create_server(lambda: SocketProtocol(endpoint, loop), host, port, **options)
    server._listener = listener
    server.address = listener.sockets[0].getsockname()
    return server


@overload
async def connect(
    host: str, port: int, handler: None = None, *, config: Config | None = None, **options: Any
) -> Stream: ...
@overload
async def connect(
    host: str, port: int, handler: Handler, *, config: Config | None = None, **options: Any
) -> Session: ...
async def connect(
    host: str, port: int, handler: Handler | None = None, *, config: Config | None = None, **options: Any
) -> Stream | Session:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        config: limits and timeouts.
        options: what else `loop.create_connection` takes: `ssl`, `server_hostname` and more.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed.
    """
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    connecting = loop.create_connection(lambda: SocketProtocol(endpoint, loop), host, port, **options)
    try:
        _, protocol = await asyncio.wait_for(connecting, endpoint.config.connect_timeout)
    except asyncio.TimeoutError:
        raise endpoint.connect_timed_out(host, port) from None
    return Stream(inbox, loop) if handler is None else protocol.session
