"""The simulation: as a network it does as a system does, and the same seed gives the same on every Python."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from packetcore import Backoff, CloseReason, Config, Handler, Packet, Session, encode
from packetcore_conformance.simulation import (
    ConnectionPool,
    Host,
    Impairments,
    Simulation,
    Violation,
    connect,
    connect_udp,
    explore,
    play,
    serve,
    serve_udp,
    sleep,
)
from packetcore_conformance.simulation.standard import Standard


@pytest.mark.parametrize("first", range(0, 32, 4))
def test_what_is_promised_is_kept_whatever_fails(first: int) -> None:
    played = explore(Standard, range(first, first + 4))
    assert sum(sum(one.reasons.values()) for one in played) > 30


def test_a_seed_gives_the_same_trace_in_python_alone_and_whatever_the_order_of_hashes() -> None:
    here = play(Standard, 21)
    words = [sys.executable, "-m", "packetcore_conformance.simulation", "--seed", "21"]
    for hashes, pure in (("1", "1"), ("2", "")):
        env = {**os.environ, "PYTHONHASHSEED": hashes, "PACKETCORE_PURE": pure}
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=50, check=True)
        assert done.stdout.split()[-1] == here.digest
    assert play(Standard, 22).digest != here.digest


# The network, seen by a program that uses its sockets by itself.


class Raw:
    """A socket on a host, with what was called on it."""

    def __init__(self, simulation: Simulation, host: Host, sock: Any = None) -> None:
        self.simulation = simulation
        self.sock = host.new_socket(socket.AF_INET, socket.SOCK_STREAM, 0) if sock is None else sock

    def connect(self, host: str, port: int) -> int:
        """The error number of a connect that was waited for."""
        with pytest.raises(BlockingIOError):
            self.sock.connect((host, port))
        self.simulation.run(1.0)
        return int(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def read(self) -> list[bytes | int]:
        """What there is to read, an error as its number."""
        came: list[bytes | int] = []
        while True:
            try:
                came.append(self.sock.recv(65_536))
            except BlockingIOError:
                return came
            except OSError as error:
                came.append(error.errno or 0)
                return came
            if came[-1] == b"":
                return came


class Pair:
    """A connection between two hosts."""

    def __init__(self, impairments: Impairments | None = None) -> None:
        self.simulation = Simulation(1, impairments=impairments or Impairments(latency=0.01))
        self.one, self.other = self.simulation.host("one"), self.simulation.host("other")
        (self.listener,) = self.other.open_tcp_listeners(infos(self.other, 5000), 5000, 2)
        self.client = Raw(self.simulation, self.one)
        assert self.client.connect(self.other.machine.addresses[0], 5000) == 0
        self.server = Raw(self.simulation, self.other, self.listener.accept()[0])
        self.path = self.simulation.path("one", "other")

    def run(self, seconds: float = 1.0) -> None:
        self.simulation.run(seconds)


def infos(host: Host, port: int) -> list[Any]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host.machine.addresses[0], port))]


def test_a_connect_is_refused_answered_or_left_waiting_as_by_a_system() -> None:
    pair = Pair()
    address = pair.other.machine.addresses[0]
    assert Raw(pair.simulation, pair.one).connect(address, 5001) == errno.ECONNREFUSED
    pair.path.part()
    waiting = Raw(pair.simulation, pair.one)
    assert waiting.connect(address, 5000) == 0
    assert not waiting.sock.is_connected
    pair.path.heal()
    pair.run(2.0)
    assert waiting.sock.is_connected
    with pytest.raises(OSError, match=os.strerror(errno.ENETUNREACH)):
        Raw(pair.simulation, pair.one).sock.connect(("192.0.2.1", 1))


def test_an_end_in_good_order_arrives_behind_what_was_sent() -> None:
    pair = Pair()
    pair.client.sock.send(b"last words")
    pair.client.sock.shutdown(socket.SHUT_WR)
    pair.run()
    assert pair.server.read() == [b"last words", b""]
    pair.server.sock.send(b"heard")
    pair.run()
    assert pair.client.read() == [b"heard"]
    with pytest.raises(BrokenPipeError):
        pair.client.sock.send(b"more")


def test_a_close_with_bytes_unread_is_a_reset() -> None:
    pair = Pair()
    pair.client.sock.send(b"unread")
    pair.run()
    pair.server.sock.close()
    pair.run()
    assert pair.client.read() == [errno.ECONNRESET]
    assert pair.client.read() == [b""]
    with pytest.raises(BrokenPipeError):
        pair.client.sock.send(b"more")


def test_what_comes_after_a_close_is_answered_by_a_reset_that_what_had_come_survives() -> None:
    pair = Pair()
    pair.server.sock.send(b"goodbye")
    pair.server.sock.close()
    pair.client.sock.send(b"too late")
    pair.run()
    assert pair.client.read() == [b"goodbye", errno.ECONNRESET]
    other = Pair()
    other.simulation.wires.keeps_after_reset = False
    other.server.sock.send(b"goodbye")
    other.server.sock.close()
    other.client.sock.send(b"too late")
    other.run()
    assert other.client.read() == [errno.ECONNRESET]


def test_a_buffer_that_is_full_takes_no_more_until_the_peer_reads() -> None:
    pair = Pair(Impairments(latency=0.01, buffer=10))
    assert pair.client.sock.send(b"0123456789abc") == 10
    with pytest.raises(BlockingIOError):
        pair.client.sock.send(b"abc")
    pair.run()
    had_room: list[bool] = []

    def writable() -> None:
        had_room.append(True)
        pair.one.set_writer(pair.client.sock, None)

    pair.one.set_writer(pair.client.sock, writable)
    pair.run()
    assert not had_room
    assert pair.server.read() == [b"0123456789"]
    pair.run()
    assert had_room == [True]
    assert pair.client.sock.send(bytearray(b"abc")) == 3


def test_a_partition_holds_up_and_what_is_forgotten_never_comes() -> None:
    pair = Pair()
    pair.path.part()
    pair.client.sock.send(b"held up")
    pair.run(60.0)
    assert pair.server.read() == []
    pair.path.heal()
    pair.run()
    assert pair.server.read() == [b"held up"]
    pair.path.forget()
    pair.client.sock.send(b"never")
    pair.path.heal()
    pair.run(60.0)
    assert pair.server.read() == []
    pair.path.reset()
    pair.run()
    assert [pair.client.read(), pair.server.read()] == [[errno.ECONNRESET]] * 2


def test_a_killed_program_ends_its_connections_and_one_without_power_leaves_them_half_open() -> None:
    pair = Pair()
    pair.other.crash()
    pair.run()
    assert pair.client.read() == [b""]
    half = Pair()
    half.other.lose_power(10.0)
    half.client.sock.send(b"anybody?")
    half.run(5.0)
    assert half.client.read() == []
    half.run(10.0)
    assert half.client.read() == [errno.ECONNRESET]


def test_there_are_as_many_descriptors_as_there_are() -> None:
    pair = Pair()
    pair.other.limit_sockets(10.0, most=2)
    second = Raw(pair.simulation, pair.one)
    assert second.connect(pair.other.machine.addresses[0], 5000) == 0
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        pair.listener.accept()
    pair.run(10.0)
    assert pair.listener.accept()[1] == second.sock.getsockname()


def test_a_port_that_is_taken_or_elsewhere_is_named_as_such() -> None:
    pair = Pair()
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        pair.other.open_tcp_listeners(infos(pair.other, 5000), 5000)
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        pair.other.open_tcp_listeners(infos(pair.one, 5000), 5000)


# Programs.


class Echo(Handler):
    """Sends back what comes."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


