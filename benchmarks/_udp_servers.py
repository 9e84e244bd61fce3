"""The UDP echo servers that `echo_udp.py` compares, each run in a process of its own.

`packetcore` is a handler behind the adapter's `serve_udp`. `raw` is what one writes on the
same loop to send datagrams back without looking into them. `reader`, on asyncio's loops,
is raw too and leaves out asyncio's own datagram transport, which reads one datagram in a
turn of the loop: it reads in batches, as packetcore does.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any

from _common import pin

from packetcore import Handler, Packet, Session, load_driver

Ready = Callable[[int], None]
"""To be called with the port, once a server listens."""

BATCH = 64
"""The most datagrams read in one turn of a loop."""
SIZE = 65_536
"""The longest datagram read, in bytes."""


class Echo(Handler):
    """Sends every packet back."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


class EchoProtocol(asyncio.DatagramProtocol):
    """Sends every datagram back."""

    def connection_made(self, transport: Any) -> None:
        self._send = transport.sendto

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._send(data, addr)


def echo_batch(sock: socket.socket) -> None:
    """Send back what is there."""
    receive, send = sock.recvfrom, sock.sendto
    try:
        for _ in range(BATCH):
            data, addr = receive(SIZE)
            send(data, addr)
    except BlockingIOError:
        pass


def raw_asyncio(loop: asyncio.AbstractEventLoop, ready: Ready) -> None:
    """A datagram protocol."""
    endpoint = loop.create_datagram_endpoint(EchoProtocol, local_addr=("127.0.0.1", 0))
    transport, _ = loop.run_until_complete(endpoint)
    ready(transport.get_extra_info("sockname")[1])
    loop.run_forever()


def reader(loop: asyncio.AbstractEventLoop, ready: Ready) -> None:
    """A socket that the loop only watches."""
    sock = _bound()
    loop.add_reader(sock, echo_batch, sock)
    ready(sock.getsockname()[1])
    loop.run_forever()


def raw_gevent(ready: Ready) -> None:
    """A greenlet that receives and sends."""
    import gevent
    from gevent.socket import socket as gevent_socket

    sock = gevent_socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))

    def echo() -> None:
        while True:
            data, addr = sock.recvfrom(SIZE)
            sock.sendto(data, addr)

    ready(sock.getsockname()[1])
    gevent.spawn(echo).join()


def raw_twisted(ready: Ready) -> None:
    """A datagram protocol."""
    from twisted.internet.epollreactor import EPollReactor
    from twisted.internet.protocol import DatagramProtocol

    class TwistedEcho(DatagramProtocol):
        transport: Any

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: N802
            self.transport.write(datagram, addr)

    new_reactor: Callable[[], Any] = EPollReactor
    reactor = new_reactor()
    ready(reactor.listenUDP(0, TwistedEcho(), interface="127.0.0.1").getHost().port)
    reactor.run(installSignalHandlers=False)


def raw_blocking(ready: Ready) -> None:
    """A selector and a socket."""
    sock = _bound()
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        ready(sock.getsockname()[1])
        while True:
            selector.select()
            echo_batch(sock)


def packetcore(transport: str, ready: Ready) -> None:
    """What an application has."""
    ready(load_driver(transport).start_udp_server(Echo()).address[1])


SERVERS: dict[str, dict[str, Callable[[Ready], None]]] = {
    "asyncio": {
        "packetcore": partial(packetcore, "asyncio"),
        "raw": lambda ready: raw_asyncio(asyncio.new_event_loop(), ready),
        "reader": lambda ready: reader(asyncio.new_event_loop(), ready),
    },
    "uvloop": {
        "packetcore": partial(packetcore, "asyncio"),
        "raw": lambda ready: raw_asyncio(_uvloop(), ready),
        "reader": lambda ready: reader(_uvloop(), ready),
    },
    "gevent": {"packetcore": partial(packetcore, "gevent"), "raw": raw_gevent},
    "twisted": {"packetcore": partial(packetcore, "twisted"), "raw": raw_twisted},
    "blocking": {"packetcore": partial(packetcore, "blocking"), "raw": raw_blocking},
}
"""By loop and by name."""


def run(server: str, loop: str, pipe: Pipe) -> None:
    """Serve for as long as the pipe is open; tell the port through it first, and then, at
    each request, the processor time of this process in seconds."""
    pin(0)
    if loop == "asyncio":
        os.environ["PACKETCORE_NO_UVLOOP"] = "1"
    threading.Thread(target=SERVERS[loop][server], args=(pipe.send,), daemon=True).start()
    try:
        while True:
            pipe.recv()
            pipe.send(time.process_time())
    except EOFError:
        pass


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()
