"""What the sensor says: numbered readings, in frames whose check finds noise."""

from __future__ import annotations

from dataclasses import dataclass

from packetcore.framings import HDLC
from packetcore.layout import I32, U8, U32, Layout

CHANNELS = {1: "temperature, °C", 2: "humidity, %", 3: "pressure, hPa"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of one channel."""

    id: U32
    """Counts up by one with every reading of the sensor, whatever its channel: what is missing was lost."""
    channel: U8
    value: I32
    """In thousandths."""


FRAMING = HDLC()
"""A damaged frame is found by its check, and the next one by its flag."""

CODEC = Layout(Reading)


def missing_between(last: int, id: int) -> int | None:
    """How many readings were lost between two; `None` if the sensor has begun anew."""
    missing = (id - last - 1) & 0xFFFF_FFFF
    return missing if missing < 1 << 31 else None
