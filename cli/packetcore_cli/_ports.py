"""The sockets of `packetcore serve --workers`: opened once, by the parent, which keeps them for as long as it
runs. A worker inherits its own, and so does the one that follows it: what waits in a socket's queue waits for that.

Where the system spreads what comes over sockets of one port (`SO_REUSEPORT` of Linux, by a hash of both addresses)
each worker has one of its own. Of bursts of 400 connections to two workers that shared one socket, one took up to
84 % (three tries on two cores); of two sockets up to 58 %. For UDP it is what keeps a peer with its
worker: the hash is over as many sockets as there are, and their number never changes. Elsewhere, and where a service
manager or `--fd` gives the socket, all workers accept from one."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from contextlib import ExitStack

from packetcore import Address
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._given import given_sockets
from packetcore_cli._text import address_text
from packetcore_sockets import BACKLOG, AddressInfo, open_each

SPREADS = sys.platform == "linux"
"""Whether sockets of one port are given an even part each. The BSDs' option of that name gives all to the last one."""


def sockets_of_workers(args: argparse.Namespace, hosts: list[str], opened: ExitStack) -> list[list[socket.socket]]:
    """What each worker is to serve on.

    Args:
        args: what was asked for.
        hosts: names or addresses to listen on, where no socket is given.
        opened: closes them.

    Raises:
        Failure: an address cannot be listened on, or the system cannot do it.
        WrongUsage: see `given_sockets`.
    """
    if os.name != "posix":
        raise Failure("--workers needs a system on which a process inherits sockets, and this one is none")
    number: int = args.workers
    given = given_sockets(args, opened)
    if args.udp and number > 1 and (given or not SPREADS):
        why = "sockets that are inherited do not" if given else "those of this system do not"
        raise Failure(f"--workers with --udp needs sockets that keep a peer with its worker, and {why}")
    if given:
        return [given] * number
    port = args.port or 0
    try:
        first = [opened.enter_context(sock) for sock in _open(hosts, port, args.udp, is_shared=not SPREADS)]
        if not SPREADS:
            return [first] * number
        addresses = [(sock.family, sock.getsockname()) for sock in first]
        others = [
            [opened.enter_context(_bound(family, address, args.udp)) for family, address in addresses]
            for _ in range(number - 1)
        ]
    except (OSError, UnicodeError) as error:
        wanted = ", ".join(address_text((each, port)) for each in hosts)
        raise Failure(f"cannot listen on {wanted}: {reason_of(error)}") from None
    return [first, *others]


def _open(hosts: list[str], port: int, udp: bool, *, is_shared: bool) -> list[socket.socket]:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    infos: list[AddressInfo] = []
    for host in hosts:
        # "::" is every address of both families, as it is without workers.
        for name in ["::", "0.0.0.0"] if host == "::" else [host]:
            infos += socket.getaddrinfo(name, port, type=kind, flags=socket.AI_PASSIVE)

    def bind(family: int, address: Address) -> socket.socket:
        if is_shared:
            return _bound(family, address, udp, reuse_port=False)
        # The option would share the port with whoever has it and set the option, too: see first that nobody has.
        with _bound(family, address, udp, reuse_port=False) as alone:
            address = (address[0], alone.getsockname()[1], *address[2:])
        return _bound(family, address, udp)

    return open_each(infos, port, bind)


def _bound(family: int, address: Address, udp: bool, *, reuse_port: bool = True) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if not udp:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        if not udp:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
