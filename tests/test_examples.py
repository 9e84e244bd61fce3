"""Every example runs on its own, ends by itself and prints what its docstring promises."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

METER = """
        sum so far: 20
        sum so far: 41
        sum so far: 64
        session 1 left: PEER, sum 64
    """

ECHO = """
        server: connected to 127.0.0.1
        client: connected to 127.0.0.1
        client: sent 16 bytes
        server: received b'hello' with id 0x10
        server: sent 16 bytes
        client: received b'hello' with id 0x10
        server: disconnected, PEER: the peer closed it
        client: disconnected, LOCAL: this side closed it
    """

EXPECTED = {
    "any_transport.py asyncio": METER,
    "any_transport.py blocking": METER,
    "any_transport.py gevent": METER,
    "any_transport.py twisted": METER,
    "connection_pool.py": """
        squares: 1 4 9 16 25 36 49 64 81 100
        opened 2, used again 8 times, waited for 8 times
        changed its mind, with a reply on its way: 1 closed, 1 idle
    """,
    "echo_asyncio.py": ECHO,
    "echo_blocking.py": ECHO,
    "echo_gevent.py": ECHO,
    "echo_twisted.py": ECHO,
    "fuzzing_a_handler.py": """
        the gateway stands every stream
        one that trusts its peers does not
    """,
    "identity.py": """
        gateway: meter 7 is session 1, over TCP
        meter: told to sleep by cable
        gateway: meter 7 is session 2, over UDP
        meter: told to wake up by radio
        gateway: session 1 of meter 7 is over, REPLACED
        gateway: session 1 is None; it counts 1 session
        gateway: session 2 of meter 7 is over, SHUTDOWN
    """,
    "metrics.py": """
        packetcore_sessions{endpoint="gateway"} 1.0
        packetcore_sessions_opened_total{endpoint="gateway"} 1.0
        packetcore_packets_received_total{endpoint="gateway"} 3.0
        packetcore_packets_sent_total{endpoint="gateway"} 3.0
        packetcore_received_bytes_total{endpoint="gateway"} 48.0
        packetcore_sent_bytes_total{endpoint="gateway"} 48.0
        packetcore_pool_connections{pool="gateway",state="idle"} 1.0
        packetcore_pool_opened_total{pool="gateway"} 1.0
        packetcore_pool_reused_total{pool="gateway"} 2.0
    """,
    "own_runtime.py": """
        server: packet 1 b'hello'
        client: packet 1 b'you said hello'
        server: the peer has finished sending
        server: closed, PEER: the peer closed it
        client: closed, LOCAL: this side closed it
    """,
    "receive_buffer.py": """
        payload 010304fe01fd02 encodes to fe001000000100000007010304fd0101fd0202fe
        7 bytes came: 0 complete, 6 bytes wait for more
        23 bytes came: 1 complete, 9 bytes wait for more
        packet with id 0x10 and payload 010304fe01fd02
        10 bytes came: 1 complete, 0 bytes wait for more
        packet with id 0x10 and payload 010304fe01fd02
    """,
    "reconnect.py": """
        client: connection 1
        server: reading 20
        client: connection 1 lost, PEER
        client: reading 23 refused: not connected, and keep=2 packets are kept already
        client: connection 2
        server: reading 21
        server: reading 22
        client: connection 2 lost, LOCAL
    """,
    "request_reply.py": """
        mains: 230 V
        battery: 12 V
        look-up 9: 9 found
        look-up 8: 8 found
        look-up 7: 7 found
        temperature: 21
        pressure: no reply to request 1002 came within timeout=0.2 s
        news: a door was opened
    """,
    "session_pool.py": """
        inserted with id 1; the pool counts 1
        found by its id: True; by its identity: True
        1040 s: refreshed: True; expires at 1100 s
        1080 s: 0 expired; the pool counts 1
        1120 s: the session with 127.0.0.1 expired; the pool counts 0
        refreshed once it has gone: False
    """,
    "stream_asyncio.py": """
        server: b'hello'
        server: b'good-bye'
        client: b'HELLO'
        client: b'GOOD-BYE'
        server: the client has finished
    """,
    "testing_a_handler.py": """
        a reading is kept and confirmed
        who does not log in is not heard
        a device that comes back replaces its old session
        a silent device is given up after a minute
    """,
    "udp_discovery.py": """
        found: lamp, meter
        meter was greeted
    """,
    "udp_telemetry.py": """
        server: device 7 reads 20 in session 1
        device 7: told to sleep
        server: device 7 reads 23 in session 2
        server: session 1 of device 7 is over, REPLACED
        device 7: told to wake up
        server: session 2 of device 7 is over, IDLE_TIMEOUT
        the last reading of device 7 was 23
    """,
}
"""What each example prints. Where two sides print, only the order within each is fixed."""

STRICT = ["-W", "error", "-X", "dev"]

NOT_OURS = re.compile(r"Executing .* took [\d.]+ seconds|.*'/dev/null'")
"""What asyncio's debug mode says on a machine that is busy, and of the descriptor that
Twisted keeps in reserve and never closes."""


def by_side(output: str) -> dict[str, list[str]]:
    """The lines of an output, those of the server and of the client apart."""
    sides: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, output.splitlines())):
        side, colon, _ = line.partition(":")
        sides.setdefault(side if colon and side in ("server", "client") else "", []).append(line)
    return sides


def test_no_example_is_forgotten() -> None:
    files = {path.name for path in EXAMPLES.glob("*.py")}
    folders = {path.parent.name for path in EXAMPLES.glob("*/README.md")} | {"browser"}
    assert files == {command.split()[0] for command in EXPECTED}
    listed = re.findall(r"^\| \[`(.*?)/?`\]", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(files | folders)


@pytest.mark.parametrize("command", sorted(EXPECTED))
def test_an_example_says_what_it_shows_and_shows_it(command: str) -> None:
    name, *arguments = command.split()
    path = EXAMPLES / name
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    run = subprocess.run(
        [sys.executable, *STRICT, path, *arguments], capture_output=True, text=True, timeout=30, check=False
    )

    complaints = [line for line in run.stderr.splitlines() if not NOT_OURS.match(line)]
    assert (run.returncode, complaints) == (0, [])
    assert by_side(run.stdout) == by_side(EXPECTED[command])
