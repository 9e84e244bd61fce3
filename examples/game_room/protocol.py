"""What players and the room say to each other: small packets, told apart by their ids.

All of the arena goes out with every tick, so that a lost datagram costs a twentieth of a second and nothing has to
be repeated. Only names are told apart from that, and now and then, as they seldom change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from packetcore import Packet

JOIN, TICKET, WELCOME, FULL, INPUT, LEAVE, STATE, NAMES = range(1, 9)
"""Ids of packets.

    client to room                          room to client
    JOIN    the ticket, and a name          TICKET   for who has none; FULL: no room
                                            WELCOME  the player's number, the arena's size
    INPUT   where to go                     STATE    every tick
    LEAVE                                   NAMES    now and then
"""

TICKET_SIZE = 8
"""Bytes. An address of UDP can be forged, and STATE is more than anybody has sent for it: only who can read what is
sent to an address, and so knows the ticket, gets any."""

NO_TICKET = bytes(TICKET_SIZE)
MAX_NAME = 12
"""Characters."""
NAMES_AT_ONCE = 10
"""Players in one NAMES: a datagram of 1,200 bytes has room for them, even if each byte had to be escaped."""


class Dot(NamedTuple):
    """A player in a STATE: number, place and score."""

    number: int
    x: int
    y: int
    score: int


class State(NamedTuple):
    """The arena at one tick."""

    tick: int
    star: tuple[int, int]
    dots: list[Dot]


def join(ticket: bytes, name: str) -> Packet:
    return Packet(JOIN, ticket + name.encode())


def read_join(payload: bytes) -> tuple[bytes, str]:
    """Ticket and name of a JOIN; the name is one that can be shown.

    Raises:
        ValueError: it is shorter than a ticket, and so than a TICKET in reply.
    """
    if len(payload) < TICKET_SIZE:
        raise ValueError(f"a JOIN has at least {TICKET_SIZE} bytes, not {len(payload)}")
    name = payload[TICKET_SIZE:].decode(errors="replace")
    shown = "".join(filter(str.isprintable, name)).strip()[:MAX_NAME].strip()
    return payload[:TICKET_SIZE], shown or "nobody"


def welcome(number: int, width: int, height: int) -> Packet:
    return Packet(WELCOME, struct.pack(">HHH", number, width, height))


def read_welcome(payload: bytes) -> int:
    """The player's number, of a WELCOME."""
    number: int = struct.unpack(">HHH", payload)[0]
    return number


def input_(dx: int, dy: int) -> Packet:
    """Where to go: -1, 0 or 1 each way."""
    return Packet(INPUT, struct.pack(">bb", dx, dy))


def read_input(payload: bytes) -> tuple[int, int]:
    """Where to go. Anything else than -1, 0 and 1 is as good as the nearest of them.

    Raises:
        ValueError: it has not two bytes.
    """
    if len(payload) != 2:
        raise ValueError(f"an INPUT has 2 bytes, not {len(payload)}")
    dx, dy = struct.unpack(">bb", payload)
    return max(-1, min(1, dx)), max(-1, min(1, dy))


def state(tick: int, star: tuple[int, int], dots: Iterable[Dot]) -> Packet:
    head = struct.pack(">IHH", tick & 0xFFFF_FFFF, *star)
    return Packet(STATE, head + b"".join(struct.pack(">HHHH", *dot) for dot in dots))


def read_state(payload: bytes) -> State:
    tick, *star = struct.unpack_from(">IHH", payload)
    return State(tick, (star[0], star[1]), [Dot(*dot) for dot in struct.iter_unpack(">HHHH", payload[8:])])


def names(players: Iterable[tuple[int, str]]) -> Iterator[Packet]:
    """Number, length and name of each, in as many packets as it takes."""
    parts = [struct.pack(">HB", number, len(name.encode())) + name.encode() for number, name in players]
    for at in range(0, len(parts), NAMES_AT_ONCE):
        yield Packet(NAMES, b"".join(parts[at : at + NAMES_AT_ONCE]))
