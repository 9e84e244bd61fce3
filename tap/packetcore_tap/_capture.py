"""Conversations written as a capture: what was said on any carrier, in TCP and UDP headers that are made up
where there were none, so that Wireshark opens it and follows each stream. Bytes out, and no file.

What is true in a capture: the bytes, their order and their times, who sent them, what was one chunk, who ended,
and the addresses of TCP and UDP sockets. What is made up: sequence numbers, windows, acknowledgements, and the
addresses of what has none (Unix sockets, serial lines), of which the comment on the first packet tells more.

A chunk longer than a segment of TCP is several segments of one time, and only its last has PSH set.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from packetcore import Address
from packetcore_tap._ip import MAX_SEGMENT, NO_FLAGS, End, Flag, IPAddress, tcp_packet, udp_packet
from packetcore_tap._pcapng import Way, enhanced_packet, interface_description, interface_statistics, section_header

INTERFACES = ("packetcore server", "packetcore client", "packetcore tap")
"""What the interfaces of a capture are called: of what a server noted, a client, or somebody between the two.
The direction of a packet is as that side saw it; between the two it is as a server would have."""

_SERVER, _CLIENT, _BETWEEN = range(3)

CLIENT_INTERFACE = INTERFACES[_CLIENT]
"""Where what went out is a client's."""

