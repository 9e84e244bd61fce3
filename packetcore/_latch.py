"""What a thread waits for that another wakes.

A lock would do, were it not for the interpreter's own: who lets go of a lock holds that still, so that a
thread which is woken on the same processor runs into it, and sleeps again. Its twin in C gives it
up first. No session asks for this; it is for adapters whose users are threads.
"""

from __future__ import annotations

from packetcore._owner import allocate_lock


class Latch:
    """Holds up one thread, once."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def wait(self, timeout: float, /) -> None:
        """Wait until it is opened, for at most so many seconds; signals may end the wait early."""
        self._lock.acquire(timeout=timeout)


def open_latches(latches: list[Latch], /) -> None:
    """Open them, each for the first time."""
    for latch in latches:
        latch._lock.release()
