"""What the adapters over plain sockets share: reading and writing a UDP socket and opening one, and
a TCP connection on any loop that watches descriptors."""

from __future__ import annotations

import itertools
import os
import select
import selectors
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, EMFILE, EMSGSIZE, ENODEV, ENOTDIR
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from packetcore import (
    Address,
    AsyncStream,
    Carrier,
    CloseReason,
    Config,
    DatagramEndpoint,
    Endpoint,
    Handler,
    Malformed,
    Packet,
    Reason,
    Session,
    TLSInfo,
    encode,
)
from packetcore_sockets import (
    ACCEPT_PAUSE,
    READ_AT_ONCE,
    AddressInfo,
    AsyncAdapter,
    AsyncClient,
    AsyncConnectionPool,
    AsyncServer,
    DatagramSocket,
    Dial,
    Event,
    Found,
    Handshake,
    Listener,
    Records,
    StreamSocket,
    Target,
    Task,
    TLSRecords,
    look_up,
    open_each,
    open_tcp_listeners,
    open_udp_client,
    open_udp_servers,
)
from packetcore_sockets._carrier import address_text, carrier_of
from packetcore_sockets._inherited import given_datagram_sockets, given_listeners
from packetcore_sockets._proxied import HeaderReading
from packetcore_sockets._websocket.first_byte import FirstByte
from tests.select_loop import PATIENCE, Later, OwnRuntime, SelectLoop

PING = Packet(1, b"ping")
DATAGRAM = encode(PING)

needs_error_queue = pytest.mark.skipif(not hasattr(socket, "MSG_ERRQUEUE"), reason="errors have addresses on Linux")


