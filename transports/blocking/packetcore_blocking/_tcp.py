"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from ssl import SSLContext
from time import monotonic
from typing import Any, TypeVar, overload

from packetcore import Backoff, Config, Endpoint, EndpointStats, Handler, ServerBase, Session, SessionPool
from packetcore_blocking._client import Client
from packetcore_blocking._dial import Target, open_session, open_stream
from packetcore_blocking._functions import Functions, StreamFunction
from packetcore_blocking._look_up import look_up_and_wait
from packetcore_blocking._loop import Loop, after
from packetcore_blocking._sharing import leave, loop_for
from packetcore_blocking._socket import Socket
from packetcore_blocking._stream import Stream
from packetcore_sockets import ACCEPT_PAUSE, BACKLOG, Acceptor, Listener, open_tcp_listeners


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
        self._listeners: list[Listener] = []
        self._is_to_leave = is_to_leave
        self._is_empty = self._is_closed = False
        self._error: BaseException | None = None
        super().__init__(handler, self._functions.start, config, endpoint=endpoint, sessions=sessions)
        self.endpoint.runs_by(loop.post, any_thread=True)
        self.endpoint.on_ended = self._ended
        self._acceptor = Acceptor(loop, self.endpoint, ssl, partial(Socket, loop, self.endpoint))

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
        """Serve until closed or interrupted, as by Ctrl-C; then close. Raises `SystemExit` or
        `KeyboardInterrupt` where a handler did.

        Here too the thread that `start` makes serves the sockets, so that an interruption
        never hits a session halfway.
        """
        try:
            self.start()
            while not (self._is_closed or self._error or self._loop.closed):
                # An endless wait is not interrupted on Windows.
                self._loop.wait(self._changed, lambda: self._is_closed or self._error, after(1.0))
        finally:
            self.close()

    def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. An interruption aborts at once. Idempotent.

        A function that is busy elsewhere for `close_timeout` more is left to its thread, and
        finds its stream closed.

        Raises:
            SystemExit: a handler did, or `KeyboardInterrupt`; once.
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
        error, self._error = self._error, None
        if error is not None:
            raise error

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

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self._stop_listening()
        self._error = error
        self._loop.notify(self._changed)

    def _stop_listening(self) -> None:
        self._loop.open.discard(self._stop_listening)
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.set_reader(listener.sock, None)
            listener.sock.close()
        self._acceptor.close()

    def _listen(self, sockets: list[socket.socket]) -> None:
        self.addresses = [sock.getsockname() for sock in sockets]
        with self._loop:
            self._loop.open.add(self._stop_listening)
            self._listeners = [Listener(sock, self._acceptor.accepted) for sock in sockets]
            for listener in self._listeners:
                self._watch(listener)

    def _watch(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._loop.set_reader(listener.sock, partial(self._accept, listener))

    def _accept(self, listener: Listener) -> None:
        if not listener.accept() and listener in self._listeners:
            self._loop.set_reader(listener.sock, None)
            self._loop.call_at(monotonic() + ACCEPT_PAUSE, partial(self._watch, listener))


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
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
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
    infos = look_up_and_wait(loop, host or None, port, socket.SOCK_STREAM, socket.AI_PASSIVE)
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
