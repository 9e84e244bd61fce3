"""What a socket says of itself and of its peer."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any

from packetcore import Address, Carrier, Credentials, TLSInfo

_SO_PEERCRED = getattr(socket, "SO_PEERCRED", None)  # of Linux
_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7)


def address_of(sock: socket.socket) -> Address:
    """The address that a socket is bound to; of a Unix socket its path, "" if it has none."""
    return as_address(sock.getsockname())


def as_address(name: Any) -> Address:
    """An address as the system gives it, that of a Unix socket included."""
    return name if isinstance(name, tuple) else (os.fsdecode(name),)


def scoped_host(address: Address) -> str:
    """The host of an IP address; of IPv6 with its scope where it has one, as in "fe80::1%2" (RFC 4007,
    section 11)."""
    host = str(address[0])
    return f"{host}%{address[3]}" if len(address) == 4 and address[3] and "%" not in host else host


def address_text(address: Address) -> str:
    """An address for people: "HOST port PORT", or a path."""
    return f"{scoped_host(address)} port {address[1]}" if len(address) > 1 else str(address[0] or "a Unix socket")


def carrier_of(sock: Any, tls: TLSInfo | None = None) -> Carrier:
    """What carries the session of a connected stream socket.

    Args:
        sock: a socket, or what a runtime gives in the place of one.
        tls: what TLS agreed on.
    """
    if int(sock.family) == getattr(socket, "AF_UNIX", None):
        kind, credentials = "unix", _credentials_of(sock)
    else:
        kind, credentials = "tcp", None
    try:
        return Carrier(kind, address_of(sock), int(sock.family), tls, credentials)
    except OSError:  # it has gone
        return Carrier(kind, tls=tls)


def _credentials_of(sock: Any) -> Credentials | None:
    if _SO_PEERCRED is None:
        return None
    with suppress(OSError):
        return Credentials(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _CREDENTIALS.size)))
    return None
