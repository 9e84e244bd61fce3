"""The two ways through a tap: the client is who connected to it, or sent it a datagram."""

from __future__ import annotations

from typing import Literal

Direction = Literal["to_server", "to_client"]
"""Which way something passes."""

DIRECTIONS: tuple[Direction, Direction] = ("to_server", "to_client")
"""Both."""

Both = Direction | Literal["both"]


def directions_of(direction: Both) -> list[Direction]:
    """One of them, or both.

    Raises:
        ValueError: it is none.
    """
    if direction not in (*DIRECTIONS, "both"):
        raise ValueError(f'direction={direction!r} is none of "to_server", "to_client" and "both"')
    return [each for each in DIRECTIONS if direction in (each, "both")]
