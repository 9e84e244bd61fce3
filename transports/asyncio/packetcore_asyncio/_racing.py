"""Connecting to the first address of a name that answers, by the loop's own `sock_connect`: every event
loop has that, and uvloop's `create_connection` knows no staggering."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial

from packetcore_sockets import AddressInfo, Attempts, Loop, Race, scoped_host


async def connected(loop: asyncio.AbstractEventLoop, verbs: Loop, attempts: Attempts) -> socket.socket | None:
    """A socket that is connected to the first address that answers; `None` where none does.

    Args:
        loop: the event loop.
        verbs: the same, as `packetcore_sockets` knows it.
        attempts: the addresses.
    """
    over: asyncio.Future[socket.socket | Exception | None] = loop.create_future()

    def done(result: socket.socket | Exception | None) -> None:
        if not over.done():
            over.set_result(result)
        elif isinstance(result, socket.socket):  # just when nobody waited any more
            result.close()

    race = Race[socket.socket](verbs, attempts, partial(Connecting, loop), done, socket.socket.close)
    try:
        result = await over
    except BaseException:
        race.cancel()
        if over.done() and not over.cancelled() and isinstance(sock := over.result(), socket.socket):
            sock.close()
        raise
    if isinstance(result, Exception):
        raise result
    return result


class Connecting:
    """A socket that connects to one address; see `packetcore_sockets.Attempt`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        info: AddressInfo,
        done: Callable[[socket.socket | Exception], object],
    ) -> None:
        family, kind, protocol, _, address = info
        self._done = done
        self._sock = sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        # uvloop's looks at the first two alone.
        self._task = loop.create_task(loop.sock_connect(sock, (scoped_host(address), *address[1:])))
        self._task.add_done_callback(self._over)

    def cancel(self) -> None:
        """Close the socket soon, and tell nobody."""
        self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        # The loop has let go of the socket only now.
        if task.cancelled():
            self._sock.close()
        elif (error := task.exception()) is None:
            self._done(self._sock)
        else:
            self._sock.close()
            if isinstance(error, OSError) and error.errno is not None:
                error = OSError(error.errno, os.strerror(error.errno))  # without the address, which others tell
            if isinstance(error, Exception):
                self._done(error)
