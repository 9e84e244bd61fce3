"""A tap passes everything on as it came, unless it is told otherwise."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from random import Random

import pytest

from packetcore import Malformed, Packet, Reason, encode
from packetcore.framings import SLIP
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_tap import DIRECTIONS, Direction, Ending, Fault, Impairments, Tap, TapConnection, TapObserver
from packetcore_tap import _datagram_proxy as datagram_proxy
from packetcore_tap import _proxy as proxy

PING = encode(Packet(1, b"ping"))
SIZE = 3_000_000
BOTH = pytest.mark.parametrize("direction", DIRECTIONS)

Ends = Callable[..., tuple[Tap, Peer, Peer]]


class Endings(TapObserver):
    """Notes how connections ended."""

    def __init__(self) -> None:
        self.all: list[tuple[Ending, OSError | None]] = []

    def closed(self, connection: TapConnection, ending: Ending, error: OSError | None) -> None:
        self.all.append((ending, error))


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Gives a tap, a client of it and the server's end of the same connection."""
    with ExitStack() as opened:

        def connect(*, buffer: int | None = None, **options: object) -> tuple[Tap, Peer, Peer]:
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            if buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            listener.settimeout(DEADLINE)
            tap = opened.enter_context(Tap(listener.getsockname(), **options))  # type: ignore[arg-type]
            client = Peer.connect(tap.address, receive_buffer=buffer)
            opened.callback(client.close)
            server = Peer(listener.accept()[0])
            tap.wait_for(lambda: tap.connections[0].is_connected)
            opened.callback(server.close)
            return tap, client, server

        yield connect


def sides(client: Peer, server: Peer, direction: Direction) -> tuple[Peer, Peer]:
    """Who sends in a direction, and who receives."""
    return (client, server) if direction == "to_server" else (server, client)


def exchange(client: Peer, server: Peer, size: int) -> None:
    """Send as much both ways at a time, in pieces of any size, and see that it arrives, ends included."""
    data = Random(0).randbytes(size)

    def send(peer: Peer) -> None:
        random, at = Random(1), 0
        while at < size:
            step = random.randrange(1, 100_000)
            peer.send(data[at : at + step])
            at += step
        peer.finish()

    with ThreadPoolExecutor(4) as threads:
        sending = [threads.submit(send, peer) for peer in (client, server)]
        receiving = [threads.submit(peer.receive_rest) for peer in (client, server)]
        for done in sending:
            done.result()
        for received in receiving:
            assert received.result() == data


def stops(peer: Peer) -> int:
    """Send until nobody takes any more; how many bytes that were."""
    peer.sock.settimeout(0.2)
    sent = 0
    try:
        while sent < 100_000_000:
            sent += peer.sock.send(bytes(65536))
    except TimeoutError:
        peer.sock.settimeout(DEADLINE)
        return sent
    raise AssertionError("it goes on for ever")


@pytest.mark.parametrize(
    "impairments",
    [
        Impairments(),
        Impairments(latency=0.02, jitter=0.02),
        Impairments(cut=50_000, gap=0.0001),
        Impairments(merge=0.01),
        Impairments(bandwidth=30_000_000, buffer=100_000),
    ],
    ids=str,
)
def test_every_byte_arrives_in_order_and_then_the_end(ends: Ends, impairments: Impairments) -> None:
    tap, client, server = ends(to_server=impairments, to_client=impairments)
    exchange(client, server, SIZE)
    tap.wait_for(lambda: not tap.connections)
    assert [tap.passed(direction).bytes for direction in DIRECTIONS] == [SIZE, SIZE]


def test_what_is_cut_arrives_in_small_pieces(ends: Ends) -> None:
    pieces: list[bytes] = []
    observer = TapObserver()
    observer.passed = lambda connection, direction, data: pieces.append(data)  # type: ignore[method-assign]
    _, client, server = ends(to_server=Impairments(cut=3), observer=observer)
    client.send(PING * 20)
    assert server.receive(len(PING) * 20) == PING * 20
    assert {len(piece) for piece in pieces} == {1, 2, 3}


@BOTH
def test_one_side_may_finish_and_the_other_go_on(ends: Ends, direction: Direction) -> None:
    _, client, server = ends()
    first, other = sides(client, server, direction)
    first.send(b"question")
    first.finish()
    assert other.receive_rest() == b"question"
    other.send(b"answer")
    assert first.receive(6) == b"answer"
    other.finish()
    assert first.receive_rest() == b""


