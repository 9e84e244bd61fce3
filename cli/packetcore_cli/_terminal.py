"""Where lines go: styled on a terminal, plain text of any width everywhere else."""

from __future__ import annotations

from collections.abc import Sequence
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
        file: where it writes.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._console = _Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._is_terminal = self._console.is_terminal

    def line(self, *cells: Cell) -> None:
        """Print the cells as one line, at once; without any, an empty line.

        Raises:
            NobodyReads: the other end of the pipe is closed.
            OSError: the disk is full.
        """
        try:
            if self._is_terminal:
                self._console.print(Text.assemble(*cells))
            else:
                plain = (cell if isinstance(cell, str) else cell[0] for cell in cells)
                self._file.write("".join(plain).rstrip() + "\n")
                self._file.flush()
        except BrokenPipeError:
            raise NobodyReads from None

    def table(self, rows: Sequence[Sequence[Cell]], indent: str = "") -> None:
        """Print rows with their columns aligned and two spaces between them."""
        widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells: list[Cell] = [indent]
            for cell, width in zip(row, widths, strict=True):
                cells += [cell, " " * (width - _width(cell) + 2)]
            self.line(*cells[:-1])


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # `main` ends the program, not the console


def _width(cell: Cell) -> int:
    return len(cell if isinstance(cell, str) else cell[0])
