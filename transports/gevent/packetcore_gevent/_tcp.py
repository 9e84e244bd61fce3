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

from packetcore import Address, Backoff, Config, Endpoint, Handler, Inbox, ServerBase, Session, SessionPool
from packetcore_gevent._client import Client
from packetcore_gevent._functions import Functions, StreamFunction
from packetcore_gevent._socket import SocketHost
from packetcore_gevent._stream import Stream
from packetcore_sockets import ACCEPT_PAUSE, BACKLOG, Listener, open_tcp_listeners


class Server(ServerBase):
    """A server that listens; `serve` gives it. `with` closes it at the end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        sessions: SessionPool[Session] | None = None,
        endpoint: Callable[..., Endpoint] = Endpoint,
        ssl: SSLContext | None = None,
    ) -> None:
        self._functions = Functions()
        self._ssl = ssl
        self._listeners: list[tuple[Listener, Any]] = []  # each with its watcher
        self._handshakes = Group()
        self._over = Event()
        super().__init__(handler, self._functions.start, config, endpoint=endpoint, sessions=sessions)

    def serve_forever(self) -> None:
        """Serve until interrupted, then close; or until another greenlet closes it."""
        try:
            self._over.wait()
        finally:
            self.close()

    def close(self, grace: float = 5.0) -> None:
        """Shut down as `ServerBase.close` says, and wait for it: a handler has to spawn this."""
        while self._listeners:
            listener, watcher = self._listeners.pop()
            watcher.close()
            listener.sock.close()
        empty = Event()
        self.endpoint.drain(monotonic(), empty.set)
        try:
            gevent.wait([empty, *self._functions.running], grace)
        finally:
            self.endpoint.abort(monotonic())
            self._handshakes.kill()
            self._functions.running.kill()
            self._over.set()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _listen(self, sockets: list[socket.socket]) -> None:
        self.address = sockets[0].getsockname()
        for sock in sockets:
            listener, watcher = Listener(sock, self._accepted), gevent.get_hub().loop.io(sock.fileno(), 1)
            self._listeners.append((listener, watcher))
            self._watch(listener, watcher)

    def _watch(self, listener: Listener, watcher: Any) -> None:
        if (listener, watcher) in self._listeners:
            watcher.start(self._accept, listener, watcher)

    def _accept(self, listener: Listener, watcher: Any) -> None:
        if not listener.accept():
            watcher.stop()
            gevent.spawn_later(ACCEPT_PAUSE, self._watch, listener, watcher)

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        if self._ssl is None:
            SocketHost(self.endpoint, sock, peer)
        else:
            self._handshakes.spawn(self._shake_hands, sock, peer, self._ssl)

    def _shake_hands(self, sock: socket.socket, peer: Address, ssl: SSLContext) -> None:
        with suppress(OSError), gevent.Timeout(self.endpoint.config.connect_timeout, TimeoutError):
            sock = _secure(sock, ssl, server_side=True)
            gevent.get_hub().loop.run_callback(SocketHost, self.endpoint, sock, peer)


def serve(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    ssl: SSLContext | None = None,
    backlog: int = BACKLOG,
) -> Server:
    """Listen on TCP and serve, on the hub of this thread.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function over a `Stream`
            that runs in a greenlet of its own for each.
        host: the address to listen on; `None` means every one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of UDP for instance.
        ssl: for TLS; from the standard library or from `gevent.ssl`.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, config, sessions, ssl=ssl)
    infos = gevent.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    server._listen(open_tcp_listeners(infos, port, backlog))
    return server


@overload
def connect(host: str, port: int, handler: None = None, *, config: Config | None = None, **options: Any) -> Stream: ...
@overload
def connect(
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
def connect(host: str, port: int, handler: Handler, *, config: Config | None = None, **options: Any) -> Session: ...
def connect(
    host: str,
    port: int,
    handler: Handler | StreamFunction | None = None,
    *,
    reconnect: Backoff | None = None,
    keep: int = 0,
    config: Config | None = None,
    **options: Any,
) -> Stream | Session | Client:
    """Connect to a server, on this thread's hub.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        reconnect: connect again and again, waiting in between as this says. You get a `Client`
            at once, and its handler may be a function over a `Stream`, run for each connection.
        keep: how many packets a `Client` keeps that are sent while it is not connected.
        config: limits and timeouts.
        options: for TLS `ssl`, a context as in `serve`, and `server_hostname`, the name in
            the server's certificate where that is not `host`.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed. With `reconnect` these go to the log.
    """

    def dial(endpoint: Endpoint) -> tuple[socket.socket, Address]:
        timeout = gevent.Timeout(endpoint.config.connect_timeout)
        try:
            with timeout:
                return _open(host, port, **options)
        except gevent.Timeout as expired:
            if expired is not timeout:
                raise
            raise endpoint.connect_timed_out(host, port) from None

    if reconnect is not None and handler is not None:
        return Client(handler, config, reconnect, keep, dial)
    if reconnect is not None or not (handler is None or isinstance(handler, Handler)):
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    session = SocketHost(endpoint, *dial(endpoint)).session
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
