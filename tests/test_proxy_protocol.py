"""The header of the PROXY protocol: the bytes of the specification, and hostile ones.

HAProxy's "The PROXY protocol, versions 1 & 2", sections 2.1 and 2.2.
"""

from __future__ import annotations

import copy
import pickle
import select
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from packetcore import ProxiedAddress, ProxyInfo
from packetcore_sockets import Handle, HeaderReading, Loop, Proxies, ProxyHeader, read_proxy_header
from packetcore_sockets._proxy import MAX_BLOCK, MAX_HEADER, MAX_LINE, crc32c

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!2H", 4711, 443)
V6 = bytes.fromhex("20010db8" + "00" * 11 + "01") + bytes.fromhex("00" * 10 + "ffff" + "c6336402")
V6 += struct.pack("!2H", 4711, 443)
UNIX = b"/run/device".ljust(108, b"\0") + b"\0gateway".ljust(108, b"\0")
LONGEST_ADDRESS = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def ssl_tlv(client: int, verify: int, *inner: bytes) -> bytes:
    return tlv(0x20, struct.pack("!BI", client, verify) + b"".join(inner))


def with_checksum(block: bytes) -> bytes:
    """A TCP4 header that ends with its CRC32C."""
    header = v2(1, 0x11, block + tlv(3, bytes(4)))
    return header[:-4] + crc32c(header).to_bytes(4, "big")


def read(data: bytes) -> ProxyHeader:
    header = read_proxy_header(data)
    assert header is not None, "the header is said to go on"
    return header


def outcome(data: bytes) -> ProxyHeader | ValueError | None:
    try:
        return read_proxy_header(data)
    except ValueError as error:
        return error


ALL_TLVS = V4 + b"".join(
    [
        tlv(0x01, b"packets/1"),
        tlv(0x02, "gérät.example".encode()),
        tlv(0x04, b"padding"),
        tlv(0x05, bytes(range(128))),
        ssl_tlv(
            7,
            0,
            tlv(0x21, b"TLSv1.3"),
            tlv(0x22, b"meter 7"),
            tlv(0x23, b"TLS_AES_256_GCM_SHA384"),
            tlv(0x25, b"EC256"),
        ),
        tlv(0x30, b"blue"),
        tlv(0xEA, b"\1vpce-1"),
    ]
)
SOUND: dict[str, bytes] = {
    "TCP4": b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    "TCP4 longest": b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
    "TCP6": b"PROXY TCP6 2001:DB8::1 ::ffff:198.51.100.2 0 443\r\n",
    "TCP6 longest": f"PROXY TCP6 {LONGEST_ADDRESS} {LONGEST_ADDRESS} 65535 65535\r\n".encode(),
    "UNKNOWN": b"PROXY UNKNOWN\r\n",
    "UNKNOWN longest": f"PROXY UNKNOWN {LONGEST_ADDRESS} {LONGEST_ADDRESS} 65535 65535\r\n".encode(),
    "LOCAL": v2(0, 0, b""),
    "LOCAL with a block": v2(0, 0xFF, b"anything"),
    "UNSPEC": v2(1, 0, tlv(5, b"id")),
    "UNSPEC with a block": v2(1, 0, b"\xff" * 7),
    "UDP4": v2(1, 0x12, V4),
    "INET UNSPEC": v2(1, 0x10, V4 + tlv(5, b"id")),
    "v2 TCP4": v2(1, 0x11, V4),
    "v2 TCP6": v2(1, 0x21, V6),
    "v2 UNIX": v2(1, 0x31, UNIX),
    "v2 longest": v2(1, 0x11, V4 + tlv(4, bytes(MAX_BLOCK - 12 - 3))),
    "checksum": with_checksum(ALL_TLVS),
}


@pytest.mark.parametrize("name", SOUND)
def test_every_prefix_of_a_header_is_incomplete_and_nothing_behind_it_is_read(name: str) -> None:
    data = SOUND[name]
    for end in range(len(data)):
        assert read_proxy_header(data[:end]) is None, f"{end} bytes"
    header = read(data)
    assert header.size == len(data) <= MAX_HEADER
    for more in (b"\x03\0", b"PROXY ", data):
        assert read(data + more) == header


