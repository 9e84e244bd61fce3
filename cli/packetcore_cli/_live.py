"""The table that `packetcore serve` shows in a terminal, below the lines that it prints."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, TextIO, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from packetcore_cli._lines import FLUSH_TIMEOUT, Lines
from packetcore_cli._sampler import Sampler
from packetcore_cli._seen import Row, Totals
from packetcore_cli._terminal import Cell, NobodyReads, Terminal, write_all
from packetcore_cli._text import counted

ROWS = 10
"""Sessions shown at most, those that say most."""

OTHERS = 7
"""Lines that are for others than the sessions: the header, the totals, and some of what is printed above."""

PAUSE = 0.25
"""Seconds from one look for something new to the next."""


class LiveTerminal(Terminal):
    """A terminal with a table that stays below the lines, once `show` was called.

    Args:
        file: a terminal.
    """

    def __init__(self, file: TextIO) -> None:
        super().__init__(file)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._drawing: threading.Thread | None = None
        self._unbuffered = cast(IO[str], _Unbuffered(file))

    def show(self, sampler: Sampler, where: str) -> None:
        """Show what a sampler sees, until `stop`."""
        console = _Console(file=self._unbuffered, highlight=False, markup=False, emoji=False, force_terminal=True)

        def draw() -> RenderableType:
            return table_of(sampler, where, console.width, console.height)

        # What an application prints does not go by way of `Live`, which would draw the table for each line.
        live = Live(
            get_renderable=draw,
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        with self._lock:
            live.start()
            self._live = live
        self._drawing = threading.Thread(target=self._draw, args=(sampler,), name="packetcore-table", daemon=True)
        self._drawing.start()

    def stop(self) -> None:
        """Leave the table as it is in the end, below all that was printed. Whoever does not read what the terminal
        is told delays this by `FLUSH_TIMEOUT` seconds at most."""
        self._ended.set()
        ending = threading.Thread(target=self._stop, name="packetcore-table-end", daemon=True)
        ending.start()
        ending.join(FLUSH_TIMEOUT)

    def write(self, lines: Iterable[Sequence[Cell]]) -> None:
        """See `Terminal`."""
        with self._lock:
            if self._live is None:
                super().write(lines)
                return
            try:
                self._live.console.print(Text("\n").join(Text.assemble(*cells) for cells in lines), soft_wrap=True)
            except BrokenPipeError:
                raise NobodyReads from None

    def _draw(self, sampler: Sampler) -> None:
        turn = -1
        while not self._ended.wait(PAUSE):
            if sampler.turn == turn:
                continue
            turn = sampler.turn
            with self._lock, suppress(OSError):  # whoever prints hears of it
                if self._live is not None:
                    self._live.refresh()

    def _stop(self) -> None:
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                with suppress(OSError):
                    live.stop()


class Printed:
    """What `print` writes to while there is a table: lines are put, and whoever prints waits for nobody.

    Args:
        lines: where to.
        file: what it stands for, and has all else.
    """

    def __init__(self, lines: Lines, file: TextIO) -> None:
        self._lines = lines
        self._file = file
        self._begun = ""

    def write(self, text: str) -> int:
        """Put what ends with a line, and keep what does not."""
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._lines.put(line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing: whole lines are on their way."""

    def end(self) -> None:
        """Put what was begun."""
        if self._begun:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def prints_to(lines: Lines, *names: str) -> Iterator[None]:
    """Put the lines that an application prints until the end of the block.

    Args:
        lines: where to.
        names: "stdout", "stderr".
    """
    with ExitStack() as redirected:
        for name in names:
            printed = Printed(lines, getattr(sys, name))
            redirected.callback(printed.end)
            redirected.callback(setattr, sys, name, getattr(sys, name))
            setattr(sys, name, printed)
        yield


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        return False  # else it stays hidden where the process is killed

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Unbuffered:
    """A file that passes by the buffer of another: whoever reads that may sleep, and the interpreter would wait for
    it in the end."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.encoding = file.encoding

    def write(self, text: str) -> int:
        write_all(self._file.fileno(), text.encode(self.encoding, "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()


def table_of(sampler: Sampler, where: str, width: int, height: int) -> RenderableType:
    """The totals, the sessions that say most, and how others ended.

    Args:
        sampler: sees them.
        where: the server listens.
        width: columns that there are.
        height: lines that there are.
    """
    totals = sampler.totals
    rows = max(1, min(ROWS, height - OTHERS))
    view = sampler.view(sort="packets", descending=True, stop=rows)
    parts: list[RenderableType] = [_headline(totals, where)]
    if view.rows:
        parts.append(_table(view.rows, width))
        if view.matched > len(view.rows):
            parts.append(Text(f"and {view.matched - len(view.rows)} more", style="dim"))
    parts.append(_ends(totals))
    return Group(*parts)


def _headline(totals: Totals, where: str) -> Text:
    packets_in, packets_out, bytes_in, bytes_out = totals.rates
    line = Text.assemble("\n", (where, "bold"), f"  {counted(totals.sessions, 'session')}")
    line.append(f"  in {_short(packets_in)}/s {_short(bytes_in)}B/s")
    line.append(f"  out {_short(packets_out)}/s {_short(bytes_out)}B/s")
    if totals.outstanding:
        line.append(f"  outstanding {_short(totals.outstanding)}B")
    if totals.malformed:
        line.append(f"  malformed {totals.malformed}", style="red")
    if not totals.is_answering:
        line.append("  the server does not answer", style="bold red")
    return line


NARROW = 26
"""Columns of text that the narrowest table takes beside the identities, and those between them."""

MIDDLING = 58
"""The same with the bytes, what is unsent, and the age."""

PEER = 23
"""The same of the peer's address."""

