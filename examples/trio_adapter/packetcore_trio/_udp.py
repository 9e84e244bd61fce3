"""UDP: `serve_udp` and `connect_udp`. The socket's part is `packetcore_sockets.DatagramSocket`,
whose verbs are plain calls on trio too; two tasks wait for what is ready and for the time."""

from __future__ import annotations

import socket
from typing import Any, overload

import trio
from trio import Nursery

from packetcore import Config, DatagramEndpoint, Endpoint, Handler, Inbox, Session, SessionPool
from packetcore_sockets import DatagramSocket, open_udp_client, open_udp_servers
from packetcore_trio._runtime import tie
from packetcore_trio._stream import Stream, StreamFunction
from packetcore_trio._tcp import Server
from packetcore_trio._timer import Timer


class DatagramHost(DatagramSocket):
    """The `packetcore.DatagramHost`, while `run` runs."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, is_connected: bool = False) -> None:
        super().__init__(endpoint, sock, trio.current_time, is_connected)
        self._life = trio.CancelScope()
        self._timer = Timer(self.endpoint.tick)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read until the endpoint closes the socket, or all that this runs in is cancelled."""
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._timer.run)
                    task_status.started()
                    while True:
                        await trio.lowlevel.wait_readable(self.sock)
                        self.read()
        finally:
            self.endpoint.abort(trio.current_time())

    def set_timer(self, at: float | None) -> None:
        self._timer.set(at)

    def wake(self) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(lambda: self.endpoint.flush(trio.current_time()))

    def close(self) -> None:
        self._life.cancel()
        trio.lowlevel.notify_closing(self.sock)
        super().close()


async def serve_udp(
    handler: Handler | StreamFunction,
    host: str | None = "127.0.0.1",
    port: int = 0,
    *,
    nursery: Nursery,
    config: Config | None = None,
    sessions: SessionPool[Session] | None = None,
    **options: Any,
) -> Server:
    """Receive on UDP; each address that sends a packet has a session. It runs in `nursery` until
    it is closed. Takes `sessions` as `serve`, and `broadcast` and `multicast_group`, which `host`
    is the interface for.

    Raises:
        OSError: the address is in use or not this machine's, or the group cannot be joined.
        ValueError: `config` joins messages, or `multicast_group` is no multicast address.
    """
    server = Server(handler, config, sessions, endpoint=DatagramEndpoint)
    infos = await trio.socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    sockets = open_udp_servers(infos, port, **options)
    server.addresses = [sock.getsockname() for sock in sockets]
    hosts = [DatagramHost(server.endpoint, sock) for sock in sockets]
    server._on_empty = lambda: server.endpoint.abort(trio.current_time())

    async def receive() -> None:
        async with trio.open_nursery() as receiving:
            for host in hosts:
                receiving.start_soon(host.run)

    await nursery.start(server._run, receive)
    return server


@overload
async def connect_udp(host: str, port: int, handler: None = None, *, nursery: Nursery, **kwargs: Any) -> Stream: ...
@overload
async def connect_udp(host: str, port: int, handler: Handler, *, nursery: Nursery, **kwargs: Any) -> Session: ...
async def connect_udp(
    host: str,
    port: int,
    handler: Handler | None = None,
    *,
    nursery: Nursery,
    config: Config | None = None,
    **options: Any,
) -> Stream | Session:
    """Open a session with a UDP peer; nothing is sent yet. It runs in `nursery` until it is over.
    Takes `broadcast`, and `local_host` to send from.

    Raises:
        OSError: the name is unknown, or there is no way to the address.
        ValueError: `config` joins messages.
    """
    inbox = Inbox()
    endpoint = DatagramEndpoint(inbox if handler is None else handler, config)
    infos = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    sock, peer, is_connected = open_udp_client(infos, **options)
    tie(endpoint, nursery)
    await nursery.start(DatagramHost(endpoint, sock, is_connected).run)
    session = endpoint.open(peer, trio.current_time(), sole=handler is None)
    return Stream(inbox) if handler is None else session
