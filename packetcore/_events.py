"""What the core reports: a closed union of small values, told apart with `match`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from packetcore._generic import TypeVar
from packetcore._packet import AnyPacket, Packet
from packetcore._reasons import CloseReason, Reason

SAMPLE_SIZE = 64
"""The most bytes of what was refused that its event carries: enough to recognise a
device by its header, little enough to log."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes from the peer that did not become a packet or a message."""

    reason: Reason
    """What was wrong with them."""

    size: int
    """How many bytes as received; for a message, how many bytes of payload."""

    sample: bytes
    """The first of them, at most 64."""

    detail: str = field(default="", compare=False)
    """What a packet codec had to say of a frame that holds none of its packets, or a framing that failed."""

    @classmethod
    def of(cls, reason: Reason, data: bytes | bytearray, detail: str = "") -> Malformed:
        """The event that refuses all of `data`."""
        return cls(reason, len(data), bytes(data[:SAMPLE_SIZE]), detail)


@dataclass(frozen=True, slots=True)
class Message:
    """A payload that travelled as one or more packets, put together again."""

    id: int
    """The id that all its packets bear, 0 to 65535."""

    payload: bytes
    """Their payloads, in order, as one."""

    type: int = 0
    """The type that all its packets bear, 0 to 255."""


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The peer has finished sending and may still read: reply if you like, then close."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The conversation is over; nothing follows. Send what `bytes_to_send()` still
    gives, then close the socket."""

    reason: CloseReason
    """Why it ended."""


OTHERS = frozenset({Malformed, Message, EndOfStream, Closed})
"""The types of what a connection gives beside packets, which are of any other."""

Event: TypeAlias = AnyPacket | Message | Malformed | EndOfStream | Closed
"""Everything that an input of a `Connection` can give."""

AnyItem = TypeVar("AnyItem", default=Packet | Message)
"""What a stream gives: `Packet`, or `Message` where `join_messages` is set, unless a framing says
otherwise."""
