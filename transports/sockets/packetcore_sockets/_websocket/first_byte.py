"""Two protocols on one port: the first byte of a connection tells which."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from packetcore_sockets._loop import Loop
from packetcore_sockets._prelude import Prelude


class FirstByte(Prelude):
    """Waits for the first byte of an accepted socket, and leaves it there.

    Args:
        loop: see `Prelude`, and so `sock` and `until`.
        done: called once, with the byte or with what went wrong.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, done: Callable[[bytes | OSError], object], until: float | None
    ) -> None:
        super().__init__(loop, sock, done, until)
        loop.set_reader(sock, self._readable)

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
            self._end(byte)
        else:
            self._fail(ConnectionResetError(errno.ECONNRESET, "the peer left without a word"))
