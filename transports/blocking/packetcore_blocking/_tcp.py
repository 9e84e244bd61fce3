"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from selectors import EVENT_READ
from ssl import SSLContext
from time import monotonic
from typing import Any, TypeVar, overload
from weakref import WeakSet

from packetcore import (
    Address,
    Backoff,
    Config,
    Endpoint,
    EndpointStats,
    Handler,
    ServerBase,
    Session,
    SessionPool,
)
from packetcore_blocking._client import Client
from packetcore_blocking._dial import Target, open_session, open_stream
from packetcore_blocking._functions import Functions, StreamFunction
from packetcore_blocking._loop import Loop, after
from packetcore_blocking._sharing import leave, loop_for
from packetcore_blocking._socket import Socket
from packetcore_blocking._stream import Stream
from packetcore_sockets import ACCEPT_PAUSE, BACKLOG, Listener, open_tcp_listeners


class Server(ServerBase):
    """A server that listens; `serve` gives it. `with server` starts it, and closes it at the
    end. Its methods may be called from any thread, but not by a handler."""

    def __init__(
        self,
        loop: Loop,
        handler: Handler | StreamFunction,
        config: Config | None,
        sessions: SessionPool[Session] | None = None,
        *,
        endpoint: Callable[..., Endpoint] = Endpoint,
        ssl: SSLContext | None = None,
        is_to_leave: bool = False,
    ) -> None:
        self._loop = loop
        self.lock: AbstractContextManager[None] = loop
        """Hold it where several steps on `sessions` belong together; handlers wait meanwhile."""
        self._changed = threading.Condition(loop.lock)
        self._functions = Functions(loop, self._changed)
        self._ssl = ssl
        self._listeners: list[Listener] = []
        self._agreeing: WeakSet[Socket] = WeakSet()  # on TLS, or done with that
        self._is_to_leave = is_to_leave
        self._is_empty = self._is_closed = False
        super().__init__(handler, self._functions.start, config, endpoint=endpoint, sessions=sessions)

    @property
    def stats(self) -> EndpointStats:
        """See `packetcore.ServerBase`."""
        with self._loop:
            return super().stats

    def start(self) -> None:
        """Serve on a thread of its own. Idempotent."""
        with self._loop:
            if self._loop.thread is None and not self._loop.closed:
                self._loop.start("packetcore-server")

    def serve_forever(self) -> None:
        """Serve until closed or interrupted, as by Ctrl-C; then close.

        Here too the thread that `start` makes serves the sockets, so that an interruption
        never hits a session halfway.
        """
        try:
            self.start()
            while not (self._is_closed or self._loop.closed):
                # An endless wait is not interrupted on Windows.
                self._loop.wait(self._changed, lambda: self._is_closed or None, after(1.0))
        finally:
            self.close()

    def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. An interruption aborts at once. Idempotent.

        A function that is busy elsewhere for `close_timeout` more is left to its thread, and
        finds its stream closed.
        """
        try:
            with self._loop:
                self._stop_listening()
                self.endpoint.drain(monotonic(), self._emptied)
            self._loop.wait(self._changed, self._all_over, after(grace))
        finally:
            with self._loop:
                self.endpoint.abort(monotonic())
            self._loop.wait(self._changed, self._all_over, after(self.endpoint.config.close_timeout))
            with self._loop:
                is_to_leave, self._is_to_leave, self._is_closed = self._is_to_leave, False, True
                self._loop.notify(self._changed)
            if is_to_leave:
                leave(self._loop)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _emptied(self) -> None:
        self._is_empty = True
        self._loop.notify(self._changed)

    def _all_over(self) -> bool | None:
        return (self._is_empty and self._functions.are_over) or None

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.watch(listener.sock.fileno())
            listener.sock.close()
        for sock in self._agreeing:
            if not sock.opened:
                sock.abort()

    def _listen(self, sockets: list[socket.socket]) -> None:
        self.address = sockets[0].getsockname()
        with self._loop:
            self._listeners = [Listener(sock, self._accepted) for sock in sockets]
            for listener in self._listeners:
                self._watch(listener)

    def _watch(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._loop.watch(listener.sock.fileno(), EVENT_READ, lambda mask: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        if not listener.accept():
            self._loop.watch(listener.sock.fileno())
            self._loop.call_at(monotonic() + ACCEPT_PAUSE, partial(self._watch, listener))

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        try:
            if self._ssl is not None:
                sock = self._ssl.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:  # the peer is gone already
            sock.close()
            return
        accepted = Socket(self._loop, sock, self.endpoint, peer)
        if not accepted.opened:
            self._agreeing.add(accepted)


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
    """Listen on TCP, to serve once `start` or `serve_forever` is called, or by `with`.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function that is run over a
            `Stream` for each, on a thread of its own.
        host: the address to listen on; `None` means every one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of UDP for instance. They have one
            lock and one thread between them: to start one starts them all, and what a
            handler of one does holds up the others.
        ssl: speak TLS as this says.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    with loop_for(sessions) as loop:
        return serve_on(
            loop,
            handler,
            host,
            port,
            config=config,
            sessions=sessions,
            ssl=ssl,
            backlog=backlog,
            is_to_leave=True,
        )


def serve_on(
    loop: Loop,
    handler: Handler | StreamFunction,
    host: str | None,
    port: int,
    *,
    config: Config | None,
    backlog: int = BACKLOG,
    **options: Any,
) -> Server:
    """Listen as `serve` does, on a loop that may be others' too."""
    server = Server(loop, handler, config, **options)
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets, on a thread that ends with the session; with none
            you get a `Stream` to receive from.
        reconnect: connect again and again, waiting in between as this says. You get a `Client`
            at once, and its handler may be a function over a `Stream`, run for each connection
            on a thread of its own.
        keep: how many packets a `Client` keeps that are sent while it is not connected.
        config: limits and timeouts.
        options: `ssl`, an `SSLContext` to speak TLS by, and `server_hostname`, the name in
            the server's certificate where it is not `host`.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed. With `reconnect` these go to the log.
    """
    return on_own_loop(
        lambda loop: connect_on(loop, host, port, handler, reconnect=reconnect, keep=keep, config=config, **options)
    )


C = TypeVar("C", Stream | Session, Stream | Session | Client)


def on_own_loop(connect: Callable[[Loop], C]) -> C:
    """Open a stream, or a session with a thread to serve it until it is over."""
    loop = Loop()
    try:
        opened = connect(loop)
        if isinstance(opened, Session):
            with loop:
                loop.start("packetcore-client", lambda: not loop.open)
    except BaseException:
        loop.close()
        raise
    return opened


def connect_on(
    loop: Loop,
    host: str,
    port: int,
    handler: Handler | StreamFunction | None,
    *,
    config: Config | None,
    reconnect: Backoff | None = None,
    keep: int = 0,
    **options: Any,
) -> Stream | Session | Client:
    """Connect as `connect` does, on a loop that may be others' too."""
    target = Target(host, port, **options)
    if reconnect is not None and handler is not None:
        return Client(loop, target, handler, config, reconnect, keep)
    if isinstance(handler, Handler):
        return open_session(loop, target, Endpoint(handler, config))
    if handler is not None or reconnect is not None:
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")
    return open_stream(loop, target, config)
