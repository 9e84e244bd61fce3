"""Coroutines for a runtime that has none: they run on its `call_soon`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

CallSoon = Callable[[Callable[[], object]], object]


class Cancelled(BaseException):
    """What a task that is cancelled raises where it waits."""


class Event:
    """Wakes tasks, once: the `packetcore.AsyncEvent`."""

    def __init__(self, call_soon: CallSoon) -> None:
        self._call_soon = call_soon
        self._is_set = False
        self._waiting: list[Callable[[], object]] = []

    def set(self) -> None:
        self._is_set = True
        while self._waiting:
            self._call_soon(self._waiting.pop())

    async def wait(self) -> None:
        if not self._is_set:
            await _Wait(self._waiting)


class _Wait:
    def __init__(self, waiting: list[Callable[[], object]]) -> None:
        self._waiting = waiting

    def __await__(self) -> Generator[list[Callable[[], object]], None, None]:
        yield self._waiting


class Task:
    """Runs one coroutine, which waits for nothing but `Event`.

    Args:
        coroutine: what to run, but not before this returns.
        call_soon: the loop's.
        done: called once it is over.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object], call_soon: CallSoon, done: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._call_soon = call_soon
        self._done = done
        self._wake: Callable[[], object] | None = None
        self._is_over = False
        call_soon(self._begin)

    def cancel(self) -> None:
        """Have it raise `Cancelled` where it waits, soon. Idempotent."""
        self._call_soon(lambda: self._step(self._wake, Cancelled()))

    def _begin(self) -> None:
        self._step(None)

    def _step(self, wake: Callable[[], object] | None, error: Cancelled | None = None) -> None:
        """Go on, if it still waits for what has woken it."""
        if self._is_over or wake is not self._wake:
            return
        try:
            waiting = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except (StopIteration, Cancelled):
            self._end()
        except Exception:
            self._end()
        except BaseException:
            self._end()
            raise
        else:

            def go_on() -> None:
                self._step(go_on)

            self._wake = go_on
            waiting.append(go_on)

    def _end(self) -> None:
        self._is_over = True
        self._done()
