"""`examples/tcp_udp_proxy`: who is carried to whom, what ends what, what is bounded; and the program."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from examples.tcp_udp_proxy.proxy import Proxy
from packetcore import CloseReason, Config, Packet, encode
from packetcore_asyncio import Server, Stream, connect_udp, serve, serve_udp
from tests.example_program import refused, running

SMALL = Config(max_datagram=1000, max_sessions=2)


class Service:
    """A server that numbers its connections, and answers with a packet's own id, type and count."""

    def __init__(self) -> None:
        self.opened = 0
        self.has_ended = asyncio.Event()

    async def __call__(self, stream: Stream) -> None:
        self.opened += 1
        number = self.opened
        try:
            async for packet in stream:
                assert isinstance(packet, Packet)
                if packet.payload == b"go":
                    return
                reply = bytes(2000) if packet.payload == b"long" else b"%d: %s" % (number, packet.payload)
                await stream.send(Packet(packet.id, reply, type=packet.type, count=packet.count))
        finally:
            self.has_ended.set()


@asynccontextmanager
async def carried(config: Config = SMALL) -> AsyncIterator[tuple[Service, Proxy, Server]]:
    service = Service()
    async with await serve(service) as upstream:
        host, port = upstream.address[:2]
        proxy = Proxy(host, port, config)
        async with await serve_udp(proxy.relay, config=config) as udp:
            yield service, proxy, udp


async def ask(device: Stream, payload: bytes, id: int = 7) -> Any:
    await device.send(Packet(id, payload, type=3, count=2))
    return await device.recv()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(test(), 30)

    asyncio.run(within())


def test_each_device_has_a_connection_and_every_packet_its_own_id() -> None:
    async def test() -> None:
        async with carried() as (_, proxy, udp):
            async with await connect_udp(*udp.address) as one, await connect_udp(*udp.address) as two:
                assert await ask(one, b"a", id=9) == Packet(9, b"1: a", type=3, count=2)
                assert await ask(two, b"b", id=9) == Packet(9, b"2: b", type=3, count=2)
                assert await ask(one, b"c", id=0xFFFF) == Packet(0xFFFF, b"1: c", type=3, count=2)
            assert (proxy.counts.up, proxy.counts.down) == (3, 3)

    run(test)


def test_where_the_server_ends_the_next_datagram_begins_anew() -> None:
    async def test() -> None:
        async with carried() as (_, _, udp), await connect_udp(*udp.address) as device:
            assert (await ask(device, b"a")).payload == b"1: a"
            await device.send(Packet(7, b"go"))
            while udp.sessions:
                await asyncio.sleep(0.005)
            assert (await ask(device, b"b")).payload == b"2: b"

    run(test)


def test_a_silent_device_ends_its_connection() -> None:
    async def test() -> None:
        config = Config(idle_timeout=0.2)
        async with carried(config) as (service, _, udp), await connect_udp(*udp.address) as device:
            await ask(device, b"a")
            await service.has_ended.wait()
            assert udp.stats.closed[CloseReason.IDLE_TIMEOUT] == 1

    run(test)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say which peer an error is about")
def test_a_device_that_is_gone_ends_its_connection() -> None:
    async def test() -> None:
        async with carried() as (service, _, udp):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
                device.connect(udp.address)
                device.send(encode(Packet(1, b"a")))
            await service.has_ended.wait()
            assert udp.stats.errors == 1

    run(test)


def test_so_many_devices_and_no_more() -> None:
    async def test() -> None:
        async with carried() as (_, _, udp):
            devices = [await connect_udp(*udp.address) for _ in range(3)]
            for device in devices[:2]:
                await ask(device, b"a")
            await devices[2].send(Packet(1, b"a"))
            while not udp.stats.refused:
                await asyncio.sleep(0.005)
            assert len(udp.sessions) == 2
            for device in devices:
                await device.close()

    run(test)


def test_what_fits_no_datagram_is_counted_and_costs_nothing_else() -> None:
    async def test() -> None:
        async with carried() as (_, proxy, udp), await connect_udp(*udp.address) as device:
            await device.send(Packet(7, b"long"))
            assert (await ask(device, b"a")).payload == b"1: a"
            assert proxy.counts.too_long == 1

    run(test)


def test_a_server_that_is_away_is_not_asked_for_each_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.tcp_udp_proxy.proxy.HOLD_OFF", 0.5)

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        proxy = Proxy("127.0.0.1", port, SMALL)
        async with await serve_udp(proxy.relay, config=SMALL) as udp, await connect_udp(*udp.address) as device:
            for _ in range(50):
                await device.send(Packet(1, b"a"))
            while not proxy.counts.unreachable:
                await asyncio.sleep(0.005)
            async with await serve(Service(), port=port):
                while udp.sessions:
                    await asyncio.sleep(0.005)
                assert proxy.counts.unreachable == 1
                assert (await ask(device, b"b")).payload == b"1: b"

    run(test)


def test_the_example_runs_with_nothing_at_hand() -> None:
    with running("tcp_udp_proxy") as program:
        program.says("Ctrl-C ends")
        program.says(r"^meter-2: 10 readings of 3, the sum is 30")
        program.stop()
        counted = program.says(r"the end: 0 devices, 0 datagrams refused, 0 malformed, (\d+) packets up, (\d+) down")
        assert int(counted[1]) >= 30


def test_a_server_that_never_ends_does_not_hold_up_the_end() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        running("tcp_udp_proxy", "127.0.0.1:0", f"127.0.0.1:{deaf.getsockname()[1]}") as program,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device,
    ):
        device.connect(("127.0.0.1", int(program.says(r"UDP \S+ port (\d+)")[1])))
        device.send(encode(Packet(1, b"a")))
        with deaf.accept()[0]:
            program.stop()
        program.says("1 packets up, 0 down")


def test_what_it_cannot_start_with_is_one_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        status, said = refused("tcp_udp_proxy", f"127.0.0.1:{port}", "127.0.0.1:1")
    assert (status, re.sub(r"^.*\] ", "", said)) == (1, f"binding to 127.0.0.1 port {port}: Address already in use")
    assert refused("tcp_udp_proxy", "127.0.0.1:5000") == (
        2,
        "python -m examples.tcp_udp_proxy: error: give both places, or none",
    )
