"""How packets travel from worker to worker: as what encodes them for devices, too."""

from __future__ import annotations

from packetcore import Packet, decode, encode


class Packets:
    """The default format: a packet as its frame. A `packetcore.PacketCodec`."""

    def encode(self, packet: Packet, /) -> bytes:
        """See `packetcore.encode`."""
        return encode(packet)

    def decode(self, frame: bytes, /) -> Packet:
        """See `packetcore.decode`."""
        return decode(frame)


class Frames:
    """For framings without a packet codec: a frame is its bytes. A `packetcore.PacketCodec`."""

    def encode(self, packet: bytes, /) -> bytes:
        """The same bytes.

        Raises:
            TypeError: there are none.
        """
        if not isinstance(packet, (bytes, bytearray, memoryview)):
            raise TypeError(f"only bytes can be sent, not {packet.__class__.__name__}")
        return bytes(packet)

    def decode(self, frame: bytes, /) -> bytes:
        """The same bytes."""
        return frame
