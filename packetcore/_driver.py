"""How tools that know no runtime start one: the command line, the conformance suite, the
benchmarks. An adapter of a third party registers a `Driver` and gets all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import ParamSpec, Protocol, TypeVar

from packetcore._config import Config
from packetcore._endpoint import StreamEndpoint
from packetcore._events import Message
from packetcore._handler import Handler
from packetcore._packet import Packet
from packetcore._session import Address, Session

P = ParamSpec("P")
T = TypeVar("T")

ENTRY_POINT_GROUP = "packetcore.transports"
"""Where an adapter registers a function without parameters that gives its `Driver`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """TLS as files and names, for tools that do not know the runtime's own objects.

    A server needs a certificate and its key; a client that gives none of these trusts
    what the system trusts.
    """

    certificate: str | None = None
    """Path of a PEM file: this side's certificate chain."""

    key: str | None = None
    """Path of a PEM file: its private key."""

    authority: str | None = None
    """Path of a PEM file: whom to trust. A server that has one asks for a client
    certificate."""

    server_name: str | None = None
    """The name that a client expects in the server's certificate, where it is not the
    host it connects to."""

    alpn: tuple[str, ...] = ()
    """Application protocols to offer, the most wanted first."""


class DriverServer(Protocol):
    """A server that a driver runs. Its methods may be called from any thread."""

    @property
    def address(self) -> Address:
        """Where it listens, the port that the system chose included."""

    @property
    def endpoint(self) -> StreamEndpoint:
        """Its sessions and counters; touch them within `Driver.call` only."""

    def close(self, grace: float) -> None:
        """Drain for at most `grace` seconds, abort what is left, and return."""


class DriverStream(Protocol):
    """A stream of the adapter, behind methods that block and may be called from any
    thread; calls of several threads run as several tasks, greenlets or threads."""

    @property
    def session(self) -> Session:
        """The session underneath; touch it within `Driver.call` only."""

    def send(self, packet: Packet) -> None:
        """The stream's `send`, until it has room again."""

    def recv(self, timeout: float) -> Packet | Message:
        """The stream's `recv`. Raises `TimeoutError` after `timeout` seconds."""

    def close(self) -> None:
        """The stream's `close`."""


class Driver(Protocol):
    """A runtime on a thread of its own, behind methods that block and may be called from
    any other thread. What the network refuses is raised as `OSError`."""

    def start_server(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        config: Config | None = None,
        tls: TLS | None = None,
    ) -> DriverServer:
        """Listen and serve. Port 0 takes a free one."""

    def connect(
        self, host: str, port: int, handler: Handler, *, config: Config | None = None, tls: TLS | None = None
    ) -> Session:
        """Connect, and return once `handler.connected` was called. Use the session within
        `call` only."""

    def start_stream_echo(
        self, host: str = "127.0.0.1", port: int = 0, *, config: Config | None = None, tls: TLS | None = None
    ) -> DriverServer:
        """Serve a function over the adapter's `Stream` that sends back what it receives."""

    def connect_stream(
        self, host: str, port: int, *, config: Config | None = None, tls: TLS | None = None
    ) -> DriverStream:
        """Connect a `Stream` of the adapter."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on the runtime's thread and give what it returns or raises."""

    def capabilities(self) -> frozenset[str]:
        """What the adapter can do, in words such as "tcp", "udp", "tls" and "uvloop"."""

    def stop(self) -> None:
        """Abort what is left and end the thread. Idempotent."""


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
