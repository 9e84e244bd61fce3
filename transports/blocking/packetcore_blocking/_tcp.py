"""TCP, with or without TLS: `serve` and `connect`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from errno import EADDRNOTAVAIL, EAFNOSUPPORT
from functools import partial
from selectors import EVENT_READ
from ssl import SSLContext
from time import monotonic
from typing import Any, overload

from packetcore import Address, Config, Endpoint, Handler, Inbox, ServerBase, Session
from packetcore_blocking._loop import Loop, after
from packetcore_blocking._socket import Socket
from packetcore_blocking._stream import Stream

StreamFunction = Callable[[Stream], object]
"""An application over a stream. When it returns, the stream is closed."""

BACKLOG = 1024
"""Connections that the system keeps for a server that is busy."""

ACCEPTED_AT_ONCE = 100
"""Connections that one turn accepts, so that those there are wait no longer for it."""

ACCEPT_PAUSE = 1.0
"""Seconds until a server that could not accept, for want of descriptors mostly, tries again."""


class Server(ServerBase):
    """A server that listens; `serve` gives it. `with server` starts it, and closes it at the
    end. Its methods may be called from any thread, but not by a handler."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        loop: Loop,
        *,
        owns_loop: bool,
        ssl: SSLContext | None = None,
        endpoint: Callable[..., Endpoint] = Endpoint,
    ) -> None:
        super().__init__(handler, self._start_function, config, endpoint=endpoint)
        self._ssl = ssl
        self._listeners: list[socket.socket] = []
        self._owns_loop = owns_loop
        self._loop = loop
        self.lock: AbstractContextManager[None] = loop
        """Hold it where several steps on `sessions` belong together; handlers wait meanwhile."""
        self._changed = threading.Condition(self._loop.lock)
        self._functions: set[threading.Thread] = set()

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
            while not self._loop.closed:
                self._loop.wait(self._changed, lambda: None, after(1.0))  # an endless one is not interrupted on Windows
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
                self.endpoint.drain(monotonic(), partial(self._loop.notify, self._changed))
            self._loop.wait(self._changed, self._all_over, after(grace))
        finally:
            with self._loop:
                self.endpoint.abort(monotonic())
            self._loop.wait(self._changed, self._all_over, after(self.endpoint.config.close_timeout))
            if self._owns_loop:
                self._loop.close()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _all_over(self) -> bool | None:
        return not (self.sessions or self._functions - {threading.current_thread()}) or None

    def _stop_listening(self) -> None:
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.watch(listener.fileno())
            listener.close()

    def _listen(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self.address = listeners[0].getsockname()
        with self._loop:
            for listener in listeners:
                self._watch(listener)

    def _watch(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.watch(listener.fileno(), EVENT_READ, lambda mask: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self.endpoint.log_exception(f"accepting failed; again in {ACCEPT_PAUSE} s")
                self._loop.watch(listener.fileno())
                self._loop.call_at(monotonic() + ACCEPT_PAUSE, partial(self._watch, listener))
                return
            try:
                if self._ssl is not None:
                    sock = self._ssl.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            except OSError:  # the peer is gone already
                sock.close()
            else:
                Socket(self._loop, sock, self.endpoint, peer)

    def _start_function(self, function: StreamFunction, inbox: Inbox) -> None:
        stream = Stream(inbox, self._loop)
        name = f"packetcore-session-{stream.session.id}"
        thread = threading.Thread(target=self._run_function, args=(function, stream), name=name, daemon=True)
        thread.start()  # its first step in the stream waits for the lock
        self._functions.add(thread)

    def _run_function(self, function: StreamFunction, stream: Stream) -> None:
        try:
            stream.run(function)
        finally:
            with self._loop:
                self._functions.discard(threading.current_thread())
                self._loop.notify(self._changed)


def serve(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    ssl: SSLContext | None = None,
) -> Server:
    """Listen on TCP, to serve once `start` or `serve_forever` is called, or by `with`.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function that is run over a
            `Stream` for each, on a thread of its own.
        host: the address to listen on; `None` means every one of this machine.
        port: 0 takes a free one; `Server.address` tells which.
        config: limits and timeouts.
        ssl: speak TLS as this says.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    return serve_on(Loop(), handler, host, port, config=config, ssl=ssl, owns_loop=True)


def serve_on(
    loop: Loop,
    handler: Handler | StreamFunction,
    host: str | None,
    port: int,
    *,
    config: Config | None,
    ssl: SSLContext | None = None,
    owns_loop: bool = False,
) -> Server:
    """Listen as `serve` does, on a loop that may be others' too."""
    server = Server(handler, config, loop, owns_loop=owns_loop, ssl=ssl)
    try:
        server._listen(_listen(host, port))
    except OSError:
        if owns_loop:
            loop.close()
        raise
    return server


@overload
def connect(host: str, port: int, handler: None = None, *, config: Config | None = None, **options: Any) -> Stream: ...
@overload
def connect(host: str, port: int, handler: Handler, *, config: Config | None = None, **options: Any) -> Session: ...
def connect(
    host: str, port: int, handler: Handler | None = None, *, config: Config | None = None, **options: Any
) -> Stream | Session:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets, on a thread that ends with the session; with none
            you get a `Stream` to receive from.
        config: limits and timeouts.
        options: `ssl`, an `SSLContext` to speak TLS by, and `server_hostname`, the name in
            the server's certificate where it is not `host`.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed.
    """
    return on_own_loop(lambda loop: connect_on(loop, host, port, handler, config=config, **options))


def on_own_loop(connect: Callable[[Loop], Stream | Session]) -> Stream | Session:
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
    handler: Handler | None,
    *,
    config: Config | None,
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
) -> Stream | Session:
    """Connect as `connect` does, on a loop that may be others' too."""
    inbox = Inbox()
    endpoint = Endpoint(inbox if handler is None else handler, config)
    timeout = endpoint.config.connect_timeout
    until = after(timeout)

    def dial() -> tuple[socket.socket, Address]:
        # Only here a socket blocks: nothing is sent yet that a timeout could tear.
        sock = socket.create_connection((host, port), timeout)
        try:
            peer = sock.getpeername()
            if until is not None:
                sock.settimeout(max(0.001, until - monotonic()))
            if ssl is not None:
                sock = ssl.wrap_socket(sock, server_hostname=server_hostname or host)
            return sock, peer
        except BaseException:
            sock.close()
            raise

    try:
        sock, peer = loop.run_in_thread(dial, timeout)
    except TimeoutError:
        if until is None or monotonic() < until:
            raise  # the system's own
        raise endpoint.connect_timed_out(host, port) from None
    with loop:
        session = Socket(loop, sock, endpoint, peer).session
    return session if handler is not None else Stream(inbox, loop)


def _listen(host: str | None, port: int) -> list[socket.socket]:
    """Listen on every address of a host that this machine has, all with one port."""
    listeners: list[socket.socket] = []
    refusal = OSError(f"{host} has no address")
    with ExitStack() as opened:
        for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE):
            where: Address = (address[0], port, *address[2:])
            try:
                listener = opened.enter_context(socket.create_server(where, family=family, backlog=BACKLOG))
            except OSError as error:
                if error.errno not in (EADDRNOTAVAIL, EAFNOSUPPORT):  # as where there is no IPv6
                    raise
                refusal = error
            else:
                listener.setblocking(False)
                listeners.append(listener)
                port = listener.getsockname()[1]
        if not listeners:
            raise refusal
        opened.pop_all()
    return listeners
