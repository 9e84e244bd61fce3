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


def frame_spans(data: bytes, framing: Framing, max_frame: int) -> Iterator[Span]:
    """The frames of a stream as they were sent, what is malformed, and the flags between them."""
    decoder = framing.decoder(max_frame)
    start = body = 0  # the first byte that was not given yet, and the first behind the flags there
    for place in range(len(data) + 1):
        at_end = place == len(data)
        events: Sequence[bytes | Malformed] = decoder.feed_eof() if at_end else decoder.feed(data[place : place + 1])
        for event in events:
            if isinstance(event, Malformed):
                begin = max(data.find(event.sample, body, place + 1), body)
                end = begin + event.size
                part = Part.NOISE if event.reason is Reason.NOISE else Part.BROKEN
            else:
                begin, end, part = body, place + 1, Part.FRAME
                if start < body and framing.encode(event)[:1] == data[body - 1 : body]:
                    begin -= 1  # the flag is its own
            if start < begin:
                yield Span(start, begin, None, Part.FLAG)
            yield Span(begin, end, event, part)
            start = body = end
        if not at_end and not decoder.pending:
            body = place + 1
    if start < len(data):
        yield Span(start, len(data), None, Part.FLAG)