class Line:
    """A server and a client that comes back, on hosts of their own."""

    def __init__(self, simulation: Simulation, server: Any, client: Any = None, **config: Any) -> None:
        self.simulation = simulation
        self.config = Config(**config)
        self.handlers = server, client or Handler()
        simulation.host("gateway").run(self.serve)
        simulation.host("meter").run(self.connect)

    async def serve(self) -> None:
        self.server = await serve(self.handlers[0], "0.0.0.0", 5000, config=self.config)

    async def connect(self) -> None:
        options: Any = {"reconnect": Backoff(initial=0.1, maximum=1.0), "config": self.config}
        self.client = await connect("gateway", 5000, self.handlers[1], **options)

    async def close(self) -> None:
        await self.client.close()
        await self.server.close()


def test_a_program_is_run_again_when_its_host_is() -> None:
    with Simulation() as simulation:
        line = Line(simulation, Echo())
        for fail in (simulation.host("gateway").crash, simulation.host("meter").lose_power):
            simulation.run(5.0)
            assert line.client.session is not None
            fail(3.0)
        simulation.run(10.0)
        assert line.client.session is not None
        simulation.complete(line.close())
        simulation.run(120.0)  # the half-open session of the meter that lost its power is idle
        simulation.finish()


def test_a_host_that_is_paused_does_what_has_come_before_what_is_due() -> None:
    with Simulation() as simulation:
        line = Line(simulation, Echo(), idle_timeout=10.0)
        simulation.run(1.0)
        simulation.host("gateway").pause(15.0)
        simulation.at(5.0, lambda: line.client.send(Packet(1)))
        simulation.run(15.5)
        # The meter has waited too long; the gateway hears of that, and not of its own timer before it.
        assert simulation.watch.reasons == {CloseReason.IDLE_TIMEOUT: 1, CloseReason.PEER: 1}
        assert line.server.stats.total.packets_received == 1


