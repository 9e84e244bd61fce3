"""Commands of the platform to its terminals, each with its reply."""

from __future__ import annotations

from functools import partial

from packetcore import Session
from packetcore_asyncio import request

from .bodies import Body
from .gateway import Gateway
from .packet import JT808Packet, answers


async def command(gateway: Gateway, session: Session[JT808Packet], body: Body, *, timeout: float = 10.0) -> JT808Packet:
    """Send a command and wait for its reply, which names its serial number. Any number may wait at once.

    Raises:
        TimeoutError: no reply came in time.
        SessionClosed: the session is closing or closed.
    """
    packet = gateway.packet_to(session, body)
    return await request(session, packet, match=partial(answers, packet), timeout=timeout)
