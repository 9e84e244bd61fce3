"""The rules: dots that move, and a star that is worth a point to who gets there. No clock, no socket.

Who is in the room has a number that no other has; one that is free again is not given out soon.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from .protocol import Dot

WIDTH, HEIGHT = 800, 500
MARGIN = 15
"""How near to the edge dots go."""
SPEED = 200.0
"""A second."""
REACH = 20.0
"""How near is near enough to the star."""
MAX_PLAYERS = 60
"""So many dots fit a datagram of 1,200 bytes, even if each byte had to be escaped: 2 * (9 + 8 + 60 * 8) + 2."""


@dataclass(slots=True)
class Player:
    """Who plays."""

    number: int
    name: str
    x: float
    y: float
    dx: int = 0
    dy: int = 0
    """Where to: -1, 0 or 1 each way."""
    score: int = 0


class Full(Exception):
    """There is no room for one more."""


class Room:
    """Who is in it, and where.

    Args:
        draw: where chance comes from.
    """

    def __init__(self, draw: random.Random) -> None:
        self.players: dict[int, Player] = {}
        self.tick = 0
        self._draw = draw
        self._numbers = cycle(range(1, 0x10000))
        self.star = self._somewhere()

    def enter(self, name: str) -> Player:
        """Let one more in.

        Raises:
            Full: there are `MAX_PLAYERS`.
        """
        if len(self.players) >= MAX_PLAYERS:
            raise Full
        number = next(number for number in self._numbers if number not in self.players)
        player = self.players[number] = Player(number, name, *self._somewhere())
        return player

    def leave(self, player: Player) -> None:
        """Let one go."""
        self.players.pop(player.number, None)

    def advance(self, seconds: float) -> None:
        """Let time pass: one tick."""
        self.tick += 1
        for player in self.players.values():
            step = SPEED * seconds / (2**0.5 if player.dx and player.dy else 1)
            player.x = min(WIDTH - MARGIN, max(MARGIN, player.x + player.dx * step))
            player.y = min(HEIGHT - MARGIN, max(MARGIN, player.y + player.dy * step))
            if abs(player.x - self.star[0]) < REACH and abs(player.y - self.star[1]) < REACH:
                player.score += 1
                self.star = self._somewhere()

    def dots(self) -> Iterator[Dot]:
        """What everybody sees."""
        for player in self.players.values():
            yield Dot(player.number, round(player.x), round(player.y), min(player.score, 0xFFFF))

    def _somewhere(self) -> tuple[int, int]:
        return self._draw.randint(MARGIN, WIDTH - MARGIN), self._draw.randint(MARGIN, HEIGHT - MARGIN)
