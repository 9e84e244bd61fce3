"""Frames that end in a delimiter."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings._dropped import Dropped
from packetcore.framings._framing import MAX_FRAME, Data, Decoder, Frames, as_bytes, check_int, frame_bytes


@dataclass(frozen=True, slots=True, init=False)
class Delimiter:
    """A frame and a delimiter, which the frame must not contain.

    Source: lines, as of RFC 5198 (CR LF) and others; Netty's `DelimiterBasedFrameDecoder`.

    Args:
        delimiters: what ends a frame, at least one, of at least one byte each. Where several
            match, the earliest place wins, and there the longest. The first is sent.

    Raises:
        ValueError: there is none, or one is empty or comes twice.

    A delimiter with nothing before it ends an empty frame. Where one stands inside another, a decoder
    waits for the byte that tells which it is; the end of a stream tells nothing. A frame above `max_frame` is TOO_LONG,
    together with its delimiter if that has come; if not, what then comes is NOISE up to the
    end of the next delimiter. A decoder holds at most `max_frame` bytes and the longest
    delimiter.
    """

    delimiters: tuple[bytes, ...]
    _rules: Rules = field(init=False, repr=False, compare=False)

    resynchronises: ClassVar[bool] = True

    def __init__(self, *delimiters: bytes) -> None:
        if not delimiters:
            raise ValueError("at least one delimiter is needed")
        for delimiter in delimiters:
            if not isinstance(delimiter, bytes):
                raise TypeError(f"a delimiter is bytes, not {delimiter.__class__.__name__}")
            if not delimiter:
                raise ValueError("a delimiter has at least one byte")
            if delimiters.count(delimiter) > 1:
                raise ValueError(f"the delimiter {delimiter!r} comes twice")
        object.__setattr__(self, "delimiters", delimiters)
        object.__setattr__(self, "_rules", Rules(delimiters))

    def encode(self, frame: bytes, /) -> bytes:
        frame = frame_bytes(frame)
        rules, first = self._rules, self.delimiters[0]
        sent = frame + first
        found = rules.pattern.search(sent)
        if found is not None and found.start() < len(frame):
            raise ValueError(f"the frame contains the delimiter {found[0]!r} at {found.start()}")
        # What comes before and after it in a stream must not make a delimiter of it either.
        if rules.may_begin_before(sent, 0, len(frame)):
            raise ValueError(f"the frame, with the delimiter {first!r} behind it, may begin another one")
        for more in rules.longer[first]:
            if sent.startswith(more) or more.startswith(sent):
                raise ValueError(f"the frame begins with what makes {first + more!r} of the delimiter before it")
        return sent

    def decoder(self, max_frame: int = MAX_FRAME) -> Decoder:
        check_int("max_frame", max_frame, 1)
        return DelimiterDecoder(self._rules, max_frame)


class Rules:
    """What there is to know of some delimiters.

    A delimiter that is found is taken as soon as it is certain where it begins. If it is the
    beginning of a longer one, the rest of that is passed over when it comes.
    """

    __slots__ = ("delimiters", "longer", "longest", "only", "pattern", "waits")

    def __init__(self, delimiters: tuple[bytes, ...]) -> None:
        self.delimiters = delimiters
        self.only = delimiters[0] if len(delimiters) == 1 else None
        self.longest = max(map(len, delimiters))
        shortest_first = sorted(delimiters, key=len)
        self.pattern = re.compile(b"|".join(map(re.escape, shortest_first)))
        self.longer = {
            each: [other[len(each) :] for other in shortest_first[::-1] if other != each and other.startswith(each)]
            for each in delimiters
        }
        # Whether one may end while another, which began before it, may still go on.
        self.waits = any(each in other[1:-1] for each in delimiters for other in delimiters)

    def may_begin_before(self, data: bytes | bytearray, at: int, start: int) -> bool:
        """Whether a delimiter may have begun at `at` or later, yet before `start`, that goes on
        behind the end of `data`."""
        if not self.waits:
            return False
        ends = (bytes(data[place:]) for place in range(max(at, len(data) - self.longest + 1), start))
        return any(len(end) < len(each) and each.startswith(end) for end in ends for each in self.delimiters)


class DelimiterDecoder:
    """Looks for delimiters in what has not been searched yet."""

    __slots__ = ("_behind", "_bound", "_dropped", "_held", "_max_frame", "_rules", "_skipping", "_tail")

    def __init__(self, rules: Rules, max_frame: int) -> None:
        self._rules = rules
        self._max_frame = max_frame
        self._bound = max_frame + rules.longest
        self._held = bytearray()  # the open frame
        self._behind = b""  # the delimiter before it, if that may be the beginning of a longer one
        self._skipping = False  # after a TOO_LONG
        self._tail = b""  # the last bytes skipped: a delimiter may have begun in them
        self._dropped = Dropped()

    @property
    def pending(self) -> int:
        return min(self._dropped.size, self._bound) if self._skipping else len(self._held)

    def feed(self, data: Data, /) -> Frames:
        data = as_bytes(data)
        events: Frames = []
        held = self._held
        if self._skipping:
            at = len(self._tail)
            data = self._tail + data
            at = self._cut(data, at, 0, events)
            held += data[at:]
        elif self._rules.only is None or not self._split(data, self._rules.only, events):
            searched = max(0, len(held) - self._rules.longest + 1)
            held += data
            at = self._cut(held, 0, searched, events)
            del held[:at]
        return events

    def _split(self, data: bytes, delimiter: bytes, events: Frames) -> bool:
        """Do what `_cut` does where there is one delimiter and nothing too long; say whether it was so."""
        held = self._held
        if not held:
            frames = data.split(delimiter)
        else:
            searched = max(0, len(held) - len(delimiter) + 1)
            end, found, rest = (bytes(held[searched:]) + data).partition(delimiter)
            if not found:
                if len(held) + len(data) >= self._bound:
                    return False
                held += data
                return True
            frames = [bytes(held[:searched]) + end, *rest.split(delimiter)]
        if max(map(len, frames)) > self._max_frame:
            return False
        held[:] = frames.pop()
        events += frames
        return True

    def feed_eof(self) -> list[Malformed]:
        events = [Malformed.of(Reason.TRUNCATED, self._held)] if self._held else self._dropped.take()
        self._held.clear()
        self._behind = self._tail = b""
        self._skipping = False
        return events

    def feed_timeout(self) -> list[Malformed]:
        return self._dropped.take()

    def _cut(self, data: bytes | bytearray, at: int, searched: int, events: Frames) -> int:
        """Give what is complete from `at` on, and where the rest begins; `searched` bytes of the
        first frame are known to hold no delimiter's beginning."""
        search, bound, end = self._rules.pattern.search, self._bound, len(data)
        while at < end:
            if self._skipping:
                at = self._skip(data, at, events)
                continue
            if self._behind:
                if (size := self._rest_of_delimiter(data, at)) is None:
                    break
                if size:
                    at += size
                    continue
            stop = min(at + bound, end)
            found = search(data, at + searched, stop)
            searched = 0
            if found is not None:
                if stop - at < bound and self._rules.may_begin_before(data, at, found.start()):
                    break
                if found.start() - at <= self._max_frame:
                    events.append(bytes(data[at : found.start()]))
                else:
                    events.append(Malformed.of(Reason.TOO_LONG, data[at : found.end()]))
                at = found.end()
                self._set_behind(found[0])
            elif stop - at < bound:
                break
            else:
                events.append(Malformed.of(Reason.TOO_LONG, data[at:stop]))
                self._skipping = True
                self._tail = bytes(data[max(at, stop - self._rules.longest + 1) : stop])
                at = stop
        return at

    def _set_behind(self, delimiter: bytes) -> None:
        self._behind = delimiter if self._rules.longer[delimiter] else b""

    def _rest_of_delimiter(self, data: bytes | bytearray, at: int) -> int | None:
        """How many bytes at `at` still belong to the delimiter before them; `None` if it takes
        more to tell."""
        for more in self._rules.longer[self._behind]:
            if data.startswith(more, at):
                self._set_behind(self._behind + more)
                return len(more)
            if len(data) - at < len(more) and more.startswith(bytes(data[at:])):
                return None
        self._behind = b""
        return 0

    def _skip(self, data: bytes | bytearray, at: int, events: Frames) -> int:
        """Drop what comes up to the end of the delimiter that ends first, and give that."""
        room, delimiters = self._rules.longest - 1, self._rules.delimiters
        begin = max(0, at - room)
        found = self._rules.pattern.search(data, begin)
        if found is None:
            self._dropped.add(bytes(data[at:]))
            self._tail = bytes(data[max(0, len(data) - room) :])
            return len(data)
        places = [(data.find(each, begin, found.end()), each) for each in delimiters]
        end, _, delimiter = min((place + len(each), -len(each), each) for place, each in places if place >= 0)
        self._dropped.add(bytes(data[at:end]))
        events += self._dropped.take()
        self._skipping = False
        self._tail = b""
        self._set_behind(delimiter)
        return end
