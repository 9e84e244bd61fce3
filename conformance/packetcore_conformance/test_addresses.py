"""Addresses.

A name is each of its addresses, and no name is every one of this machine, all with one port.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest

from packetcore import Packet, encode
from packetcore_conformance.recorder import echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


def has(family: int, host: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


FAMILIES = [host for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")) if has(family, host)]
"""The loopback addresses that this machine has."""


def serve_on(rig: Rig, host: str | None) -> Any:
    start: Any = rig.driver.start_server
    server = start(echo(), host)
    rig._servers.append(server)
    return server


def assert_answered(rig: Rig, host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=10) as peer:
        peer.sendall(PING)
        assert peer.recv(100) == PING


@pytest.mark.parametrize("host", [None, ""])
def test_no_host_means_every_address_of_both_families_with_one_port(rig: Rig, host: str | None) -> None:
    server = serve_on(rig, host)
    port = server.address[1]
    assert {address[1] for address in server.addresses} == {port}, "the families got different ports"
    for loopback in FAMILIES:
        assert_answered(rig, loopback, port)


def test_a_name_means_each_of_its_addresses_with_one_port(rig: Rig) -> None:
    infos = socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
    hosts = {str(info[4][0]) for info in infos} & set(FAMILIES)
    server = serve_on(rig, "localhost")
    assert {address[0] for address in server.addresses} == hosts, "not each of the name's addresses is listened on"
    for host in hosts:
        assert_answered(rig, host, server.address[1])


NAME = "meters.example"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Have a name with two addresses. A runtime whose resolver is its own asks for none here; the
    cases without a host have to do for it."""

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return real(host, port, *args, **kwargs)
        names.append(host)
        kind = kwargs.get("type") or (args[1] if len(args) > 1 else 0) or socket.SOCK_STREAM
        return [(socket.AF_INET, kind, 0, "", (address, port or 0)) for address in ("127.0.0.1", "127.0.0.2")]

    real: Any = socket.getaddrinfo
    names: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return names


def test_where_a_name_has_several_addresses_each_is_listened_on(rig: Rig, asked: list[object]) -> None:
    try:
        server = serve_on(rig, NAME)
    except OSError:
        assert not asked
        return
    port = server.address[1]
    assert server.addresses == [("127.0.0.1", port), ("127.0.0.2", port)], "an address of the name is missing"
    for host in ("127.0.0.1", "127.0.0.2"):
        assert_answered(rig, host, port)


@pytest.mark.usefixtures("needs_udp")
@pytest.mark.parametrize("host", [None, ""])
def test_over_udp_no_host_means_every_address_of_both_families_with_one_port(rig: Rig, host: str | None) -> None:
    handler = echo()
    server = rig.serve_udp(handler, host=host)
    (port,) = {address[1] for address in server.addresses}
    for loopback in FAMILIES:
        peer = rig.udp_peer((loopback, port))
        peer.send(PING)
        assert peer.receive() == PING
        session = handler.sessions[-1]
        assert session.peer == peer.address, "the peer's address is not in its own form"
        carrier = rig.call(lambda session=session: session.carrier)
        assert carrier.family == peer.sock.family
        assert carrier.local in server.addresses


@pytest.mark.usefixtures("needs_udp")
def test_over_udp_replies_leave_from_the_address_that_the_peer_has_written_to(rig: Rig, asked: list[object]) -> None:
    handler = echo()
    try:
        server = rig.serve_udp(handler, host=NAME)
    except OSError:
        assert not asked
        return
    port = server.address[1]
    assert server.addresses == [("127.0.0.1", port), ("127.0.0.2", port)], "an address of the name is missing"
    peer = rig.udp_peer()
    for address in [*server.addresses, *server.addresses]:
        peer.send_to(PING, address)
        assert peer.receive_from() == (PING, address), "the reply came from another address than was asked"
    assert len(handler.calls("connected")) == 1, "a peer is its address, whichever of the server's it writes to"


@pytest.mark.usefixtures("needs_udp")
def test_over_udp_a_server_that_closes_gives_every_address_back(rig: Rig) -> None:
    server = rig.serve_udp(echo(), host=None)
    port = server.address[1]
    rig.call(server.close, 0)
    again = rig.serve_udp(echo(), host=None, port=port)
    assert again.addresses == server.addresses
