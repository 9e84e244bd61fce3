"""How a program of this example ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def until_told(program: Coroutine[Any, Any, None]) -> None:
    """Run until SIGINT or SIGTERM comes. Then it is cancelled where it waits, and closes what it has: an exception
    out of nowhere, as Python makes of Ctrl-C, would stop it in the midst of anything."""
    task = asyncio.ensure_future(program)
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
