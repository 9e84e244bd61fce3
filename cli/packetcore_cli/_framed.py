"""Which byte of a stream of frames is what, in any framing.

As in `_annotate`, what is a frame and what is malformed is the decoder's word. Where that is, it
says once it is fed a byte at a time: an event speaks for all bytes before it, the byte that
brought it included, but for those that are pending and the flags around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packetcore import Malformed, Reason
from packetcore.framings import Framing
from packetcore_cli._annotate import Part, Span


class FrameSpans:
    """The frames of a stream as they were sent, what is malformed, and the flags between them, as its bytes come.
    Holds all that no event has spoken for yet.

    Args:
        framing: of the frames.
        max_frame: the longest, in bytes.
    """

    def __init__(self, framing: Framing, max_frame: int) -> None:
        self._framing = framing
        self._decoder = framing.decoder(max_frame)
        self._held = bytearray()
        self._start = 0  # where that begins
        self._body = 0  # the first byte behind the flags there

    def feed(self, data: bytes) -> Iterator[Span]:
        """Take the next bytes, and give what they complete."""
        for place in range(len(data)):
            byte = data[place : place + 1]
            self._held += byte
            yield from self._placed(self._decoder.feed(byte))
            if not self._decoder.pending:
                self._body = self._start + len(self._held)

    def feed_eof(self) -> Iterator[Span]:
        """Give what is left at the end."""
        yield from self._placed(self._decoder.feed_eof())
        if self._held:
            yield Span(self._start, self._start + len(self._held), None, Part.FLAG)
            self._start += len(self._held)
            self._held.clear()

    def _placed(self, events: Sequence[bytes | Malformed]) -> Iterator[Span]:
        for event in events:
            fed = self._start + len(self._held)
            body = self._body - self._start
            if isinstance(event, Malformed):
                begin = self._start + max(self._held.find(event.sample, body), body)
                end = begin + event.size
                part = Part.NOISE if event.reason is Reason.NOISE else Part.BROKEN
            else:
                begin, end, part = self._body, fed, Part.FRAME
                if body and self._framing.encode(event)[:1] == self._held[body - 1 : body]:
                    begin -= 1  # the flag is its own
            if self._start < begin:
                yield Span(self._start, begin, None, Part.FLAG)
            yield Span(begin, end, event, part)
            del self._held[: end - self._start]
            self._start = self._body = end


def frame_spans(data: bytes, framing: Framing, max_frame: int) -> Iterator[Span]:
    """Those of a whole stream."""
    found = FrameSpans(framing, max_frame)
    yield from found.feed(data)
    yield from found.feed_eof()
