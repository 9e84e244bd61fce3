"""`packetcore tap`: what it prints, how it misbehaves, what it records and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from packetcore import Driver, Packet, encode, load_driver
from packetcore.framings import SLIP
from packetcore_cli.__main__ import main
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.datagram_peer import DatagramPeer
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import echo
from packetcore_tap import Chunk, hear

PING = encode(Packet(1, b"\xfeping"))


class Tapping:
    """A `packetcore tap` that listens. Every wait has a deadline.

    Args:
        process: with pipes for what it reads and writes.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.address = (
            "127.0.0.1",
            int(self.wait(r"^listening on 127\.0\.0\.1:\d+, target ").split(":")[1].split(",")[0]),
        )

    def wait(self, pattern: str) -> str:
        """Wait until it has printed a line that holds a pattern; give the first."""

        def found() -> list[str]:
            return [line for line in self._lines if re.search(pattern, line)]

        with self._changed:
            assert self._changed.wait_for(found, DEADLINE), (pattern, self._lines)
            return found()[0]

    def say(self, command: str) -> str:
        """Type a command; what it replies."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.wait(f"^(done: {command}|not done: )")

    def end(self, number: signal.Signals = signal.SIGINT) -> list[str]:
        """End it; all lines that it has printed, without the time."""
        self.process.send_signal(number)
        assert self.process.wait(DEADLINE) == 0
        self._reading.join(DEADLINE)
        return [re.sub(r"^\d\d:\d\d:\d\d\.\d{3}  ", "", line) for line in self._lines]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line.rstrip())
                self._changed.notify_all()


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "packetcore_cli", "tap", *options]


@contextmanager
def tapping(target: Sequence[object], *options: str, stdin: int = subprocess.PIPE) -> Iterator[Tapping]:
    """Run it on a free port until the end of the block."""
    run = command("0", f"{target[0]}:{target[1]}", *options)
    process = subprocess.Popen(run, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            yield Tapping(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = load_driver("blocking")
    yield driver
    driver.stop()


def test_packets_are_lines_and_what_is_malformed_a_dump(driver: Driver) -> None:
    server = driver.start_server(echo())
    with tapping(server.address) as tap:
        peer = Peer.connect(tap.address)
        here = "{}:{}".format(*peer.sock.getsockname())
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
        peer.send(b"\xfe\x00\x10\xfd\x07\x00\xfe")
        peer.finish()
        assert peer.receive_rest() == b""
        peer.close()
        tap.wait("closed")
        lines = tap.end()
    assert lines[1:] == [
        f"#1     opened    from {here}",
        "#1  -> packet    id 1  type 0  count 1  length 5  payload fe 70 69 6e 67",
        "#1  <- packet    id 1  type 0  count 1  length 5  payload fe 70 69 6e 67",
        "#1  -> malformed BAD_ESCAPE  5 bytes",
        "               0000  id       00 10  16 (0x10)",
        "               0002  escape   fd 07  bad: neither 01 nor 02 follows",
        "               0004  count    00",
        "                     ^ BAD_ESCAPE: an escape byte that no code follows",
        "#1  -> end       nothing more comes",
        "#1  <- end       nothing more comes",
        "#1     closed    both sides have finished; "
        "to server: 1 packet, 24 bytes, 1 malformed; to client: 1 packet, 17 bytes",
        "stopped after 1 connection; to server: 1 packet, 24 bytes, 1 malformed; to client: 1 packet, 17 bytes",
    ]
    driver.call(server.close, 0)


def test_each_byte_is_shown_or_no_packet_at_all(driver: Driver) -> None:
    server = driver.start_server(echo(), framing=SLIP())
    for option, shown in (("--dump", True), ("--quiet", False)):
        with tapping(server.address, "--framing", "slip", option) as tap:
            peer = Peer.connect(tap.address)
            peer.send(SLIP().encode(b"\xc0hi"))
            peer.receive(len(SLIP().encode(b"\xc0hi")))
            peer.close()
            tap.wait("closed")
            lines = tap.end()
        assert any("frame     length 3" in line for line in lines) is shown
        assert ("               0000  frame    c0 db dc 68 69 c0  ...hi." in lines) is shown
    driver.call(server.close, 0)


def test_what_is_malformed_again_and_again_is_only_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, tapping(listener.getsockname()) as tap:
        peer = Peer.connect(tap.address)
        peer.send(b"\xfea" * 1000 + b"\xfe")
        peer.finish()
        tap.wait("-> end")
        lines = tap.end()
        peer.close()
    assert sum("malformed TOO_SHORT" in line for line in lines) == 10
    assert sum("malformed more, from here on only counted" in line for line in lines) == 1
    assert ", 1000 malformed; to client" in lines[-1]


def test_tls_is_one_line(driver: Driver, certificates: Certificates) -> None:
    server = driver.start_server(echo(), tls=certificates.server)
    with tapping(server.address) as tap:
        peer = Peer.connect(tap.address, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
        peer.close()
        tap.wait("closed")
        lines = tap.end(signal.SIGTERM)
    assert "#1     encrypted the client speaks TLS: it passes, and packets are not seen" in lines
    assert not [line for line in lines if re.search("malformed|packet  ", line)]
    driver.call(server.close, 0)


def test_it_misbehaves_as_told_on_the_command_line_and_by_commands(driver: Driver) -> None:
    server = driver.start_server(echo())
    options = ["--cut", "2", "--latency", "0.01", "--close-after", "25B", "--direction", "to-server", "--interactive"]
    with tapping(server.address, *options) as tap:
        peer = Peer.connect(tap.address)
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
        assert tap.say("cut none") == "done: cut none"
        assert tap.say("stall") == "done: stall"
        peer.send(PING)
        assert tap.say("resume to-server") == "done: resume to-server"
        assert tap.say("resume to-client") == "done: resume to-client"
        assert peer.receive_rest() == b""
        assert tap.say("refuse") == "done: refuse"
        with pytest.raises(ConnectionRefusedError):
            Peer.connect(tap.address)
        assert tap.say("accept") == "done: accept"
        again = Peer.connect(tap.address)
        again.send(PING)
        assert again.receive(len(PING)) == PING
        assert tap.say("clear") == "done: clear"
        assert tap.say("reset") == "done: reset"
        with pytest.raises(ConnectionResetError):
            again.receive(1)
        again.close()
        assert tap.say("black-hole") == "done: black-hole"
        peer.close()
        assert "-> malformed TRUNCATED  7 bytes" in tap.wait("TRUNCATED")
        assert tap.say("latency -1") == "not done: latency=-1.0 must not be below 0"
        assert tap.process.stdin is not None
        tap.process.stdin.write("latency slow\ncut 2.5\nloss 1\n")
        tap.process.stdin.flush()
        for why in ("'slow' is not a number", "'2.5' is not an integer", "TCP has no loss"):
            tap.wait(f"^not done: {why}$")
        tap.process.stdin.write("quit")
        tap.process.stdin.close()  # the last line need not have an end
        assert tap.process.wait(DEADLINE) == 0
    driver.call(server.close, 0)


def test_where_commands_cannot_be_read_that_is_told_and_the_tap_goes_on(tmp_path: Path) -> None:
    with (
        (tmp_path / "only-written").open("w") as stdin,
        socket.create_server(("127.0.0.1", 0)) as server,
        tapping(server.getsockname(), "--interactive", stdin=stdin.fileno()) as tap,
    ):
        tap.wait("^no more commands, standard input cannot be read: Bad file descriptor$")
        Peer.connect(tap.address).close()
        tap.wait("opened")


def test_datagrams_pass_too() -> None:
    server = DatagramPeer()
    with tapping(server.address, "--udp", "--duplication", "1", "--direction", "to-server") as tap:
        client = DatagramPeer(tap.address)
        client.send(PING)
        data, address = server.receive_from()
        assert (data, server.receive()) == (PING, PING)
        server.send_to(PING, address)
        assert client.receive() == PING
        tap.wait("<- packet")
        client.close()
        lines = tap.end()
    server.close()
    assert lines[-1] == "stopped after 1 connection; to server: 2 packets, 34 bytes; to client: 1 packet, 17 bytes"


def test_what_passes_is_recorded(driver: Driver, tmp_path: Path) -> None:
    server = driver.start_server(echo())
    path = tmp_path / "tap.pcapng"
    with tapping(server.address, "--record", str(path)) as tap:
        peer = Peer.connect(tap.address)
        here = peer.sock.getsockname()
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
        peer.close()
        tap.wait("closed")
        tap.end()
    driver.call(server.close, 0)
    with path.open("rb") as file:
        heard = [each for each in hear(file) if isinstance(each, Chunk)]
    assert [(each.sender.value, each.data) for each in heard] == [("client", PING), ("server", PING)]
    shown = subprocess.run(
        [sys.executable, "-m", "packetcore_cli", "replay", str(path)], capture_output=True, text=True, timeout=DEADLINE
    )
    assert "{}:{}".format(*here) in shown.stdout


def test_what_cannot_be_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(*options: str) -> tuple[int, str]:
        code = main(["tap", *options])
        out, err = capsys.readouterr()
        assert out == ""
        return code, err.removeprefix("packetcore: ").rstrip()

    see = "(see packetcore tap --help)"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        in_use = f"cannot tap: listening on 127.0.0.1 port {port}: Address already in use"
        assert failing(port, "7") == (1, in_use)
    for options, code, said in (
        (("1", "2", "--corrupt", "2"), 1, "corrupt=2.0 must be from 0 to 1"),
        (("1", "0"), 1, "port=0 of TARGET is out of range 1 to 65535"),
        (("70000", "2"), 1, "port=70000 is out of range 0 to 65535"),
        (("1", "2", "--loss", "0.1"), 2, f"argument --loss: needs argument --udp {see}"),
        (("1", "2", "--udp", "--cut", "3"), 2, f"argument --cut: not allowed with argument --udp {see}"),
        (
            ("1", "2", "--reset-after", "5"),
            2,
            f"argument --reset-after: '5' is neither a time, as 5s or 200ms, nor a number of bytes, as 4096B {see}",
        ),
        (
            ("::1:7000", "2"),
            2,
            "argument LISTEN: '::1:7000' is none of PORT, HOST:PORT and [HOST]:PORT: "
            f"an IPv6 address stands in brackets {see}",
        ),
        (("1", "2", "--record-keep", "2"), 2, f"argument --record-keep: needs argument --record {see}"),
    ):
        assert failing(*options) == (code, said)


def test_it_ends_when_nobody_reads_what_it_prints(driver: Driver) -> None:
    server = driver.start_server(echo())
    run = command("0", "{}:{}".format(*server.address[:2]))
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(":")[1].split(",")[0])
        process.stdout.close()
        peer = Peer.connect(("127.0.0.1", port))
        try:
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()
        peer.close()
    driver.call(server.close, 0)
