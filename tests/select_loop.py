"""Loops that a test turns: over real sockets, and in a time of the test's own where it wants that."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from packetcore_sockets import Runtime, Task

PATIENCE = 10.0
"""Seconds until something that has to happen is given up."""


class Later:
    """Something that a loop has put off."""

    def __init__(self, at: float, callback: Callable[[], object]) -> None:
        self.at = at
        self.callback = callback
        self.is_over = False

    def cancel(self) -> None:
        self.is_over = True


class SelectLoop:
    """A `packetcore_sockets.Loop` that runs until a test has what it wants, and counts how often it
    called a socket's callbacks."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._callbacks: dict[tuple[socket.socket, int], Callable[[], object]] = {}
        self._later: list[Later] = []
        self.calls = 0
        self.is_busy = False
        self._skipped = 0.0

    def time(self) -> float:
        return time.monotonic() + self._skipped

    def skip(self, seconds: float) -> None:
        """Have so much time pass at once."""
        self._skipped += seconds

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.call_at(0.0, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Later:
        self._later.append(Later(when, callback))
        return self._later[-1]

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        self._set(sock, selectors.EVENT_READ, callback)

    def set_writer(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        self._set(sock, selectors.EVENT_WRITE, callback)

    def watches(self, sock: socket.socket) -> int:
        """Which events of a socket are waited for."""
        return sum(event for watched, event in self._callbacks if watched is sock)

    @property
    def callbacks(self) -> list[Callable[[], object]]:
        """What it would call of all sockets that are watched."""
        return [*self._callbacks.values()]

    def turn(self, patience: float = 0.0) -> None:
        """Call what is due, then what is ready within some seconds."""
        due = [later for later in self._later if later.at <= self.time()]
        self.is_busy = bool(due)
        for later in due:
            self._later.remove(later)
            if not later.is_over:
                later.callback()
        for key, events in self._selector.select(patience):
            self.is_busy = True
            for event in (selectors.EVENT_READ, selectors.EVENT_WRITE):
                if events & event and (callback := self._callbacks.get((key.data, event))) is not None:
                    self.calls += 1
                    callback()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            self.turn(0.01)

    def settle(self) -> None:
        """Turn until nothing is due and nothing is ready."""
        self.turn()
        deadline = time.monotonic() + PATIENCE
        while self.is_busy:
            assert time.monotonic() < deadline, "it never came to rest"
            self.turn()

    @property
    def next_at(self) -> float:
        """When something is due, at the earliest."""
        return min(later.at for later in self._later if not later.is_over)

    def close(self) -> None:
        assert self._callbacks == {}, "a socket is watched that nobody has any more"
        self._selector.close()

    def _set(self, sock: socket.socket, event: int, callback: Callable[[], object] | None) -> None:
        if callback is None:
            self._callbacks.pop((sock, event), None)
        else:
            self._callbacks[sock, event] = callback
        events = self.watches(sock)
        if sock.fileno() in self._selector.get_map():
            self._selector.unregister(sock.fileno())
        if events:
            self._selector.register(sock.fileno(), events, sock)


class OwnRuntime(SelectLoop, Runtime):
    """Five verbs, and all the rest as it comes."""

    def complete(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Turn until it is over, which has to be by returning."""
        ends: list[str] = []

        async def main() -> None:
            await coroutine
            ends.append("returned")

        Task(main(), self.call_soon, lambda: ends.append("over"))
        self.until(lambda: "over" in ends)
        assert ends == ["returned", "over"]


class StoppedRuntime(OwnRuntime):
    """One whose time passes where a test has it pass."""

    def __init__(self) -> None:
        super().__init__()
        self.holds: list[Callable[[], object]] = []
        self.ended: list[BaseException] = []

    def time(self) -> float:
        return 1000.0 + self._skipped

    def hold(self, end: Callable[[], object]) -> None:
        self.holds.append(end)

    def release(self, end: Callable[[], object]) -> None:
        if end in self.holds:
            self.holds.remove(end)

    def end(self, error: BaseException) -> bool:
        self.ended.append(error)
        return True


class Call:
    """A coroutine under way, and what it gave or raised."""

    def __init__(self, runtime: Runtime, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.outcome: list[Any] = []

        async def run() -> None:
            try:
                self.outcome.append(await coroutine)
            except BaseException as error:
                self.outcome.append(error)

        self._task = Task(run(), runtime.call_soon, lambda: None)

    def cancel(self) -> None:
        self._task.cancel()
