"""What passes through a tap, decoded: packets or frames, and what is malformed."""

from __future__ import annotations

from dataclasses import dataclass

from packetcore.framings import Framing
from packetcore_tap._decoding import Decoded, new_decoder
from packetcore_tap._direction import DIRECTIONS, Direction

_HELLO = 6
"""Bytes that tell whether a client speaks TLS: the header of a record and the type of the message in it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet or frame that a tap has passed on, or something malformed."""

    time: float
    """When its last byte was, in seconds since 1970."""

    connection: int
    """The number of its connection."""

    direction: Direction
    """Which way it went."""

    event: Decoded
    """What it was; `bytes` is a frame of another framing than the default."""


class Sight:
    """Decodes both directions of one connection, unless its client speaks TLS.

    Args:
        framing: of what it carries; `None` for that of `packetcore.Packet`.
        max_payload: the longest payload or frame.
        is_stream: whether it is a stream; else each piece is a datagram, decoded by itself.

    Raises:
        ValueError: `max_payload` is out of its range.
    """

    def __init__(self, framing: Framing | None, max_payload: int, *, is_stream: bool) -> None:
        self._is_stream = is_stream
        self._decoders = {direction: new_decoder(framing, max_payload) for direction in DIRECTIONS}
        self._head: bytes | None = b"" if is_stream else None  # what the client began with, while that may be TLS
        self.is_encrypted = False
        """Whether the client speaks TLS: then nothing is seen."""

    def look(self, direction: Direction, data: bytes) -> list[Decoded]:
        """What a piece of a direction completes."""
        if self.is_encrypted:
            return []
        if self._head is not None and direction == "to_server":
            self._head += data
            if _may_be_hello(self._head):
                if len(self._head) < _HELLO:
                    return []
                self.is_encrypted = True
                return []
            data, self._head = self._head, None
        decoder = self._decoders[direction]
        if self._is_stream:
            return [*decoder.feed(data)]
        return [*decoder.feed(data), *decoder.feed_eof()]

    def end(self, direction: Direction) -> list[Decoded]:
        """What a direction leaves unfinished at its end."""
        if self.is_encrypted:
            return []
        decoder = self._decoders[direction]
        events: list[Decoded] = []
        if direction == "to_server" and self._head:
            events += decoder.feed(self._head)
            self._head = None
        return [*events, *decoder.feed_eof()]


def _may_be_hello(head: bytes) -> bool:
    """Whether a stream that begins so is TLS, as far as can be seen: a record of type handshake (22) and version
    3.x, of at most 2**14 bytes, with a ClientHello (1) in it (RFC 8446, sections 5.1 and 4)."""
    return all(
        low <= byte <= high
        for byte, (low, high) in zip(head, ((22, 22), (3, 3), (0, 4), (0, 64), (0, 255), (1, 1)), strict=False)
    )