def test_datagrams_and_pools_are_simulated_too() -> None:
    async def program() -> None:
        await serve_udp(Echo(), "0.0.0.0", 6000)
        await serve(Echo(), "0.0.0.0", 5000)
        await sleep(1e9)

    async def ask() -> list[Any]:
        stream = await connect_udp("gateway", 6000)
        replies: list[Any] = [await stream.request(Packet(1, b"udp"), timeout=1.0)]
        await stream.close()
        async with ConnectionPool("gateway", 5000) as pool:
            for _ in range(2):
                async with pool.acquire() as lent:
                    replies.append(await lent.request(Packet(2, b"pool"), timeout=1.0))
            assert pool.size == 1
        nobody = await connect_udp("gateway", 6001)
        await nobody.send(Packet(1))
        with pytest.raises(ConnectionRefusedError):
            await nobody.recv()
        await nobody.close()
        with pytest.raises(OSError, match="nowhere"):
            await connect("nowhere", 1)
        return replies

    with Simulation() as simulation:
        simulation.host("gateway").run(program)
        simulation.run(1.0)
        replies = simulation.complete(ask(), simulation.host("meter"))
        assert replies == [Packet(1, b"udp"), Packet(2, b"pool"), Packet(2, b"pool")]
        simulation.run(1.0)
        assert simulation.host("meter").leftovers == []


def test_a_proxy_and_what_it_tells_are_simulated_too() -> None:
    heard: list[Any] = []

    class Named(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            heard.append((tuple(session.peer), packet))

    async def program() -> None:
        await serve(Named(), "0.0.0.0", 5000, proxy_protocol=["10.0.0.0/8"])

    with Simulation(impairments=Impairments(latency=0.01, cut=3)) as simulation:
        simulation.host("gateway").run(program)
        simulation.run(1.0)
        proxy = Raw(simulation, simulation.host("proxy"))
        assert proxy.connect("10.0.0.1", 5000) == 0
        proxy.sock.send(b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 5000\r\n" + encode(Packet(7, b"hello")))
        simulation.run(1.0)
        assert heard == [(("203.0.113.7", 40_000), Packet(7, b"hello"))]


def test_what_is_left_at_the_end_is_named() -> None:
    with Simulation() as simulation:
        Line(simulation, Echo())
        simulation.run(1.0)
        with pytest.raises(Violation, match="gateway has 2 sockets at the end"):
            simulation.finish()
        told = "; ".join(simulation.world.violations)
        assert "meter has 1 sessions at the end" in told
        assert "was never disconnected" in told


def broken(session: Session, packet: Packet) -> None:
    raise ValueError("a fault of the application's")


async def program_that_raises() -> None:
    raise ValueError("a fault of the program's")


def test_what_an_application_raises_ends_the_simulation_unless_it_is_tolerant() -> None:
    handler = Handler[Packet]()
    handler.packet_received = broken  # type: ignore[method-assign]
    for simulation in (Simulation(), Simulation(tolerant=True)):
        with simulation:
            line = Line(simulation, handler)
            simulation.run(1.0)
            line.client.send(Packet(1))
            if simulation.watch.is_tolerant:
                simulation.run(1.0)
                assert simulation.watch.reasons[CloseReason.HANDLER_ERROR] == 1
            else:
                with pytest.raises(Violation, match="a fault of the application's"):
                    simulation.run(1.0)
    with Simulation() as simulation:
        simulation.host("gateway").run(program_that_raises)
        with pytest.raises(Violation, match="a fault of the program's"):
            simulation.run(1.0)


def test_what_never_ends_is_told() -> None:
    with Simulation() as simulation:
        host = simulation.host("gateway")

        def again() -> None:
            host.call_soon(again)

        host.call_soon(again)
        with pytest.raises(Violation, match="more than 100000 things happen at once"):
            simulation.run(1.0)


def test_waits_for_what_never_comes_are_told() -> None:
    with Simulation() as simulation, pytest.raises(Violation, match="is not over after 60"):
        simulation.complete(sleep(100.0), seconds=60.0)
    with Simulation() as simulation, pytest.raises(Violation, match="still waiting"):
        simulation.run_until(lambda: False, 60.0)


def test_the_trace_is_for_people_too() -> None:
    told: list[str] = []
    with Simulation(3, trace=told.append) as simulation:
        line = Line(simulation, Echo())
        simulation.run(1.0)
        line.client.send(Packet(7, b"hello"))
        simulation.run(1.0)
        simulation.complete(line.close())
        simulation.finish()
    assert "1.010000 gateway 1: packet 7/0/1 5:3610a686" in told
    assert sum("disconnected" in line for line in told) == 2
