"""The echo servers that `echo.py` compares, each run in a process of its own.

`handler` and `stream` are packetcore's two interfaces, on the adapter's own `serve`. `raw` sends
bytes back and knows no packets: the limit of its runtime. The others are what one writes
without packetcore. Every one serves on a second thread while the first one sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe

from _bare_servers import BARE, BARE_TLS, threads
from _common import pin
from _echo_by_hand import greenlets, int32_strings, readuntil
from _processes import TRANSPORTS, Echo, answer, begin_child, load

from packetcore import TLS, Handler


def _packetcore(transport: str, handler: Handler | None, certificate: str | None = None) -> int:
    tls = None if certificate is None else TLS(certificate=certificate)
    port: int = load(transport).start_server(handler, tls=tls).address[1]
    return port


def _new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


_BY_HAND: dict[str, dict[str, Callable[[], int]]] = {
    "asyncio": {"readuntil": partial(readuntil, asyncio.new_event_loop)},
    "uvloop": {"readuntil": partial(readuntil, _new_uvloop)},
    "gevent": {"raw greenlet": BARE["gevent"]["greenlet"], "by hand": greenlets},
    "twisted": {"Int32StringReceiver": int32_strings},
    "blocking": {"raw thread": threads},
}

SERVERS: dict[str, dict[str, Callable[[], int]]] = {
    transport: {
        "raw": next(iter(BARE[transport].values())),
        "handler": partial(_packetcore, transport, Echo()),
        "stream": partial(_packetcore, transport, None),
        **_BY_HAND[transport],
    }
    for transport in TRANSPORTS
}
"""By transport and by name: functions that start one and give its port. `raw` is
the leanest there is; `raw greenlet` and `raw thread` are how servers are written on gevent and on
blocking sockets."""

SERVERS_TLS: dict[str, dict[str, Callable[[str], int]]] = {
    transport: {"raw TLS": BARE_TLS[transport], "handler TLS": partial(_packetcore, transport, Echo())}
    for transport in TRANSPORTS
}
"""The same over TLS: functions that take the path of a PEM file with key and certificate."""


def installed() -> list[str]:
    """The transports whose runtime is installed."""
    return [transport for transport in TRANSPORTS if transport == "blocking" or find_spec(transport) is not None]


def run(pipe: Pipe, transport: str, server: str, certificate: str | None) -> None:
    """Serve in a child process.

    Args:
        certificate: of a server over TLS, the path of its PEM file.
    """
    begin_child()
    pin(0)

    def start() -> int:
        if certificate is None:
            return SERVERS[transport][server]()
        return SERVERS_TLS[transport][server](certificate)

    answer(pipe, {"start": start, "processor_time": time.process_time})
