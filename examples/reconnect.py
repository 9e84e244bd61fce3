"""A client that comes back: its server restarts, and no reading is lost meanwhile.

With `reconnect` a client connects again and again, at once at first and later after longer
waits. `keep` is how many packets it holds while there is no connection; one more is refused, so
that the application decides what to forget.
"""

from __future__ import annotations

import asyncio

from packetcore import Backoff, CloseReason, Handler, NotConnected, Packet, Session
from packetcore_asyncio import connect, serve

READING = 1

IN_A_HURRY = Backoff(initial=0.05, maximum=0.2)
"""Seconds, for an example. The defaults, half a second to a minute, spare a server that
thousands of devices come back to."""


class Collector(Handler):
    """The server: prints the readings."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[int] = asyncio.Queue()

    def packet_received(self, session: Session, packet: Packet) -> None:
        print(f"server: reading {packet.payload[0]}")
        self.received.put_nowait(packet.payload[0])


class Meter(Handler):
    """The client hears of each connection that was made."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connected(self, session: Session) -> None:
        print(f"client: connection {session.id}")

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        print(f"client: connection {session.id} lost, {reason.name}")
        self.lost.set()


async def main() -> None:
    collector, meter = Collector(), Meter()
    server = await serve(collector)
    host, port = server.address[:2]
    async with await connect(host, port, meter, reconnect=IN_A_HURRY, keep=2) as client:
        client.send(Packet(READING, bytes([20])))  # not connected yet: this one is kept too
        await collector.received.get()

        await server.close()
        await meter.lost.wait()
        for value in (21, 22, 23):
            try:
                client.send(Packet(READING, bytes([value])))
            except NotConnected as error:
                print(f"client: reading {value} refused: {error}")

        async with await serve(collector, host, port):
            await collector.received.get()
            await collector.received.get()
            await client.close()


if __name__ == "__main__":
    asyncio.run(main())
