"""What the adapters over plain sockets share: reading and writing a UDP socket, and opening one."""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENODEV

import pytest

from packetcore import (
    Address,
    CloseReason,
    Config,
    DatagramEndpoint,
    Endpoint,
    Handler,
    Malformed,
    Packet,
    Reason,
    Session,
    encode,
)
from packetcore_sockets import (
    READ_AT_ONCE,
    AddressInfo,
    DatagramSocket,
    open_udp_client,
    open_udp_server,
    wildcard,
)

PING = Packet(1, b"ping")
DATAGRAM = encode(PING)
PATIENCE = 10.0
"""Seconds until something that has to happen is given up."""

needs_error_queue = pytest.mark.skipif(not hasattr(socket, "MSG_ERRQUEUE"), reason="errors have addresses on Linux")


class Host(DatagramSocket):
    """The rest of a `packetcore.DatagramHost`, on a clock that stands still."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, is_connected: bool = False) -> None:
        super().__init__(endpoint, sock, lambda: 100.0, is_connected)
        self.endpoint.host = self

    def set_timer(self, at: float | None) -> None:
        pass

    def wake(self) -> None:
        pass

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
    return [(*info[:4], info[4]) for info in socket.getaddrinfo(wildcard(host), port, type=socket.SOCK_DGRAM)]


def bound(cleanup: ExitStack) -> socket.socket:
    return cleanup.enter_context(open_udp_server(infos("127.0.0.1")))


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
    assert host.endpoint.stats.errors == 0


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
        Host(Endpoint(Handler()), bound(cleanup))


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
            lambda port: open_udp_server(infos("127.0.0.1", port)),
            EADDRINUSE,
            "binding to 127.0.0.1 port {port}: Address already in use",
        ),
        (
            lambda port: open_udp_server(infos(NOT_OURS, port)),
            EADDRNOTAVAIL,
            "binding to 192.0.2.1 port {port}: Cannot assign requested address",
        ),
        (
            lambda port: open_udp_server(infos(NOT_OURS), multicast_group="239.1.2.3"),
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
        open_udp_server(infos("127.0.0.1"), multicast_group=group)
    assert descriptors() == before


def test_a_name_that_no_system_can_encode_leaves_no_descriptor() -> None:
    before = descriptors()
    with pytest.raises((TypeError, ValueError)) as caught:
        open_udp_client(infos("127.0.0.1", 9), local_host="\u00e4" * 64)
    assert descriptors() == before
    del caught


def test_the_first_address_that_works_is_taken_and_the_others_leave_nothing(cleanup: ExitStack) -> None:
    peer = bound(cleanup)
    before = descriptors()
    with open_udp_server(infos(NOT_OURS) + infos("127.0.0.1")) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
    candidates = infos("255.255.255.255", 9) + infos(*peer.getsockname())
    sock, addr, is_connected = open_udp_client(candidates)
    with sock:
        assert (addr, is_connected) == (peer.getsockname(), True)
    assert descriptors() == before


def test_where_replies_may_come_from_elsewhere_the_client_is_not_connected(cleanup: ExitStack) -> None:
    peer = bound(cleanup).getsockname()
    for host, broadcast in ((peer[0], True), ("239.1.2.3", False)):
        sock, addr, is_connected = open_udp_client(infos(host, peer[1]), broadcast=broadcast, local_host="127.0.0.1")
        with sock:
            assert (addr, is_connected) == ((host, peer[1]), False)
            assert sock.getsockname()[0] == "127.0.0.1"


@on_linux
@pytest.mark.parametrize("host", ["127.0.0.1", None])
def test_a_group_can_be_joined_on_one_interface_or_where_the_system_likes(host: str | None) -> None:
    with open_udp_server(infos(host), multicast_group="239.1.2.3") as sock:
        assert sock.getsockname()[0] == "0.0.0.0"
        assert sock.getsockname()[1] != 0


def test_every_address_of_this_machine_is_one_socket(cleanup: ExitStack) -> None:
    handler = Recorder()
    sock = cleanup.enter_context(open_udp_server(infos(None)))
    host = Host(DatagramEndpoint(handler, is_server=True), sock)
    local, port = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"], sock.getsockname()[1]
    for address in local:
        client, _, _ = open_udp_client(infos(address, port))
        with client:
            client.send(DATAGRAM)
            host.read_when_ready()
    assert len(handler.packets) == len(local)
