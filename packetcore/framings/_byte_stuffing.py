"""Byte stuffing: flags around a frame, and escapes for the flags in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from packetcore.framings._check import Check
from packetcore.framings._checks import CheckName, check_named
from packetcore.framings._framing import MAX_FRAME, Decoder, check_int
from packetcore.framings._implementation import Stuffing, StuffingDecoder


@dataclass(frozen=True, slots=True)
class ByteStuffing:
    """A flag before and after each frame; in it, an escape byte and a code for each byte that
    may not be sent.

    JT/T 808, section 4.4: `ByteStuffing(0x7E, 0x7D, map={0x7E: 2, 0x7D: 1}, check="xor")`.

    Args:
        flag: the byte that begins and ends frames.
        escape: the byte in front of each code.
        xor: what makes a code of a byte, as in HDLC; any byte may then come escaped.
        map: the code of each byte that is escaped, as in SLIP: of `flag`, of `escape` and of
            others, if you like. Either this or `xor` is needed.
        check: what stands at the end of each frame, escaped with it: "fcs16", "fcs32",
            "crc16-modbus" (the least byte first, each), "xor", or a `Check`.

    Raises:
        ValueError: an argument is out of range, or no decoder could read what it makes.

    Two frames may share a flag, and flags with nothing between them are nothing, so that an
    empty frame needs a check. Bytes before the first flag are NOISE. An escape byte in front of a
    flag or of no code is BAD_ESCAPE, a frame shorter than its check TOO_SHORT, one whose
    check is wrong BAD_CHECK. A decoder holds at most `2 * (max_frame + check.size) + 1` bytes.
    """

    flag: int
    escape: int
    xor: int | None = None
    map: Mapping[int, int] | None = field(default=None, hash=False)
    check: CheckName | Check | None = None
    _rules: Stuffing = field(init=False, repr=False, compare=False)

    resynchronises: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_int("flag", self.flag, 0, 0xFF)
        check_int("escape", self.escape, 0, 0xFF)
        if self.flag == self.escape:
            raise ValueError(f"flag and escape are the same byte {self.flag:02X}")
        if (self.xor is None) == (self.map is None):
            raise ValueError("either xor or map says what follows an escape byte")
        if self.xor is not None:
            check_int("xor", self.xor, 1, 0xFF)
            codes = {byte: byte ^ self.xor for byte in (self.flag, self.escape)}
        else:
            codes = dict(self.map or {})
            object.__setattr__(self, "map", codes)
        self._check_codes(codes)
        rules = Stuffing(self.flag, self.escape, codes, check_named(self.check), self.xor or 0)
        object.__setattr__(self, "_rules", rules)

    def _check_codes(self, codes: dict[int, int]) -> None:
        for byte, code in codes.items():
            check_int("a byte in map", byte, 0, 0xFF)
            check_int(f"the code of {byte:02X}", code, 0, 0xFF)
            if code == self.flag:
                raise ValueError(f"the code of {byte:02X} is the flag {code:02X}")
        for name, byte in (("flag", self.flag), ("escape", self.escape)):
            if byte not in codes:
                raise ValueError(f"map has no code for the {name} {byte:02X}")
        if len({*codes.values()}) < len(codes):
            raise ValueError("two bytes in map have the same code")
        if taken := codes.keys() & {*codes.values()} - {self.escape}:
            raise ValueError(f"the code {min(taken):02X} is a byte that is escaped itself")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return self.__class__, (self.flag, self.escape, self.xor, self.map, self.check)

    def encode(self, frame: bytes, /) -> bytes:
        return self._rules.encode(frame)

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return StuffingDecoder(self._rules, max_frame)
