"""Frames in several datagrams: what one source has begun is joined with what it sends next.

The flag that opens a frame resynchronises: a datagram that was lost, doubled or overtaken costs
the frames whose datagrams it parted, and no other. What the format cannot tell is a frame that
was put together of two: pieces carry no number and frames no checksum, so that the head of one
packet and the tail of another of the same size, with all between them lost, make a packet.
"""

from __future__ import annotations

from packetcore._carrier import Address
from packetcore._codec import HEADER_SIZE
from packetcore._events import Malformed
from packetcore._implementation import Decoder
from packetcore._packet import Packet
from packetcore._reasons import Reason

MAX_SOURCES = 64
"""Addresses whose beginnings one session keeps at a time: more than answer one broadcast in a
usual segment at once. Only a session that hears several addresses has more than one."""


def pieces(frame: bytes, chunk: int | None) -> list[bytes]:
    """The datagrams in which one frame goes out, of at most `chunk` bytes each; whole if `None`."""
    if chunk is None or len(frame) <= chunk:
        return [frame]
    return [frame[at : at + chunk] for at in range(0, len(frame), chunk)]


class PieceDecoder:
    """The decoder of one session, for frames that may come in several datagrams: one decoder for
    each address, so that what different peers send is never mixed.

    It holds no more than a stream's decoder does, `2 * (max_payload + 9)` bytes for all addresses
    together, and of `MAX_SOURCES` addresses at most: beyond that the longest silent one's frame is
    given up. Where one session hears several addresses, an event of one of them puts off the time
    at which what the others have begun is given up.

    Args:
        max_payload: the longest payload accepted, in bytes.
        max_datagram: the longest datagram accepted, in bytes.
    """

    __slots__ = ("_bound", "_decoders", "_given_up", "_max_datagram", "_max_payload", "source")

    def __init__(self, max_payload: int, max_datagram: int) -> None:
        self.source: Address | None = None
        """Whom the next datagram comes from; to be set where that may change."""
        self._max_payload = max_payload
        self._max_datagram = max_datagram
        self._bound = 2 * (max_payload + HEADER_SIZE)
        self._decoders: dict[Address | None, Decoder] = {}  # the longest silent first
        self._given_up: list[Malformed] = []  # by `miss`, and not told yet

    @property
    def pending(self) -> int:
        """Bytes of all sources that neither an event nor a flag speaks for yet."""
        return sum(decoder.pending for decoder in self._decoders.values())

    def feed(self, data: bytes | bytearray | memoryview) -> list[Packet | Malformed]:
        """Take the next datagram of `source` and give what it completes."""
        decoder = self._decoders.pop(self.source, None)
        if decoder is None:
            decoder = Decoder(max_payload=self._max_payload)
        self._decoders[self.source] = decoder
        events: list[Packet | Malformed] = [*self._given_up]
        self._given_up.clear()
        if len(data) > self._max_datagram:
            events += decoder.feed_eof()  # the system has cut it, and its end with it
            events.append(Malformed.of(Reason.DATAGRAM_TOO_LONG, bytes(data)))
        else:
            events += decoder.feed(data)
        while len(self._decoders) > 1 and (len(self._decoders) > MAX_SOURCES or self.pending > self._bound):
            idle = next((source for source, decoder in self._decoders.items() if not decoder.pending), None)
            longest_silent = next(iter(self._decoders))
            events += self._decoders.pop(longest_silent if idle is None else idle).feed_eof()
        return events

    def miss(self) -> None:
        """A datagram of `source` came that is not fed: what came before it is not to be joined
        with what comes after. The next `feed` tells of it."""
        if (decoder := self._decoders.get(self.source)) is not None:
            self._given_up += decoder.feed_eof()

    def feed_eof(self) -> list[Malformed]:
        """Say that nothing more will come; gives what every source has left unfinished."""
        events = self._given_up
        for decoder in self._decoders.values():
            events += decoder.feed_eof()
        self._given_up = []
        self._decoders.clear()
        return events

    def feed_timeout(self) -> list[Malformed]:
        """Say that what is pending has been so for `frame_timeout`: give it up, frames begun
        too, TRUNCATED, since the rest of one was lost on the way. It ends no session."""
        events = self._given_up
        for decoder in self._decoders.values():
            events += decoder.feed_timeout() or decoder.feed_eof()
        self._given_up = []
        self._decoders.clear()
        return events
