"""Packets of fixed fields, said once: a dataclass, and what each field takes as bytes.

    @dataclass(frozen=True)
    class Reading:
        meter: U16
        kind: U8
        name: Annotated[bytes, 4]
        rest: bytes

    serve(handler, framing=HDLC(), codec=Layout(Reading))

The last field may be `bytes` without a width: then it has what is left of the frame.
"""

from __future__ import annotations

import struct
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]
I8 = Annotated[int, "b"]
I16 = Annotated[int, "h"]
I32 = Annotated[int, "i"]
I64 = Annotated[int, "q"]
F32 = Annotated[float, "f"]
F64 = Annotated[float, "d"]
"""Unsigned and signed integers, and floating-point numbers (IEEE 754), by their bits."""

_FORMATS = frozenset("BHIQbhiqfd")


class Layout(Generic[T]):
    """The `packetcore.PacketCodec` of one dataclass.

    Args:
        packet_type: its fields, in their order, are `U8` to `F64`, `Annotated[bytes, width]`, or as the
            last one `bytes`, of any length.
        byteorder: of every number.

    Raises:
        TypeError: it is no dataclass, or a field is none of these.
    """

    def __init__(self, packet_type: type[T], byteorder: Literal["big", "little"] = "big") -> None:
        if not is_dataclass(packet_type):
            raise TypeError(f"{packet_type!r} is no dataclass")
        if byteorder not in ("big", "little"):
            raise ValueError(f'byteorder={byteorder!r} is neither "big" nor "little"')
        self._type = packet_type
        self._names = [field.name for field in fields(packet_type)]
        hints = get_type_hints(packet_type, include_extras=True)
        self._has_rest = bool(self._names) and hints[self._names[-1]] is bytes
        fixed = self._names[: len(self._names) - self._has_rest]
        order = ">" if byteorder == "big" else "<"
        self._formats = {name: order + _format_of(packet_type, name, hints[name]) for name in fixed}
        self._struct = struct.Struct(order + "".join(format[1:] for format in self._formats.values()))

    def encode(self, packet: T, /) -> bytes:
        """A packet as a frame.

        Raises:
            TypeError: it is none, or a field is of another type.
            ValueError: a field is out of range.
        """
        if not isinstance(packet, self._type):
            raise TypeError(f"only a {self._type.__name__} can be sent, not {packet.__class__.__name__}")
        values = [getattr(packet, name) for name in self._names]
        rest = values.pop() if self._has_rest else b""
        for value, (name, format) in zip(values, self._formats.items(), strict=True):
            if format.endswith("s"):
                if not isinstance(value, (bytes, bytearray)):
                    raise TypeError(f"{name}={value!r} is not bytes")
                if len(value) != struct.calcsize(format):
                    raise ValueError(f"{name}={value!r} has {len(value)} bytes, not {struct.calcsize(format)}")
        try:
            return self._struct.pack(*values) + rest
        except (struct.error, OverflowError):
            raise self._explained(values) from None

    def decode(self, frame: bytes, /) -> T:
        """The packet in a frame.

        Raises:
            ValueError: it is shorter, or longer, than the fields are.
        """
        size = self._struct.size
        if len(frame) < size or (len(frame) > size and not self._has_rest):
            at_least = "at least " if self._has_rest else ""
            raise ValueError(f"a {self._type.__name__} has {at_least}{size} bytes, not {len(frame)}")
        values: tuple[Any, ...] = self._struct.unpack_from(frame)
        return self._type(*values, *([frame[size:]] if self._has_rest else []))

    def _explained(self, values: list[Any]) -> Exception:
        fields = zip(self._formats.items(), values, strict=True)
        name, format, value = next(
            (name, format, value) for (name, format), value in fields if not _fits(format, value)
        )
        bits = 8 * struct.calcsize(format)
        if format[1] in "fd":
            if isinstance(value, (int, float)):
                return ValueError(f"{name}={value!r} is too large for {bits} bits")
            return TypeError(f"{name}={value!r} is no number")
        if not isinstance(value, int):
            return TypeError(f"{name}={value!r} is no integer")
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if format[1].islower() else (0, (1 << bits) - 1)
        return ValueError(f"{name}={value!r} is out of range {low} to {high}")


def _fits(format: str, value: Any) -> bool:
    try:
        struct.pack(format, value)
    except (struct.error, OverflowError):
        return False
    return True


def _format_of(packet_type: type, name: str, hint: Any) -> str:
    if get_origin(hint) is Annotated:
        kind, width, *_ = get_args(hint)
        if width in _FORMATS:
            return str(width)
        if kind is bytes and isinstance(width, int) and width > 0:
            return f"{width}s"
    raise TypeError(f"{packet_type.__name__}.{name} is neither U8 to F64 nor Annotated[bytes, width], but {hint!r}")
