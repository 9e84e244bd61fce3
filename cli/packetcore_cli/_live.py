"""The table that `packetcore serve` shows in a terminal, below the lines that it prints."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import IO, TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from packetcore_cli._lines import FLUSH_TIMEOUT
from packetcore_cli._sampler import Sampler
from packetcore_cli._table import table_of
from packetcore_cli._terminal import Cell, NobodyReads, Terminal, write_all

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
