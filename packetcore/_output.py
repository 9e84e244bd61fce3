"""Sending: packets in, frames that wait for the socket out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packetcore._errors import LocalProtocolError
from packetcore._packet import Packet


class Output:
    """Frames in the order in which they are to be sent.

    Args:
        encode: makes a packet's frame.
        max_payload: the longest payload it takes, in bytes.
        checks: whether to see that what is sent is a `Packet`, and no longer; not where `encode` does.
    """

    __slots__ = ("_checks", "_encode", "_frames", "_max_payload", "bytes", "packets", "size", "taken")

    def __init__(self, encode: Callable[[Any], bytes], max_payload: int, checks: bool = True) -> None:
        self._encode = encode
        self._checks = checks
        self._max_payload = max_payload
        self._frames: list[bytes] = []
        self.size = 0
        """Bytes that wait; to be read only."""
        self.packets = 0
        """Packets put until now; to be read only."""
        self.bytes = 0
        """Bytes of their frames; to be read only."""
        self.taken = 0
        """Bytes taken until now; to be read only."""

    def put(self, packet: Any, /) -> int:
        """Add a packet's frame.

        Returns:
            How many bytes wait now.

        Raises:
            LocalProtocolError: the payload exceeds `max_payload`.
            TypeError: it is no packet, or `encode` gave no bytes.
        """
        if (packet.__class__ is not Packet or len(packet.payload) > self._max_payload) and self._checks:
            check_packet(packet, self._max_payload)
        frame = self._encode(packet)
        if frame.__class__ is not bytes:
            check_frame(frame)
        self._frames.append(frame)
        self.packets += 1
        self.bytes += len(frame)
        self.size += len(frame)
        return self.size

    def take_back(self) -> None:
        """Undo the last `put`, which has just been, and whose frame is the last."""
        size = len(self._frames.pop())
        self.packets -= 1
        self.bytes -= size
        self.size -= size

    def put_all(self, packets: list[Packet], /) -> int:
        """Add the frames of several packets, with none of others between them: all or none.

        Returns:
            How many bytes wait now.

        Raises:
            LocalProtocolError: a payload exceeds `max_payload`.
            TypeError: one is no packet, or `encode` gave no bytes.
        """
        for packet in packets:
            if (packet.__class__ is not Packet or len(packet.payload) > self._max_payload) and self._checks:
                check_packet(packet, self._max_payload)
        frames: list[bytes] = []
        for packet in packets:
            frame = self._encode(packet)
            check_frame(frame)
            frames.append(frame)
        size = sum(map(len, frames))
        self._frames += frames
        self.packets += len(frames)
        self.bytes += size
        self.size += size
        return self.size

    def take(self) -> list[bytes]:
        """Take what waits, each packet's frame by itself."""
        frames, self._frames = self._frames, []
        self.taken += self.size
        self.size = 0
        return frames

    def join(self) -> bytes:
        """Take what waits as one, `b""` if nothing does."""
        return b"".join(self.take())


def check_packet(packet: object, max_payload: int) -> None:
    """Raise what is wrong with something that cannot be sent, if anything is."""
    if not isinstance(packet, Packet):
        raise TypeError(f"only a Packet can be sent, not {packet.__class__.__name__}")
    if len(packet.payload) > max_payload:
        raise LocalProtocolError(f"payload of {len(packet.payload)} bytes exceeds max_payload={max_payload}")


def check_frame(frame: object) -> None:
    """Raise where what `encode` gave is no frame: else it would be found out at the write, with others behind it."""
    if not isinstance(frame, bytes):
        raise TypeError(f"encode() must give bytes, not {frame.__class__.__name__}")
