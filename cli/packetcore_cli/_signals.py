"""Signals as commands hear them: the first ends what runs in good order, a second at once."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

HEARING = 0.2
"""Seconds between two moments in which a signal is heard for certain: one that comes just before its thread begins
to wait does not end that wait, and on Windows none does."""

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Impatient(Exception):
    """A second signal came."""


@contextmanager
def heard(signals: SimpleQueue[int]) -> Iterator[None]:
    """Put the first SIGINT or SIGTERM into a queue, and raise `Impatient` at the next. One more
    ends the process as if nobody handled it. Put each SIGHUP into the queue too."""
    seen: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            signals.put(number)
            return
        seen.append(number)
        if len(seen) > 1:
            for one in _ENDING:
                signal.signal(one, signal.SIG_DFL)
            raise Impatient
        signals.put(number)

    numbers = _ENDING if HANGUP is None else (*_ENDING, HANGUP)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def next_signal(signals: SimpleQueue[int], is_over: Callable[[], bool] = lambda: False) -> int | None:
    """Wait for the next in the queue; `None` once something is over."""
    while not is_over():
        with suppress(Empty):
            return signals.get(timeout=HEARING)
    return None


class Signals(SimpleQueue[int]):
    """A queue of signals with a pipe that is readable when there are some, for who waits for other pipes too."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        for sock in (self.reader, self._writer):
            sock.setblocking(False)

    def put(self, item: int, block: bool = True, timeout: float | None = None) -> None:
        """See `SimpleQueue`."""
        super().put(item)
        self.wake()

    def wake(self) -> None:
        """Make the pipe readable."""
        with suppress(OSError):
            self._writer.send(b"\0")

    def taken(self) -> Iterator[int]:
        """All there are, the pipe being emptied first."""
        with suppress(BlockingIOError):
            while self.reader.recv(4096):
                pass
        while not self.empty():
            yield self.get()

    def close(self) -> None:
        """Close the pipe."""
        self.reader.close()
        self._writer.close()
