"""Addresses.

A name is each of its addresses, and no name is every one of this machine, all with one port; several
hosts are each of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from errno import EADDRNOTAVAIL
from pathlib import Path
from typing import Any

import pytest

from packetcore import Packet, encode
from packetcore_conformance.descriptors import are_listed, expect_at_most, open_descriptors
from packetcore_conformance.recorder import Recorder, echo
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


def serve_on(rig: Rig, host: str | Sequence[str] | None, **options: Any) -> Any:
    start: Any = rig.driver.start_server
    server = start(echo(), host, **options)
    rig._servers.append(server)
    return server


def assert_answered(rig: Rig, host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=10) as peer:
        peer.sendall(PING)
        assert peer.recv(100) == PING


@pytest.mark.parametrize("host", [None, "", "::"])
def test_no_host_means_every_address_of_both_families_with_one_port(rig: Rig, host: str | None) -> None:
    server = serve_on(rig, host)
    port = server.address[1]
    assert {address[1] for address in server.addresses} == {port}, "the families got different ports"
    for loopback in FAMILIES:
        assert_answered(rig, loopback, port)


@pytest.mark.parametrize(
    ("host", "family", "only"),
    [
        ("::", socket.AF_INET6, "::1"),
        ("", socket.AF_INET, "127.0.0.1"),
        ("0.0.0.0", 0, "127.0.0.1"),
        ("::1", 0, "::1"),
    ],
)
def test_one_family_alone_is_listened_on_where_that_is_said(rig: Rig, host: str, family: int, only: str) -> None:
    if only not in FAMILIES:
        pytest.skip("this machine has no IPv6")
    server = serve_on(rig, host, family=family)
    assert len(server.addresses) == 1
    assert_answered(rig, only, server.address[1])
    for other in {*FAMILIES} - {only}:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, server.address[1]), timeout=10)


def test_several_hosts_are_each_listened_on_with_one_port(rig: Rig) -> None:
    wanted = [*FAMILIES, "127.0.0.2"]
    server = serve_on(rig, wanted)
    port = server.address[1]
    assert [address[:2] for address in server.addresses] == [(host, port) for host in wanted]
    for host in wanted:
        assert_answered(rig, host, port)


NOT_OURS = "192.0.2.1"
"""Of a network that nobody has: RFC 5737, section 3."""


@are_listed
@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_of_several_hosts_each_has_to_be_this_machine_s(rig: Rig, udp: bool) -> None:
    if udp and "udp" not in rig.driver.capabilities():
        pytest.skip("the adapter says that it has no UDP")
    start: Callable[..., Any] = rig.driver.start_udp_server if udp else rig.driver.start_server

    def fail() -> None:
        with pytest.raises(OSError, match=NOT_OURS) as caught:
            start(Recorder(), ["127.0.0.1", NOT_OURS])
        assert caught.value.errno == EADDRNOTAVAIL

    fail()
    before = open_descriptors()
    for _ in range(10):
        fail()
    expect_at_most(before + 3, "the hosts that could be had stayed open")


def test_a_socket_that_is_given_has_a_family_already(rig: Rig) -> None:
    if "inherited" not in rig.driver.capabilities():
        pytest.skip("the adapter says that it takes no sockets")
    start: Callable[..., Any] = rig.driver.start_server
    with socket.create_server(("127.0.0.1", 0)) as given, pytest.raises(TypeError, match="family"):
        start(Recorder(), socket=given, family=socket.AF_INET6)
    start = rig.driver.start_udp_server
    with socket.socket(type=socket.SOCK_DGRAM) as given, pytest.raises(TypeError, match="family"):
        start(Recorder(), "127.0.0.1", 0, socket=given, family=socket.AF_INET6)


def link_local() -> tuple[str, str, int]:
    """An IPv6 address of this machine that needs a scope, and its interface, by name and number."""
    listed = Path("/proc/net/if_inet6")
    for line in listed.read_text().splitlines() if listed.exists() else []:
        digits, number, _, scope, flags, name = line.split()
        if int(scope, 16) == 0x20 and not int(flags, 16) & 0x40:  # of the link, and not tentative
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), name, int(number, 16)
    pytest.skip("this machine has no link-local IPv6 address")


def test_a_scope_goes_with_an_address_wherever_it_goes(rig: Rig) -> None:
    host, name, number = link_local()
    server = serve_on(rig, f"{host}%{name}")
    port = server.address[1]
    assert server.address == (host, port, 0, number)
    for scope in name, number:
        handler = Recorder()
        session = rig.driver.connect(f"{host}%{scope}", port, handler)
        rig.call(session.send, Packet(1, b"ping"))
        assert handler.wait("packet_received") == [Packet(1, b"ping")]
        peer_host, *rest = rig.call(lambda session=session: session.peer)
        assert peer_host.partition("%")[0] == host
        assert rest == [port, 0, number]
        rig.call(session.abort)


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
@pytest.mark.parametrize("host", [None, "", "::"])
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
def test_over_udp_several_hosts_are_each_heard_on_with_one_port(rig: Rig) -> None:
    handler = echo()
    server = rig.serve_udp(handler, host=FAMILIES)
    port = server.address[1]
    assert [address[:2] for address in server.addresses] == [(host, port) for host in FAMILIES]
    for address in server.addresses:
        peer = rig.udp_peer(address)
        peer.send(PING)
        assert peer.receive() == PING


@pytest.mark.usefixtures("needs_udp")
def test_over_udp_a_group_is_joined_on_one_interface_and_not_on_several(rig: Rig) -> None:
    with pytest.raises(ValueError, match=r"239\.1\.2\.3.*one host"):
        rig.serve_udp(echo(), host=["127.0.0.1", "127.0.0.2"], multicast_group="239.1.2.3")


@pytest.mark.usefixtures("needs_udp")
def test_over_udp_a_server_that_closes_gives_every_address_back(rig: Rig) -> None:
    server = rig.serve_udp(echo(), host=None)
    port = server.address[1]
    rig.call(server.close, 0)
    again = rig.serve_udp(echo(), host=None, port=port)
    assert again.addresses == server.addresses