@pytest.mark.parametrize(
    ("name", "source", "destination"),
    [
        ("TCP4", ("192.168.0.1", 56324), ("192.168.0.11", 443)),
        ("TCP4 longest", ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
        ("TCP6", ("2001:db8::1", 0, 0, 0), ("::ffff:198.51.100.2", 443, 0, 0)),
        ("TCP6 longest", (LONGEST_ADDRESS, 65535, 0, 0), (LONGEST_ADDRESS, 65535, 0, 0)),
        ("UNKNOWN", None, None),
        ("UNKNOWN longest", None, None),
        ("LOCAL", None, None),
        ("LOCAL with a block", None, None),
        ("UNSPEC", None, None),
        ("INET UNSPEC", None, None),
        ("UDP4", ("192.0.2.1", 4711), ("198.51.100.2", 443)),
        ("v2 TCP4", ("192.0.2.1", 4711), ("198.51.100.2", 443)),
        ("v2 TCP6", ("2001:db8::1", 4711, 0, 0), ("::ffff:198.51.100.2", 443, 0, 0)),
        ("v2 UNIX", ("/run/device",), ("\0gateway",)),
    ],
)
def test_the_addresses_are_those_of_the_device(name: str, source: Any, destination: Any) -> None:
    header = read(SOUND[name])
    assert (header.source, header.proxy.destination) == (source, destination)
    assert header.version == (1 if SOUND[name].startswith(b"PROXY") else 2)
    assert header.is_local == name.startswith("LOCAL")


def test_the_longest_line_of_the_specification_has_107_bytes() -> None:
    assert len(SOUND["UNKNOWN longest"]) == MAX_LINE == 107
    assert read(b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n").size == 107
    for end in (b"\r\n", b"", b"x"):
        with pytest.raises(ValueError, match="107"):
            read_proxy_header(b"PROXY UNKNOWN ".ljust(106, b"x") + end + b"x")


def test_what_version_2_tells_besides_is_kept() -> None:
    assert read(SOUND["checksum"]).proxy == ProxyInfo(
        destination=("198.51.100.2", 443),
        unique_id=bytes(range(128)),
        alpn="packets/1",
        authority="gérät.example",
        tls="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        common_name="meter 7",
        is_verified=True,
        other=((0x25, b"EC256"), (0x30, b"blue"), (0xEA, b"\1vpce-1")),
    )
    assert read(SOUND["UNSPEC"]).proxy == ProxyInfo(unique_id=b"id")
    assert read(SOUND["INET UNSPEC"]).proxy == ProxyInfo(unique_id=b"id")
    assert read(SOUND["UNSPEC with a block"]).proxy == ProxyInfo()


@pytest.mark.parametrize(
    ("client", "verify", "is_verified"),
    [(1, 0, False), (3, 0, True), (5, 0, True), (7, 0, True), (7, 18, False), (0, 0, False)],
)
def test_a_name_counts_only_where_its_certificate_was_shown_and_verified(
    client: int, verify: int, is_verified: bool
) -> None:
    header = v2(1, 0x11, V4 + ssl_tlv(client, verify, tlv(0x21, b"TLSv1.2"), tlv(0x22, b"meter 7")))
    proxy = read(header).proxy
    assert (proxy.is_verified, proxy.common_name) == (is_verified, "meter 7" if is_verified else None)
    assert proxy.tls == "TLSv1.2"


@pytest.mark.parametrize("kind", [0x01, 0x02, 0x05, 0x20])
def test_what_may_be_told_once_is_refused_if_it_comes_twice(kind: int) -> None:
    one = ssl_tlv(0, 1) if kind == 0x20 else tlv(kind, b"x")
    assert read(v2(1, 0x11, V4 + one)).size
    with pytest.raises(ValueError, match=f"TLV 0x{kind:02x} twice"):
        read(v2(1, 0x11, V4 + one + one))


def test_a_checksum_covers_what_comes_behind_it_and_may_come_once() -> None:
    for more in (tlv(0xEA, b"behind"), tlv(3, bytes(4))):
        header = bytearray(v2(1, 0x11, V4 + tlv(3, bytes(4)) + more))
        at = 16 + 12 + 3
        header[at : at + 4] = crc32c(bytes(header)).to_bytes(4, "big")
        if more[0] == 0xEA:
            assert read(bytes(header)).proxy == ProxyInfo(destination=("198.51.100.2", 443), other=((0xEA, b"behind"),))
        else:
            with pytest.raises(ValueError, match="TLV 0x03 twice"):
                read(bytes(header))


def test_an_empty_tlv_is_one_and_so_is_tls_without_details() -> None:
    told = read(v2(1, 0x11, V4 + tlv(0xEA, b""))).proxy
    assert told is not None
    assert told.other == ((0xEA, b""),)
    for client, verify in ((0xFF, 0), (7, 0xFFFFFFFF)):
        told = read(v2(1, 0x11, V4 + ssl_tlv(client, verify))).proxy
        assert told is not None
        assert told.is_verified is (verify == 0)


def test_a_path_ends_at_its_first_zero_and_a_name_that_is_no_file_at_its_last_byte() -> None:
    paths = [b"/run/x\0left from before", b"\0name\0X\0\0", b"/run/\xff", b"p" * 108]
    for path, address in zip(paths, ["/run/x", "\0name\0X", "/run/\udcff", "p" * 108], strict=True):
        header = read(v2(1, 0x31, path.ljust(108, b"\0") + path.ljust(108, b"\0") + tlv(0xEA, b"q")))
        assert header.source == (address,)
        assert header.proxy is not None
        assert header.proxy.destination == (address,)


def test_the_checksum_is_that_of_the_rfc_and_covers_every_byte() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of catalogues
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E
    sound = with_checksum(V4)
    for at in (*range(16, 28), *range(len(sound) - 4, len(sound))):
        damaged = bytearray(sound)
        damaged[at] ^= 0x10
        with pytest.raises(ValueError, match="checksum"):
            read_proxy_header(damaged)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GET / HTTP/1.1\r\n", "no PROXY header"),
        (b"\x02", "no PROXY header"),
        (b"PROXX", "no PROXY header"),
        (b"PROXY\r\n", "no PROXY header"),
        (b"proxy TCP4", "no PROXY header"),
        (b"PROXY \r\n", "b''"),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "UDP4"),
        (b"PROXY UNKNOWNS\r\n", "UNKNOWNS"),
        (b"PROXY UNKNOWN\n", "lone"),
        (b"PROXY UNKNOWN \r \r\n", "lone"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "5 words"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "7 words"),
        (b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "7 words"),
        (b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "192.0.2.01"),
        (b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", "192.0.2"),
        (b"PROXY TCP4 ::1 192.0.2.2 1 2\r\n", "::1"),
        (b"PROXY TCP6 192.0.2.1 ::1 1 2\r\n", "192.0.2.1"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "eth0"),
        (b"PROXY TCP6 \xb9::1 ::1 1 2\r\n", "xb9"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "65536"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 02\r\n", "02"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "1"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \xb2\r\n", "xb2"),
        (SIGNATURE[:-1] + b"\r", "no PROXY header"),
        (SIGNATURE + b"\x11", "0x11"),
        (SIGNATURE + b"\x22", "0x22"),
        (SIGNATURE + b"\x21\x41\0\0", "0x41"),
        (SIGNATURE + b"\x21\x13\0\x0c", "0x13"),
        (SIGNATURE + b"\x21\x11\0\x0b", "11 bytes"),
        (SIGNATURE + b"\x21\x31\0\xd7", "215 bytes"),
        (SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_BLOCK + 1), "4097 bytes: at most 4096"),
        (SIGNATURE + b"\x20\x00\xff\xff", "65535 bytes: at most 4096"),
        (v2(1, 0x11, V4 + b"\x05\0"), "TLV of 2 bytes"),
        (v2(1, 0x11, V4 + b"\x05\0\2x"), "0x05 of 2 bytes where 1 are left"),
        (v2(1, 0x11, V4 + tlv(3, bytes(3))), "checksum of 3 bytes"),
        (v2(1, 0, tlv(3, bytes(4))), "checksum"),
        (v2(1, 0x11, V4 + tlv(5, bytes(129))), "129 bytes: at most 128"),
        (v2(1, 0x11, V4 + tlv(2, b"\xff")), "not UTF-8"),
        (v2(1, 0x11, V4 + tlv(2, b"a") + tlv(2, b"b")), "0x02 twice"),
        (v2(1, 0x11, V4 + tlv(0x20, bytes(4))), "at least 5"),
        (v2(1, 0x11, V4 + ssl_tlv(7, 0, b"\x22\0\2x") + tlv(4, b"beyond")), "0x22 of 2 bytes where 1 are left"),
        (v2(1, 0x11, V4 + ssl_tlv(7, 0, tlv(0x22, b"meter 7"), tlv(0x22, b"meter 8"))), "0x22 twice"),
    ],
)
def test_what_is_malformed_is_refused_with_what_is_wrong(data: bytes, says: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the message is looked at below
        read_proxy_header(data)
    assert "PROXY" in str(refused.value)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 600


anything = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=200).map(lambda rest: b"PROXY " + rest),
    st.text("TCP46UNKOW :.%0123456789abcdef\r\n", max_size=110).map(lambda rest: b"PROXY " + rest.encode()),
    st.binary(max_size=300).map(lambda rest: SIGNATURE + rest),
    st.builds(v2, st.integers(0, 2), st.sampled_from([0, 0x10, 0x11, 0x12, 0x21, 0x31, 0x44]), st.binary(max_size=300)),
    st.lists(st.builds(tlv, st.integers(0, 0x31), st.binary(max_size=40))).map(
        lambda vectors: v2(1, 0x11, (V4 + b"".join(vectors))[:MAX_BLOCK])
    ),
)


