"""Simulated devices, which go from gateway to gateway.

python -m fleet.devices 200 5000 5001
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress

from packetcore import Backoff, Handler, Packet, ProtocolError, Redial, Session
from packetcore_asyncio import connect

from .lifetime import run, told_to_end
from .packets import CONFIG, Kind

KINDS = ("meter", "lamp", "valve")

BACKOFF = Backoff(initial=0.2, maximum=3.0)
"""For people who watch; the defaults are kinder to gateways."""


class Device(Handler):
    """One of them.

    Args:
        identity: what it is called.
        ports: of the gateways, on this machine.
        stay: seconds that it stays with one of them, about; then it goes to another without a goodbye, as a
            device whose network has changed does.
    """

    def __init__(self, identity: str, ports: Sequence[int], stay: float) -> None:
        self.identity = identity
        self._ports = ports
        self._stay = stay
        self._at = random.randrange(len(ports))
        self._session: Session | None = None
        self._lost = asyncio.Event()
        self._since = time.monotonic()
        self._connections = 0
        self._is_on = True
        self._notice = ""

    # What a handler hears.

    def connected(self, session: Session) -> None:
        self._session = session
        self._lost.clear()
        self._connections += 1
        session.send(Packet(Kind.HELLO, self.identity.encode()))

    def packet_received(self, session: Session, packet: Packet) -> None:
        text = packet.payload.decode(errors="replace")
        if packet.id == Kind.COMMAND:
            session.send(Packet(Kind.COMMAND, self.answer(text).encode()))
            if text == "restart":
                session.close()
        elif packet.id == Kind.NOTICE:
            self._notice = text

    def disconnected(self, session: Session, reason: object) -> None:
        if session is self._session:  # and not the one before, which a gateway ends when it hears of this one
            self._lost.set()

    # What it does by itself.

    def answer(self, command: str) -> str:
        """Do what somebody commands, and say something."""
        if command in ("on", "off"):
            self._is_on = command == "on"
            return f"{self.identity} is {command}"
        if command == "status":
            up, state = time.monotonic() - self._since, "on" if self._is_on else "off"
            notice = f", told {self._notice!r}" if self._notice else ""
            return f"{self.identity} is {state}, up {up:.0f} s, in connection {self._connections}{notice}"
        if command == "restart":
            self._since, self._is_on, self._notice = time.monotonic(), True, ""
            return f"{self.identity} restarts"
        return f"{self.identity} knows status, on, off and restart, and not {command!r}"

    async def live(self) -> None:
        """Connect to one gateway after the other."""
        redial = Redial(BACKOFF, random.random)
        await asyncio.sleep(random.random())  # not all at once
        while True:
            self._at = (self._at + 1) % len(self._ports)
            try:
                await connect("127.0.0.1", self._ports[self._at], self, config=CONFIG)
                redial.connected(time.monotonic())
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._lost.wait(), self._stay * random.uniform(0.5, 1.5))
                    await asyncio.sleep(redial.lost(time.monotonic()))
            except (OSError, ProtocolError):  # nobody is there
                await asyncio.sleep(redial.lost(time.monotonic()))


async def main(count: int, ports: Sequence[int], stay: float) -> None:
    """Have so many devices live until told to end."""
    names = (f"{KINDS[number % len(KINDS)]} {number // len(KINDS) + 1}" for number in range(count))
    lives = [asyncio.ensure_future(Device(name, ports, stay).live()) for name in names]
    try:
        await told_to_end()
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m fleet.devices", description="Devices that move about.")
    parser.add_argument("count", type=int, help="how many")
    parser.add_argument("port", type=int, nargs="+", help="of a gateway")
    parser.add_argument("--stay", type=float, default=30.0, help="seconds with one gateway (default: %(default)s)")
    options = parser.parse_args()
    run(main(options.count, options.port, options.stay))
