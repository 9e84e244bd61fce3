"""A player without a screen, by UDP: it runs for the star.

python -m examples.game_room.bot HOST PORT [--name NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from contextlib import suppress

from packetcore import Config, Packet, SessionClosed
from packetcore_asyncio import Stream, connect_udp

from . import protocol
from .ending import until_told
from .protocol import LEAVE, NO_TICKET, STATE, TICKET, TICKET_SIZE, WELCOME, Dot

CLIENT = Config(idle_timeout=3.0)
"""A room that says nothing for so long is gone."""

PATIENCE = 0.5
"""Seconds until a JOIN is sent again: it, or the reply, was lost."""

QUICKNESS = 0.3
"""How often it looks up, of all ticks: each time would be no fun to play against."""

RETRY = 2.0
"""Seconds until a room that is not there is looked for again."""


async def play(name: str, host: str, port: int) -> None:
    """Play until cancelled, whether or not the room is there."""
    while True:
        try:
            async with await connect_udp(host, port, config=CLIENT) as room:
                try:
                    await _play(room, name)
                finally:
                    with suppress(SessionClosed):
                        room.session.send(Packet(LEAVE))
        except (SessionClosed, OSError) as error:
            print(f"{name} looks for the room: {error}", flush=True)
        await asyncio.sleep(RETRY)


async def _play(room: Stream, name: str) -> None:
    """Until the room does not know us any more, as after a restart."""
    number = await _enter(room, name)
    while True:
        packet = await room.recv()
        if packet.id != STATE:
            continue
        state = protocol.read_state(packet.payload)
        me = next((dot for dot in state.dots if dot.number == number), None)
        if me is None:
            return
        if random.random() < QUICKNESS:
            await room.send(protocol.input_(*towards(state.star, me)))


async def _enter(room: Stream, name: str) -> int:
    """Ask to come in until we are; gives our number."""
    ticket = NO_TICKET
    while True:
        await room.send(protocol.join(ticket, name))
        try:
            packet = await asyncio.wait_for(room.recv(), PATIENCE)
        except (asyncio.TimeoutError, TimeoutError):
            continue
        if packet.id == TICKET and len(packet.payload) == TICKET_SIZE:
            ticket = packet.payload
        elif packet.id == WELCOME:
            return protocol.read_welcome(packet.payload)
        else:
            await asyncio.sleep(PATIENCE)  # it is full


def towards(star: tuple[int, int], me: Dot) -> tuple[int, int]:
    """Which way it is."""
    return _sign(star[0] - me.x), _sign(star[1] - me.y)


def _sign(way: int) -> int:
    return 0 if abs(way) < 10 else 1 if way > 0 else -1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.game_room.bot", description="A player by UDP.")
    parser.add_argument("host", help="the room's")
    parser.add_argument("port", type=int, help="its UDP port")
    parser.add_argument("--name", default="bot", help="(default: %(default)s)")
    arguments = parser.parse_args()
    try:
        asyncio.run(until_told(play(arguments.name, arguments.host, arguments.port)))
    except (OverflowError, ValueError) as error:
        sys.exit(f"bot: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
