"""A line for each step of something that takes a while, with a bar that grows on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_EIGHTHS = " ▏▎▍▌▋▊▉"
_WIDTH = 24
_INTERVAL = 0.05


class Progress:
    """Tells of steps as they go on.

    Args:
        out: where to. Where it is no terminal, each step is told once, at its end.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._is_live = out.isatty()

    @contextmanager
    def step(self, title: str, total: int) -> Iterator[Callable[[], None]]:
        """One step of so many parts. Gives what is to be called for each part that is done."""
        begun = drawn = time.perf_counter()
        done = 0

        def one_done() -> None:
            nonlocal done, drawn
            done += 1
            now = time.perf_counter()
            if self._is_live and now - drawn >= _INTERVAL:
                drawn = now
                self._draw(title, done, total, now - begun)

        if self._is_live:
            self._draw(title, 0, total, 0.0)
        try:
            yield one_done
        finally:
            self._draw(title, done, total, time.perf_counter() - begun, is_last=True)

    def _draw(self, title: str, done: int, total: int, seconds: float, *, is_last: bool = False) -> None:
        count = f"{done:>{len(f'{total:,}')},} of {total:,}"
        rate = f"{done / seconds:,.0f} a second" if seconds else ""
        line = f"{title:<28} {_bar(done, total)} {count:>18} {seconds:7.2f} s {rate:>18}"
        if self._is_live:
            self._out.write(f"\r{line}" + "\n" * is_last)
        else:
            self._out.write(f"{line}\n")
        self._out.flush()


def _bar(done: int, total: int) -> str:
    eighths = 8 * _WIDTH * done // total if total else 8 * _WIDTH
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + _EIGHTHS[rest] * (rest > 0)).ljust(_WIDTH, "·")