class StillLoop:
    """A `packetcore_sockets.Loop` in which no time passes, and of which a test calls what is called."""

    def __init__(self) -> None:
        self.reader: Callable[[], object] | None = None
        self.times_watched = 0

    def time(self) -> float:
        return 100.0

    def call_soon(self, callback: Callable[[], object]) -> None:
        pass

    def call_at(self, when: float, callback: Callable[[], object]) -> Later:
        return Later(when, callback)

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        self.reader = callback
        self.times_watched += callback is not None

    def set_writer(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        raise AssertionError("a datagram goes at once or not at all")


class Host(DatagramSocket):
    """A datagram socket on such a loop."""

    def __init__(self, endpoint: DatagramEndpoint, sock: socket.socket, is_connected: bool = False) -> None:
        self.loop, self.endpoint, self.sock = StillLoop(), endpoint, sock
        super().__init__(self.loop, endpoint, sock, is_connected)

    def read(self) -> bool:
        """Have it read. Returns whether it was watched anew, as it has to be after an error."""
        assert self.loop.reader is not None
        self.loop.times_watched = 0
        self.loop.reader()
        return self.loop.times_watched > 0

    def read_when_ready(self) -> bool:
        """`read` once there is something, an error too."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "nothing came"
        return self.read()


class Recorder(Handler):
    """Notes what comes of each peer."""

    def __init__(self) -> None:
        self.packets: list[tuple[Address, Packet]] = []
        self.refused: list[Malformed] = []
        self.errors: list[tuple[Address, int | None]] = []
        self.ends: list[CloseReason] = []

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.packets.append((session.peer, packet))

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self.refused.append(malformed)

    def error_received(self, session: Session, error: OSError) -> None:
        self.errors.append((session.peer, error.errno))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ends.append(reason)


class Echo(Recorder):
    """Sends back what comes."""

    session: Session

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.session = session
        super().packet_received(session, packet)
        session.send(packet)


class MadeUpSocket(socket.socket):
    """A socket that says what a test wants in place of the system."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.incoming: Iterator[tuple[bytes, Address]] = iter(())
        self.outcomes: list[OSError | None] = []
        self.attempts = 0

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Address]:
        try:
            return next(self.incoming)
        except StopIteration:
            raise BlockingIOError from None

    def sendto(self, data: object, *args: object) -> int:
        self.attempts += 1
        if self.outcomes and (error := self.outcomes.pop(0)) is not None:
            raise error
        return 0


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def infos(host: str | None, port: int = 0) -> list[AddressInfo]:
    return [
        (*info[:4], info[4]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    ]


def bound(cleanup: ExitStack) -> socket.socket:
    return cleanup.enter_context(open_udp_servers(infos("127.0.0.1"), 0)[0])


def server(cleanup: ExitStack, config: Config | None = None) -> tuple[Host, Recorder]:
    handler = Recorder()
    endpoint = DatagramEndpoint(handler, config, is_server=True)
    return Host(endpoint, bound(cleanup)), handler


def unused_address() -> Address:
    """Where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address: Address = sock.getsockname()
        return address


# Reading.


def test_one_turn_reads_no_more_than_its_share_however_much_there_is(cleanup: ExitStack) -> None:
    handler = Recorder()
    sock = cleanup.enter_context(MadeUpSocket())
    sock.incoming = itertools.repeat((DATAGRAM, ("192.0.2.1", 5000)))
    host = Host(DatagramEndpoint(handler, is_server=True), sock)
    for turns in (1, 2, 3):
        assert host.read() is False
        assert len(handler.packets) == turns * READ_AT_ONCE
    assert READ_AT_ONCE == 64


def test_what_one_turn_leaves_the_next_one_reads_in_order(cleanup: ExitStack) -> None:
    host, handler = server(cleanup)
    sender = bound(cleanup)
    packets = [Packet(n) for n in range(100)]
    for packet in packets:
        sender.sendto(encode(packet), host.sock.getsockname())
    while len(handler.packets) < 100:
        before = len(handler.packets)
        host.read_when_ready()
        assert len(handler.packets) - before <= READ_AT_ONCE
    assert handler.packets == [(sender.getsockname(), packet) for packet in packets]
    assert host.read() is False


def test_a_datagram_longer_than_max_datagram_is_refused_and_one_as_long_is_not(cleanup: ExitStack) -> None:
    host, handler = server(cleanup, Config(max_datagram=100))
    sender = bound(cleanup)
    longest = Packet(7, bytes(89))
    for datagram in (encode(longest), DATAGRAM * 50, DATAGRAM):
        sender.sendto(datagram, host.sock.getsockname())
    while len(handler.packets) < 2:
        host.read_when_ready()
    assert [packet for _, packet in handler.packets] == [longest, PING]
    assert handler.refused == [Malformed(Reason.DATAGRAM_TOO_LONG, 101, (DATAGRAM * 50)[:64])]


def test_a_handler_that_ends_the_last_session_ends_the_turn(cleanup: ExitStack) -> None:
    class Closing(Recorder):
        def packet_received(self, session: Session, packet: Packet) -> None:
            super().packet_received(session, packet)
            session.close()

    handler, peer = Closing(), bound(cleanup)
    sock, addr, is_connected = open_udp_client(infos(*peer.getsockname()))
    host = Host(DatagramEndpoint(handler), sock, is_connected)
    host.endpoint.open(addr, 100)
    for _ in range(3):
        peer.sendto(DATAGRAM, sock.getsockname())
    assert host.read_when_ready() is False
    assert len(handler.packets) == 1
    assert handler.ends == [CloseReason.LOCAL]
    assert sock.fileno() == -1


# Errors.


@needs_error_queue
def test_an_error_reaches_the_peer_that_it_is_about_on_a_socket_of_many(cleanup: ExitStack) -> None:
    host, handler = server(cleanup)
    listening, gone = bound(cleanup), unused_address()
    for addr in (listening.getsockname(), gone):
        host.endpoint.open(addr, 100).send(PING)
    host.endpoint.flush(100)
    assert host.read_when_ready() is True
    assert handler.errors == [(gone, ECONNREFUSED)]
    assert len(host.endpoint.sessions) == 2
    assert host.read() is False


def test_an_error_reaches_a_connected_client(cleanup: ExitStack) -> None:
    handler = Recorder()
    sock, addr, is_connected = open_udp_client(infos(*unused_address()))
    cleanup.enter_context(sock)
    assert is_connected
    host = Host(DatagramEndpoint(handler), sock, is_connected)
    session = host.endpoint.open(addr, 100)
    session.send(PING)
    host.endpoint.flush(100)
    assert host.read_when_ready() is True
    assert handler.errors == [(addr, ECONNREFUSED)]
    assert session.is_open


@needs_error_queue
def test_the_error_of_an_earlier_datagram_costs_no_later_one(cleanup: ExitStack) -> None:
    host, handler = server(cleanup)
    listening, gone = bound(cleanup), unused_address()
    host.endpoint.open(gone, 100).send(PING)
    host.endpoint.flush(100)  # the answer comes at once on this machine's own network
    healthy = host.endpoint.open(listening.getsockname(), 100)
    healthy.send(PING)
    host.endpoint.flush(100)
    assert select.select([listening], [], [], PATIENCE)[0]
    assert listening.recv(100) == DATAGRAM
    assert healthy.stats.packets_dropped == 0
    host.read_when_ready()
    host.endpoint.flush(100)
    assert handler.errors == [(gone, ECONNREFUSED)]


@needs_error_queue
def test_an_error_is_found_and_told_of_though_datagrams_wait_too(cleanup: ExitStack) -> None:
    host, handler = server(cleanup)
    peer, gone = bound(cleanup), unused_address()
    for addr in (gone, peer.getsockname()):  # the second send takes the first one's error off the socket
        host.endpoint.open(addr, 100).send(PING)
        host.endpoint.flush(100)
    peer.sendto(DATAGRAM, host.sock.getsockname())
    assert host.read_when_ready() is True  # or uvloop, which has seen the error, would watch no more
    assert handler.packets == [(peer.getsockname(), PING)]
    assert handler.errors == [(gone, ECONNREFUSED)]


@needs_error_queue
def test_an_error_that_a_send_has_raised_is_not_found_once_more(cleanup: ExitStack) -> None:
    host, handler = server(cleanup, Config(max_datagram=65_527))
    peer = bound(cleanup).getsockname()
    host.endpoint.open(peer, 100).send(Packet(1, bytes(65_509)))  # more than IPv4 can carry
    host.endpoint.flush(100)
    assert host.read_when_ready() is True
    host.endpoint.flush(100)
    assert handler.errors == [(peer, EMSGSIZE)]
    assert host.endpoint.stats.errors == 1


@needs_error_queue
def test_a_handler_that_sends_again_on_an_error_does_not_keep_the_loop(cleanup: ExitStack) -> None:
    class Stubborn(Recorder):
        def error_received(self, session: Session, error: OSError) -> None:
            super().error_received(session, error)
            if len(self.errors) < 1_000:  # on this machine's own network each comes back at once
                session.send(PING)

    handler = Stubborn()
    host = Host(DatagramEndpoint(handler, is_server=True), bound(cleanup))
    host.endpoint.open(unused_address(), 100).send(PING)
    host.endpoint.flush(100)
    assert host.read_when_ready() is True
    assert len(handler.errors) <= READ_AT_ONCE


def test_a_socket_without_room_says_so_and_is_not_asked_again(cleanup: ExitStack) -> None:
    sock = cleanup.enter_context(MadeUpSocket())
    host = Host(DatagramEndpoint(Handler()), sock)
    sock.outcomes = [BlockingIOError(11, "no room")]
    with pytest.raises(BlockingIOError):
        host.write_to(DATAGRAM, ("192.0.2.1", 5000))
    assert sock.attempts == 1


@needs_error_queue
def test_an_error_of_this_very_datagram_is_raised_at_the_second_attempt(cleanup: ExitStack) -> None:
    sock = cleanup.enter_context(MadeUpSocket())
    host = Host(DatagramEndpoint(Handler()), sock)
    sock.outcomes = [OSError(ECONNREFUSED, "an earlier one's"), OSError(EHOSTUNREACH, "its own"), None]
    with pytest.raises(OSError, match="its own"):
        host.write_to(DATAGRAM, ("192.0.2.1", 5000))
    assert sock.attempts == 2


def test_a_stream_endpoint_is_refused(cleanup: ExitStack) -> None:
    with pytest.raises(TypeError, match="needs a DatagramEndpoint, not Endpoint"):
        DatagramSocket(StillLoop(), Endpoint(Handler()), bound(cleanup))


# Opening.


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


NOT_OURS = "192.0.2.1"  # set aside for documentation (RFC 5737)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="systems differ in what they refuse, and how")
Attempt = Callable[[int], object]


@on_linux
@pytest.mark.parametrize(
    ("attempt", "number", "text"),
    [
        (
            lambda port: open_udp_servers(infos("127.0.0.1"), port),
            EADDRINUSE,
            "binding to 127.0.0.1 port {port}: Address already in use",
        ),
        (
            lambda port: open_udp_servers(infos(NOT_OURS), port),
            EADDRNOTAVAIL,
            "binding to 192.0.2.1 port {port}: Cannot assign requested address",
        ),
        (
            lambda port: open_udp_servers(infos(NOT_OURS), 0, multicast_group="239.1.2.3"),
            ENODEV,
            "joining 239.1.2.3 on 192.0.2.1 port 0: No such device",
        ),
        (
            lambda port: open_udp_client(infos("127.255.255.255", port)),
            EACCES,
            "connecting to 127.255.255.255 port {port} over UDP: Permission denied; "
            "a broadcast address needs broadcast=True",
        ),
        (
            lambda port: open_udp_client(infos("127.0.0.1", port), local_host=NOT_OURS),
            EADDRNOTAVAIL,
            "connecting to 127.0.0.1 port {port} over UDP: Cannot assign requested address",
        ),
        (
            lambda port: open_udp_client(infos("239.1.2.3", port), local_host="nobody.invalid"),
            socket.EAI_NONAME,
            "connecting to 239.1.2.3 port {port} over UDP: ",
        ),
    ],
    ids=["in use", "not ours", "no interface", "broadcast", "local host", "local name"],
)
def test_what_cannot_be_opened_is_explained_and_leaves_no_descriptor(
    attempt: Attempt, number: int, text: str, cleanup: ExitStack
) -> None:
    port = bound(cleanup).getsockname()[1]
    before = descriptors()
    with pytest.raises(OSError, match="port") as caught:
        attempt(port)
    assert descriptors() == before
    assert str(caught.value).partition("] ")[2].startswith(text.format(port=port))
    if number != socket.EAI_NONAME:  # a resolver may be out of reach as well
        assert caught.value.errno == number


@pytest.mark.parametrize("group", ["127.0.0.1", "group", "", "::1"])
def test_a_multicast_group_that_is_none_is_the_callers_mistake(group: str) -> None:
    before = descriptors()
    with pytest.raises(ValueError, match=f"multicast_group='{group}' is no multicast address"):
        open_udp_servers(infos("127.0.0.1"), 0, multicast_group=group)
    assert descriptors() == before


def test_an_address_to_send_from_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, family: int, kind: int, *, flags: int = 0) -> object:
        assert flags & socket.AI_NUMERICHOST, "a look-up would hold up a loop"
        return real(host, port, family, kind, flags=flags)

    real, target = socket.getaddrinfo, infos("127.0.0.1", 9)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(OSError, match=r"127\.0\.0\.1 port 9"):
        open_udp_client(target, local_host="localhost")
    with open_udp_client(target, local_host="127.0.0.1")[0] as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_name_that_no_system_can_encode_leaves_no_descriptor() -> None:
    before = descriptors()
    with pytest.raises((TypeError, ValueError)) as caught:
        open_udp_client(infos("127.0.0.1", 9), local_host="\u00e4" * 64)
    assert descriptors() == before
    del caught


def test_the_first_address_that_a_client_can_reach_is_taken_and_the_others_leave_nothing(cleanup: ExitStack) -> None:
    peer = bound(cleanup)
    before = descriptors()
    candidates = infos("255.255.255.255", 9) + infos(*peer.getsockname())
    sock, addr, is_connected = open_udp_client(candidates)
    with sock:
        assert (addr, is_connected) == (peer.getsockname(), True)
    sock, addr, _ = open_udp_client(infos(*peer.getsockname()) + infos("127.0.0.2", 9))
    with sock:
        assert addr == peer.getsockname()
    assert descriptors() == before


def test_where_replies_may_come_from_elsewhere_the_client_is_not_connected(cleanup: ExitStack) -> None:
    peer = bound(cleanup).getsockname()
    for host, broadcast in ((peer[0], True), ("239.1.2.3", False)):
        sock, addr, is_connected = open_udp_client(infos(host, peer[1]), broadcast=broadcast, local_host="127.0.0.1")
        with sock:
            assert (addr, is_connected) == ((host, peer[1]), False)
            assert sock.getsockname()[0] == "127.0.0.1"


@on_linux
@pytest.mark.parametrize("host", ["127.0.0.1", None, *(["::"] if socket.has_dualstack_ipv6() else [])])
def test_a_group_can_be_joined_on_one_interface_or_where_the_system_likes(host: str | None) -> None:
    (joined,) = open_udp_servers(infos(host), 0, multicast_group="239.1.2.3")
    with joined as sock:
        assert sock.getsockname()[0] == "0.0.0.0"
        assert sock.getsockname()[1] != 0


@on_linux
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_group_is_joined_and_sent_to_on_the_interface_of_its_scope(cleanup: ExitStack) -> None:
    (joined,) = open_udp_servers(infos("::"), 0, multicast_group="ff02::1234%lo")
    cleanup.enter_context(joined)
    assert "ff020000000000000000000000001234" in Path("/proc/net/igmp6").read_text()
    assert joined.getsockopt(socket.IPPROTO_IPV6, 29) == 0, "IPV6_MULTICAST_ALL: no other's groups"
    client, addr, is_connected = open_udp_client(infos("ff02::1234%lo", 5))
    cleanup.enter_context(client)
    assert client.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF) == socket.if_nametoindex("lo") == addr[3]
    assert not is_connected
    client, *_ = open_udp_client(infos("::1", 5), local_host="::1")
    cleanup.enter_context(client)
    assert client.getsockname()[0] == "::1"


@on_linux
def test_what_is_sent_to_a_group_leaves_by_the_interface_that_was_named(cleanup: ExitStack) -> None:
    for host, interface in (("127.0.0.1", "127.0.0.1"), (None, "0.0.0.0")):
        sock, _, _ = open_udp_client(infos("239.1.2.3", 5), local_host=host)
        cleanup.enter_context(sock)
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4) == socket.inet_aton(interface)
    connected, *_ = open_udp_client(infos("127.0.0.1", 5), local_host="127.0.0.1")
    cleanup.enter_context(connected)
    assert connected.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4) == socket.inet_aton("0.0.0.0")
    with pytest.raises(OSError, match=r"127\.0\.0\.1 port 0 is nobody's address") as nobody:
        open_udp_client(infos("127.0.0.1", 0))
    assert nobody.value.errno == EADDRNOTAVAIL


@pytest.mark.parametrize("broadcast", [False, True])
def test_a_servers_socket_may_send_to_broadcast_addresses_where_that_was_asked_for(
    broadcast: bool, cleanup: ExitStack
) -> None:
    for group in (None, "239.1.2.3"):
        (sock,) = open_udp_servers(infos("127.0.0.1"), 0, broadcast=broadcast, multicast_group=group)
        cleanup.enter_context(sock)
        assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)) is broadcast
    (plain,) = open_udp_servers(infos("127.0.0.1"), 0)
    cleanup.enter_context(plain)
    assert not plain.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)


# Opening on several addresses.


def listen_on(family: int, address: Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


Open = Callable[[list[AddressInfo], int], list[socket.socket]]
both_kinds = pytest.mark.parametrize("open_all", [open_tcp_listeners, open_udp_servers], ids=["tcp", "udp"])


@both_kinds
def test_every_address_that_this_machine_has_gets_a_socket_and_all_have_one_port(
    open_all: Open, cleanup: ExitStack
) -> None:
    sockets = open_all(infos(NOT_OURS) + infos("127.0.0.1") + infos("127.0.0.2") + infos("127.0.0.1"), 0)
    for sock in sockets:
        cleanup.enter_context(sock)
    port = sockets[0].getsockname()[1]
    assert [sock.getsockname() for sock in sockets] == [("127.0.0.1", port), ("127.0.0.2", port)]


@on_linux
def test_as_many_may_wait_to_be_accepted_as_was_asked_for(cleanup: ExitStack) -> None:
    runtime = OwnRuntime()
    cleanup.callback(runtime.close)
    own = AsyncAdapter(lambda: runtime, AsyncStream, AsyncServer, AsyncClient)
    opened: list[socket.socket] = []

    def open_listeners(*args: Any) -> list[socket.socket]:
        opened.extend(open_tcp_listeners(*args))
        return opened

    runtime.open_tcp_listeners = open_listeners  # type: ignore[assignment]

    async def main() -> None:
        async with await own.serve(Handler(), backlog=7):
            information = opened[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            # Of a socket that listens: how many wait, and how many may.
            assert struct.unpack_from("II", information, 24) == (0, 7)

    runtime.complete(main())


@both_kinds
def test_no_host_is_both_families_each_with_a_socket(open_all: Open, cleanup: ExitStack) -> None:
    sockets = open_all(infos(None), 0)
    for sock in sockets:
        cleanup.enter_context(sock)
    families = {socket.AF_INET, socket.AF_INET6} if socket.has_dualstack_ipv6() else {socket.AF_INET}
    assert {sock.family for sock in sockets} == families
    assert len({sock.getsockname()[1] for sock in sockets}) == 1


@both_kinds
def test_where_none_of_the_addresses_is_this_machine_s_that_is_said(open_all: Open) -> None:
    before = descriptors()
    with pytest.raises(OSError, match=r"(?i)assign") as caught:
        open_all(infos(NOT_OURS), 0)
    assert caught.value.errno == EADDRNOTAVAIL
    assert descriptors() == before


@both_kinds
def test_a_port_that_is_asked_for_and_taken_on_one_address_is_not_replaced(open_all: Open, cleanup: ExitStack) -> None:
    for sock in open_all(infos("127.0.0.2"), 0):
        cleanup.enter_context(sock)
        taken = sock.getsockname()[1]
    before = descriptors()
    with pytest.raises(OSError, match="in use"):
        open_all(infos("127.0.0.1") + infos("127.0.0.2"), taken)
    assert descriptors() == before


def test_a_free_port_that_is_taken_on_another_address_is_left_for_the_next(cleanup: ExitStack) -> None:
    refused: list[int] = []

    def bind(family: int, address: Address) -> socket.socket:
        if address[0] == "127.0.0.2" and len(refused) < 3:
            refused.append(address[1])
            raise OSError(EADDRINUSE, os.strerror(EADDRINUSE))
        return cleanup.enter_context(listen_on(family, address))

    before = descriptors()
    sockets = open_each(infos("127.0.0.1") + infos("127.0.0.2"), 0, bind)
    ports = {sock.getsockname()[1] for sock in sockets}
    assert len(sockets) == 2
    assert len(ports) == 1
    assert 0 not in refused
    assert len(descriptors()) == len(before) + 2, "what a port that would not do had opened stayed open"


def test_on_several_sockets_a_reply_leaves_by_the_one_that_heard_the_peer(cleanup: ExitStack) -> None:
    handler = Echo()
    endpoint = DatagramEndpoint(handler, is_server=True)
    sockets = open_udp_servers(infos("127.0.0.1") + infos("127.0.0.2"), 0)
    hosts = [Host(endpoint, cleanup.enter_context(sock)) for sock in sockets]
    peer = cleanup.enter_context(listen_on(socket.AF_INET, ("127.0.0.1", 0)))
    peer.settimeout(PATIENCE)
    for host in (hosts[1], hosts[0], hosts[1]):  # to the peer it is one conversation, with two addresses
        address = host.sock.getsockname()
        peer.sendto(DATAGRAM, address)
        host.read_when_ready()
        assert peer.recvfrom(100) == (DATAGRAM, address)
        assert handler.session.peer == peer.getsockname()
        assert handler.session.stats.packets_sent == len(handler.packets)
    assert handler.session.carrier.local == hosts[1].sock.getsockname()
    endpoint.abort(100)
    assert [host.sock.fileno() for host in hosts] == [-1, -1]


# One TCP connection.


class Conversation:
    """A session over a socket of ours, and the raw peer that it has."""

    def __init__(self, cleanup: ExitStack, handler: Handler, config: Config | None = None) -> None:
        self.loop = SelectLoop()
        cleanup.callback(self.loop.close)
        self.endpoint = Endpoint(handler, config, is_server=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.peer = cleanup.enter_context(socket.socket())
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer.connect(listener.getsockname())
            self.sock, self.address = listener.accept()
        self.peer.settimeout(PATIENCE)
        cleanup.callback(self.end)

    def begin(self, tls: Records | None = None) -> Session:
        """Begin the session."""
        self.host = StreamSocket(self.loop, self.endpoint, self.sock, self.address, tls)
        return self.host.session

    def until_there(self, size: int) -> None:
        """Wait until so many bytes lie in our socket, and turn nothing meanwhile."""
        deadline = time.monotonic() + PATIENCE
        self.sock.setblocking(False)
        while len(self.sock.recv(size, socket.MSG_PEEK)) < size:
            assert time.monotonic() < deadline, "the bytes never came"

    def reset(self) -> None:
        """The peer's power fails."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def end(self) -> None:
        if hasattr(self, "host"):
            self.host.abort()
        self.sock.close()


class EchoAtLength(Recorder):
    """Answers each packet with many more bytes."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        super().packet_received(session, packet)
        session.send(Packet(2, bytes(20_000)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forget what came before a reset")
@pytest.mark.parametrize("backlog", [False, True], ids=["no backlog", "a backlog"])
def test_all_that_came_before_a_reset_is_delivered_though_no_reply_can_go(cleanup: ExitStack, backlog: bool) -> None:
    handler = EchoAtLength()
    talk = Conversation(cleanup, handler)
    session = talk.begin()
    if backlog:
        for _ in range(50):
            session.send(Packet(3, bytes(20_000)))
        talk.loop.until(lambda: 0 < session.outstanding < 1_000_000)
    talk.peer.sendall(DATAGRAM * 50)
    talk.until_there(50 * len(DATAGRAM))
    talk.reset()
    talk.loop.until(lambda: session.is_over)
    assert len(handler.packets) == 50
    assert handler.ends == [CloseReason.RESET]


def test_a_socket_that_has_ended_is_not_watched_however_long_the_session_lives(cleanup: ExitStack) -> None:
    class Patient(Handler):
        def eof_received(self, session: Session) -> None:
            ended.append(session)

    ended: list[Session] = []
    talk = Conversation(cleanup, Patient())
    session = talk.begin()
    talk.peer.shutdown(socket.SHUT_WR)
    talk.loop.until(lambda: bool(ended))
    session.pause()
    session.resume()
    assert talk.loop.watches(talk.sock) == 0
    session.send(PING)
    talk.loop.turn()
    assert talk.peer.recv(100) == DATAGRAM


def test_a_socket_that_is_to_close_is_not_read_while_the_rest_goes(cleanup: ExitStack) -> None:
    talk = Conversation(cleanup, Handler())
    session = talk.begin()
    session.send(Packet(3, bytes(1_000_000)))
    talk.loop.turn()
    talk.host.close()
    talk.host.resume_reading()
    assert talk.loop.watches(talk.sock) == selectors.EVENT_WRITE


def test_room_is_waited_for_only_while_something_waits_for_it(cleanup: ExitStack) -> None:
    talk = Conversation(cleanup, Handler())
    session = talk.begin()
    session.send(PING)
    talk.loop.turn()
    assert talk.loop.watches(talk.sock) == selectors.EVENT_READ
    for _ in range(50):
        session.send(Packet(3, bytes(20_000)))
    talk.loop.turn()
    assert talk.loop.watches(talk.sock) & selectors.EVENT_WRITE
    calls = talk.loop.calls
    for _ in range(20):
        talk.loop.turn()
    assert talk.loop.calls <= calls + 5, "a socket without room was written to again and again"
    talk.peer.setblocking(False)

    def has_gone() -> bool:
        with suppress(BlockingIOError):
            talk.peer.recv(1 << 20)
        return session.outstanding == 0

    talk.loop.until(has_gone)
    assert talk.loop.watches(talk.sock) == selectors.EVENT_READ


def test_an_empty_write_tries_again_and_tells_no_lie(cleanup: ExitStack) -> None:
    talk = Conversation(cleanup, Handler())
    talk.begin()
    assert talk.host.write(b"") == 0
    size = 1_000_000
    gone, received = talk.host.write(bytes(size)), 0
    assert gone < size
    deadline = time.monotonic() + PATIENCE
    while received < size:
        received += len(talk.peer.recv(1 << 20))
        gone += talk.host.write(b"")
        assert received <= gone <= size
        assert time.monotonic() < deadline
    assert gone == size


def test_a_write_to_a_full_buffer_has_taken_nothing_and_goes_later(cleanup: ExitStack) -> None:
    talk = Conversation(cleanup, Handler())
    talk.begin()
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += talk.sock.send(bytes(1 << 16))
    assert [talk.host.write(b"one"), talk.host.write(b"two")] == [0, 0]
    received = bytearray()
    talk.peer.setblocking(False)

    def is_there() -> bool:
        with suppress(BlockingIOError):
            received.extend(talk.peer.recv(1 << 20))
        return len(received) == filled + 6

    talk.loop.until(is_there)
    assert received.endswith(b"onetwo")


def test_a_socket_tells_what_it_carries_also_when_it_has_gone(cleanup: ExitStack) -> None:
    talk = Conversation(cleanup, Handler())
    talk.begin()
    local = talk.sock.getsockname()
    assert talk.host.carrier() == Carrier("tcp", local, socket.AF_INET)
    assert talk.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    talk.host.abort()
    assert talk.host.carrier() == Carrier("tcp")


def test_a_socket_that_has_gone_still_says_what_it_carried(cleanup: ExitStack) -> None:
    tls = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    sock = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert carrier_of(sock, tls) == Carrier("tcp", sock.getsockname(), socket.AF_INET, tls)
    sock.close()
    assert carrier_of(sock, tls) == Carrier("tcp", tls=tls)
    host = Host(DatagramEndpoint(Handler()), bound(cleanup))
    assert host.carrier() == Carrier("udp", host.sock.getsockname(), socket.AF_INET)
    host.close()
    assert host.carrier() == Carrier("udp")


def test_an_address_is_told_as_people_write_it() -> None:
    addresses: list[Address] = [("192.0.2.1", 5), ("fe80::1", 5, 0, 2), ("fe80::1%2", 5, 0, 2), ("/run/x",), ("",)]
    told = ["192.0.2.1 port 5", "fe80::1%2 port 5", "fe80::1%2 port 5", "/run/x", "a Unix socket"]
    assert [address_text(address) for address in addresses] == told


@on_linux
@pytest.mark.parametrize("broadcast", [False, True])
def test_sockets_that_are_given_do_not_block_and_reach_as_far_as_was_asked(broadcast: bool, cleanup: ExitStack) -> None:
    sock = bound(cleanup)
    sock.setblocking(True)
    assert given_datagram_sockets(sock, "127.0.0.1", 0, broadcast=broadcast) == [sock]
    assert not sock.getblocking()
    assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)) is broadcast
    listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert given_listeners([listener], "127.0.0.1", 0) == [listener]
    assert not listener.getblocking()
    for one in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
        with one, pytest.raises(ValueError, match="is no datagram socket of UDP"):
            given_datagram_sockets(one, "127.0.0.1", 0, broadcast=False)


class Secure:
    """A server's context, and a raw client over TLS that says nothing by itself."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("server.example").configure_cert(self.context)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(client)
        self.records = TLSRecords(client, server_hostname="server.example")

    def begin(self, talk: Conversation) -> Session:
        """Shake hands, then begin the session."""
        agreed: list[Records | OSError] = []
        Handshake(talk.loop, talk.sock, self.context, agreed.append)
        talk.peer.setblocking(False)

        def is_agreed() -> bool:
            talk.peer.sendall(self.records.take())
            with suppress(BlockingIOError):
                self.records.receive(talk.peer.recv(1 << 16))
            talk.peer.sendall(self.records.take())
            return bool(agreed)

        talk.loop.until(is_agreed)
        assert isinstance(agreed[0], TLSRecords)
        return talk.begin(agreed[0])


def test_of_what_a_slow_tls_peer_leaves_only_a_small_part_is_encrypted(cleanup: ExitStack) -> None:
    talk, secure = Conversation(cleanup, Handler(), Config(max_outstanding=None)), Secure()
    session = secure.begin(talk)
    for _ in range(100):
        session.send(Packet(3, bytes(20_000)))
        talk.loop.turn()
    made = secure_bytes_made(talk.host)
    assert session.outstanding > 1_500_000
    assert made < 500_000
    received = bytearray()

    def has_all() -> bool:
        with suppress(BlockingIOError):
            received.extend(secure.records.receive(talk.peer.recv(1 << 20)))
        assert secure_bytes_made(talk.host) - len(received) < 500_000
        return session.outstanding == 0 and len(received) == 100 * len(encode(Packet(3, bytes(20_000))))

    talk.loop.until(has_all)
    assert bytes(received) == encode(Packet(3, bytes(20_000))) * 100


def secure_bytes_made(host: StreamSocket) -> int:
    assert isinstance(host._tls, TLSRecords)
    return host._tls._sent


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forget what came before a reset")
def test_over_tls_too_all_that_came_before_a_reset_is_delivered(cleanup: ExitStack) -> None:
    handler = EchoAtLength()
    talk, secure = Conversation(cleanup, handler), Secure()
    session = secure.begin(talk)
    for _ in range(50):
        session.send(Packet(3, bytes(20_000)))
    talk.loop.turn()
    secure.records.send(DATAGRAM * 50)
    records = secure.records.take()
    talk.peer.sendall(records)
    talk.until_there(len(records))
    talk.reset()
    talk.loop.until(lambda: session.is_over)
    assert len(handler.packets) == 50
    assert handler.ends == [CloseReason.RESET]


def test_a_handshake_that_is_called_off_tells_nobody_and_leaves_nothing(cleanup: ExitStack) -> None:
    talk, secure = Conversation(cleanup, Handler()), Secure()
    told: list[object] = []
    handshake = Handshake(talk.loop, talk.sock, secure.context, told.append, until=time.monotonic())
    handshake.cancel()
    handshake.cancel()
    for _ in range(3):
        talk.loop.turn()
    assert told == []
    assert talk.sock.fileno() == -1
    assert talk.peer.recv(1) == b""


@pytest.mark.parametrize("how", ["silence", "nonsense", "leaves"])
def test_a_handshake_that_fails_is_told_once_and_closes_its_socket(cleanup: ExitStack, how: str) -> None:
    talk, secure = Conversation(cleanup, Handler()), Secure()
    told: list[object] = []
    Handshake(talk.loop, talk.sock, secure.context, told.append, until=time.monotonic() + 0.05)
    if how == "nonsense":
        talk.peer.sendall(b"\xfe" * 100)
    elif how == "leaves":
        talk.peer.shutdown(socket.SHUT_WR)
    talk.loop.until(lambda: bool(told))
    kind = {"silence": TimeoutError, "nonsense": ssl.SSLError, "leaves": ConnectionResetError}[how]
    assert [type(error) for error in told] == [kind]
    assert talk.sock.fileno() == -1


class Answering(Records):
    """Answers each byte at length, and agrees at a full stop."""

    protocol = "something"
    error: OSError | None = None

    def __init__(self) -> None:
        self.heard_of = b""
        self._answer = b""

    def shake_hands(self, data: bytes) -> None:
        self.heard_of += data
        self._answer += data * 40
        self.is_open = data.endswith(b".")

    def take(self) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    def went(self, size: int) -> int:
        return 0

    def receive(self, data: bytes) -> bytes:
        raise NotImplementedError

    def send(self, data: object) -> None:
        raise NotImplementedError

    def close(self, *, going_away: bool = False) -> None:
        raise NotImplementedError

    def carrier(self, below: Carrier) -> Carrier:
        raise NotImplementedError


class NarrowSocket(socket.socket):
    """Has room for three bytes, every other time."""

    has_room = True
    error: OSError | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        if self.error is not None:
            raise self.error
        self.has_room = not self.has_room
        if self.has_room:
            raise BlockingIOError
        return super().send(data[:3], flags)


def test_what_a_handshake_has_to_say_waits_for_room_and_goes_in_order(cleanup: ExitStack) -> None:
    talk, records, told = Conversation(cleanup, Handler()), Answering(), list[object]()
    talk.sock = sock = NarrowSocket(fileno=talk.sock.detach())
    Handshake(talk.loop, sock, records, told.append)
    for said in (b"a", b"ab", b"ab."):
        talk.peer.sendall(said[-1:])
        talk.loop.until(lambda said=said: records.heard_of == said)  # type: ignore[misc]
    assert told == []
    talk.loop.until(lambda: bool(told))
    assert told == [records]
    assert talk.peer.recv(120, socket.MSG_WAITALL) == b"a" * 40 + b"b" * 40 + b"." * 40
    assert talk.loop.watches(sock) == 0


@pytest.mark.parametrize("own", [None, ConnectionAbortedError("the peer's fault")])
def test_a_handshake_whose_socket_breaks_says_so_unless_it_had_failed(cleanup: ExitStack, own: OSError | None) -> None:
    talk, records, told = Conversation(cleanup, Handler()), Answering(), list[object]()
    talk.sock = sock = NarrowSocket(fileno=talk.sock.detach())
    Handshake(talk.loop, sock, records, told.append)
    sock.error, records.error = ConnectionResetError("gone"), own
    talk.peer.sendall(b"a")
    talk.loop.until(lambda: bool(told))
    assert told == [own or sock.error]


def test_a_context_of_the_other_side_is_an_error_at_once(cleanup: ExitStack) -> None:
    talk = Conversation(cleanup, Handler())
    with pytest.raises(ssl.SSLError):
        Handshake(talk.loop, talk.sock, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), lambda result: None)
    assert talk.sock.fileno() == -1


