"""What packets say: the bodies of the messages, one class each.

The header of 2019 brought other layouts for some of them: `version` is its version, `None` for
the header of 2013.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from .fields import (
    cut,
    from_gbk,
    from_items,
    pack,
    to_gbk,
    to_items,
    to_padded,
    unpack,
    unpack_first,
)
from .position import SIZE as POSITION_SIZE
from .position import Position

OK, FAILED, WRONG, NOT_SUPPORTED = 0, 1, 2, 3
"""Results in a general reply."""

_U8, _U16, _U32 = struct.Struct(">B"), struct.Struct(">H"), struct.Struct(">I")
_REPLY = struct.Struct(">HHB")
_REGISTRATION = struct.Struct(">HH5s20s7sB")
_REGISTRATION_2019 = struct.Struct(">HH11s30s30sB")
_REGISTRATION_REPLY = struct.Struct(">HB")
_DEVICE = struct.Struct(">15s20s")
_PARAMETERS = struct.Struct(">HB")
_PARAMETER = struct.Struct(">IB")
_TEXT_2019 = struct.Struct(">BB")
_MULTIMEDIA = struct.Struct(">IBBBB")
_BATCH = struct.Struct(">HB")


class Body:
    """What all bodies are."""

    __slots__ = ()

    ID: ClassVar[int]
    """The number of the message."""

    @property
    def message_id(self) -> int:
        """The number of the message, where it is not that of the class."""
        return self.ID

    def encode(self, version: int | None) -> bytes:
        """The body as bytes; none unless a message says what.

        Raises:
            ValueError: a field is out of range.
        """
        return b""

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> Body:
        """The body in bytes; there are none unless a message says what.

        Raises:
            ValueError: there is none in them.
        """
        if data:
            raise ValueError(f"{cls.__name__} has no body, and {len(data)} bytes came")
        return cls()


@dataclass(frozen=True, slots=True)
class Raw(Body):
    """A message that this example does not know."""

    number: int
    data: bytes

    @property
    def message_id(self) -> int:
        return self.number

    def encode(self, version: int | None) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class Fragment(Body):
    """A piece of a message that is too long for one packet."""

    number: int
    """The message's."""
    total: int
    """How many pieces it has."""
    index: int
    """Which one this is, from 1 on."""
    data: bytes

    @property
    def message_id(self) -> int:
        return self.number

    def encode(self, version: int | None) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class _Reply(Body):
    """The general reply, of either side."""

    serial: int
    """Of the packet that it answers."""
    answered: int
    """The number of that packet's message."""
    result: int = OK

    def encode(self, version: int | None) -> bytes:
        return pack("a general reply", _REPLY, self.serial, self.answered, self.result)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> _Reply:
        return cls(*unpack("a general reply", _REPLY, data))


class TerminalReply(_Reply):
    """What a terminal says of a command that has no reply of its own."""

    __slots__ = ()
    ID = 0x0001


class PlatformReply(_Reply):
    """What the platform says of a message that has no reply of its own."""

    __slots__ = ()
    ID = 0x8001


class _Empty(Body):
    """A message that has no body. Two of them are equal."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self.__class__ is other.__class__

    def __hash__(self) -> int:
        return self.ID

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}()"


class Heartbeat(_Empty):
    """A terminal lives."""

    __slots__ = ()
    ID = 0x0002


class Logout(_Empty):
    """A terminal is taken out of its vehicle."""

    __slots__ = ()
    ID = 0x0003


class ParameterQuery(_Empty):
    """The platform asks for a terminal's parameters."""

    __slots__ = ()
    ID = 0x8104


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration(Body):
    """A terminal says what it is and which vehicle it is in."""

    ID = 0x0100

    province: int
    city: int
    maker: str
    """5 bytes; 11 since 2019."""
    model: str
    """20 bytes; 30 since 2019."""
    terminal: str
    """7 bytes; 30 since 2019."""
    colour: int
    """Of the plate; 0 for a vehicle without one, whose `plate` is its identification number."""
    plate: str

    def encode(self, version: int | None) -> bytes:
        layout, sizes = (_REGISTRATION, (5, 20, 7)) if version is None else (_REGISTRATION_2019, (11, 30, 30))
        texts = zip(("maker", "model", "terminal"), (self.maker, self.model, self.terminal), sizes, strict=True)
        padded = [to_padded(name, text, size) for name, text, size in texts]
        head = pack("a registration", layout, self.province, self.city, *padded, self.colour)
        return head + to_gbk("plate", self.plate)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> Registration:
        layout = _REGISTRATION if version is None else _REGISTRATION_2019
        province, city, maker, model, terminal, colour = unpack_first("a registration", layout, data)
        return cls(
            province=province,
            city=city,
            maker=from_gbk("maker", maker),
            model=from_gbk("model", model),
            terminal=from_gbk("terminal", terminal),
            colour=colour,
            plate=from_gbk("plate", data[layout.size :]),
        )


