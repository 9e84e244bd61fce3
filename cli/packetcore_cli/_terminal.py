"""Where lines go: styled on a terminal, plain text of any width everywhere else."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

Cell = str | tuple[str, str]
"""A piece of a line: text, or text and the style it has on a terminal."""


class NobodyReads(Exception):
    """What is printed goes nowhere: the reader of the pipe has gone."""


class Terminal:
    """Standard output or standard error, a line at a time.

    Args:
        file: where it writes; `None` is nowhere, as what Python has for a closed descriptor.
    """

    def __init__(self, file: TextIO | None) -> None:
        self.file = file
        """Where it writes."""
        self._console = _Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._is_terminal = self._console.is_terminal
        self._descriptor = _descriptor_of(file)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at it, and lines can be drawn anew there."""
        return self._is_terminal and self._descriptor is not None and not self._console.is_dumb_terminal

    def line(self, *cells: Cell) -> None:
        """Print the cells as one line, at once; without any, an empty line.

        Raises:
            NobodyReads: the other end of the pipe is closed.
            OSError: the disk is full.
        """
        if self.file is None:
            return
        try:
            if self._is_terminal:
                self._console.print(Text.assemble(*cells))
            else:
                self.file.write(_plain(cells))
                self.file.flush()
        except BrokenPipeError:
            raise NobodyReads from None

    def write(self, lines: Iterable[Sequence[Cell]]) -> None:
        """Print lines of cells from a thread that may be stuck here when the process ends.

        They pass by the buffer of the file: the interpreter flushes that in the end, and would
        wait for whoever writes to it.

        Raises:
            NobodyReads: the other end of the pipe is closed.
            OSError: the disk is full.
        """
        if self.file is None or self._descriptor is None:
            for cells in lines:
                self.line(*cells)
            return
        text = "".join(self._styled(cells) if self._is_terminal else _plain(cells) for cells in lines)
        try:
            write_all(self._descriptor, text.encode(self.file.encoding, self.file.errors or "strict"))
        except BrokenPipeError:
            raise NobodyReads from None

    def check_reader(self) -> None:
        """See that there is still somebody to print for, as far as the system tells.

        Raises:
            NobodyReads: the other end of the pipe is closed.
        """
        if self._descriptor is None or not hasattr(select, "poll"):
            return
        poller = select.poll()
        poller.register(self._descriptor, 0)
        if any(event & select.POLLERR for _, event in poller.poll(0)):
            raise NobodyReads

    def is_same_file(self, other: Terminal) -> bool:
        """Whether both write to one terminal, pipe or file, as far as the system tells."""
        one, two = self._descriptor, other._descriptor
        return one is not None and two is not None and os.path.sameopenfile(one, two)

    def table(self, rows: Sequence[Sequence[Cell]], indent: str = "") -> None:
        """Print rows with their columns aligned and two spaces between them."""
        widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells: list[Cell] = [indent]
            for cell, width in zip(row, widths, strict=True):
                cells += [cell, " " * (width - _width(cell) + 2)]
            self.line(*cells[:-1])

    def _styled(self, cells: Sequence[Cell]) -> str:
        with self._console.capture() as capture:
            self._console.print(Text.assemble(*cells))
        return capture.get()


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # `run` ends the program, not the console


def _plain(cells: Sequence[Cell]) -> str:
    return "".join(cell if isinstance(cell, str) else cell[0] for cell in cells).rstrip() + "\n"


def _descriptor_of(file: TextIO | None) -> int | None:
    if file is None or os.name == "nt":  # whose console takes text, not bytes
        return None
    try:
        return file.fileno()
    except (OSError, ValueError):  # it is in memory, or closed
        return None


def write_all(descriptor: int, data: bytes) -> None:
    """Write bytes, however long that takes."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # whoever started us may have made it so
            select.select([], [descriptor], [])


def _width(cell: Cell) -> int:
    return len(cell if isinstance(cell, str) else cell[0])
