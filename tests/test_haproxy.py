"""Servers behind a real HAProxy, which tells by the PROXY protocol whose connections it hands on.

Where `haproxy` is not installed these are skipped: the bytes of the specification are in
`test_proxy_protocol.py`, and what servers make of them in the conformance suite.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packetcore import Driver, Packet, ProxyInfo, encode, load_driver
from packetcore_conformance.certificates import Certificates
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Seeing
from packetcore_conformance.rig import Rig

HAPROXY = shutil.which("haproxy")
PING = encode(Packet(1, b"ping"))
CONFIG = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen gateway
    bind fd@{descriptor} {bind}
    unique-id-format device-%cp
    server behind 127.0.0.1:{port} {server}
"""

pytestmark = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@pytest.fixture(scope="module", params=["asyncio", "blocking", "gevent", "twisted"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def driver(transport: str) -> Iterator[Driver]:
    driver = load_driver(transport)
    yield driver
    driver.stop()


Front = Callable[..., tuple[str, int]]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """Starts an HAProxy on a socket that listens already, so that there is no port to guess and nothing to wait
    for; gives its address."""
    with ExitStack() as ending:

        def start(port: int, server: str, bind: str = "") -> tuple[str, int]:
            listener = ending.enter_context(socket.create_server(("127.0.0.1", 0)))
            config = tmp_path / "haproxy.cfg"
            options = {"descriptor": listener.fileno(), "bind": bind, "port": port, "server": server}
            config.write_text(CONFIG.format(**options), encoding="utf-8")
            said = ending.enter_context((tmp_path / "haproxy.log").open("wb"))
            command = [HAPROXY or "", "-db", "-f", str(config)]
            process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=said, stderr=said)
            ending.callback(process.wait, DEADLINE)
            ending.callback(process.kill)
            address: tuple[str, int] = listener.getsockname()
            return address

        yield start


def is_echoed(peer: Peer) -> bool:
    peer.send(PING)
    return peer.receive(len(PING)) == PING


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"])
def test_a_device_behind_haproxy_has_its_own_address(rig: Rig, front: Front, how: str) -> None:
    handler = Seeing()
    server = rig.serve(handler, proxy_protocol=("127.0.0.1",))
    address = front(server.address[1], how)
    peers = [Peer.connect(address) for _ in range(3)]
    for peer in peers:
        assert is_echoed(peer)
    assert sorted(seen for seen, _ in handler.seen) == sorted(peer.sock.getsockname() for peer in peers)
    for _, carrier in handler.seen:
        assert carrier.proxy is not None
        assert carrier.proxy.destination == address
        assert carrier.proxy.address[0] == "127.0.0.1"
        assert carrier.proxy == ProxyInfo(address=carrier.proxy.address, destination=address)
        assert carrier.local == server.address
    for peer in peers:
        peer.close()
    handler.wait_reasons(3)
    assert rig.call(lambda: server.stats.refused) == 0


def test_haproxy_ends_tls_and_tells_whose_certificate_it_has_verified(
    rig: Rig, front: Front, certificates: Certificates
) -> None:
    handler = Seeing()
    server = rig.serve(handler, proxy_protocol=("127.0.0.1",))
    tls, known = certificates.strict_server, certificates.known_client
    bind = f"ssl crt {tls.certificate} ca-file {tls.authority} verify required alpn packets/1"
    options = "send-proxy-v2 proxy-v2-options ssl,cert-cn,ssl-cipher,unique-id,authority,crc32c"
    address = front(server.address[1], options, bind)
    context = known.context(server_side=False)
    context.set_alpn_protocols(["packets/1"])
    peer = Peer.connect(address, tls=context, server_hostname=known.server_name)
    assert is_echoed(peer)
    ((seen, carrier),) = handler.seen
    assert seen == peer.sock.getsockname()
    assert carrier.tls is None
    proxy, sock = carrier.proxy, peer.sock
    assert proxy is not None
    assert isinstance(sock, ssl.SSLSocket)
    spoken = sock.cipher()
    assert spoken is not None
    assert (proxy.common_name, proxy.is_verified) == ("device 7", True)
    assert proxy.tls == sock.version()
    assert proxy.cipher == spoken[0]
    assert (proxy.alpn, proxy.authority) == ("packets/1", known.server_name)
    assert proxy.unique_id == f"device-{peer.sock.getsockname()[1]}".encode()
    peer.close()


def test_tls_goes_through_haproxy_to_the_server_behind_the_header(
    rig: Rig, front: Front, certificates: Certificates
) -> None:
    handler = Seeing()
    server = rig.serve(handler, tls=certificates.server, proxy_protocol=("127.0.0.1",))
    address = front(server.address[1], "send-proxy-v2")
    peer = Peer.connect(address, tls=certificates.raw_context(), server_hostname="gateway.example")
    assert is_echoed(peer)
    ((seen, carrier),) = handler.seen
    assert seen == peer.sock.getsockname()
    assert carrier.tls is not None
    peer.close()


@pytest.mark.parametrize("how", ["check-send-proxy send-proxy", "check-send-proxy send-proxy-v2"])
def test_haproxy_s_own_checks_are_no_devices(rig: Rig, front: Front, how: str) -> None:
    handler = Seeing()
    server = rig.serve(handler, proxy_protocol=("127.0.0.1",))
    front(server.address[1], f"check inter 50ms {how}")
    handler.wait("disconnected", 2)
    assert rig.call(lambda: server.stats.refused) == 0
    assert all(carrier.local == server.address for _, carrier in handler.seen)
