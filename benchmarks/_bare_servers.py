"""Echo of raw bytes on each runtime with nothing of packetcore: what a connection costs anyway.

Each is the leanest form that its runtime offers for a callback for each chunk: no timer, no
buffer of its own, no limit. gevent has a second form, a greenlet for each connection, which is
how servers are written for it.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from selectors import EVENT_READ, DefaultSelector
from typing import Any

BACKLOG = 1024
CHUNK = 64 * 1024


def _in_thread(run: Callable[[Future[int]], object]) -> int:
    """Run a server on a thread of its own. Returns its port."""
    port: Future[int] = Future()
    threading.Thread(target=run, args=(port,), daemon=True).start()
    return port.result(30)


class _Protocol(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


def _run_loop(loop: asyncio.AbstractEventLoop, port: Future[int]) -> None:
    server = loop.run_until_complete(loop.create_server(_Protocol, "127.0.0.1", 0, backlog=BACKLOG))
    port.set_result(server.sockets[0].getsockname()[1])
    loop.run_forever()


def _asyncio() -> int:
    """`asyncio.Protocol`."""
    return _in_thread(lambda port: _run_loop(asyncio.new_event_loop(), port))


def _uvloop() -> int:
    """`asyncio.Protocol` on uvloop."""
    import uvloop

    return _in_thread(lambda port: _run_loop(uvloop.new_event_loop(), port))


def _gevent_watchers() -> int:
    """A watcher of the hub's loop for each socket, and no greenlet."""
    import gevent
    from gevent.server import StreamServer

    def run(port: Future[int]) -> None:
        loop = gevent.get_hub().loop
        watched: dict[socket.socket, Any] = {}

        def accepted(listened: socket.socket, peer: object) -> None:
            sock = socket.socket(listened.family, listened.type, listened.proto, listened.detach())
            sock.setblocking(False)
            watched[sock] = watcher = loop.io(sock.fileno(), 1)
            watcher.start(readable, sock)

        def readable(sock: socket.socket) -> None:
            if data := _recv(sock):
                sock.send(data)
            else:
                watched.pop(sock).close()
                sock.close()

        server = StreamServer(("127.0.0.1", 0), accepted, spawn=None, backlog=BACKLOG)
        server.start()
        port.set_result(server.socket.getsockname()[1])
        server.serve_forever()

    return _in_thread(run)


def _gevent_greenlets() -> int:
    """`StreamServer` with a greenlet for each socket."""
    from gevent.server import StreamServer

    def serve(sock: socket.socket, peer: object) -> None:
        while data := _recv(sock):
            sock.sendall(data)

    def run(port: Future[int]) -> None:
        server = StreamServer(("127.0.0.1", 0), serve, backlog=BACKLOG)
        server.start()
        port.set_result(server.socket.getsockname()[1])
        server.serve_forever()

    return _in_thread(run)


def _twisted() -> int:
    """`twisted.internet.protocol.Protocol`."""
    from twisted.internet.protocol import Factory, Protocol

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:  # noqa: N802
            transport: Any = self.transport
            transport.write(data)

    def run(port: Future[int]) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed
        listening = reactor.listenTCP(0, Factory.forProtocol(Echo), backlog=BACKLOG, interface="127.0.0.1")
        port.set_result(listening.getHost().port)
        reactor.run(installSignalHandlers=False)

    return _in_thread(run)


def _selectors() -> int:
    """`selectors` and sockets that do not block."""

    def run(port: Future[int]) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        listener.setblocking(False)
        with DefaultSelector() as selector, listener:
            selector.register(listener, EVENT_READ)
            port.set_result(listener.getsockname()[1])
            while True:
                for key, _ in selector.select():
                    if key.fileobj is listener:
                        accepted, _ = listener.accept()
                        accepted.setblocking(False)
                        selector.register(accepted, EVENT_READ, accepted)
                    elif data := _recv(key.data):
                        key.data.send(data)
                    else:
                        selector.unregister(key.data)
                        key.data.close()

    return _in_thread(run)


def _recv(sock: socket.socket) -> bytes:
    try:
        return sock.recv(CHUNK)
    except OSError:
        return b""


BARE: dict[str, dict[str, Callable[[], int]]] = {
    "asyncio": {"Protocol": _asyncio},
    "uvloop": {"Protocol": _uvloop},
    "gevent": {"watcher": _gevent_watchers, "greenlet": _gevent_greenlets},
    "twisted": {"Protocol": _twisted},
    "blocking": {"selectors": _selectors},
}
"""For each transport its bare servers by name, the leanest first: functions that start one on
a thread of its own and give its port."""
