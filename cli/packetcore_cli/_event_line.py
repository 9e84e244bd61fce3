"""What a recording tells, as lines of text."""

from __future__ import annotations

from datetime import datetime

from packetcore import Malformed, Packet
from packetcore_cli._terminal import Cell
from packetcore_cli._text import PREVIEW, content_text, counted, malformed_text
from packetcore_tap import Ended, Gap, Reset, Side, Told

ARROWS = {Side.CLIENT: (">", "cyan"), Side.SERVER: ("<", "magenta")}
"""How each side's direction is shown, and in which style."""


def event_cells(told: Told) -> list[Cell]:
    """An event as a line: when, whose, what."""
    what = told.what
    label, style, text = "", "", ""
    match what:
        case Packet():
            label, style, text = "packet", "green", content_text(what, PREVIEW)
        case bytes():
            label, style, text = "frame", "green", content_text(what, PREVIEW)
        case Malformed():
            label, style, text = "malformed", "red", malformed_text(what)
        case Gap(size=size):
            label, style, text = "missing", "yellow", f"{counted(size, 'byte')} not in the recording"
        case Ended():
            label, text = "end", f"the {told.sender.value} has finished sending"
        case Reset():
            label, style, text = "reset", "red", f"the {told.sender.value} broke the connection off"
    whose: Cell = (f"{told.conversation.number} {ARROWS[told.sender][0]}", ARROWS[told.sender][1])
    return [(_clock(told.time), "dim"), "  ", whose, "  ", (f"{label:<9}", style), "  ", text]


def _clock(nanoseconds: int) -> str:
    # In local time, as the log of `serve` is.
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        clock = f"{datetime.fromtimestamp(seconds):%H:%M:%S}"
    except (OverflowError, OSError, ValueError):  # a damaged capture may tell any time
        clock = "??:??:??"
    return f"{clock}.{rest // 1000:06}"
