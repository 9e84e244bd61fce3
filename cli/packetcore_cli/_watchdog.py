"""The watchdog of a service manager: it hears of `packetcore serve` as long as that does work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from packetcore import LocalProtocolError, ServerBase
from packetcore_sockets import Notifier

_SHORTEST = 0.01
"""Seconds between two signs of life at least, however impatient the watchdog is."""

_PATIENCE = 1.0
"""Seconds that the end waits for a thread which may wait for a server that is stuck."""


@contextmanager
def watched(notifier: Notifier, server: ServerBase[Any]) -> Iterator[None]:
    """Tell the watchdog until the end of the block that the server is alive, twice in the time that it
    allows. The server's own thread does so: one that is stuck tells nothing, and is asked once."""
    if notifier.watchdog is None:
        yield
        return
    pause = min(max(notifier.watchdog / 2, _SHORTEST), threading.TIMEOUT_MAX)
    ended, answered = threading.Event(), threading.Event()

    def answer() -> None:
        notifier.alive()
        answered.set()

    def ask() -> None:
        answered.set()
        while True:
            if answered.is_set():
                answered.clear()
                try:
                    server.call_soon(answer)
                except (RuntimeError, OSError, LocalProtocolError):  # its runtime has ended
                    return
            if ended.wait(pause):
                return

    asking = threading.Thread(target=ask, name="packetcore-watchdog", daemon=True)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join(_PATIENCE)