@BOTH
@pytest.mark.parametrize("latency", [0.0, 0.05])
def test_a_reset_on_one_side_is_one_on_the_other_behind_what_was_sent(
    ends: Ends, direction: Direction, latency: float
) -> None:
    observer, slow = Endings(), Impairments(latency=latency)
    tap, client, server = ends(to_server=slow, to_client=slow, observer=observer)
    first, other = sides(client, server, direction)
    first.send(b"last words")
    tap.wait_for(lambda: tap.passed(direction).bytes == 10)
    first.reset()
    assert other.receive(10) == b"last words"
    with pytest.raises(ConnectionResetError):
        other.receive_rest()
    tap.wait_for(lambda: observer.all)
    by = Ending.RESET_BY_CLIENT if direction == "to_server" else Ending.RESET_BY_SERVER
    assert observer.all == [(by, None)]


@BOTH
def test_who_sends_to_one_that_has_gone_is_reset(ends: Ends, direction: Direction) -> None:
    observer = Endings()
    tap, client, server = ends(observer=observer)
    first, other = sides(client, server, direction)
    other.close()
    assert first.receive_rest() == b""
    first.send(b"is there anybody?")
    tap.wait_for(lambda: observer.all)
    assert observer.all == [(Ending.RESET_BY_SERVER if direction == "to_server" else Ending.RESET_BY_CLIENT, None)]
    with pytest.raises(ConnectionError):
        first.send(bytes(SIZE))


@BOTH
def test_who_does_not_read_stops_who_sends(ends: Ends, direction: Direction) -> None:
    tap, client, server = ends(buffer=4096)
    first, other = sides(client, server, direction)
    sent = stops(first)
    assert len(other.receive(sent)) == sent
    first.send(PING)
    assert other.receive(len(PING)) == PING
    assert tap.passed(direction).bytes == sent + len(PING)


def test_a_target_that_is_down_costs_the_client_its_connection() -> None:
    with socket.socket() as nobody, ExitStack() as opened:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        observer = Endings()
        tap = opened.enter_context(Tap(nobody.getsockname(), observer=observer))
        with pytest.raises(ConnectionResetError), socket.create_connection(tap.address) as sock:
            sock.recv(1)
        tap.wait_for(lambda: observer.all)
        ((ending, error),) = observer.all
    assert ending is Ending.UNREACHABLE
    assert isinstance(error, ConnectionRefusedError)


def test_many_connections_are_kept_apart() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=300) as listener, ExitStack() as opened:
        listener.settimeout(DEADLINE)
        tap = opened.enter_context(Tap(listener.getsockname(), to_server=Impairments(jitter=0.05, cut=2)))
        clients = [Peer.connect(tap.address) for _ in range(150)]
        servers = [Peer(listener.accept()[0]) for _ in clients]
        for peer in (*clients, *servers):
            opened.callback(peer.close)
        for number, client in enumerate(clients):
            client.send(b"%03d" % number)
        assert sorted(server.receive(3) for server in servers) == [b"%03d" % number for number in range(150)]
        assert [connection.number for connection in tap.connections] == [*range(1, 151)]


@pytest.mark.parametrize("seed", range(40))
def test_a_connection_is_over_once_both_sides_have_gone_whatever_they_did(ends: Ends, seed: int) -> None:
    random = Random(seed)

    def line() -> Impairments:
        cut, bandwidth, buffer = random.choice([None, 5000]), random.choice([None, 5e6]), random.choice([5000, 1 << 18])
        return Impairments(latency=random.choice([0.0, 0.01]), cut=cut, bandwidth=bandwidth, buffer=buffer)

    tap, *peers = ends(to_server=line(), to_client=line(), seed=seed)
    doing: list[Callable[[Peer], object]] = [
        lambda peer: peer.send(bytes(random.randrange(1, 400_000))),
        lambda peer: peer.sock.recv(300_000),
        Peer.finish,
        Peer.close,
        Peer.reset,
        lambda peer: tap.stall(random.choice([*DIRECTIONS])),
        lambda peer: tap.resume(),
    ]
    for peer in peers:
        peer.sock.settimeout(0.02)
    for _ in range(random.randrange(1, 12)):
        with suppress(OSError):  # it has gone, or waits for the other
            random.choice([doing[0], doing[1], *doing])(random.choice(peers))
    tap.resume()
    for peer in peers:
        peer.close()
    tap.wait_for(lambda: not tap.connections)


