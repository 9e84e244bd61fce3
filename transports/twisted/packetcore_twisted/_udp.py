"""UDP: `serve_udp` and `connect_udp`."""

from __future__ import annotations

import socket
from typing import Any, overload

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer  # type: ignore[import-untyped]

from packetcore import Config, DatagramEndpoint, Endpoint, Handler, Inbox, Session, SessionPool
from packetcore_sockets import DatagramSocket, open_udp_client, open_udp_servers
from packetcore_twisted._functions import StreamFunction
from packetcore_twisted._reactor import clock_of, log_failure, look_up, the_reactor, tie
from packetcore_twisted._stream import Stream
from packetcore_twisted._tcp import Server


@implementer(IReadDescriptor)
class DatagramHost(DatagramSocket):
    """The `packetcore.DatagramHost` on a reactor, for which it is a descriptor to read."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, reactor: Any, is_connected: bool = False) -> None:
        super().__init__(endpoint, sock, clock_of(reactor), is_connected)
        self._time = clock_of(reactor)
        self._reactor = reactor
        self._timer: Any = None
        reactor.addReader(self)

    # What the endpoint calls.

    def set_timer(self, at: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        delay = None if at is None else max(0, at - self._time())
        self._timer = None if delay is None else self._reactor.callLater(delay, self._tick)

    def wake(self) -> None:
        self._reactor.callLater(0, lambda: self.endpoint.flush(self._time()))

    def close(self) -> None:
        self._reactor.removeReader(self)
        super().close()

    def _tick(self) -> None:
        self.endpoint.tick(self._time())

    # What the reactor calls.

    def fileno(self) -> int:
        return self.sock.fileno()

    def logPrefix(self) -> str:  # noqa: N802
        return "packetcore"

    def doRead(self) -> None:  # noqa: N802
        self.read()

    def connectionLost(self, reason: Any) -> None:  # noqa: N802
        # To a reactor that polls, a socket with an error and nothing else is one to close.
        if reason.check(ConnectionDone) and self.sock.fileno() >= 0:
            self._reactor.addReader(self)
            self.read()
        else:
            self.endpoint.abort(self._time())


def serve_udp(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    broadcast: bool = False,
    multicast_group: str | None = None,
    reactor: Any = None,
) -> Deferred[Server]:
    """Receive on UDP and serve: each address that sends a packet has a session.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function that is run over a
            `Stream` for each, `async def` or with a Deferred as its result.
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families. With a `multicast_group` the address
            of the interface to join it on.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of TCP for instance.
        broadcast: let sessions send to broadcast addresses.
        multicast_group: the address of a group to join.
        reactor: the global one by default.

    Raises:
        OSError: the address is in use or not this machine's, or the group cannot be joined.
        ValueError: `config` joins messages, or `multicast_group` is no multicast address.
    """

    async def listen() -> Server:
        server = Server(handler, config, reactor, endpoint=DatagramEndpoint, sessions=sessions)
        infos = await look_up(server.reactor, host or None, port, socket.SOCK_DGRAM, socket.AI_PASSIVE)
        sockets = open_udp_servers(infos, port, broadcast=broadcast, multicast_group=multicast_group)
        server.addresses = [sock.getsockname() for sock in sockets]
        for sock in sockets:
            DatagramHost(server.endpoint, sock, server.reactor)
        return server

    return Deferred.fromCoroutine(listen())


@overload
def connect_udp(
    host: str,
    port: int,
    handler: None = None,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
    reactor: Any = None,
) -> Deferred[Stream]: ...
@overload
def connect_udp(
    host: str,
    port: int,
    handler: Handler,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
    reactor: Any = None,
) -> Deferred[Session]: ...
def connect_udp(
    host: str,
    port: int,
    handler: Handler | None = None,
    *,
    config: Config | None = None,
    broadcast: bool = False,
    local_host: str | None = None,
    reactor: Any = None,
) -> Deferred[Any]:
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
        reactor: the global one by default.

    Raises:
        OSError: the name is unknown, or there is no way to the address.
        ValueError: `config` joins messages.
    """

    async def connect() -> Stream | Session:
        using = the_reactor(reactor)
        inbox = Inbox()
        endpoint = DatagramEndpoint(inbox if handler is None else handler, config, log_exception=log_failure)
        infos = await look_up(using, host, port, socket.SOCK_DGRAM)
        sock, peer, is_connected = open_udp_client(infos, broadcast=broadcast, local_host=local_host)
        tie(endpoint, using)
        DatagramHost(endpoint, sock, using, is_connected)
        session = endpoint.open(peer, clock_of(using)(), sole=handler is None)
        return Stream(inbox, using) if handler is None else session

    return Deferred.fromCoroutine(connect())
