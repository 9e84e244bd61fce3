"""A recording played against a live server: what each client said, by a connection of its own, and what is
replied."""

from __future__ import annotations

import argparse
import asyncio
import math
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from packetcore import Malformed, Packet
from packetcore.framings import Framing
from packetcore_cli._event_line import event_cells
from packetcore_cli._failure import reason_of
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, counted
from packetcore_cli._tls import client_tls
from packetcore_tap import Chunk, Conversation, Ended, Events, Heard, Reset, Side, Told, as_json, differences

TIMEOUT = 2.0
"""Seconds without a reply after which no more are waited for."""

AT_ONCE = 500
"""Connections at a time: systems let a process have some 1,000 descriptors."""

SHOWN = 10
"""Failures and differences that are shown."""


@dataclass(frozen=True)
class Play:
    """Where a recording is played to, and how."""

    host: str
    port: int
    speed: float
    """How many times as fast as it was recorded; infinite for no waits."""
    timeout: float
    """Seconds without a reply after which no more are waited for."""
    tls: ssl.SSLContext | None
    framing: Framing | None
    max_payload: int

    @classmethod
    def of(cls, args: argparse.Namespace) -> Play:
        """What the command line says.

        Raises:
            Failure: a file for TLS is not good.
        """
        host, port = args.to
        tls = client_tls(args)
        context = None if tls is None else tls.context(server_side=False)
        speed = 1.0 if args.speed is None else args.speed
        timeout = TIMEOUT if args.timeout is None else args.timeout
        return cls(host, port, speed, timeout, context, args.framing, args.max_payload)


@dataclass
class _Part:
    """One conversation, and what became of it."""

    conversation: Conversation
    to_say: list[Heard]
    expected: list[Told]
    replies: list[Told] = field(default_factory=list)
    failure: str | None = None
    chunks: int = 0


def play(how: Play, heard: Sequence[Heard], out: Terminal, err: Terminal) -> int:
    """Play it, print the replies as they come and how they compare with those recorded.

    Returns:
        0; 1 where something could not be said, or was replied to in another way.
    """
    parts = _parts(how, heard)
    began = min((each.time for each in heard), default=0)
    asyncio.run(_play(how, parts, began, out))
    failures = [part for part in parts if part.failure is not None]
    for part in failures[:SHOWN]:
        err.line(f"packetcore: conversation {part.conversation.number}: {part.failure}")
    if len(failures) > SHOWN:
        err.line(f"packetcore: and {len(failures) - SHOWN} more")
    differing = 0
    for part in (part for part in parts if part.failure is None or part.replies):
        found = differences(map(as_json, part.expected), map(as_json, part.replies))
        differing += bool(found)
        for each in found if differing <= SHOWN else ():
            out.line((f"conversation {each.conversation}, reply {each.place} is another:", "bold red"))
            out.line("  recorded  ", each.one or "nothing more")
            out.line("  now       ", each.other or "nothing more")
    said, replies = sum(part.chunks for part in parts), sum(len(part.replies) for part in parts)
    text = f"{counted(len(parts), 'conversation')}, {counted(said, 'chunk')} sent, {replies} replies: "
    amiss = [(differing, "with other replies than recorded"), (len(failures), "failed")]
    verdict = ", ".join(f"{number} {what}" for number, what in amiss if number) or "as recorded"
    out.line((text + verdict, "bold"))
    return 1 if differing or failures else 0


def _parts(how: Play, heard: Sequence[Heard]) -> list[_Part]:
    said: defaultdict[Conversation, list[Heard]] = defaultdict(list)
    expected: defaultdict[Conversation, list[Told]] = defaultdict(list)
    decoding = Events(how.framing, how.max_payload)
    for each in heard:
        told = decoding.feed(each)
        if each.sender is Side.CLIENT:
            said[each.conversation].append(each)
        else:
            expected[each.conversation] += filter(_is_content, told)
    return [_Part(conversation, said[conversation], expected[conversation]) for conversation in said]


