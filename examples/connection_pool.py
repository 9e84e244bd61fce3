"""A connection pool: ten tasks ask one service over two connections.

Who finds both in use waits for its turn. A connection is used again as long as its
conversations end well; one whose user fails is closed, since a reply may still be on its way.
"""

from __future__ import annotations

import asyncio

from packetcore import Packet
from packetcore_asyncio import ConnectionPool, Stream, serve

SQUARE = 1


async def squares(stream: Stream) -> None:
    """The service."""
    async for packet in stream:
        number = packet.payload[0]
        await stream.send(Packet(packet.id, (number * number).to_bytes(2, "big")))


async def ask(pool: ConnectionPool, number: int) -> int:
    """One question, over whichever connection is free."""
    async with pool.acquire() as stream:
        reply = await stream.request(Packet(SQUARE, bytes([number])), timeout=5.0)
        return int.from_bytes(reply.payload, "big")


async def main() -> None:
    async with await serve(squares) as server:
        host, port = server.address[:2]
        async with ConnectionPool(host, port, max_size=2, max_idle=30.0) as pool:
            print("squares:", *await asyncio.gather(*(ask(pool, number) for number in range(1, 11))))
            stats = pool.stats
            print(f"opened {stats.opened}, used again {stats.reused} times, waited for {stats.waited} times")

            try:
                async with pool.acquire() as stream:
                    await stream.send(Packet(SQUARE, b"\x09"))
                    raise ValueError("changed its mind, with a reply on its way")
            except ValueError as error:
                print(f"{error}: {pool.stats.discarded} closed, {pool.idle} idle")


if __name__ == "__main__":
    asyncio.run(main())
