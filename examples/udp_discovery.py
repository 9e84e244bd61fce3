"""Discovery by multicast: who is there? Every device of the group answers.

The devices join a group on one port. The client asks the group once, and its handler has a
session for each device that replies, so that it can go on with one of them alone.

Everything stays on the loopback interface; on a real network give the address of the
interface to `serve_udp(host=...)` and `connect_udp(local_host=...)`, or ask the network's
broadcast address with `broadcast=True`, which needs no group.
"""

from __future__ import annotations

import asyncio

from packetcore import Handler, Packet, Session
from packetcore_asyncio import connect_udp, serve_udp

GROUP, LOOPBACK = "239.1.2.3", "127.0.0.1"
WHO_IS_THERE, HERE, HELLO = 1, 2, 3


class Device(Handler):
    """Tells its name to whoever asks for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.greeted = asyncio.Event()

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.id == WHO_IS_THERE:
            session.send(Packet(HERE, self.name.encode()))
        elif packet.id == HELLO:
            print(f"{self.name} was greeted")
            self.greeted.set()


class Seeker(Handler):
    """Collects who replies."""

    def __init__(self) -> None:
        self.found: asyncio.Queue[tuple[str, Session]] = asyncio.Queue()

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.id == HERE:
            self.found.put_nowait((packet.payload.decode(), session))


async def main() -> None:
    lamp, meter, seeker = Device("lamp"), Device("meter"), Seeker()
    async with await serve_udp(lamp, LOOPBACK, 0, multicast_group=GROUP) as first:
        port = first.address[1]
        async with await serve_udp(meter, LOOPBACK, port, multicast_group=GROUP):
            group = await connect_udp(GROUP, port, seeker, local_host=LOOPBACK)
            group.send(Packet(WHO_IS_THERE))
            # In the field collect for a second or so: how many there are, nobody knows.
            found = dict([await seeker.found.get() for _ in range(2)])
            print("found:", ", ".join(sorted(found)))
            found["meter"].send(Packet(HELLO))
            await meter.greeted.wait()
            for session in (group, *found.values()):
                session.close()


if __name__ == "__main__":
    asyncio.run(main())