# Connecting.


def ipv4(address: Address) -> AddressInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)


NO_FAMILY: AddressInfo = (999, socket.SOCK_STREAM, 0, "", ("::1", 7))
"""An address as IPv6 has them, on a system without it."""

NO_WAY: Any = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/dev/null/nowhere")
"""An address to which a socket cannot even begin to connect."""


def refusing(cleanup: ExitStack) -> Address:
    """Where nobody listens, and nobody will meanwhile."""
    sock = cleanup.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    address: Address = sock.getsockname()
    return address


class Dialling:
    """A `Dial` whose look-up is answered by the test, and what it told."""

    def __init__(self, cleanup: ExitStack, config: Config | None = None, context: ssl.SSLContext | None = None) -> None:
        self.loop = SelectLoop()
        cleanup.callback(self.loop.close)
        self.endpoint = Endpoint(Handler(), config)
        cleanup.callback(lambda: self.endpoint.abort(time.monotonic()))
        self.listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.told: list[Session | Exception] = []
        self.descriptors = descriptors()
        target = Target("device.example", 7000, context)
        self.dial = Dial(self.loop, self.endpoint, target, self._look_up, self._begin, self.told.append)

    def answer(self) -> None:
        """The look-up gives the listener's address."""
        self.looked_up([ipv4(self.listener.getsockname())])

    def _look_up(
        self, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
    ) -> None:
        assert (host, port, kind, flags) == ("device.example", 7000, socket.SOCK_STREAM, 0)
        self.looked_up = done

    def _begin(self, endpoint: Endpoint, sock: socket.socket, peer: Address, tls: Records | None) -> Session:
        self.sock = sock
        return StreamSocket(self.loop, endpoint, sock, peer, tls).session