def test_packets_are_seen_and_what_is_malformed(ends: Ends) -> None:
    tap, client, server = ends()
    client.send(PING[:5])
    client.send(PING[5:] + b"\xfe\xfd\x07\xfe")
    server.send(encode(Packet(2)))
    client.send(b"\xfe\x00")
    client.finish()
    server.receive_rest()
    assert client.receive(11)
    tap.wait_for(lambda: len(tap.seen) == 4)
    seen = [(each.connection, each.direction, each.event) for each in tap.seen if each.direction == "to_server"]
    assert seen[0] == (1, "to_server", Packet(1, b"ping"))
    reasons = [event.reason for _, _, event in seen if isinstance(event, Malformed)]
    assert reasons == [Reason.BAD_ESCAPE, Reason.TRUNCATED]
    assert [each.event for each in tap.seen if each.direction == "to_client"] == [Packet(2)]
    passed = tap.passed("to_server")
    assert (passed.packets, passed.malformed, passed.bytes) == (1, 2, len(PING) + 4 + 2)


def test_frames_of_another_framing_are_seen(ends: Ends) -> None:
    tap, client, _ = ends(framing=SLIP())
    client.send(SLIP().encode(b"\xc0hello"))
    tap.wait_for(lambda: tap.seen)
    assert [each.event for each in tap.seen] == [b"\xc0hello"]


def test_a_stall_holds_everything_until_it_is_over(ends: Ends) -> None:
    tap, client, server = ends(buffer=4096)
    tap.stall("to_server")
    client.send(PING)
    server.send(b"the other way is open")
    assert client.receive(21) == b"the other way is open"
    sent = stops(client)
    assert tap.passed("to_server").bytes == 0
    tap.resume()
    assert server.receive(len(PING) + sent) == PING + bytes(sent)


def test_a_black_hole_takes_everything_and_tells_nobody(ends: Ends) -> None:
    tap, client, server = ends()
    client.send(PING)
    assert server.receive(len(PING)) == PING
    tap.black_hole()
    client.send(bytes(SIZE))
    client.reset()
    server.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.receive(1)
    server.sock.settimeout(DEADLINE)
    server.close()
    tap.wait_for(lambda: not tap.connections)


def test_what_is_told_a_tap_holds_for_connections_to_come(ends: Ends) -> None:
    tap, client, server = ends()
    tap.black_hole("to_server")
    tap.resume()
    client.send(PING)
    server.send(PING)  # the first stays a black hole, one way
    assert client.receive(len(PING)) == PING
    with pytest.raises(ValueError, match="direction='up' is none of"):
        tap.stall("up")  # type: ignore[arg-type]
    tap.stall()
    with socket.create_server(("127.0.0.1", 0)) as listener, Tap(listener.getsockname()) as later:
        later.black_hole()
        later.resume()  # for those to come it is over
        later.stall("to_server")
        with Peer.connect(later.address).sock as sock:
            accepted = Peer(listener.accept()[0])
            sock.sendall(PING)
            accepted.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                accepted.receive(1)
            later.resume()
            accepted.sock.settimeout(DEADLINE)
            assert accepted.receive(len(PING)) == PING
            accepted.close()
    assert tap.passed("to_server").bytes == 0


def test_a_reset_reaches_both_sides(ends: Ends) -> None:
    tap, client, server = ends()
    tap.reset()
    assert tap.connections == []
    for peer in (client, server):
        with pytest.raises(ConnectionResetError):
            peer.receive(1)


def test_a_close_is_an_end_in_good_order_on_both_sides(ends: Ends) -> None:
    tap, client, server = ends(to_server=Impairments(latency=60.0))
    client.send(PING)
    (connection,) = tap.connections
    connection.close()
    assert (client.receive_rest(), server.receive_rest()) == (b"", b"")
    client.close()
    server.close()
    tap.wait_for(lambda: not connection.is_open)


def test_new_connections_are_refused_and_then_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Tap(listener.getsockname()) as tap:
        old = Peer.connect(tap.address)
        there = Peer(listener.accept()[0])
        for _ in range(2):
            tap.refuse()
            with pytest.raises(ConnectionRefusedError):
                Peer.connect(tap.address)
        old.send(PING)
        assert there.receive(len(PING)) == PING
        for _ in range(2):
            tap.accept()
            Peer.connect(tap.address).close()
        old.close()
        there.close()


