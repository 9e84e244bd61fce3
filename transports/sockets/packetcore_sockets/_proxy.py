"""The header of the PROXY protocol, by which a proxy tells whose connection it hands on: HAProxy's "The PROXY
protocol, versions 1 & 2", sections 2.1 and 2.2. Bytes in, a value out; no socket."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack_from
from typing import Any

from packetcore import Address, ProxyInfo

MAX_LINE = 107
"""Bytes: the longest header of version 1, the end of its line included."""

MAX_BLOCK = 4096
"""The most bytes that are taken behind the first 16 of version 2. The specification bounds them by 65,535 alone;
what proxies send is some hundred, or a client certificate more."""

MAX_HEADER = 16 + MAX_BLOCK
"""Bytes: no header that is taken is longer."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_WORD = b"PROXY "
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")

_LOCAL, _PROXY = 0x20, 0x21  # version 2 and its commands
_ADDRESS_SIZES = {0: 0, 1: 12, 2: 36, 3: 216}  # by family: unspecified, IPv4, IPv6, Unix
_TRANSPORTS = (0, 1, 2)  # unspecified, stream, datagram

_ALPN, _AUTHORITY, _CRC32C, _NOOP, _UNIQUE_ID, _SSL = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20
_SSL_VERSION, _SSL_COMMON_NAME, _SSL_CIPHER = 0x21, 0x22, 0x23
_SHOWED_CERTIFICATE = 0x02 | 0x04  # over this connection, or over the TLS session that it resumed
_MAX_UNIQUE_ID = 128


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says."""

    size: int
    """How many bytes it takes; what follows is the device's."""

    version: int
    """1 or 2."""

    is_local: bool = False
    """Whether the proxy speaks for itself, as in a health check (LOCAL): there is nothing else to know then."""

    source: Address | None = None
    """The device's address as a socket would give it; `None` where the connection's own counts: it is LOCAL, or
    the proxy does not know (UNKNOWN, UNSPEC)."""

    proxy: ProxyInfo = ProxyInfo()  # noqa: RUF009  # frozen
    """What else it tells, without the proxy's own address."""


def read_proxy_header(data: bytes | bytearray) -> ProxyHeader | None:
    """Read the header of version 1 or 2 that a stream begins with.

    Args:
        data: the stream from its first byte on, as much as has come; what follows the header may be there.

    Returns:
        `None` if the header goes on behind `data`: then all of `data` belongs to it.

    Raises:
        ValueError: there is none, or one that the specification forbids, or longer than `MAX_HEADER` bytes;
            the message says what, the value and the limit. It is told with the first byte that shows it.
    """
    if _begins(data, _WORD):
        return _read_line(data)
    if _begins(data, _SIGNATURE):
        return _read_binary(data)
    raise ValueError(f"no PROXY header: it begins with {bytes(data[:12])!r}")


def _begins(data: bytes | bytearray, word: bytes) -> bool:
    return data[: len(word)] == word[: len(data)]


# Version 1.


def _read_line(data: bytes | bytearray) -> ProxyHeader | None:
    end = data.find(b"\n", 0, MAX_LINE) + 1
    if not end:
        if len(data) >= MAX_LINE:
            raise ValueError(f"a PROXY line without an end in its first {MAX_LINE} bytes: {bytes(data[:MAX_LINE])!r}")
        return None
    line = bytes(data[:end])
    if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
        raise ValueError(f"a PROXY line that a lone CR or LF ends, in place of CR LF: {line!r}")
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(end, 1)
    if words[1] not in (b"TCP4", b"TCP6"):
        raise ValueError(f"a PROXY line of {words[1]!r}: it must be TCP4, TCP6 or UNKNOWN")
    if len(words) != 6:
        raise ValueError(f"a PROXY line of {len(words)} words, not 6: {line!r}")
    source, destination = (_address_of(words[1], *words[at::2]) for at in (2, 3))
    return ProxyHeader(end, 1, source=source, proxy=ProxyInfo(destination=destination))


def _address_of(family: bytes, host: bytes, port: bytes) -> Address:
    try:
        text = host.decode("ascii")
        if "%" in text:  # a scope, which is this machine's own business
            raise ValueError
        ip = ipaddress.IPv4Address(text) if family == b"TCP4" else ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError(f"a PROXY line of {family.decode()} with {host!r} for an address") from None
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"a PROXY line with {port!r} for a port: it must be 0 to 65535")
    return _as_of_socket(ip, int(port))


