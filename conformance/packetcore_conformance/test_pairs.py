"""Pairs.

Each adapter as a server, each as a client, every one in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from packetcore_conformance.peer import DEADLINE

MODULE = [sys.executable, "-m", "packetcore_conformance.peer_process"]


@cache
def capabilities(transport: str) -> list[str]:
    """What an adapter says that it can do, in a process of its own."""
    command = [*MODULE, "capabilities", transport]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout.split()


def expect_success(code: int, errors: str) -> None:
    """Fail with the whole of what a process wrote to standard error: a comparison would cut it."""
    if code or errors:
        pytest.fail(f"the process exited with {code} and wrote:\n{errors}", pytrace=False)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_client_of_one_adapter_talks_to_a_server_of_another(
    transport: str, other_transport: str, protocol: str
) -> None:
    for name in (transport, other_transport):
        if protocol not in capabilities(name):
            pytest.skip(f"{name} says that it has no {protocol.upper()}")
    with subprocess.Popen(
        [*MODULE, "serve", transport, protocol],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            host, port = server.stdout.readline().split()
            client = subprocess.run(
                [*MODULE, "talk", other_transport, protocol, host, port],
                capture_output=True,
                text=True,
                timeout=2 * DEADLINE,
                check=False,
            )
            expect_success(client.returncode, client.stderr)
            _, errors = server.communicate("", timeout=DEADLINE)
            expect_success(server.returncode, errors)
        finally:
            server.kill()
