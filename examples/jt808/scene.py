"""A day of a gateway and its terminals, over loopback and in some seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import cos, sin
from typing import TypeVar

from packetcore_asyncio import Server, serve

from .bodies import OK, Body, Multimedia, ParameterQuery, ParameterReply, Registration, TerminalReply, Text
from .commands import command
from .fragments import Joiner
from .gateway import CONFIG, Gateway
from .packet import FRAMING, JT808Codec, JT808Packet
from .position import CHINA, FIXED, ON, Position
from .progress import Progress
from .terminal import Terminal

AT_ONCE = 250
"""How many terminals do something at the same time; others wait for their turn."""

T = TypeVar("T")


@dataclass
class Scene:
    """What is to happen.

    Attributes:
        came_again: how many terminals connected a second time, while the first connection was there.
        photos_alike: how many photos arrived as they were sent.
    """

    terminals: int
    positions: int = 3
    """How many each terminal reports."""
    photo_size: int = 8_000
    """Bytes of the photo that each sends, in fragments of 512."""
    progress: Progress = field(default_factory=Progress)
    gateway: Gateway = field(default_factory=lambda: Gateway(joiner=Joiner(resend_after=0.5)))
    came_again: int = 0
    photos_alike: int = 0

    async def play(self) -> None:
        """Let it happen."""
        self.gateway.on_message = self._message
        async with await serve(self.gateway, config=CONFIG, framing=FRAMING, codec=JT808Codec()) as server:
            ticking = asyncio.create_task(self._tick(server))
            try:
                await self._play(server)
            finally:
                ticking.cancel()
                with suppress(asyncio.CancelledError):
                    await ticking

    async def _play(self, server: Server[JT808Packet]) -> None:
        terminals = [new_terminal(number) for number in range(self.terminals)]
        tenth = terminals[::10]

        async def sign_in(terminal: Terminal) -> None:
            await terminal.connect(*server.address[:2])
            await terminal.sign_in()

        async def report(what: tuple[Terminal, int]) -> None:
            terminal, at = what
            await terminal.report(position_of(terminal, at))

        async def query(terminal: Terminal) -> None:
            reply = await self._command(server, terminal, ParameterQuery())
            assert isinstance(reply, ParameterReply), reply

        async def tell(terminal: Terminal) -> None:
            reply = await self._command(server, terminal, Text("前方拥堵, please drive slowly"))
            assert isinstance(reply, TerminalReply), reply
            assert reply.result == OK, reply

        async def upload(terminal: Terminal) -> None:
            lost = (2, 5) if terminal in tenth else ()
            await terminal.upload(photo_of(terminal, self.photo_size), lost=lost)

        async def come_again(terminal: Terminal) -> None:
            again = Terminal(terminal.phone, terminal.registration, version=terminal.version, code=terminal.code)
            await sign_in(again)
            assert terminal.over is not None
            await terminal.over
            self.came_again += 1
            terminals[terminals.index(terminal)] = again

        await self._step("register and authenticate", terminals, sign_in)
        await self._step("heartbeat", terminals, Terminal.beat)
        reports = [(terminal, at) for at in range(self.positions) for terminal in terminals]
        await self._step("report a position", reports, report)
        await self._step("command: query parameters", terminals, query)
        await self._step("command: text to the driver", terminals, tell)
        await self._step("photo in fragments", terminals, upload)
        await self._step("come again by another way", tenth, come_again)
        await self._step("hang up", terminals, hang_up)

    async def _step(self, title: str, whom: list[T], what: Callable[[T], Awaitable[object]]) -> None:
        """Do something with each, a number of them at a time."""
        waiting = iter([*whom])
        with self.progress.step(title, len(whom)) as done:

            async def work() -> None:
                for one in waiting:
                    await what(one)
                    done()

            await asyncio.gather(*(work() for _ in range(min(AT_ONCE, len(whom)))))

    async def _command(self, server: Server[JT808Packet], terminal: Terminal, body: Body) -> Body:
        session = server.sessions.find(terminal.phone)
        assert session is not None, f"{terminal.phone} is not there"
        return (await command(self.gateway, session, body)).body

    def _message(self, phone: str, body: Body) -> None:
        if isinstance(body, Multimedia):
            self.photos_alike += body.data == photo_data(phone, self.photo_size)

    async def _tick(self, server: Server[JT808Packet]) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.gateway.tick(server.sessions)


def new_terminal(number: int) -> Terminal:
    """A terminal of its own; each fourth speaks the protocol of 2019."""
    version = 1 if number % 4 == 3 else None
    registration = Registration(
        province=44,
        city=300,
        maker="PCORE",
        model="example",
        terminal=f"T{number:06}",
        colour=2,
        plate=f"粤B{number:05}",
    )
    return Terminal(f"{13_900_000_000 + number:0{20 if version else 12}}", registration, version=version)


def position_of(terminal: Terminal, at: int) -> Position:
    """Where it is at some time: on a circle around Shenzhen."""
    angle = int(terminal.phone[-4:]) + at / 100
    return Position(
        latitude=22.54 + 0.1 * sin(angle),
        longitude=114.06 + 0.1 * cos(angle),
        time=datetime.now(CHINA).replace(microsecond=0),
        altitude=20,
        speed=50.0,
        direction=int(angle * 57.3) % 360,
        status=ON | FIXED,
    )


def photo_data(phone: str, size: int) -> bytes:
    """Bytes that are this terminal's alone, with many that the framing has to escape."""
    seed = f"~}}{phone}".encode()
    return (seed * (size // len(seed) + 1))[:size]


def photo_of(terminal: Terminal, size: int) -> Multimedia:
    """A photo with such bytes."""
    return Multimedia(number=1, position=position_of(terminal, 0), data=photo_data(terminal.phone, size))


async def hang_up(terminal: Terminal) -> None:
    """Close its connection, and wait until it is over."""
    terminal.session.close()
    assert terminal.over is not None
    await terminal.over
