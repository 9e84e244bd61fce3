"""The older capture format read, that of tcpdump: a header, then packets ("PCAP Capture File Format",
draft-ietf-opsawg-pcap). Both byte orders; microseconds and nanoseconds."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from packetcore_tap._errors import CaptureError
from packetcore_tap._pcapng import MAX_BLOCK, Record

_HEADER, _RECORD = 24, 16

MAGIC = {
    bytes.fromhex("d4c3b2a1"): ("<", 1000),
    bytes.fromhex("a1b2c3d4"): (">", 1000),
    bytes.fromhex("4d3cb2a1"): ("<", 1),
    bytes.fromhex("a1b23c4d"): (">", 1),
}
"""How a file begins: then what order its numbers have, and how many nanoseconds a unit of time is."""


class PcapReader:
    """Takes the bytes of a file in pieces, cut anywhere, and gives its packets."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0
        self._order = ""  # until the header is there
        self._unit = 0
        self._link_type = 0

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take some bytes, and give each packet that they complete.

        Raises:
            CaptureError: this is no such file, or it is damaged.
        """
        held = self._held
        held += data
        if not self._order:
            if len(held) < _HEADER:
                return
            self._begin(bytes(held[:_HEADER]))
            self._drop(_HEADER)
        while len(held) >= _RECORD:
            seconds, fraction, size, length = struct.unpack_from(f"{self._order}IIII", held)
            if size > MAX_BLOCK:
                raise self._wrong(f"a packet of {size} bytes: {MAX_BLOCK} are possible")
            if len(held) < _RECORD + size:
                return
            time = seconds * 1_000_000_000 + fraction * self._unit
            yield Record(time, self._link_type, bytes(held[_RECORD : _RECORD + size]), length)
            self._drop(_RECORD + size)

    def feed_eof(self) -> None:
        """The file has ended.

        Raises:
            CaptureError: in the midst of a packet, or of the header.
        """
        if self._held or not self._order:
            raise self._wrong(f"the file ends in the midst of a packet, after {len(self._held)} bytes of it")

    def _begin(self, head: bytes) -> None:
        if head[:4] not in MAGIC:
            raise self._wrong(f"no capture: it begins with {head[:4].hex()}")
        self._order, self._unit = MAGIC[head[:4]]
        self._link_type = struct.unpack_from(f"{self._order}I", head, 20)[0] & 0xFFFF  # above: the checksum's size

    def _drop(self, size: int) -> None:
        self._at += size
        del self._held[:size]

    def _wrong(self, what: str) -> CaptureError:
        return CaptureError(f"{what} (at byte {self._at})")