def test_each_address_is_tried_in_turn_until_one_answers(cleanup: ExitStack) -> None:
    dialling, refused = Dialling(cleanup), refusing(cleanup)
    before = descriptors()
    address = dialling.listener.getsockname()
    dialling.looked_up([NO_FAMILY, NO_WAY, ipv4(refused), ipv4(address), ipv4(refused)])
    assert dialling.told == []
    dialling.loop.until(lambda: bool(dialling.told))
    (session,) = dialling.told
    assert isinstance(session, Session)
    assert session.peer == address
    assert session.is_open
    assert len(descriptors()) == len(before) + 1, "what an address that would not do had opened stayed open"
    assert dialling.loop.watches(dialling.sock) == selectors.EVENT_READ


def test_where_no_address_answers_the_last_one_says_why(cleanup: ExitStack) -> None:
    refused, unknown = refusing(cleanup), socket.gaierror(socket.EAI_NONAME, "unknown")
    answers: list[tuple[Found, str]] = [
        ([NO_FAMILY, ipv4(refused)], "refused"),
        ([ipv4(refused), NO_FAMILY], "not supported"),
        ([NO_FAMILY, NO_WAY], os.strerror(ENOTDIR)),
        ([], "no address"),
        (unknown, "unknown"),
    ]
    for found, text in answers:
        dialling = Dialling(cleanup)
        dialling.looked_up(found)
        dialling.loop.until(lambda told=dialling.told: bool(told))  # type: ignore[misc]
        (error,) = dialling.told
        assert text in str(error)
        assert descriptors() == dialling.descriptors


