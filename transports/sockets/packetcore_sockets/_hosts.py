"""Which hosts a server listens on, what is looked up for each, and which numbers are ports."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from errno import EADDRNOTAVAIL

from packetcore_sockets._open import AddressInfo

Hosts = str | Sequence[str] | None
"""A name or an address, or several; `None` or "" for every address of this machine."""

MAX_PORT = 0xFFFF
"""Ports have 16 bits (RFC 9293, section 3.1; RFC 768)."""


def hosts_of(host: Hosts) -> list[str]:
    """The hosts one by one, "" for every address.

    Raises:
        TypeError: something is no host.
        ValueError: there is none.
    """
    hosts = [host or ""] if host is None or isinstance(host, str) else [*host]
    if not hosts:
        raise ValueError(f"host={host!r} has no host")
    for each in hosts:
        if not isinstance(each, str):
            raise TypeError(f"host={host!r}: {each!r} is no name and no address")
    return hosts


def check_port(port: object) -> None:
    """See that this is the number of a port: a system's look-up may take the lowest 16 bits of any for it.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range.
    """
    if not isinstance(port, int):
        raise TypeError(f"port={port!r} is no number")
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"port={port} is out of range 0 to {MAX_PORT}")


def names_of(host: str) -> list[str | None]:
    """What to look up for one host. "::" is every address of both families, as "" is, and not left to what the
    system thinks of IPv4 on a socket of IPv6; "0.0.0.0" is IPv4 alone."""
    with suppress(OSError, ValueError):
        if not any(socket.inet_pton(socket.AF_INET6, host)):
            return [host, "0.0.0.0"]
    return [host or None]


def check_each(found: Sequence[tuple[str, Sequence[AddressInfo]]], sockets: Sequence[socket.socket]) -> None:
    """See that each of several hosts is listened on: of one host, addresses that are not this machine's
    are left out, but a host that has no other was asked for in vain.

    Args:
        found: the hosts with their addresses.
        sockets: what was opened for all of them.

    Raises:
        OSError: one is not (`EADDRNOTAVAIL`).
    """
    bound = {(int(sock.family), _bare(sock.getsockname()[0])) for sock in sockets}
    for host, infos in found:
        if not any((int(family), _bare(address[0])) in bound for family, *_, address in infos):
            raise OSError(EADDRNOTAVAIL, f"host {host!r} has no address that is this machine's")


def _bare(address: str) -> str:
    return address.partition("%")[0]
