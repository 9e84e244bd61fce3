"""Any framing as what a connection speaks, and what stands in its frames."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol

from packetcore._codec import FrameDecoder
from packetcore._errors import LocalProtocolError
from packetcore._events import SAMPLE_SIZE, Malformed
from packetcore._packet import AnyPacket
from packetcore._reasons import Reason
from packetcore.framings import Decoder, Framing

DETAIL_SIZE = 200
"""The most characters kept of what a codec says of a frame, which may quote all of it."""

_NO_PACKET = (ValueError, LookupError, ArithmeticError, struct.error)


class PacketCodec(Protocol[AnyPacket]):
    """What stands in a frame: the application's packets, of any type but `Message`."""

    def encode(self, packet: AnyPacket, /) -> bytes:
        """A packet as a frame.

        Raises:
            TypeError: it is none of its packets.
            ValueError: a field is out of range.
        """
        raise NotImplementedError

    def decode(self, frame: bytes, /) -> AnyPacket:
        """The packet in a frame.

        Raises:
            ValueError: there is none in it. The frame is then reported as NO_PACKET, with what this
                says; so it is with `struct.error`, `LookupError` and `ArithmeticError`, what parsing
                wrong bytes comes to where nothing looked at them first. Any other exception is
                logged besides.
        """


class FrameCodec(Generic[AnyPacket]):
    """A framing with frames of bytes, or with a codec for what stands in them: the
    `packetcore.Codec` of a connection.

    Args:
        framing: where frames begin and end.
        codec: what stands in them; `None` for bytes.
        max_frame: the longest frame sent or accepted, in bytes.
        log_exception: called with a message while an exception is handled that `framing` or `codec`
            should not have raised.
    """

    sends_any = True
    """Whether packets may be of any type, and `encode` says what is wrong with them."""

    def __init__(
        self,
        framing: Framing,
        codec: PacketCodec[AnyPacket] | None,
        max_frame: int,
        log_exception: Callable[[str], object] = str,
    ) -> None:
        self._framing = framing
        self._codec = codec
        self._max_frame = max_frame
        self._log_exception = log_exception

    def encode(self, packet: AnyPacket, /) -> bytes:
        """One packet as the bytes to send.

        Raises:
            LocalProtocolError: its frame exceeds `max_payload`, or cannot be framed.
            TypeError: it is no packet of this codec.
            ValueError: what the packet codec says of a field out of range.
        """
        frame: Any = packet if self._codec is None else self._codec.encode(packet)
        if frame.__class__ is not bytes:
            if not isinstance(frame, (bytes, bytearray, memoryview)):
                raise TypeError(f"only bytes can be sent, not {frame.__class__.__name__}")
            frame = bytes(frame)
        if len(frame) > self._max_frame:
            raise LocalProtocolError(f"frame of {len(frame)} bytes exceeds max_payload={self._max_frame}")
        try:
            return self._framing.encode(frame)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from None

    def decoder(self) -> FrameDecoder[AnyPacket]:
        """A new decoder for one stream."""
        new = partial(self._framing.decoder, self._max_frame)
        decoder: Any = new()
        if not decoder.__class__.__module__.startswith("packetcore."):  # ours do not raise
            decoder = _Guarded(decoder, new, self._log_exception)
        if self._codec is not None:
            decoder = _PacketDecoder(decoder, self._codec, self._log_exception)
        return decoder  # type: ignore[no-any-return]


