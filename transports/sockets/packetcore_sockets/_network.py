"""How a runtime reaches the network: over plain sockets, unless it has a way of its own."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable
from functools import cached_property
from ssl import SSLContext
from typing import Any

from packetcore import (
    Address,
    DatagramEndpoint,
    DatagramSession,
    Dial,
    Endpoint,
    Handle,
    Handler,
    Host,
    Session,
)
from packetcore_sockets import _dial
from packetcore_sockets._attempts import ATTEMPT_DELAY
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._listener import open_tcp_listeners
from packetcore_sockets._look_up import Found, look_up
from packetcore_sockets._loop import Loop
from packetcore_sockets._open import open_udp_client, open_udp_servers
from packetcore_sockets._records import Records
from packetcore_sockets._stream import StreamSocket
from packetcore_sockets._timers import Timers
from packetcore_sockets._tls import TLSRecords


class Network(Loop):
    """What all that is above a loop asks for. It works as it is over the five verbs; a runtime
    overrides what it does in its own way."""

    new_datagram_session: Callable[[Endpoint[Any], Host, Address, float], DatagramSession[Any]] = DatagramSession
    """Makes the session of a UDP peer."""

    log_exception: Callable[[str], object] = staticmethod(logging.getLogger("packetcore").exception)
    """See `packetcore.Endpoint`."""

    new_socket: Callable[[int, int, int], socket.socket] | None = None
    """Makes the socket of an attempt to connect, of a family, a type and a protocol; `None` for the system's.
    With the three that follow it is where sockets come from: a runtime with a network of its own overrides
    all of them, and gives what does as a socket does."""

    open_tcp_listeners = staticmethod(open_tcp_listeners)
    """See `packetcore_sockets.open_tcp_listeners`."""

    open_udp_servers = staticmethod(open_udp_servers)
    """See `packetcore_sockets.open_udp_servers`."""

    open_udp_client = staticmethod(open_udp_client)
    """See `packetcore_sockets.open_udp_client`."""

    random: Callable[[], float] = staticmethod(random.random)
    """Gives a number from 0 to below 1, for the waits of clients that come back."""

    @cached_property
    def socket_timers(self) -> Timers:
        """Those of all its streams."""
        return Timers(self)

    def new_session(self, endpoint: Endpoint[Any], host: Host, peer: Address, now: float) -> Session[Any]:
        """Make the session of a stream."""
        return endpoint.session_type(endpoint, host, peer, now)

    def bind(self, endpoint: Endpoint[Any]) -> None:
        """Tell an endpoint how to reach the loop's thread."""
        endpoint.runs_by(self.call_soon)

    def hold(self, end: Callable[[], object]) -> None:
        """Something lives on the loop until it is released: a server, a client, a pool, or an
        endpoint with a session. For runtimes that end with the last.

        Args:
            end: ends it at once, for want of a loop.
        """

    def release(self, end: Callable[[], object]) -> None:
        """What was held has ended. Idempotent."""

    def end(self, error: BaseException) -> bool:
        """Raise the `SystemExit` or `KeyboardInterrupt` of a handler where the program waits, once its
        sessions have closed their sockets. Returns whether it will be."""

        def fail() -> None:
            raise error

        self.call_soon(lambda: self.call_soon(fail))
        return True

    def look_up(
        self, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
    ) -> None:
        """Ask for the addresses of a host, without holding up the loop. Calls back once, but not
        before this returns."""
        look_up(self, done, host, port, kind, flags)

    def begin(self, endpoint: Endpoint[Any], sock: socket.socket, peer: Address, tls: Records | None) -> Session[Any]:
        """Begin the session of a connected socket, over TLS or other records where there are some."""
        return StreamSocket(self, endpoint, sock, peer, tls, self.new_session, self.socket_timers).session

    def accept(
        self,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        context: SSLContext | None,
        done: Callable[[Session[Any] | Exception], object],
    ) -> Handle | None:
        """Begin the session of a connection that came in, over TLS once that is agreed on within
        `connect_timeout`.

        Returns:
            `None` if it has begun. Else `done` is called once, with it or with what went wrong,
            unless this is cancelled.

        Raises:
            OSError: TLS cannot even begin.
        """
        if context is None:
            self.begin(endpoint, sock, peer, None)
            return None
        return Network.accept_over(self, endpoint, sock, peer, context, done)

    def accept_over(
        self,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        records: SSLContext | Records,
        done: Callable[[Session[Any] | Exception], object],
    ) -> Handle:
        """Begin the session of a connection that came in, over records once they are open within
        `connect_timeout`; see `accept`.

        Args:
            records: which, new; or what to speak TLS by.
        """

        def opened(result: Records | OSError) -> None:
            done(result if isinstance(result, OSError) else self.begin(endpoint, sock, peer, result))

        limit = endpoint.config.connect_timeout
        return Handshake(self, sock, records, opened, until=None if limit is None else self.time() + limit)

    def check_tls(self, context: Any) -> None:
        """See that a server can speak TLS by this.

        Raises:
            TypeError: it is no `SSLContext`, or what the runtime has in its place.
            ssl.SSLError: it is for clients.
        """
        if not isinstance(context, SSLContext):
            raise TypeError(f"an SSLContext is needed for TLS, not {context!r}")
        TLSRecords(context, server_side=True)

    def tls_over_memory(self, context: SSLContext) -> SSLContext:
        """Make a context fit for `TLSRecords`, where the runtime has contexts of its own."""
        return context

    def dialler(self, host: str, port: int, **options: Any) -> Dial:
        """What connects to a place, each time that it is called.

        Args:
            options: `ssl` and `server_hostname`; a runtime with transports of its own may take more.

        Raises:
            TypeError: an option is none.
        """
        target = _dial.Target(host, port, **options)
        return lambda endpoint, done: _dial.Dial(
            self, endpoint, target, self.look_up, self.begin, done, self.new_socket
        )

    def dialler_over(
        self, host: str, port: int, new_records: Callable[[], Records], *, attempt_delay: float = ATTEMPT_DELAY
    ) -> Dial:
        """What connects to a place and speaks by records there, each time that it is called.

        Args:
            new_records: makes them.
            attempt_delay: see `Attempts`.
        """
        return Network.dialler(self, host, port, new_records=new_records, attempt_delay=attempt_delay)

    def new_datagram_endpoint(
        self, handler: Handler[Any] | Callable[[], Handler[Any]], *args: Any, **options: Any
    ) -> Endpoint[Any]:
        """Make the endpoint of UDP sockets."""
        return DatagramEndpoint(handler, *args, new_session=self.new_datagram_session, **options)


def live_on(network: Network, endpoint: Endpoint[Any]) -> Callable[[], object]:
    """Have the endpoint of a client live on a network until its last session is over.

    Returns:
        What to release where it never gets a session.
    """

    def end() -> None:
        endpoint.abort(network.time())

    def finished(session: Session[Any]) -> None:
        if not endpoint.own_sessions():
            network.release(end)

    def ended(error: BaseException) -> None:
        if not network.end(error):
            kind = type(error).__name__
            endpoint.log_exception(f"the handler of a client raised {kind}: it has no session any more")

    endpoint.runtime = network
    network.bind(endpoint)
    network.hold(end)
    endpoint.on_finished = finished
    endpoint.on_ended = ended
    return end
