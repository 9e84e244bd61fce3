"""UDP: telling peers apart, and a session for each, on one socket.

A datagram is decoded by itself, so that a broken one never spoils the next, and each packet
sent travels in a datagram of its own. A peer is its address. Its first datagram that holds a
packet opens a session in the same pool and with the same pump as a stream's; there is no
half-close and no buffer to wait for, so that closing is over at once.

With `datagram_stream` what one peer sends is joined, datagram after datagram, and one that begins
a frame opens a session too; with `datagram_chunk` a packet travels in several datagrams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from errno import EAGAIN, ENOBUFS, EWOULDBLOCK
from typing import Any, Generic

from packetcore._carrier import Address, Carrier
from packetcore._codec import FLAG, FLAG_BYTE, FrameDecoder
from packetcore._config import Config
from packetcore._deadlines import Deadlines
from packetcore._endpoint import Endpoint, log_exception
from packetcore._errors import LocalProtocolError, PoolFull
from packetcore._events import Malformed
from packetcore._frames import DatagramFrames, PacketCodec
from packetcore._handler import Handler
from packetcore._host import DatagramHost, Host
from packetcore._implementation import Decoder, encode
from packetcore._packet import AnyPacket, Packet
from packetcore._pieces import PieceDecoder, pieces
from packetcore._pool import SessionPool
from packetcore._reasons import CloseReason, Reason, Refusal
from packetcore._session import Session
from packetcore.framings import Framing

_NO_ROOM = frozenset({EAGAIN, EWOULDBLOCK, ENOBUFS})
"""What the system says of a full send buffer: the datagram is lost, as in the network."""


class DatagramFraming:
    """This format, a datagram at a time: the codec and, for all peers at once, the decoder.

    Args:
        max_payload: the longest payload accepted, in bytes.
        max_datagram: the longest datagram accepted, in bytes.
        cuts: whether a longer frame is made too, to be cut into several datagrams.
        joins: whether each peer has a decoder of its own, which joins its datagrams.
    """

    __slots__ = ("_cuts", "_decoder", "_joins", "_max_datagram", "_max_payload")

    pending = 0
    """Nothing is left of a datagram once it is decoded."""

    def __init__(self, max_payload: int, max_datagram: int, *, cuts: bool = False, joins: bool = False) -> None:
        self._decoder = Decoder(max_payload=max_payload)
        self._max_payload = max_payload
        self._max_datagram = max_datagram
        self._cuts = cuts
        self._joins = joins

    def decoder(self) -> FrameDecoder[Packet]:
        """The decoder of one more peer: this one, which keeps nothing between two datagrams, or
        one that joins them."""
        return PieceDecoder(self._max_payload, self._max_datagram) if self._joins else self

    def encode(self, packet: Packet) -> bytes:
        """One packet as one datagram, or as what is cut into several.

        Raises:
            LocalProtocolError: it exceeds `max_datagram` and is not cut.
        """
        frame = encode(packet)
        if len(frame) > self._max_datagram and not self._cuts:
            raise LocalProtocolError(f"packet of {len(frame)} bytes as sent exceeds max_datagram={self._max_datagram}")
        return frame

    def feed(self, data: bytes | bytearray | memoryview) -> list[Packet | Malformed]:
        """Take one whole datagram and give what it holds."""
        if not data:
            return []
        if len(data) > self._max_datagram:
            return [Malformed.of(Reason.DATAGRAM_TOO_LONG, bytes(data))]
        decoder = self._decoder
        # Behind a flag a decoder is as good as new, save for bytes before a first flag.
        if data[0] != FLAG_BYTE:
            decoder.feed_eof()
        events = decoder.feed(data)
        if data[-1] != FLAG_BYTE:
            events += decoder.feed_eof()
        return events

    def feed_eof(self) -> list[Malformed]:
        """Nothing: each datagram ended by itself."""
        return []

    feed_timeout = feed_eof

    def may_begin(self, data: bytes, events: Sequence[object]) -> bool:
        """Whether a datagram may begin a frame that others go on with.

        Args:
            data: the datagram.
            events: what `feed` gave for it.
        """
        if not self._joins:
            return False
        if not events:
            return data.startswith(FLAG)  # and has nothing but flags
        last = events[-1]
        return isinstance(last, Malformed) and last.reason is Reason.TRUNCATED


class DatagramSession(Session[AnyPacket]):
    """A session with one peer of a `DatagramEndpoint`. To the application it is a `Session`."""

    __slots__ = ()

    def send_message(
        self: DatagramSession,
        payload: bytes | bytearray | memoryview,
        *,
        id: int,
        type: int = 0,
        chunk: int | None = None,
    ) -> None:
        """Send a payload as one packet: datagrams may change their order, and the format
        does not number the packets of a message.

        Raises:
            SessionClosed: the session is closing or closed.
            LocalProtocolError: it does not fit one datagram and `datagram_chunk` is not set, or it
                is longer than `chunk` or `max_payload`.
            ValueError: a field is out of range.
        """
        config = self._endpoint.config
        packet = Packet(id, payload, type=type)
        if chunk is not None and len(packet.payload) > chunk:
            limit = "max_payload" if config.datagram_chunk is not None else "max_datagram"
            raise LocalProtocolError(
                f"message of {len(packet.payload)} bytes exceeds chunk={chunk}; over UDP it has to be "
                f"one packet, and {limit}={getattr(config, limit)}"
            )
        self.send(packet)

    def comes_from(self, addr: Address) -> None:
        """Say whom the next datagram comes from, where that may be anybody."""
        decoder = self._connection._decoder
        if isinstance(decoder, PieceDecoder):
            decoder.source = addr

    def count_dropped(self) -> None:
        """The system did not take a packet, or one of the datagrams that make it up."""
        self._connection.count_dropped(1)

    def count_discarded(self, size: int) -> None:
        """A datagram came that nobody wanted."""
        self._connection.count_discarded(0, size)
        decoder = self._connection._decoder
        if isinstance(decoder, PieceDecoder):
            decoder.miss()

    def reported(self, error: OSError, now: float) -> None:
        """The system reported an error of this peer."""
        self._connection.count_error()
        if self.is_open:
            self._now = now
            self._call(self._handler.error_received, error)
            self._pump()

    def _tell_sent(self, data: bytes) -> None:
        for piece in pieces(data, self._endpoint.config.datagram_chunk):
            self._tell("sent", piece)

    def _write(self) -> None:
        write = self._host.write
        must_tell = self._output.size > self._ease  # who sent so much was told that there is no room
        for frame in self._connection.frames_to_send():
            taken = write(frame)
            if taken and self._on_sent is not None and self.id:
                self._call(self._on_sent, taken)
        if must_tell and self.is_open:
            self._call(self._handler.writable)


class _Peer(Generic[AnyPacket]):
    """The `Host` of one session: its share of the socket."""

    __slots__ = ("endpoint", "host", "is_reading", "session")

    def __init__(self, endpoint: DatagramEndpoint[AnyPacket], addr: Address, now: float) -> None:
        self.endpoint = endpoint
        self.host: DatagramHost | None = None  # where it came in, if there are several
        self.is_reading = True
        self.session = endpoint.new_session(endpoint, self, addr, now)

    def write(self, data: bytes) -> int:
        session, endpoint = self.session, self.endpoint
        host = self.host or endpoint.host
        taken = 0
        for piece in pieces(data, endpoint.config.datagram_chunk):
            try:
                host.write_to(piece, session.peer)
            except OSError as error:
                session.count_dropped()
                if error.errno not in _NO_ROOM:
                    # Not at once: a handler that sends again would be told again, without end.
                    endpoint.report(session, error)
                break  # what is left of it is of no use to anybody
            taken += len(piece)
        return taken

    def write_eof(self) -> None:
        self.session.eof(self.endpoint.now)  # as if the peer had closed too: it will never say

    def set_timer(self, at: float | None) -> None:
        self.endpoint.set_timer(self, at)

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def close(self) -> None:
        self.session.lost(None, self.endpoint.now)

    abort = close

    def wake(self) -> None:
        self.endpoint.wake(self.session)

    def carrier(self) -> Carrier:
        return (self.host or self.endpoint.host).carrier()


class DatagramEndpoint(Endpoint[AnyPacket]):
    """One UDP socket, or several of one server: many peers, or a client's one.

    An adapter makes one, sets `host` or calls `attach` for each socket, and calls the inputs
    `received`, `error`, `tick` and `flush`, each with the time in seconds.

    Args:
        handler: the handler of all sessions, or a function that makes one for each.
        config: limits and timeouts.
        is_server: whether the peers come to us. A client closes its socket when its last
            session is over.
        sessions: see `Endpoint`.
        log_exception: see `Endpoint`.
        new_session: makes a session; an adapter's own subclass, or this one's.

    Raises:
        ValueError: `join_messages` is set, which needs a stream; or `keepalive_packet`
            exceeds `max_datagram` and is not cut.
    """

    host: DatagramHost
    """The socket's verbs: to be set before anything else is called."""

    def __init__(
        self,
        handler: Handler[AnyPacket] | Callable[[], Handler[AnyPacket]],
        config: Config | None = None,
        *,
        is_server: bool = False,
        framing: Framing | None = None,
        codec: PacketCodec[AnyPacket] | None = None,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
        log_exception: Callable[[str], object] = log_exception,
        new_session: Callable[
            [Endpoint[AnyPacket], Host, Address, float], DatagramSession[AnyPacket]
        ] = DatagramSession,
    ) -> None:
        super().__init__(
            handler,
            config,
            is_server=is_server,
            framing=framing,
            codec=codec,
            sessions=sessions,
            log_exception=log_exception,
        )
        self.ends_on_malformed = False  # behind a broken datagram comes another
        self.codec = self._framing = self._one_by_one(self.codec)
        if self.config.keepalive_packet is not None:
            self._check_keepalive(self._framing, self.config.keepalive_packet)
        self.new_session = new_session
        self.now = float("-inf")
        """The time of the latest input, in seconds."""
        self._hosts: list[DatagramHost] = []
        self._peers: dict[Address, _Peer[AnyPacket]] = {}
        self._sole: _Peer[AnyPacket] | None = None
        self._woken: list[Session[AnyPacket]] = []
        self._reports: list[tuple[DatagramSession[AnyPacket], OSError]] = []
        self._timers: Deadlines[_Peer[AnyPacket]] = Deadlines()
        self._timer_at: float | None = None
        self._is_closed = False
        self._tap = self.config.tap

    def _one_by_one(self, codec: Any) -> Any:
        """What takes datagrams, each by itself."""
        config = self.config
        if config.interframe_delay:
            raise ValueError(f"interframe_delay={config.interframe_delay} is for streams, not for datagrams")
        if config.join_messages:
            raise ValueError("join_messages=True is for streams: datagrams may be lost or change their order")
        cuts, joins = config.datagram_chunk is not None, config.datagram_stream
        if codec is None:
            return DatagramFraming(config.max_payload, config.max_datagram, cuts=cuts, joins=joins)
        if cuts or joins:
            raise ValueError("datagram_stream and datagram_chunk are for the default framing")
        return DatagramFrames(codec, config.max_datagram)

    def attach(self, host: DatagramHost) -> None:
        """Give it one more socket. The first is `host` and keeps the timer of all. Say with each
        datagram which it came in on."""
        if not self._hosts:
            self.host = host
        self._hosts.append(host)

    def open(self, addr: Address, now: float, *, sole: bool = False) -> Session[AnyPacket]:
        """The session with the peer at an address, new if there is none.

        Args:
            addr: the address as the socket gives it.
            now: the time, in seconds.
            sole: let it have what comes from anywhere, as replies to a broadcast do.

        Raises:
            PoolFull: a cap is reached.
        """
        peer = self._peers.get(addr)
        if peer is None:
            if (refusal := self._refusal(addr)) is not None:
                raise PoolFull(self.sessions.explain(refusal, addr[0]), refusal)
            peer = self._open(addr, now)
        if sole:
            self._sole = peer
        return peer.session

    def received(self, data: bytes, addr: Address, now: float, host: DatagramHost | None = None) -> None:
        """A datagram came. Of one longer than `max_datagram`, give one byte more than that.

        Args:
            data: the datagram.
            addr: where it came from.
            now: the time, in seconds.
            host: the socket that it came in on, where there are several: by it the replies go.
        """
        if now > self.now:
            self.now = now
        peer = self._peers.get(addr) or self._sole or self._admit(data, addr, now, host)
        if peer is None or self._is_closed:
            if self._tap is not None:
                self._tell_unclaimed(data, addr, host)
            return
        if peer is self._sole:
            peer.session.comes_from(addr)
        if host is not None:
            peer.host = host
        if not peer.is_reading:
            peer.session.count_discarded(len(data))
        elif data:
            peer.session.received(data, self.now)
        else:
            self.sessions.refresh(peer.session.id, self.now)  # an empty datagram is a sign of life

    def error(self, error: OSError, addr: Address | None, now: float) -> None:
        """The system reported an error of something sent to `addr`; `None` where it does not
        say where, which only a client with one peer can make something of."""
        now = self._advance(now)
        peer = self._sole if addr is None else self._peers.get(addr, self._sole)
        if peer is None and addr is None and not self.is_server and len(self._peers) == 1:
            (peer,) = self._peers.values()
        if peer is None:
            self._stats.total.errors += 1
        else:
            peer.session.reported(error, now)

    def tick(self, now: float) -> None:
        """The timer fired."""
        now = self._advance(now)
        self._timer_at = float("-inf")  # not to be set for one that is about to fire
        while (peer := self._timers.pop_due(now)) is not None:
            peer.session.tick(now)
        self._timer_at = None
        self._arm()

    def flush(self, now: float) -> None:
        """The host was woken: do what was asked for outside an input."""
        now = self._advance(now)
        woken, self._woken = self._woken, []
        reports, self._reports = self._reports, []
        for session in woken:
            session.flush(now)
        for session, error in reports:
            session.reported(error, now)

    def abort(self, now: float) -> None:
        now = self._advance(now)
        super().abort(now)
        self._close()

    def finished(self, session: Session[AnyPacket], reason: CloseReason) -> None:
        peer = self._peers.pop(session.peer)
        if peer is self._sole:
            self._sole = None
        super().finished(session, reason)
        if not self.is_server and not self._peers:
            self._close()

    # What a session's host does.

    def wake(self, session: Session[AnyPacket]) -> None:
        """Flush a session soon."""
        if not (self._woken or self._reports):
            self.host.wake()
        self._woken.append(session)

    def report(self, session: DatagramSession[AnyPacket], error: OSError) -> None:
        """Tell a session of an error soon."""
        if not (self._woken or self._reports):
            self.host.wake()
        self._reports.append((session, error))

    def set_timer(self, peer: _Peer[AnyPacket], at: float | None) -> None:
        """Tick a session at a time, in place of any set before."""
        if at is None:
            self._timers.discard(peer)
        else:
            self._timers.set(peer, at)
            self._arm()

    # What both sides use.

    def _advance(self, now: float) -> float:
        if now > self.now:
            self.now = now
        return self.now

    def _refusal(self, addr: Address) -> Refusal | None:
        return Refusal.SHUTDOWN if not self.admits else self.sessions.refusal(addr[0])

    def _admit(self, data: bytes, addr: Address, now: float, host: DatagramHost | None) -> _Peer[AnyPacket] | None:
        """Open a session for a stranger, if what it sent is worth one."""
        events = self._framing.feed(data)
        malformed = [event for event in events if isinstance(event, Malformed)]
        holds_packet = len(malformed) < len(events)
        if not (holds_packet or self._framing.may_begin(data, events)):
            for event in malformed:
                self._stats.total.malformed[event.reason] += 1
                self.malformed(event, addr)
        elif (refusal := self._refusal(addr)) is not None:
            self.refused(addr, refusal)
        else:
            return self._open(addr, now, host)
        return None

    def _open(self, addr: Address, now: float, host: DatagramHost | None = None) -> _Peer[AnyPacket]:
        now = self._advance(now)
        peer = self._peers[addr] = _Peer(self, addr, now)
        peer.host = host
        peer.session.opened(now)
        return peer

    def _tell_unclaimed(self, data: bytes, addr: Address, host: DatagramHost | None) -> None:
        assert self._tap is not None
        try:
            self._tap.unclaimed(self, data, addr, (host or self.host).carrier())
        except Exception:
            self._tap = None
            self.log_exception("the tap of an endpoint raised, and hears of its datagrams without a session no more")

    def _arm(self) -> None:
        """Have the timer fire no later than needed. One set too early is left as it is."""
        first = self._timers.first()
        if first is not None and (self._timer_at is None or first < self._timer_at) and not self._is_closed:
            self._timer_at = first
            self.host.set_timer(first)

    def _close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.host.set_timer(None)
            for host in self._hosts or [self.host]:
                host.close()
