"""Coroutines for a runtime that has none: they run on its `call_soon`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from functools import partial
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
        for wake in self._waiting:
            self._call_soon(wake)
        self._waiting.clear()

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
        self._context = copy_context()
        self._call_soon = call_soon
        self._done = done
        self._wake: Callable[[], object] | None = None
        self._is_cancelled = False
        self._is_over = False
        call_soon(self._begin)

    def cancel(self) -> None:
        """Have it raise `Cancelled` where it waits, soon; one that has not begun runs nothing.
        Idempotent: what it does at its end may wait."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self._call_soon(lambda: self._go_on(Cancelled()))

    def _begin(self) -> None:
        if not self._is_cancelled:
            self._go_on()

    def _go_on(self, error: BaseException | None = None) -> None:
        if self._is_over:
            return
        try:
            step = partial(self._coroutine.send, None) if error is None else partial(self._coroutine.throw, error)
            waiting = self._context.run(step)
        except BaseException as end:
            self._is_over = True
            self._done()
            if not isinstance(end, Exception | Cancelled):
                raise
        else:
            self._wait(waiting)

    def _wait(self, waiting: object) -> None:
        def wake() -> None:
            if self._wake is wake:  # else it was cancelled meanwhile, and may wait for something else
                self._go_on()

        if isinstance(waiting, list):
            self._wake = wake
            waiting.append(wake)
        else:
            self._go_on(TypeError(f"a task of packetcore_sockets cannot wait for {waiting!r}, only for its Event"))
