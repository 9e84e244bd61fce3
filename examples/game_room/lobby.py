"""Between sessions and the room: who may come in, what they want, and who is told what. The same by UDP and WebSocket.

The state goes out to each by itself, and never waits for anybody: who has not taken what was sent before, because
its line is slow or it is stopped, is left out until it has. It then sees the newest state, not the old ones.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress

from packetcore import CloseReason, Handler, Packet, Session

from . import protocol
from .protocol import FULL, TICKET
from .room import HEIGHT, WIDTH, Full, Player, Room

TICKS = 20
"""A second."""

NAMES_EVERY = TICKS
"""Ticks between two NAMES, which may be lost."""

BEHIND = 1_000
"""Bytes that may wait for somebody before he is left out: two states or so."""


class Lobby(Handler):
    """The handler of both servers.

    Args:
        room: where they play.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.left_out = 0
        """States that somebody did not get for being behind."""
        self._tickets: dict[Session, bytes] = {}
        self._players: dict[Session, Player] = {}

    def packet_received(self, session: Session, packet: Packet) -> None:
        player = self._players.get(session)
        match packet.id:
            case protocol.JOIN:
                with suppress(ValueError):
                    self._join(session, *protocol.read_join(packet.payload))
            case protocol.INPUT if player is not None:
                with suppress(ValueError):
                    player.dx, player.dy = protocol.read_input(packet.payload)
            case protocol.LEAVE:
                session.close()

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._tickets.pop(session, None)
        player = self._players.pop(session, None)
        if player is not None:
            self.room.leave(player)

    async def run(self) -> None:
        """Let time pass, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + 1 / TICKS, loop.time() - 1.0)  # after a pause of this machine no second is caught up
            await asyncio.sleep(due - loop.time())
            self.advance()

    def advance(self) -> None:
        """One tick, told to everybody."""
        room = self.room
        room.advance(1 / TICKS)
        names = self._names() if room.tick % NAMES_EVERY == 0 else []
        self._tell(protocol.state(room.tick, room.star, room.dots()), *names)

    def _join(self, session: Session, ticket: bytes, name: str) -> None:
        if session not in self._players:
            expected = self._tickets.setdefault(session, secrets.token_bytes(protocol.TICKET_SIZE))
            if ticket != expected:
                session.send(Packet(TICKET, expected))
                return
            try:
                self._players[session] = self.room.enter(name)
            except Full:
                session.send(Packet(FULL))
                return
        # It may have been lost: who asks again is told again.
        session.send(protocol.welcome(self._players[session].number, WIDTH, HEIGHT))
        self._tell(*self._names())

    def _names(self) -> Iterator[Packet]:
        return protocol.names((player.number, player.name) for player in self.room.players.values())

    def _tell(self, *packets: Packet) -> None:
        for session in [*self._players]:
            if session.outstanding > BEHIND:
                self.left_out += 1
            elif session.is_open:
                for packet in packets:
                    session.send(packet)
