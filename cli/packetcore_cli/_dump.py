"""The dump of a stream: what each of its bytes is, then the packets or frames and what is malformed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from packetcore import Malformed, Reason
from packetcore.framings import Framing
from packetcore_cli._annotate import HEADER, Mark, Part, Span, marks
from packetcore_cli._framed import spans_of
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


def dump(
    out: Terminal,
    data: bytes,
    *,
    max_payload: int,
    framing: Framing | None = None,
    size: int | None = None,
    indent: str = "",
) -> None:
    """Print a line for each run of bytes that are the same thing, up to `DUMPED` bytes.

    Args:
        out: where to.
        data: the stream.
        max_payload: the longest payload, or the longest frame where there is a framing.
        framing: of its frames; `None` for packets, in which header and payload are told apart.
        size: how long the stream is, where `data` is only the beginning of it, and longer than `DUMPED`.
        indent: what stands in front of each line.

    Raises:
        ValueError: `max_payload` is out of its range.
    """
    for line in dump_lines(data, max_payload=max_payload, framing=framing, size=size):
        out.line(indent, *line)


def dump_lines(
    data: bytes, *, max_payload: int, framing: Framing | None = None, size: int | None = None
) -> Iterator[Line]:
    """The lines of `dump`.

    Raises:
        ValueError: `max_payload` is out of its range.
    """
    # The second half of an escape is not left behind.
    limit = DUMPED + (framing is None and data[DUMPED - 1 : DUMPED] == bytes([ESCAPE]))
    shown: list[Span] = []
    for span in spans_of(data, framing, max_payload):
        if span.start >= limit:
            break
        shown.append(span)
    yield from _lines(data, shown, limit)
    size = len(data) if size is None else size
    if size > limit:
        yield ((f"... the dump ends here: {limit} of {size} bytes", "dim"),)


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


class EventList:
    """Prints a line for each packet or frame and each malformed run, and counts them.

    Args:
        out: where to.
        framing: of the frames; `None` for packets.
        indent: what stands in front of each line.
    """

    def __init__(self, out: Terminal, framing: Framing | None = None, indent: str = "") -> None:
        self.malformed = 0
        """Malformed runs until now."""
        self._out = out
        self._noun = "packet" if framing is None else "frame"
        self._indent = indent
        self._found = 0
        self._size = 0

    def put(self, span: Span) -> None:
        """Print what a span is, unless it is a flag."""
        self._size = span.stop
        place = self._indent, (f"{span.start:04x}", "dim"), "  "
        match span.event:
            case None:
                pass
            case Malformed():
                self.malformed += 1
                self._out.line(*place, ("malformed", "red"), "  ", malformed_text(span.event))
            case _:
                self._found += 1
                label = (f"{self._noun:<9}", "green")
                self._out.line(*place, label, "  ", content_text(span.event, PREVIEW))

    def finish(self) -> None:
        """Print how many there were."""
        counts = counted(self._found, self._noun), f"{self.malformed} malformed", counted(self._size, "byte")
        self._out.line(self._indent, (", ".join(counts), "bold"))


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
