"""What a capture tells of the conversations in it, and the same written as a capture again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from packetcore_tap._capture import CaptureWriter, Side
from packetcore_tap._ip import End


@dataclass(slots=True, eq=False)
class Conversation:
    """Two ends that talk, as a capture tells of them."""

    number: int
    """Counts up from 1."""

    kind: Literal["tcp", "udp"]
    """What they talk over, or seem to in a recording of something else."""

    client: End
    """Who connected, as far as the capture shows it: else who spoke first, or has the higher port."""

    server: End
    """The other one."""

    has_beginning: bool = False
    """Whether the capture has the beginning of the connection."""

    comments: list[str] = field(default_factory=list)
    """What is noted on its packets."""

    def __str__(self) -> str:
        return f"{self.kind} {self.client} > {self.server}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One side has sent something: a piece of a stream, in order, or one datagram."""

    conversation: Conversation
    time: int
    """Nanoseconds since the beginning of 1970, as captured."""
    sender: Side
    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes that one side has sent next are not in the capture."""

    conversation: Conversation
    time: int
    sender: Side
    size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """One side of a stream has finished sending."""

    conversation: Conversation
    time: int
    sender: Side


@dataclass(frozen=True, slots=True)
class Reset:
    """One side has broken the connection off."""

    conversation: Conversation
    time: int
    sender: Side


Heard = Chunk | Gap | Ended | Reset
"""What a capture tells of a conversation, in the order in which it was said."""


def capture_of(heard: Iterable[Heard], comment: str = "") -> Iterator[bytes]:
    """A capture of what was heard, piece by piece.

    Args:
        heard: of any conversations, in the order in which it was said.
        comment: on the file.
    """
    writer = CaptureWriter()
    yield writer.begin(comment)
    time = 0
    for each in heard:
        it, time, sender = each.conversation, each.time, each.sender
        if it not in writer:
            ends = (str(it.client.address), it.client.port), (str(it.server.address), it.server.port)
            kind: Literal["stream", "datagram"] = "datagram" if it.kind == "udp" else "stream"
            yield writer.opened(it, *ends, time, kind=kind, comment="\n".join(it.comments))
        match each:
            case Chunk(data=data):
                yield writer.data(it, sender, data, time)
            case Gap(size=size):
                writer.missed(it, sender, size)
            case Ended():
                yield writer.ended(it, sender, time)
            case Reset():
                yield writer.closed(it, time, reset=sender)
    yield writer.finish(time)
