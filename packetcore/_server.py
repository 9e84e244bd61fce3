"""The part of every adapter's `Server` that opens no socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

from packetcore._carrier import Address
from packetcore._config import Config
from packetcore._endpoint import Endpoint, log_exception
from packetcore._handler import Handler
from packetcore._inbox import F, Inbox, handler_of
from packetcore._packet import AnyPacket
from packetcore._pool import SessionPool
from packetcore._session import Session
from packetcore._stats import EndpointStats


class ServerBase(Generic[AnyPacket]):
    """What every adapter's `Server` shows of its endpoint, beside `close(grace)`.

    Args:
        handler: a handler for all sessions, or a function over the adapter's `Stream`.
        start: called with that function and the inbox of each new session: run it.
        config: limits and timeouts.
        log_exception: see `Endpoint`.
        endpoint: what kind: `DatagramEndpoint` for UDP.
        sessions: see `Endpoint`.
    """

    addresses: list[Address]
    """Every address that it listens on, the port that the system chose included: a name may have
    several, all with one port."""

    def __init__(
        self,
        handler: Handler[AnyPacket] | F,
        start: Callable[[F, Inbox[Any]], object],
        config: Config | None,
        log_exception: Callable[[str], object] = log_exception,
        endpoint: Callable[..., Endpoint[AnyPacket]] = Endpoint,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
    ) -> None:
        self.endpoint = endpoint(
            handler_of(handler, start), config, is_server=True, sessions=sessions, log_exception=log_exception
        )
        """What its sessions share."""

    @property
    def address(self) -> Address:
        """Where it listens: the first of `addresses`."""
        return self.addresses[0]

    @property
    def sessions(self) -> SessionPool[Session[AnyPacket]]:
        """The sessions that live, by id and by identity."""
        return self.endpoint.sessions

    @property
    def stats(self) -> EndpointStats:
        """What it has seen until now: a copy of the counters."""
        return self.endpoint.stats

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function with these arguments on the server's own thread: from any thread, and
        the one way to send from another. What it raises is logged."""
        self.endpoint.call_soon(function, *args)

    def reload_tls(self, context: Any) -> None:
        """Speak TLS by another context with who connects from now on, as when a certificate has been
        renewed. Sessions that are open, and handshakes under way, go on as they began. On the server's
        own thread.

        Args:
            context: what the adapter's `serve` takes as `ssl`, in place of what it was given.

        Raises:
            LocalProtocolError: the server speaks no TLS.
            ssl.SSLError: the context is for clients; the old one stays, as with the following.
            TypeError: it is none.
        """
        raise NotImplementedError

    def close(self, grace: float = 5.0) -> Any:
        """Stop listening, let handlers finish and buffers empty for at most `grace` seconds,
        then abort what is left. A session ends with SHUTDOWN, unless its peer or its handler
        ended it before. Waits in the manner of the runtime."""
        raise NotImplementedError
