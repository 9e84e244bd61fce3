"""A connection on its way to be a session's: made, and secured where there is TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from packetcore import Session
from packetcore_asyncio._socket import SocketProtocol


class Opening:
    """One task that opens one transport, within a time.

    Args:
        loop: the event loop.
        reach: opens it, having told its protocol to `protocol` here, and gives the session.
        limit: how long that, and TLS, may take, in seconds; `None` for ever.
        timed_out: makes the error where it takes longer.
        done: called once, but not before this returns, with the session or with what went wrong.
    """

    protocol: SocketProtocol | None = None

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reach: Callable[[Opening], Coroutine[Any, Any, Session]],
        limit: float | None,
        timed_out: Callable[[], Exception],
        done: Callable[[Session | Exception], object],
    ) -> None:
        self._done = done
        self._timed_out = timed_out
        self._is_over = False
        self._timer = None if limit is None else loop.call_later(limit, self._time_out)
        self._task = loop.create_task(reach(self))
        self._task.add_done_callback(self._finish)

    def cancel(self) -> None:
        """Give up and tell nobody. Idempotent."""
        if self._end():
            self._task.cancel()
            self._drop()

    def _finish(self, task: asyncio.Task[Session]) -> None:
        if task.cancelled():
            self._drop()  # uvloop may have made the connection meanwhile
        elif not self._end():
            task.exception()  # nobody asks any more
        else:
            error = task.exception()
            if error is not None:
                self._drop()
            self._done(task.result() if error is None else error)  # type: ignore[arg-type]

    def _time_out(self) -> None:
        self.cancel()
        self._done(self._timed_out())

    def _drop(self) -> None:
        if self.protocol is not None:
            self.protocol.dropped()

    def _end(self) -> bool:
        """Whether this is the end, and no other was before."""
        was_over, self._is_over = self._is_over, True
        if self._timer is not None:
            self._timer.cancel()
        return not was_over
