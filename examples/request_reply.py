"""Requests and their replies: many at once over one connection, each with its own deadline.

A reply is the next packet with the id of its request, which no other request may have
meanwhile, so that an id is picked where you do not care. Or it is the one that a function of
yours picks, such as by a number in the payload. What answers nobody is received as always.
"""

from __future__ import annotations

import asyncio
from functools import partial

from packetcore import Packet, Reply
from packetcore_asyncio import Stream, connect, serve

TEMPERATURE, PRESSURE, LOOK_UP, NEWS = 1001, 1002, 1003, 1009
"""Ids of packets."""

VOLTAGE = 5
"""A type of packets: their ids only tell which reply is whose."""


async def device(stream: Stream) -> None:
    """Answers the pressure never, look-ups and voltages in reverse order and the temperature last."""
    asked = [await stream.recv() for _ in range(7)]
    await stream.send(Packet(NEWS, b"a door was opened"))
    for packet in reversed(asked):
        if packet.id == LOOK_UP:
            await stream.send(Packet(LOOK_UP, packet.payload + b" found"))
        elif packet.type == VOLTAGE:
            await stream.send(Packet(packet.id, b"12 V" if packet.payload == b"battery" else b"230 V"))
    for packet in asked:
        if packet.id == TEMPERATURE:
            await stream.send(Packet(TEMPERATURE, b"21"))
    async for _ in stream:
        pass


def answers(number: bytes, reply: Reply) -> bool:
    """Whether a packet answers the look-up of this number: its payload begins with it."""
    return reply.id == LOOK_UP and reply.payload.startswith(number + b" ")


async def look_up(stream: Stream, number: bytes) -> None:
    reply = await stream.request(Packet(LOOK_UP, number), match=partial(answers, number), timeout=5.0)
    print(f"look-up {number.decode()}: {reply.payload.decode()}")


async def voltage(stream: Stream, of: bytes) -> None:
    reply = await stream.request(of, type=VOLTAGE, timeout=5.0)
    print(f"{of.decode()}: {reply.payload.decode()}")


async def temperature(stream: Stream) -> None:
    reply = await stream.request(Packet(TEMPERATURE), timeout=5.0)
    print(f"temperature: {reply.payload.decode()}")


async def pressure(stream: Stream) -> None:
    try:
        await stream.request(Packet(PRESSURE), timeout=0.2)
    except TimeoutError as error:
        print(f"pressure: {error}")


async def main() -> None:
    async with await serve(device) as server:
        host, port = server.address[:2]
        async with await connect(host, port) as stream:
            look_ups = [look_up(stream, number) for number in (b"7", b"8", b"9")]
            voltages = [voltage(stream, of) for of in (b"battery", b"mains")]
            await asyncio.gather(temperature(stream), pressure(stream), *look_ups, *voltages)
            print(f"news: {(await stream.recv()).payload.decode()}")


if __name__ == "__main__":
    asyncio.run(main())
