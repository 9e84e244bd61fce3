"""What a recording comes to: its events, through any framing. No file, no socket and no clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packetcore import Malformed, Packet
from packetcore.framings import Framing
from packetcore_tap._capture import Side
from packetcore_tap._decoding import Decoding, new_decoder
from packetcore_tap._heard import Chunk, Conversation, Ended, Gap, Heard, Reset


@dataclass(frozen=True, slots=True)
class Told:
    """What a decoder, or the capture itself, tells of one side of a conversation."""

    conversation: Conversation
    time: int
    """Nanoseconds since the beginning of 1970: when the bytes came that complete it."""
    sender: Side
    what: Packet | bytes | Malformed | Gap | Ended | Reset
    """A packet, or a frame of another framing; what is malformed; or what else happened."""


class Events:
    """Runs a recording through a decoder for each direction of each conversation; of UDP each datagram by itself.
    Behind a gap a new decoder goes on.

    Args:
        framing: of its frames; `None` for packets.
        max_payload: the longest payload, or the longest frame where there is a framing.

    Raises:
        ValueError: `max_payload` is out of its range.
    """

    def __init__(self, framing: Framing | None = None, max_payload: int = 1 << 20) -> None:
        self._framing = framing
        self._max_payload = max_payload
        self._decoders: dict[tuple[Conversation, Side], Decoding] = {}
        new_decoder(framing, max_payload)  # which it raises for

    def feed(self, heard: Heard) -> list[Told]:
        """What one more thing that was heard comes to."""
        key = heard.conversation, heard.sender
        told: list[Any] = []
        match heard:
            case Chunk(conversation, _, _, data):
                decoder = self._decoders.get(key)
                if decoder is None:
                    decoder = new_decoder(self._framing, self._max_payload)
                    if conversation.kind == "tcp":
                        self._decoders[key] = decoder
                told += decoder.feed(data)
                if conversation.kind == "udp":
                    told += decoder.feed_eof()
            case Gap() | Ended() | Reset():
                told += [*self._end(heard.conversation, heard.sender), heard]
        return [Told(heard.conversation, heard.time, heard.sender, what) for what in told]

    def _end(self, conversation: Conversation, sender: Side) -> Sequence[Any]:
        decoder = self._decoders.pop((conversation, sender), None)
        return () if decoder is None else decoder.feed_eof()


def events(heard: Iterable[Heard], framing: Framing | None = None, max_payload: int = 1 << 20) -> Iterator[Told]:
    """All that a recording comes to; see `Events`."""
    decoding = Events(framing, max_payload)
    for each in heard:
        yield from decoding.feed(each)


def as_json(told: Told) -> str:
    """An event as one line of JSON: `conversation`, what it is over and between whom (`protocol`, `client`, `server`),
    `from` and `time`, and what `event_fields` gives. Times are in seconds since the beginning of 1970, as text."""
    seconds, nanoseconds = divmod(told.time, 1_000_000_000)
    conversation = told.conversation
    about = {
        "conversation": conversation.number,
        "protocol": conversation.kind,
        "client": str(conversation.client),
        "server": str(conversation.server),
        "from": told.sender.value,
        "time": f"{seconds}.{nanoseconds:09}",
    }
    return json.dumps(about | event_fields(told.what))


def event_fields(what: Packet | bytes | Malformed | Gap | Ended | Reset) -> dict[str, object]:
    """What happened, for JSON: one of `packet`, `frame`, `malformed`, `missing`, `end` and `reset`; bytes in hex."""
    match what:
        case Packet(id, payload, type, count):
            return {"packet": {"id": id, "type": type, "count": count, "payload": payload.hex()}}
        case Malformed(reason, size, sample):
            return {"malformed": {"reason": reason.name, "size": size, "sample": sample.hex()}}
        case Gap(size=size):
            return {"missing": size}
        case Ended():
            return {"end": True}
        case Reset():
            return {"reset": True}
    return {"frame": what.hex()}
