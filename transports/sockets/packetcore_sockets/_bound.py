"""The sockets that a server is to have: opened on its hosts, or given."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from errno import EADDRNOTAVAIL
from functools import partial

from packetcore_sockets._hosts import Hosts, check_each, hosts_of, names_of
from packetcore_sockets._inherited import Given, given_datagram_sockets, given_listeners
from packetcore_sockets._open import AddressInfo
from packetcore_sockets._outcome import addresses_of
from packetcore_sockets._runtime import Runtime


async def stream_listeners(
    runtime: Runtime, host: Hosts, port: int, family: int, backlog: int, given: Given | None
) -> list[socket.socket]:
    """Those that listen for streams."""
    if given is not None:
        _refuse_family(family)
        return given_listeners(given, host, port)
    found = await _look_up_each(runtime, host, port, family, socket.SOCK_STREAM)
    return _opened(found, lambda infos: runtime.open_tcp_listeners(infos, port, backlog))


async def datagram_sockets(
    runtime: Runtime,
    host: Hosts,
    port: int,
    family: int,
    broadcast: bool,
    multicast_group: str | None,
    given: Given | None,
) -> list[socket.socket]:
    """Those of UDP."""
    if given is not None and multicast_group is not None:
        text = f"multicast_group={multicast_group!r} is joined by a socket that is opened here: give no socket="
        raise TypeError(text)
    if given is not None:
        _refuse_family(family)
        return given_datagram_sockets(given, host, port, broadcast=broadcast)
    if multicast_group is not None and len(hosts_of(host)) > 1:
        raise ValueError(f"multicast_group={multicast_group!r} is joined on one interface: give one host, not {host!r}")
    found = await _look_up_each(runtime, host, port, family, socket.SOCK_DGRAM)
    servers = partial(runtime.open_udp_servers, port=port, broadcast=broadcast, multicast_group=multicast_group)
    return _opened(found, servers)


def _refuse_family(family: int) -> None:
    if family:
        raise TypeError(f"socket= has a family already: give no family={family}")


async def _look_up_each(
    runtime: Runtime, host: Hosts, port: int, family: int, kind: socket.SocketKind
) -> list[tuple[str, list[AddressInfo]]]:
    """The hosts to listen on and their addresses, of one family where `family` is not 0."""
    found: list[tuple[str, list[AddressInfo]]] = []
    for each in hosts_of(host):
        infos: list[AddressInfo] = []
        for name in names_of(each):
            infos += await addresses_of(runtime, name, port, kind, socket.AI_PASSIVE)
        wanted = [info for info in infos if family in (0, info[0])]
        if not wanted:
            raise OSError(EADDRNOTAVAIL, f"host {each!r} has no address of family {family}")
        found.append((each, wanted))
    return found


def _opened(
    found: list[tuple[str, list[AddressInfo]]], open_all: Callable[[list[AddressInfo]], list[socket.socket]]
) -> list[socket.socket]:
    """Sockets on each of several hosts; where one cannot be had, none."""
    sockets = open_all([info for _, infos in found for info in infos])
    if len(found) > 1:
        with given_away(sockets):
            check_each(found, sockets)
    return sockets


@contextmanager
def given_away(sockets: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Sockets that are somebody's at the end; where that fails they are closed."""
    with ExitStack() as opened:
        for sock in sockets:
            opened.enter_context(sock)
        yield sockets
        opened.pop_all()
