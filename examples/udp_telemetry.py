"""A telemetry server over UDP: readings come in, commands go out to a device by its name.

A session belongs to an address, and a device's address changes whenever its network says
so. The server binds each session to the device that speaks in it: a command sent from
outside the handler then reaches the device wherever it last spoke from.
"""

from __future__ import annotations

import asyncio

from packetcore import CloseReason, Config, Handler, Packet, Session
from packetcore_asyncio import connect_udp, serve_udp

READING, COMMAND = 1, 2


class Telemetry(Handler):
    """Keeps the latest reading of each device. A packet's id names the device."""

    def __init__(self) -> None:
        self.latest: dict[int, int] = {}
        self.news = asyncio.Event()

    def packet_received(self, session: Session, packet: Packet) -> None:
        if session.identity is None:
            session.bind(packet.id)  # an older session of the same device ends with REPLACED
        self.latest[packet.id] = int.from_bytes(packet.payload, "big")
        print(f"server: device {packet.id} reads {self.latest[packet.id]} in session {session.id}")
        self.news.set()

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        print(f"server: session {session.id} of device {session.identity} is over, {reason.name}")
        self.news.set()


async def report(device: int, value: int, port: int) -> None:
    """One report from a new port, as after a change of network, and a command in return."""
    async with await connect_udp("127.0.0.1", port) as stream:
        await stream.send(Packet(device, value.to_bytes(2, "big"), type=READING))
        command = await stream.recv()
        print(f"device {device}: told to {command.payload.decode()}")


async def main() -> None:
    telemetry = Telemetry()
    async with await serve_udp(telemetry, config=Config(idle_timeout=0.5)) as server:

        def command(device: int, text: bytes) -> None:
            """What an operator asks for, say: it comes from outside the handler."""
            session = server.sessions.find(device)
            if session is not None:
                session.send(Packet(device, text, type=COMMAND))

        for value, text in ((20, b"sleep"), (23, b"wake up")):
            telemetry.news.clear()
            reporting = asyncio.create_task(report(7, value, server.address[1]))
            await telemetry.news.wait()
            command(7, text)
            await reporting

        while server.sessions:  # nobody says good-bye over UDP: silence ends a session
            telemetry.news.clear()
            await telemetry.news.wait()
    print(f"the last reading of device 7 was {telemetry.latest[7]}")


if __name__ == "__main__":
    asyncio.run(main())
