"""The dump of a stream: what each of its bytes is, then the packets or frames and what is malformed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from packetcore import Malformed, Reason
from packetcore.framings import Framing
from packetcore_cli._annotate import HEADER, Mark, Part, Span, marks, spans
from packetcore_cli._framed import frame_spans
from packetcore_cli._lines import Line
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import PREVIEW, content_text, counted, malformed_text
from packetcore_cli._wire import ESCAPE

DUMPED = 4096
"""Bytes told apart one by one: some screens full. The list of packets has no such limit."""

ROW = 16
"""Bytes in a line, as in other hex dumps."""

_STYLES = {
    Part.FLAG: "bold blue",
    Part.NOISE: "red",
    Part.ID: "bold cyan",
    Part.TYPE: "green",
    Part.COUNT: "cyan",
    Part.LENGTH: "yellow",
    Part.PAYLOAD: "",
    Part.ESCAPE: "bold magenta",
    Part.FRAME: "",
    Part.BROKEN: "red",
}

_SHOWN_AS_TEXT = frozenset({Part.PAYLOAD, Part.NOISE, Part.FRAME, Part.BROKEN})


def dump(out: Terminal, data: bytes, *, max_payload: int, framing: Framing | None = None, indent: str = "") -> None:
    """Print a line for each run of bytes that are the same thing, up to `DUMPED` bytes.

    Args:
        out: where to.
        data: the stream.
        max_payload: the longest payload, or the longest frame where there is a framing.
        framing: of its frames; `None` for packets, in which header and payload are told apart.
        indent: what stands in front of each line.

    Raises:
        ValueError: `max_payload` is out of its range.
    """
    for line in dump_lines(data, max_payload=max_payload, framing=framing):
        out.line(indent, *line)


def dump_lines(data: bytes, *, max_payload: int, framing: Framing | None = None) -> Iterator[Line]:
    """The lines of `dump`.

    Raises:
        ValueError: `max_payload` is out of its range.
    """
    # The second half of an escape is not left behind.
    limit = DUMPED + (framing is None and data[DUMPED - 1 : DUMPED] == bytes([ESCAPE]))
    shown: list[Span] = []
    for span in _spans(data, max_payload, framing):
        if span.start >= limit:
            break
        shown.append(span)
    yield from _lines(data, shown, limit)
    if len(data) > limit:
        yield ((f"... the dump ends here: {limit} of {len(data)} bytes", "dim"),)


def malformed_lines(malformed: Malformed, *, framing: Framing | None = None) -> Iterator[Line]:
    """The lines of a dump of what is kept of something malformed, and what is wrong with it."""
    sample = malformed.sample
    part = None if framing is None else Part.NOISE if malformed.reason is Reason.NOISE else Part.BROKEN
    yield from _lines(sample, [Span(0, len(sample), malformed, part)], len(sample))
    if malformed.size > len(sample):
        yield ((f"... {len(sample)} of {malformed.size} bytes", "dim"),)


def _lines(data: bytes, shown: Sequence[Span], limit: int) -> Iterator[Line]:
    """The lines of spans up to a limit."""
    rows = [(span, list(_rows(data, span._replace(stop=min(span.stop, limit))))) for span in shown]
    width = max((mark.stop - mark.start for _, told in rows for mark, _ in told), default=0) * 3 - 1
    for span, told in rows:
        for mark, note in told:
            style = _STYLES[mark.part]
            sent = data[mark.start : mark.stop].hex(" ")
            label = (f"{mark.part.value:<7}", style)
            yield (f"{mark.start:04x}", "dim"), "  ", label, "  ", (f"{sent:<{width}}", style), "  ", note
        if isinstance(span.event, Malformed) and span.stop <= limit:
            reason = span.event.reason
            yield "      ", (f"^ {reason.name}: {reason.value}", "bold red")


def list_events(
    out: Terminal, data: bytes, *, max_payload: int, framing: Framing | None = None, indent: str = ""
) -> None:
    """Print a line for each packet or frame and each malformed run, then how many there were.

    Raises:
        ValueError: `max_payload` is out of its range.
    """
    noun = "packet" if framing is None else "frame"
    found = malformed = 0
    for start, _, event, _ in _spans(data, max_payload, framing):
        if isinstance(event, Malformed):
            malformed += 1
            out.line(indent, (f"{start:04x}", "dim"), "  ", ("malformed", "red"), "  ", malformed_text(event))
        elif event is not None:
            found += 1
            label = (f"{noun:<9}", "green")
            out.line(indent, (f"{start:04x}", "dim"), "  ", label, "  ", content_text(event, PREVIEW))
    out.line(indent, (f"{counted(found, noun)}, {malformed} malformed, {counted(len(data), 'byte')}", "bold"))


def _spans(data: bytes, max_payload: int, framing: Framing | None) -> Iterator[Span]:
    return spans(data, max_payload) if framing is None else frame_spans(data, framing, max_payload)


def _rows(data: bytes, span: Span) -> Iterator[tuple[Mark, str]]:
    """The marks of a span, none longer than a row, and what to say of each."""
    fields: dict[Part, bytes] = {}
    for mark in marks(data, span):
        fields[mark.field] = plain = fields.get(mark.field, b"") + mark.plain
        value = _value(mark.field, plain) if mark.field in HEADER else ""
        for start in range(mark.start, mark.stop, ROW):
            stop = min(start + ROW, mark.stop)
            row = mark._replace(start=start, stop=stop)
            if mark.part is Part.ESCAPE:
                first = (start - mark.start) // 2
                note = _escape(mark.plain[first : first + ROW // 2], stop - start)
                yield row, f"{note}; {mark.field.value} {value}" if value else note
            elif mark.part in _SHOWN_AS_TEXT:
                yield row, _readable(data[start:stop])
            else:
                yield row, value


_SIZES = Counter(HEADER)


def _value(field: Part, plain: bytes) -> str:
    """The number in a header field; nothing while it is incomplete."""
    if len(plain) < _SIZES[field]:
        return ""
    number = int.from_bytes(plain, "big")
    return f"{number} (0x{number:02x})" if field is Part.ID else str(number)


def _escape(plain: bytes, size: int) -> str:
    if plain:
        return f"stands for {plain.hex(' ')}"
    return "bad: neither 01 nor 02 follows" if size > 1 else "bad: nothing follows"


def _readable(data: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
