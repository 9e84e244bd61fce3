"""One deadline that may be moved, kept by a task."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


class Timer:
    """Calls a function with the time once the time set last has come, while `run` runs."""

    def __init__(self, function: Callable[[float], object]) -> None:
        self._function = function
        self._scope = trio.CancelScope()

    def set(self, at: float | None) -> None:
        """Call it at this time and no other; `None` for not at all."""
        self._scope.deadline = math.inf if at is None else at

    async def run(self) -> None:
        """Keep the time until cancelled."""
        while True:
            with self._scope:
                await trio.sleep_forever()
            self._scope = trio.CancelScope()
            self._function(trio.current_time())
