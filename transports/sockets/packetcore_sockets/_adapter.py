"""What every adapter's functions do, as coroutines; in which manner they are waited for, others say."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from ssl import SSLContext
from typing import Any, TypeVar, overload

from packetcore import (
    AnyPacket,
    Backoff,
    Config,
    Dial,
    Endpoint,
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
from packetcore_sockets._bound import datagram_sockets, given_away, stream_listeners
from packetcore_sockets._carrier import address_of
from packetcore_sockets._datagram import DatagramSocket
from packetcore_sockets._hosts import Hosts
from packetcore_sockets._inherited import Given
from packetcore_sockets._listener import BACKLOG
from packetcore_sockets._listening import Listening
from packetcore_sockets._network import Network, live_on
from packetcore_sockets._outcome import addresses_of, outcome
from packetcore_sockets._proxied import Proxies, ProxyNetworks
from packetcore_sockets._runtime import Runtime
from packetcore_sockets._serial import Line, SerialDial
from packetcore_sockets._unix import UnixDial, UnixListening, path_of, unix_listener
from packetcore_sockets._websocket.dial import dialler_to
from packetcore_sockets._websocket.options import WebSocket, WebSocketOptions, options_of

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
        host: Hosts = "127.0.0.1",
        port: int = 0,
        *,
        family: int = 0,
        config: Config | None = None,
        sessions: SessionPool[Session[Any]] | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        ssl: SSLContext | None = None,
        backlog: int = BACKLOG,
        socket: Given | None = None,
        proxy_protocol: ProxyNetworks | None = None,
        websocket: WebSocket = False,
        **where: Any,
    ) -> Any:
        """Listen on TCP and serve.

        Args:
            handler: a `packetcore.Handler` for all sessions, or an `async def` function that
                is run over a `Stream` for each.
            host: the address to listen on, or a name: each of its addresses. `None`, "" or "::" means
                every one of this machine, of both families. A sequence means each of these.
            port: 0 takes a free one, the same for all; `Server.addresses` tells which.
            family: `socket.AF_INET` or `socket.AF_INET6` for addresses of that family alone; 0 for both.
            config: limits and timeouts.
            sessions: a register that other servers use too, of UDP for instance.
            framing: where frames begin and end, one of `packetcore.framings`; the default is that of
                `packetcore.Packet`. Without a `codec` handlers and streams have frames, `bytes`.
            codec: what stands in the frames; then they have its packets.
            ssl: speak TLS as this says.
            backlog: how many connections may wait to be accepted.
            socket: in place of host and port a stream socket that listens already, TCP or Unix, or several:
                of a parent process, or of systemd, see `inherited_sockets`. It belongs to the server from
                then on, which closes it and leaves the file of a Unix socket.
            proxy_protocol: the networks of proxies, such as `("10.0.0.0/8", "::1")`, each of whose connections
                begins with a header of the PROXY protocol, version 1 or 2, within `connect_timeout`.
                `Session.peer` is then the device's address, and `Carrier.proxy` says what the proxy told. Who
                connects from elsewhere is refused.
            websocket: speak WebSocket (RFC 6455), by wsproto (extra `websocket`): `True`, or how, as
                `WebSocketOptions` say; "auto" for frames without it by the same port, too. With `ssl` an
                `SSLContext` on every adapter. `Session.carrier.websocket` says what was asked for.
            where: what the runtime needs to know, as a nursery.

        Raises:
            ImportError: `websocket` is asked for, and wsproto is not installed.
            OSError: an address is in use, or a host has none that is this machine's.
            TypeError: `socket` is no socket, or there is a host or port beside it; or with `websocket` `ssl`
                is no `SSLContext`.
            ValueError: it does not listen, is closed, or of another kind; it stays the caller's. Or
                `proxy_protocol` names no networks. Or "auto" goes with a `framing` or `ssl`.
        """
        proxies = None if proxy_protocol is None else Proxies(proxy_protocol)
        carried_by = options_of(websocket)
        async with self.server_runtime(sessions, **where).held() as runtime:
            if carried_by is not None:
                _check_websocket(runtime, carried_by, framing, ssl)
            opened = await stream_listeners(runtime, host, port, family, backlog, socket)
            with given_away(opened) as sockets:
                endpoint = partial(Endpoint[Any], framing=framing, codec=codec)
                server = self._server(runtime, self._new_stream, handler, config, endpoint=endpoint, sessions=sessions)
            server.addresses = [address_of(sock) for sock in sockets]
            server.listening = Listening(runtime, server.endpoint, sockets, ssl, proxies, carried_by)
            return server

    @_typed_by_manner
    async def connect(
        self,
        host: str,
        port: int | None = None,
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
            host: a name or an address, of IPv6 with a scope where it needs one, as "fe80::1%eth0". Of
                a name with several addresses the first that answers is taken (Happy Eyeballs, RFC
                8305): families take turns, and the next is tried once the one before has failed, or
                beside it after `attempt_delay`. Or a URL of WebSocket, "ws://HOST:PORT/PATH" or over TLS
                "wss://HOST:PORT/PATH".
            port: its port; a URL needs none.
            handler: what hears of packets; with none you get a `Stream` to receive from.
            reconnect: connect again and again, waiting in between as this says. You get a `Client`
                at once, and its handler may be a function over a `Stream`, run for each connection.
            keep: how many packets a `Client` keeps that are sent while it is not connected.
            config: limits and timeouts.
            framing: see `serve`, and so `codec`.
            options: for TLS `ssl`, an `SSLContext` or what the runtime's own TLS takes, and with an
                `SSLContext` `server_hostname`, the name in the server's certificate where it is not
                `host`; `attempt_delay`, from 0.1 to 2 seconds, by default 0.25; what the runtime needs
                to know; and what else its transports take. For a URL: `ssl`, an `SSLContext`, without which
                wss:// trusts the system's authorities; `server_hostname`; `subprotocol`, by default
                "packetcore", `None` for none; `origin`; `headers`, a mapping; `ping_interval`, see
                `WebSocketOptions`.

        Raises:
            ImportError: there is a URL, and wsproto is not installed.
            ValueError: the URL is none of WebSocket's.
            OSError: it was refused or not reached, with why for each address; `TimeoutError` after `connect_timeout`;
                `ssl.SSLError` where TLS failed. With `reconnect` these go to the log.
        """
        async with self.runtime(options).held() as runtime:
            dial = dialler_to(runtime, host, port, **options)
            return await self._dialled(runtime, dial, handler, reconnect, keep, config, framing, codec)

    async def _dialled(
        self,
        runtime: Runtime,
        dial: Dial,
        handler: Handler[Any] | Callable[[Any], Any] | None,
        reconnect: Backoff | None,
        keep: int,
        config: Config | None,
        framing: Framing | None,
        codec: PacketCodec[Any] | None,
    ) -> Any:
        """What comes of connecting by a dial: of a handler a session, of none a stream, to come back a client."""
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

    @_typed_by_manner
    async def serve_unix(
        self,
        handler: Handler[Any] | Callable[[Any], Any],
        path: str | os.PathLike[str],
        *,
        mode: int | None = None,
        config: Config | None = None,
        sessions: SessionPool[Session[Any]] | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        ssl: SSLContext | None = None,
        backlog: int = BACKLOG,
        **where: Any,
    ) -> Any:
        """Listen on a Unix socket and serve. Its file goes when the server is closed. A peer's address is
        its path, mostly `("",)`, which no `max_sessions_per_host` counts; `session.carrier.credentials` says
        whose process it is.

        Args:
            handler: see `serve`, and so `config`, `sessions`, `framing`, `codec` and `backlog`.
            path: where. A socket that is there and on which nobody listens is replaced. One that begins
                with a zero byte is of Linux's abstract namespace.
            mode: the permissions of the socket's file, as 0o660, before anybody can connect; `None` leaves
                them to the umask.
            ssl: speak TLS as this `SSLContext` says.
            where: what the runtime needs to know, as a nursery.

        Raises:
            OSError: somebody listens there, there is something else than a socket, or no directory.
        """
        async with self.server_runtime(sessions, **where).held() as runtime:
            place = path_of(path)
            with unix_listener(place, mode, backlog) as sock:
                endpoint = partial(Endpoint[Any], framing=framing, codec=codec)
                server = self._server(runtime, self._new_stream, handler, config, endpoint=endpoint, sessions=sessions)
            server.addresses = [(place,)]
            server.listening = UnixListening(runtime, server.endpoint, sock, place, ssl)
            return server

    @_typed_by_manner
    async def connect_unix(
        self,
        path: str | os.PathLike[str],
        handler: Handler[Any] | Callable[[Any], Any] | None = None,
        *,
        reconnect: Backoff | None = None,
        keep: int = 0,
        config: Config | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        ssl: SSLContext | None = None,
        server_hostname: str | None = None,
        **where: Any,
    ) -> Any:
        """Connect to a server's Unix socket.

        Args:
            path: where; see `serve_unix`.
            handler: see `connect`, and so `reconnect`, `keep`, `config`, `framing` and `codec`.
            ssl: speak TLS as this `SSLContext` says.
            server_hostname: the name in the server's certificate; needed where `ssl` checks names.
            where: what the runtime needs to know, as a nursery.

        Raises:
            OSError: nobody listens there; `TimeoutError` after `connect_timeout`; `ssl.SSLError` where TLS
                failed. With `reconnect` these go to the log.
        """
        async with self._current(**where).held() as runtime:
            dial = partial(UnixDial, runtime, path_of(path), ssl, server_hostname)
            return await self._dialled(runtime, dial, handler, reconnect, keep, config, framing, codec)

    @_typed_by_manner
    async def connect_serial(
        self,
        device: str | os.PathLike[str],
        handler: Handler[Any] | Callable[[Any], Any] | None = None,
        *,
        baudrate: int = 115200,
        reconnect: Backoff | None = None,
        keep: int = 0,
        config: Config | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        **options: Any,
    ) -> Any:
        """Open a serial line, by pyserial (extra `serial`). Its session is as any other; an adapter that is
        pulled ends it with RESET. A line says neither that its other end has gone nor that somebody is
        there: `idle_timeout` does, or `None` for devices that are silent for long. What is sent goes as fast
        as the line takes it; `close` waits for that, `close_timeout` at most. The address is `(device,)`.
        Not on Windows, whose COM ports have no descriptor to be watched.

        Args:
            device: its path, as "/dev/ttyUSB0"; better a name that stays, of "/dev/serial/by-id".
            handler: see `connect`, and so `keep`, `framing` and `codec`.
            baudrate: bits a second.
            reconnect: see `connect`: open the device again once it is there again.
            config: limits and timeouts; `interframe_delay`, `max_requests_in_flight` and
                `turnaround_delay` for a bus such as RS-485.
            options: `bytesize`, `parity`, `stopbits`, `rtscts`, `xonxoff`, `dsrdtr` as `serial.Serial` takes
                them; `exclusive`, `True` unless others may open the device too; `rs485`, a
                `serial.rs485.RS485Settings`, where the system is to switch the transmitter; and
                what the runtime needs to know, as a nursery.

        Raises:
            ImportError: pyserial is not installed.
            OSError: the device is not there, is no serial line, is in use, or this user may not open it.
                With `reconnect` this goes to the log.
            TypeError: there is no such option.
            ValueError: an option is out of its range, or the line has no such baud rate.
        """
        async with self.runtime(options).held() as runtime:
            dial = partial(SerialDial, runtime, Line(device, baudrate, **options))
            return await self._dialled(runtime, dial, handler, reconnect, keep, config, framing, codec)

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
        host: Hosts = "127.0.0.1",
        port: int = 0,
        *,
        family: int = 0,
        config: Config | None = None,
        sessions: SessionPool[Session[Any]] | None = None,
        framing: Framing | None = None,
        codec: PacketCodec[Any] | None = None,
        broadcast: bool = False,
        multicast_group: str | None = None,
        socket: Given | None = None,
        **where: Any,
    ) -> Any:
        """Receive on UDP and serve: each address that sends a packet has a session.

        Args:
            handler: a `packetcore.Handler` for all sessions, or an `async def` function that
                is run over a `Stream` for each.
            host: the address to listen on, or a name: each of its addresses. `None`, "" or "::" means
                every one of this machine, of both families. A sequence means each of these. With a
                `multicast_group` the address of the interface to join it on.
            port: 0 takes a free one, the same for all; `Server.addresses` tells which.
            family: `socket.AF_INET` or `socket.AF_INET6` for addresses of that family alone; 0 for both.
            config: limits and timeouts.
            sessions: a register that other servers use too, of TCP for instance.
            framing: see `serve`, and so `codec`; each datagram holds whole frames.
            broadcast: let sessions send to broadcast addresses.
            multicast_group: the address of a group to join.
            socket: see `serve`; it is bound, and has joined the groups that it should.
            where: what the runtime needs to know, as a nursery.

        Raises:
            OSError: the address is in use or not this machine's, or the group cannot be joined.
            TypeError: see `serve`.
            ValueError: `config` joins messages, or `multicast_group` is no multicast address; see `serve`.
        """
        async with self.server_runtime(sessions, **where).held() as runtime:
            opened = await datagram_sockets(runtime, host, port, family, broadcast, multicast_group, socket)
            endpoint = partial(runtime.new_datagram_endpoint, framing=framing, codec=codec)
            with given_away(opened) as sockets:
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
            infos = await addresses_of(runtime, host, port, socket.SOCK_DGRAM)
            sock, peer, is_connected = runtime.open_udp_client(infos, broadcast=broadcast, local_host=local_host)
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


def _check_websocket(
    runtime: Runtime, websocket: WebSocketOptions, framing: Framing | None, context: SSLContext | None
) -> None:
    if context is not None:
        Network.check_tls(runtime, runtime.tls_over_memory(context))
    if websocket.or_raw and framing is not None:
        raise ValueError(f"websocket='auto' tells frames by their first byte, FE: it goes with no framing={framing!r}")
    if websocket.or_raw and context is not None:
        raise ValueError("websocket='auto' looks at a first byte that TLS would hide: it goes with no ssl")