def test_one_whose_port_was_taken_while_it_refused_accepts_once_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(info: object) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "listening: in use")

    with socket.create_server(("127.0.0.1", 0)) as listener, Tap(listener.getsockname()) as tap:
        with monkeypatch.context() as patch:
            patch.setattr(proxy, "_bound", taken)
            for change in (tap.refuse, tap.accept):
                with pytest.raises(OSError, match="in use"):
                    change()
        tap.accept()
        Peer.connect(tap.address).close()


@BOTH
@pytest.mark.parametrize("size", [1, 5, len(PING), 30])
def test_a_fault_happens_at_its_very_byte(ends: Ends, direction: Direction, size: int) -> None:
    tap, client, server = ends(faults=[Fault("close", size, direction=direction)])
    first, other = sides(client, server, direction)
    first.send(PING * 5)
    assert other.receive_rest() == (PING * 5)[:size]
    assert tap.passed(direction).bytes == size


def test_a_fault_may_happen_before_the_first_byte() -> None:
    observer = Endings()
    with Tap(("127.0.0.1", 1), faults=[Fault("reset", 0)], observer=observer) as tap:
        with pytest.raises(ConnectionResetError), socket.create_connection(tap.address) as sock:
            sock.recv(1)
        tap.wait_for(lambda: observer.all)
    assert observer.all == [(Ending.RESET_BY_TAP, None)]


def test_faults_take_turns(ends: Ends) -> None:
    faults = [Fault("stall", after_bytes=4, direction="to_server"), Fault("reset", after_seconds=0.3)]
    tap, client, server = ends(faults=faults)
    client.send(b"abcdef")
    assert server.receive(4) == b"abcd"
    with pytest.raises(ConnectionResetError):
        server.receive(1)
    assert tap.passed("to_server").bytes == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"action": "explode", "after_bytes": 1}, "action='explode' is none of"),
        ({"action": "reset"}, "after_bytes=None, after_seconds=None: give one of them"),
        ({"action": "stall", "after_bytes": 1, "direction": "up"}, "direction='up' is none of"),
        ({"action": "reset", "after_seconds": -1}, "reset after -1 must not be below 0"),
    ],
)
def test_wrong_faults_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Fault(**options)  # type: ignore[arg-type]


def test_the_same_seed_does_the_same(ends: Ends) -> None:
    def received(seed: int) -> bytes:
        _, client, server = ends(to_server=Impairments(corrupt=0.05), seed=seed)
        client.send(bytes(1000))
        return server.receive(1000)

    assert received(1) == received(1) != received(2)


def test_impairments_change_while_it_runs(ends: Ends) -> None:
    tap, client, server = ends(to_server=Impairments(latency=60.0))
    tap.to_server = Impairments(latency=0.1)
    began = time.monotonic()
    client.send(PING)
    server.receive(len(PING))  # long before a minute is over
    assert time.monotonic() - began >= 0.1


def test_an_observer_may_use_the_tap_and_one_that_fails_is_logged(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    class Cutting(TapObserver):
        def seen(self, connection: TapConnection, seen: object) -> None:
            connection.reset()
            raise ValueError("not mine")

    tap, client, _ = ends(observer=Cutting())
    client.send(PING)
    with pytest.raises(ConnectionResetError):
        client.receive(1)
    tap.wait_for(lambda: "the observer of a tap failed in 'seen'" in caplog.text)


def test_what_never_comes_true_is_told(ends: Ends) -> None:
    tap, _, _ = ends()
    with pytest.raises(TimeoutError, match=r"it did not come true within 0\.01 s"):
        tap.wait_for(lambda: False, timeout=0.01)


def test_where_it_cannot_listen_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        with pytest.raises(OSError, match=f"listening on {host} port {port}: Address already in use"):
            Tap(("127.0.0.1", 1), (host, port))
    with pytest.raises(OSError, match=r"looking up nobody\.invalid port 1: "):
        Tap(("nobody.invalid", 1))
    with pytest.raises(ValueError, match="max_payload=-1 is out of range"):
        Tap(("127.0.0.1", 1), max_payload=-1)


def test_the_program_on_the_page_runs() -> None:
    page = (Path(__file__).parent.parent / "tap/README.md").read_text(encoding="utf-8")
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if " Tap(" in block)
    done = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "the session is closed: RESET"


class Datagrams:
    """A server of datagrams, a tap on it and clients of that."""

    def __init__(self, **options: object) -> None:
        self._opened = ExitStack()
        self.server = DatagramPeer()
        self._opened.callback(self.server.close)
        self.tap = self._opened.enter_context(Tap(self.server.address, udp=True, **options))  # type: ignore[arg-type]

    def client(self) -> DatagramPeer:
        client = DatagramPeer(self.tap.address)
        self._opened.callback(client.close)
        return client

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()


