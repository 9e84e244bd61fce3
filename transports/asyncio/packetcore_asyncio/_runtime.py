"""What the core is told of the event loop that its sessions live on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from packetcore import Endpoint


def tie(endpoint: Endpoint, loop: asyncio.AbstractEventLoop, stop: Callable[[], object] = lambda: None) -> None:
    """Let `call_soon` reach the sessions of an endpoint from any thread, and have what ends the
    program come out of the event loop.

    Args:
        stop: called before that, to listen or dial no more.
    """

    def end(error: BaseException) -> None:
        stop()
        loop.call_soon(loop.call_soon, _raise, error)  # once the sessions have closed their sockets

    endpoint.runs_by(loop.call_soon_threadsafe)
    endpoint.on_ended = end


def _raise(error: BaseException) -> None:
    raise error
