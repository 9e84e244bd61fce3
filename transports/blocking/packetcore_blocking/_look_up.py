"""Looking names up: the one thing here that blocks in the system, so on a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from packetcore_blocking._loop import Loop
from packetcore_sockets import AddressInfo

Found = Sequence[AddressInfo] | Exception


def look_up(
    loop: Loop, done: Callable[[Found], object], host: str | None, port: int, kind: int, flags: int = 0
) -> None:
    """Ask for the addresses of a host; hold the loop's lock.

    Args:
        loop: has `done` called, by who serves it.
        done: called once, with them as `getaddrinfo` gives them, or with what went wrong.
        host: `None` for this machine.
        port: their port.
        kind: their type of socket.
        flags: as `getaddrinfo` takes them.
    """

    def run() -> None:
        found: Found
        try:
            found = socket.getaddrinfo(host, port, type=kind, flags=flags)
        except Exception as error:
            found = error
        with loop:
            loop.call_at(monotonic(), partial(done, found))

    thread = threading.Thread(target=run, name="packetcore-look-up", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # there are too many
        loop.call_at(monotonic(), partial(done, error))


def look_up_and_wait(loop: Loop, host: str | None, port: int, kind: int, flags: int = 0) -> Sequence[AddressInfo]:
    """Give the addresses of a host. Others are served meanwhile, unless a handler asks.

    Raises:
        OSError: the name is unknown.
    """
    if loop.driver == threading.get_ident():
        return socket.getaddrinfo(host, port, type=kind, flags=flags)
    outcome: list[Found] = []
    changed = threading.Condition(loop.lock)

    def done(found: Found) -> None:
        outcome.append(found)
        loop.notify(changed)

    with loop:
        look_up(loop, done, host, port, kind, flags)
    loop.wait(changed, lambda: outcome or None)
    found = outcome[0] if outcome else ConnectionAbortedError("the loop was closed meanwhile")
    if isinstance(found, Exception):
        raise found
    return found
