"""Sessions over streams that need no network: what a peer sends is fed, and what it is sent is kept."""

from __future__ import annotations

from functools import partial
from typing import Any

from packetcore._carrier import Address, Carrier
from packetcore._config import Config
from packetcore._errors import LocalProtocolError
from packetcore._frames import PacketCodec
from packetcore._packet import AnyPacket
from packetcore.framings import Framing
from packetcore.testing._clock import Clock
from packetcore.testing._side import Application, Fake, Side, side_of
from packetcore.testing._socket import End, Socket


class FakeEndpoint(Side[AnyPacket]):
    """A server, or a client, whose sessions are `FakeSession`s: several of them share its handler,
    register, limits and clock.

    Args:
        application: a handler, or an async function over a stream, which is driven without a runtime:
            it may wait for the stream and for `Clock.sleep`, and for nothing else.
        config: limits and timeouts.
        is_server: whether the peers come to us.
        framing: another framing than the default.
        codec: what stands in its frames; `None` for frames of bytes.
        peer_codec: what the peers speak, where they do not encode and decode the same packets as this side:
            by it what is fed is encoded, and what is sent decoded.
        sessions: the register, where several endpoints share one; its own by default.
        clock: the time, where several endpoints share it; its own by default.
        reraise: whether what the application raises comes out of the call that led to it, `feed` or
            `advance` for instance, once the session has ended with HANDLER_ERROR as it does anywhere.
            Else it is in `errors` alone.
    """


class FakeSession(Fake[AnyPacket]):
    """One session of a server, or of a client, seen from its peer: `feed` is what the peer sends, `sent` what
    has reached it. No socket, no sleep and no runtime is needed.

        session = FakeSession(Gateway())
        session.feed(Packet(1, b"ping"))
        assert session.sent == [Packet(1, b"pong")]

    All that is due is done before a call returns, and before `sent` and its kin are told: also what was sent,
    or closed, outside the handler. What the application raises comes out of the call that led to it, with its
    own traceback; see `reraise`.

    Args:
        application: a handler, an async function over a stream, or a `FakeEndpoint`, of which this is one more
            session then. All others but `peer` and `carrier` are of a new `FakeEndpoint`: see there.
        peer: the peer's address: 192.0.2.1 (RFC 5737) and another port for each by default.
        carrier: what `Session.carrier` tells; TCP by default.

    Raises:
        TypeError: `application` is neither of these, or there is a `FakeEndpoint` and what only a new one takes.
    """

    def __init__(
        self,
        application: Application[AnyPacket] | FakeEndpoint[AnyPacket],
        config: Config | None = None,
        *,
        is_server: bool = True,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        peer_codec: PacketCodec[Any] | None = None,
        clock: Clock | None = None,
        reraise: bool = True,
        peer: Address | None = None,
        carrier: Carrier | None = None,
    ) -> None:
        side = side_of(
            FakeEndpoint,
            "`peer` and `carrier`",
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
        self.endpoint: FakeEndpoint[AnyPacket] = side
        """The server or client that it belongs to."""
        self.peer_closes = True
        """Whether the peer finishes too once this side has, as most do. Where it does not, a session that
        closes waits for `close_timeout`."""
        self._decoder = side._new_decoder()
        carrier = Carrier("tcp", ("192.0.2.254", 5000)) if carrier is None else carrier
        self._socket = Socket(self.clock, carrier, self._writes, self._leave)
        endpoint, peer = side.endpoint, side._new_peer() if peer is None else peer
        session = endpoint.session_type(endpoint, self._socket, peer, self.clock.now)
        self._session = self._socket.session = session
        self.clock._perform(lambda: session.opened(self.clock.now))

    def feed(self, *items: AnyPacket | bytes | bytearray | memoryview, chunk: int | None = None) -> None:
        """The peer sends packets, or bytes as they stand: all that is given in one chunk. Where the
        packets are bytes themselves, frames of a framing without a codec, `feed_bytes` takes bytes as
        they stand.

        Args:
            items: what it sends.
            chunk: cut it into chunks of so many bytes, which come one after the other; 1 is the worst case.

        Raises:
            LocalProtocolError: the session is over, or the peer has finished sending.
            TypeError: something is no packet of this endpoint.
        """
        self.feed_bytes(b"".join(map(self.endpoint._encode, items)), chunk=chunk)

    def feed_bytes(self, data: bytes, *, chunk: int | None = None) -> None:
        """The peer sends these bytes; see `feed`."""
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk={chunk} must be at least 1 byte")
        self._check("feed")
        size = chunk or len(data) or 1
        for at in range(0, len(data), size):
            self.clock._perform(partial(self._socket.arrive, data[at : at + size]))

    def eof(self, *, truncated: bool = False) -> None:
        """The peer has finished sending, and may still read.

        Args:
            truncated: whether its stream was cut without the word that the carrier demands; see `Session.eof`.

        Raises:
            LocalProtocolError: the session is over, or the peer has finished sending.
        """
        self._check("eof")
        self.clock._perform(lambda: self._socket.arrive(End(truncated=truncated)))

    def lost(self, error: Exception | None = None) -> None:
        """The connection breaks, with a `ConnectionResetError` unless another `error` is given. What had come
        before is still delivered.

        Raises:
            LocalProtocolError: the session is over.
        """
        self._check("lost", also_after_eof=True)
        end = End(ConnectionResetError("the peer has reset the connection") if error is None else error)
        self.clock._perform(lambda: self._socket.arrive(end))

    @property
    def room(self) -> int | None:
        """How many bytes the system takes yet before its buffer is full, as it is when a peer does not read;
        `None`, as it begins, for any number. Set it: 0 has the peer stop reading, and more lets what waits go.

        Raises:
            ValueError: it is set below 0.
        """
        return self._socket.room

    @room.setter
    def room(self, nbytes: int | None) -> None:
        if nbytes is not None and nbytes < 0:
            raise ValueError(f"room={nbytes} must be at least 0 bytes, or None for any number")
        self.clock.settle()  # what was sent before meets the room that there was
        self._socket.room = nbytes
        self.clock._perform(self._socket.drain)

    @property
    def unread(self) -> int:
        """Bytes fed that wait in the system, since the session is paused, or its own peer does not read."""
        self.clock.settle()
        return self._socket.unread

    @property
    def was_reset(self) -> bool:
        """Whether this side ended it by a reset, so that what was unsent is lost."""
        self.clock.settle()
        return self._socket.was_reset

    def _leave(self, item: bytes | End) -> None:
        """What goes to the peer."""
        if isinstance(item, bytes):
            self._sent += self._decoder.feed(item)
        elif item.error is None and self.peer_closes:
            self.clock.call_soon(self._close_too)

    def _close_too(self) -> None:
        if not self._socket.has_ended:
            self._socket.arrive(End())

    def _check(self, what: str, *, also_after_eof: bool = False) -> None:
        self.clock.settle()
        if self.session.is_over:
            reason = self.session.close_reason
            raise LocalProtocolError(f"{what}: {self.session} is over, {reason.name if reason else None}")
        if self._socket.has_ended and not also_after_eof:
            raise LocalProtocolError(f"{what}: the peer of {self.session} has finished sending")
