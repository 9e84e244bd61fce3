"""A device: it measures, obeys, comes back when it was cut off, and keeps what it measured meanwhile.

    python -m examples.gateway.device NAME --certificates FOLDER [--host HOST] [--port PORT]

The gateway's own process simulates a few; this program is one more, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from contextlib import suppress
from pathlib import Path
from ssl import SSLContext

from packetcore import Backoff, Handler, NotConnected, Packet, Session
from packetcore_asyncio import connect

from . import certificates
from .protocol import COMMAND, DEVICE, PORT, READING, RESULT, text_of

INTERVAL = 2.0
"""Seconds between two readings."""

KEPT = 100
"""How many readings wait for a connection."""

RECONNECT = Backoff(initial=0.5, maximum=30.0)


class Device(Handler):
    """A cold store, and what may be asked of it.

    Args:
        draw: where its temperatures come from.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._target = -18.0
        self._degrees = self._target + draw.uniform(-2, 2)
        self._told_to_sleep = asyncio.Event()
        self._sleep = 0

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == COMMAND:
            result = self.obey(text_of(packet))
            session.send(Packet(packet.id, result.encode(), type=RESULT))

    def obey(self, command: str) -> str:
        """Do something, and say what came of it."""
        match command.split():
            case ["status"]:
                return f"{self._degrees:.1f} °C, and {self._target:g} °C are wanted"
            case ["target", ("-40" | "-18" | "4") as degrees]:
                self._target = float(degrees)
                return f"keeps {degrees} °C from now on"
            case ["sleep", seconds] if seconds.isdecimal() and 0 < int(seconds) < 1000:
                self._sleep = int(seconds)
                self._told_to_sleep.set()
                return f"good night, for {seconds} s"
            case _:
                return f"{command!r} means nothing to me: it is status, target -40, -18 or 4, or sleep SECONDS"

    async def run(self, host: str, port: int, context: SSLContext) -> None:
        """Report to the gateway, until cancelled."""
        while True:
            client = await connect(host, port, self, reconnect=RECONNECT, keep=KEPT, config=DEVICE, ssl=context)
            async with client:
                while not self._told_to_sleep.is_set():
                    with suppress(NotConnected):  # for so long that older readings are of more use
                        client.send(Packet(0, self._measure().encode(), type=READING))
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._told_to_sleep.wait(), INTERVAL)
            await asyncio.sleep(self._sleep)
            self._told_to_sleep.clear()

    def _measure(self) -> str:
        self._degrees += 0.2 * (self._target - self._degrees) + self._draw.uniform(-0.3, 0.3)
        return f"{self._degrees:.1f} °C"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.gateway.device", description="One device.")
    parser.add_argument("name", help="that of its certificate, as pump-1")
    parser.add_argument("--certificates", type=Path, required=True, metavar="FOLDER", help="where that is")
    parser.add_argument("--host", default="127.0.0.1", help="the gateway's (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="and its port (default: %(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        context = certificates.device_context(arguments.certificates, arguments.name)
        asyncio.run(Device(random.Random()).run(arguments.host, arguments.port, context))
    except OSError as error:
        sys.exit(f"device: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
