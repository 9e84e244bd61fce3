"""The checks that have a name."""

from __future__ import annotations

from typing import Literal

from packetcore.framings._check import Check
from packetcore.framings._implementation import crc16_modbus, fcs16, fcs32, xor

CheckName = Literal["fcs16", "fcs32", "crc16-modbus", "xor"]

CHECKS: dict[str, Check] = {
    "fcs16": Check(2, fcs16),
    "fcs32": Check(4, fcs32),
    "crc16-modbus": Check(2, crc16_modbus),
    "xor": Check(1, xor),
}


def check_named(check: CheckName | Check | None) -> Check | None:
    """The check that a framing's argument says."""
    if check is None or isinstance(check, Check):
        return check
    if not isinstance(check, str) or check not in CHECKS:
        raise ValueError(f"check={check!r} is none of {', '.join(map(repr, CHECKS))}, a Check or None")
    return CHECKS[check]
