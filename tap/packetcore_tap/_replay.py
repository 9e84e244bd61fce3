"""What a recording comes to: its events through any framing, whether they differ from others, and the shortest
recording that still fails. No file, no socket and no clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from packetcore import Decoder, Malformed, Packet
from packetcore.framings import Framing
from packetcore_tap._capture import CaptureWriter, Side
from packetcore_tap._conversations import Chunk, Conversation, Ended, Gap, Heard, Reset

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What a decoder, or the capture itself, tells of one side of a conversation."""

    conversation: Conversation
    time: int
    """Nanoseconds since the beginning of 1970: when the bytes came that complete it."""
    sender: Side
    what: Packet | bytes | Malformed | Gap | Ended | Reset
    """A packet, or a frame of another framing; what is malformed; or what else happened."""


class _Decoder(Protocol):
    def feed(self, data: bytes, /) -> Sequence[Any]:
        """What some bytes complete."""

    def feed_eof(self) -> Sequence[Any]:
        """What is left at the end."""


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
        self._decoders: dict[tuple[Conversation, Side], _Decoder] = {}
        self._new()

    def feed(self, heard: Heard) -> list[Told]:
        """What one more thing that was heard comes to."""
        key = heard.conversation, heard.sender
        told: list[Any] = []
        match heard:
            case Chunk(conversation, _, _, data):
                decoder = self._decoders.setdefault(key, self._new()) if conversation.kind == "tcp" else self._new()
                told += decoder.feed(data)
                if conversation.kind == "udp":
                    told += decoder.feed_eof()
            case Gap() | Ended() | Reset():
                told += [*self._end(heard.conversation, heard.sender), heard]
        return [Told(heard.conversation, heard.time, heard.sender, what) for what in told]

    def _end(self, conversation: Conversation, sender: Side) -> Sequence[Any]:
        decoder = self._decoders.pop((conversation, sender), None)
        return () if decoder is None else decoder.feed_eof()

    def _new(self) -> _Decoder:
        if self._framing is None:
            return Decoder(max_payload=self._max_payload)
        return self._framing.decoder(self._max_payload)


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


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two lists of events part, in one direction of one conversation."""

    conversation: int
    sender: str
    """"client" or "server"."""
    place: int
    """Which event of that direction it is, from 1."""
    one: str | None
    """What it is in the first list, as JSON without whose it is and when; `None` if that has ended."""
    other: str | None
    """Likewise in the second."""


def differences(one: Iterable[str], other: Iterable[str]) -> list[Difference]:
    """Where the events of two recordings, or of one recording in two versions, part: the first place in each
    direction of each conversation. Times and addresses may differ.

    Args:
        one: lines as of `as_json`.
        other: likewise.

    Raises:
        ValueError: a line is none of those.
    """
    first, second = _by_direction(one), _by_direction(other)
    found = []
    for key in sorted({*first, *second}):
        ours, theirs = first.get(key, []), second.get(key, [])
        if ours == theirs:
            continue
        place = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if place is None:
            place = min(len(ours), len(theirs))
        found.append(Difference(*key, place + 1, _at(ours, place), _at(theirs, place)))
    return found


def _at(lines: list[str], place: int) -> str | None:
    return lines[place] if place < len(lines) else None


def _by_direction(lines: Iterable[str]) -> Mapping[tuple[int, str], list[str]]:
    found: dict[tuple[int, str], list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            key = int(fields.pop("conversation")), str(fields.pop("from"))
            for may_differ in ("time", "protocol", "client", "server"):
                fields.pop(may_differ, None)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"line {number} is no event") from None
        found.setdefault(key, []).append(json.dumps(fields, sort_keys=True))
    return found


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


def shortest(items: Sequence[T], fails: Callable[[list[T]], bool]) -> Iterator[list[T]]:
    """Leave out ever more, as long as what is left fails: the minimizing delta debugging of Zeller and
    Hildebrandt ("Simplifying and Isolating Failure-Inducing Input", 2002), with complements alone.

    Args:
        items: what fails, as a whole.
        fails: whether some of them, in their order, fail.

    Returns:
        Each list that is shorter than the one before. Of the last no single item can be left out.
    """
    left = list(items)
    parts = 2
    while left:
        size = -(-len(left) // parts)
        start = 0
        was = len(left)
        while start < len(left):
            fewer = left[:start] + left[start + size :]
            if fails(fewer):
                left = fewer
                yield left
            else:
                start += size
        if len(left) == was and size == 1:
            return
        parts = min(max(2, parts if len(left) < was else 2 * parts), max(1, len(left)))


class Shrinking:
    """Shrinks a recording that fails: first conversations are left out, then what was said, then bytes.

    Args:
        heard: the recording, which fails.
        fails: whether one does.
    """

    def __init__(self, heard: Sequence[Heard], fails: Callable[[list[Heard]], bool]) -> None:
        self.best = list(heard)
        """The shortest that failed until now."""
        self.tries = 0
        """How many were tried."""
        self._fails = fails

    def run(self) -> Iterator[list[Heard]]:
        """Give each that is shorter than the one before; the last is the result. Of that nothing can be left
        out, no conversation, chunk, end or byte, without its failing no more."""
        numbers = list(dict.fromkeys(each.conversation for each in self.best))
        whole = self.best
        for some in shortest(numbers, lambda some: self._try([each for each in whole if each.conversation in some])):
            yield self._keep([each for each in whole if each.conversation in some])
        for left in shortest(self.best, self._try):
            yield self._keep(left)
        place = 0
        while place < len(self.best):
            yield from self._bytes_of(place)
            place += 1

    def _bytes_of(self, place: int) -> Iterator[list[Heard]]:
        chunk = self.best[place]
        if not isinstance(chunk, Chunk):
            return

        def with_data(data: list[int]) -> list[Heard]:
            return [*self.best[:place], replace(chunk, data=bytes(data)), *self.best[place + 1 :]]

        for data in shortest(chunk.data, lambda data: self._try(with_data(data))):
            yield self._keep(with_data(data))

    def _try(self, heard: list[Heard]) -> bool:
        self.tries += 1
        return self._fails(heard)

    def _keep(self, heard: list[Heard]) -> list[Heard]:
        self.best = heard
        return heard
