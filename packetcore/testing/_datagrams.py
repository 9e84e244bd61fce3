"""The same over UDP: one socket that is none, and its peers."""

from __future__ import annotations

from typing import Any

from packetcore._carrier import Address, Carrier
from packetcore._config import Config
from packetcore._datagram import DatagramEndpoint
from packetcore._errors import LocalProtocolError
from packetcore._frames import DatagramFrames, PacketCodec
from packetcore._packet import AnyPacket
from packetcore._pool import SessionPool
from packetcore._session import Session
from packetcore._waiting import Handle
from packetcore.framings import Framing
from packetcore.testing._clock import Clock
from packetcore.testing._side import Application, Fake, Side, side_of


class FakeDatagramEndpoint(Side[AnyPacket]):
    """A UDP server, or client, whose peers are `FakeDatagramSession`s.

    Args:
        application: see `FakeEndpoint`, as the rest.
        carrier: what `Session.carrier` tells; UDP by default.
    """

    endpoint: DatagramEndpoint[AnyPacket]
    """The real endpoint."""

    _endpoint_type = DatagramEndpoint

    def __init__(
        self,
        application: Application[AnyPacket],
        config: Config | None = None,
        *,
        is_server: bool = True,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        peer_codec: PacketCodec[Any] | None = None,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
        clock: Clock | None = None,
        reraise: bool = True,
        carrier: Carrier | None = None,
    ) -> None:
        super().__init__(
            application,
            config,
            is_server=is_server,
            framing=framing,
            codec=codec,
            peer_codec=peer_codec,
            sessions=sessions,
            clock=clock,
            reraise=reraise,
        )
        self.writes: list[tuple[bytes, Address]] = []
        """The datagrams that have left, and to whom: also to addresses that no `FakeDatagramSession` has."""
        self._peers: dict[Address, FakeDatagramSession[AnyPacket]] = {}
        self._socket = _Socket(self, Carrier("udp", ("192.0.2.254", 5000)) if carrier is None else carrier)
        self.endpoint.host = self._socket
        self.endpoint.on_admitted = self._admitted

    @property
    def is_closed(self) -> bool:
        """Whether its socket is closed."""
        self.clock.settle()
        return self._socket.is_closed

    def _new_decoder(self) -> Any:
        # Each datagram is decoded by itself, but for frames that were cut.
        return super()._new_decoder() if self._codec is None else DatagramFrames(self._codec, self._config.max_datagram)

    def _admitted(self, session: Session[AnyPacket]) -> None:
        peer = self._peers.get(session.peer)
        if peer is not None:
            peer._session = session

    def _leave(self, data: bytes, addr: Address) -> None:
        peer = self._peers.get(addr)
        if peer is not None:
            peer._take(data)
        self.writes.append((data, addr))


class _Socket:
    """The `DatagramHost`."""

    def __init__(self, side: FakeDatagramEndpoint[Any], carrier: Carrier) -> None:
        self.is_closed = False
        self._side = side
        self._carrier = carrier
        self._timer: Handle | None = None

    def write_to(self, data: bytes, addr: Address) -> None:
        self._side._leave(data, addr)

    def set_timer(self, at: float | None) -> None:
        clock, endpoint = self._side.clock, self._side.endpoint
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else clock.call_at(at, lambda: endpoint.tick(clock.now))

    def wake(self) -> None:
        clock, endpoint = self._side.clock, self._side.endpoint
        clock.call_soon(lambda: endpoint.flush(clock.now))

    def carrier(self) -> Carrier:
        return self._carrier

    def close(self) -> None:
        self.is_closed = True


class FakeDatagramSession(Fake[AnyPacket]):
    """One peer of a UDP server, or the server of a client: `FakeSession` over datagrams.

    Its first datagram that holds a packet opens the session, and one that comes when that has ended opens
    another. A client's session is there at once.

    Args:
        application: a handler, an async function over a stream, or a `FakeDatagramEndpoint`, of which this is
            one more peer then. All others but `peer` are of a new one: see there.
        peer: the peer's address: 192.0.2.1 and another port for each by default.

    Raises:
        TypeError: `application` is neither of these, or there is a `FakeDatagramEndpoint` and what only a new
            one takes.
        ValueError: another `FakeDatagramSession` of the endpoint has this address.
    """

    def __init__(
        self,
        application: Application[AnyPacket] | FakeDatagramEndpoint[AnyPacket],
        config: Config | None = None,
        *,
        is_server: bool = True,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        peer_codec: PacketCodec[Any] | None = None,
        clock: Clock | None = None,
        reraise: bool = True,
        peer: Address | None = None,
    ) -> None:
        side = side_of(
            FakeDatagramEndpoint,
            "`peer`",
            application,
            is_server=is_server,
            reraise=reraise,
            config=config,
            framing=framing,
            codec=codec,
            peer_codec=peer_codec,
            clock=clock,
        )
        super().__init__(side)
        self.endpoint: FakeDatagramEndpoint[AnyPacket] = side
        """The server or client that it belongs to."""
        self.peer: Address = side._new_peer() if peer is None else peer
        """The peer's address."""
        self.failure: OSError | None = None
        """What the system says of a datagram to this peer: set it to `BlockingIOError(errno.EAGAIN, "")` for
        a full buffer, which loses the datagram, or to any other, of which the handler is told."""
        if self.peer in side._peers:
            raise ValueError(f"peer={self.peer} has a FakeDatagramSession already")
        side._peers[self.peer] = self
        self._decoder = side._new_decoder()
        endpoint = side.endpoint
        if not endpoint.is_server:
            self.clock._perform(lambda: endpoint.open(self.peer, self.clock.now))

    def feed(self, *items: AnyPacket | bytes | bytearray | memoryview) -> None:
        """The peer sends packets, or bytes as they stand: each a datagram of its own. Where the packets are
        bytes themselves, frames of a framing without a codec, `feed_bytes` takes bytes as they stand.

        Raises:
            LocalProtocolError: the socket is closed.
            TypeError: something is no packet of this endpoint.
        """
        for data in [*map(self.endpoint._encode, items)]:
            self.feed_bytes(data)

    def feed_bytes(self, data: bytes) -> None:
        """The peer sends a datagram of these bytes; see `feed`."""
        self._check("feed")
        endpoint = self.endpoint.endpoint
        self.clock._perform(lambda: endpoint.received(data, self.peer, self.clock.now))

    def error(self, error: OSError) -> None:
        """The system reports an error of something sent to this peer, such as a port where nobody listens.

        Raises:
            LocalProtocolError: the socket is closed.
        """
        self._check("error")
        endpoint = self.endpoint.endpoint
        self.clock._perform(lambda: endpoint.error(error, self.peer, self.clock.now))

    def _take(self, data: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self._writes.append(data)
        self._sent += self._decoder.feed(data)

    def _check(self, what: str) -> None:
        if self.endpoint.is_closed:
            reason = self.close_reason
            raise LocalProtocolError(f"{what}: the socket to {self.peer} is closed, {reason.name if reason else None}")
