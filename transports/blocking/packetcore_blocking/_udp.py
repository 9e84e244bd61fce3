"""UDP: `serve_udp` and `connect_udp`."""

from __future__ import annotations

import socket
from functools import partial
from time import monotonic
from typing import Any, overload

from packetcore import Config, DatagramEndpoint, Endpoint, Handler, Inbox, Session, SessionPool
from packetcore_blocking._dial import log_end
from packetcore_blocking._functions import StreamFunction
from packetcore_blocking._look_up import look_up_and_wait
from packetcore_blocking._loop import Loop, Timer
from packetcore_blocking._session import LockedDatagramSession
from packetcore_blocking._sharing import loop_for
from packetcore_blocking._stream import Stream
from packetcore_blocking._tcp import Server, on_own_loop
from packetcore_sockets import DatagramSocket, open_udp_client, open_udp_servers


class DatagramHost(DatagramSocket):
    """The `packetcore.DatagramHost` on a loop."""

    def __init__(self, loop: Loop, endpoint: Endpoint, sock: socket.socket, is_connected: bool = False) -> None:
        super().__init__(endpoint, sock, monotonic, is_connected)
        self._loop = loop
        self._timer: Timer | None = None
        loop.open.add(self._shut)
        loop.set_reader(sock, self._readable)

    def set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def wake(self) -> None:
        self._loop.call_soon(lambda: self.endpoint.flush(monotonic()))

    def close(self) -> None:
        self._loop.open.discard(self._shut)
        self._loop.set_reader(self.sock, None)
        super().close()

    def _shut(self) -> None:
        self.endpoint.abort(monotonic())

    def _readable(self) -> None:
        if self.sock.fileno() >= 0:  # not closed in the same turn
            self.read()

    def _tick(self) -> None:
        self._timer = None
        self.endpoint.tick(monotonic())


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
    """Receive on UDP, to serve once `start` or `serve_forever` is called, or by `with`: each
    address that sends a packet has a session.

    Args:
        handler: a `packetcore.Handler` for all sessions, or a function that is run over a
            `Stream` for each, on a thread of its own.
        host: the address to listen on, or a name: each of its addresses. `None` or "" means
            every one of this machine, of both families. With a `multicast_group` the address
            of the interface to join it on.
        port: 0 takes a free one, the same for all; `Server.addresses` tells which.
        config: limits and timeouts.
        sessions: a register that other servers use too, of TCP for instance; see `serve`.
        broadcast: let sessions send to broadcast addresses.
        multicast_group: the address of a group to join.

    Raises:
        OSError: the address is in use or not this machine's, or the group cannot be joined.
        ValueError: `config` joins messages, or `multicast_group` is no multicast address.
    """
    options = {"broadcast": broadcast, "multicast_group": multicast_group}
    with loop_for(sessions) as loop:
        return serve_udp_on(loop, handler, host, port, config=config, sessions=sessions, is_to_leave=True, **options)


def serve_udp_on(
    loop: Loop,
    handler: Handler | StreamFunction,
    host: str | None,
    port: int,
    *,
    config: Config | None,
    sessions: SessionPool[Session] | None = None,
    is_to_leave: bool = False,
    **options: Any,
) -> Server:
    """Receive as `serve_udp` does, on a loop that may be others' too."""
    server = Server(loop, handler, config, sessions, endpoint=partial(_endpoint, loop), is_to_leave=is_to_leave)
    infos = look_up_and_wait(loop, host or None, port, socket.SOCK_DGRAM, socket.AI_PASSIVE)
    sockets = open_udp_servers(infos, port, **options)
    server.addresses = [sock.getsockname() for sock in sockets]
    with loop:
        for sock in sockets:
            DatagramHost(loop, server.endpoint, sock)
    return server


def _endpoint(loop: Loop, *args: Any, **options: Any) -> DatagramEndpoint:
    return DatagramEndpoint(*args, new_session=partial(LockedDatagramSession, loop), **options)


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
        handler: what hears of packets, on a thread that ends with the session; with none
            you get a `Stream` to receive from. Of a multicast group, or with `broadcast`, a
            handler has one more session for each who replies; a stream has the replies of all.
        config: limits and timeouts.
        broadcast: allow a broadcast address.
        local_host: the address to send from; for an IPv4 group its interface too.

    Raises:
        OSError: the name is unknown, or there is no way to the address.
        ValueError: `config` joins messages.
    """
    options = {"broadcast": broadcast, "local_host": local_host}
    return on_own_loop(lambda loop: connect_udp_on(loop, host, port, handler, config=config, **options))


def connect_udp_on(
    loop: Loop,
    host: str,
    port: int,
    handler: Handler | None,
    *,
    config: Config | None,
    **options: Any,
) -> Stream | Session:
    """Open a session as `connect_udp` does, on a loop that may be others' too."""
    inbox = Inbox()
    endpoint = _endpoint(loop, inbox if handler is None else handler, config)
    endpoint.runs_by(loop.post, any_thread=True)
    endpoint.on_ended = partial(log_end, endpoint)
    infos = look_up_and_wait(loop, host, port, socket.SOCK_DGRAM)
    sock, peer, is_connected = open_udp_client(infos, **options)
    with loop:
        DatagramHost(loop, endpoint, sock, is_connected)
        session = endpoint.open(peer, monotonic(), sole=handler is None)
    return Stream(inbox, loop) if handler is None else session