_MADE_UP: dict[int, tuple[IPAddress, IPAddress]] = {  # addresses for documentation, RFC 5737 and RFC 3849
    4: (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")),
    6: (IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")),
}
_MADE_UP_PORT = 49_151
_EPHEMERAL = range(49_152, 65_536)  # RFC 6335, section 6

_SYN_OPTIONS = bytes.fromhex("0204ffd7 0103030e")
"""A maximum segment size of 65,495, and a window scale of 14, the most (RFC 7323, section 2.3): 1 GiB."""

MAX_COMMENT = 2000
"""Bytes that a comment has at most; the rest of it is cut off."""

_PACKET_COST = 200
"""Bytes of the headers and options of one packet, comments aside, and some more."""

_ACK_AFTER = 64 << 20
"""Bytes after which the other end acknowledges though it has nothing to say: far less than a window."""


class Side(enum.Enum):
    """One of the two who talk."""

    CLIENT = "client"
    """Who connected, or sent the first datagram."""

    SERVER = "server"
    """Who was connected to."""

    @property
    def other(self) -> Side:
        """The one it talks to."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


@dataclass(slots=True)
class _Direction:
    sender: End
    sequence: int  # of the next byte
    way: Way
    unacknowledged: int = 0
    has_ended: bool = False


@dataclass(slots=True)
class _Conversation:
    directions: dict[Side, _Direction]
    is_stream: bool
    interface: int
    comment: str
    told_in: int = 0  # the file in which the comment is
    notes: list[str] = field(default_factory=list)  # on the next packet
    missed: int = 0  # chunks before it that are not there
    last_to_end: Side = Side.SERVER


class CaptureWriter:
    """Gives the bytes of a capture, piece by piece, to be written one after another.

    Args:
        application: who writes, for the reader.
    """

    def __init__(self, application: str = "packetcore") -> None:
        self._application = application
        self._conversations: dict[Hashable, _Conversation] = {}
        self._file = 0
        self._count = 0  # of conversations until now
        self._packets = [0] * len(INTERFACES)  # in this file
        self._missed = [0] * len(INTERFACES)

    def __contains__(self, conversation: Hashable) -> bool:
        """Whether a conversation is open."""
        return conversation in self._conversations

    def has_ended(self, conversation: Hashable, sender: Side) -> bool:
        """Whether one side of an open one has finished sending."""
        return self._conversations[conversation].directions[sender].has_ended

    def most(self, size: int) -> int:
        """How many bytes the blocks of one chunk of `size` bytes have at most, or those of anything else with 0."""
        return size + (size // MAX_SEGMENT + 4) * _PACKET_COST + 2 * MAX_COMMENT

    def begin(self, comment: str = "") -> bytes:
        """What a file begins with; another file may begin at any time, and conversations go on in it.

        Args:
            comment: on the file.
        """
        self._file += 1
        self._packets = [0] * len(INTERFACES)
        self._missed = [0] * len(INTERFACES)
        head = section_header(self._application, (comment,) if comment else ())
        return head + b"".join(map(interface_description, INTERFACES))

    def opened(
        self,
        conversation: Hashable,
        client: Address | None,
        server: Address | None,
        time: int,
        *,
        kind: Literal["stream", "datagram"] = "stream",
        here: Side | None = None,
        comment: str = "",
    ) -> bytes:
        """A conversation begins.

        Args:
            conversation: anything that stands for it from now on, until it is `closed`.
            client: its address; where that is `None` or not of IP, one is made up.
            server: likewise.
            time: nanoseconds since the beginning of 1970.
            kind: whether it is a stream or of datagrams.
            here: who notes this; `None` for somebody in between.
            comment: what to say of it in each file, with the first packet.
        """
        ends = _ends(client, server, self._count)
        self._count += 1
        sequence = self._count * 0x10001  # never that of the last conversation between the same ends
        interface = _BETWEEN if here is None else _CLIENT if here is Side.CLIENT else _SERVER
        ways = (Way.OUTBOUND, Way.INBOUND) if here is Side.CLIENT else (Way.INBOUND, Way.OUTBOUND)
        directions = {side: _Direction(end, sequence, way) for side, end, way in zip(Side, ends, ways, strict=True)}
        it = self._conversations[conversation] = _Conversation(directions, kind == "stream", interface, comment)
        if not it.is_stream:
            return b""
        blocks = [self._tcp(it, Side.CLIENT, Flag.SYN, time, options=_SYN_OPTIONS)]
        it.directions[Side.CLIENT].sequence += 1
        blocks.append(self._tcp(it, Side.SERVER, Flag.SYN | Flag.ACK, time, options=_SYN_OPTIONS))
        it.directions[Side.SERVER].sequence += 1
        blocks.append(self._tcp(it, Side.CLIENT, Flag.ACK, time))
        return b"".join(blocks)

    def data(self, conversation: Hashable, sender: Side, data: bytes, time: int) -> bytes:
        """One side has sent something: a chunk of a stream, or one datagram.

        Raises:
            KeyError: the conversation is not open.
        """
        it = self._conversations[conversation]
        if not it.is_stream:
            return self._udp(it, sender, data, time)
        blocks = []
        for start in range(0, len(data), MAX_SEGMENT):
            piece = data[start : start + MAX_SEGMENT]
            is_last = start + MAX_SEGMENT >= len(data)
            blocks.append(self._tcp(it, sender, Flag.ACK | (Flag.PSH if is_last else NO_FLAGS), time, piece))
        if it.directions[sender].unacknowledged > _ACK_AFTER:
            blocks.append(self._tcp(it, sender.other, Flag.ACK, time))
        return b"".join(blocks)

    def missed(self, conversation: Hashable, sender: Side, size: int, *, chunks: int = 1) -> None:
        """One side has sent so many bytes that are not in the capture: a gap in the sequence numbers, and
        the next packet counts the `chunks` that are missing.

        Raises:
            KeyError: the conversation is not open.
        """
        it = self._conversations[conversation]
        it.directions[sender].sequence += size
        it.missed += chunks
        it.notes.append(f"not recorded before this: {size} bytes that the {sender.value} sent")
        self._missed[it.interface] += chunks

    def ended(self, conversation: Hashable, sender: Side, time: int) -> bytes:
        """One side of a stream has finished sending. Idempotent.

        Raises:
            KeyError: the conversation is not open.
        """
        it = self._conversations[conversation]
        direction = it.directions[sender]
        if not it.is_stream or direction.has_ended:
            return b""
        direction.has_ended = True
        it.last_to_end = sender
        block = self._tcp(it, sender, Flag.FIN | Flag.ACK, time)
        direction.sequence += 1
        return block

    def closed(self, conversation: Hashable, time: int, *, reset: Side | None = None, comment: str = "") -> bytes:
        """A conversation is over. One that is not open is none, and nothing is written.

        Args:
            conversation: which.
            time: when.
            reset: who broke the connection off; `None` for an end in good order.
            comment: on the last packet.
        """
        it = self._conversations.get(conversation)
        if it is None:
            return b""
        if comment:
            it.notes.append(comment)
        blocks = []
        if it.is_stream and reset is not None:
            blocks.append(self._tcp(it, reset, Flag.RST | Flag.ACK, time))
        elif it.is_stream:
            blocks += [self.ended(conversation, side, time) for side in Side]
            blocks.append(self._tcp(it, it.last_to_end.other, Flag.ACK, time))
        del self._conversations[conversation]
        return b"".join(blocks)

    def forget(self, conversation: Hashable) -> None:
        """Nothing more will be known of a conversation, not even how it ended. Idempotent."""
        self._conversations.pop(conversation, None)

    def finish(self, time: int) -> bytes:
        """What a file ends with, if it comes to a good end: how many packets there were, and how many of
        them are missing."""
        return b"".join(
            interface_statistics(number, time, received=packets + missed, dropped=missed)
            for number, (packets, missed) in enumerate(zip(self._packets, self._missed, strict=True))
            if packets or missed
        )

    def _tcp(
        self, it: _Conversation, sender: Side, flags: Flag, time: int, payload: bytes = b"", options: bytes = b""
    ) -> bytes:
        direction, other = it.directions[sender], it.directions[sender.other]
        packet = tcp_packet(
            direction.sender,
            other.sender,
            payload,
            sequence=direction.sequence,
            acknowledgement=other.sequence if flags & Flag.ACK else 0,
            flags=flags,
            options=options,
        )
        direction.sequence += len(payload)
        direction.unacknowledged += len(payload)
        other.unacknowledged = 0
        return self._packet(it, direction, packet, time)

    def _udp(self, it: _Conversation, sender: Side, data: bytes, time: int) -> bytes:
        direction, other = it.directions[sender], it.directions[sender.other]
        return self._packet(it, direction, udp_packet(direction.sender, other.sender, data), time)

    def _packet(self, it: _Conversation, direction: _Direction, packet: bytes, time: int) -> bytes:
        comments: list[str] = []
        if it.told_in != self._file:
            it.told_in = self._file
            comments += [it.comment] if it.comment else []
        if it.notes:
            comments += it.notes
            it.notes = []
        dropped, it.missed = it.missed, 0
        self._packets[it.interface] += 1
        text = "\n".join(comments)[:MAX_COMMENT]
        comments = [text] if text else []
        return enhanced_packet(it.interface, time, packet, way=direction.way, dropped=dropped, comments=comments)


def _ends(client: Address | None, server: Address | None, number: int) -> tuple[End, End]:
    """Both ends of a conversation, of one family; in part or wholly made up where they are not known."""
    known = [_end(client), _end(server)]
    version = max((end.address.version for end in known if end is not None), default=4)
    made_up = _MADE_UP[version]
    ports = (_EPHEMERAL[number % len(_EPHEMERAL)], _MADE_UP_PORT)
    first, second = (
        End(address, port) if end is None else End(_of_version(end.address, version), end.port)
        for end, address, port in zip(known, made_up, ports, strict=True)
    )
    return first, second


def _end(address: Address | None) -> End | None:
    match address:
        case (str(host), int(port), *_) if 0 <= port <= 0xFFFF:
            try:
                return End(ip_address(host.partition("%")[0]), port)
            except ValueError:
                return None
    return None


def _of_version(address: IPAddress, version: int) -> IPAddress:
    if address.version == version:
        return address
    return IPv6Address(f"::ffff:{address}")  # RFC 4291, section 2.5.5.2