@pytest.mark.parametrize("when", ["before the look-up", "when the loop has yet to tell", "in the handshake"])
def test_a_dial_that_is_given_up_tells_nobody_and_leaves_nothing(when: str, cleanup: ExitStack) -> None:
    context = ssl.create_default_context() if when == "in the handshake" else None
    dialling = Dialling(cleanup, Config(connect_timeout=PATIENCE), context)
    if when != "before the look-up":
        dialling.answer()
    if when == "in the handshake":
        dialling.listener.settimeout(PATIENCE)
        dialling.loop.until(lambda: bool(select.select([dialling.listener], [], [], 0)[0]))
        peer = cleanup.enter_context(dialling.listener.accept()[0])
        dialling.descriptors.add(str(peer.fileno()))
        dialling.loop.until(lambda: bool(select.select([peer], [], [], 0)[0]))
    ready = dialling.loop.callbacks
    dialling.dial.cancel()
    dialling.dial.cancel()
    for callback in ready:
        callback()  # as a loop does that has found them ready in the same turn
    dialling.answer()
    dialling.looked_up(OSError("unknown"))
    dialling.loop.skip(2 * PATIENCE)
    dialling.loop.turn()
    assert dialling.told == []
    assert descriptors() == dialling.descriptors


@pytest.mark.parametrize("where", ["look-up", "connection", "handshake"])
def test_a_dial_takes_no_longer_than_connect_timeout(where: str, cleanup: ExitStack) -> None:
    context = ssl.create_default_context() if where == "handshake" else None
    dialling = Dialling(cleanup, Config(connect_timeout=0.05), context)
    if where == "connection":
        dialling.loop.set_writer = lambda sock, callback: None  # type: ignore[method-assign]
    if where != "look-up":
        dialling.answer()
    dialling.loop.until(lambda: bool(dialling.told))
    dialling.answer()
    for _ in range(3):
        dialling.loop.turn()
    (error,) = dialling.told
    assert isinstance(error, TimeoutError)
    assert "device.example port 7000" in str(error)
    assert descriptors() == dialling.descriptors