@dataclass(frozen=True, slots=True)
class RegistrationReply(Body):
    """Whether a terminal is registered, and the code that it authenticates itself with from now on."""

    ID = 0x8100
    TAKEN: ClassVar[int] = 3
    """The result where another terminal has the phone number."""
    FULL: ClassVar[int] = 4
    """The result where the terminal is not known, and will not be."""

    serial: int
    """Of the registration."""
    result: int
    code: str = ""
    """Only with the result 0."""

    def encode(self, version: int | None) -> bytes:
        if self.code and self.result:
            raise ValueError(f"code={self.code!r} goes with the result 0, not with {self.result}")
        head = pack("a registration's reply", _REGISTRATION_REPLY, self.serial, self.result)
        return head + to_gbk("code", self.code)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> RegistrationReply:
        serial, result = unpack_first("a registration's reply", _REGISTRATION_REPLY, data)
        code = from_gbk("code", data[_REGISTRATION_REPLY.size :])
        if code and result:
            raise ValueError(f"a code {code!r} goes with the result 0, not with {result}")
        return cls(serial, result, code)


@dataclass(frozen=True, slots=True)
class Authentication(Body):
    """A terminal proves who it is, once for each connection."""

    ID = 0x0102

    code: str
    imei: str = ""
    """Since 2019, 15 bytes."""
    software: str = ""
    """Its version, since 2019, 20 bytes."""

    def encode(self, version: int | None) -> bytes:
        code = to_gbk("code", self.code)
        if version is not None:
            device = to_padded("imei", self.imei, 15) + to_padded("software", self.software, 20)
            return pack("the length of a code", _U8, len(code)) + code + device
        if self.imei or self.software:
            raise ValueError("imei and software are of the header of 2019")
        return code

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> Authentication:
        if version is None:
            return cls(from_gbk("code", data))
        (size,) = unpack_first("an authentication", _U8, data)
        code, device = data[1 : 1 + size], data[1 + size :]
        imei, software = unpack("a device, behind its code,", _DEVICE, device)
        return cls(from_gbk("code", code), from_gbk("imei", imei), from_gbk("software", software))


@dataclass(frozen=True, slots=True)
class PositionReport(Body):
    """A terminal says where it is."""

    ID = 0x0200

    position: Position

    def encode(self, version: int | None) -> bytes:
        return self.position.encode()

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> PositionReport:
        return cls(Position.decode(data))


@dataclass(frozen=True, slots=True)
class Batch(Body):
    """Positions that a terminal kept, most often while it had no network."""

    ID = 0x0704

    kind: int
    """1 where there was no network."""
    positions: tuple[Position, ...]

    def encode(self, version: int | None) -> bytes:
        items = [position.encode() for position in self.positions]
        head = pack("a batch", _BATCH, len(items), self.kind)
        return head + b"".join(pack("the length of a position", _U16, len(item)) + item for item in items)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> Batch:
        count, kind = unpack_first("a batch", _BATCH, data)
        positions, at = [], _BATCH.size
        while at < len(data):
            (size,) = unpack_first("the length of a position", _U16, data, at)
            positions.append(Position.decode(cut("a position", data, at + _U16.size, size)))
            at += _U16.size + size
        if len(positions) != count:
            raise ValueError(f"a batch of {count} positions holds {len(positions)}")
        return cls(kind, tuple(positions))


@dataclass(frozen=True, slots=True)
class ParameterReply(Body):
    """A terminal's parameters, by number."""

    ID = 0x0104

    serial: int
    """Of the query."""
    parameters: tuple[tuple[int, bytes], ...]

    def encode(self, version: int | None) -> bytes:
        head = pack("parameters", _PARAMETERS, self.serial, len(self.parameters))
        return head + to_items("the parameter", self.parameters, _PARAMETER)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> ParameterReply:
        serial, count = unpack_first("parameters", _PARAMETERS, data)
        parameters = from_items("the parameter", data, _PARAMETERS.size, _PARAMETER)
        if len(parameters) != count:
            raise ValueError(f"a reply with {count} parameters holds {len(parameters)}")
        return cls(serial, parameters)