@given(anything)
@example(SOUND["checksum"][:-1] + b"\0")
def test_hostile_bytes_give_a_header_or_none_or_a_value_error(data: bytes) -> None:
    header = outcome(data)
    if isinstance(header, ValueError):
        assert type(header) is ValueError, "it was meant for something else"
        assert "PROXY" in str(header)
        return
    if header is None:
        assert len(data) < MAX_HEADER
        return
    assert len(data) >= header.size > 0
    assert read_proxy_header(data[: header.size]) == header
    assert all(read_proxy_header(data[:end]) is None for end in range(header.size)), "a prefix is said to be whole"


@given(st.sampled_from(sorted(SOUND)), st.data())
def test_one_damaged_byte_never_makes_a_header_take_what_is_not_there(name: str, data: st.DataObject) -> None:
    damaged = bytearray(SOUND[name])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    header = outcome(bytes(damaged))
    assert header is None or isinstance(header, ValueError) or header.size <= len(damaged)


class MadeUpLoop(Loop):
    """Calls nothing by itself."""

    reader: Callable[[], object] | None = None

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        self.reader = callback

    def time(self) -> float:
        return 0.0

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        raise NotImplementedError

    def call_soon(self, callback: Callable[[], object]) -> object:
        raise NotImplementedError

    def set_writer(self, sock: socket.socket, callback: Callable[[], object] | None) -> object:
        raise NotImplementedError


