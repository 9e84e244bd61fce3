"""WebSocket echo side by side: packetcore, and the `websockets` library with packetcore's codec by hand.

Server and client are of the same library, each in a process of its own on one CPU: 10 connections with 32
packets in flight on each, as many in a message as leave together, and with one. All speak asyncio, without
compression. `websockets` runs with its C extension, without limits and pings; its server decodes each message
and encodes the packets again, its client decodes what comes back, as packetcore does. "bytes" is `websockets`
alone, which sends each message back as it is and decodes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, closing
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from random import Random
from statistics import median
from typing import Any

import websockets.asyncio.client
import websockets.asyncio.server
from _common import Results, arguments, interleave, pin, save, serving, show
from _processes import begin_child

import packetcore_asyncio
from packetcore import Decoder, Handler, Packet, Session, encode

CONNECTIONS = 10
MANY, ONE = 32, 1
"""Packets in flight on each connection."""
SECONDS = 0.8
WARM_UP = 0.2
"""Seconds that a measurement does not count."""
PATIENCE = 60.0
"""Seconds after which a client is given up."""
BAR = 1.0
"""What packetcore's rate must be at least, as a part of that of `websockets` with the codec, where packets
leave together."""

PACKETCORE, BY_HAND, BYTES = "packetcore", "websockets", "bytes"
LOOPS = ("asyncio", *(("uvloop",) if find_spec("uvloop") is not None else ()))
NO_LIMITS: dict[str, Any] = {"compression": None, "max_size": None, "max_queue": None, "ping_interval": None}


def packets(size: int, depth: int) -> list[Packet]:
    """What is in flight on one connection, with so many random bytes in each."""
    random_bytes = Random(size).randbytes
    return [Packet(number, random_bytes(size)) for number in range(depth)]


# The servers.


class Echo(Handler):
    """Sends every packet back."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


async def echo_by_hand(socket: websockets.asyncio.server.ServerConnection) -> None:
    """The same over `websockets`."""
    decoder = Decoder()
    async for message in socket:
        assert isinstance(message, bytes)
        await socket.send(b"".join([encode(packet) for packet in decoder.feed(message) if isinstance(packet, Packet)]))


async def echo_bytes(socket: websockets.asyncio.server.ServerConnection) -> None:
    """Sends every message back."""
    async for message in socket:
        await socket.send(message)


async def serve(server: str, pipe: Pipe) -> None:
    """Serve until the process is ended."""
    if server == PACKETCORE:
        ours = await packetcore_asyncio.serve(Echo(), websocket=True)
        pipe.send(ours.address[1])
        await ours.serve_forever()
    else:
        echo = echo_by_hand if server == BY_HAND else echo_bytes
        theirs = await websockets.asyncio.server.serve(echo, "127.0.0.1", 0, **NO_LIMITS)
        pipe.send(next(iter(theirs.sockets)).getsockname()[1])
        await theirs.serve_forever()


def run(server: str, loop: str, pipe: Pipe) -> None:
    """A server's process."""
    begin(1)
    run_on(loop, serve(server, pipe))


def begin(cpu: int) -> None:
    """What a process of ours does first."""
    begin_child()
    pin(cpu)
    logging.disable(logging.CRITICAL)  # of `websockets`, about peers that leave without a word