@dataclass(frozen=True, slots=True)
class Text(Body):
    """A text for the driver."""

    ID = 0x8300

    text: str
    flags: int = 1
    """1 where it is urgent, 4 to show it, 8 to read it out; they add up."""
    kind: int = 0
    """Since 2019: 1 is a notice, 2 a service."""

    def encode(self, version: int | None) -> bytes:
        if version is not None:
            return pack("a text", _TEXT_2019, self.flags, self.kind) + to_gbk("text", self.text)
        if self.kind:
            raise ValueError(f"kind={self.kind} is of the header of 2019")
        return pack("a text", _U8, self.flags) + to_gbk("text", self.text)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> Text:
        if version is None:
            (flags,) = unpack_first("a text", _U8, data)
            return cls(from_gbk("text", data[1:]), flags)
        flags, kind = unpack_first("a text", _TEXT_2019, data)
        return cls(from_gbk("text", data[2:]), flags, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Multimedia(Body):
    """A photo, sound or film: as a rule too long for one packet."""

    ID = 0x0801

    number: int
    """The terminal's own, above 0."""
    position: Position
    """Where it was taken; without extras."""
    data: bytes
    kind: int = 0
    """0 is a photo, 1 a sound, 2 a film."""
    format: int = 0
    """0 is JPEG, 1 TIF, 2 MP3, 3 WAV, 4 WMV."""
    event: int = 0
    """What it was taken for: 0 is a command of the platform."""
    channel: int = 1

    def encode(self, version: int | None) -> bytes:
        if self.position.extras:
            raise ValueError("the position of multimedia data has no extras")
        head = pack("multimedia data", _MULTIMEDIA, self.number, self.kind, self.format, self.event, self.channel)
        return head + self.position.encode() + self.data

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> Multimedia:
        number, kind, format, event, channel = unpack_first("multimedia data", _MULTIMEDIA, data)
        at = _MULTIMEDIA.size + POSITION_SIZE
        return cls(
            number=number,
            kind=kind,
            format=format,
            event=event,
            channel=channel,
            position=Position.decode(data[_MULTIMEDIA.size : at]),
            data=data[at:],
        )


@dataclass(frozen=True, slots=True)
class MultimediaReply(Body):
    """Multimedia data is whole. (That pieces are missing is said by `ResendRequest` here.)"""

    ID = 0x8800

    number: int

    def encode(self, version: int | None) -> bytes:
        return pack("the reply to multimedia data", _U32, self.number)

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> MultimediaReply:
        return cls(*unpack("the reply to multimedia data", _U32, data))


@dataclass(frozen=True, slots=True)
class ResendRequest(Body):
    """Pieces of a message are missing: the terminal is to send them again as they were."""

    ID = 0x8003

    serial: int
    """Of the message's first piece."""
    indexes: tuple[int, ...]

    def encode(self, version: int | None) -> bytes:
        count = _U8 if version is None else _U16
        return (
            pack("a serial number", _U16, self.serial)
            + pack("the number of pieces", count, len(self.indexes))
            + b"".join(pack("an index", _U16, index) for index in self.indexes)
        )

    @classmethod
    def decode(cls, data: bytes, version: int | None) -> ResendRequest:
        (serial,) = unpack_first("a request for pieces", _U16, data)
        layout = _U8 if version is None else _U16
        (count,) = unpack_first("the number of pieces", layout, data, _U16.size)
        indexes = data[_U16.size + layout.size :]
        if len(indexes) != 2 * count:
            raise ValueError(f"{count} indexes have {2 * count} bytes, not {len(indexes)}")
        return cls(serial, tuple(index for (index,) in _U16.iter_unpack(indexes)))


BODIES: dict[int, type[Body]] = {
    body.ID: body
    for body in (
        TerminalReply,
        PlatformReply,
        Heartbeat,
        Logout,
        Registration,
        RegistrationReply,
        Authentication,
        PositionReport,
        Batch,
        ParameterQuery,
        ParameterReply,
        Text,
        Multimedia,
        MultimediaReply,
        ResendRequest,
    )
}
"""The messages known here, by their numbers."""


def decode_body(message_id: int, data: bytes, version: int | None) -> Body:
    """What a message says; `Raw` if it is not known here.

    Raises:
        ValueError: it is known, and this is not it.
    """
    if (body := BODIES.get(message_id)) is None:
        return Raw(message_id, data)
    try:
        return body.decode(data, version)
    except ValueError as error:
        raise ValueError(f"message {message_id:04X}: {error}") from None
