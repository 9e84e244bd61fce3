"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext, SSLWantReadError, SSLWantWriteError
from time import monotonic
from typing import Any, overload

import gevent
import gevent.socket
from gevent.event import Event
from gevent.pool import Group
from gevent.server import StreamServer

from packetcore import Address, Config, Endpoint, Handler, Inbox, ServerBase, Session
from packetcore_gevent._socket import SocketHost
from packetcore_gevent._stream import Stream

StreamFunction = Callable[[Stream], object]
"""An application over a stream. When it returns, the stream is closed."""


class Server(ServerBase):
    """A server that listens; `serve` gives it. `with` closes it at the end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        *,
        ssl: SSLContext | None = None,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        super().__init__(handler, self._start, config, endpoint=endpoint)
        self._ssl = ssl
        self._listener: StreamServer | None = None
        self._handshakes, self._functions = Group(), Group()
        self._over = Event()

    def serve_forever(self) -> None:
        """Serve until interrupted, then close; or until another greenlet closes it."""
        try:
            self._over.wait()
        finally:
            self.close()

    def close(self, grace: float = 5.0) -> None:
        """Shut down as `ServerBase.close` says, and wait for it: a handler has to spawn this."""
        if self._listener is not None:
            self._listener.close()
        empty = Event()
        self.endpoint.drain(monotonic(), empty.set)
        try:
            gevent.wait([empty, *self._functions], grace)
        finally:
            self.endpoint.abort(monotonic())
            self._handshakes.kill()
            self._functions.kill()
            self._over.set()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _listen(self, listener: socket.socket) -> None:
        self.address = listener.getsockname()
        # Accepting in the hub (no spawn); after an error such as EMFILE gevent waits a while.
        self._listener = StreamServer(listener, self._accepted, spawn=None)
        self._listener.start()

    def _accepted(self, listened: socket.socket, peer: Address) -> None:
        # gevent closes the socket that it gave when this returns.
        sock = socket.socket(listened.family, listened.type, listened.proto, listened.detach())
        if self._ssl is None:
            SocketHost(self.endpoint, sock, peer)
        else:
            self._handshakes.spawn(self._shake_hands, sock, peer, self._ssl)

    def _shake_hands(self, sock: socket.socket, peer: Address, ssl: SSLContext) -> None:
        with suppress(OSError), gevent.Timeout(self.endpoint.config.connect_timeout, TimeoutError):
            sock = _secure(sock, ssl, server_side=True)
            gevent.get_hub().loop.run_callback(SocketHost, self.endpoint, sock, peer)

    def _start(self, function: StreamFunction, inbox: Inbox) -> None:
        self._functions.spawn(Stream(inbox).run, function)


def serve(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    ssl: SSLContext | None = None,
    backlog: int = 1024,
) -> Server:
    """Listen on TCP and serve, on the hub of this thread.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function over a `Stream`
            that runs in a greenlet of its own for each.
        host: the address to listen on; `None` means every one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        ssl: for TLS; from the standard library or from `gevent.ssl`.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    is_dual = host is None and socket.has_dualstack_ipv6()
    host = host or ("::" if is_dual else "0.0.0.0")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=is_dual)
    listener.setblocking(False)
    server = Server(handler, config, ssl=ssl)
    server._listen(listener)
    return server


@overload
def connect(host: str, port: int, handler: None = None, *, config: Config | None = None, **options: Any) -> Stream: ...
@overload
def connect(host: str, port: int, handler: Handler, *, config: Config | None = None, **options: Any) -> Session: ...
def connect(
    host: str, port: int, handler: Handler | None = None, *, config: Config | None = None, **options: Any
) -> Stream | Session:
    """Connect to a server, on this thread's hub.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        config: limits and timeouts.
        options: for TLS `ssl`, a context as in `serve`, and `server_hostname`, the name in
            the server's certificate where that is not `host`.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed.
    """
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    timeout = gevent.Timeout(endpoint.config.connect_timeout)
    try:
        with timeout:
            sock, peer = _open(host, port, **options)
    except gevent.Timeout as expired:
        if expired is not timeout:
            raise
        raise endpoint.connect_timed_out(host, port) from None
    session = SocketHost(endpoint, sock, peer).session
    return Stream(inbox) if handler is None else session


def _open(
    host: str, port: int, *, ssl: SSLContext | None = None, server_hostname: str | None = None
) -> tuple[socket.socket, Address]:
    sock: socket.socket = gevent.socket.create_connection((host, port))
    peer = sock.getpeername()
    return sock if ssl is None else _secure(sock, ssl, server_hostname=server_hostname or host), peer


def _secure(sock: socket.socket, ssl: SSLContext, **options: Any) -> socket.socket:
    """Shake hands; the greenlet waits, the socket never does. Closes it where that fails."""
    try:
        sock.setblocking(False)
        sock = wrapped = ssl.wrap_socket(sock, do_handshake_on_connect=False, **options)
        while True:
            try:
                wrapped.do_handshake()
                return wrapped
            except SSLWantReadError:
                gevent.socket.wait_read(wrapped.fileno())
            except SSLWantWriteError:
                gevent.socket.wait_write(wrapped.fileno())
    except BaseException:
        sock.close()
        raise
