"""Inherited sockets.

A server on sockets that somebody else opened, and what is no such socket.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packetcore import Config, Driver, Packet, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


@pytest.fixture(autouse=True)
def needs_inherited_sockets(driver: Driver) -> None:
    if "inherited" not in driver.capabilities():
        pytest.skip("the adapter says that it takes no sockets that others opened")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a case opened and did not give away."""
    with ExitStack() as stack:
        yield stack


def listener(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def is_echoed(peer: Peer | DatagramPeer) -> bool:
    peer.send(PING)
    return (peer.receive(len(PING)) if isinstance(peer, Peer) else peer.receive()) == PING


def test_a_server_serves_on_a_socket_that_it_is_given_and_closes_it(rig: Rig) -> None:
    given = listener()
    address = given.getsockname()
    server = rig.serve(echo(), socket=given)
    assert server.addresses == [address]
    waiting = Peer.connect(address)  # of a socket that listens long before anybody serves
    assert is_echoed(waiting)
    waiting.close()
    rig.call(server.close, 0)
    assert given.fileno() < 0, "the server did not close its socket"
    with pytest.raises(ConnectionRefusedError):
        Peer.connect(address)


def test_who_connected_before_is_served_then(rig: Rig) -> None:
    given = listener()
    early = Peer.connect(given.getsockname())
    early.send(PING)
    rig.serve(echo(), socket=given)
    assert early.receive(len(PING)) == PING
    early.close()


def test_a_server_serves_on_several(rig: Rig) -> None:
    given = [listener(), listener()]
    server = rig.serve(echo(), socket=given)
    assert server.addresses == [sock.getsockname() for sock in given]
    for address in server.addresses:
        peer = Peer.connect(address)
        assert is_echoed(peer)
        peer.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")
def test_one_of_them_may_be_a_unix_socket(rig: Rig, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    given = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    given.bind(path)
    given.listen()
    server = rig.serve(echo(), socket=[listener(), given])
    assert server.addresses[1] == (path,)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(path)
        assert is_echoed(Peer(sock))


def test_it_speaks_tls_on_them(rig: Rig, certificates: Certificates) -> None:
    if "tls" not in rig.driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    server = rig.serve(echo(), tls=certificates.server, socket=listener())
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    assert isinstance(peer.sock, ssl.SSLSocket)
    assert is_echoed(peer)


def silent() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def closed() -> socket.socket:
    sock = listener()
    sock.close()
    return sock


def datagrams() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.mark.parametrize(
    ("new", "says"),
    [(silent, "does not listen"), (closed, "is closed"), (datagrams, r"no stream socket"), (list, "holds no socket")],
)
def test_what_does_not_listen_is_refused_and_stays_the_caller_s(
    rig: Rig, opened: ExitStack, new: Callable[[], object], says: str
) -> None:
    given = new()
    was_open = isinstance(given, socket.socket) and opened.enter_context(given).fileno() >= 0
    with pytest.raises(ValueError, match=says):
        rig.serve(echo(), socket=given)
    assert (isinstance(given, socket.socket) and given.fileno() >= 0) == was_open


def test_a_socket_takes_the_place_of_a_host_and_port(rig: Rig) -> None:
    given = listener()
    with pytest.raises(TypeError, match="port=1"):
        rig.serve(echo(), port=1, socket=given)
    with pytest.raises(TypeError, match=r"is no socket\.socket"):
        rig.serve(echo(), socket=[given, given.fileno()])
    with pytest.raises(ValueError, match="one socket twice"):
        rig.serve(echo(), socket=[given, given])
    assert rig.serve(echo(), socket=given).address == given.getsockname()


@pytest.mark.usefixtures("needs_udp")
def test_a_udp_server_serves_on_a_socket_that_it_is_given_and_closes_it(rig: Rig, opened: ExitStack) -> None:
    given = datagrams()
    address = given.getsockname()
    server = rig.serve_udp(echo(), socket=given)
    assert server.addresses == [address]
    assert is_echoed(rig.udp_peer(address))
    rig.call(server.close, 0)
    assert given.fileno() < 0, "the server did not close its socket"
    unbound = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for wrong, says in ((unbound, "bound to no port"), (opened.enter_context(listener()), "no datagram socket")):
        with pytest.raises(ValueError, match=says):
            rig.serve_udp(echo(), socket=wrong)
    with pytest.raises(TypeError, match="multicast_group"):
        rig.serve_udp(echo(), socket=unbound, multicast_group="239.1.2.3")


def test_two_servers_share_what_comes_to_one_socket(rig: Rig) -> None:
    """As processes that inherit one socket do: each connection is served by one of them."""
    first = listener()
    second = first.dup()
    servers = [rig.serve(echo(), Config(idle_timeout=None), socket=each) for each in (first, second)]
    peers = [rig.peer(servers[0]) for _ in range(20)]
    assert all(map(is_echoed, peers))
    assert sum(rig.call(lambda server=server: server.stats.opened) for server in servers) == len(peers)
    rig.call(servers[0].close, 0)
    late = Peer.connect(servers[1].address)  # the other has it still
    assert is_echoed(late)
    late.close()
