"""What every adapter's functions do, as coroutines; in which manner they are waited for, others say."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ssl import SSLContext
from typing import Any, TypeVar, overload

from packetcore import (
    AnyPacket,
    Backoff,
    Config,
    Dial,
    Endpoint,
    Handle,
    Handler,
    Inbox,
    Packet,
    PacketCodec,
    Reply,
    Session,
    SessionPool,
    StreamBase,
    ask,
)
from packetcore.framings import Framing
from packetcore_sockets._datagram import DatagramSocket
from packetcore_sockets._listener import BACKLOG, open_tcp_listeners
from packetcore_sockets._listening import Listening
from packetcore_sockets._look_up import Found
from packetcore_sockets._network import live_on
from packetcore_sockets._open import AddressInfo, open_udp_client, open_udp_servers
from packetcore_sockets._runtime import Runtime

T = TypeVar("T")

Result = Coroutine[Any, Any, T]


def _typed_by_manner(function: Any) -> Any:
    """Leave the types of a function to the manner of an adapter: what it gives, and what functions
    it takes, are of the stream that is the manner's own."""
    return function


class Adapter:
    """The functions of one adapter.

    Args:
        current: gives the runtime of where it is called. What keywords it takes, all functions
            here take too.
        new_stream: makes the adapter's `Stream` of an inbox and the runtime.
        server: its `Server`.
        client: its `Client`.
    """

    def __init__(
        self,
        current: Callable[..., Runtime],
        new_stream: Callable[[Inbox[Any], Any], StreamBase[Any]],
        server: Callable[..., Any],
        client: Callable[..., Any],
    ) -> None:
        self._current = current
        self._new_stream = new_stream
        self._server = server
        self._client = client

    @_typed_by_manner
    async def serve(
        self,
        handler: Handler[Any] | Callable[[Any], Any],
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        config: Config | None = None,
        sessions: SessionPool[Session[Any]] | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        ssl: SSLContext | None = None,
        backlog: int = BACKLOG,
        **where: Any,
    ) -> Any:
        """Listen on TCP and serve.

        Args:
            handler: a `packetcore.Handler` for all sessions, or an `async def` function that
                is run over a `Stream` for each.
            host: the address to listen on, or a name: each of its addresses. `None` or "" means
                every one of this machine, of both families.
            port: 0 takes a free one, the same for all; `Server.addresses` tells which.
            config: limits and timeouts.
            sessions: a register that other servers use too, of UDP for instance.
            framing: where frames begin and end, one of `packetcore.framings`; the default is that of
                `packetcore.Packet`. Without a `codec` handlers and streams have frames, `bytes`.
            codec: what stands in the frames; then they have its packets.
            ssl: speak TLS as this says.
            backlog: how many connections may wait to be accepted.
            where: what the runtime needs to know, as a nursery.

        Raises:
            OSError: the address is in use or not this machine's.
        """
        async with self.server_runtime(sessions, **where).held() as runtime:
            infos = await look_up(runtime, host or None, port, socket.SOCK_STREAM, socket.AI_PASSIVE)
            with _given_away(open_tcp_listeners(infos, port, backlog)) as sockets:
                endpoint = partial(Endpoint[Any], framing=framing, codec=codec)
                server = self._server(runtime, self._new_stream, handler, config, endpoint=endpoint, sessions=sessions)
            server.addresses = [sock.getsockname() for sock in sockets]
            server.listening = Listening(runtime, server.endpoint, sockets, ssl)
            return server

    @_typed_by_manner
    async def connect(
        self,
        host: str,
        port: int,
        handler: Handler[Any] | Callable[[Any], Any] | None = None,
        *,
        reconnect: Backoff | None = None,
        keep: int = 0,
        config: Config | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        **options: Any,
    ) -> Any:
        """Connect to a server.

        Args:
            host: a name or an address.
            port: its port.
            handler: what hears of packets; with none you get a `Stream` to receive from.
            reconnect: connect again and again, waiting in between as this says. You get a `Client`
                at once, and its handler may be a function over a `Stream`, run for each connection.
            keep: how many packets a `Client` keeps that are sent while it is not connected.
            config: limits and timeouts.
            framing: see `serve`, and so `codec`.
            options: for TLS `ssl`, an `SSLContext` or what the runtime's own TLS takes, and with an
                `SSLContext` `server_hostname`, the name in the server's certificate where it is not
                `host`; what the runtime needs to know; and what else its transports take.

        Raises:
            OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
                `ssl.SSLError` where TLS failed. With `reconnect` these go to the log.
        """
        async with self.runtime(options).held() as runtime:
            dial = runtime.dialler(host, port, **options)
            if reconnect is not None and handler is not None:
                runtime.start()
                endpoint = partial(Endpoint[Any], framing=framing, codec=codec)
                return self._client(runtime, self._new_stream, handler, config, reconnect, keep, dial, endpoint)
            if handler is None and reconnect is None:
                return await self.open_stream(runtime, dial, config, framing, codec)
            if isinstance(handler, Handler) and reconnect is None:
                session = await self.open_session(runtime, dial, handler, config, framing, codec)
                runtime.start()
                return session
        raise TypeError("reconnect needs a handler, or a function over a stream; a function needs reconnect")

    async def open_session(
        self,
        runtime: Runtime,
        dial: Dial,
        handler: Handler[AnyPacket],
        config: Config | None,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
    ) -> Session[AnyPacket]:
        """Connect as `connect` does, by a `Network.dialler`."""
        endpoint = Endpoint[Any](handler, config, framing=framing, codec=codec, log_exception=runtime.log_exception)
        end = live_on(runtime, endpoint)
        try:
            return await outcome(runtime, partial(dial, endpoint))
        except BaseException:
            runtime.release(end)
            raise

    async def open_stream(self, runtime: Runtime, dial: Dial, config: Config | None, *frames: Any) -> Any:
        """Connect as `open_session` does, to receive from a stream."""
        inbox: Inbox[Any] = Inbox()
        await self.open_session(runtime, dial, inbox, config, *frames)
        return self._new_stream(inbox, runtime)

    @_typed_by_manner
    async def serve_udp(
        self,
        handler: Handler[Any] | Callable[[Any], Any],
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        config: Config | None = None,
        sessions: SessionPool[Session[Any]] | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        broadcast: bool = False,
        multicast_group: str | None = None,
        **where: Any,
    ) -> Any:
        """Receive on UDP and serve: each address that sends a packet has a session.

        Args:
            handler: a `packetcore.Handler` for all sessions, or an `async def` function that
                is run over a `Stream` for each.
            host: the address to listen on, or a name: each of its addresses. `None` or "" means
                every one of this machine, of both families. With a `multicast_group` the address
                of the interface to join it on.
            port: 0 takes a free one, the same for all; `Server.addresses` tells which.
            config: limits and timeouts.
            sessions: a register that other servers use too, of TCP for instance.
            framing: see `serve`, and so `codec`; each datagram holds whole frames.
            broadcast: let sessions send to broadcast addresses.
            multicast_group: the address of a group to join.
            where: what the runtime needs to know, as a nursery.

        Raises:
            OSError: the address is in use or not this machine's, or the group cannot be joined.
            ValueError: `config` joins messages, or `multicast_group` is no multicast address.
        """
        async with self.server_runtime(sessions, **where).held() as runtime:
            infos = await look_up(runtime, host or None, port, socket.SOCK_DGRAM, socket.AI_PASSIVE)
            opened = open_udp_servers(infos, port, broadcast=broadcast, multicast_group=multicast_group)
            endpoint = partial(runtime.new_datagram_endpoint, framing=framing, codec=codec)
            with _given_away(opened) as sockets:
                server = self._server(runtime, self._new_stream, handler, config, endpoint=endpoint, sessions=sessions)
            server.addresses = [sock.getsockname() for sock in sockets]
            for sock in sockets:
                DatagramSocket(runtime, server.endpoint, sock)
            return server

    @_typed_by_manner
    async def connect_udp(
        self,
        host: str,
        port: int,
        handler: Handler[Any] | None = None,
        *,
        config: Config | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        broadcast: bool = False,
        local_host: str | None = None,
        **where: Any,
    ) -> Any:
        """Open a session with a UDP peer. Nothing is sent yet, and nobody need be there. The socket
        is closed with the last of its sessions.

        Args:
            host: a name or an address; a broadcast or multicast address too.
            port: its port.
            handler: what hears of packets; with none you get a `Stream` to receive from. Of a
                multicast group, or with `broadcast`, a handler has one more session for each
                who replies; a stream has the replies of all.
            config: limits and timeouts.
            framing: see `serve`, and so `codec`; each datagram holds whole frames.
            broadcast: allow a broadcast address.
            local_host: the address to send from; for an IPv4 group its interface too.
            where: what the runtime needs to know, as a nursery.

        Raises:
            OSError: the name is unknown, or there is no way to the address.
            ValueError: `config` joins messages.
        """
        async with self._current(**where).held() as runtime:
            inbox: Inbox[Any] = Inbox()
            heard_by = inbox if handler is None else handler
            endpoint: Any = runtime.new_datagram_endpoint(heard_by, config, framing=framing, codec=codec)
            infos = await look_up(runtime, host, port, socket.SOCK_DGRAM)
            sock, peer, is_connected = open_udp_client(infos, broadcast=broadcast, local_host=local_host)
            live_on(runtime, endpoint)
            DatagramSocket(runtime, endpoint, sock, is_connected)
            session = endpoint.open(peer, runtime.time(), sole=handler is None)
            if handler is None:
                return self._new_stream(inbox, runtime)
            runtime.start()
            return session

    @overload
    async def request(
        self,
        session: Session,
        packet: Packet | bytes | bytearray | memoryview,
        *,
        type: int | None = None,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Reply: ...
    @overload
    async def request(
        self,
        session: Session[AnyPacket],
        packet: AnyPacket,
        *,
        match: Callable[[AnyPacket], bool],
        timeout: float | None = None,
    ) -> AnyPacket: ...
    async def request(
        self,
        session: Session[Any],
        packet: Any,
        *,
        type: int | None = None,
        match: Callable[[Any], bool] | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> Any:
        """Send a packet on a session, as a server's handler holds it, and wait for its reply, of
        which its handler then does not hear. See `Stream.request`."""
        new_event = session.endpoint.runtime.new_event
        return await ask(session, new_event, packet, type=type, match=match, timeout=timeout, wait=wait)

    def runtime(self, options: dict[str, Any]) -> Runtime:
        """The runtime of where this is called, which takes what it needs to know from the options."""
        known = inspect.signature(self._current).parameters
        return self._current(**{name: options.pop(name) for name in [*options] if name in known})

    def server_runtime(self, sessions: SessionPool[Session[Any]] | None, **where: Any) -> Runtime:
        """The runtime of a server. Override it where those that share a register share a lock."""
        return self._current(**where)


@contextmanager
def _given_away(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Sockets that are somebody's at the end; where that fails they are closed."""
    with ExitStack() as opened:
        for sock in sockets:
            opened.enter_context(sock)
        yield sockets
        opened.pop_all()


async def outcome(runtime: Runtime, begin: Callable[[Callable[[T | Exception], object]], Handle | None]) -> T:
    """Wait for what is told to a callback, and give or raise it. Where the wait is cancelled, so is
    what `begin` gave."""
    told, results = runtime.new_event(), list[T | Exception]()

    def done(result: T | Exception) -> None:
        results.append(result)
        told.set()

    begun = begin(done)
    try:
        await told.wait()
    except BaseException:
        if begun is not None:
            begun.cancel()
        for result in results:  # just when nobody waited any more
            if isinstance(result, Session):
                result.abort()
        raise
    result = results[0]
    if isinstance(result, Exception):
        raise result
    return result


async def look_up(
    runtime: Runtime, host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
) -> list[AddressInfo]:
    """The addresses of a host; see `Network.look_up`."""

    def begin(done: Callable[[Found], object]) -> None:
        runtime.look_up(done, host, port, kind, flags)

    return [*await outcome(runtime, begin)]
