"""UDP: `serve_udp` and `connect_udp`."""

from __future__ import annotations

import socket
from time import monotonic
from typing import overload

import gevent.socket

from packetcore import Config, DatagramEndpoint, Endpoint, Handler, Inbox, Session, SessionPool
from packetcore_gevent._functions import StreamFunction
from packetcore_gevent._loop import HubLoop
from packetcore_gevent._stream import Stream
from packetcore_gevent._tcp import Server
from packetcore_sockets import DatagramSocket, Handle, open_udp_client, open_udp_servers


class DatagramHost(DatagramSocket):
    """The `packetcore.DatagramHost` on this thread's hub."""

    def __init__(self, loop: HubLoop, endpoint: Endpoint, sock: socket.socket, is_connected: bool = False) -> None:
        super().__init__(endpoint, sock, monotonic, is_connected)
        self._loop = loop
        self._timer: Handle | None = None
        loop.set_reader(sock, self._readable)

    def set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def wake(self) -> None:
        self._loop.call_soon(lambda: self.endpoint.flush(monotonic()))

    def close(self) -> None:
        self._loop.set_reader(self.sock, None)
        super().close()

    def _tick(self) -> None:
        self._timer = None
        self.endpoint.tick(monotonic())

    def _readable(self) -> None:
        if self.sock.fileno() >= 0:  # not closed in the same turn
            self.read()


def serve_udp(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    broadcast: bool = False,
    multicast_group: str | None = None,
) -> Server:
    """Receive on UDP and serve, on the hub of this thread: each address that sends a packet
    has a session.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function over a `Stream`
            that runs in a greenlet of its own for each.
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
    server = Server(handler, config, sessions, DatagramEndpoint)
    infos = gevent.socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    sockets = open_udp_servers(infos, port, broadcast=broadcast, multicast_group=multicast_group)
    server.addresses = [sock.getsockname() for sock in sockets]
    for sock in sockets:
        DatagramHost(server.loop, server.endpoint, sock)
    return server


@overload
def connect_udp(
    host: str,
    port: int,
    handler: None = None,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
) -> Stream: ...
@overload
def connect_udp(
    host: str,
    port: int,
    handler: Handler,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
) -> Session: ...
def connect_udp(
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
    inbox = Inbox()
    loop = HubLoop()
    endpoint = DatagramEndpoint(inbox if handler is None else handler, config)
    loop.bind(endpoint)
    infos = gevent.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    sock, peer, is_connected = open_udp_client(infos, broadcast=broadcast, local_host=local_host)
    DatagramHost(loop, endpoint, sock, is_connected)
    session = endpoint.open(peer, monotonic(), sole=handler is None)
    return Stream(inbox) if handler is None else session
