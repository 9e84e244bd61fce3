"""A connection on its way to be a session's: made, and secured where there is TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from packetcore import Session


class Opening:
    """A connection that has a protocol, which was given this, and no session yet.

    Args:
        done: called once, but not before this returns, with the session or with what went wrong.
    """

    __slots__ = ("_done", "drop", "is_over")

    def __init__(self, done: Callable[[Session[Any] | Exception], object]) -> None:
        self.is_over = False
        """Whether it has begun, failed, or was given up: a connection that is made then is nobody's."""
        self.drop: Callable[[], object] | None = None
        """Closes the connection, if there is one: the protocol sets it."""
        self._done = done

    def cancel(self) -> None:
        """Give up and tell nobody, unless the session has begun. Idempotent."""
        if self._end():
            self._stop()
            if self.drop is not None:
                self.drop()

    def begun(self, session: Session[Any]) -> None:
        """The session begins now."""
        if self._end():
            self._done(session)

    def failed(self, error: Exception) -> None:
        """There will be none, and the connection closes by itself."""
        if self._end():
            self._done(error)

    def _stop(self) -> None:
        """End what opens it."""
        raise NotImplementedError

    def _end(self) -> bool:
        """Whether this is the end, and no other was before."""
        was_over, self.is_over = self.is_over, True
        return not was_over


class Reaching(Opening):
    """One that a task opens, within a time.

    Args:
        loop: the event loop.
        reach: opens it, with a protocol that has been given this.
        limit: how long that, and TLS, may take, in seconds; `None` for ever.
        timed_out: makes the error where it takes longer.
        done: see `Opening`.
    """

    __slots__ = ("_task", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        reach: Callable[[Opening], Coroutine[Any, Any, object]],
        limit: float | None,
        timed_out: Callable[[], Exception],
        done: Callable[[Session[Any] | Exception], object],
    ) -> None:
        super().__init__(done)
        self._timer: asyncio.TimerHandle | None = None
        if limit is not None:
            self._timer = loop.call_later(limit, self._time_out, timed_out)
        self._task = loop.create_task(reach(self))
        self._task.add_done_callback(self._reached)

    def _stop(self) -> None:
        self._task.cancel()

    def _time_out(self, timed_out: Callable[[], Exception]) -> None:
        self.cancel()
        self._done(timed_out())

    def _reached(self, task: asyncio.Task[object]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self.failed(error)

    def _end(self) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        return super()._end()


class Accepting(Opening):
    """One that came in, and has only to be given a transport: without a task, which costs 5 to 9 microseconds.

    Args:
        loop: the event loop.
        sock: the connection.
        done: see `Opening`.
    """

    __slots__ = ("_loop", "_sock", "_steps")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        done: Callable[[Session[Any] | Exception], object],
    ) -> None:
        super().__init__(done)
        self._loop = loop
        self._sock = sock

    def begin(self, steps: Coroutine[Any, Any, object]) -> None:
        """Go on by a coroutine that waits for nothing but futures."""
        self._steps: Coroutine[Any, Any, object] | None = steps
        self._step()

    def _step(self, waited: object = None) -> None:
        if self._steps is None:
            return
        try:
            future = self._steps.send(None)
        except StopIteration:
            self._steps = None
        except Exception as error:
            self._steps = None
            self._sock.close()
            self._loop.call_soon(self.failed, error)
        else:
            future.add_done_callback(self._step)

    def _stop(self) -> None:
        if self._steps is not None:
            steps, self._steps = self._steps, None
            steps.close()
        self._sock.close()
