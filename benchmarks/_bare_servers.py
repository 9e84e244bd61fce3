"""Echo of raw bytes on each runtime with nothing of packetcore: what a connection costs anyway.

Each is the leanest form that its runtime offers for a callback for each chunk: no timer, no
buffer of its own, no limit. gevent and blocking sockets have a second form, a greenlet or a thread
for each connection, which is how servers are written for them. All send small writes at once, as
packetcore does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

BACKLOG = 1024
CHUNK = 64 * 1024


def in_thread(run: Callable[[Future[int]], object]) -> int:
    """Run a server on a thread of its own; it sets its port once it listens. Returns that port."""
    port: Future[int] = Future()

    def guarded() -> None:
        try:
            run(port)
        except BaseException as error:
            if port.done():
                raise
            port.set_exception(error)

    threading.Thread(target=guarded, daemon=True).start()
    return port.result(30)


def _context(certificate: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


class _Protocol(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


def _run_loop(loop: asyncio.AbstractEventLoop, certificate: str | None, port: Future[int]) -> None:
    context = _context(certificate)
    starting = loop.create_server(_Protocol, "127.0.0.1", 0, backlog=BACKLOG, ssl=context)
    port.set_result(loop.run_until_complete(starting).sockets[0].getsockname()[1])
    loop.run_forever()


def _asyncio(certificate: str | None = None) -> int:
    """`asyncio.Protocol`."""
    return in_thread(lambda port: _run_loop(asyncio.new_event_loop(), certificate, port))


def _uvloop(certificate: str | None = None) -> int:
    """`asyncio.Protocol` on uvloop."""
    import uvloop

    return in_thread(lambda port: _run_loop(uvloop.new_event_loop(), certificate, port))


def _gevent_watchers() -> int:
    """A watcher of the hub's loop for each socket, and no greenlet."""
    import gevent
    from gevent.server import StreamServer

    def run(port: Future[int]) -> None:
        loop = gevent.get_hub().loop
        watched: dict[socket.socket, Any] = {}

        def accepted(listened: socket.socket, peer: object) -> None:
            sock = socket.socket(listened.family, listened.type, listened.proto, listened.detach())
            _prepare(sock)
            watched[sock] = watcher = loop.io(sock.fileno(), 1)
            watcher.start(readable, sock)

        def readable(sock: socket.socket) -> None:
            if not _echo(sock):
                watched.pop(sock).close()
                sock.close()

        server = StreamServer(("127.0.0.1", 0), accepted, spawn=None, backlog=BACKLOG)
        server.start()
        port.set_result(server.socket.getsockname()[1])
        server.serve_forever()

    return in_thread(run)


def _gevent_greenlets(certificate: str | None = None) -> int:
    """`StreamServer` with a greenlet for each socket."""

    def serve(sock: socket.socket, peer: object) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := sock.recv(CHUNK):
                sock.sendall(data)
        except OSError:
            pass

    return serve_greenlets(serve, certificate)


def serve_greenlets(serve: Callable[[socket.socket, object], object], certificate: str | None = None) -> int:
    """Run a function in a greenlet for each connection. Returns the port."""
    from gevent import ssl as gevent_ssl
    from gevent.server import StreamServer

    def run(port: Future[int]) -> None:
        options: dict[str, Any] = {}
        if certificate is not None:
            # create_default_context would give one that blocks the hub.
            options["ssl_context"] = context = gevent_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        server = StreamServer(("127.0.0.1", 0), serve, backlog=BACKLOG, **options)
        server.start()
        port.set_result(server.socket.getsockname()[1])
        server.serve_forever()

    return in_thread(run)


def _twisted(certificate: str | None = None) -> int:
    """`twisted.internet.protocol.Protocol`."""
    from twisted.internet.protocol import Protocol

    class Echo(Protocol):
        transport: Any

        def connectionMade(self) -> None:  # noqa: N802
            self.transport.setTcpNoDelay(True)

        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            self.transport.write(data)

    return serve_protocols(Echo, certificate)


def serve_protocols(protocol: Callable[[], Any], certificate: str | None = None) -> int:
    """Run a Twisted protocol for each connection. Returns the port."""
    from twisted.internet.protocol import Factory

    def run(port: Future[int]) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed
        factory: Any = Factory.forProtocol(protocol)
        factory.noisy = False
        where: dict[str, Any] = {"backlog": BACKLOG, "interface": "127.0.0.1"}
        if certificate is None:
            listening = reactor.listenTCP(0, factory, **where)
        else:
            from twisted.internet.ssl import PrivateCertificate

            untyped: Any = PrivateCertificate
            options = untyped.loadPEM(Path(certificate).read_bytes()).options()
            listening = reactor.listenSSL(0, factory, options, **where)
        port.set_result(listening.getHost().port)
        reactor.run(installSignalHandlers=False)

    return in_thread(run)


def _selectors(certificate: str | None = None) -> int:
    """`selectors` and sockets that do not block."""

    def run(port: Future[int]) -> None:
        context = _context(certificate)
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        listener.setblocking(False)
        with DefaultSelector() as selector, listener:
            selector.register(listener, EVENT_READ)
            port.set_result(listener.getsockname()[1])
            while True:
                for key, _ in selector.select():
                    if key.fileobj is listener:
                        accepted, _ = listener.accept()
                        _prepare(accepted)
                        if context is not None:  # the first reads shake hands
                            accepted = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
                        selector.register(accepted, EVENT_READ, accepted)
                    elif not _echo(key.data):
                        selector.unregister(key.data)
                        key.data.close()

    return in_thread(run)


def threads() -> int:
    """A thread for each socket, which blocks in it."""

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, suppress(OSError):
            while data := sock.recv(CHUNK):
                sock.sendall(data)

    def run(port: Future[int]) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
            port.set_result(listener.getsockname()[1])
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    return in_thread(run)


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _echo(sock: socket.socket) -> bool:
    """Send back what is there. Returns False once the peer has gone."""
    try:
        data = sock.recv(CHUNK)
        sock.send(data)
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
    return bool(data)


BARE: dict[str, dict[str, Callable[[], int]]] = {
    "asyncio": {"Protocol": _asyncio},
    "uvloop": {"Protocol": _uvloop},
    "gevent": {"watcher": _gevent_watchers, "greenlet": _gevent_greenlets},
    "twisted": {"Protocol": _twisted},
    "blocking": {"selectors": _selectors},
}
"""For each transport its bare servers by name, the leanest first: functions that start one on
a thread of its own and give its port."""

BARE_TLS: dict[str, Callable[[str], int]] = {
    "asyncio": _asyncio,
    "uvloop": _uvloop,
    "gevent": _gevent_greenlets,
    "twisted": _twisted,
    "blocking": _selectors,
}
"""For each transport a bare server over TLS: a function that takes the path of a PEM file with
key and certificate."""
