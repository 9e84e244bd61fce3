"""What one case runs on: the adapter's servers and clients, and raw peers of theirs."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from packetcore import TLS, Address, Config, Driver, Handler, ServerBase, Session, StreamBase
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.peer import DEADLINE, Peer


class Rig:
    """Makes what a case needs on one driver, and ends all of it with `close`."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._servers: list[ServerBase] = []
        self._clients: list[Session] = []
        self._peers: list[Peer | DatagramPeer] = []
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="case")

    def serve(
        self, handler: Handler | None = None, config: Config | None = None, *, tls: TLS | None = None, port: int = 0
    ) -> ServerBase:
        """A server of the adapter; without a handler it echoes over streams."""
        server = self.driver.start_server(handler, port=port, config=config, tls=tls)
        self._servers.append(server)
        return server

    def connect(
        self, server: ServerBase, handler: Handler, config: Config | None = None, *, tls: TLS | None = None
    ) -> Session:
        """A client of the adapter."""
        host, port = server.address[:2]
        session: Session = self.driver.connect(host, port, handler, config=config, tls=tls)
        self._clients.append(session)
        return session

    def stream(self, server: ServerBase, config: Config | None = None, *, tls: TLS | None = None) -> Any:
        """A client of the adapter, as a stream."""
        host, port = server.address[:2]
        stream: StreamBase = self.driver.connect(host, port, config=config, tls=tls)
        self._clients.append(stream.session)
        return stream

    def peer(
        self,
        server: ServerBase,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        receive_buffer: int | None = None,
    ) -> Peer:
        """A raw peer of a server."""
        peer = Peer.connect(server.address, tls=tls, server_hostname=server_hostname, receive_buffer=receive_buffer)
        self._peers.append(peer)
        return peer

    def serve_udp(
        self,
        handler: Handler | None = None,
        config: Config | None = None,
        *,
        host: str | None = "127.0.0.1",
        port: int = 0,
        **options: Any,
    ) -> ServerBase:
        """A UDP server of the adapter; without a handler it echoes over streams."""
        server = self.driver.start_udp_server(handler, host, port, config=config, **options)
        self._servers.append(server)
        return server

    def connect_udp(self, address: Address, handler: Handler, config: Config | None = None, **options: Any) -> Session:
        """A UDP client of the adapter."""
        session: Session = self.driver.connect_udp(address[0], address[1], handler, config=config, **options)
        self._clients.append(session)
        return session

    def stream_udp(self, address: Address, config: Config | None = None, **options: Any) -> Any:
        """A UDP client of the adapter, as a stream."""
        stream: StreamBase = self.driver.connect_udp(address[0], address[1], config=config, **options)
        self._clients.append(stream.session)
        return stream

    def udp_peer(self, server: Address | None = None, host: str | None = None, port: int = 0) -> DatagramPeer:
        """A raw UDP peer, of the server at an address or of anybody."""
        peer = DatagramPeer(server, host, port)
        self._peers.append(peer)
        return peer

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = DEADLINE) -> Any:
        """Call a function on the runtime and wait for its result."""
        return self.driver.call(function, *args, timeout=timeout)

    def in_background(self, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Begin a call on the runtime; what this gives waits for its result."""
        return self.in_thread(self.call, function, *args)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Begin a call on a thread of the case; what this gives waits for its result."""
        future = self._pool.submit(function, *args)
        return lambda: future.result(DEADLINE)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is true on the runtime."""
        deadline = time.monotonic() + DEADLINE
        while not self.call(condition):
            if time.monotonic() > deadline:
                raise AssertionError(f"never came true within {DEADLINE} s: {what}")
            time.sleep(0.002)

    def until_received(self, session: Session, size: int) -> None:
        """Wait until a session has received `size` bytes in all."""
        self.until(lambda: session.stats.bytes_received == size, f"{size} bytes were received")

    def until_empty(self, server: ServerBase) -> None:
        """Wait until a server has no session."""
        self.until(lambda: len(server.sessions) == 0, "the pool is empty")

    def sessions(self, server: ServerBase, count: int) -> list[Session]:
        """Wait until a server has `count` sessions; give them."""
        self.until(lambda: len(server.sessions) == count, f"{count} sessions are in the pool")
        found: list[Session] = self.call(lambda: list(server.sessions))
        return found

    def close(self) -> None:
        """End everything, and see that nothing is left in a pool."""
        for peer in self._peers:
            peer.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            self.call(client.abort)
        for server in self._servers:
            self.call(server.close, 0)
            assert self.call(lambda server=server: len(server.sessions)) == 0, "a closed server kept sessions"
