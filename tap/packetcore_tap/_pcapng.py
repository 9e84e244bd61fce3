"""Capture files as bytes: blocks of pcapng made and read, without a file.

The subset of pcapng ("PCAP Next Generation (pcapng) Capture File Format", draft-ietf-opsawg-pcapng, the
format of Wireshark):

| block | written | read |
| --- | --- | --- |
| Section Header (4.1) | little-endian, length -1, `shb_userappl`, comments | both byte orders, any number of sections |
| Interface Description (4.2) | `if_name`, `if_tsresol` 9 | `if_name`, `if_tsresol`, `if_tsoffset` |
| Enhanced Packet (4.3) | `epb_flags` (the direction), `epb_dropcount`, comments | the same |
| Simple Packet (4.4), Packet (obsolete, appendix A) | no | yes |
| Interface Statistics (4.6) | `isb_ifrecv`, `isb_ifdrop`, comments | no |
| all others | no | skipped |

Numbers in parentheses are sections of the draft. Other options are skipped too.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from packetcore_tap._errors import CaptureError

LINKTYPE_RAW = 101
"""Packets that begin with an IPv4 or IPv6 header (LINKTYPE_RAW in the tcpdump group's list)."""

MAX_BLOCK = 16 << 20
"""The longest block read, in bytes: Wireshark takes no longer packets either, and a damaged length should not
have all that follows held in memory."""

SECTION_HEADER = 0x0A0D0D0A
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _STATISTICS, _ENHANCED_PACKET = 1, 2, 3, 5, 6

_MAGIC = 0x1A2B3C4D

_COMMENT = 1  # opt_comment, of any block
_SHB_USERAPPL = 4
_IF_NAME, _IF_TSRESOL, _IF_TSOFFSET = 2, 9, 14
_EPB_FLAGS, _EPB_DROPCOUNT = 2, 4
_ISB_IFRECV, _ISB_IFDROP = 4, 5

_NANOSECONDS = 9  # if_tsresol: 10 to the power of minus this, in seconds

Options = Sequence[tuple[int, bytes]]


class Way(enum.IntEnum):
    """The direction of a packet, seen from where it was captured (`epb_flags`, bits 0 and 1)."""

    UNKNOWN = 0
    INBOUND = 1
    OUTBOUND = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One packet as captured."""

    time: int
    """Nanoseconds since the beginning of 1970, UTC."""

    link_type: int
    """Of which kind the first header is: one of the tcpdump group's LINKTYPE values."""

    data: bytes
    """The packet, from that header on, as far as it was captured."""

    length: int
    """Bytes that it had on the wire."""

    way: Way = Way.UNKNOWN
    """Whether it came or went."""

    interface: str = ""
    """The name of where it was captured; "" if unknown."""

    dropped: int = 0
    """How many packets before it were lost by who captured."""

    comments: tuple[str, ...] = ()
    """What somebody wrote to it."""


def section_header(application: str, comments: Sequence[str] = ()) -> bytes:
    """The block that a file begins with.

    Args:
        application: who writes.
        comments: on the whole.
    """
    options = [*_comments(comments), (_SHB_USERAPPL, application.encode())]
    return _block(SECTION_HEADER, struct.pack("<IHHq", _MAGIC, 1, 0, -1), options)


def interface_description(name: str, link_type: int = LINKTYPE_RAW) -> bytes:
    """The block of an interface, of which packets are numbered from 0 in the order of these blocks; times are
    in nanoseconds."""
    options = [(_IF_NAME, name.encode()), (_IF_TSRESOL, bytes([_NANOSECONDS]))]
    return _block(_INTERFACE, struct.pack("<HHI", link_type, 0, 0), options)


def enhanced_packet(
    interface: int, time: int, data: bytes, *, way: Way = Way.UNKNOWN, dropped: int = 0, comments: Sequence[str] = ()
) -> bytes:
    """The block of a packet.

    Args:
        interface: the number of its interface.
        time: nanoseconds since the beginning of 1970.
        data: the whole packet.
        way: whether it came or went.
        dropped: how many before it were lost.
        comments: on it.
    """
    options: list[tuple[int, bytes]] = [*_comments(comments)] if comments else []
    if way:
        options.append((_EPB_FLAGS, way.to_bytes(4, "little")))
    if dropped:
        options.append((_EPB_DROPCOUNT, dropped.to_bytes(8, "little")))
    size = len(data)
    head = struct.pack("<IIIII", interface, time >> 32 & 0xFFFFFFFF, time & 0xFFFFFFFF, size, size)
    return _block(_ENHANCED_PACKET, head + data + bytes(-size % 4), options)


def interface_statistics(
    interface: int, time: int, *, received: int, dropped: int, comments: Sequence[str] = ()
) -> bytes:
    """The block that counts.

    Args:
        interface: the number of the interface.
        time: nanoseconds since the beginning of 1970.
        received: packets that there were.
        dropped: how many of them are not in the file, for want of resources.
        comments: on it.
    """
    options = [
        *_comments(comments),
        (_ISB_IFRECV, received.to_bytes(8, "little")),
        (_ISB_IFDROP, dropped.to_bytes(8, "little")),
    ]
    head = struct.pack("<III", interface, time >> 32 & 0xFFFFFFFF, time & 0xFFFFFFFF)
    return _block(_STATISTICS, head, options)


def _comments(comments: Sequence[str]) -> Options:
    return [(_COMMENT, comment.encode()[:0xFFFF]) for comment in comments]


def _block(kind: int, body: bytes, options: Options) -> bytes:
    parts = [body]
    for code, value in options:
        parts += [struct.pack("<HH", code, len(value)), value, bytes(-len(value) % 4)]
    if options:
        parts.append(bytes(4))  # opt_endofopt
    body = b"".join(parts)
    size = struct.pack("<I", len(body) + 12)
    return b"".join((struct.pack("<I", kind), size, body, size))


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_length: int
    name: str
    resolution: int  # the byte of if_tsresol
    offset: int  # seconds

    def nanoseconds(self, high: int, low: int) -> int:
        units, power = high << 32 | low, self.resolution & 0x7F
        per_second = 1 << power if self.resolution & 0x80 else 10**power
        return self.offset * 1_000_000_000 + units * 1_000_000_000 // per_second


class PcapngReader:
    """Takes the bytes of a file in pieces, cut anywhere, and gives its packets."""

    def __init__(self) -> None:
        self.application = ""
        """Who wrote the section read last, as that says."""
        self._held = bytearray()
        self._at = 0  # where in the file what is held begins
        self._order = "<"
        self._interfaces: list[_Interface] = []

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take some bytes, and give each packet that they complete.

        Raises:
            CaptureError: this is no block, or one is damaged.
        """
        held = self._held
        held += data
        while len(held) >= 12:
            kind, size = self._header()
            if len(held) < size:
                return
            body, end = bytes(held[8 : size - 4]), bytes(held[size - 4 : size])
            if int.from_bytes(end, "little" if self._order == "<" else "big") != size:
                raise self._wrong(f"a block of {size} bytes that ends with another length")
            try:
                record = self._take(kind, body)
            except struct.error:
                raise self._wrong(f"a block of type {kind} with {size} bytes is too short for its fields") from None
            if record is not None:
                yield record
            self._at += size
            del held[:size]

    def feed_eof(self) -> None:
        """The file has ended.

        Raises:
            CaptureError: in the midst of a block.
        """
        if self._held:
            raise self._wrong(f"the file ends in the midst of a block, after {len(self._held)} bytes of it")

    def _header(self) -> tuple[int, int]:
        """The type and the size of the next block, of which 12 bytes are there."""
        held = self._held
        if int.from_bytes(held[:4], "little") == SECTION_HEADER:  # a palindrome: the same in both orders
            magic = bytes(held[8:12])
            if magic not in (_MAGIC.to_bytes(4, "little"), _MAGIC.to_bytes(4, "big")):
                raise self._wrong(f"no section header: byte order magic {magic.hex()}")
            self._order = "<" if magic == _MAGIC.to_bytes(4, "little") else ">"
        kind, size = struct.unpack_from(f"{self._order}II", held)
        if not 12 <= size <= MAX_BLOCK or size % 4:
            raise self._wrong(f"a block of {size} bytes: 12 to {MAX_BLOCK} in steps of 4 are possible")
        return kind, size

    def _take(self, kind: int, body: bytes) -> Record | None:
        order = self._order
        if kind == SECTION_HEADER:
            _, major, _, _ = struct.unpack_from(f"{order}IHHq", body)
            if major != 1:
                raise self._wrong(f"version {major} of pcapng: version 1 is understood")
            self._interfaces = []
            self.application = _text(_first(self._options(body, 16), _SHB_USERAPPL))
        elif kind == _INTERFACE:
            link_type, _, snap_length = struct.unpack_from(f"{order}HHI", body)
            options = self._options(body, 8)
            resolution, offset = _first(options, _IF_TSRESOL), _first(options, _IF_TSOFFSET)
            seconds = struct.unpack(f"{order}q", offset)[0] if offset else 0
            self._interfaces.append(
                _Interface(
                    link_type, snap_length, _text(_first(options, _IF_NAME)), (resolution or b"\x06")[0], seconds
                )
            )
        elif kind == _ENHANCED_PACKET:
            number, high, low, size, length = struct.unpack_from(f"{order}IIIII", body)
            return self._record(self._interface(number), high, low, body, 20, size, length)
        elif kind == _OLD_PACKET:
            number, _, high, low, size, length = struct.unpack_from(f"{order}HHIIII", body)
            return self._record(self._interface(number), high, low, body, 20, size, length)
        elif kind == _SIMPLE_PACKET:
            (length,) = struct.unpack_from(f"{order}I", body)
            interface = self._interface(0)
            size = min(length, interface.snap_length or length, len(body) - 4)
            return Record(0, interface.link_type, body[4 : 4 + size], length, interface=interface.name)
        return None

    def _record(
        self, interface: _Interface, high: int, low: int, body: bytes, start: int, size: int, length: int
    ) -> Record:
        if start + size > len(body):
            raise self._wrong(f"a packet of {size} bytes in a block of {len(body) + 12}")
        flags, dropped, comments = 0, 0, []
        for code, value in self._options(body, start + size + -size % 4):
            if code == _EPB_FLAGS:
                (flags,) = struct.unpack(f"{self._order}I", value)
            elif code == _EPB_DROPCOUNT:
                (dropped,) = struct.unpack(f"{self._order}Q", value)
            elif code == _COMMENT:
                comments.append(_text(value))
        return Record(
            interface.nanoseconds(high, low),
            interface.link_type,
            body[start : start + size],
            length,
            Way(flags & 3) if flags & 3 < 3 else Way.UNKNOWN,
            interface.name,
            dropped,
            tuple(comments),
        )

    def _interface(self, number: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._wrong(f"a packet of interface {number}, where {len(self._interfaces)} are described")
        return self._interfaces[number]

    def _options(self, body: bytes, start: int) -> list[tuple[int, bytes]]:
        options = []
        while start + 4 <= len(body):
            code, size = struct.unpack_from(f"{self._order}HH", body, start)
            if code == 0:  # opt_endofopt
                break
            if start + 4 + size > len(body):
                raise self._wrong(f"option {code} of {size} bytes does not fit its block")
            options.append((code, body[start + 4 : start + 4 + size]))
            start += 4 + size + -size % 4
        return options

    def _wrong(self, what: str) -> CaptureError:
        return CaptureError(f"{what} (at byte {self._at})")


def _first(options: Options, wanted: int) -> bytes:
    return next((value for code, value in options if code == wanted), b"")


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
