"""What is told to a callback, waited for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from packetcore import Handle, Session
from packetcore_sockets._hosts import check_port
from packetcore_sockets._look_up import Found
from packetcore_sockets._open import AddressInfo
from packetcore_sockets._runtime import Runtime

T = TypeVar("T")


async def outcome(runtime: Runtime, begin: Callable[[Callable[[T | Exception], object]], Handle | None]) -> T:
    """Wait for what is told to a callback, and give or raise it. Where the wait is cancelled, so is
    what `begin` gave."""
    told, results = runtime.new_event(), list[T | Exception]()

    def done(result: T | Exception) -> None:
        results.append(result)
        told.set()

    begun = begin(done)
    try:
        await told.wait()
    except BaseException:
        if begun is not None:
            begun.cancel()
        for result in results:  # just when nobody waited any more
            if isinstance(result, Session):
                result.abort()
        raise
    result = results[0]
    if isinstance(result, Exception):
        raise result
    return result


async def addresses_of(
    runtime: Runtime, host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
) -> list[AddressInfo]:
    """The addresses of a host; see `Network.look_up`.

    Raises:
        OSError: it has none.
        ValueError: the port is none.
    """
    check_port(port)

    def begin(done: Callable[[Found], object]) -> None:
        runtime.look_up(done, host, port, kind, flags)

    return [*await outcome(runtime, begin)]
