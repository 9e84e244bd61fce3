"""Opening sockets: each address of a host, and for UDP broadcast and multicast."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from typing import TypeVar

from packetcore import Address

AddressInfo = tuple[int, int, int, str, Address]
"""One of what `socket.getaddrinfo` gives: family, type, protocol, name, address."""

S = TypeVar("S")

PORTS_TRIED = 10
"""Free ports of a first address that are tried on the others."""

# Numbers of Linux that the socket module of older Pythons does not name.
_IP_RECVERR = (socket.IPPROTO_IP, 11)
_IPV6_RECVERR = (socket.IPPROTO_IPV6, 25)
_IP_MULTICAST_ALL = (socket.IPPROTO_IP, 49)
_IPV6_MULTICAST_ALL = (socket.IPPROTO_IPV6, 29)


def open_each(
    infos: Sequence[AddressInfo], port: int, bind: Callable[[int, Address], socket.socket]
) -> list[socket.socket]:
    """Open a socket for every address of a host that this machine has, all with one port: where a
    free one of the first address is taken on another, with the next free one.

    Args:
        infos: the addresses, as `getaddrinfo` gives them.
        port: 0 takes a free one.
        bind: opens one socket, of a family and on an address.

    Raises:
        OSError: an address is in use, or none is this machine's.
    """
    addresses = list(dict.fromkeys((family, address) for family, *_, address in infos))  # some systems repeat them
    for _ in range(PORTS_TRIED if port == 0 else 0):
        try:
            return _open_all(addresses, port, bind)
        except OSError as error:
            if error.errno != EADDRINUSE:
                raise
    return _open_all(addresses, port, bind)


def open_udp_servers(
    infos: Sequence[AddressInfo], port: int, *, broadcast: bool = False, multicast_group: str | None = None
) -> list[socket.socket]:
    """Open the sockets of a server: one for every address of a host that this machine has, all
    with one port, or one for a multicast group.

    Args:
        infos: the addresses, as `getaddrinfo` gives them. With a `multicast_group` the first
            names the interface on which to join it.
        port: 0 takes a free one.
        broadcast: let them send to broadcast addresses too.
        multicast_group: the address of a group to join; of an IPv6 group the interface is
            that of its scope, as in "ff02::1%eth0".

    Raises:
        OSError: an address is in use, none is this machine's, or the group cannot be joined.
        ValueError: `multicast_group` is no multicast address.
    """
    if multicast_group is not None:
        return [_join((infos[0][4][0], port), multicast_group, broadcast)]

    def bind(family: int, address: Address) -> socket.socket:
        with _opening(family, broadcast, f"binding to {_text(address)}") as sock:
            if family == socket.AF_INET6:  # IPv4 has a socket of its own, and addresses in its own form
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
        return sock

    return open_each(infos, port, bind)


def open_udp_client(
    infos: Sequence[AddressInfo], *, broadcast: bool = False, local_host: str | None = None
) -> tuple[socket.socket, Address, bool]:
    """Open a socket that sends to one address.

    It is connected, and hears only that peer, unless replies come from elsewhere: to what was
    sent to a multicast group, or with `broadcast`.

    Args:
        infos: where to, as `getaddrinfo` gives it; the first that works is taken.
        broadcast: allow a broadcast address.
        local_host: the address to send from, and no name, which might have to be looked up; for
            an IPv4 group its interface too.

    Returns:
        The socket, the peer's address, and whether it is connected.

    Raises:
        OSError: there is no way to the address, or `local_host` is not this machine's.
    """

    def connect(info: AddressInfo) -> tuple[socket.socket, Address, bool]:
        if not info[4][1]:
            raise OSError(EADDRNOTAVAIL, f"{_text(info[4])} is nobody's address")
        is_group = ipaddress.ip_address(info[4][0].partition("%")[0]).is_multicast
        with _opening(info[0], broadcast, f"connecting to {_text(info[4])} over UDP") as sock:
            if local_host is not None:
                sock.bind(_numeric(info[0], local_host))
            if is_group and info[0] == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, info[4][3])
            elif is_group and local_host is not None:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(local_host))
            if is_group or broadcast:
                return sock, info[4], False
            sock.connect(info[4])
            return sock, sock.getpeername(), True

    return _first(infos, connect)


def keep_errors(sock: socket.socket) -> None:
    """Have Linux keep for each error of a UDP socket the address that it is about."""
    _set_on_linux(sock, _IP_RECVERR, 1)
    if sock.family == socket.AF_INET6:
        _set_on_linux(sock, _IPV6_RECVERR, 1)


def _open_all(
    addresses: Sequence[tuple[int, Address]], port: int, bind: Callable[[int, Address], socket.socket]
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    refusal = OSError("the host has no address")
    with ExitStack() as opened:
        for family, address in addresses:
            try:
                sock = opened.enter_context(bind(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in (EADDRNOTAVAIL, EAFNOSUPPORT):  # as where there is no IPv6
                    raise
                refusal = error
            else:
                sockets.append(sock)
                port = sock.getsockname()[1]
        if not sockets:
            raise refusal
        opened.pop_all()
    return sockets


def _numeric(family: int, host: str) -> Address:
    """Any port of an address."""
    infos = socket.getaddrinfo(host, 0, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    address: Address = infos[0][4]
    return address


def _join(local: Address, multicast_group: str, broadcast: bool) -> socket.socket:
    try:
        info: AddressInfo = socket.getaddrinfo(
            multicast_group, local[1], type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        is_group = ipaddress.ip_address(multicast_group.partition("%")[0]).is_multicast
    except (OSError, ValueError):
        is_group = False
    if not is_group:
        raise ValueError(f"multicast_group={multicast_group!r} is no multicast address")
    family, *_, group = info
    interface = "0.0.0.0" if local[0] == "::" else local[0]  # every address means the system's choice
    with _opening(family, broadcast, f"joining {multicast_group} on {_text(local)}") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # groups are for many receivers
        sock.bind(("", local[1]))  # not to one address: what comes bears the group's
        if family == socket.AF_INET:
            membership = socket.inet_aton(group[0]) + socket.inet_aton(interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            _set_on_linux(sock, _IP_MULTICAST_ALL, 0)  # only the groups joined here
        else:
            membership = socket.inet_pton(family, group[0].partition("%")[0]) + struct.pack("@I", group[3])
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            _set_on_linux(sock, _IPV6_MULTICAST_ALL, 0)
    return sock


@contextmanager
def _opening(family: int, broadcast: bool, what: str) -> Iterator[socket.socket]:
    """A socket to make ready; where that fails it is closed, and the error says what failed."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        keep_errors(sock)
        yield sock
    except BaseException as error:
        sock.close()
        if not isinstance(error, OSError):
            raise
        hint = "; a broadcast address needs broadcast=True" if isinstance(error, PermissionError) else ""
        raise _explained(error, what, hint) from None


def _set_on_linux(sock: socket.socket, option: tuple[int, int], value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            sock.setsockopt(*option, value)


def _first(infos: Sequence[AddressInfo], attempt: Callable[[AddressInfo], S]) -> S:
    """What the first attempt gives that does not fail; what the last one raises."""
    for info in infos[:-1]:
        with suppress(OSError):
            return attempt(info)
    return attempt(infos[-1])


def _explained(error: OSError, what: str, hint: str = "") -> OSError:
    if error.errno is None or error.strerror is None:
        return OSError(f"{what}: {error}")
    return OSError(error.errno, f"{what}: {error.strerror}{hint}")


def _text(address: Address) -> str:
    return f"{address[0]} port {address[1]}"
