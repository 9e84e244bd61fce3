"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from time import monotonic
from typing import Any, overload

import gevent
import gevent.socket
from gevent.event import Event

from packetcore import Backoff, Config, Endpoint, Handler, Inbox, ServerBase, Session, SessionPool
from packetcore_gevent._client import Client
from packetcore_gevent._dial import Dialler
from packetcore_gevent._functions import Functions, StreamFunction
from packetcore_gevent._loop import HubLoop
from packetcore_gevent._stream import Stream
from packetcore_gevent._tls import over_memory
from packetcore_sockets import ACCEPT_PAUSE, BACKLOG, Acceptor, Listener, StreamSocket, open_tcp_listeners


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
        self.loop = HubLoop()
        self._functions = Functions()
        self._listeners: list[Listener] = []
        self._over = Event()
        self._is_serving = False
        self._error: BaseException | None = None
        super().__init__(handler, self._functions.start, config, endpoint=endpoint, sessions=sessions)
        self.loop.bind(self.endpoint)
        self.endpoint.on_ended = self._ended
        context = None if ssl is None else over_memory(ssl)
        self._acceptor = Acceptor(self.loop, self.endpoint, context, partial(StreamSocket, self.loop, self.endpoint))

    def serve_forever(self) -> None:
        """Serve until interrupted, then close; or until another greenlet closes it. Raises
        `SystemExit` or `KeyboardInterrupt` where a handler did."""
        self._is_serving = True
        try:
            self._over.wait()
        finally:
            self._is_serving = False
            self.close()
        if self._error is not None:
            raise self._error

    def close(self, grace: float = 5.0) -> None:
        """Shut down as `ServerBase.close` says, and wait for it: a handler has to spawn this."""
        self._stop_listening()
        empty = Event()
        self.endpoint.drain(monotonic(), empty.set)
        try:
            gevent.wait([empty, *self._functions.running], grace)
        finally:
            self.endpoint.abort(monotonic())
            self._acceptor.close()
            self._functions.running.kill()
            self._over.set()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self._stop_listening()
        self._acceptor.close()
        if self._is_serving:
            self._error = error
            self._over.set()
        else:
            self.loop.end(error)

    def _listen(self, sockets: list[socket.socket]) -> None:
        self.addresses = [sock.getsockname() for sock in sockets]
        self._listeners = [Listener(sock, self._acceptor.accepted) for sock in sockets]
        for listener in self._listeners:
            self._watch(listener)

    def _watch(self, listener: Listener) -> None:
        if listener in self._listeners:
            self.loop.set_reader(listener.sock, partial(self._accept, listener))

    def _accept(self, listener: Listener) -> None:
        if not listener.accept() and listener in self._listeners:
            self.loop.set_reader(listener.sock, None)
            self.loop.call_at(monotonic() + ACCEPT_PAUSE, partial(self._watch, listener))

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            self.loop.set_reader(listener.sock, None)
            listener.sock.close()


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
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of UDP for instance.
        ssl: for TLS; from the standard library or from `gevent.ssl`.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    server = Server(handler, config, sessions, ssl=ssl)
    infos = gevent.socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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

    loop = HubLoop()
    dial = Dialler(loop, host, port, **options)
    if reconnect is not None and handler is not None:
        return Client(handler, config, reconnect, keep, loop, dial)
    if reconnect is not None or not (handler is None or isinstance(handler, Handler)):
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    loop.bind(endpoint)
    session = StreamSocket(loop, endpoint, *dial(endpoint)).session
    return Stream(inbox) if handler is None else session
