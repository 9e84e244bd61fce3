"""The packet, a value. Nothing here knows how it looks on the wire.

In C, where that was built, a `Packet` is an object of 32 bytes. In Python it is a tuple
underneath: making packets is most of what decoding costs there, and no other immutable
object is made as fast.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, NamedTuple, final

from packetcore._built import speedups
from packetcore._generic import TypeVar

MAX_ID = 0xFFFF
MAX_TYPE = 0xFF
MAX_COUNT = 0xFFFF
MAX_LENGTH = 0xFFFFFFFF
"""Largest value of each header field: u16, u8, u16 and u32 on the wire."""


# Not in class syntax: a field named `count` would clash with the method of `tuple`.
_Fields = NamedTuple("_Fields", [("id", int), ("payload", bytes), ("type", int), ("count", int)])  # noqa: UP014


@final
class Packet(_Fields):
    """One packet: immutable, hashable, and usable with `match`. It unpacks into its four
    fields, in this order, and equals no other kind of object.

    Args:
        id: what the packet is about, 0 to 65535.
        payload: the application's bytes, at most 4294967295 of them. A `bytearray`
            or a `memoryview` is copied.
        type: what kind of packet it is, 0 to 255.
        count: how many packets its message takes, 0 to 65535; 0 and 1 both mean
            that it is whole.

    Raises:
        ValueError: a field is out of its range; the message names the range.
        TypeError: a field is of another type.
    """

    __slots__ = ()

    def __new__(
        cls, id: int, payload: bytes | bytearray | memoryview = b"", *, type: int = 0, count: int = 1
    ) -> Packet:
        if not isinstance(payload, (bytes, bytearray, memoryview)):
            raise TypeError(f"payload must be bytes, not {payload.__class__.__name__}")
        payload = bytes(payload)
        return tuple.__new__(
            cls,
            (
                _in_range("id", id, MAX_ID),
                _payload_in_range(payload),
                _in_range("type", type, MAX_TYPE),
                _in_range("count", count, MAX_COUNT),
            ),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self.__class__) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = _Fields.__hash__

    def _has_no_order(self, other: object) -> Any:
        return NotImplemented  # as in C: a heap of times and packets must not work in one and fail in the other

    __lt__ = __le__ = __gt__ = __ge__ = _has_no_order

    def _replace(self, **changes: Any) -> Packet:
        fields = self._asdict() | changes
        return self.__class__(fields.pop("id"), fields.pop("payload"), **fields)

    __replace__ = _replace  # for `copy.replace`

    def __getnewargs_ex__(self) -> tuple[tuple[int, bytes], dict[str, int]]:
        return (self.id, self.payload), {"type": self.type, "count": self.count}


def _in_range(name: str, value: int, largest: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, not {value.__class__.__name__}") from None
    if not 0 <= number <= largest:
        raise ValueError(f"{name}={number} is out of range 0 to {largest}")
    return number


def _payload_in_range(payload: bytes) -> bytes:
    if len(payload) > MAX_LENGTH:
        raise ValueError(f"payload of {len(payload)} bytes exceeds the format's {MAX_LENGTH}")
    return payload


new_packet = tuple.__new__
"""Makes a packet of `Packet` and its four fields, which are known to be sound."""

AnyPacket = TypeVar("AnyPacket", default=Packet)
"""What an application sends and receives: `Packet`, unless a framing says otherwise."""

if speedups and not TYPE_CHECKING:
    from packetcore._speedups import Packet, new_packet  # noqa: F401
