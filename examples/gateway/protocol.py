"""What a device and the gateway say to each other, and how each notices that the other has gone.

A packet's type says what it is. Of a command the id is its number, which the result repeats; the ids of other
packets mean nothing.
"""

from __future__ import annotations

from packetcore import Config, Packet

ALIVE, READING, COMMAND, RESULT = range(4)
"""Types of packets: a heartbeat; what a device measured, as text; what it is told to do, and what came of it."""

PORT = 7443
"""Where the gateway listens, unless it is told otherwise."""

HEARTBEAT = 5.0
"""Seconds with nothing else to send, after which a side says that it is there."""

SILENCE = 3 * HEARTBEAT
"""Seconds after which a side takes a silent other one for gone. Two heartbeats may be late."""

DEVICE = Config(
    keepalive_interval=HEARTBEAT,
    keepalive_packet=Packet(0, type=ALIVE),
    idle_timeout=SILENCE,
    max_payload=4096,
)

GATEWAY = Config(
    keepalive_interval=HEARTBEAT,
    keepalive_packet=Packet(0, type=ALIVE),
    idle_timeout=SILENCE,
    max_payload=4096,
    max_outstanding=256 * 1024,
    max_sessions=50_000,
    max_sessions_per_host=None,  # carriers hide many devices behind one address, and these have certificates
)
"""Texts are short: a device that turns hostile costs 0.25 MiB at most."""


def text_of(packet: Packet) -> str:
    """What a packet says. Bytes that are no UTF-8 cost a question mark, and not the conversation."""
    return packet.payload.decode(errors="replace")
