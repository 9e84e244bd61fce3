"""`read_proxy_header`: a header is what it is however much of it, or of what follows, has come."""

from __future__ import annotations

import ipaddress

from packetcore_sockets import ProxyHeader, read_proxy_header
from packetcore_sockets._proxy import MAX_HEADER, MAX_LINE


def fuzz(data: bytes) -> None:
    """The bytes are the beginning of a stream."""
    given = _read(data)
    if isinstance(given, str):
        assert 10 < len(given) < 1000
    if isinstance(given, ProxyHeader):
        _is_plausible(given)
        assert given.size <= len(data)
        assert _read(data[: given.size]) == given
    elif given is None:
        assert len(data) < MAX_HEADER
    for more in (b"\0", b"\r\n", data):
        later = _read(data + more)
        if isinstance(given, ProxyHeader):
            assert later == given
        elif isinstance(given, str):
            assert isinstance(later, str)
    _goes_on_until_it_ends(data, given)


def _goes_on_until_it_ends(data: bytes, given: ProxyHeader | str | None) -> None:
    """A part of a header goes on; where one byte shows that it is none, so do all after it."""
    sizes = {*range(min(len(data), 20)), len(data) // 2, len(data) - 2, len(data) - 1}
    if isinstance(given, ProxyHeader):
        sizes |= {given.size - 1, given.size // 2}
    refused = False
    for size in sorted(size for size in sizes if 0 <= size < len(data)):
        part = _read(data[:size])
        if isinstance(given, ProxyHeader):
            assert part == (given if size >= given.size else None)
        elif given is None:
            assert part is None
        else:
            assert isinstance(part, str) or not refused
            assert not isinstance(part, ProxyHeader)
            refused = isinstance(part, str)


def _is_plausible(header: ProxyHeader) -> None:
    assert header.size <= (MAX_LINE if header.version == 1 else MAX_HEADER)
    if header.is_local:
        assert header.source is None
    for address in (header.source, header.proxy.destination):
        if address is not None and len(address) > 1:
            ipaddress.ip_address(address[0])
            assert 0 <= address[1] <= 0xFFFF


def _read(data: bytes) -> ProxyHeader | str | None:
    """What it is, or what is wrong with it."""
    try:
        given = read_proxy_header(data)
        assert read_proxy_header(bytearray(data)) == given
    except ValueError as error:
        return str(error)
    return given