def run_on(loop: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on one of `LOOPS`."""
    if loop == "uvloop":
        import uvloop

        return uvloop.run(coroutine)
    return asyncio.run(coroutine)


# The clients: each connection sends again what has come back.


class Returning(Handler):
    """Counts what comes back, and sends it again."""

    def __init__(self) -> None:
        self.count = 0

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.count += 1
        session.send(packet)


class Messages:
    """Counts the packets that come back over `websockets`, and sends them again.

    Args:
        decodes: whether it looks into the messages; else each is as many packets as were sent in one.
    """

    def __init__(self, decodes: bool) -> None:
        self.count = 0
        self._decodes = decodes

    async def drive(self, socket: websockets.asyncio.client.ClientConnection, sent: list[Packet]) -> None:
        await socket.send(b"".join(map(encode, sent)))
        decoder, depth = Decoder(), len(sent)
        async for message in socket:
            assert isinstance(message, bytes)
            if self._decodes:
                found = [packet for packet in decoder.feed(message) if isinstance(packet, Packet)]
                self.count += len(found)
                await socket.send(b"".join([encode(packet) for packet in found]))
            else:
                self.count += depth
                await socket.send(message)


async def count(name: str, port: int, sent: list[Packet]) -> float:
    """Drive a server. Returns the packets echoed a second."""
    url = f"ws://127.0.0.1:{port}/"
    async with AsyncExitStack() as stack:
        if name == PACKETCORE:
            returning = Returning()
            for _ in range(CONNECTIONS):
                session = await packetcore_asyncio.connect(url, handler=returning)
                stack.callback(session.abort)
                for packet in sent:
                    session.send(packet)
            return await rate(lambda: returning.count)
        messages = Messages(name == BY_HAND)
        for _ in range(CONNECTIONS):
            socket = await websockets.asyncio.client.connect(url, **NO_LIMITS)
            driving = asyncio.create_task(messages.drive(socket, sent))
            stack.callback(socket.transport.abort)
            stack.callback(driving.cancel)
        return await rate(lambda: messages.count)


async def rate(count: Callable[[], int]) -> float:
    """By how much a count grows in a second."""
    await asyncio.sleep(WARM_UP)
    before, begin = count(), time.perf_counter()
    await asyncio.sleep(SECONDS)
    grown, elapsed = count() - before, time.perf_counter() - begin
    if not grown:
        raise RuntimeError("nothing was echoed")
    return grown / elapsed


def run_client(pipe: Pipe, name: str, loop: str, port: int, size: int, depth: int) -> None:
    """A client's process, which tells the rate."""
    begin(0)
    with closing(pipe):
        pipe.send(run_on(loop, count(name, port, packets(size, depth))))


def measure(name: str, loop: str, size: int, depth: int) -> float:
    """One measurement, with processes of its own."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with serving(run, name, loop) as (port, _):
        client = spawn.Process(target=run_client, args=(theirs, name, loop, port, size, depth), daemon=True)
        client.start()
        theirs.close()
        try:
            if not ours.poll(PATIENCE):
                raise TimeoutError(f"the client of {name} on {loop} told nothing within {PATIENCE} s")
            rate: float = ours.recv()
            return rate
        finally:
            client.terminate()
            client.join()


def main() -> None:
    parser = arguments(__doc__, rounds=7)
    options = parser.parse_args()
    kinds = [(loop, size, depth) for loop in LOOPS for size, depth in ((64, MANY), (1024, MANY), (64, ONE))]
    names = (PACKETCORE, BY_HAND, BYTES)
    cases = {
        f"{loop} {name} {size} x {depth}": partial(measure, name, loop, size, depth)
        for loop, size, depth in kinds
        for name in names
    }
    results: Results = interleave(cases, options.rounds)
    middle = {name: median(values) for name, values in results.items()}
    rows, missed = [], []
    for loop, size, depth in kinds:
        rates = [middle[f"{loop} {name} {size} x {depth}"] for name in names]
        ours, theirs, _ = rates
        what = f"{loop}, {size} B x {depth}"
        rows.append((what, *(f"{each:,.0f}" for each in rates), f"{ours / theirs:.2f}"))
        if depth > 1 and ours / theirs < BAR:
            missed.append(what)
    columns = ("", *names, "ratio")
    show(f"WebSocket: packets echoed a second, medians of {options.rounds} rounds; bar {BAR:.2f}", columns, rows)
    save(options.json, "websocket", "packets echoed a second", results)
    if missed:
        raise SystemExit(f"below the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
