"""What a runtime has to offer that can watch a descriptor: readiness, the time, and soon."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from packetcore import Handle

Callback = Callable[[], object]


class Loop(Protocol):
    """Five verbs. All but `call_soon` are called on the loop's own thread, or with its lock."""

    def time(self) -> float:
        """The time in seconds, which never goes back."""
        raise NotImplementedError

    def call_soon(self, callback: Callback) -> object:
        """Call something on the loop's thread, but not before this returns: from any thread, or of a
        loop with a lock from whoever has that."""

    def call_at(self, when: float, callback: Callback) -> Handle:
        """Call something at a time; one that has passed means now, but not before this returns."""
        raise NotImplementedError

    def set_reader(self, sock: socket.socket, callback: Callback | None) -> object:
        """Call something whenever a socket, or what stands in its place and has a `fileno` as a serial line
        does, has something to read, its end and errors included, in place of what was set before; `None`
        for nothing any more. The next thing may be that the socket is closed."""

    def set_writer(self, sock: socket.socket, callback: Callback | None) -> object:
        """The same for a socket that has room to write."""
