"""One application, four network stacks: the same handler on the adapter that you name.

    python examples/any_transport.py asyncio|gevent|twisted|blocking

The `Meter` below knows nothing of the stack it runs on.
"""

from __future__ import annotations

import sys

from packetcore import CloseReason, Handler, Packet, Session

READING, SUMMARY = 1, 2


class Meter(Handler):
    """Adds up the readings of each device and answers every one with the sum so far."""

    def __init__(self) -> None:
        self.sums: dict[int, int] = {}

    def connected(self, session: Session) -> None:
        self.sums[session.id] = 0

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.sums[session.id] += int.from_bytes(packet.payload, "big")
        session.send(Packet(packet.id, self.sums[session.id].to_bytes(4, "big"), type=SUMMARY))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        print(f"session {session.id} left: {reason.name}, sum {self.sums.pop(session.id)}")


READINGS = [Packet(7, value.to_bytes(2, "big"), type=READING) for value in (20, 21, 23)]


def on_asyncio() -> None:
    """Serve and talk to it on asyncio."""
    import asyncio

    from packetcore_asyncio import connect, serve

    async def main() -> None:
        async with await serve(Meter()) as server, await connect(*server.address) as stream:
            for reading in READINGS:
                await stream.send(reading)
                print("sum so far:", int.from_bytes((await stream.recv()).payload, "big"))

    asyncio.run(main())


def on_gevent() -> None:
    """Serve and talk to it on gevent."""
    from packetcore_gevent import connect, serve

    server = serve(Meter())
    with connect(*server.address) as stream:
        for reading in READINGS:
            stream.send(reading)
            print("sum so far:", int.from_bytes(stream.recv().payload, "big"))
    server.close()


def on_twisted() -> None:
    """Serve and talk to it on Twisted."""
    from twisted.internet.defer import ensureDeferred
    from twisted.internet.task import react

    from packetcore_twisted import connect, serve

    async def main() -> None:
        server = await serve(Meter())
        stream = await connect(*server.address)
        for reading in READINGS:
            await stream.send(reading)
            print("sum so far:", int.from_bytes((await stream.recv()).payload, "big"))
        await stream.close()
        await server.close()

    react(lambda reactor: ensureDeferred(main()))


def on_blocking() -> None:
    """Serve and talk to it with plain blocking calls."""
    from packetcore_blocking import connect, serve

    with serve(Meter()) as server, connect(*server.address) as stream:
        for reading in READINGS:
            stream.send(reading)
            print("sum so far:", int.from_bytes(stream.recv().payload, "big"))


STACKS = {"asyncio": on_asyncio, "gevent": on_gevent, "twisted": on_twisted, "blocking": on_blocking}

if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            on_asyncio()
        case [name] if name in STACKS:
            STACKS[name]()
        case _:
            sys.exit(f"usage: {sys.argv[0]} {'|'.join(STACKS)}")
