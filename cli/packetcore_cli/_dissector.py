"""`packetcore dissector`: a dissector of packets for Wireshark, in Lua. What `dissector.lua` leaves open of the wire
format and of the decoder's reasons is filled in from the core."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files

from packetcore import Reason
from packetcore_cli import __version__
from packetcore_cli._framings import check_limit
from packetcore_cli._terminal import Terminal
from packetcore_cli._wire import ESCAPE, ESCAPED, FIELDS, FLAG, HEADER_SIZE

REASONS = (
    Reason.NOISE,
    Reason.BAD_ESCAPE,
    Reason.TOO_SHORT,
    Reason.LENGTH_MISMATCH,
    Reason.TOO_LONG,
    Reason.TRUNCATED,
)
"""What the decoder of packets refuses bytes for."""


def dissector(args: argparse.Namespace, out: Terminal) -> int:
    """Print it.

    Raises:
        Failure: the longest payload is out of its range.
    """
    check_limit(None, args.max_payload)
    for line in dissector_text(args.port or [], args.max_payload).splitlines():
        out.line(line)
    return 0


def dissector_text(ports: list[int], max_payload: int) -> str:
    """The dissector.

    Args:
        ports: those of TCP and UDP that it is for.
        max_payload: bytes that a payload may have, unless Wireshark's preferences say otherwise.
    """
    values = {
        "VERSION": __version__,
        "FLAG": _char(FLAG),
        "ESCAPE": _char(ESCAPE),
        "ESCAPED": ", ".join(f'[{sent[1]}] = "{_char(byte)}"' for byte, sent in ESCAPED.items()),
        "HEADER": ", ".join(f"{name} = {{ {place}, {size} }}" for name, (place, size) in FIELDS.items()),
        "HEADER_SIZE": str(HEADER_SIZE),
        "MAX_PAYLOAD": str(max_payload),
        "PORTS": ", ".join(map(str, ports)),
        "REASONS": "\n".join(f"    {reason.name} = {json.dumps(reason.value)}," for reason in REASONS),
    }
    text = files("packetcore_cli").joinpath("dissector.lua").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _char(byte: int) -> str:
    return f"\\{byte}"
