"""What passes through a tap, as lines of text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from packetcore import Malformed, Packet, encode
from packetcore.framings import Framing
from packetcore_cli._dump import dump_lines, malformed_lines
from packetcore_cli._failure import reason_of
from packetcore_cli._lines import Line, Lines
from packetcore_cli._session_log import NOTES_LOGGED
from packetcore_cli._text import PREVIEW, address_text, content_text, counted
from packetcore_tap import DIRECTIONS, Direction, Ending, Passed, Seen, Tap, TapConnection
from packetcore_tap import TapObserver as Observer

INDENT = " " * 15
"""In front of a dump: the width of the time."""

_ARROWS = {"to_server": ("->", "bold green"), "to_client": ("<-", "bold cyan")}


class Printer(Observer):
    """Prints what passes.

    Args:
        out: where to.
        framing: of what passes.
        quiet: whether to leave packets out.
        dump: whether to dump each of them.
    """

    def __init__(self, out: Lines, framing: Framing | None, quiet: bool, dump: bool) -> None:
        self._out = out
        self._framing = framing
        self._quiet = quiet
        self._dump = dump
        self._notes: Counter[int] = Counter()

    def opened(self, connection: TapConnection) -> None:
        self._put(connection, ("   opened    ", "dim"), f"from {address_text(connection.client)}")

    def seen(self, connection: TapConnection, seen: Seen) -> None:
        arrow = _ARROWS[seen.direction]
        event = seen.event
        if isinstance(event, Malformed):
            self._notes[connection.number] += 1
            if self._notes[connection.number] <= NOTES_LOGGED:
                self._put(connection, arrow, " ", ("malformed", "red"), " ", _wrong(event), at=seen.time)
                self._block(malformed_lines(event, framing=self._framing))
            elif self._notes[connection.number] == NOTES_LOGGED + 1:
                self._put(connection, arrow, " ", ("malformed", "red"), " more, from here on only counted")
        elif not self._quiet:
            label = "packet   " if isinstance(event, Packet) else "frame    "
            self._put(connection, arrow, " ", label, " ", content_text(event, PREVIEW), at=seen.time)
            if self._dump:
                if isinstance(event, Packet):
                    data, size = encode(event), len(event.payload)
                else:
                    data, size = event if self._framing is None else self._framing.encode(event), len(event)
                self._block(dump_lines(data, max_payload=max(1, size), framing=self._framing))

    def encrypted(self, connection: TapConnection) -> None:
        self._put(connection, ("   encrypted ", "yellow"), "the client speaks TLS: it passes, and packets are not seen")

    def failed(self, connection: TapConnection, error: OSError) -> None:
        self._put(connection, ("   failed    ", "red"), reason_of(error))

    def ended(self, connection: TapConnection, direction: Direction) -> None:
        arrow = _ARROWS[direction]
        self._put(connection, arrow, (" end       ", "dim"), "nothing more comes")

    def closed(self, connection: TapConnection, ending: Ending, error: OSError | None) -> None:
        self._notes.pop(connection.number, None)
        style = "dim" if ending in (Ending.FINISHED, Ending.CLOSED) else "yellow"
        why = f"{ending.value}: {reason_of(error)}" if error is not None else ending.value
        self._put(connection, ("   closed    ", style), f"{why}; {_totals(connection.passed)}")

    def stopped(self, opened: Tap) -> None:
        """Say what there was in all."""
        self._out.put((f"stopped after {counted(opened.opened, 'connection')}; {_totals(opened.passed)}", "bold"))

    def _put(self, connection: TapConnection, *cells: Any, at: float | None = None) -> None:
        at = time.time() if at is None else at
        clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
        self._out.put((clock, "dim"), "  ", (f"#{connection.number}", "bold"), "  ", *cells)

    def _block(self, lines: Iterator[Line]) -> None:
        for line in lines:
            self._out.put(INDENT, *line)


def _wrong(malformed: Malformed) -> str:
    return f"{malformed.reason.name}  {counted(malformed.size, 'byte')}"


def _totals(passed: Callable[[Direction], Passed]) -> str:
    return "; ".join(f"{each.replace('_', ' ')}: {_total(passed(each))}" for each in DIRECTIONS)


def _total(passed: Passed) -> str:
    parts = [counted(passed.packets, "packet"), counted(passed.bytes, "byte")]
    parts += [
        f"{number} {what}" for number, what in ((passed.malformed, "malformed"), (passed.dropped, "lost")) if number
    ]
    return ", ".join(parts)
