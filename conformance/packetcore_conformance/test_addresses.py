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


def test_where_a_name_has_several_addresses_each_is_listened_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("meters.example", b"meters.example"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        kind = kwargs.get("type") or (args[1] if len(args) > 1 else 0) or socket.SOCK_STREAM
        return [(socket.AF_INET, kind, 6, "", (address, port or 0)) for address in ("127.0.0.1", "127.0.0.2")]

    real: Any = socket.getaddrinfo
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        server = serve_on(rig, "meters.example")
    except OSError:
        assert not asked  # the runtime has a resolver of its own, for which the case above has to do
        return
    port = server.address[1]
    assert server.addresses == [("127.0.0.1", port), ("127.0.0.2", port)], "an address of the name is missing"
    for host in ("127.0.0.1", "127.0.0.2"):
        assert_answered(rig, host, port)
