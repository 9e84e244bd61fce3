"""Pairs.

Each adapter as a server, each as a client, every one in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

from packetcore_conformance.peer import DEADLINE

MODULE = [sys.executable, "-m", "packetcore_conformance.peer_process"]


def test_a_client_of_one_adapter_talks_to_a_server_of_another(transport: str, other_transport: str) -> None:
    with subprocess.Popen(
        [*MODULE, "serve", transport], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            host, port = server.stdout.readline().split()
            client = subprocess.run(
                [*MODULE, "talk", other_transport, host, port],
                capture_output=True,
                text=True,
                timeout=2 * DEADLINE,
                check=False,
            )
            assert (client.returncode, client.stderr) == (0, "")
            _, errors = server.communicate("", timeout=DEADLINE)
            assert (server.returncode, errors) == (0, "")
        finally:
            server.kill()
