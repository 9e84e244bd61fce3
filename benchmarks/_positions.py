"""An application that has something to do for each packet: it reads where a vehicle is and adds up its way."""

from __future__ import annotations

import json
from math import asin, cos, radians, sin, sqrt

from packetcore import Handler, Packet, Session

POSITION = b'{"lat": 52.520008, "lon": 13.404954, "speed": 42.5, "sats": 11 }'
"""What a vehicle says, 64 bytes."""
EARTH = 6_371_000.0
"""Metres, its mean radius."""


class Positions(Handler[Packet]):
    """Answers each position with itself, which says that it was taken."""

    def __init__(self) -> None:
        self.odometer = 0.0
        """Metres, of all vehicles."""
        self._last: dict[int, tuple[float, float]] = {}

    def packets_received(self, session: Session[Packet], packets: list[Packet]) -> None:
        for packet in packets:
            position = json.loads(packet.payload)
            here = radians(position["lat"]), radians(position["lon"])
            self.odometer += distance(self._last.get(packet.id, here), here)
            self._last[packet.id] = here
            session.send(packet)


def distance(one: tuple[float, float], two: tuple[float, float]) -> float:
    """Metres between two places, given in radians, along the surface: the haversine formula."""
    (phi, lam), (other_phi, other_lam) = one, two
    a = sin((other_phi - phi) / 2) ** 2 + cos(phi) * cos(other_phi) * sin((other_lam - lam) / 2) ** 2
    return 2 * EARTH * asin(min(1.0, sqrt(a)))
