"""Frames with their length in front, in Python."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings._framing import Frames
from packetcore.framings._lengths import LengthDecoder

Size = int | Literal["varint"]
ByteOrder = Literal["big", "little"]

VARINT = 10
"""The most bytes of a varint: 64 bits, seven in each."""

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Layout:
    """Where in a frame its length stands, and how it is read."""

    __slots__ = ("before", "head", "read")

    before: int
    """How many bytes stand before the length field."""
    head: int
    """How many bytes there are up to its end, at most."""
    read: Callable[[bytes, int, int], tuple[int, int] | None]
    """For data, where in it a frame begins, and where it ends: how many bytes follow the length
    field, below 0 where it is impossible, and where they begin; `None` if it is incomplete."""

    def __init__(self, size: Size, byteorder: ByteOrder, before: int, adjust: int, counts_itself: bool) -> None:
        self.before = before
        if size == "varint":
            self.head = before + VARINT

            def read(data: bytes, at: int, end: int) -> tuple[int, int] | None:
                return read_varint(data, at + before, end, adjust, counts_itself)

            self.read = read
            return
        head = self.head = before + size
        if counts_itself:
            adjust -= size

        if size in _CODES:
            unpack = struct.Struct(f"{'>' if byteorder == 'big' else '<'}{before}x{_CODES[size]}").unpack_from

            def read(data: bytes, at: int, end: int) -> tuple[int, int] | None:
                return (unpack(data, at)[0] + adjust, at + head) if end - at >= head else None

        else:

            def read(data: bytes, at: int, end: int) -> tuple[int, int] | None:
                behind = at + head
                if behind > end:
                    return None
                return int.from_bytes(data[at + before : behind], byteorder) + adjust, behind

        self.read = read


def read_varint(data: bytes, at: int, end: int, adjust: int, counts_itself: bool) -> tuple[int, int] | None:
    """Read a varint at `at`, as `Layout.read` does."""
    value = shift = 0
    for place in range(at, min(at + VARINT, end)):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                return -1, place + 1
            return value + adjust - (place + 1 - at if counts_itself else 0), place + 1
        shift += 7
    return None if end < at + VARINT else (-1, at + VARINT)


class LengthPrefixDecoder(LengthDecoder):
    """Reads the length, then waits for so many bytes."""

    __slots__ = ("_layout", "_longest", "_magic", "_strip")

    def __init__(
        self,
        size: Size,
        byteorder: ByteOrder,
        before: int,
        adjust: int,
        counts_itself: bool,
        strip: bool,
        magic: bytes,
        max_frame: int,
    ) -> None:
        self._layout = layout = Layout(size, byteorder, before, adjust, counts_itself)
        self._magic = magic
        self._strip = strip
        self._longest = max_frame
        super().__init__(layout.head + max_frame, len(magic) or 1)

    def _cut(self, data: bytes, events: Frames) -> int:
        magic, read, strip, longest, before = (
            self._magic,
            self._layout.read,
            self._strip,
            self._longest,
            self._layout.before,
        )
        at, end = 0, len(data)
        while at < end:
            if magic:
                if not data.startswith(magic, at):
                    at = self._skip(data, at)
                    if end - at < len(magic):
                        self._need = end - at + 1
                        break
                events += self._dropped.take()
            found = read(data, at, end)
            if found is None:
                self._need = max(before, end - at) + 1
                break
            following, behind = found
            stop = behind + following
            first = behind if strip else at
            if following < 0 or stop - first > longest:
                reason = Reason.BAD_LENGTH if following < 0 else Reason.TOO_LONG
                events.append(Malformed.of(reason, data[at:behind]))
                at = behind
                if magic:
                    continue
                self._lost = True
                break
            if stop > end:
                self._need = stop - at
                break
            events.append(data[first:stop])
            at = stop
        return at

    def _skip(self, data: bytes, at: int) -> int:
        """Drop what comes before the next magic, or before what may be the beginning of one."""
        magic = self._magic
        found = data.find(magic, at)
        if found < 0:
            found = max(at, len(data) - len(magic) + 1)
            while not magic.startswith(data[found:]):
                found += 1
        self._dropped.add(data[at:found])
        return found
