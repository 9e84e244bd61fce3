"""PROXY protocol.

A server behind a proxy that tells whose connections it hands on, and one that tells nonsense, or who is none.
"""

from __future__ import annotations

import logging
import socket
import struct
from typing import Any

import pytest

from packetcore import Config, Driver, Packet, ProxyInfo, Refusal, ServerBase, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder, Seeing, send_back
from packetcore_conformance.rig import Rig
from packetcore_conformance.tls_peer import TLSPeer

LOOPBACK = ("127.0.0.0/8",)
PING = encode(Packet(1, b"ping"))
DEVICE, GATEWAY = ("198.51.100.7", 40007), ("203.0.113.1", 7000)
LINE = b"PROXY TCP4 198.51.100.7 203.0.113.1 40007 7000\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def block(command: int, family: int, content: bytes = b"") -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(content)) + content


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


TOLD = b"".join(
    (
        *(tlv(1, b"packets/1"), tlv(2, b"gateway.example"), tlv(5, b"\0id"), tlv(0xEA, b"cloud")),
        tlv(0x20, b"\3" + bytes(4) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"device 7") + tlv(0x23, b"TLS_AES_128")),
    )
)
V4 = socket.inet_pton(socket.AF_INET, DEVICE[0]) + socket.inet_pton(socket.AF_INET, GATEWAY[0])
BLOCK = block(1, 0x11, V4 + struct.pack("!2H", DEVICE[1], GATEWAY[1]) + TOLD)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
BLOCK_V6 = block(1, 0x21, V6 + struct.pack("!2H", DEVICE[1], GATEWAY[1]))
BLOCK_UNIX = block(1, 0x31, b"/run/device".ljust(108, b"\0") + b"/run/gateway".ljust(108, b"\0"))


@pytest.fixture(autouse=True)
def needs_proxy(driver: Driver) -> None:
    if "proxy" not in driver.capabilities():
        pytest.skip("the adapter says that it does not know the PROXY protocol")


def is_echoed(peer: Peer | TLSPeer) -> bool:
    peer.send(PING)
    return peer.receive(len(PING)) == PING


def refused(rig: Rig, server: ServerBase, count: int = 1) -> None:
    rig.until(lambda: server.stats.refusals == {Refusal.PROXY_FAILED: count}, f"{count} were refused for their header")


def test_the_device_s_address_is_known_when_its_session_begins(rig: Rig) -> None:
    handler = Seeing()
    server = rig.serve(handler, proxy_protocol=LOOPBACK)
    peer = rig.peer(server)
    peer.send(LINE)
    assert is_echoed(peer)
    ((address, carrier),) = handler.seen
    assert address == DEVICE
    assert carrier.local == server.address
    assert carrier.proxy == ProxyInfo(address=peer.sock.getsockname(), destination=GATEWAY)


def test_what_version_2_tells_stands_in_the_carrier(rig: Rig) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler, proxy_protocol=LOOPBACK))
    peer.send(BLOCK)
    assert is_echoed(peer)
    assert handler.seen[0][0] == DEVICE
    assert handler.seen[0][1].proxy == ProxyInfo(
        address=peer.sock.getsockname(),
        destination=GATEWAY,
        unique_id=b"\0id",
        alpn="packets/1",
        authority="gateway.example",
        tls="TLSv1.3",
        cipher="TLS_AES_128",
        common_name="device 7",
        is_verified=True,
        other=((0xEA, b"cloud"),),
    )


@pytest.mark.parametrize(
    ("header", "address", "destination"),
    [
        (BLOCK_V6, ("2001:db8::7", 40007, 0, 0), ("2001:db8::1", 7000, 0, 0)),
        (BLOCK_UNIX, ("/run/device",), ("/run/gateway",)),
    ],
    ids=["IPv6", "Unix"],
)
def test_the_device_s_address_may_be_of_another_family_than_the_proxy_s(
    rig: Rig, header: bytes, address: Any, destination: Any
) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler, proxy_protocol=LOOPBACK))
    peer.send(header)
    assert is_echoed(peer)
    ((seen, carrier),) = handler.seen
    assert seen == address
    assert carrier.proxy is not None
    assert carrier.proxy.destination == destination
    peer.close()
    handler.wait_reasons()


@pytest.mark.parametrize("header", [LINE, BLOCK], ids=["version 1", "version 2"])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_header_may_come_in_any_pieces_and_the_first_frames_with_it(rig: Rig, header: bytes, piece: int) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler, proxy_protocol=LOOPBACK))
    data = header + 3 * PING
    for at in range(0, len(data), piece):
        peer.send(data[at : at + piece])
    assert peer.receive(3 * len(PING)) == 3 * PING
    assert [address for address, _ in handler.seen] == [DEVICE]
    assert not handler.calls("malformed"), "the session was given a part of the header"


def test_a_header_without_a_frame_begins_the_session(rig: Rig) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler, proxy_protocol=LOOPBACK))
    peer.send(LINE)
    handler.wait("connected")
    peer.finish()
    handler.wait_reasons()


@pytest.mark.parametrize("header", [block(0, 0), block(0, 0x11, V4 + bytes(4))], ids=["alone", "with a block"])
def test_a_proxy_that_speaks_for_itself_keeps_its_address(rig: Rig, header: bytes) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler, proxy_protocol=LOOPBACK))
    peer.send(header)
    assert is_echoed(peer)
    ((address, carrier),) = handler.seen
    assert address == peer.sock.getsockname()
    assert carrier.proxy is None


