"""UDP: `serve_udp` and `connect_udp`."""

from __future__ import annotations

import asyncio
import socket
from typing import overload

from packetcore import Config, DatagramEndpoint, Endpoint, Handler, Inbox, Session, SessionPool
from packetcore_asyncio._functions import StreamFunction
from packetcore_asyncio._runtime import tie
from packetcore_asyncio._stream import Stream
from packetcore_asyncio._tcp import Server
from packetcore_sockets import DatagramSocket, open_udp_client, open_udp_servers


class DatagramHost(DatagramSocket):
    """The `packetcore.DatagramHost` on an event loop."""

    def __init__(
        self, endpoint: Endpoint, sock: socket.socket, loop: asyncio.AbstractEventLoop, is_connected: bool = False
    ) -> None:
        super().__init__(endpoint, sock, loop.time, is_connected)
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(sock, self._readable)

    def set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def wake(self) -> None:
        self._loop.call_soon(lambda: self.endpoint.flush(self._loop.time()))

    def close(self) -> None:
        self._loop.remove_reader(self.sock)
        super().close()

    def _readable(self) -> None:
        if self.read() and self.sock.fileno() >= 0:  # uvloop stops watching a socket that has an error
            self._loop.remove_reader(self.sock)
            self._loop.add_reader(self.sock, self._readable)

    def _tick(self) -> None:
        self._timer = None
        self.endpoint.tick(self._loop.time())


async def serve_udp(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    broadcast: bool = False,
    multicast_group: str | None = None,
) -> Server:
    """Receive on UDP and serve: each address that sends a packet has a session.

    Args:
        handler: a `packetcore.Handler` for all sessions, or an `async def` function that
            is run over a `Stream` for each.
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families. With a `multicast_group` the address
            of the interface to join it on.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of TCP for instance.
        broadcast: let sessions send to broadcast addresses.
        multicast_group: the address of a group to join.

    Raises:
        OSError: the address is in use or not this machine's, or the group cannot be joined.
        ValueError: `config` joins messages, or `multicast_group` is no multicast address.
    """
    loop = asyncio.get_running_loop()
    server = Server(handler, config, sessions, DatagramEndpoint)
    infos = await loop.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    sockets = open_udp_servers(infos, port, broadcast=broadcast, multicast_group=multicast_group)
    server.addresses = [sock.getsockname() for sock in sockets]
    for sock in sockets:
        DatagramHost(server.endpoint, sock, loop)
    return server


@overload
async def connect_udp(
    host: str,
    port: int,
    handler: None = None,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
) -> Stream: ...
@overload
async def connect_udp(
    host: str,
    port: int,
    handler: Handler,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
) -> Session: ...
async def connect_udp(
    host: str,
    port: int,
    handler: Handler | None = None,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
) -> Stream | Session:
    """Open a session with a UDP peer. Nothing is sent yet, and nobody need be there. The socket
    is closed with the last of its sessions.

    Args:
        host: a name or an address; a broadcast or multicast address too.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from. Of a
            multicast group, or with `broadcast`, a handler has one more session for each
            who replies; a stream has the replies of all.
        config: limits and timeouts.
        broadcast: allow a broadcast address.
        local_host: the address to send from; for an IPv4 group its interface too.

    Raises:
        OSError: the name is unknown, or there is no way to the address.
        ValueError: `config` joins messages.
    """
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    endpoint = DatagramEndpoint(inbox if handler is None else handler, config)
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    sock, peer, is_connected = open_udp_client(infos, broadcast=broadcast, local_host=local_host)
    tie(endpoint, loop)
    DatagramHost(endpoint, sock, loop, is_connected)
    session = endpoint.open(peer, loop.time(), sole=handler is None)
    return Stream(inbox, loop) if handler is None else session
