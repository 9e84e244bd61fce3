"""A real broker for tests, and what they wait with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from packetcore_cluster.local import LocalBroker

PATIENCE = 15.0
"""Seconds after which what should have happened has not."""


def start_broker() -> LocalBroker:
    """A broker; the test is skipped where there is none for the platform."""
    try:
        return LocalBroker()
    except FileNotFoundError as error:
        pytest.skip(str(error))


async def until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.005)
