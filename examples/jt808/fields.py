"""The kinds of fields that the standard knows: numbers, BCD digits and texts in GBK."""

from __future__ import annotations

import struct
from typing import Any


def pack(name: str, layout: struct.Struct, *values: object) -> bytes:
    """Numbers as bytes.

    Args:
        name: what they are, for the error.

    Raises:
        ValueError: one is out of its range.
    """
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ValueError(f"{name}: {error}") from None


def unpack(name: str, layout: struct.Struct, data: bytes) -> tuple[Any, ...]:
    """Bytes as numbers.

    Raises:
        ValueError: there are more of them, or fewer.
    """
    if len(data) != layout.size:
        raise ValueError(f"{name} has {layout.size} bytes, not {len(data)}")
    return layout.unpack(data)


def unpack_first(name: str, layout: struct.Struct, data: bytes, at: int = 0) -> tuple[Any, ...]:
    """The numbers that a longer field begins with.

    Args:
        at: where it begins in `data`.

    Raises:
        ValueError: it is too short for them.
    """
    if len(data) - at < layout.size:
        raise ValueError(f"{name} has {layout.size} bytes or more, not {max(0, len(data) - at)}")
    return layout.unpack_from(data, at)


def cut(name: str, data: bytes, at: int, size: int) -> bytes:
    """So many bytes from the midst of others.

    Raises:
        ValueError: there are fewer.
    """
    piece = data[at : at + size]
    if len(piece) < size:
        raise ValueError(f"{name} has {size} bytes, and {len(piece)} are left")
    return piece


def to_bcd(name: str, digits: str, size: int) -> bytes:
    """Decimal digits, two to a byte.

    Raises:
        ValueError: they are no digits, or not as many as `size` bytes take.
    """
    if len(digits) != 2 * size or not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"{name} has {2 * size} digits, with zeros in front, and is not {digits!r}")
    return bytes.fromhex(digits)


def from_bcd(name: str, data: bytes) -> str:
    """The digits in bytes.

    Raises:
        ValueError: half a byte is above 9.
    """
    digits = data.hex()
    if not digits.isdecimal():
        raise ValueError(f"{name} {digits} is not BCD")
    return digits


def to_gbk(name: str, text: str) -> bytes:
    """A text as the standard sends it.

    Raises:
        ValueError: it has a character that GBK has not, or NUL, which may end a text.
    """
    if "\0" in text:
        raise ValueError(f"{name} {text!r} holds NUL")
    try:
        return text.encode("gbk")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} {text!r} is not in GBK: {error.reason}") from None


def from_gbk(name: str, data: bytes) -> str:
    """The text in bytes, which some terminals end with NUL.

    Raises:
        ValueError: it is not GBK.
    """
    try:
        return data.rstrip(b"\0").decode("gbk")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} {data.hex()} is not GBK: {error.reason}") from None


def to_padded(name: str, text: str, size: int) -> bytes:
    """A text in a field of fixed size, filled up with NUL.

    Raises:
        ValueError: it does not fit, or see `to_gbk`.
    """
    data = to_gbk(name, text)
    if len(data) > size:
        raise ValueError(f"{name} {text!r} takes {len(data)} bytes and has room for {size}")
    return data.ljust(size, b"\0")


def to_items(name: str, items: tuple[tuple[int, bytes], ...], head: struct.Struct) -> bytes:
    """Items of a number, a length and a value, one after the other.

    Raises:
        ValueError: a number is out of range, or a value is longer than 255 bytes.
    """
    return b"".join(pack(f"{name} {number}", head, number, len(value)) + value for number, value in items)


def from_items(name: str, data: bytes, at: int, head: struct.Struct) -> tuple[tuple[int, bytes], ...]:
    """The items in bytes, from `at` to their end.

    Raises:
        ValueError: the last one is cut off.
    """
    items = []
    while at < len(data):
        number, size = unpack_first(name, head, data, at)
        items.append((number, cut(f"{name} {number}", data, at + head.size, size)))
        at += head.size + size
    return tuple(items)
