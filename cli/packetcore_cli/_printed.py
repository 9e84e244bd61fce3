"""What an application prints, as lines that are put and hold nobody up."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from packetcore_cli._lines import Lines

LONGEST = 8192
"""Characters of a line without an end, such as the dots of a progress, that are kept before they are put."""


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
        self._lock = threading.RLock()  # re-entrant: collecting garbage may print

    def write(self, text: str) -> int:
        """Put what ends with a line, or is longer than one may be, and keep the rest."""
        with self._lock:
            *whole, self._begun = (self._begun + text).split("\n")
            if len(self._begun) > LONGEST:
                whole.append(self._begun)
                self._begun = ""
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
