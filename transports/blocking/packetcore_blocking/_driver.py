"""One loop on a thread of its own, for tools."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from packetcore import Driver
from packetcore_blocking._loop import Loop
from packetcore_blocking._pool import ConnectionPool
from packetcore_blocking._stream import Stream
from packetcore_blocking._tcp import connect_on, serve_on
from packetcore_blocking._udp import connect_udp_on, serve_udp_on


class BlockingDriver(Driver):
    """Serves all its servers and clients on one thread. See `packetcore.Driver`.

    `call` runs a function on a thread of its own, which holds the lock save where it waits.
    """

    def __init__(self) -> None:
        self._loop = Loop()
        super().__init__(
            partial(serve_on, self._loop),
            partial(connect_on, self._loop),
            _echo,
            partial(serve_udp_on, self._loop),
            partial(connect_udp_on, self._loop),
            partial(ConnectionPool, loop=self._loop),
        )
        with self._loop:
            self._loop.start("packetcore-blocking")

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        return self._loop.run_in_thread(partial(function, *args), timeout)

    def capabilities(self) -> frozenset[str]:
        return frozenset({"tcp", "tls", "udp", "reconnect", "pool"})

    def stop(self) -> None:
        if not self._loop.closed:
            self.close_all()
            self._loop.close()


def _echo(stream: Stream) -> None:
    for item in stream:
        stream.send(item)