def test_datagrams_pass_both_ways_and_clients_are_kept_apart() -> None:
    with Datagrams() as it:
        for client in (it.client(), it.client()):
            client.send(PING, b"", bytes(60_000))
            received = [it.server.receive_from() for _ in range(3)]
            assert [data for data, _ in received] == [PING, b"", bytes(60_000)]
            it.server.send_to(b"answer", received[0][1])
            assert client.receive() == b"answer"
        assert [each.client for each in it.tap.connections] != [received[0][1]]
        assert [each.event for each in it.tap.seen if isinstance(each.event, Packet)] == [Packet(1, b"ping")] * 2
        assert it.tap.passed("to_server").malformed == 2


def test_datagrams_are_lost_and_doubled_by_the_seed() -> None:
    def received(seed: int) -> list[bytes]:
        with Datagrams(to_server=Impairments(loss=0.3, duplication=0.3), seed=seed) as it:
            client = it.client()
            client.send(*(b"%d" % number for number in range(100)), *[b"end"] * 50)
            return [*iter(it.server.receive, b"end")]

    first = received(1)
    assert first == received(1) != received(2)
    assert len({*first}) < 100
    assert len(first) > len({*first})


def test_a_client_that_is_forgotten_comes_from_another_port() -> None:
    with Datagrams() as it:
        client = it.client()
        client.send(b"before")
        _, before = it.server.receive_from()
        it.tap.reset()
        client.send(b"after")
        _, after = it.server.receive_from()
        assert before != after
        it.server.send_to(b"answer", after)
        assert client.receive() == b"answer"


def test_one_client_too_many_costs_the_one_that_is_silent_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_proxy, "MAX_CLIENTS", 2)
    observer = Endings()
    with Datagrams(observer=observer) as it:
        first, second, third = it.client(), it.client(), it.client()
        for client in (first, second, first, third):
            client.send(PING)
            it.server.receive_from()
        assert [each.client for each in it.tap.connections] == [first.sock.getsockname(), third.sock.getsockname()]
    assert observer.all[0] == (Ending.IDLE, None)


def test_a_client_that_is_silent_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_proxy, "IDLE_TIMEOUT", 0.05)
    observer = Endings()
    with Datagrams(observer=observer) as it:
        client, began = it.client(), time.monotonic()
        while time.monotonic() < began + 0.1:
            client.send(PING)
            it.server.receive()
        assert it.tap.opened == 1
        it.tap.wait_for(lambda: observer.all)
    assert observer.all == [(Ending.IDLE, None)]


def test_datagrams_to_nobody_are_told_once() -> None:
    errors: list[OSError] = []
    observer = TapObserver()
    observer.failed = lambda connection, error: errors.append(error)  # type: ignore[method-assign]
    with Datagrams(observer=observer) as it:
        it.server.close()
        client = it.client()
        client.send(PING)
        it.tap.wait_for(lambda: errors)
        client.send(PING, PING)
        it.tap.wait_for(lambda: it.tap.passed("to_server").bytes + 14 * it.tap.passed("to_server").dropped)
        assert isinstance(errors[0], ConnectionRefusedError)
        assert len(errors) == 1


def test_that_there_is_no_way_to_the_target_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: SimpleQueue[object] = SimpleQueue()

    def unreachable(infos: object) -> object:
        asked.put(infos)
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with Datagrams() as it:
        client = it.client()
        with monkeypatch.context() as patch:
            patch.setattr(datagram_proxy, "open_udp_client", unreachable)
            client.send(b"lost")
            client.send(b"lost, too")
            for _ in range(2):
                asked.get(timeout=DEADLINE)
        client.send(PING)
        assert it.server.receive() == PING
    (said,) = caplog.messages
    assert re.fullmatch(r"datagrams are lost, there is no way to .*: Network is unreachable", said)


def test_over_udp_nobody_listens_while_it_refuses() -> None:
    with Datagrams() as it:
        client = it.client()
        it.tap.refuse()
        client.send(PING)
        with pytest.raises(ConnectionRefusedError):
            client.receive()
        it.tap.accept()
        client.send(PING)
        assert it.server.receive() == PING
        it.tap.stall()
        client.send(b"held")
        it.tap.black_hole("to_client")
        it.tap.resume()
        assert it.server.receive() == b"held"
