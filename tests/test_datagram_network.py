"""Endpoints that talk over a network that loses, doubles and reorders: what holds all the same."""

from __future__ import annotations

import socket
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from packetcore import Address, CloseReason, Config, DatagramEndpoint, Handler, Packet, Session, decode
from packetcore_conformance.simulation import Host, Impairments, Simulation
from packetcore_sockets import DatagramSocket

SERVER: Address = ("192.0.2.1", 5000)
HELLO, ORDER = 1, 2


@dataclass(frozen=True)
class Faults:
    """What happens to datagrams."""

    loss: float = 0.0
    """A chance from 0 to 1."""
    duplication: float = 0.0
    """Likewise."""
    jitter: float = 0.0
    """By how much longer than others one may take, in seconds: more than the time between two of them changes
    their order."""
    full: bool = False
    """Whether the sender's own system has no room now and then."""
    early: float = 0.0
    """The chance that a timer fires once too early, and once more when it is due."""


class Network:
    """A simulation with endpoints on it, each with a socket of its own. What any endpoint must keep to, whatever it
    is used for, is asserted here."""

    def __init__(self, seed: int, faults: Faults | None = None) -> None:
        self.faults = faults = Faults() if faults is None else faults
        buffer, bandwidth = (60, 2_000.0) if faults.full else (None, None)
        path = Impairments(
            latency=0.05,
            jitter=faults.jitter,
            loss=faults.loss,
            duplication=faults.duplication,
            buffer=buffer,
            bandwidth=bandwidth,
        )
        self.simulation = Simulation(seed, impairments=path)
        self.random = self.simulation.random.random
        self.at = self.simulation.at
        self.sent: Counter[Address] = Counter()
        """How many datagrams each address has sent, and its system taken."""
        self.copies: Counter[tuple[Address, Address, bytes]] = Counter()
        """How many copies of each datagram were delivered, by sender and receiver."""
        self.simulation.wires.carried = self._carried

    @property
    def now(self) -> float:
        return self.simulation.now

    def attach(self, addr: Address, endpoint: DatagramEndpoint) -> None:
        """Give an endpoint a socket of its own."""
        host = self.simulation.host(addr[0], addr[0])
        (sock,) = host.open_udp_servers([(socket.AF_INET, socket.SOCK_DGRAM, 0, "", addr)], addr[1])
        Socket(self, host, endpoint, sock)

    def run(self) -> None:
        """Let time pass until nothing is left to happen."""
        self.simulation.world.run(lambda: self.simulation.world.events > 100_000)
        assert self.simulation.world.events <= 100_000

    def _carried(self, source: Address, target: Address, data: bytes) -> None:
        self.copies[source, target, data] += 1


class Socket(DatagramSocket):
    """Counts what it sends, and has timers that fire too early."""

    def __init__(self, network: Network, host: Host, endpoint: DatagramEndpoint, sock: socket.socket) -> None:
        self.network = network
        self.endpoint = endpoint
        self.addr: Address = sock.getsockname()
        self.timer: float | None = None
        self.is_closed = False
        super().__init__(host, endpoint, sock)

    def write_to(self, data: bytes, addr: Address) -> None:
        assert not self.is_closed
        super().write_to(data, addr)
        self.network.sent[self.addr] += 1

    def set_timer(self, at: float | None) -> None:
        assert at is None or not self.is_closed
        self.timer = at
        super().set_timer(at)
        network = self.network
        if at is not None and network.random() < network.faults.early:
            network.at(network.now + (at - network.now) * network.random(), self.tick)

    def close(self) -> None:
        assert not self.is_closed
        assert self.timer is None
        self.is_closed = True
        super().close()

    def tick(self) -> None:
        if not self.is_closed:
            self.endpoint.tick(self.network.now)
            assert self.timer is None or self.timer > self.network.now, "the next timer is later than now"


