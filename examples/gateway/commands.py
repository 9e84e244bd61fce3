"""A command to a device, and what came of it."""

from __future__ import annotations

from itertools import count

from packetcore import Packet, Reply, Session, SessionPool
from packetcore_asyncio import request

from .protocol import COMMAND, RESULT, text_of

_numbers = count(1)


class Offline(Exception):
    """The device has no session."""


async def command(sessions: SessionPool[Session], name: str, text: str, timeout: float = 5.0) -> str:
    """Tell a device to do something, and wait for what it says to that. Any number may wait at once.

    Args:
        sessions: those of the gateway's server.
        name: of the device.
        text: what to do.
        timeout: how long to wait, in seconds.

    Raises:
        Offline: it is not here.
        TimeoutError: it did not answer in time. It may have done what it was told all the same.
        packetcore.SessionClosed: it went away meanwhile; the same holds.
    """
    session = sessions.find(name)
    if session is None or not session.is_open:
        raise Offline(name)
    number = next(_numbers) & 0xFFFF

    def is_result(reply: Reply) -> bool:
        return isinstance(reply, Packet) and (reply.type, reply.id) == (RESULT, number)

    result = await request(session, Packet(number, text.encode(), type=COMMAND), match=is_result, timeout=timeout)
    assert isinstance(result, Packet)
    return text_of(result)
