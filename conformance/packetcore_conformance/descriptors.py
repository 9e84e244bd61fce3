"""How many descriptors this process has open: connections that nobody closed are among them."""

from __future__ import annotations

import os
import sys
import time

import pytest

from packetcore_conformance.peer import DEADLINE

are_listed = pytest.mark.skipif(sys.platform == "win32", reason="the system does not list descriptors")


def open_descriptors() -> int:
    """Their number."""
    return len(os.listdir("/dev/fd"))


def expect_at_most(count: int, otherwise: str) -> None:
    """Wait until no more than `count` are open: those of earlier cases may close yet."""
    deadline = time.monotonic() + DEADLINE / 2
    while (now := open_descriptors()) > count:
        assert time.monotonic() < deadline, f"{otherwise}: {now - count} descriptors too many are open"
        time.sleep(0.01)
