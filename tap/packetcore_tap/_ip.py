"""IPv4, IPv6, TCP and UDP headers: made for what had none or other ones, and read.

RFC 791, RFC 8200, RFC 9293 and RFC 768. No fragments, and of IPv6's extension headers those that lengths tell
how to skip.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

TCP, UDP = 6, 17
"""Protocol numbers (IANA)."""

MAX_SEGMENT = 65_535 - 20 - 20
"""The most bytes of one TCP segment over IPv4: what the length in its header can say, less the headers."""

_FRAGMENT = 44  # IPv6
_SKIPPED = (0, 43, 60)  # hop-by-hop options, routing, destination options


class Flag(enum.IntFlag):
    """Control bits of TCP (RFC 9293, section 3.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10


NO_FLAGS = Flag(0)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a conversation."""

    address: IPAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Segment:
    """What one IP packet carries."""

    protocol: int
    """`TCP` or `UDP`."""

    source: End
    destination: End

    payload: bytes
    """As far as it was captured."""

    missing: int = 0
    """How many bytes of the payload were not."""

    sequence: int = 0
    """Of TCP: the number of the first byte, or of SYN."""

    acknowledgement: int = 0
    """Of TCP: the number of the byte that it expects next."""

    flags: Flag = NO_FLAGS
    """Of TCP."""


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): the ones' complement of the sum of all words, of which 2**16 counts
    as 1. A sum is its remainder by 65,535 so."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def tcp_packet(
    source: End,
    destination: End,
    payload: bytes,
    *,
    sequence: int,
    acknowledgement: int,
    flags: Flag,
    options: bytes = b"",
) -> bytes:
    """One segment over IP, with a window of 65,535. `options` fill words of four bytes."""
    size = 5 + len(options) // 4
    head = struct.pack(
        "!HHIIBBHHH",
        source.port,
        destination.port,
        sequence & 0xFFFFFFFF,
        acknowledgement & 0xFFFFFFFF,
        size << 4,
        flags,
        0xFFFF,
        0,
        0,
    )
    segment = head + options + payload
    sum_of_it = checksum(_pseudo_header(source, destination, TCP, len(segment)) + segment)
    return (
        _ip_header(source, destination, TCP, len(segment)) + segment[:16] + sum_of_it.to_bytes(2, "big") + segment[18:]
    )


def udp_packet(source: End, destination: End, payload: bytes) -> bytes:
    """One datagram over IP."""
    size = 8 + len(payload)
    head = struct.pack("!HHH", source.port, destination.port, size)
    sum_of_it = checksum(_pseudo_header(source, destination, UDP, size) + head + b"\0\0" + payload) or 0xFFFF
    return _ip_header(source, destination, UDP, size) + head + sum_of_it.to_bytes(2, "big") + payload


def _pseudo_header(source: End, destination: End, protocol: int, size: int) -> bytes:
    words = struct.pack("!II", size, protocol)  # as of IPv6; the sum is that of IPv4's
    return source.address.packed + destination.address.packed + words


def _ip_header(source: End, destination: End, protocol: int, size: int) -> bytes:
    addresses = source.address.packed + destination.address.packed
    if source.address.version == 6:
        return struct.pack("!IHBB", 6 << 28, size, protocol, 64) + addresses
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, protocol, 0)  # not to be cut up
    return head[:10] + checksum(head + addresses).to_bytes(2, "big") + addresses


def read_packet(data: bytes, length: int) -> Segment | None:
    """What an IP packet carries.

    Args:
        data: the packet, as far as it was captured.
        length: how long it was.

    Returns:
        `None` of what is neither TCP nor UDP, is a fragment or is not whole up to its payload.
    """
    try:
        version = data[0] >> 4
        if version == 4:
            return _read_ipv4(data, length)
        return _read_ipv6(data, length) if version == 6 else None
    except (IndexError, ValueError, struct.error):  # it ends before that
        return None


def _read_ipv4(data: bytes, length: int) -> Segment | None:
    total, fragment, protocol = struct.unpack_from("!2xH2xHxB", data)
    start = (data[0] & 0xF) * 4
    if fragment & 0x3FFF or start < 20:  # more are to come, or an offset
        return None
    source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
    end = total or length  # 0 where the network card cut it into segments itself
    return _read_payload(protocol, source, destination, data[start:end], end - start)


def _read_ipv6(data: bytes, length: int) -> Segment | None:
    size, following = struct.unpack_from("!4xHB", data)
    source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    start, end = 40, 40 + size if size else length
    while following in _SKIPPED:
        following, words = data[start], data[start + 1]
        start += 8 * (words + 1)
    if following == _FRAGMENT:
        return None
    return _read_payload(following, source, destination, data[start:end], end - start)


def _read_payload(protocol: int, source: IPAddress, destination: IPAddress, data: bytes, size: int) -> Segment | None:
    if protocol == UDP:
        of, to, said = struct.unpack_from("!HHHxx", data)
        if said >= 8:
            data, size = data[:said], min(said, size)
        return Segment(UDP, End(source, of), End(destination, to), data[8:], max(0, size - len(data)))
    if protocol == TCP:
        of, to, sequence, acknowledged, words, flags = struct.unpack_from("!HHIIBBxxxxxx", data)
        start = (words >> 4) * 4
        if start < 20 or start > len(data):
            return None
        ends = End(source, of), End(destination, to)
        missing = max(0, size - len(data))
        return Segment(TCP, *ends, data[start:], missing, sequence, acknowledged, Flag(flags & 0x1F))
    return None
