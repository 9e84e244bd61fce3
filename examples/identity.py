"""One device, two networks: TCP and UDP servers that share one register of sessions.

A device says who it is in its first packet. Whichever way it comes, and however often, it has
one session: the latest takes over and the one before ends with REPLACED.
"""

from __future__ import annotations

import asyncio

from packetcore import CloseReason, Handler, Packet, Session, SessionPool
from packetcore_asyncio import connect, connect_udp, serve, serve_udp

HELLO, COMMAND = 1, 2


class Gateway(Handler):
    """Binds each session to the device that speaks in it."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.over = asyncio.Event()

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.id == HELLO:
            device = packet.payload.decode()
            session.bind(device)  # takeover="reject" would raise IdentityTaken instead
            print(f"gateway: {device} is session {session.id}, over {self.way}")
            session.send(Packet(HELLO))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        print(f"gateway: session {session.id} of {session.identity} is over, {reason.name}")
        self.over.set()


async def main() -> None:
    sessions: SessionPool[Session] = SessionPool(timeout=60.0, max_sessions=10_000, max_per_host=1_000)

    def command(device: str, text: bytes) -> None:
        """Reaches a device wherever it spoke last; an id that is over reaches nobody."""
        session = sessions.find(device)
        if session is not None:
            session.send(Packet(COMMAND, text))

    by_tcp, by_udp = Gateway("TCP"), Gateway("UDP")
    async with (
        await serve(by_tcp, sessions=sessions) as tcp,
        await serve_udp(by_udp, sessions=sessions) as udp,
        await connect(*tcp.address[:2]) as cable,
        await connect_udp(*udp.address[:2]) as radio,
    ):
        await cable.request(Packet(HELLO, b"meter 7"), timeout=5.0)
        command("meter 7", b"sleep")
        print(f"meter: told to {(await cable.recv()).payload.decode()} by cable")

        await radio.request(Packet(HELLO, b"meter 7"), timeout=5.0)
        command("meter 7", b"wake up")
        print(f"meter: told to {(await radio.recv()).payload.decode()} by radio")

        await cable.close()
        await by_tcp.over.wait()
        print(f"gateway: session 1 is {sessions.get(1)}; it counts {len(sessions)} session")


if __name__ == "__main__":
    asyncio.run(main())