@pytest.mark.parametrize("outcome", ["session", "refused", "no name", "too late"])
def test_nothing_is_told_before_who_dials_knows_what_to_cancel(outcome: str, cleanup: ExitStack) -> None:
    loop, told = SelectLoop(), list[tuple[bool, object]]()
    endpoint = Endpoint(Handler(), Config(connect_timeout=1e-9 if outcome == "too late" else PATIENCE))
    cleanup.callback(loop.close)
    cleanup.callback(lambda: endpoint.abort(time.monotonic()))
    listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    host, port = refusing(cleanup) if outcome == "refused" else listener.getsockname()
    target = Target("\u00e4" * 64 if outcome == "no name" else host, port)
    kinds = {"session": Session, "refused": ConnectionRefusedError, "no name": UnicodeError, "too late": TimeoutError}
    dials: list[Dial] = []

    def begin(endpoint: Endpoint, sock: socket.socket, peer: Address, tls: Records | None) -> Session:
        return StreamSocket(loop, endpoint, sock, peer, tls).session

    def done(result: Session | Exception) -> None:
        told.append((bool(dials), isinstance(result, kinds[outcome])))

    dials.append(Dial(loop, endpoint, target, partial(look_up, loop), begin, done))
    loop.until(lambda: bool(told))
    assert told == [(True, True)]


