"""A sensor that is not there: on a pseudo-terminal, which is a serial line to whoever opens it.

It drifts, it is numbered, and its cable lies beside a motor's: some bytes arrive changed, and some that nobody sent.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import tty

from .reading import CODEC, FRAMING, Reading


class Sensor:
    """Sends readings from a line of its own.

    Args:
        rate: how many a second.
        noise: what part of its frames is hit, 0 to 1.
        draw: where chance comes from.
        first_id: of its readings.
    """

    def __init__(self, rate: float, noise: float, draw: random.Random, first_id: int = 0) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = os.ttyname(self._slave)
        """What to open."""
        self.overrun = 0
        """Readings that found no room on the line: nobody reads."""
        self._rate = rate
        self._noise = noise
        self._draw = draw
        self._id = first_id

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        begun, sent = loop.time(), 0
        while True:
            await asyncio.sleep(1 / min(self._rate, 100))
            due = int((loop.time() - begun) * self._rate)
            for _ in range(due - sent):
                self._send(self._next(loop.time()))
            sent = due

    def close(self) -> None:
        """Pull the cable."""
        os.close(self._master)
        os.close(self._slave)

    def _next(self, now: float) -> Reading:
        id, self._id = self._id, (self._id + 1) & 0xFFFF_FFFF
        middle, swing, period = [(21.0, 2.0, 60), (45.0, 8.0, 25), (1013.0, 0.5, 90)][id % 3]
        value = middle + swing * (math.sin(2 * math.pi * now / period) + self._draw.gauss(0, 0.05))
        return Reading(id, 1 + id % 3, round(1000 * value))

    def _send(self, reading: Reading) -> None:
        frame = bytearray(FRAMING.encode(CODEC.encode(reading)))
        if self._draw.random() < self._noise:
            frame[self._draw.randrange(len(frame))] ^= 1 << self._draw.randrange(8)
            frame += self._draw.randbytes(self._draw.randrange(3))
        try:
            whole = os.write(self._master, frame) == len(frame)
        except BlockingIOError:
            whole = False
        self.overrun += not whole