seeds = st.integers(0, 2**32 - 1)
some = st.sampled_from([0.0, 0.1, 0.5])
all_faults = st.builds(
    Faults, loss=some, duplication=some, jitter=st.sampled_from([0.0, 0.02, 2.0]), full=st.booleans(), early=some
)
WHOLE = Config(idle_timeout=None)
IN_PIECES = Config(idle_timeout=None, datagram_stream=True, datagram_chunk=16)
few = settings(max_examples=max(40, settings().max_examples // 3))


def client_address(number: int) -> Address:
    return (f"198.51.100.{number % 3}", 40_000 + number)


def attach(network: Network, addr: Address, handler: Handler, config: Config) -> DatagramEndpoint:
    """An endpoint at an address: the server at `SERVER`, a client elsewhere."""
    endpoint = DatagramEndpoint(handler, config, is_server=addr == SERVER)
    network.attach(addr, endpoint)
    return endpoint


class Collector(Handler):
    """Keeps each peer's packets, and when and why each session ended."""

    def __init__(self, network: Network, *, echo: bool = False) -> None:
        self.network = network
        self.echo = echo
        self.packets: defaultdict[Address, list[Packet]] = defaultdict(list)
        self.heard: dict[int, float] = {}
        self.live: dict[Address, Session] = {}
        self.ended: list[tuple[int, CloseReason, float]] = []

    def connected(self, session: Session) -> None:
        assert session.peer not in self.live
        self.live[session.peer] = session
        self.heard[session.id] = self.network.now

    def packet_received(self, session: Session, packet: Packet) -> None:
        assert self.live[session.peer] is session
        self.packets[session.peer].append(packet)
        self.heard[session.id] = self.network.now
        if self.echo:
            session.send(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        assert self.live.pop(session.peer) is session
        self.ended.append((session.id, reason, self.network.now))


@few
@given(seeds, all_faults, st.integers(1, 4), st.integers(1, 12))
def test_what_was_sent_is_delivered_to_its_receiver_as_often_as_it_was_carried_and_nothing_else_is(
    seed: int, faults: Faults, clients: int, turns: int
) -> None:
    network, config = Network(seed, faults), Config(idle_timeout=None)
    server = Collector(network, echo=True)
    endpoint = attach(network, SERVER, server, config)
    collectors: list[Collector] = []
    sessions: list[Session] = []
    sent: list[list[Packet]] = []
    for number in range(clients):
        collectors.append(Collector(network))
        client = attach(network, client_address(number), collectors[-1], config)
        session = client.open(SERVER, network.now)
        sessions.append(session)
        sent.append([])
        for turn in range(turns):
            packet = Packet(
                turn, bytes([number, *(b"\xfd\xfe\x01\x02\x00\xff"[int(network.random() * 6)] for _ in range(turn))])
            )
            sent[-1].append(packet)
            network.at(network.now + turn * 0.01, partial(session.send, packet))
    network.run()
    carried: defaultdict[tuple[Address, Address], Counter[Packet]] = defaultdict(Counter)
    for (source, target, datagram), copies in network.copies.items():
        carried[source, target][decode(datagram)] += copies
    for number, session in enumerate(sessions):
        addr = client_address(number)
        assert Counter(server.packets[addr]) == carried[addr, SERVER]
        assert Counter(collectors[number].packets[SERVER]) == carried[SERVER, addr]
        assert {*server.packets[addr], *collectors[number].packets[SERVER]} <= {*sent[number]}
        assert session.stats.packets_sent == turns
        assert session.stats.packets_sent - session.stats.packets_dropped == network.sent[addr]
    assert endpoint.stats.opened == len(endpoint.sessions) == sum(map(bool, server.packets.values()))


@few
@given(seeds, st.integers(1, 4), st.integers(1, 30), st.sampled_from([WHOLE, IN_PIECES]))
def test_without_faults_everything_is_delivered_once_and_in_order(
    seed: int, clients: int, turns: int, config: Config
) -> None:
    network = Network(seed)
    server = Collector(network, echo=True)
    attach(network, SERVER, server, config)
    collectors = []
    packets = [Packet(turn, bytes(turn)) for turn in range(turns)]
    for number in range(clients):
        collectors.append(Collector(network))
        session = attach(network, client_address(number), collectors[-1], config).open(SERVER, network.now)
        for packet in packets:
            when = network.now + packet.id // (1 + int(network.random() * 3)) * 0.001
            network.at(max(when, network.now), partial(session.send, packet))
    network.run()
    assert [len(collector.packets[SERVER]) for collector in collectors] == [turns] * clients
    for number, collector in enumerate(collectors):
        assert collector.packets[SERVER] == server.packets[client_address(number)]


@few
@given(seeds, all_faults, st.integers(1, 3), st.lists(st.integers(7, 20), min_size=1, max_size=12, unique=True))
def test_pieces_that_are_lost_doubled_and_overtaken_make_no_packet_that_nobody_sent(
    seed: int, faults: Faults, clients: int, sizes: list[int]
) -> None:
    """Frames of two pieces and of different sizes: those of one size could be mixed, which the format cannot tell."""
    network = Network(seed, faults)
    server = Collector(network, echo=True)
    endpoint = attach(network, SERVER, server, IN_PIECES)
    collectors: list[Collector] = []
    sent: list[list[Packet]] = []
    for number in range(clients):
        collectors.append(Collector(network))
        session = attach(network, client_address(number), collectors[-1], IN_PIECES).open(SERVER, network.now)
        sent.append([Packet(turn, bytes([number + 1]) * size) for turn, size in enumerate(sizes)])
        for turn, packet in enumerate(sent[-1]):
            network.at(network.now + turn * 0.01, partial(session.send, packet))
    network.run()
    for number, collector in enumerate(collectors):
        assert {*server.packets[client_address(number)]} <= {*sent[number]}
        assert {*collector.packets[SERVER]} <= {*server.packets[client_address(number)]}
        if not (faults.loss or faults.full) and faults.jitter < 0.01:
            assert {*collector.packets[SERVER]} == {*sent[number]}
    assert not server.ended
    assert endpoint.stats.opened == len(endpoint.sessions)


class Sender(Handler):
    """Stop and wait: sends one item again and again until it is acknowledged, then the next."""

    def __init__(self, network: Network, items: list[bytes]) -> None:
        self.network = network
        self.items = items
        self.at = 0

    def connected(self, session: Session) -> None:
        self._send(session, 0)

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.id == self.at < len(self.items):
            self.at += 1
            self._send(session, self.at)

    def _send(self, session: Session, at: int) -> None:
        if at == self.at < len(self.items):
            session.send(Packet(at, self.items[at]))
            self.network.at(self.network.now + 0.3, partial(self._send, session, at))


class Receiver(Handler):
    """Acknowledges all that it has, and takes what comes next."""

    def __init__(self) -> None:
        self.items: defaultdict[Address, list[bytes]] = defaultdict(list)

    def packet_received(self, session: Session, packet: Packet) -> None:
        items = self.items[session.peer]
        if packet.id == len(items):
            items.append(packet.payload)
        if packet.id < len(items):
            session.send(Packet(packet.id))


@few
@given(seeds, all_faults, st.integers(1, 3), st.lists(st.binary(max_size=5), min_size=1, max_size=8))
def test_stop_and_wait_delivers_everything_once_and_in_order_in_the_end(
    seed: int, faults: Faults, clients: int, items: list[bytes]
) -> None:
    network, config = Network(seed, faults), Config(idle_timeout=None)
    receiver = Receiver()
    attach(network, SERVER, receiver, config)
    expected = {}
    for number in range(clients):
        addr = client_address(number)
        expected[addr] = [bytes([number]) + item for item in items]
        attach(network, addr, Sender(network, expected[addr]), config).open(SERVER, network.now)
    network.run()
    assert receiver.items == expected


@few
@given(seeds, all_faults, st.integers(1, 5), st.integers(1, 8))
def test_each_silent_peer_is_reaped_once_and_in_its_time(seed: int, faults: Faults, clients: int, turns: int) -> None:
    network = Network(seed, faults)
    server = Collector(network)
    endpoint = attach(network, SERVER, server, Config(idle_timeout=3))
    for number in range(clients):
        session = attach(network, client_address(number), Handler(), Config(idle_timeout=None)).open(SERVER, 0)
        for _ in range(turns):
            when = network.now + 20 * network.random()
            network.at(when, partial(session.send, Packet(1)))
    network.run()
    assert not endpoint.sessions
    assert not server.live
    assert server.ended == [(id, CloseReason.IDLE_TIMEOUT, server.heard[id] + 3) for id, _, _ in server.ended]
    assert sorted(id for id, _, _ in server.ended) == list(range(1, endpoint.stats.opened + 1))
    assert sum(map(len, server.packets.values())) == sum(network.copies.values())


class Registry(Handler):
    """Binds each session to the device that says hello on it."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload)


class Device(Handler):
    """Takes orders, which have to be its own."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.orders = 0

    def packet_received(self, session: Session, packet: Packet) -> None:
        assert packet.payload == self.name
        self.orders += 1


@few
@given(seeds, all_faults, st.integers(2, 4))
def test_an_order_never_reaches_another_device_however_often_devices_move(
    seed: int, faults: Faults, count: int
) -> None:
    network = Network(seed, faults)
    endpoint = attach(network, SERVER, Registry(), Config(idle_timeout=2))
    devices = [Device(bytes([number])) for number in range(count)]

    def move(device: Device, addr: Address) -> None:
        """Say hello from a new address, where nobody was before, and leave it at some time."""
        client = attach(network, addr, device, Config(idle_timeout=None))
        session = client.open(SERVER, network.now)
        session.send(Packet(HELLO, device.name))
        network.at(network.now + 4 * network.random(), session.close)

    def order() -> None:
        for device in devices:
            session = endpoint.sessions.find(device.name)
            if session is not None:
                assert session.identity == device.name
                session.send(Packet(ORDER, device.name))

    for number in range(count * 4):
        device, addr = devices[number % count], client_address(number)
        network.at(network.now + 10 * network.random(), partial(move, device, addr))
    for step in range(100):
        network.at(network.now + step * 0.15, order)
    network.run()
    assert not endpoint.sessions
    assert endpoint.stats.opened == sum(endpoint.stats.closed.values())
    assert {*endpoint.stats.closed} <= {CloseReason.IDLE_TIMEOUT, CloseReason.REPLACED}
    if faults == Faults():
        assert all(device.orders for device in devices)
