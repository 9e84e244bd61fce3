"""The protocol of one stream as a state machine: bytes and the time in, events and bytes out.

It decides what the peer may do, when the peer has taken too long, what a close means and
when a keepalive is due. It knows no socket, no clock and no application: `Session` adds
those for people who do not want to drive it by hand.

    connection = Connection(now=clock())
    events = connection.receive_data(data, now=clock())  # and receive_eof()
    connection.send(packet)
    if output := connection.bytes_to_send():
        socket.sendall(output)
    # at connection.next_deadline(): connection.handle_deadline(now=clock())
    # once connection.state is CLOSING: socket.shutdown(SHUT_WR); once CLOSED: socket.close()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

from packetcore._codec import Codec
from packetcore._config import Config
from packetcore._errors import LocalProtocolError, SessionClosed
from packetcore._events import Closed, EndOfStream, Event, Malformed, Message
from packetcore._implementation import Decoder, Output, Receiver, encode
from packetcore._messages import Joiner, split
from packetcore._packet import AnyPacket
from packetcore._reasons import CloseReason
from packetcore._state import TRANSITIONS, Input, State
from packetcore._stats import Stats


class PacketFraming:
    """The framing of the .NET library: what a connection speaks unless told otherwise.

    Args:
        max_payload: the longest payload accepted, in bytes.
    """

    __slots__ = ("_max_payload",)

    encode = staticmethod(encode)

    def __init__(self, max_payload: int) -> None:
        self._max_payload = max_payload

    def decoder(self) -> Decoder:
        """A new decoder for one stream."""
        return Decoder(max_payload=self._max_payload)


class Connection(Receiver, Generic[AnyPacket]):
    """One stream, seen from this side.

    Every input takes `now`, the time in seconds since any epoch. A `now` before one given
    earlier counts as that earlier one. After each input look at `bytes_to_send()`,
    `next_deadline()` and `state`.

    Args:
        config: limits and timeouts.
        now: the time at which the stream was opened.
        codec: another framing in place of this format.
    """

    __slots__ = (
        "_close_reason",
        "_closing_since",
        "_config",
        "_reading",
        "_seldom",
        "output",
        "sent_at",
    )

    def __init__(self, config: Config | None = None, *, now: float, codec: Codec[AnyPacket] | None = None) -> None:
        if config is None:
            config = Config()
        spoken: Codec[Any] = PacketFraming(config.max_payload) if codec is None else codec
        self._config = config
        self._decoder = spoken.decoder()
        # Another framing than this format may send what is no `Packet`, and checks that itself.
        self.output = Output(spoken.encode, config.max_payload, not getattr(spoken, "sends_any", False))
        """What `send` has put and `bytes_to_send` has not given; for a caller who has no time
        to lose, and who looks at `state` by himself."""
        self._joiner = (
            Joiner(config.max_message, config.max_pending_messages, config.message_timeout)
            if config.join_messages
            else None
        )
        self.state = State.OPEN
        self._now = self._heard = now
        self.sent_at = now
        """When output was last taken; who takes it from `output` says so here."""
        self.frame_since = None
        self._closing_since = now
        self._close_reason = CloseReason.LOCAL
        self._reading = True
        self._packets_received = self._bytes_received = 0
        self._seldom: Stats | None = None  # what else there is to count, once there is

    @property
    def stats(self) -> Stats:
        """What has passed through until now: a copy of the counters."""
        stats = Stats()
        self.add_to(stats)
        return stats

    def add_to(self, total: Stats) -> None:
        """Add what has passed through until now to what others have counted."""
        output = self.output
        total.packets_received += self._packets_received
        total.bytes_received += self._bytes_received
        total.packets_sent += output.packets
        total.bytes_sent += output.bytes
        if self._seldom is not None:
            total.add(self._seldom)

    @property
    def _stats(self) -> Stats:
        if self._seldom is None:
            self._seldom = Stats()
        return self._seldom

    if TYPE_CHECKING:  # the receiver, which may be the one in C, has no type for its packets

        def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event[AnyPacket]]:
            """See `Receiver`."""

    def receive_eof(self, now: float, *, truncated: bool = False) -> list[Event[AnyPacket]]:
        """The peer has finished sending. Reply if you like, then `close`.

        Args:
            now: the time, in seconds.
            truncated: whether the stream was cut where its carrier demands a word of the peer's
                that it is complete: over TLS a `close_notify` (RFC 8446, section 6.1). Anybody
                on the way can do that, so that it counts as a loss, with RESET.

        Returns:
            A `Malformed` for a frame or a message cut short, then `EndOfStream`; `Closed`
            where this side had closed before, or the stream was truncated.

        Raises:
            LocalProtocolError: it was said before, or the connection is closed.
        """
        before = self.state
        if truncated and before is State.OPEN:
            return self.fail(CloseReason.RESET, now)
        self._step(Input.EOF)
        self._heard = self._advance(now)
        if before is State.CLOSING:
            return [Closed(self._close_reason)]
        events = self._police(self._cut_short())
        if self.state is State.HALF_CLOSED:
            events.append(EndOfStream())
        return events

    def send(self, packet: AnyPacket) -> None:
        """Put a packet into the output; `bytes_to_send()` gives it.

        Raises:
            SessionClosed: this side has closed, or the connection has.
            LocalProtocolError: the payload exceeds `max_payload`.
        """
        if self.state is not State.OPEN:
            self.check_sending()
        self.output.put(packet)

    def check_sending(self) -> None:
        """Raise `SessionClosed` where `send` would."""
        if (self.state, Input.SEND) not in TRANSITIONS:
            raise SessionClosed(self._close_reason if self.state is State.CLOSED else None)

    def send_message(
        self: Connection, payload: bytes | bytearray | memoryview, *, id: int, type: int = 0, chunk: int | None = None
    ) -> None:
        """Send a payload as one packet, or as several where it is longer than `chunk`.

        Args:
            payload: the message, of any length.
            id: the id of each packet.
            type: the type of each packet.
            chunk: the most payload bytes in one packet; `max_payload` if `None`.

        Raises:
            SessionClosed: this side has closed, or the connection has.
            LocalProtocolError: `chunk` exceeds `max_payload`.
            ValueError: a field is out of range, or it takes more than 65535 packets.
        """
        self.check_sending()
        limit = self._config.max_payload
        if chunk is not None and chunk > limit:
            raise LocalProtocolError(f"chunk of {chunk} bytes exceeds max_payload={limit}")
        self.output.put_all(split(payload, id=id, type=type, chunk=max(1, limit) if chunk is None else chunk))

    @property
    def buffered(self) -> int:
        """Bytes that `bytes_to_send` would give."""
        return self.output.size

    def bytes_to_send(self) -> bytes:
        """Take the output: whole frames only, `b""` if there is none."""
        if not self.output.size:
            return b""
        self.sent_at = self._now
        return self.output.join()

    def frames_to_send(self) -> list[bytes]:
        """Take the output as `bytes_to_send` does, each packet's frame by itself."""
        self.sent_at = self._now
        return self.output.take()

    def close(self, now: float, reason: CloseReason = CloseReason.LOCAL) -> list[Event[AnyPacket]]:
        """This side has finished: send the output, half-close the socket, wait for the peer.

        Called again while closing, it restarts the wait. What the peer still sends is
        counted and dropped. Where the peer had finished before, the connection is over
        at once, and what would have been LOCAL is PEER.

        Returns:
            `[Closed]` if that ends it.
        """
        before = self.state
        self._step(Input.CLOSE)
        self._closing_since = self._advance(now)
        if before is State.HALF_CLOSED:
            self._close_reason = CloseReason.PEER if reason is CloseReason.LOCAL else reason
            return [Closed(self._close_reason)]
        if before is State.OPEN:
            self._close_reason = reason
        return []

    def fail(self, reason: CloseReason, now: float) -> list[Event[AnyPacket]]:
        """It is over for a reason that only the caller can see, such as a lost socket.

        Returns:
            A `Malformed` for each frame or message cut short, then `[Closed]`; nothing if
            it was over before. A reason that `close` was given goes first.
        """
        if self.state is State.CLOSED:
            return []
        self._advance(now)
        unfinished = self._cut_short() if self.state is State.OPEN else []
        for malformed in unfinished:
            self._stats.malformed[malformed.reason] += 1
        return [*unfinished, self._fail(reason)]

    def count_discarded(self, packets: int, size: int = 0) -> None:
        """Count packets that this gave and the caller did not deliver, and bytes that the
        caller did not even give."""
        self._stats.packets_discarded += packets
        self._stats.bytes_discarded += size

    def count_dropped(self, packets: int) -> None:
        """Count packets that `frames_to_send` gave and the system did not take."""
        self._stats.packets_dropped += packets

    def count_error(self) -> None:
        """Count an error that the system reported of the peer."""
        self._stats.errors += 1

    def touch(self, now: float) -> None:
        """Count `now` as a sign of life from the peer, though no bytes came."""
        self._advance(now)
        self._heard = max(self._heard, now)

    def set_reading(self, reading: bool, now: float) -> None:
        """Say whether the caller reads from the peer.

        While it does not, the peer cannot finish a frame, so `frame_timeout` stands still;
        `idle_timeout` goes on, and it is for the caller to `touch` a peer that it keeps
        waiting. Both begin anew once it reads again.
        """
        now = self._advance(now)
        if reading and not self._reading:
            self._heard = now
            if self.frame_since is not None:
                self.frame_since = now
        self._reading = reading

    def next_deadline(self) -> float | None:
        """When to call `handle_deadline` at the latest; `None` if nothing is waited for.

        It may lie later by then: a call before it is due does nothing.
        """
        state, config = self.state, self._config
        if state is State.CLOSED:
            return None
        if state is State.CLOSING:
            return None if config.close_timeout is None else self._closing_since + config.close_timeout
        deadline = None if config.idle_timeout is None else self._heard + config.idle_timeout
        if self._reading and self.frame_since is not None and config.frame_timeout is not None:
            deadline = earlier(deadline, self.frame_since + config.frame_timeout)
        if config.keepalive_interval is not None:
            deadline = earlier(deadline, self._last_sent() + config.keepalive_interval)
        if self._joiner is not None:
            deadline = earlier(deadline, self._joiner.next_deadline())
        return deadline

    def handle_deadline(self, now: float) -> list[Event[AnyPacket]]:
        """Do what is due at `now`: end what took too long, send a keepalive.

        Returns:
            What came of it. The next deadline is then later than `now`, or `None`.
        """
        now = self._advance(now)
        state, config = self.state, self._config
        if state is State.CLOSED:
            return []
        if state is State.CLOSING:
            return [self._fail(self._close_reason)] if _due(self._closing_since, config.close_timeout, now) else []
        events: list[Event[AnyPacket]] = []
        if self._reading and self.frame_since is not None and _due(self.frame_since, config.frame_timeout, now):
            noise = self._decoder.feed_timeout()
            if not noise:
                return self.fail(CloseReason.FRAME_TIMEOUT, now)
            self.frame_since = None
            events = self._police(noise)
        if self.state is not State.CLOSED and _due(self._heard, config.idle_timeout, now):
            return events + self.fail(CloseReason.IDLE_TIMEOUT, now)
        if self._joiner is not None and self.state is not State.CLOSED:
            events += self._police(self._joiner.expire(now))
        keepalive: Any = config.keepalive_packet  # where there is one, the framing is the default
        if (
            _due(self._last_sent(), config.keepalive_interval, now)
            and keepalive is not None
            and self.state is not State.CLOSED
        ):
            self.send(keepalive)
        return events

    def _last_sent(self) -> float:
        return self._now if self.output.size else self.sent_at  # what waits is about to be sent

    def _advance(self, now: float) -> float:
        if now > self._now:
            self._now = now
        return self._now

    def _step(self, input: Input) -> None:
        try:
            self.state = TRANSITIONS[self.state, input]
        except KeyError:
            raise LocalProtocolError(f"{input.name} is not legal while {self.state.name}") from None

    def _fail(self, reason: CloseReason) -> Closed:
        if self.state is not State.CLOSING:
            self._close_reason = reason
        self._step(Input.FAIL)
        self.frame_since = None
        return Closed(self._close_reason)

    def _receive_late(self, data: bytes | bytearray | memoryview, now: float) -> list[Event[AnyPacket]]:
        self._step(Input.DATA)
        self._advance(now)
        self._stats.bytes_discarded += len(data)
        return []

    def _deliver(self, frames: Sequence[Any]) -> list[Event[AnyPacket]]:
        """Turn what the decoder gave into events."""
        joiner = self._joiner
        if joiner is None:
            return self._police(frames)
        joined: list[Any] = []
        for frame in frames:
            if isinstance(frame, Malformed):
                joined.append(frame)
            else:
                self._packets_received += 1
                joined += joiner.add(frame, self._now)
        return self._police(joined)

    def _police(self, found: Sequence[AnyPacket | Message | Malformed]) -> list[Event[AnyPacket]]:
        """Count what was found; a malformed frame may end the connection then and there."""
        events: list[Event[AnyPacket]] = []
        for event in found:
            events.append(event)
            match event:
                case Message():
                    self._stats.messages_received += 1
                case Malformed(reason):
                    self._stats.malformed[reason] += 1
                    if self._config.on_malformed == "close":
                        events.append(self._fail(CloseReason.PROTOCOL_ERROR))
                        break
                case _:
                    self._packets_received += 1
        return events

    def _cut_short(self) -> list[Malformed]:
        """The stream has ended: what it left unfinished."""
        self.frame_since = None
        return self._decoder.feed_eof() + (self._joiner.give_up() if self._joiner is not None else [])


def earlier(one: float | None, other: float | None) -> float | None:
    """The earlier of two times, of which `None` is never."""
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def _due(since: float, wait: float | None, now: float) -> bool:
    return wait is not None and since + wait <= now
