"""What devices and gateways say to each other, and the limits that both keep."""

from __future__ import annotations

import re
from enum import IntEnum

from packetcore import Config, Packet

NAME = "fleet"
"""Of the cluster."""

IDENTITY = re.compile(r"([a-z]{1,20}) \d{1,9}")
"""What a device may be called, its kind first: "meter 7"."""

MAX_TEXT = 500
"""Bytes of a command or a notice."""


class Kind(IntEnum):
    """Ids of packets."""

    HEARTBEAT = 0
    HELLO = 1
    """A device says who it is."""
    COMMAND = 2
    """A command; the device's reply has the same id, which is how the gateway knows it."""
    NOTICE = 3
    """Something for a whole group, which nobody answers."""


CONFIG = Config(
    keepalive_interval=4.0,
    keepalive_packet=Packet(Kind.HEARTBEAT),
    idle_timeout=12.0,  # two heartbeats may be late
    max_payload=4096,
)


def group_of(identity: str) -> str:
    """The group that a device is in: meters, lamps or valves.

    Raises:
        ValueError: nothing is called so.
    """
    found = IDENTITY.fullmatch(identity)
    if found is None:
        raise ValueError(f"{identity!r} is no identity such as 'meter 7'")
    return f"{found[1]}s"
