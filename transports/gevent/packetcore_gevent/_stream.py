"""A session as a greenlet sees it: wait for what comes, wait for room for what goes."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent import Timeout
from gevent.event import Event

from packetcore import Inbox, SyncStream


class Stream(SyncStream):
    """One conversation, to be used from greenlets of its own thread. `gevent.Timeout` can end
    any wait; that neither loses what comes nor unsends what was sent."""

    def __init__(self, inbox: Inbox) -> None:
        self._changed = Event()
        super().__init__(inbox, self._changed.set, monotonic)

    def _wait(self, attempt: Callable[[], Any], timeout: float | None) -> Any:
        limit = Timeout(timeout)
        try:
            with limit:
                while (result := attempt()) is None:
                    self._changed.clear()  # whoever else waits was told, if it has not run yet
                    self._changed.wait()
                return result
        except Timeout as expired:
            if expired is not limit:
                raise
            return attempt()

    def run(self, function: Callable[[Any], object]) -> None:
        def run(stream: Any) -> None:
            try:
                function(stream)
            except Timeout as expired:  # a mistake like any other, but no Exception
                raise TimeoutError(f"not done after {expired}") from expired

        super().run(run)
