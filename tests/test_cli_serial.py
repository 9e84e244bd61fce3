"""`packetcore serve --serial` and `packetcore send --serial`, on pseudo-terminals."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packetcore import Packet, encode
from packetcore.framings import COBS
from packetcore_conformance.serial_peer import Cable, SerialPeer
from tests.cli_process import DEADLINE, failing, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no serial lines on Windows")

PING = encode(Packet(1, b"ping"))


@pytest.fixture
def peer() -> Iterator[SerialPeer]:
    peer = SerialPeer()
    yield peer
    peer.close()


def send(*options: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "packetcore_cli", "send", *options]
    return subprocess.run(run, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_serve_prints_what_comes_until_a_signal(peer: SerialPeer) -> None:
    with serving("--serial", peer.device, "--baudrate", "9600") as server:
        assert server.first_line == f"listening on {peer.device} at 9600 baud"
        peer.send(PING)
        assert server.process.stdout is not None
        assert "ping" in server.process.stdout.readline()
        assert server.end() == 0
        assert server.wait_log("session 1 closed, LOCAL")
        assert server.wait_log("stopped after 1 session")


def test_serve_ends_with_the_line(peer: SerialPeer) -> None:
    with serving("--serial", peer.device, "--echo") as server:
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
        peer.pull()
        assert server.process.wait(DEADLINE) == 1
        server.wait_log("the line ended, RESET")


def test_send_prints_the_replies_of_another_over_a_framing() -> None:
    cable = Cable()
    try:
        with serving("--serial", cable.devices[0], "--framing", "cobs", "--echo") as server:
            sent = send("--serial", cable.devices[1], "--framing", "cobs", "--data", "how are you")
            assert (sent.returncode, sent.stderr) == (0, "")
            assert "how are you" in sent.stdout
            assert server.end(signal.SIGINT) == 0
    finally:
        cable.close()
    assert COBS().encode(b"x") == b"\x02x\x00"


def test_a_line_that_cannot_be_opened_is_one_line_of_why(tmp_path: Path, peer: SerialPeer) -> None:
    nowhere, plain = str(tmp_path / "nowhere"), tmp_path / "plain"
    plain.touch()
    reason = f"packetcore: cannot open {nowhere!r}: No such file or directory"
    assert failing("--serial", nowhere) == (1, reason)
    sent = send("--serial", nowhere, "--id", "1")
    assert (sent.returncode, sent.stderr) == (1, reason + "\n")
    assert send("--serial", str(plain), "--id", "1").stderr.startswith(f"packetcore: cannot open '{plain}': ")
    assert send("--serial", peer.device, "--id", "1", "--baudrate", "-5").stderr.startswith("packetcore: cannot open")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("serve", "--serial", "x", "--udp"), "argument --udp: not allowed with argument --serial"),
        (("serve", "--serial", "x", "--port", "0"), "argument --port: not allowed with argument --serial"),
        (("serve", "--baudrate", "9600"), "argument --baudrate: needs argument --serial"),
        (("send", "--serial", "x", "--id", "1", "--tls"), "argument --tls: not allowed with argument --serial"),
        (("send", "h", "1", "--serial", "x", "--id", "1"), "argument --serial: not allowed with HOST and PORT"),
        (("send", "--id", "1"), "the following arguments are required: HOST, PORT"),
    ],
)
def test_what_makes_no_sense_together_is_wrong_usage(options: tuple[str, ...], message: str) -> None:
    run = [sys.executable, "-m", "packetcore_cli", *options]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"packetcore: {message}")
