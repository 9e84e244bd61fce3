"""How tools that know no runtime start one: the command line, the conformance suite, the
benchmarks. An adapter of a third party registers a `Driver` and gets all of them.

This module belongs to tools, not to the protocol: it is the one place in the core that
looks at what is installed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import Any, TypeVar
from weakref import WeakSet

from packetcore._client import ClientBase
from packetcore._config import Config
from packetcore._handler import Handler
from packetcore._server import ServerBase
from packetcore._session import Session, SessionEndpoint
from packetcore._tls import TLS

T = TypeVar("T")

ENTRY_POINT_GROUP = "packetcore.transports"
"""Where an adapter registers a function without parameters that gives its `Driver`."""


class Driver(ABC):
    """A runtime on a thread of its own, behind methods that block and may be called from
    any other thread. What the network refuses is raised as `OSError`.

    Servers, streams and sessions that it gives are the adapter's own. They belong to the
    runtime's thread: use them within `call`.

    Args:
        serve: the adapter's `serve`.
        connect: the adapter's `connect`.
        echo: a function over the adapter's `Stream` that sends back what it receives.
        serve_udp: the adapter's `serve_udp`, where it has one.
        connect_udp: the adapter's `connect_udp`, where it has one.
        new_pool: the adapter's `ConnectionPool`, where it has one.
        request: the adapter's `request`, of a session in hand, where it has one.
        serve_unix: the adapter's `serve_unix`, where it has one.
        connect_unix: the adapter's `connect_unix`, where it has one.
        connect_serial: the adapter's `connect_serial`, where it has one.
    """

    def __init__(
        self,
        serve: Callable[..., Any],
        connect: Callable[..., Any],
        echo: Callable[..., Any],
        serve_udp: Callable[..., Any] | None = None,
        connect_udp: Callable[..., Any] | None = None,
        new_pool: Callable[..., Any] | None = None,
        request: Callable[..., Any] | None = None,
        serve_unix: Callable[..., Any] | None = None,
        connect_unix: Callable[..., Any] | None = None,
        connect_serial: Callable[..., Any] | None = None,
    ) -> None:
        self._serve = serve
        self._connect = connect
        self._echo = echo
        self._serve_udp = serve_udp
        self._connect_udp = connect_udp
        self._new_pool = new_pool
        self._serve_unix = serve_unix
        self._connect_unix = connect_unix
        self._connect_serial = connect_serial
        self.request = request
        """The adapter's `request`, to be used within `call`; `None` if it has none."""
        self._servers: list[ServerBase[Any]] = []
        self._clients: WeakSet[SessionEndpoint[Any]] = WeakSet()
        self._returning: WeakSet[ClientBase[Any]] = WeakSet()
        self._pools: list[Any] = []

    def start_server(
        self,
        handler: Handler[Any] | None = None,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 0,
        *,
        config: Config | None = None,
        tls: TLS | None = None,
        **options: Any,
    ) -> ServerBase[Any]:
        """Give the adapter's `Server`, listening; without a handler it echoes over streams.

        Args:
            host: see `serve`; several too.
            options: what else `serve` takes on every adapter: `sessions`, `family`, `socket`,
                `proxy_protocol`, `websocket`.
        """
        if tls is not None:
            options |= self._tls_options(tls, server_side=True, is_websocket="websocket" in options)
        return self._start(self._serve, handler, host, port, config=config, **options)

    def start_udp_server(
        self,
        handler: Handler[Any] | None = None,
        host: str | Sequence[str] | None = "127.0.0.1",
        port: int = 0,
        *,
        config: Config | None = None,
        **options: Any,
    ) -> ServerBase[Any]:
        """Give the adapter's `Server` on UDP; without a handler it echoes over streams.

        Args:
            host: see `serve_udp`; several too.
            options: `family`, `broadcast`, `multicast_group` and `socket`, as `serve_udp` takes them.
        """
        return self._start(self._need(self._serve_udp, "UDP"), handler, host, port, config=config, **options)

    def connect(
        self,
        host: str,
        port: int | None,
        handler: Handler[Any] | None = None,
        *,
        config: Config | None = None,
        tls: TLS | None = None,
        **options: Any,
    ) -> Any:
        """Give the adapter's `Session`, or without a handler its `Stream`, connected.

        Args:
            port: `None` for a URL of WebSocket as `host`, where the adapter takes those.
            options: what else `connect` takes on every adapter: `reconnect` and `keep`, with
                which you get its `Client`; and for a URL what WebSocket takes.
        """
        if tls is not None:
            options |= self._tls_options(tls, server_side=False, is_websocket="://" in host)
        return self._open(self._connect, host, port, handler, config=config, **options)

    def connect_udp(
        self, host: str, port: int, handler: Handler[Any] | None = None, *, config: Config | None = None, **options: Any
    ) -> Any:
        """Give the adapter's `Session` with a UDP peer, or without a handler its `Stream`.

        Args:
            options: `broadcast` and `local_host`, as `connect_udp` takes them.
        """
        return self._open(self._need(self._connect_udp, "UDP"), host, port, handler, config=config, **options)

    def start_unix_server(
        self, handler: Handler[Any] | None, path: str, *, config: Config | None = None, **options: Any
    ) -> ServerBase[Any]:
        """Give the adapter's `Server` on a Unix socket; without a handler it echoes over streams.

        Args:
            options: what else `serve_unix` takes.
        """
        return self._start(self._need(self._serve_unix, "Unix sockets"), handler, path, config=config, **options)

    def connect_unix(
        self, path: str, handler: Handler[Any] | None = None, *, config: Config | None = None, **options: Any
    ) -> Any:
        """Give the adapter's `Session` over a Unix socket, or without a handler its `Stream`.

        Args:
            options: what else `connect_unix` takes.
        """
        return self._open(self._need(self._connect_unix, "Unix sockets"), path, handler, config=config, **options)

    def connect_serial(
        self, device: str, handler: Handler[Any] | None = None, *, config: Config | None = None, **options: Any
    ) -> Any:
        """Give the adapter's `Session` over a serial line, or without a handler its `Stream`.

        Args:
            options: what else `connect_serial` takes.
        """
        connect = self._need(self._connect_serial, "serial lines")
        return self._open(connect, device, handler, config=config, **options)

    def tls_options(self, tls: TLS, *, server_side: bool) -> dict[str, Any]:
        """What `serve` and `connect` take for TLS. Override it where that is no `SSLContext`."""
        context = tls.context(server_side=server_side)
        return {"ssl": context} if server_side else {"ssl": context, "server_hostname": tls.server_name}

    def _tls_options(self, tls: TLS, *, server_side: bool, is_websocket: bool) -> dict[str, Any]:
        """WebSocket takes an `SSLContext` everywhere."""
        options_of = partial(Driver.tls_options, self) if is_websocket else self.tls_options
        return options_of(tls, server_side=server_side)

    def reload_tls(self, server: ServerBase[Any], tls: TLS) -> None:
        """Have a server of this driver speak TLS as files say now with who connects from now on; see
        `ServerBase.reload_tls`. Where that raises, nothing has changed.

        Raises:
            OSError: see `TLS.context`.
            LocalProtocolError: the server speaks no TLS.
        """
        self.call(server.reload_tls, self.tls_options(tls, server_side=True)["ssl"])

    def _start(
        self, serve: Callable[..., Any], handler: Handler[Any] | None, *args: Any, **options: Any
    ) -> ServerBase[Any]:
        server: ServerBase[Any] = self.call(
            partial(serve, self._echo if handler is None else handler, *args, **options)
        )
        self._servers.append(server)
        return server

    def _open(self, connect: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Connect; the handler is the last argument."""
        handler: Handler[Any] | None = args[-1]
        connected = self.call(partial(connect, *args, **options))
        if isinstance(connected, ClientBase):
            self._returning.add(connected)
        else:
            session: Session[Any] = connected if handler is not None else connected.session
            self._clients.add(session.endpoint)
        return connected

    def open_pool(self, host: str, port: int | None, **options: Any) -> Any:
        """Give the adapter's `ConnectionPool`.

        Args:
            options: what it takes on every adapter: `config` and its limits.
        """
        pool = self.call(partial(self._need(self._new_pool, "connection pool"), host, port, **options))
        self._pools.append(pool)
        return pool

    def _need(self, function: Callable[..., Any] | None, what: str) -> Callable[..., Any]:
        if function is None:
            raise OSError(f"{type(self).__name__} has no {what}")
        return function

    def close_all(self) -> None:
        """Abort every server and client that was opened here; `stop` begins with it."""
        while self._servers:
            self.call(self._servers.pop().close, 0)
        while self._pools:
            self.call(self._pools.pop().close)
        for returning in list(self._returning):
            self.call(_end, returning)
        for client in list(self._clients):
            self.call(_abort, client)

    def result(self, future: Future[Any], timeout: float | None) -> Any:
        """Wait for what `call` has begun; cancel it if that takes too long, or if the caller
        is interrupted meanwhile."""
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            if future.done():
                raise
            raise TimeoutError(f"not done after {timeout} s") from None
        finally:
            future.cancel()

    @abstractmethod
    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        """Call a function on the runtime's thread, in a task or greenlet of its own where
        the runtime has them; wait for its result, also where that is an awaitable or a
        Deferred, and give it or raise what it raised.

        Raises:
            TimeoutError: it took longer than `timeout` seconds; it was cancelled.
        """

    def capabilities(self) -> frozenset[str]:
        """What the adapter can do, in words: "tcp", "tls", "udp", "unix", "serial", "reconnect", "pool",
        "framing", "inherited" (sockets that others opened), "proxy" (the PROXY protocol), "uvloop". What its
        functions take says most of it; override this for the rest."""
        takes = signature(self._connect).parameters
        can = {
            "tls": "ssl" in signature(self._serve).parameters,
            "udp": self._serve_udp is not None and self._connect_udp is not None,
            "unix": self._serve_unix is not None and self._connect_unix is not None,
            "serial": self._connect_serial is not None,
            "reconnect": "reconnect" in takes,
            "pool": self._new_pool is not None,
            "framing": "framing" in signature(self._serve).parameters,
            "inherited": "socket" in signature(self._serve).parameters,
            "proxy": "proxy_protocol" in signature(self._serve).parameters,
            "websocket": "websocket" in signature(self._serve).parameters,
        }
        return frozenset({"tcp", *(name for name, is_so in can.items() if is_so)})

    @abstractmethod
    def stop(self) -> None:
        """Abort what is left and end the thread. Idempotent."""


def _end(client: ClientBase[Any]) -> Any:
    if client.session is not None:
        client.session.abort()
    return client.close()


def _abort(endpoint: SessionEndpoint[Any]) -> None:
    for session in endpoint.own_sessions():
        session.abort()


def installed_transports() -> dict[str, EntryPoint]:
    """The adapters that are installed, by name, in alphabetical order."""
    return {entry.name: entry for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)}


def load_driver(name: str) -> Driver:
    """Start the runtime of the adapter with this name.

    Raises:
        LookupError: no such adapter is installed; the message names those that are.
    """
    installed = installed_transports()
    if name not in installed:
        raise LookupError(f"unknown transport {name!r}; installed: {', '.join(installed) or 'none'}")
    driver: Driver = installed[name].load()()
    return driver
