"""Where a vehicle is: the one field that several messages have."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from math import copysign

from .fields import from_bcd, from_items, pack, to_bcd, to_items, unpack_first

CHINA = timezone(timedelta(hours=8))
"""The time zone of all times in the standard."""

ON, FIXED = 1 << 0, 1 << 1
"""Bits of `Position.status`: the ignition is on; the position is known."""

EMERGENCY, SPEEDING = 1 << 0, 1 << 1
"""Bits of `Position.alarm`: the driver has pressed the button; the vehicle is too fast."""

_SOUTH, _WEST = 1 << 2, 1 << 3
_MILLION = 1_000_000
_FIELDS = struct.Struct(">IIIIHHH6s")
_EXTRA = struct.Struct(">BB")

SIZE = _FIELDS.size
"""Bytes of a position without extras."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A position, with what else a terminal knows then.

    Raises:
        ValueError: when it is sent, a field is out of range.
    """

    latitude: float
    """Degrees, to a millionth; below 0 in the south."""
    longitude: float
    """Degrees, to a millionth; below 0 in the west."""
    time: datetime | None
    """To a second, with a time zone; `None` where the terminal does not know it, which sends zeros then."""
    altitude: int = 0
    """Metres."""
    speed: float = 0.0
    """Kilometres an hour, to a tenth."""
    direction: int = 0
    """Degrees clockwise from north, 0 to 359."""
    status: int = FIXED
    """Bits, without the two that say south and west."""
    alarm: int = 0
    """Bits."""
    extras: tuple[tuple[int, bytes], ...] = ()
    """More, by number: 1 is the mileage, for one."""

    def encode(self) -> bytes:
        """The position as bytes."""
        if not (abs(self.latitude) <= 90 and abs(self.longitude) <= 180):
            raise ValueError(f"latitude={self.latitude}, longitude={self.longitude} is not on Earth")
        if not 0 <= self.speed < 6553.55:
            raise ValueError(f"speed={self.speed} is out of range 0 to 6553.5")
        if self.status & (_SOUTH | _WEST):
            raise ValueError(f"status={self.status:#x} says south or west: a coordinate below 0 does")
        _check_direction(self.direction)
        south = _SOUTH if copysign(1, self.latitude) < 0 else 0
        west = _WEST if copysign(1, self.longitude) < 0 else 0
        return pack(
            "a position",
            _FIELDS,
            self.alarm,
            self.status | south | west,
            round(abs(self.latitude) * _MILLION),
            round(abs(self.longitude) * _MILLION),
            self.altitude,
            round(self.speed * 10),
            self.direction,
            _from_time(self.time),
        ) + to_items("the extra", self.extras, _EXTRA)

    @classmethod
    def decode(cls, data: bytes) -> Position:
        """The position in bytes.

        Raises:
            ValueError: there is none in them.
        """
        alarm, status, latitude, longitude, altitude, speed, direction, time = unpack_first("a position", _FIELDS, data)
        if latitude > 90 * _MILLION or longitude > 180 * _MILLION:
            raise ValueError(f"latitude {latitude}, longitude {longitude}, in millionths, is not on Earth")
        _check_direction(direction)
        return cls(
            latitude=copysign(latitude / _MILLION, -1 if status & _SOUTH else 1),
            longitude=copysign(longitude / _MILLION, -1 if status & _WEST else 1),
            time=_to_time(time),
            altitude=altitude,
            speed=speed / 10,
            direction=direction,
            status=status & ~(_SOUTH | _WEST),
            alarm=alarm,
            extras=from_items("the extra", data, SIZE, _EXTRA),
        )


def _check_direction(direction: int) -> None:
    if not 0 <= direction < 360:
        raise ValueError(f"direction={direction} is out of range 0 to 359")


def _from_time(time: datetime | None) -> bytes:
    if time is None:
        return bytes(6)
    if time.tzinfo is None:
        raise ValueError(f"time {time} has no time zone")
    local = time.astimezone(CHINA)
    if not 2000 <= local.year <= 2099:
        raise ValueError(f"time {time} is not of this century")
    return to_bcd("the time", f"{local:%y%m%d%H%M%S}", 6)


def _to_time(data: bytes) -> datetime | None:
    digits = from_bcd("the time", data)
    if not any(data):
        return None
    year, *rest = (int(digits[at : at + 2]) for at in range(0, 12, 2))
    try:
        return datetime(2000 + year, *rest, tzinfo=CHINA)  # type: ignore[misc, arg-type]
    except ValueError as error:
        raise ValueError(f"the time {digits} is none: {error}") from None