LEAST = 18
"""Columns of text that an identity has at least, where something else could be left out."""


def _table(rows: Sequence[Row], width: int) -> Table:
    is_middling = width >= MIDDLING + LEAST
    is_wide = width >= MIDDLING + PEER + LEAST
    left = max(1, width - (MIDDLING if is_middling else NARROW) - (PEER if is_wide else 0))
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("session", justify="right", no_wrap=True)
    table.add_column("identity" if is_wide else "identity or peer", no_wrap=True, max_width=left)
    if is_wide:
        table.add_column("peer", no_wrap=True, max_width=PEER - 2)
    table.add_column("in/s", justify="right", no_wrap=True)
    table.add_column("out/s", justify="right", no_wrap=True)
    if is_middling:
        table.add_column("B in/s", justify="right", no_wrap=True)
        table.add_column("B out/s", justify="right", no_wrap=True)
        table.add_column("unsent", justify="right", no_wrap=True)
        table.add_column("age", justify="right", no_wrap=True)
    now = time.monotonic()
    for row in rows:
        whose = (row.name, row.peer) if is_wide else (row.name or row.peer,)
        cells = [str(row.id), *whose, _short(row.packets_in), _short(row.packets_out)]
        if is_middling:
            age = "older" if row.opened is None else _duration(now - row.opened)
            cells += [_short(row.bytes_in), _short(row.bytes_out), _short(row.outstanding), age]
        table.add_row(*map(Text, cells))
    return table


def _ends(totals: Totals) -> Text:
    line = Text(f"{counted(totals.opened, 'session')} until now", style="dim")
    if totals.closed:
        ended = "  ".join(f"{reason.name} {number}" for reason, number in totals.closed.most_common())
        line.append(f", closed: {ended}")
    if totals.refused:
        line.append(f"; refused: {totals.refused}")
    return line


def _short(value: float) -> str:
    for power, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            shown = value / power
            return f"{shown:.{2 if shown < 9.995 else 1 if shown < 99.95 else 0}f}{name}"
    return f"{value:.1f}" if 0 < value < 10 and value != int(value) else f"{value:.0f}"


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} d"
