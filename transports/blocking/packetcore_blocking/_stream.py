"""A session as a thread sees it: wait for what comes, wait for room for what goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Condition
from time import monotonic
from typing import TypeVar

from packetcore import Inbox, SyncStream
from packetcore_blocking._loop import Loop, after

T = TypeVar("T")


class Stream(SyncStream):
    """One conversation, to be used from any thread.

    A client's has no thread behind it: its socket is served while some thread waits in it.
    So its `send` waits until the system has taken everything.
    """

    def __init__(self, inbox: Inbox, loop: Loop) -> None:
        self._loop = loop
        self._changed = Condition(loop.lock)
        super().__init__(inbox, partial(loop.notify, self._changed), monotonic)

    def _has_room(self) -> bool | None:
        if self._loop.thread is None:
            return not (self.session.outstanding and self.session.is_open) or None
        return super()._has_room()

    def _wait(self, attempt: Callable[[], T | None], timeout: float | None) -> T | None:
        try:
            return self._loop.wait(self._changed, attempt, after(timeout))
        finally:
            if self._loop.thread is None and self.session.is_over:
                self._loop.close()  # it was there for this stream
