"""An echo server of an adapter in a process of its own, for cases that kill or starve it."""

from __future__ import annotations

import subprocess
import sys

from packetcore import Address
from packetcore_conformance.peer import DEADLINE


class ServerProcess:
    """Runs `peer_process serve`; `with` waits until it listens, and kills it at the end.

    Args:
        transport: the adapter.
        port: where it listens; 0 takes a free one.
        descriptors: how many it may open once it listens; `None` for as many as this process.
    """

    address: Address
    """Where it listens, from the beginning of the `with` on."""

    def __init__(self, transport: str, port: int = 0, descriptors: int | None = None) -> None:
        limit = [] if descriptors is None else [str(descriptors)]
        command = [sys.executable, "-m", "packetcore_conformance.peer_process", "serve", transport, "tcp", str(port)]
        self._process = subprocess.Popen(
            command + limit, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> tuple[float, float, str]:
        """Have it close and exit in good order.

        Returns:
            How many seconds it has listened, how many of them the processor worked for it, and
            what it wrote to standard error.
        """
        output, errors = self._process.communicate("", timeout=DEADLINE)
        if self._process.returncode:
            raise AssertionError(f"the server exited with {self._process.returncode} and wrote:\n{errors}")
        listened, worked = map(float, output.split())
        return listened, worked, errors

    def kill(self) -> None:
        """End it as `kill -9` does. Idempotent."""
        self._process.kill()
        self._process.wait(DEADLINE)

    def __enter__(self) -> ServerProcess:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            errors = self._process.communicate()[1]
            raise AssertionError(f"the server exited with {self._process.returncode} and wrote:\n{errors}")
        host, port = line.split()
        self.address = (host, int(port))
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()
