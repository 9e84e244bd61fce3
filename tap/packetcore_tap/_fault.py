"""What is to happen to each connection through a tap, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from packetcore_tap._direction import Both, Direction, directions_of


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to each connection at a certain point.

    Raises:
        ValueError: the action or the direction is none, not one point is given, or it is below 0.
    """

    action: Literal["reset", "close", "stall", "black_hole"]
    """What happens: the method of `TapConnection` of that name."""

    after_bytes: int | None = None
    """After so many bytes that have passed in one direction, to the byte on a stream."""

    after_seconds: float | None = None
    """After so many seconds of the connection."""

    direction: Both = "both"
    """Whose bytes count, "both" for whichever come to so many first; and of a stall and a black hole what they
    are done to."""

    def __post_init__(self) -> None:
        if self.action not in ("reset", "close", "stall", "black_hole"):
            raise ValueError(f'action={self.action!r} is none of "reset", "close", "stall" and "black_hole"')
        directions_of(self.direction)  # which it raises for
        given = [value for value in (self.after_bytes, self.after_seconds) if value is not None]
        if len(given) != 1:
            raise ValueError(f"after_bytes={self.after_bytes}, after_seconds={self.after_seconds}: give one of them")
        if given[0] < 0:
            raise ValueError(f"{self.action} after {given[0]} must not be below 0")


def until_next(faults: Sequence[Fault], direction: Direction, passed: int) -> int | None:
    """Bytes that may pass in a direction until the next fault happens, where so many have; `None` for any number."""
    return min((after - passed for _, after in _by_bytes(faults, direction) if after > passed), default=None)


def due(faults: Sequence[Fault], direction: Direction, before: int, passed: int) -> list[Fault]:
    """Those that happen once so many bytes have passed in a direction, and were not due before."""
    return [fault for fault, after in _by_bytes(faults, direction) if before < after <= passed]


def _by_bytes(faults: Sequence[Fault], direction: Direction) -> list[tuple[Fault, int]]:
    return [
        (fault, fault.after_bytes)
        for fault in faults
        if fault.after_bytes is not None and direction in directions_of(fault.direction)
    ]