def test_a_proxy_that_does_not_know_the_device_gives_its_own_address(rig: Rig) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler, proxy_protocol=LOOPBACK))
    peer.send(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n")
    assert is_echoed(peer)
    ((address, carrier),) = handler.seen
    assert address == peer.sock.getsockname()
    assert carrier.proxy == ProxyInfo(address=address)


def test_without_a_proxy_the_carrier_knows_of_none_and_a_header_is_noise(rig: Rig) -> None:
    handler = Seeing()
    peer = rig.peer(rig.serve(handler))
    peer.send(LINE)
    assert is_echoed(peer)
    ((address, carrier),) = handler.seen
    assert (address, carrier.proxy) == (peer.sock.getsockname(), None)
    assert handler.calls("malformed")


def test_tls_is_spoken_behind_the_header(rig: Rig, driver: Driver, certificates: Certificates) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    handler = Seeing()
    server = rig.serve(handler, tls=certificates.server, proxy_protocol=LOOPBACK)
    peer = rig.peer(server)
    peer.send(LINE)
    assert is_echoed(TLSPeer(peer.sock, certificates.raw_context(), SERVER_NAME))
    ((address, carrier),) = handler.seen
    assert address == DEVICE
    assert carrier.tls is not None
    assert carrier.proxy == ProxyInfo(address=peer.sock.getsockname(), destination=GATEWAY)
    broken = rig.peer(server)
    broken.send(LINE + PING)
    broken.wait_closed()
    rig.until(lambda: server.stats.refusals == {Refusal.TLS_FAILED: 1}, "the handshake that failed was counted as such")


def test_sessions_are_capped_by_the_device_s_address(rig: Rig) -> None:
    server = rig.serve(None, Config(max_sessions_per_host=1), proxy_protocol=LOOPBACK)
    one, other, too_many = rig.peer(server), rig.peer(server), rig.peer(server)
    one.send(LINE)
    other.send(LINE.replace(b"198.51.100.7", b"198.51.100.8"))
    assert is_echoed(one)
    assert is_echoed(other)
    too_many.send(LINE.replace(b"40007", b"40008"))
    too_many.wait_closed()
    rig.until(lambda: server.stats.refusals == {Refusal.MAX_SESSIONS_PER_HOST: 1}, "the second of one host was refused")
    assert is_echoed(one)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (PING, "no PROXY header"),
        (b"PROXY TCP4 198.51.100.7 203.0.113.1 40007 70000\r\n", "70000"),
        (b"PROXY UNKNOWN".ljust(200, b"x"), "107"),
        (block(1, 0x11, bytes(11)), "11 bytes"),
        (SIGNATURE + b"\x21\x11\xff\xff", "65535"),
        (block(1, 0x11, bytes(12) + tlv(3, b"zero")), "checksum"),
        (LINE[:-1], "the peer left after 47 bytes"),
        (b"", "the peer left after 0 bytes"),
    ],
)
def test_a_malformed_header_ends_its_own_connection_alone(
    rig: Rig, sent: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "packetcore")
    server = rig.serve(Recorder(packet_received=send_back), proxy_protocol=LOOPBACK)
    before = rig.peer(server)
    before.send(BLOCK)
    assert is_echoed(before)
    peer = rig.peer(server)
    name = peer.sock.getsockname()
    peer.send(sent)
    if "left" in why:
        peer.finish()
    peer.wait_closed()
    refused(rig, server)
    assert is_echoed(before)
    after = rig.peer(server)
    after.send(LINE)
    assert is_echoed(after)
    assert rig.call(lambda: server.stats.opened) == 2
    (told,) = [record for record in caplog.records if "refused" in record.message]
    assert getattr(told, "peer", None) == name
    assert "PROXY" in told.message
    assert why in told.message


@pytest.mark.parametrize("sent", [b"", LINE[:-1], BLOCK[:20]], ids=["nothing", "a line", "a block"])
def test_a_header_that_never_ends_is_given_up(rig: Rig, sent: bytes) -> None:
    server = rig.serve(None, Config(connect_timeout=0.3), proxy_protocol=LOOPBACK)
    before = rig.peer(server)
    before.send(LINE)
    assert is_echoed(before)
    peer = rig.peer(server)
    peer.send(sent)
    peer.wait_closed()
    refused(rig, server)
    assert is_echoed(before)


def test_who_is_in_none_of_the_networks_is_refused_whatever_it_says(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "packetcore")
    handler = Recorder()
    server = rig.serve(handler, proxy_protocol=("192.0.2.0/24", "::1", "10.0.0.0/8"))
    for _ in range(3):
        rig.peer(server).wait_closed()
    refused(rig, server, 3)
    assert not handler.calls()
    told = [record.message for record in caplog.records if "refused" in record.message]
    assert len(told) == 3
    assert all("127.0.0.1 is in no network of proxy_protocol" in message for message in told)


def test_closing_a_server_closes_who_has_not_sent_a_header_yet(rig: Rig) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(connect_timeout=None), proxy_protocol=LOOPBACK)
    silent, halfway, whole = rig.peer(server), rig.peer(server), rig.peer(server)
    halfway.send(LINE[:20])
    whole.send(LINE)
    handler.wait("connected")  # of the third, so that the two before it were accepted
    rig.call(server.close, 0)
    for peer in (silent, halfway, whole):
        peer.wait_closed()
    assert rig.call(lambda: server.stats.refused) == 0, "a server that closes counted who it closed as refused"


@pytest.mark.parametrize("networks", ["127.0.0.0/8", (), ("127.0.0.1/8",), ("localhost",), (7,)])
def test_what_is_no_network_is_refused_before_anything_listens(rig: Rig, networks: Any) -> None:
    with pytest.raises(ValueError, match="proxy_protocol"):
        rig.serve(None, proxy_protocol=networks)