def _as_of_socket(ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> Address:
    if ip.version == 4:
        return str(ip), port
    # The other form of the same would be another host: some versions of Python write one, some the other.
    return str(ip) if ip.ipv4_mapped is None else f"::ffff:{ip.ipv4_mapped}", port, 0, 0


# Version 2.


def _read_binary(data: bytes | bytearray) -> ProxyHeader | None:
    """See section 2.2. What can be judged before all has come is."""
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise ValueError(f"a PROXY header of version and command 0x{data[12]:02x}: it must be 0x20 or 0x21")
    if len(data) < 16:
        return None
    is_local = data[12] == _LOCAL
    family, transport, length = data[13] >> 4, data[13] & 15, data[14] << 8 | data[15]
    if length > MAX_BLOCK:
        raise ValueError(f"a PROXY header of 16 and {length} bytes: at most {MAX_BLOCK} are taken behind the first 16")
    size = 16 + length
    if is_local:
        return ProxyHeader(size, 2, is_local=True) if len(data) >= size else None
    if family not in _ADDRESS_SIZES or transport not in _TRANSPORTS:
        raise ValueError(f"a PROXY header of family and transport 0x{data[13]:02x}, which no version has")
    addresses = _ADDRESS_SIZES[family]
    if length < addresses:
        raise ValueError(f"a PROXY header of {length} bytes behind its first 16: its addresses alone take {addresses}")
    if len(data) < size:
        return None
    header = bytes(data[:size])
    is_known = bool(family and transport)
    try:
        vectors = [*_vectors(header, 16 + addresses, size)]
    except ValueError:
        if is_known:
            raise
        vectors = []  # what stands in a block without a family is the proxy's affair
    source, destination = _addresses_of(family, header) if is_known else (None, None)
    return ProxyHeader(size, 2, source=source, proxy=ProxyInfo(destination=destination, **_told(header, vectors)))


def _addresses_of(family: int, header: bytes) -> tuple[Address, Address]:
    if family == 3:
        return _path_of(header[16:124]), _path_of(header[124:232])
    if family == 1:
        v4 = [ipaddress.IPv4Address(header[at : at + 4]) for at in (16, 20)]
        ports = unpack_from("!2H", header, 24)
        return _as_of_socket(v4[0], ports[0]), _as_of_socket(v4[1], ports[1])
    v6 = [ipaddress.IPv6Address(header[at : at + 16]) for at in (16, 32)]
    ports = unpack_from("!2H", header, 48)
    return _as_of_socket(v6[0], ports[0]), _as_of_socket(v6[1], ports[1])


def _path_of(field: bytes) -> Address:
    name = field.rstrip(b"\0") if field[0] == 0 else field.partition(b"\0")[0]  # Linux: a name that is no file
    return (name.decode("utf-8", "surrogateescape"),)


Vector = tuple[int, int, bytes]
"""A type, where in the header its value begins, and the value."""


def _vectors(header: bytes, at: int, end: int) -> Iterator[Vector]:
    """The TLVs of a part of a header."""
    while at < end:
        if end - at < 3:
            raise ValueError(f"a PROXY header with a TLV of {end - at} bytes: it takes at least 3")
        kind, length = unpack_from("!BH", header, at)
        at += 3
        if length > end - at:
            raise ValueError(f"a PROXY header with TLV 0x{kind:02x} of {length} bytes where {end - at} are left")
        yield kind, at, header[at : at + length]
        at += length


def _told(header: bytes, vectors: list[Vector]) -> dict[str, Any]:
    """What TLVs tell, by the fields of `ProxyInfo`."""
    fields: dict[str, Any] = {}
    other: list[tuple[int, bytes]] = []
    for kind, at, value in _once(vectors, _ALPN, _AUTHORITY, _CRC32C, _UNIQUE_ID, _SSL):
        if kind == _CRC32C:
            _check(header, at, value)
        elif kind == _UNIQUE_ID:
            if len(value) > _MAX_UNIQUE_ID:
                raise ValueError(f"a PROXY header with a unique id of {len(value)} bytes: at most {_MAX_UNIQUE_ID}")
            fields["unique_id"] = value
        elif kind in (_ALPN, _AUTHORITY):
            fields["alpn" if kind == _ALPN else "authority"] = _text(kind, value)
        elif kind == _SSL:
            told, more = _told_of_ssl(header, at, value)
            fields |= told
            other += more
        elif kind != _NOOP:
            other.append((kind, value))
    return fields | {"other": tuple(other)}


def _told_of_ssl(header: bytes, at: int, value: bytes) -> tuple[dict[str, Any], list[tuple[int, bytes]]]:
    if len(value) < 5:
        raise ValueError(f"a PROXY header with TLV 0x{_SSL:02x} of {len(value)} bytes: it takes at least 5")
    flags, verify = unpack_from("!BI", value)
    is_verified = verify == 0 and bool(flags & _SHOWED_CERTIFICATE)
    fields: dict[str, Any] = {"is_verified": is_verified}
    other: list[tuple[int, bytes]] = []
    names = {_SSL_VERSION: "tls", _SSL_CIPHER: "cipher", _SSL_COMMON_NAME: "common_name"}
    for kind, _, inner in _once([*_vectors(header, at + 5, at + len(value))], *names):
        if kind not in names:
            other.append((kind, inner))
        elif kind != _SSL_COMMON_NAME or is_verified:
            fields[names[kind]] = _text(kind, inner)
    return fields, other


def _once(vectors: list[Vector], *kinds: int) -> Iterator[Vector]:
    """The same, of which some types may be there once: which of two counts nobody says."""
    seen: set[int] = set()
    for vector in vectors:
        if vector[0] in seen and vector[0] in kinds:
            raise ValueError(f"a PROXY header with TLV 0x{vector[0]:02x} twice")
        seen.add(vector[0])
        yield vector


def _text(kind: int, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"a PROXY header with {value[:64]!r} for the text of TLV 0x{kind:02x}, not UTF-8") from None


def _check(header: bytes, at: int, value: bytes) -> None:
    if len(value) != 4:
        raise ValueError(f"a PROXY header with a checksum of {len(value)} bytes, not 4")
    said, counted = int.from_bytes(value, "big"), crc32c(header[:at] + bytes(4) + header[at + 4 :])
    if said != counted:
        raise ValueError(f"a PROXY header whose checksum is 0x{said:08x} where its bytes have 0x{counted:08x}")


def _crc32c_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC32C_OF = [_crc32c_of(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """The CRC-32C of RFC 4960, appendix B, as a number; CRC-32/ISCSI in catalogues."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C_OF[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
