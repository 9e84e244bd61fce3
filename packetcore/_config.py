"""Every limit and timeout, once. The defaults are safe for a server on the open internet."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from packetcore._decoder import DEFAULT_MAX_PAYLOAD
from packetcore._packet import MAX_LENGTH, Packet
from packetcore._wiretap import Wiretap

MIN_DATAGRAM = 11
"""Bytes: two flags and a header."""

MAX_DATAGRAM = 65_527
"""Bytes: 65,535 less UDP's header of 8, which is what IPv6 can carry."""

_NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Limits and timeouts of a server or a client, the same on every adapter.

    Sizes are in bytes and times in seconds; `None` turns a timeout or a cap off.

    Raises:
        ValueError: a value is out of its range or two of them contradict each other.
    """

    max_payload: int = DEFAULT_MAX_PAYLOAD
    """The longest payload of one packet, received or sent, 0 to 4294967295."""

    idle_timeout: float | None = 60.0
    """How long a peer may stay silent: the .NET library's example pool uses 60 s too. What it
    takes of a backlog, sent and not yet taken by the system, is a sign of life as well. What
    merely fills the system's buffer is none, save of a peer that has finished sending, which
    can give no other."""

    frame_timeout: float | None = 10.0
    """How long a peer may take over one frame, from its first byte, before the session ends with
    FRAME_TIMEOUT. Bytes outside any frame, such as a line end behind a packet or a heartbeat
    without flags, are reported as NOISE after as long, and end nothing."""

    keepalive_interval: float | None = None
    """After how long with nothing sent `keepalive_packet` is sent; not while unsent bytes wait,
    behind which it would be of no use."""

    keepalive_packet: Any = None
    """What a keepalive sends, a `Packet`, or of another framing a frame, or a packet of its codec;
    needed where `keepalive_interval` is set."""

    connect_timeout: float | None = 10.0
    """How long making a connection may take, name look-up and TLS included."""

    close_timeout: float | None = 5.0
    """How long a closing session waits for its peer to take the rest and close too."""

    write_high_water: int = 64 * 1024
    """Above this many unsent bytes a server's session stops reading from its peer, and
    streams wait to send: room for one large chunk of replies, the size asyncio uses for
    the same purpose."""

    write_low_water: int = 16 * 1024
    """Below this many it reads again."""

    max_outstanding: int | None = 16 * 1024 * 1024
    """Above this many unsent bytes a session is closed with SLOW_CONSUMER."""

    max_datagram: int = 65_507
    """The longest datagram, sent or received, 11 to 65527: by default all that UDP over
    IPv4 can carry (65,535 less headers of 20 and 8). Datagrams above 1,200 bytes or so may
    travel in fragments, and are lost when one of those is. A packet that takes more is refused
    at `send`, unless `datagram_chunk` is set."""

    datagram_chunk: int | None = None
    """Over UDP, the most bytes of a frame that one datagram carries, 1 to `max_datagram`: a longer
    frame goes out in several, which a peer joins if it is made to. The .NET library does both, and
    cuts at 4,096. `None` sends each packet in one datagram, which needs nothing of the peer. Where
    one piece is lost the packet is."""

    datagram_stream: bool = False
    """Whether, over UDP, the datagrams of one peer are joined, so that a frame may come in several.
    One that is lost, doubled or overtaken costs the frames that it parts. A peer has what a stream
    has, a decoder that holds at most `2 * (max_payload + 9)` bytes; what has begun and is
    unfinished after `frame_timeout` is given up as a `Malformed`, and the session goes on. A
    session begins with the first datagram that holds a packet or the beginning of one."""

    on_malformed: Literal["skip", "close"] = "skip"
    """Whether a malformed frame is skipped or ends the session with PROTOCOL_ERROR."""

    join_messages: bool = False
    """Whether packets are joined into messages: the handler then gets every message
    whole, in `message_received`, and no packets."""

    max_message: int = 4 * 1024 * 1024
    """The longest message joined."""

    max_pending_messages: int = 4
    """How many messages of one session may be incomplete at a time."""

    message_timeout: float | None = 30.0
    """How long a message may stay incomplete, from its first packet."""

    request_hold: float | None = 60.0
    """How long the id of a request that was given up is held for its late reply, which is then
    dropped and answers no newer request: as long as `idle_timeout` lets a peer be silent. `None`
    holds it until the reply comes; with 0 a late reply is a packet like any other."""

    max_requests_in_flight: int | None = None
    """How many requests of one session wait for their replies at a time: 1 on a half-duplex bus such as
    RS-485. The others are sent in their turn, in the order of asking, and the `timeout` of each counts from
    then; one without may hold up all behind it. A `send` takes no turn. `None` for no limit."""

    turnaround_delay: float = 0.0
    """With `max_requests_in_flight`, how long nothing is asked in the place of a request whose reply has
    come, or whose wait is over: the turnaround delay of "MODBUS over Serial Line" V1.02, which names 0.1
    to 0.2 s for broadcasts."""

    interframe_delay: float = 0.0
    """How long a stream stays silent, behind the last byte of a frame sent or of what came, before it sends
    the next frame. A bus whose frames have no flags tells them apart by that: Modbus RTU by 3.5
    characters, above 19,200 baud by 1.75 ms. Over serial lines the time that a frame itself takes at the
    baud rate is added. Timers are no more exact than the system's: see that this is above their
    milliseconds. 0 for none. Not for UDP."""

    max_sessions: int | None = 10_000
    """How many sessions a server holds at a time."""

    max_sessions_per_host: int | None = 1_000
    """How many of them may come from one host: many devices share a carrier's address."""

    tap: Wiretap | None = None
    """Who listens in on every session, such as a `Recorder` of `packetcore-tap`; costs nothing where it is
    `None`."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_payload <= MAX_LENGTH:
            raise ValueError(f"max_payload={self.max_payload} is out of range 0 to {MAX_LENGTH}")
        if not MIN_DATAGRAM <= self.max_datagram <= MAX_DATAGRAM:
            raise ValueError(f"max_datagram={self.max_datagram} is out of range {MIN_DATAGRAM} to {MAX_DATAGRAM}")
        if self.datagram_chunk is not None and not 1 <= self.datagram_chunk <= self.max_datagram:
            raise ValueError(
                f"datagram_chunk={self.datagram_chunk} is out of range 1 to max_datagram={self.max_datagram}, "
                "or None to cut nothing"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_timeout", "_interval")) and value is not None and not value > 0:
                raise ValueError(f"{field.name}={value} must be above 0 seconds, or None for no limit")
            if field.name.startswith("max_sessions") and value is not None and value < 1:
                raise ValueError(f"{field.name}={value} must be at least 1, or None for no limit")
        if self.request_hold is not None and not self.request_hold >= 0:
            raise ValueError(f"request_hold={self.request_hold} must be at least 0 seconds, or None for no limit")
        if self.max_requests_in_flight is not None and self.max_requests_in_flight < 1:
            raise ValueError(
                f"max_requests_in_flight={self.max_requests_in_flight} must be at least 1, or None for no limit"
            )
        for name in ("turnaround_delay", "interframe_delay"):
            if not 0 <= getattr(self, name) < _NEVER:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0 seconds, and finite")
        if self.turnaround_delay and self.max_requests_in_flight is None:
            raise ValueError(f"turnaround_delay={self.turnaround_delay} needs max_requests_in_flight")
        if not 0 <= self.write_low_water <= self.write_high_water:
            raise ValueError(
                f"write_low_water={self.write_low_water} must be between 0 and write_high_water={self.write_high_water}"
            )
        if self.max_outstanding is not None and self.max_outstanding < self.write_high_water:
            raise ValueError(
                f"max_outstanding={self.max_outstanding} is below write_high_water={self.write_high_water}"
            )
        if self.on_malformed not in ("skip", "close"):
            raise ValueError(f'on_malformed={self.on_malformed!r} must be "skip" or "close"')
        if self.max_message < 1 or self.max_pending_messages < 1:
            raise ValueError(
                f"max_message={self.max_message} and max_pending_messages="
                f"{self.max_pending_messages} must be at least 1"
            )
        if self.keepalive_interval is not None and self.keepalive_packet is None:
            raise ValueError(f"keepalive_interval={self.keepalive_interval} needs a keepalive_packet")
        if isinstance(self.keepalive_packet, Packet) and len(self.keepalive_packet.payload) > self.max_payload:
            raise ValueError(
                f"keepalive_packet of {len(self.keepalive_packet.payload)} bytes exceeds max_payload={self.max_payload}"
            )
