"""Which byte of a stream of frames is what, in any framing.

As in `_annotate`, what is a frame and what is malformed is the decoder's word. Where that is, it
says once it is fed a byte at a time: an event speaks for all bytes before it, the byte that
brought it included, but for those that are pending and the flags around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packetcore import Malformed, Reason
from packetcore.framings import Framing
from packetcore_cli._annotate import Part, Span, Spans

HEAD, TAIL = 8192, 4096
"""Bytes that are held of the beginning and of the end of what no event has spoken for yet. Where a frame or a malformed
run begins is found by a `Malformed.sample`, and what is behind it is a flag or two."""


class FrameSpans:
    """The frames of a stream as they were sent, what is malformed, and the flags between them, as its bytes come.

    Args:
        framing: of the frames.
        max_frame: the longest, in bytes.
    """

    def __init__(self, framing: Framing, max_frame: int) -> None:
        self._framing = framing
        self._decoder = framing.decoder(max_frame)
        self._held = bytearray()  # of what no event has spoken for
        self._start = 0  # where that begins
        self._fed = 0
        self._body = 0  # the first byte behind the flags there

    def feed(self, data: bytes) -> Iterator[Span]:
        """Take the next bytes, and give what they complete."""
        for place in range(len(data)):
            byte = data[place : place + 1]
            self._held += byte
            self._fed += 1
            yield from self._placed(self._decoder.feed(byte))
            if not self._decoder.pending:
                self._body = self._fed
            if len(self._held) > 2 * (HEAD + TAIL):
                yield from self._let_go()

    def feed_eof(self) -> Iterator[Span]:
        """Give what is left at the end."""
        yield from self._placed(self._decoder.feed_eof())
        if self._held:
            yield Span(self._start, self._fed, None, Part.FLAG)
            self._start = self._fed
            self._held.clear()

    def _let_go(self) -> Iterator[Span]:
        """Hold no more than has to be."""
        if self._body == self._fed:  # flags alone, of which the last may begin a frame
            yield Span(self._start, self._fed - 1, None, Part.FLAG)
            self._start = self._fed - 1
            del self._held[:-1]
        else:
            del self._held[HEAD:-TAIL]

    def _placed(self, events: Sequence[bytes | Malformed]) -> Iterator[Span]:
        for event in events:
            body = self._body - self._start
            if isinstance(event, Malformed):
                begin = self._start + max(self._held.find(event.sample, body), body)
                end = begin + event.size
                part = Part.NOISE if event.reason is Reason.NOISE else Part.BROKEN
            else:
                begin, end, part = self._body, self._fed, Part.FRAME
                if body and self._framing.encode(event)[:1] == self._held[body - 1 : body]:
                    begin -= 1  # the flag is its own
            if self._start < begin:
                yield Span(self._start, begin, None, Part.FLAG)
            yield Span(begin, end, event, part)
            gone = end - self._start
            del self._held[: gone if gone <= HEAD else max(0, len(self._held) - (self._fed - end))]
            self._start = self._body = end


def new_spans(framing: Framing | None, max_payload: int) -> Spans | FrameSpans:
    """What finds the spans of a stream of packets, or where there is a framing of its frames."""
    return Spans(max_payload) if framing is None else FrameSpans(framing, max_payload)


def spans_of(data: bytes, framing: Framing | None, max_payload: int) -> Iterator[Span]:
    """Those of a whole stream."""
    found = new_spans(framing, max_payload)
    yield from found.feed(data)
    yield from found.feed_eof()
