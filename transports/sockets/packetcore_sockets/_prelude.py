"""What comes on a socket before there is a session."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from packetcore_sockets._loop import Loop


class Prelude:
    """Has a socket until it is over, and closes it where that fails or takes too long. A subclass
    watches it, and says by `_end` or `_fail` what came of it.

    Args:
        loop: watches the socket.
        sock: connected; from now on it never waits.
        done: called once, with what came of it or with what went wrong.
        until: when to give up, in the loop's time; `None` for never.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, done: Callable[[Any], object], until: float | None = None
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._done = done
        self._is_over = False
        self._timer = None if until is None else loop.call_at(until, self._time_out)

    def cancel(self) -> None:
        """Close the socket and tell nobody. Idempotent."""
        if not self._is_over:
            self._leave()
            self._sock.close()

    def _end(self, result: object) -> None:
        """It is over, and the socket another's."""
        self._leave()
        self._done(result)

    def _fail(self, error: Exception) -> None:
        if not self._is_over:
            self.cancel()
            self._done(error)

    def _time_out(self) -> None:
        self._fail(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _leave(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.set_reader(self._sock, None)
