"""How a process of this example ends: by a signal, or because the one that started it has gone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from packetcore import ProtocolError


async def told_to_end() -> None:
    """Wait for SIGINT or SIGTERM, or for the end of standard input: a parent that is killed closes that too."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            loop.remove_reader(sys.stdin.fileno())
            ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    with suppress(PermissionError):  # a file, which cannot be waited for
        loop.add_reader(sys.stdin.fileno(), read)
    await ended.wait()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program; what the network refuses it is told in one line."""
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    try:
        asyncio.run(main)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (OSError, ProtocolError) as error:
        raise SystemExit(f"{sys.argv[0]}: {error}") from None