@pytest.mark.parametrize("name", ["TCP4", "UNKNOWN longest", "LOCAL with a block", "checksum"])
def test_what_has_come_of_a_header_does_not_keep_a_socket_readable_and_what_follows_is_left(name: str) -> None:
    header, loop, results = SOUND[name], MadeUpLoop(), list[Any]()
    device, accepted = socket.socketpair()
    with device, accepted:
        HeaderReading(loop, accepted, ("10.0.0.1", 5), results.append, None)
        for at in range(len(header)):
            device.send(header[at : at + 1] + (b"frame" if at == len(header) - 1 else b""))
            assert loop.reader is not None, "the socket is not watched any more"
            assert not results
            loop.reader()
            is_readable = bool(select.select([accepted], [], [], 0)[0])
            assert is_readable == bool(results), "a loop that calls while there is something to read would spin"
        assert loop.reader is None
        assert accepted.recv(100) == b"frame"
        (address,) = results
        assert address == (read(header).source or ("10.0.0.1", 5))


def test_networks_of_proxies_are_told_by_text_or_as_objects() -> None:
    proxies = Proxies(("10.0.0.0/8", "::1", ip_network("fe80::/10")))
    for inside in (("10.9.9.9", 1), ("::1", 1, 0, 0), ("::ffff:10.0.0.1", 1, 0, 0), ("fe80::1%eth0", 1, 0, 2)):
        assert inside in proxies, inside
    for outside in (("11.0.0.1", 1), ("127.0.0.1", 1), ("::ffff:11.0.0.1", 1, 0, 0), ("::10.0.0.1", 1, 0, 0), ("",)):
        assert outside not in proxies, outside


@pytest.mark.parametrize("networks", ["10.0.0.0/8", (), ("10.0.0.1/8",), ("gateway",), (10,), ("10.0.0.0/33",)])
def test_what_is_no_network_is_refused_by_its_value(networks: Any) -> None:
    with pytest.raises(ValueError, match="proxy_protocol") as refused:
        Proxies(networks)
    assert repr(networks[0] if isinstance(networks, tuple) and networks else networks) in str(refused.value)


def test_the_address_of_a_device_behind_a_proxy_is_an_address_as_any() -> None:
    proxy = ProxyInfo(address=("10.0.0.1", 5))
    address = ProxiedAddress(("192.0.2.1", 4711), proxy)
    assert address == ("192.0.2.1", 4711)
    assert hash(address) == hash(("192.0.2.1", 4711))
    assert repr(address) == "('192.0.2.1', 4711)"
    for same in (pickle.loads(pickle.dumps(address)), copy.deepcopy(address)):
        assert isinstance(same, ProxiedAddress)
        assert (same, same.proxy) == (address, proxy)
