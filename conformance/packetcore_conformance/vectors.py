"""Golden frames: 80 packets and the bytes that the .NET library made of them, each of which
it also decoded back."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import NamedTuple

from packetcore import Packet


class Vector(NamedTuple):
    """One packet and its frame."""

    packet: Packet
    wire: bytes


def load() -> list[Vector]:
    """The frames, in the order in which they were made."""
    text = files("packetcore_conformance").joinpath("dotnet-frames.json").read_text(encoding="utf-8")
    return [
        Vector(
            Packet(row["id"], bytes.fromhex(row["payload"]), type=row["type"], count=row["count"]),
            bytes.fromhex(row["wire"]),
        )
        for row in json.loads(text)["vectors"]
    ]


VECTORS = load()
STREAM = b"".join(vector.wire for vector in VECTORS)
"""All of them, one after the other."""
PACKETS = [vector.packet for vector in VECTORS]
