"""The framings that `--framing` knows, by name."""

from __future__ import annotations

import argparse
from typing import Any

from packetcore import Decoder
from packetcore.framings import COBS, COBSR, HDLC, SLIP, ByteStuffing, Delimiter, FixedLength, Framing, LengthPrefix
from packetcore_cli._failure import Failure

DEFAULT = "fefd"
"""The format of `packetcore.Packet`, with its packets and not with frames."""

_FRAMINGS: dict[str, Framing] = {
    "slip": SLIP(),
    "hdlc": HDLC(),
    "hdlc32": HDLC("fcs32"),
    "hdlc-nocheck": HDLC(None),
    "jt808": ByteStuffing(0x7E, 0x7D, map={0x7E: 2, 0x7D: 1}, check="xor"),
    "cobs": COBS(),
    "cobsr": COBSR(),
    "u8": LengthPrefix(1),
    "u16": LengthPrefix(2),
    "u32": LengthPrefix(4),
    "u16le": LengthPrefix(2, byteorder="little"),
    "u32le": LengthPrefix(4, byteorder="little"),
    "u64": LengthPrefix(8),
    "varint": LengthPrefix("varint"),
    "lines": Delimiter(b"\n"),
    "crlf": Delimiter(b"\r\n"),
    "nul": Delimiter(b"\0"),
}

MOST = 0xFFFFFFFF
"""The largest SIZE and the largest `--max-payload`, in bytes."""

FRAMED = ", whose frames have none"
"""Why options that say what a packet holds do not go with `--framing`."""

NAMES = ", ".join((DEFAULT, *_FRAMINGS, "fixed:SIZE"))
"""What there is, for people."""


def framing_named(text: str) -> Framing | None:
    """The framing of this name; `None` for the default.

    Raises:
        ArgumentTypeError: there is none.
        Failure: SIZE is out of range.
    """
    if text == DEFAULT:
        return None
    if text in _FRAMINGS:
        return _FRAMINGS[text]
    kind, _, size = text.partition(":")
    if kind != "fixed":
        raise argparse.ArgumentTypeError(f"unknown framing {text!r}; there are {NAMES}")
    if not (size.isascii() and size.isdecimal()):
        raise argparse.ArgumentTypeError(f"SIZE in {text!r} is not a number of bytes; there are {NAMES}")
    if not 1 <= int(size) <= MOST:
        raise Failure(f"SIZE in {text!r} is out of range 1 to {MOST}")
    return FixedLength(int(size))


def check_limit(framing: Framing | None, max_payload: int) -> None:
    """See that `max_payload` can be the longest payload, or where there is a framing the longest frame.

    Raises:
        Failure: no frame is that short, or it is out of range.
    """
    if framing is None:
        try:
            Decoder(max_payload=max_payload)
        except ValueError as error:
            raise Failure(str(error)) from None
        return
    if not 1 <= max_payload <= MOST:
        raise Failure(f"max_payload={max_payload} is out of range 1 to {MOST} for frames")
    if isinstance(framing, FixedLength) and framing.size > max_payload:
        raise Failure(f"frames of {framing.size} bytes exceed max_payload={max_payload}")


def framing_options(framing: Framing | None) -> dict[str, Any]:
    """What a `Driver` is told of it: nothing of the default, which every adapter has."""
    return {} if framing is None else {"framing": framing}