def _is_content(told: Told) -> bool:
    return isinstance(told.what, (Packet, bytes, Malformed))


async def _play(how: Play, parts: Sequence[_Part], began: int, out: Terminal) -> None:
    places = asyncio.Semaphore(AT_ONCE)
    start = time.monotonic()

    async def until(at: int) -> None:
        """Wait for the time at which something was said."""
        if how.speed < math.inf:
            await asyncio.sleep(max(0.0, start + (at - began) / 1e9 / how.speed - time.monotonic()))

    async def one(part: _Part) -> None:
        await until(part.to_say[0].time)
        async with places:
            try:
                await (_stream if part.conversation.kind == "tcp" else _datagrams)(how, part, until, out)
            except (asyncio.TimeoutError, TimeoutError):
                part.failure = f"{address_text((how.host, how.port))} takes nothing for {how.timeout:g} s"
            except (OSError, ValueError) as error:
                part.failure = f"{address_text((how.host, how.port))}: {reason_of(error)}"

    await asyncio.gather(*map(one, parts))


class _Replies:
    """Decodes what comes and prints it."""

    def __init__(self, how: Play, part: _Part, out: Terminal) -> None:
        self.changed = asyncio.Event()
        self.is_over = False
        self._part = part
        self._out = out
        self._events = Events(how.framing, how.max_payload)

    def feed(self, data: bytes) -> None:
        self._tell(Chunk(self._part.conversation, time.time_ns(), Side.SERVER, data))

    def end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._tell(Ended(self._part.conversation, time.time_ns(), Side.SERVER))

    def _tell(self, heard: Heard) -> None:
        for told in self._events.feed(heard):
            if _is_content(told):
                self._part.replies.append(told)
                self._out.line(*event_cells(told))
        self.changed.set()

    async def all(self, timeout: float) -> None:
        """Wait for as many as were recorded, for the end, or until nothing comes for a while."""
        while len(self._part.replies) < len(self._part.expected) and not self.is_over:
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), timeout)
            except (asyncio.TimeoutError, TimeoutError):
                return


Until = Callable[[int], Any]


async def _stream(how: Play, part: _Part, until: Until, out: Terminal) -> None:
    connecting = asyncio.open_connection(how.host, how.port, ssl=how.tls)
    reader, writer = await asyncio.wait_for(connecting, max(how.timeout, TIMEOUT))
    replies = _Replies(how, part, out)

    async def read() -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                replies.feed(data)
        replies.end()

    reading = asyncio.create_task(read())
    try:
        for heard in part.to_say:
            await until(heard.time)
            match heard:
                case Chunk(data=data):
                    writer.write(data)
                    await asyncio.wait_for(writer.drain(), how.timeout)
                    part.chunks += 1
                case Ended():
                    if writer.can_write_eof():
                        writer.write_eof()
                case Reset():
                    await replies.all(how.timeout)
                    writer.transport.abort()
                    return
        await replies.all(how.timeout)
    finally:
        reading.cancel()
        writer.transport.abort() if replies.is_over else writer.close()
        with suppress(OSError, asyncio.CancelledError):
            await reading


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, replies: _Replies) -> None:
        self.replies = replies
        self.error: Exception | None = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.replies.feed(data)

    def error_received(self, exc: Exception) -> None:
        self.error = exc


async def _datagrams(how: Play, part: _Part, until: Until, out: Terminal) -> None:
    replies = _Replies(how, part, out)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _Datagrams(replies), remote_addr=(how.host, how.port)
    )
    try:
        for heard in part.to_say:
            await until(heard.time)
            if isinstance(heard, Chunk):
                transport.sendto(heard.data)
                part.chunks += 1
        await replies.all(how.timeout)
        if isinstance(protocol.error, OSError) and not part.replies:
            raise protocol.error
    finally:
        transport.close()
