"""Connections that come by a proxy: whose word is taken, and the header read before anything else."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from packetcore import Address, ProxiedAddress
from packetcore_sockets._loop import Loop
from packetcore_sockets._prelude import Prelude
from packetcore_sockets._proxy import MAX_HEADER, ProxyHeader, read_proxy_header

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

ProxyNetworks = Sequence[str | IPNetwork]
"""Networks as `ipaddress.ip_network` takes them, such as "10.0.0.0/8" or "::1"."""


class Proxies:
    """Whose word is taken: `address in proxies`. An IPv4-mapped IPv6 address counts as that IPv4 address.

    Args:
        networks: theirs.

    Raises:
        ValueError: one of them is no network, or has bits set behind its prefix; or there is none.
    """

    def __init__(self, networks: ProxyNetworks) -> None:
        if isinstance(networks, str):
            raise ValueError(f"proxy_protocol={networks!r} is one string: give a sequence of networks")
        self.networks = [*map(_network_of, networks)]
        if not self.networks:
            raise ValueError(f"proxy_protocol={networks!r} names no network: nobody could connect")

    def __contains__(self, address: Address) -> bool:
        try:
            ip = ipaddress.ip_address(address[0])
        except ValueError:  # that of a Unix socket
            return False
        known_as = (ip, ip.ipv4_mapped if ip.version == 6 else None)
        return any(each is not None and each in network for network in self.networks for each in known_as)


def _network_of(network: Any) -> IPNetwork:
    if isinstance(network, IPNetwork):
        return network
    if not isinstance(network, str):
        raise ValueError(f"proxy_protocol: {network!r} is no network, but {type(network).__name__}")
    try:
        return ipaddress.ip_network(network)
    except ValueError as error:
        raise ValueError(f"proxy_protocol: {network!r} is no network: {error}") from None


class HeaderReading(Prelude):
    """Reads the PROXY header of an accepted socket, and not one byte more.

    Args:
        loop: see `Prelude`, and so `sock` and `until`.
        peer: the proxy's address.
        done: called once, with the device's address or with what went wrong.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        peer: Address,
        done: Callable[[Address | Exception], object],
        until: float | None,
    ) -> None:
        super().__init__(loop, sock, done, until)
        self._peer = peer
        self._taken = bytearray()
        loop.set_reader(sock, self._readable)

    def _readable(self) -> None:
        if self._is_over:
            return
        try:
            header = self._read()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._fail(error)
            return
        if header is None:
            return
        if header.is_local:
            self._end(self._peer)
        else:
            proxy = replace(header.proxy, address=self._peer)
            self._end(ProxiedAddress(header.source or self._peer, proxy))

    def _read(self) -> ProxyHeader | None:
        """Look at what has come, and take what belongs to the header: what were only looked at would wake the
        loop again and again. Gives the header once nothing of it is left in the socket."""
        taken = len(self._taken)
        seen = self._sock.recv(MAX_HEADER - taken, socket.MSG_PEEK)
        if not seen:
            raise ConnectionResetError(errno.ECONNRESET, f"the peer left after {taken} bytes of its PROXY header")
        header = read_proxy_header(self._taken + seen)
        self._taken += self._sock.recv(len(seen) if header is None else header.size - taken)
        return None if header is None or len(self._taken) < header.size else header

    def _time_out(self) -> None:
        self._fail(TimeoutError(errno.ETIMEDOUT, f"{len(self._taken)} bytes of a PROXY header came within the time"))
