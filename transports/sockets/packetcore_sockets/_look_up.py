"""Looking names up: the one thing here that blocks in the system, so on a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from packetcore_sockets._loop import Loop
from packetcore_sockets._open import AddressInfo

Found = Sequence[AddressInfo] | Exception
"""The addresses of a host as `socket.getaddrinfo` gives them, or what went wrong."""


def look_up(
    loop: Loop, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
) -> None:
    """Ask for the addresses of a host.

    Args:
        loop: has `done` called.
        done: called once, but not before this returns.
        host: a name or an address; `None` for this machine.
        port: their port.
        kind: their type of socket.
        flags: as `getaddrinfo` takes them.
    """

    def ask(flags: int) -> Found:
        try:
            return socket.getaddrinfo(host, port, type=kind, flags=flags)
        except Exception as error:  # also of what is not even a name
            return error

    def wait() -> None:
        found = ask(flags)
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon(partial(done, found))

    found = ask(flags | socket.AI_NUMERICHOST)
    if not isinstance(found, OSError):
        loop.call_soon(partial(done, found))
        return
    try:
        threading.Thread(target=wait, daemon=True).start()
    except RuntimeError as error:  # there are too many
        loop.call_soon(partial(done, error))
