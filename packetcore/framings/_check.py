"""Checks at a frame's end: bytes worked out from those before them."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """A check of any kind.

    Args:
        size: how many bytes it has, at least 1.
        function: what it is for a frame, as it is sent.
    """

    size: int
    function: Callable[[bytes], bytes]

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a check of size={self.size} checks nothing: at least 1")

    def agrees(self, frame: bytes, check: bytes) -> bool:
        """Whether that is the check of a frame; no, where the function raises."""
        try:
            return self.function(frame) == check
        except Exception:
            return False


_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in reverse order."""


def fcs16(frame: bytes) -> bytes:
    """FCS-16 of RFC 1662, appendix C.2; CRC-16/IBM-SDLC in catalogues. Least byte first.

    It takes the bits of a byte from the least on, `crc_hqx` from the greatest: the same
    polynomial, mirrored.
    """
    mirrored = binascii.crc_hqx(frame.translate(_MIRROR), 0xFFFF) ^ 0xFFFF
    return mirrored.to_bytes(2, "big").translate(_MIRROR)


def fcs32(frame: bytes) -> bytes:
    """FCS-32 of RFC 1662, appendix C.3; CRC-32/ISO-HDLC, the CRC of zip. Least byte first."""
    return binascii.crc32(frame).to_bytes(4, "little")


def _modbus_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


_MODBUS = [_modbus_of(byte) for byte in range(256)]


def crc16_modbus(frame: bytes) -> bytes:
    """CRC-16/MODBUS, "MODBUS over Serial Line" V1.02, section 6.2.2. Least byte first."""
    crc = 0xFFFF
    for byte in frame:
        crc = crc >> 8 ^ _MODBUS[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def xor(frame: bytes) -> bytes:
    """All bytes XORed to one, as JT/T 808 has it: halves upon halves, as large numbers."""
    size, value = len(frame), int.from_bytes(frame, "big")
    while size > 1:
        size = size + 1 >> 1
        value = value >> 8 * size ^ value & (1 << 8 * size) - 1
    return value.to_bytes(1, "big")
