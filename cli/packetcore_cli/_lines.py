"""Lines that a thread of its own writes, so that whoever has one to say never waits for a reader.

A pipe whose reader sleeps, or a terminal after Ctrl-S, stops whoever writes to it. Here that is
the `Writer` alone: what does not fit into its queue meanwhile is dropped and counted, the number
is said in the place of what is missing once the lines flow again, and the end of the process
does not wait for it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from operator import itemgetter
from types import TracebackType

from packetcore_cli._terminal import Cell, NobodyReads, Terminal
from packetcore_cli._text import counted

CAPACITY = 8 << 20
"""Characters that wait at most, some 25,000 lines, and as many again while they are written. A
burst of 200,000 packets printed to a file lost 1 % with an eighth of it, and nothing with this."""

LINE_COST = 250
"""Characters that a line counts beside its own: what Python keeps for it, about."""

FLUSH_TIMEOUT = 0.5
"""Seconds that the end of the process waits for what was not written yet."""

Line = tuple[Cell, ...]


def gap_text(number: int) -> str:
    """What stands in the place of lines that were dropped."""
    return f"{counted(number, 'line')} dropped: nobody read them"


class Lines:
    """One stream of lines.

    Args:
        writer: writes them.
        terminal: where to.
        gap: gives the line that stands for so many that were dropped.
        failed: called on the writer's thread when one could not be written.
    """

    def __init__(
        self,
        writer: Writer,
        terminal: Terminal,
        *,
        gap: Callable[[int], Line] = lambda number: (gap_text(number),),
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self.gap = gap
        self.error: NobodyReads | OSError | None = None
        """Why the last line that could not be written was not; it is lost, later ones are tried."""
        self._writer = writer
        self._terminal = terminal
        self._failed = failed

    def put(self, *cells: Cell) -> None:
        """Write a line soon, after those put before. Never blocks, and may drop the line."""
        self._writer.put(self, cells)

    def write(self, lines: Iterable[Line]) -> None:
        """Write lines now; on the writer's thread only."""
        try:
            self._terminal.write(lines)
        except (NobodyReads, OSError) as error:
            self.error = error
            self._failed()


class Writer:
    """Writes what streams of lines hold, in the order in which it was put, until the end of the
    `with` block and at most `FLUSH_TIMEOUT` seconds longer."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Lines, Line]] = deque()
        self._size = 0
        self._dropped: Counter[Lines] = Counter()
        self._ending = False
        self._changed = threading.Condition()  # re-entrant: collecting garbage may log
        self._thread = threading.Thread(target=self._run, name="packetcore-lines", daemon=True)
        self._thread.start()

    def put(self, lines: Lines, line: Line) -> None:
        """Queue a line of a stream, or count it as dropped."""
        size = LINE_COST + sum(len(cell if isinstance(cell, str) else cell[0]) for cell in line)
        with self._changed:
            if self._dropped[lines] or (self._waiting and self._size + size > CAPACITY):
                self._dropped[lines] += 1  # until that is said: no line overtakes the gap
                return
            self._waiting.append((lines, line))
            self._size += size
            self._changed.notify()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(FLUSH_TIMEOUT)

    def _run(self) -> None:
        while batch := self._taken():
            for lines, group in groupby(batch, key=itemgetter(0)):
                lines.write([line for _, line in group])

    def _taken(self) -> list[tuple[Lines, Line]]:
        """All that waits, and what was dropped behind it; nothing once the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            taken = list(self._waiting)
            self._waiting.clear()
            self._size = 0
            taken += [(lines, lines.gap(number)) for lines, number in self._dropped.items() if number]
            self._dropped.clear()
        return taken


@contextmanager
def writers(out: Terminal, err: Terminal) -> Iterator[tuple[Writer, Writer]]:
    """Give who writes to each: one writer where both are one file, which keeps the order of all
    lines in it, else two, of which neither waits for the other's reader."""
    with ExitStack() as running:
        to_err = running.enter_context(Writer())
        yield (to_err if out.is_same_file(err) else running.enter_context(Writer())), to_err
