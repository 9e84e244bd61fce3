"""What one case runs on: the adapter's servers and clients, and raw peers of theirs."""

from __future__ import annotations

import inspect
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from packetcore import TLS, Address, Backoff, ClientBase, Config, Driver, Handler, ServerBase, Session
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.serial_peer import Cable, SerialPeer


class Rig:
    """Makes what a case needs on one driver, and ends all of it with `close`.

    Args:
        driver: the adapter's.
        transport: its name.
    """

    def __init__(self, driver: Driver, transport: str = "") -> None:
        self.driver = driver
        self.new_cluster: Callable[..., Any] | None = None
        """The adapter's `Cluster`; `None` where no package offers one, in the group of entry points
        `packetcore.clusters`, by the adapter's name."""
        for entry in entry_points(group="packetcore.clusters", name=transport):
            self.new_cluster = entry.load()
        self._servers: list[ServerBase] = []
        self._clients: list[Session] = []
        self._returning: list[ClientBase] = []
        self._connection_pools: list[Any] = []
        self._clusters: list[Any] = []
        self._peers: list[Peer | DatagramPeer | SerialPeer | Cable] = []
        self._threads = ThreadPoolExecutor(512, thread_name_prefix="case")

    def serve(
        self,
        handler: Handler | None = None,
        config: Config | None = None,
        *,
        tls: TLS | None = None,
        port: int = 0,
        **options: Any,
    ) -> ServerBase:
        """A server of the adapter; without a handler it echoes over streams."""
        server = self.driver.start_server(handler, port=port, config=config, tls=tls, **options)
        self._servers.append(server)
        return server

    def serve_unix(
        self, path: str, handler: Handler | None = None, config: Config | None = None, **options: Any
    ) -> ServerBase:
        """A server of the adapter on a Unix socket."""
        server = self.driver.start_unix_server(handler, path, config=config, **options)
        self._servers.append(server)
        return server

    def connect_unix(self, path: str, handler: Any = None, config: Config | None = None, **options: Any) -> Any:
        """A client of the adapter on a Unix socket, as what its `connect_unix` gives."""
        return self._kept(self.driver.connect_unix(path, handler, config=config, **options))

    def connect_url(
        self, url: str, handler: Any = None, config: Config | None = None, *, tls: TLS | None = None, **options: Any
    ) -> Any:
        """A client of the adapter by WebSocket, as what its `connect` gives."""
        return self._kept(self.driver.connect(url, None, handler, config=config, tls=tls, **options))

    def connect_serial(self, device: str, handler: Any = None, config: Config | None = None, **options: Any) -> Any:
        """A client of the adapter on a serial line, as what its `connect_serial` gives."""
        return self._kept(self.driver.connect_serial(device, handler, config=config, **options))

    def serial_peer(self) -> SerialPeer:
        """The other end of a serial line."""
        peer = SerialPeer()
        self._peers.append(peer)
        return peer

    def cable(self, **options: Any) -> Cable:
        """A cable between two serial lines."""
        cable = Cable(**options)
        self._peers.append(cable)
        return cable

    def unix_peer(self, path: str) -> Peer:
        """A raw peer of a server on a Unix socket."""
        peer = Peer.connect_unix(path)
        self._peers.append(peer)
        return peer

    def connect(
        self, server: ServerBase, handler: Handler, config: Config | None = None, *, tls: TLS | None = None
    ) -> Session:
        """A client of the adapter."""
        host, port = server.address[:2]
        session: Session = self._kept(self.driver.connect(host, port, handler, config=config, tls=tls))
        return session

    def stream(self, server: ServerBase, config: Config | None = None, *, tls: TLS | None = None) -> Any:
        """A client of the adapter, as a stream."""
        host, port = server.address[:2]
        return self._kept(self.driver.connect(host, port, config=config, tls=tls))

    def client(
        self,
        address: Address,
        handler: Handler | Callable[[Any], Any],
        reconnect: Backoff,
        *,
        keep: int = 0,
        config: Config | None = None,
    ) -> ClientBase:
        """A client of the adapter that comes back; its handler may be a function over a stream."""
        connect: Callable[..., Any] = self.driver.connect
        client: ClientBase = self._kept(connect(*address[:2], handler, config=config, reconnect=reconnect, keep=keep))
        return client

    def cluster(self, url: str, name: str, **options: Any) -> Any:
        """A worker's part of a cluster, which it has entered."""
        assert self.new_cluster is not None
        # What a driver tells the adapter's own functions, a cluster is told too: on which reactor, for one.
        options |= getattr(self.driver, "where", dict)()
        cluster = self.call(partial(self.new_cluster, url, name, **options))
        self.call(cluster.start)
        self._clusters.append(cluster)
        return cluster

    def connection_pool(self, address: Address, *, config: Config | None = None, **limits: Any) -> Any:
        """A connection pool of the adapter."""
        pool = self.driver.open_pool(*address[:2], config=config, **limits)
        self._connection_pools.append(pool)
        return pool

    def borrow(
        self, pool: Any, use: Callable[[Any], Any], *, patience: float | None = None, timeout: float = DEADLINE
    ) -> Any:
        """Acquire a stream of a pool, call `use` with it, wait for the result, give the stream back.

        Args:
            pool: the adapter's connection pool, whose `acquire` is for `async with` or for `with`.
            use: what to call; where the runtime has awaitables it may give one.
            patience: how long to wait for a stream, in seconds; where waits have no timeouts
                the whole is cancelled then.
            timeout: after how long the whole is cancelled, in seconds.
        """

        options: dict[str, float] = {}
        if patience is not None:
            if "timeout" in inspect.signature(pool.acquire).parameters:
                options["timeout"] = patience
            else:
                timeout = patience

        async def borrow_async(lending: Any) -> Any:
            async with lending as stream:
                return await _outcome(use(stream))

        def borrow() -> Any:
            lending = pool.acquire(**options)
            if hasattr(lending, "__aenter__"):
                return borrow_async(lending)
            with lending as stream:
                return use(stream)

        return self.call(borrow, timeout=timeout)

    def stream_function(self, use: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function over a stream, as the adapter takes them, that calls `use` with it and waits
        for what that gives."""

        def function(stream: Any) -> Any:
            result = use(stream)
            return _outcome(result) if inspect.isawaitable(result) else result

        return function

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
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 0,
        **options: Any,
    ) -> ServerBase:
        """A UDP server of the adapter; without a handler it echoes over streams."""
        server = self.driver.start_udp_server(handler, host, port, config=config, **options)
        self._servers.append(server)
        return server

    def connect_udp(self, address: Address, handler: Handler, config: Config | None = None, **options: Any) -> Session:
        """A UDP client of the adapter."""
        session: Session = self._kept(
            self.driver.connect_udp(address[0], address[1], handler, config=config, **options)
        )
        return session

    def stream_udp(self, address: Address, config: Config | None = None, **options: Any) -> Any:
        """A UDP client of the adapter, as a stream."""
        return self._kept(self.driver.connect_udp(address[0], address[1], config=config, **options))

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
        future = self._threads.submit(function, *args)
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
        """End everything, and see that nothing is left in a pool. What cannot be ended keeps nothing else alive."""
        with ExitStack() as ending:  # which goes from the bottom up
            for cluster in self._clusters:
                ending.callback(self.call, cluster.stop)
            for server in self._servers:
                ending.callback(self._close_server, server)
            for pool in self._connection_pools:
                ending.callback(self.call, pool.close)
            for returning in self._returning:
                ending.callback(self.call, _end, returning)
            for client in self._clients:
                ending.callback(self.call, client.abort)
            ending.callback(self._threads.shutdown, wait=False, cancel_futures=True)
            for peer in self._peers:
                ending.callback(peer.close)

    def _close_server(self, server: ServerBase) -> None:
        self.call(server.close, 0)
        assert self.call(server.endpoint.own_sessions) == [], "a closed server kept sessions"

    def _kept(self, connected: Any) -> Any:
        """What a `connect` gave, a session, a stream or a client that comes back, to be ended with all else."""
        if isinstance(connected, ClientBase):
            self._returning.append(connected)
        else:
            self._clients.append(getattr(connected, "session", connected))
        return connected


async def _outcome(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _end(client: ClientBase) -> Any:
    if client.session is not None:
        client.session.abort()
    return client.close()
