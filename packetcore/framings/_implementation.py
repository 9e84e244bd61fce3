"""What has a twin in C: that, where it is in use, else the Python."""

from __future__ import annotations

from packetcore._built import speedups

__all__ = [
    "COBSDecoder",
    "LengthPrefixDecoder",
    "Stuffing",
    "StuffingDecoder",
    "crc16_modbus",
    "encode_cobs",
    "encode_cobsr",
    "fcs16",
    "fcs32",
    "xor",
]

if speedups:
    from packetcore._speedups import (
        COBSDecoder,
        LengthPrefixDecoder,
        Stuffing,
        StuffingDecoder,
        crc16_modbus,
        encode_cobs,
        encode_cobsr,
        fcs16,
        fcs32,
        xor,
    )
else:
    from packetcore.framings._check import crc16_modbus, fcs16, fcs32, xor
    from packetcore.framings._prefix import LengthPrefixDecoder
    from packetcore.framings._stuffing import Stuffing, StuffingDecoder
    from packetcore.framings._zeros import COBSDecoder, encode_cobs, encode_cobsr
