"""A worker of a cluster in a process of its own, which a test may kill or pause.

    python -m tests.cluster_worker URL NAME LEASE

It says in lines of JSON where it listens, and to each line that it is sent what it holds and what it knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from packetcore import Config, Handler, Packet, Session
from packetcore_asyncio import serve
from packetcore_cluster import Cluster
from tests.cluster_broker import PATIENCE

ROOT = Path(__file__).resolve().parent.parent


class Gateway(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())


def say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(url: str, name: str, lease: float) -> None:
    config = Config(close_timeout=0.2, idle_timeout=None)
    async with (
        Cluster(url, "faults", worker=name, lease=lease) as cluster,
        await serve(Gateway(), config=config, sessions=cluster.sessions) as server,
    ):
        say({"port": server.address[1], "worker": cluster.worker})
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while await lines.readline():
            held = [session.identity for session in cluster.sessions if session.is_open and session.identity]
            known = {str(place.identity): place.worker async for place in cluster.where()}
            say({"held": held, "known": known, "pending": cluster.stats.pending, "connected": cluster.is_connected})


class WorkerProcess:
    """The same, as seen by a test."""

    def __init__(self, url: str, name: str, lease: float) -> None:
        command = [sys.executable, "-m", "tests.cluster_worker", url, name, str(lease)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        said = self._line()
        self.port: int = said["port"]
        self.worker: str = said["worker"]
        self.is_alive = True

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def ask(self) -> dict[str, Any]:
        """What it holds, and what it knows."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it with no chance to say goodbye."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait(PATIENCE)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
        self.is_alive = False

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        return line


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
