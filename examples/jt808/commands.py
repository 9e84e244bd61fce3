"""Commands of the platform to its terminals, each with its reply."""

from __future__ import annotations

from functools import partial
from typing import Any

from packetcore import Session
from packetcore_asyncio import request

from .bodies import Body
from .gateway import Gateway
from .packet import JT808Packet, answers


async def command(gateway: Gateway, session: Session, body: Body, *, timeout: float = 10.0) -> JT808Packet:
    """Send a command and wait for its reply, which names its serial number. Any number may wait at once.

    Raises:
        TimeoutError: no reply came in time.
        SessionClosed: the session is closing or closed.
    """
    packet: Any = gateway.packet_to(session, body)
    match: Any = partial(answers, packet)
    reply: Any = await request(session, packet, match=match, timeout=timeout)
    assert isinstance(reply, JT808Packet)
    return reply
