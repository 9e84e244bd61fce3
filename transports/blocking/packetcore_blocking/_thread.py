"""Threads that use a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress


class Cancelled(BaseException):
    """Ends a thread that waits for what nobody wants any more."""


class Thread(threading.Thread):
    """Runs a function.

    Args:
        function: what to run; a `Cancelled` that it raises is nobody's.
        done: called once it is over.
    """

    is_cancelled = False
    """Whether a wait in a loop raises `Cancelled`."""

    def __init__(self, function: Callable[[], object], done: Callable[[], object]) -> None:
        super().__init__(name="packetcore-function", daemon=True)
        self._function = function
        self._done = done

    def run(self) -> None:
        try:
            with suppress(Cancelled):
                self._function()
        finally:
            self._done()

    def cancel(self) -> None:
        """A thread that is busy cannot be ended, and one that waits in a stream finds that closed."""
