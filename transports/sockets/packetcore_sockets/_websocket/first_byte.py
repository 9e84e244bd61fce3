"""Two protocols on one port: the first byte of a connection tells which."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from packetcore_sockets._loop import Loop


class FirstByte:
    """Waits for the first byte of an accepted socket, and leaves it there. It has the socket until then, and
    closes it where none comes.

    Args:
        loop: watches the socket.
        sock: accepted.
        done: called once, with the byte or with what went wrong.
        until: when to give up, in the loop's time; `None` for never.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, done: Callable[[bytes | OSError], object], until: float | None
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._done = done
        self._is_over = False
        self._timer = None if until is None else loop.call_at(until, self._time_out)
        loop.set_reader(sock, self._readable)

    def cancel(self) -> None:
        """Close the socket and tell nobody. Idempotent."""
        if not self._is_over:
            self._leave()
            self._sock.close()

    def _readable(self) -> None:
        if self._is_over:
            return
        try:
            byte = self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if byte:
            self._leave()
            self._done(byte)
        else:
            self._fail(ConnectionResetError(errno.ECONNRESET, "the peer left without a word"))

    def _time_out(self) -> None:
        self._fail(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _fail(self, error: OSError) -> None:
        if not self._is_over:
            self._leave()
            self._sock.close()
            self._done(error)

    def _leave(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.set_reader(self._sock, None)
