"""A damaged line, and which frames it leaves whole.

`Damage` changes bytes of a stream that passes through it, at random but the same for the same seed.
A frame is touched where one of its own bytes was changed, its delimiters included, or where the last
byte of the frame before it was: without that delimiter the two run into each other. No other frame may
suffer, of any framing that resynchronises, whatever the bytes were changed to.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from packetcore.framings import Framing


class Damage:
    """Changes bytes of what it is called with, one after the other, and gives what becomes of them.

    Args:
        rate: which part of all bytes is changed, above 0 and below 1.
        seed: of its chance.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self.places: list[int] = []
        """Where in the stream bytes were changed, ascending."""
        self._scale = 1 / math.log(1 - rate)
        self._random = random.Random(seed)
        self._passed = 0
        self._next = self._gap()

    def __call__(self, data: bytes) -> bytes:
        out = bytearray(data)
        end = self._passed + len(data)
        while self._next < end:
            out[self._next - self._passed] ^= self._random.randrange(1, 256)
            self.places.append(self._next)
            self._next += 1 + self._gap()
        self._passed = end
        return bytes(out)

    def _gap(self) -> int:
        return int(math.log(1 - self._random.random()) * self._scale)


class Numbered:
    """What the frames hold: a number and bytes, with a CRC-32, so that a frame that was changed and is one
    all the same is not taken for another (a `packetcore.PacketCodec`)."""

    def encode(self, packet: tuple[int, bytes], /) -> bytes:
        """A number and bytes as a frame."""
        body = struct.pack(">I", packet[0]) + packet[1]
        return body + struct.pack(">I", zlib.crc32(body))

    def decode(self, frame: bytes, /) -> tuple[int, bytes]:
        """The number and the bytes in a frame.

        Raises:
            ValueError: it was changed.
        """
        if len(frame) < 8 or zlib.crc32(frame[:-4]) != int.from_bytes(frame[-4:], "big"):
            raise ValueError("the CRC does not match")
        return int.from_bytes(frame[:4], "big"), frame[4:-4]


@dataclass
class Load:
    """Packets for `Numbered`, and where the frame of each ends in the stream."""

    packets: list[tuple[int, bytes]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, framing: Framing, size: int, seed: int) -> Load:
        """As many packets of 0 to 100 bytes as make up a stream of a size."""
        chance, load, end = random.Random(seed), cls(), 0
        encode = Numbered().encode
        while end < size:
            packet = len(load.packets), chance.randbytes(chance.randrange(101))
            end += len(framing.encode(encode(packet)))
            load.packets.append(packet)
            load.ends.append(end)
        return load

    def untouched(self, places: Sequence[int]) -> list[tuple[int, bytes]]:
        """The packets whose frames were not touched, where bytes were changed at some places."""
        touched = set()
        for place in places:
            index = bisect_right(self.ends, place)
            touched.add(index)
            if place == self.ends[index] - 1:
                touched.add(index + 1)
        return [packet for packet in self.packets if packet[0] not in touched]