def looked_up(host: str | None, flags: int = 0) -> Found:
    """What `look_up` tells, once."""
    loop, told, has_returned = SelectLoop(), list[Found](), list[bool]()

    def done(found: Found) -> None:
        assert has_returned, "told before the call had returned"
        told.append(found)

    look_up(loop, done, host, 80, socket.SOCK_STREAM, flags)
    has_returned.append(True)
    loop.until(lambda: bool(told))
    loop.turn()
    loop.close()
    assert len(told) == 1
    return told[0]


def test_an_address_is_looked_up_without_a_thread_and_a_name_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str | None, port: int, *, type: int, flags: int) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return real(host, port, type=type, flags=flags)
        asking.append(threading.current_thread())
        if host == "unknown.example":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [ipv4(("192.0.2.1", port))]

    real: Any = socket.getaddrinfo
    asking: list[threading.Thread] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for host, address in (("127.0.0.1", ("127.0.0.1", 80)), ("::1", ("::1", 80, 0, 0))):
        found = looked_up(host)
        assert not isinstance(found, Exception)
        assert [info[4] for info in found] == [address]
    assert not isinstance(looked_up(None, socket.AI_PASSIVE), Exception)
    assert isinstance(looked_up("\u00e4" * 64), UnicodeError)
    assert asking == []
    assert looked_up("device.example") == [ipv4(("192.0.2.1", 80))]
    assert isinstance(looked_up("unknown.example"), socket.gaierror)
    assert len(asking) == 2
    assert threading.current_thread() not in asking
    assert all(thread.daemon for thread in asking), "a resolver that hangs would keep a program from its end"


def test_where_no_thread_can_be_had_the_look_up_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert isinstance(looked_up("device.invalid"), RuntimeError)


# Listening.


