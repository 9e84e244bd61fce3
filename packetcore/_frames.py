"""Any framing as what a connection speaks, and what stands in its frames."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Protocol

from packetcore._codec import FrameDecoder
from packetcore._errors import LocalProtocolError
from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings import Decoder, Framing

_NO_PACKET = (ValueError, LookupError, ArithmeticError, struct.error)


class PacketCodec(Protocol):
    """What stands in a frame: the application's packets, of any type but `Message`."""

    def encode(self, packet: Any, /) -> bytes:
        """A packet as a frame.

        Raises:
            TypeError: it is none of its packets.
            ValueError: a field is out of range.
        """
        raise NotImplementedError

    def decode(self, frame: bytes, /) -> Any:
        """The packet in a frame.

        Raises:
            ValueError: there is none in it. The frame is then reported as NO_PACKET, as it is with
                `struct.error`, `LookupError` and `ArithmeticError`: what parsing wrong bytes comes to
                where nothing looked at them first.
        """


class FrameCodec:
    """A framing with frames of bytes, or with a codec for what stands in them: the
    `packetcore.Codec` of a connection.

    Args:
        framing: where frames begin and end.
        codec: what stands in them; `None` for bytes.
        max_frame: the longest frame sent or accepted, in bytes.
    """

    def __init__(self, framing: Framing, codec: PacketCodec | None, max_frame: int) -> None:
        self._framing = framing
        self._codec = codec
        self._max_frame = max_frame

    def check(self, packet: object, max_payload: int) -> None:
        """Nothing: `encode` does."""

    def encode(self, packet: Any, /) -> bytes:
        """One packet as the bytes to send.

        Raises:
            LocalProtocolError: its frame exceeds `max_payload`, or cannot be framed.
            TypeError: it is no packet of this codec.
            ValueError: what the packet codec says of a field out of range.
        """
        frame = packet if self._codec is None else self._codec.encode(packet)
        if not isinstance(frame, (bytes, bytearray, memoryview)):
            raise TypeError(f"only bytes can be sent, not {frame.__class__.__name__}")
        if len(frame) > self._max_frame:
            raise LocalProtocolError(f"frame of {len(frame)} bytes exceeds max_payload={self._max_frame}")
        try:
            return self._framing.encode(bytes(frame))
        except ValueError as error:
            raise LocalProtocolError(str(error)) from None

    def decoder(self) -> FrameDecoder:
        """A new decoder for one stream."""
        decoder: Any = self._framing.decoder(self._max_frame)
        if self._codec is not None:
            decoder = _PacketDecoder(decoder, self._codec)
        return decoder  # type: ignore[no-any-return]


class _PacketDecoder:
    """The decoder of a framing, with packets in place of frames."""

    def __init__(self, decoder: Decoder, codec: PacketCodec) -> None:
        self._decoder = decoder
        self._codec = codec
        self.feed_eof = decoder.feed_eof
        self.feed_timeout = decoder.feed_timeout

    @property
    def pending(self) -> int:
        """See `packetcore.FrameDecoder`."""
        return self._decoder.pending

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Any]:
        """See `packetcore.FrameDecoder`."""
        return [self._packet_of(frame) for frame in self._decoder.feed(data)]

    def _packet_of(self, frame: bytes | Malformed) -> Any:
        if isinstance(frame, Malformed):
            return frame
        try:
            return self._codec.decode(frame)
        except _NO_PACKET:
            return Malformed.of(Reason.NO_PACKET, frame)


class DatagramFrames:
    """The same a datagram at a time: each holds whole frames, and a broken one spoils no other.

    Args:
        codec: of the frames.
        max_datagram: the longest datagram sent or accepted, in bytes.
    """

    pending = 0
    """Nothing is left of a datagram once it is decoded."""

    def __init__(self, codec: FrameCodec, max_datagram: int) -> None:
        self.check = codec.check
        self._codec = codec
        self._max_datagram = max_datagram

    def decoder(self) -> DatagramFrames:
        """The decoder of one more peer: this one, which keeps nothing between two datagrams."""
        return self

    def encode(self, packet: Any, /) -> bytes:
        """One packet as one datagram.

        Raises:
            LocalProtocolError: it exceeds `max_datagram`, or what `FrameCodec.encode` says.
        """
        frame = self._codec.encode(packet)
        if len(frame) > self._max_datagram:
            raise LocalProtocolError(f"packet of {len(frame)} bytes as sent exceeds max_datagram={self._max_datagram}")
        return frame

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Any]:
        """Take one whole datagram and give what it holds."""
        if len(data) > self._max_datagram:
            return [Malformed.of(Reason.DATAGRAM_TOO_LONG, bytes(data))]
        decoder = self._codec.decoder()
        return [*decoder.feed(data), *decoder.feed_eof()]

    def feed_eof(self) -> list[Malformed]:
        """Nothing: each datagram ended by itself."""
        return []

    feed_timeout = feed_eof

    def may_begin(self, data: bytes, events: Sequence[object]) -> bool:
        """No datagram begins a frame that others go on with."""
        return False
