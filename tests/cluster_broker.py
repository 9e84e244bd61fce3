"""A real broker for tests, and what they wait with."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from packetcore_cluster.local import LocalBroker, nats_server

PATIENCE = 30.0
"""Seconds after which what should have happened has not."""


def start_broker() -> LocalBroker:
    """A broker; the test is skipped where there is none for the platform."""
    try:
        return LocalBroker()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@contextmanager
def configured_broker(folder: Path, conf: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A broker with a configuration, which says that it takes any port; the port that it has, and its process. What it
    logs is in `nats.log`."""
    try:
        program = nats_server()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (folder / "nats.conf").write_text(conf, encoding="utf-8")
    command = [program, "-c", "nats.conf", "--ports_file_dir", str(folder), "-l", "nats.log"]
    process = subprocess.Popen(command, cwd=folder)
    try:
        ports = folder / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + PATIENCE
        while not (ports.exists() and (text := ports.read_text(encoding="utf-8"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield int(json.loads(text)["nats"][0].rpartition(":")[2]), process
    finally:
        process.kill()
        process.wait(PATIENCE)


async def until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.005)
