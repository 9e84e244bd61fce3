"""The echo servers that `echo.py` compares, each run in a process of its own.

`handler` and `stream` are packetcore. `readuntil` is what one writes without it: the
stream reader finds the frames, the format is taken apart and put together by hand.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection as Pipe
from typing import Any

from _common import pin

from packetcore import Handler, Packet, Session
from packetcore_asyncio import Server, Stream, serve

FLAG = b"\xfe"
HEADER = struct.Struct(">HBHI")
LIMIT = 2 * ((1 << 20) + HEADER.size)
"""The longest frame that the reader may hold: the same bound as packetcore's default."""


class Echo(Handler):
    """Sends every packet back."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)


async def echo(stream: Stream) -> None:
    """Sends every packet back."""
    async for packet in stream:
        await stream.send(packet)


async def echo_by_hand(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends every packet back, without packetcore."""
    transport = writer.transport
    _, high_water = transport.get_write_buffer_limits()
    try:
        while True:
            body = (await reader.readuntil(FLAG))[:-1]
            if not body:
                continue  # the flag that opens a frame
            if b"\xfd" in body:
                body = body.replace(b"\xfd\x01", FLAG).replace(b"\xfd\x02", b"\xfd")
            id, type, count, length = HEADER.unpack_from(body)
            payload = body[HEADER.size :]
            if len(payload) != length:
                raise ValueError(f"length field {length} disagrees with a payload of {len(payload)} bytes")
            reply = HEADER.pack(id, type, count, length) + payload
            if b"\xfd" in reply or FLAG in reply:
                reply = reply.replace(b"\xfd", b"\xfd\x02").replace(FLAG, b"\xfd\x01")
            writer.write(FLAG + reply + FLAG)
            if transport.get_write_buffer_size() > high_water:
                await writer.drain()
    except asyncio.IncompleteReadError:
        pass  # the peer has finished
    finally:
        writer.close()


async def _start_handler() -> Server:
    return await serve(Echo())


async def _start_stream() -> Server:
    return await serve(echo)


async def _start_readuntil() -> asyncio.Server:
    return await asyncio.start_server(echo_by_hand, "127.0.0.1", limit=LIMIT)


SERVERS: dict[str, Callable[[], Coroutine[Any, Any, Server | asyncio.Server]]] = {
    "handler": _start_handler,
    "stream": _start_stream,
    "readuntil": _start_readuntil,
}

LOOPS = ("asyncio", "uvloop")


def run(server: str, loop: str, pipe: Pipe) -> None:
    """Serve for as long as the process lives; tell the port through the pipe."""
    pin(0)
    runner = asyncio.new_event_loop()
    if loop == "uvloop":
        import uvloop

        runner.close()
        runner = uvloop.new_event_loop()
    started = runner.run_until_complete(SERVERS[server]())
    address = started.address if isinstance(started, Server) else started.sockets[0].getsockname()
    pipe.send(address[1])
    runner.run_forever()
