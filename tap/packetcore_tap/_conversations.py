"""Conversations out of a capture: both directions, every TCP stream put together by its sequence numbers, every
UDP datagram. Packets in, and no file.

Captures of `CaptureWriter` give back the chunks that it was given. Of those by tcpdump or Wireshark each
segment is a chunk. What comes twice is given once; what comes out of order waits for what is missing, until the
other side acknowledges it all the same: then it is told as a `Gap`. Fragments of IP are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal

from packetcore_tap._capture import CLIENT_INTERFACE, INTERFACES, Side
from packetcore_tap._errors import CaptureError
from packetcore_tap._heard import Chunk, Conversation, Ended, Gap, Heard, Reset
from packetcore_tap._ip import TCP, End, Flag, Segment
from packetcore_tap._link_types import NAMES, is_known, segment_of
from packetcore_tap._pcapng import Record, Way

MAX_HELD = 16 << 20
"""Bytes of one direction that wait for what is missing, at most; then that is given up."""

_WRAP = 1 << 32


@dataclass(slots=True)
class _Direction:
    conversation: Conversation
    sender: Side
    syn: int | None = None  # the sequence number that it began with
    next: int | None = None  # the number of the next byte, which counts on above 2**32
    ends_at: int | None = None
    has_ended: bool = False
    waiting: list[tuple[int, int, Record, Segment]] = field(default_factory=list)
    held: int = 0  # bytes of those
    pieces: list[bytes] = field(default_factory=list)  # of a chunk that is not whole yet
    time: int = 0  # of those

    def position(self, sequence: int) -> int:
        """A sequence number as one that counts on."""
        if self.next is None:
            return sequence
        return self.next + (sequence - self.next + _WRAP // 2) % _WRAP - _WRAP // 2


class Conversations:
    """Takes captured packets and gives what was said."""

    def __init__(self) -> None:
        self.count = 0
        """How many conversations there were until now."""
        self.packets = 0
        """How many packets there were."""
        self.passed_over = 0
        """How many of them were neither TCP nor UDP, or fragments, or not whole up to their payload."""
        self._directions: dict[tuple[int, End, End], tuple[_Direction, _Direction]] = {}  # theirs, and the other
        self._order = 0

    def feed(self, record: Record) -> list[Heard]:
        """Take one packet.

        Raises:
            CaptureError: it is of a kind of network that is not understood.
        """
        self.packets += 1
        if not is_known(record.link_type):
            raise CaptureError(f"packets of link type {record.link_type} are not understood: {NAMES} are")
        segment = segment_of(record)
        if segment is None:
            self.passed_over += 1
            return []
        found = self._of(record, segment)
        if found is None:
            return []
        direction, other = found
        conversation = direction.conversation
        conversation.comments += record.comments
        if segment.protocol == TCP:
            return self._tcp(record, segment, direction, other)
        heard: list[Heard] = [Chunk(conversation, record.time, direction.sender, segment.payload)]
        if segment.missing:
            heard.append(Gap(conversation, record.time, direction.sender, segment.missing))
        return heard

    def feed_eof(self) -> list[Heard]:
        """The capture has ended: give what waits for what never came."""
        heard: list[Heard] = []
        for direction, _ in self._directions.values():
            while direction.waiting:
                heard += _skip(direction, direction.waiting[0][2].time)
            heard += _joined(direction)
        return heard

    def _of(self, record: Record, segment: Segment) -> tuple[_Direction, _Direction] | None:
        """The direction that a packet goes, and the other; `None` if it says nothing of a new conversation."""
        found = self._directions.get((segment.protocol, segment.source, segment.destination))
        if found is not None:
            has_begun = found[0].next is not None and found[0].syn != segment.sequence
            if not (_begins(segment) and has_begun):  # else the same ports are used once more
                return found
        elif segment.protocol == TCP and not (segment.payload or segment.missing or Flag.SYN in segment.flags):
            return None
        self.count += 1
        sender = _sender(record, segment)
        ends = {sender: segment.source, sender.other: segment.destination}
        kind: Literal["tcp", "udp"] = "tcp" if segment.protocol == TCP else "udp"
        conversation = Conversation(self.count, kind, ends[Side.CLIENT], ends[Side.SERVER], Flag.SYN in segment.flags)
        one, other = _Direction(conversation, sender), _Direction(conversation, sender.other)
        self._directions[segment.protocol, segment.source, segment.destination] = one, other
        self._directions[segment.protocol, segment.destination, segment.source] = other, one
        return one, other

    def _tcp(self, record: Record, segment: Segment, direction: _Direction, other: _Direction) -> list[Heard]:
        heard: list[Heard] = []
        time, size = record.time, len(segment.payload) + segment.missing
        if Flag.ACK in segment.flags:
            taken = other.position(segment.acknowledgement)
            while other.waiting and other.waiting[0][0] <= taken:  # what is missing before it has come, unseen
                heard += _skip(other, time)
        if Flag.RST in segment.flags:
            if not (direction.has_ended and other.has_ended):
                heard += [*_joined(direction), *_joined(other), Reset(direction.conversation, time, direction.sender)]
                direction.has_ended = other.has_ended = True
            return heard
        start = segment.sequence
        if Flag.SYN in segment.flags:
            direction.syn = start
            start += 1
        position = direction.position(start)
        if direction.next is None:
            direction.next = position
        if Flag.FIN in segment.flags:
            direction.ends_at = position + size
        if record.dropped and _is_ours(record) and position > direction.next:
            heard += _gap(direction, position, time)
        if position > direction.next and size:
            self._order += 1
            heappush(direction.waiting, (position, self._order, record, segment))
            direction.held += size
            while direction.held > MAX_HELD:
                heard += _skip(direction, time)
        elif size:
            heard += _take(direction, position, record, segment)
            heard += _drain(direction)
        if direction.ends_at is not None and direction.next >= direction.ends_at and not direction.has_ended:
            direction.has_ended = True
            direction.next = direction.ends_at + 1
            heard += [*_joined(direction), Ended(direction.conversation, time, direction.sender)]
        return heard


def _take(direction: _Direction, position: int, record: Record, segment: Segment) -> list[Heard]:
    """What a segment says that was not said before; nothing before it is missing."""
    assert direction.next is not None
    known = direction.next - position
    data = segment.payload[known:]
    heard: list[Heard] = []
    if data:
        if direction.time != record.time:
            heard += _joined(direction)
        direction.next += len(data)
        direction.pieces.append(data)
        direction.time = record.time
        if Flag.PSH in segment.flags or not _is_ours(record):
            heard += _joined(direction)
    end = position + len(segment.payload) + segment.missing
    if segment.missing and end > direction.next:
        heard += _gap(direction, end, record.time)
    return heard


def _drain(direction: _Direction) -> list[Heard]:
    """What waited, up to what is missing next."""
    assert direction.next is not None
    heard: list[Heard] = []
    waiting = direction.waiting
    while waiting and waiting[0][0] <= direction.next:
        position, _, record, segment = heappop(waiting)
        direction.held -= len(segment.payload) + segment.missing
        heard += _take(direction, position, record, segment)
    return heard


def _skip(direction: _Direction, time: int) -> list[Heard]:
    """Give up what is missing before the first that waits."""
    return [*_gap(direction, direction.waiting[0][0], time), *_drain(direction)]


def _gap(direction: _Direction, position: int, time: int) -> list[Heard]:
    assert direction.next is not None
    size, direction.next = position - direction.next, position
    return [*_joined(direction), Gap(direction.conversation, time, direction.sender, size)]


def _joined(direction: _Direction) -> list[Heard]:
    if not direction.pieces:
        return []
    data = b"".join(direction.pieces)
    direction.pieces.clear()
    return [Chunk(direction.conversation, direction.time, direction.sender, data)]


def _begins(segment: Segment) -> bool:
    return Flag.SYN in segment.flags and Flag.ACK not in segment.flags


def _is_ours(record: Record) -> bool:
    return record.interface in INTERFACES


def _sender(record: Record, segment: Segment) -> Side:
    """Who sent the first packet that there is of a conversation."""
    if Flag.SYN in segment.flags:
        is_client = Flag.ACK not in segment.flags
    elif _is_ours(record) and record.way is not Way.UNKNOWN:
        is_client = (record.way is Way.OUTBOUND) == (record.interface == CLIENT_INTERFACE)
    else:
        is_client = segment.protocol != TCP or segment.source.port >= segment.destination.port
    return Side.CLIENT if is_client else Side.SERVER
