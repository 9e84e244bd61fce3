"""Serving TCP: a listening socket, and one session for each connection that it accepts."""

from __future__ import annotations

import asyncio
import logging
import ssl as _ssl
from collections.abc import Awaitable, Callable
from types import TracebackType

from packetcore import Address, Config, EndpointStats, Handler, Inbox, Session, SessionPool, StreamEndpoint
from packetcore_asyncio._socket import SocketProtocol
from packetcore_asyncio._stream import Stream

StreamFunction = Callable[[Stream], Awaitable[object]]
"""An application over a stream. When it returns, the stream is closed."""

_logger = logging.getLogger("packetcore_asyncio")


class Server:
    """A server that listens and serves; `serve` gives it. `async with` closes it."""

    def __init__(self, handler: Handler | StreamFunction, config: Config | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._function = None if isinstance(handler, Handler) else handler
        self.endpoint = StreamEndpoint(
            handler if isinstance(handler, Handler) else lambda: Inbox(self._start),
            config,
            log_exception=_logger.exception,
        )
        """What its sessions share."""
        self._listener: asyncio.Server
        self.address: Address
        """Where it listens, the port that the system chose included."""

    @property
    def sessions(self) -> SessionPool[Session]:
        """The sessions that live, by id and by identity."""
        return self.endpoint.sessions

    @property
    def stats(self) -> EndpointStats:
        """What was opened, refused and closed: counters to read."""
        return self.endpoint.stats

    async def serve_forever(self) -> None:
        """Serve until cancelled, then close with a grace of 5 seconds."""
        try:
            await self._loop.create_future()
        finally:
            await self.close()

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, let handlers finish and buffers empty for at most `grace` seconds,
        then abort what is left. Every session ends with SHUTDOWN, unless its peer or its
        handler ended it first. Cancelling it aborts at once."""
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _listen(self, host: str | None, port: int, ssl: _ssl.SSLContext | None) -> None:
        self._listener = await self._loop.create_server(
            lambda: SocketProtocol(self.endpoint, self._loop),
            host,
            port,
            ssl=ssl,
            ssl_handshake_timeout=None if ssl is None else self.endpoint.config.connect_timeout,
        )
        self.address = self._listener.sockets[0].getsockname()

    def _start(self, inbox: Inbox) -> None:
        task = self._loop.create_task(self._run(Stream(inbox, self._loop)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, stream: Stream) -> None:
        assert self._function is not None
        try:
            await self._function(stream)
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
    ssl: _ssl.SSLContext | None = None,
) -> Server:
    """Listen on TCP and serve.

    Args:
        handler: a `packetcore.Handler` for all sessions, or an `async def` function that
            is run over a `Stream` for each.
        host: the address to listen on; `None` means every one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        ssl: serve TLS with this context.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, config)
    await server._listen(host, port, ssl)
    return server
