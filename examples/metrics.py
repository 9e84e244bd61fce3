"""Numbers to watch: what a server and a connection pool have done, as Prometheus collects it.

It needs `pip install packetcore[prometheus]`. Prometheus asks on a thread of its own, and sessions
belong to the event loop's: `on_loop` does the reading there. A program serves its registry with
`prometheus_client.start_http_server(9100, "127.0.0.1", registry)`; this one prints a part of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest

from packetcore import Packet
from packetcore.prometheus import PacketcoreCollector
from packetcore_asyncio import ConnectionPool, Stream, serve

T = TypeVar("T")


def on_loop(read: Callable[[], T]) -> Callable[[], T]:
    """The same function, to be called from other threads while this loop runs."""
    loop = asyncio.get_running_loop()

    async def reading() -> T:
        return read()

    return lambda: asyncio.run_coroutine_threadsafe(reading(), loop).result(timeout=5.0)


async def echo(stream: Stream) -> None:
    async for packet in stream:
        await stream.send(packet)


async def main() -> None:
    async with await serve(echo) as server:
        host, port = server.address[:2]
        async with ConnectionPool(host, port, max_size=4) as pool:
            registry = CollectorRegistry()
            registry.register(
                PacketcoreCollector(
                    endpoints={"gateway": on_loop(lambda: server.stats)},
                    pools={"gateway": on_loop(lambda: pool.stats)},
                )
            )
            for _ in range(3):
                async with pool.acquire() as stream:
                    await stream.request(Packet(1, b"hello"), timeout=5.0)

            scraped = await asyncio.to_thread(generate_latest, registry)
            for line in scraped.decode().splitlines():
                if not line.startswith("#") and not line.endswith(" 0.0"):
                    print(line)


if __name__ == "__main__":
    asyncio.run(main())