class _Guarded:
    """The decoder of a framing that is not ours. Where it raises, what it was fed and held is malformed, and a
    new one goes on."""

    def __init__(self, decoder: Decoder, new: Callable[[], Decoder], log_exception: Callable[[str], object]) -> None:
        self._decoder = decoder
        self._new = new
        self._log_exception = log_exception

    @property
    def pending(self) -> int:
        """See `packetcore.FrameDecoder`."""
        return self._decoder.pending

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[bytes | Malformed]:
        """See `packetcore.FrameDecoder`."""
        return self._ask(partial(self._decoder.feed, data), data)

    def feed_eof(self) -> list[Malformed]:
        """See `packetcore.FrameDecoder`."""
        return self._ask(self._decoder.feed_eof)

    def feed_timeout(self) -> list[Malformed]:
        """See `packetcore.FrameDecoder`."""
        return self._ask(self._decoder.feed_timeout)

    def _ask(self, call: Callable[[], list[Any]], data: bytes | bytearray | memoryview = b"") -> list[Any]:
        held = self._decoder.pending
        try:
            return call()
        except Exception as error:
            self._log_exception(f"the framing raised on {len(data)} bytes")
            self._decoder = self._new()
            size, sample = held + len(data), b"" if held else bytes(data[:SAMPLE_SIZE])
            return [Malformed(Reason.FRAMING_FAILED, size, sample, _said(error))] if size else []


class _PacketDecoder(Generic[AnyPacket]):
    """The decoder of a framing, with packets in place of frames."""

    def __init__(self, decoder: Decoder, codec: PacketCodec[AnyPacket], log_exception: Callable[[str], object]) -> None:
        self._decoder = decoder
        self._codec = codec
        self._log_exception = log_exception
        self.feed_eof = decoder.feed_eof
        self.feed_timeout = decoder.feed_timeout

    @property
    def pending(self) -> int:
        """See `packetcore.FrameDecoder`."""
        return self._decoder.pending

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[AnyPacket | Malformed]:
        """See `packetcore.FrameDecoder`."""
        return [self._packet_of(frame) for frame in self._decoder.feed(data)]

    def _packet_of(self, frame: bytes | Malformed) -> AnyPacket | Malformed:
        if isinstance(frame, Malformed):
            return frame
        try:
            return self._codec.decode(frame)
        except Exception as error:
            if not isinstance(error, _NO_PACKET):
                self._log_exception(f"the packet codec {self._codec!r} raised on a frame of {len(frame)} bytes")
            return Malformed.of(Reason.NO_PACKET, frame, _said(error))


def _said(error: Exception) -> str:
    return f"{error.__class__.__name__}: {error}"[:DETAIL_SIZE]


class DatagramFrames(Generic[AnyPacket]):
    """The same a datagram at a time: each holds whole frames, and a broken one spoils no other.

    Args:
        codec: of the frames.
        max_datagram: the longest datagram sent or accepted, in bytes.
    """

    sends_any = True
    """See `FrameCodec`."""

    pending = 0
    """Nothing is left of a datagram once it is decoded."""

    def __init__(self, codec: FrameCodec[AnyPacket], max_datagram: int) -> None:
        self._codec = codec
        self._decoder = codec.decoder()
        self._max_datagram = max_datagram

    def decoder(self) -> DatagramFrames[AnyPacket]:
        """The decoder of one more peer: this one, which keeps nothing between two datagrams."""
        return self

    def encode(self, packet: AnyPacket, /) -> bytes:
        """One packet as one datagram.

        Raises:
            LocalProtocolError: it exceeds `max_datagram`, or what `FrameCodec.encode` says.
        """
        frame = self._codec.encode(packet)
        if len(frame) > self._max_datagram:
            raise LocalProtocolError(f"packet of {len(frame)} bytes as sent exceeds max_datagram={self._max_datagram}")
        return frame

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[AnyPacket | Malformed]:
        """Take one whole datagram and give what it holds."""
        if len(data) > self._max_datagram:
            return [Malformed.of(Reason.DATAGRAM_TOO_LONG, bytes(data))]
        return [*self._decoder.feed(data), *self._decoder.feed_eof()]

    def feed_eof(self) -> list[Malformed]:
        """Nothing: each datagram ended by itself."""
        return []

    feed_timeout = feed_eof

    def may_begin(self, data: bytes, events: Sequence[object]) -> bool:
        """No datagram begins a frame that others go on with."""
        return False
