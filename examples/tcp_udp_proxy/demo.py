"""A server and a few devices, to have something to carry packets between."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from packetcore import Packet
from packetcore_asyncio import Stream, connect_udp

INTERVAL = 0.2
"""Seconds between two readings of a device."""


async def service(device: Stream) -> None:
    """Sums up what a device has sent: the state of one connection, which it can see is its own."""
    total = 0
    async for packet in device:
        total += int.from_bytes(packet.payload, "big")
        await device.send(Packet(packet.id, total.to_bytes(4, "big")))


async def device(name: str, host: str, port: int) -> None:
    """Sends a reading again and again, each with an id of its own, and takes the reply that has the same id."""
    async with await connect_udp(host, port) as proxy:
        for number in range(1 << 16):
            with suppress(TimeoutError, asyncio.TimeoutError, OSError):
                reply = await proxy.request(Packet(number, b"\x03"), timeout=1.0)
                if number % 10 == 9:
                    print(f"{name}: {number + 1} readings of 3, the sum is {int.from_bytes(reply.payload, 'big')}")
            await asyncio.sleep(INTERVAL)
