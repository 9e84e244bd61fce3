"""What a link does to what passes through it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impairments:
    """What one direction of a link does to what is sent through it: nothing, unless told.

    Raises:
        ValueError: a value is out of its range, or two contradict each other.
    """

    latency: float = 0.0
    """Seconds that everything is under way."""

    jitter: float = 0.0
    """Seconds more, drawn anew for each piece from 0 up to this. What a stream carries stays in order;
    datagrams overtake each other."""

    bandwidth: float | None = None
    """Bytes a second; `None` for as many as come."""

    buffer: int | None = 1 << 18
    """Bytes that the link holds before it takes no more; `None` for any number."""

    cut: int | None = None
    """A stream's bytes arrive in pieces of 1 up to this many; `None` for as they were sent."""

    gap: float = 0.0
    """Seconds between two pieces of what was cut."""

    merge: float = 0.0
    """Seconds for which what a stream brings is held, to arrive in one piece with what follows."""

    corrupt: float = 0.0
    """Chance of each byte to arrive as another one, from 0 to 1."""

    loss: float = 0.0
    """Chance of each datagram not to arrive, from 0 to 1."""

    duplication: float = 0.0
    """Chance of each datagram to arrive twice, from 0 to 1."""

    def __post_init__(self) -> None:
        for name in ("latency", "jitter", "gap", "merge"):
            _check(name, getattr(self, name), "must not be below 0", getattr(self, name) >= 0)
        for name in ("corrupt", "loss", "duplication"):
            _check(name, getattr(self, name), "must be from 0 to 1", 0 <= getattr(self, name) <= 1)
        for name in ("bandwidth", "buffer", "cut"):
            value = getattr(self, name)
            _check(name, value, "must be above 0, or None", value is None or value > 0)
        if self.cut is not None and self.merge:
            raise ValueError(f"cut={self.cut} and merge={self.merge} contradict each other: set one of them")


def _check(name: str, value: object, rule: str, is_met: bool) -> None:
    if not is_met:
        raise ValueError(f"{name}={value} {rule}")