class ShortOfDescriptors(socket.socket):
    """A listening socket that says so as often as a test wants."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.failures = failures

    def accept(self) -> tuple[socket.socket, Address]:
        if self.failures:
            self.failures -= 1
            raise OSError(EMFILE, os.strerror(EMFILE))
        return super().accept()


def test_who_reads_an_accepted_socket_first_never_waits_for_it(cleanup: ExitStack) -> None:
    loop = SelectLoop()
    cleanup.callback(loop.close)
    ours, theirs = map(cleanup.enter_context, socket.socketpair())
    begun = [HeaderReading(loop, ours, ("192.0.2.1", 1), print, None), FirstByte(loop, theirs, print, None)]
    assert not ours.getblocking()
    assert not theirs.getblocking()
    for each in begun:
        each.cancel()


class Accepting:
    """A `Listener`, and whom it has accepted."""

    def __init__(self, cleanup: ExitStack, failures: int = 0) -> None:
        self.loop = SelectLoop()
        cleanup.callback(self.loop.close)
        self.sock = ShortOfDescriptors(failures)
        self.listener = Listener(self.loop, self.sock, self._accepted)
        cleanup.callback(self.listener.close)
        self.peers: list[Address] = []
        self._cleanup = cleanup

    def connect(self) -> Address:
        peer = self._cleanup.enter_context(socket.create_connection(self.sock.getsockname(), PATIENCE))
        address: Address = peer.getsockname()
        return address

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        self._cleanup.enter_context(sock)
        self.peers.append(peer)


def test_a_listener_short_of_descriptors_pauses_as_often_as_it_takes_and_loses_nobody(
    cleanup: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    accepting = Accepting(cleanup, failures=3)
    waiting = [accepting.connect(), accepting.connect()]
    for failures in (2, 1, 0):
        accepting.loop.until(lambda left=failures: accepting.sock.failures == left)  # type: ignore[misc]
        accepting.loop.skip(0.5 * ACCEPT_PAUSE)
        accepting.loop.turn()
        assert accepting.loop.watches(accepting.sock) == 0, "the loop is kept busy by what cannot be accepted"
        assert accepting.peers == []
        accepting.loop.skip(0.5 * ACCEPT_PAUSE)
    accepting.loop.until(lambda: len(accepting.peers) == 2)
    assert accepting.peers == waiting
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    accepting.sock.failures = 1
    waiting.append(accepting.connect())
    accepting.loop.until(lambda: accepting.sock.failures == 0)
    accepting.loop.skip(ACCEPT_PAUSE)
    accepting.loop.until(lambda: len(accepting.peers) == 3)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2


@pytest.mark.parametrize("is_pausing", [False, True])
def test_a_listener_that_is_closed_accepts_nobody_any_more(cleanup: ExitStack, is_pausing: bool) -> None:
    accepting = Accepting(cleanup, failures=1 if is_pausing else 0)
    accepting.connect()
    if is_pausing:
        accepting.loop.until(lambda: accepting.sock.failures == 0)
    accepting.listener.close()
    accepting.listener.close()
    assert accepting.sock.fileno() == -1
    accepting.loop.skip(PATIENCE)
    accepting.loop.turn()
    assert accepting.peers == []


def test_a_listener_may_be_closed_by_whom_it_accepts(cleanup: ExitStack) -> None:
    def turn_away(sock: socket.socket, peer: Address) -> None:
        sock.close()
        listener.close()

    accepting = Accepting(cleanup)
    listener = Listener(accepting.loop, accepting.sock, turn_away)
    for _ in range(2):
        accepting.connect()
    accepting.loop.until(lambda: accepting.sock.fileno() < 0)


# Tasks.


class Soon:
    """The `call_soon` of a loop, whose turn comes when the test says so."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], object]] = deque()

    def __call__(self, callback: Callable[[], object]) -> None:
        self._queue.append(callback)

    def run(self) -> None:
        while self._queue:
            self._queue.popleft()()


def test_an_event_wakes_all_who_wait_in_their_order_and_lets_pass_who_comes_later() -> None:
    soon, log = Soon(), list[str]()
    event = Event(soon)

    async def wait(name: str) -> None:
        await event.wait()
        log.append(name)

    for name in "abc":
        Task(wait(name), soon, lambda name=name: log.append(f"{name} is over"))  # type: ignore[misc]
    soon.run()
    assert log == []
    event.set()
    event.set()
    assert log == [], "who sets it may be in the middle of its work"
    soon.run()
    assert log == ["a", "a is over", "b", "b is over", "c", "c is over"]
    late = Task(wait("d"), soon, lambda: log.append("d is over"))
    soon.run()
    late.cancel()
    soon.run()
    assert log[6:] == ["d", "d is over"]


def test_a_task_that_is_cancelled_before_it_began_runs_nothing_and_is_over() -> None:
    soon, log = Soon(), list[str]()

    async def run() -> None:
        log.append("ran")

    Task(run(), soon, lambda: log.append("over")).cancel()
    assert log == []
    soon.run()
    assert log == ["over"]


def test_a_task_is_cancelled_where_it_waits_once_and_may_wait_at_its_end() -> None:
    soon, log = Soon(), list[str]()
    first, second = Event(soon), Event(soon)

    async def run() -> None:
        try:
            await first.wait()
        finally:
            log.append("leaves")
            await second.wait()
            log.append("left")

    task = Task(run(), soon, lambda: log.append("over"))
    soon.run()
    task.cancel()
    task.cancel()
    first.set()  # too late, or in the same turn: it waits for something else by then
    soon.run()
    task.cancel()
    first.set()
    soon.run()
    assert log == ["leaves"]
    second.set()
    soon.run()
    assert log == ["leaves", "left", "over"]
    task.cancel()
    soon.run()
    assert log == ["leaves", "left", "over"]


def test_a_task_that_is_woken_when_it_is_cancelled_does_not_lose_what_it_was_woken_for() -> None:
    soon, log = Soon(), list[str]()
    event, never = Event(soon), Event(soon)

    async def run() -> None:
        await event.wait()
        log.append("woken")
        await never.wait()
        log.append("not cancelled")

    task = Task(run(), soon, lambda: log.append("over"))
    soon.run()
    event.set()
    task.cancel()
    soon.run()
    assert log == ["woken", "over"]


def test_what_a_task_raises_ends_it_alone_unless_it_ends_the_program() -> None:
    soon, log = Soon(), list[str]()

    async def fail(error: BaseException) -> None:
        log.append(type(error).__name__)
        raise error

    for error in (ValueError(), SystemExit(7), StopAsyncIteration()):
        Task(fail(error), soon, lambda: log.append("over"))
    with pytest.raises(SystemExit, match="7"):
        soon.run()
    soon.run()
    assert log == ["ValueError", "over", "SystemExit", "over", "StopAsyncIteration", "over"]


def test_a_task_is_told_that_it_waits_for_what_is_not_of_its_runtime() -> None:
    soon, log = Soon(), list[str]()

    class Foreign:
        def __await__(self) -> Iterator[None]:
            yield

    async def run() -> None:
        with pytest.raises(TypeError, match="cannot wait for None"):
            await Foreign()  # type: ignore[misc]
        log.append("told")

    Task(run(), soon, lambda: log.append("over"))
    soon.run()
    assert log == ["told", "over"]


# All of an adapter on a loop that has neither tasks nor transports.


def test_five_verbs_make_an_adapter(cleanup: ExitStack) -> None:
    runtime, ends = OwnRuntime(), list[str]()
    cleanup.callback(runtime.close)
    own = AsyncAdapter(lambda: runtime, AsyncStream, AsyncServer, AsyncClient)

    async def echo(stream: AsyncStream) -> None:
        async for packet in stream:
            await stream.send(packet)
            if packet.id == 13:
                try:
                    await runtime.new_event().wait()
                finally:
                    ends.append("cancelled")

    class Pool(AsyncConnectionPool):
        adapter = own

    async def main() -> None:
        before = descriptors()
        server = await own.serve(echo)
        serving = Task(server.serve_forever(), runtime.call_soon, lambda: ends.append("served"))
        host, port = server.address[:2]
        async with Pool(host, port) as pool, pool.acquire() as pooled:
            assert await pooled.request(PING) == PING
        async with await own.connect(host, port) as stream:
            await stream.send(Packet(13))
            assert await stream.recv() == Packet(13)
            with pytest.raises(TimeoutError, match="timeout"):
                await stream.request(PING, timeout=0.01)
            serving.cancel()
            await server.close(grace=0.01)
        with pytest.raises(ConnectionRefusedError):
            await own.connect(host, port)
        async with await own.serve_udp(echo) as server, await own.connect_udp(*server.address[:2]) as stream:
            assert await stream.request(PING) == PING
        assert ends == ["cancelled", "served"]
        assert descriptors() == before

    runtime.complete(main())
