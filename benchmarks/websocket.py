"""WebSocket echo side by side: packetcore, and `websockets` and `picows` with packetcore's codec by hand.

Server and client are of the same library, each in a process of its own on one CPU: 10 connections with 32
packets in flight on each, as many in a message as leave together, and with one. All speak asyncio, without
compression. `websockets` runs with its C extension, without limits and pings; its server decodes each message
and encodes the packets again, its client decodes what comes back, as packetcore does. "bytes" is `websockets`
alone, which sends each message back as it is and decodes nothing. `picows` is all in C, has no limits, backpressure
or timeouts of its own, and gives each frame to a callback; its server and its client decode and encode too.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from random import Random
from statistics import median
from typing import Any

import picows
import websockets.asyncio.client
import websockets.asyncio.server
from _common import Results, arguments, interleave, pin, save, serving, show, verdict
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

PACKETCORE, BY_HAND, BYTES, PICOWS = "packetcore", "websockets", "bytes", "picows"
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


class PicoEcho(picows.WSListener):
    """The same over `picows`; and its client, which sends first and counts.

    Args:
        sent: what to send first.
    """

    def __init__(self, sent: Sequence[Packet] = ()) -> None:
        super().__init__()
        self.count = 0
        self._sent = sent
        self._decoder = Decoder()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        if self._sent:
            transport.send(picows.WSMsgType.BINARY, b"".join(map(encode, self._sent)))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.BINARY:
            data = frame.get_payload_as_memoryview()
            found = [packet for packet in self._decoder.feed(data) if isinstance(packet, Packet)]
            self.count += len(found)
            transport.send(picows.WSMsgType.BINARY, b"".join(map(encode, found)))


async def serve(server: str, pipe: Pipe) -> None:
    """Serve until the process is ended."""
    if server == PACKETCORE:
        ours = await packetcore_asyncio.serve(Echo(), websocket=True)
        pipe.send(ours.address[1])
        await ours.serve_forever()
    elif server == PICOWS:
        pico = await picows.ws_create_server(lambda request: PicoEcho(), "127.0.0.1", 0)
        pipe.send(pico.sockets[0].getsockname()[1])
        await pico.serve_forever()
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


async def count(name: str, port: int, sent: list[Packet], seconds: float) -> float:
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
            return await rate(lambda: returning.count, seconds)
        if name == PICOWS:
            listeners = []
            for _ in range(CONNECTIONS):
                transport, listener = await picows.ws_connect(lambda: PicoEcho(sent), url)
                stack.callback(transport.disconnect)
                assert isinstance(listener, PicoEcho)
                listeners.append(listener)
            return await rate(lambda: sum(listener.count for listener in listeners), seconds)
        messages = Messages(name == BY_HAND)
        for _ in range(CONNECTIONS):
            socket = await websockets.asyncio.client.connect(url, **NO_LIMITS)
            driving = asyncio.create_task(messages.drive(socket, sent))
            stack.callback(socket.transport.abort)
            stack.callback(driving.cancel)
        return await rate(lambda: messages.count, seconds)


async def rate(count: Callable[[], int], seconds: float) -> float:
    """By how much a count grows in a second, measured for so many."""
    await asyncio.sleep(WARM_UP)
    before, begin = count(), time.perf_counter()
    await asyncio.sleep(seconds)
    grown, elapsed = count() - before, time.perf_counter() - begin
    if not grown:
        raise RuntimeError("nothing was echoed")
    return grown / elapsed


def run_client(pipe: Pipe, name: str, loop: str, port: int, size: int, depth: int, seconds: float) -> None:
    """A client's process, which tells the rate."""
    begin(0)
    with closing(pipe):
        pipe.send(run_on(loop, count(name, port, packets(size, depth), seconds)))


def measure(name: str, loop: str, size: int, depth: int, seconds: float) -> float:
    """One measurement, with processes of its own."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    with serving(run, name, loop) as (port, _):
        client = spawn.Process(target=run_client, args=(theirs, name, loop, port, size, depth, seconds), daemon=True)
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
    parser.add_argument("--seconds", type=float, default=SECONDS, help="length of one measurement (%(default)s)")
    parser.add_argument("--loop", action="append", choices=LOOPS, help="only this loop; may be repeated")
    options = parser.parse_args()
    loops = [loop for loop in LOOPS if loop in (options.loop or LOOPS)]
    kinds = [(loop, size, depth) for loop in loops for size, depth in ((64, MANY), (1024, MANY), (64, ONE))]
    names = (PACKETCORE, BY_HAND, BYTES, PICOWS)
    cases = {
        f"{loop} {name} {size} x {depth}": partial(measure, name, loop, size, depth, options.seconds)
        for loop, size, depth in kinds
        for name in names
    }
    results: Results = interleave(cases, options.rounds, warm_up=False)
    middle = {name: median(values) for name, values in results.items()}
    rows, missed = [], []
    for loop, size, depth in kinds:
        rates = [middle[f"{loop} {name} {size} x {depth}"] for name in names]
        ours, theirs, _, pico = rates
        what = f"{loop}, {size} B x {depth}"
        goal = BAR if depth > 1 else None
        rows.append(
            (what, *(f"{each:,.0f}" for each in rates), verdict(ours / theirs, goal), verdict(ours / pico, None))
        )
        if goal is not None and ours / theirs < goal:
            missed.append(what)
    columns = ("", *names, f"of {BY_HAND}", f"of {PICOWS}")
    show(f"WebSocket: packets echoed a second, medians of {options.rounds} rounds", columns, rows)
    save(options.json, "websocket", "packets echoed a second", results)
    if missed:
        raise SystemExit(f"below the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
