"""What `packetcore serve` writes while nobody reads it, and what it does not log."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from packetcore import Packet, encode
from packetcore_cli import _lines
from packetcore_cli._lines import CAPACITY, LINE_COST, Lines, Writer
from packetcore_cli._log import log_event, log_to
from packetcore_cli._terminal import Terminal

DEADLINE = 30.0
NOISY = b"\xfe".join(bytes([n]) * 60 for n in range(12)) + encode(Packet(1, b"hello"))
"""What a session says for which the log has some 3 kB."""

MORE_THAN_A_PIPE_HOLDS = 128 * 1024

each_transport = pytest.mark.parametrize("transport", ["asyncio", "blocking", "gevent", "twisted"])


@contextmanager
def serving(stdout: int, stderr: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `packetcore serve` that writes to two descriptors, closed here."""
    command = [sys.executable, "-m", "packetcore_cli", "serve", *options]
    with subprocess.Popen(command, stdout=stdout, stderr=stderr) as process:
        for descriptor in {stdout, stderr}:
            os.close(descriptor)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def read_until(descriptor: int, pattern: str, *, lines: int = 0) -> str:
    """What is read until there are so many lines, and a pattern of less than 1,000 characters."""
    give_up, read, tail = time.monotonic() + DEADLINE, [""], ""
    while lines > 0 or re.search(pattern, tail) is None:
        assert select.select([descriptor], [], [], give_up - time.monotonic())[0], f"only {tail!r} came"
        read.append(os.read(descriptor, 65536).decode())
        assert read[-1], f"only {tail!r} came"
        tail = tail[-1000:] + read[-1]
        lines -= read[-1].count("\n")
    return "".join(read)


def address_on(descriptor: int) -> tuple[str, int]:
    """Where it listens, as it says."""
    return "127.0.0.1", int(
        re.findall(r"\d+", read_until(descriptor, r"listening on .*\n").partition("127.0.0.1:")[2])[0]
    )


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """Make pipes: where to read, which is closed in the end, and where to write."""
    with ExitStack() as opened:

        def new_pipe() -> tuple[int, int]:
            reading, writing = os.pipe()
            opened.callback(os.close, reading)
            return reading, writing

        yield new_pipe


Pipe = Callable[[], tuple[int, int]]


def say(address: tuple[str, int], data: bytes) -> bytes:
    """Connect, send and end; what comes until the server has ended too."""
    with socket.create_connection(address, DEADLINE) as device:
        device.sendall(data)
        device.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: device.recv(65536), b""))


@each_transport
def test_devices_are_served_and_sigterm_ends_it_while_nobody_reads_the_log(transport: str, pipe: Pipe) -> None:
    (out, to_out), (_, to_err) = pipe(), pipe()
    with serving(to_out, to_err, "--echo", "--transport", transport) as process:
        address = address_on(out)
        for _ in range(MORE_THAN_A_PIPE_HOLDS // 2000):
            assert say(address, NOISY).endswith(encode(Packet(1, b"hello")))
        process.terminate()
        assert process.wait(DEADLINE) == 0


@each_transport
def test_devices_are_served_and_sigterm_ends_it_while_nobody_reads_the_packets(transport: str, pipe: Pipe) -> None:
    (out, to_out), (err, to_err) = pipe(), pipe()
    with serving(to_out, to_err, "--transport", transport) as process:
        address = address_on(out)
        for _ in range(3):
            assert say(address, encode(Packet(1, bytes(64))) * (MORE_THAN_A_PIPE_HOLDS // 200)) == b""
        process.terminate()
        assert process.wait(DEADLINE) == 0
        read_until(err, r"stopped after 3 sessions\n$")  # this one is read, and knows nothing of the other


def test_a_terminal_that_is_held_stops_nobody() -> None:
    controller, terminal = pty.openpty()
    try:
        with serving(terminal, terminal, "--echo") as process:
            address = address_on(controller)
            for _ in range(30):
                assert say(address, NOISY).endswith(encode(Packet(1, b"hello")))
            process.terminate()
            assert process.wait(DEADLINE) == 0
    finally:
        os.close(controller)


def test_a_second_signal_ends_it_at_once_while_nobody_reads(pipe: Pipe) -> None:
    (out, to_out), (_, to_err) = pipe(), pipe()
    with serving(to_out, to_err, "--echo", "--grace", "1000") as process:
        address = address_on(out)
        for _ in range(MORE_THAN_A_PIPE_HOLDS // 2000):
            say(address, NOISY)
        with socket.create_connection(address, DEADLINE) as device:
            device.sendall(encode(Packet(1)))
            assert device.recv(1) == b"\xfe"
            process.terminate()
            while device.recv(64):  # it drains, and waits for this device
                pass
            process.terminate()
            assert process.wait(DEADLINE) == 1


def test_packets_that_found_no_room_are_counted_in_their_place(pipe: Pipe) -> None:
    sent = 2 * CAPACITY // LINE_COST  # each costs more, and so they are more than wait and are written
    (out, to_out), (_, to_err) = pipe(), pipe()
    with serving(to_out, to_err) as process:
        address = address_on(out)
        assert say(address, encode(Packet(1, bytes(64))) * sent) == b""
        printed: set[str] = set()
        told = gaps = 0
        rest = ""
        while told < sent:  # a busy machine may come to a gap more than once
            *lines, rest = (rest + read_until(out, r"\n")).split("\n")
            for line in lines:
                if dropped := re.fullmatch(r"(\d+) lines? dropped: nobody read them", line):
                    gaps, told = gaps + 1, told + int(dropped[1])
                else:
                    printed.add(line)
                    told += 1
        assert (told, rest, len(printed)) == (sent, "", 1)
        assert gaps
        assert say(address, encode(Packet(2))) == b""
        assert read_until(out, r"\n") == "session 2  id 2  type 0  count 1  length 0\n"
        process.terminate()
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize(
    ("form", "gap"),
    [
        (None, r"\d\d:\d\d:\d\d  (\d+) lines? dropped: nobody read them"),
        ("logfmt", r"time=\S+ level=warning event=dropped lines=(\d+)"),
        ("json", r'\{"time": "[^"]+", "level": "warning", "event": "dropped", "lines": (\d+)\}'),
    ],
)
def test_log_lines_that_found_no_room_are_counted_in_their_place(
    form: str | None, gap: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lines, "CAPACITY", 1000 * LINE_COST)
    reading, writing = pipe()
    logged = 10_000
    with os.fdopen(writing, "w") as file, Writer() as writer, log_to(Terminal(file), writer, form):
        for n in range(logged):
            log_event("test", f"line {n}.", number=n)
        told = gaps = 0
        rest = ""
        while told < logged:  # a busy machine may come to a gap more than once
            *lines, rest = (rest + read_until(reading, r"\n")).split("\n")
            for line in lines:
                if dropped := re.fullmatch(gap, line):
                    gaps, told = gaps + 1, told + int(dropped[1])
                    continue
                number = re.search(r'(?:line |number=|number": )(\d+)', line)
                assert number is not None
                assert int(number[1]) == told, "a line is missing, or a gap is told too long or too short"
                told += 1
        assert (told, rest) == (logged, "")
        assert gaps
        log_event("test", "line -1.", number=-1)
        assert "-1" in read_until(reading, r"\n")


def test_what_waits_is_bounded_and_the_end_does_not_wait_for_it() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as file:
        begun = time.monotonic()
        with Writer() as writer:
            lines = Lines(writer, Terminal(file))
            for _ in range(100):
                lines.put("x" * (CAPACITY // 10))
            waiting = sum(len(cell) for _, line in writer._waiting for cell in line)
            assert 0 < waiting <= CAPACITY
        assert time.monotonic() - begun < DEADLINE
        os.close(reading)
        writer._thread.join(DEADLINE)  # else it would write to whatever has its descriptor next
        assert not writer._thread.is_alive()


def test_lines_come_whole_and_in_order_from_every_thread(pipe: Pipe) -> None:
    reading, writing = pipe()
    with os.fdopen(writing, "w") as file, Writer() as writer:
        lines = [Lines(writer, Terminal(file)) for _ in range(4)]

        def put(one: int) -> None:
            for n in range(500):
                lines[one].put((str(one), "bold"), f" {n}")

        threads = [threading.Thread(target=put, args=(one,)) for one in range(4)]
        for thread in threads:
            thread.start()
        read = read_until(reading, r"\n$", lines=2000)
        for thread in threads:
            thread.join()
    for one in range(4):
        assert re.findall(rf"^{one} (\d+)$", read, re.MULTILINE) == [str(n) for n in range(500)]


def test_a_pipe_that_does_not_block_gets_every_line(pipe: Pipe) -> None:
    reading, writing = pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as file, Writer() as writer:
        lines = Lines(writer, Terminal(file))
        for _ in range(1000):
            lines.put("x" * 200)
        read_until(reading, r"\n$", lines=1000)
        assert lines.error is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_full_disk_ends_it_with_one_line(pipe: Pipe) -> None:
    err, to_err = pipe()
    with serving(os.open("/dev/full", os.O_WRONLY), to_err) as process:
        read_until(err, r"packetcore: No space left on device\n$")
        assert process.wait(DEADLINE) == 1


def test_a_log_whose_reader_has_gone_is_no_matter(pipe: Pipe) -> None:
    out, to_out = pipe()
    err, to_err = os.pipe()
    with serving(to_out, to_err, "--echo") as process:
        os.close(err)
        address = address_on(out)
        for _ in range(3):
            assert say(address, NOISY).endswith(encode(Packet(1, b"hello")))
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_standard_error_may_be_closed(pipe: Pipe) -> None:
    out, to_out = pipe()
    command = f'exec "{sys.executable}" -m packetcore_cli serve --echo 2>&-'
    with subprocess.Popen(["/bin/sh", "-c", command], stdout=to_out) as process:
        os.close(to_out)
        try:
            assert say(address_on(out), NOISY).endswith(encode(Packet(1, b"hello")))
            process.terminate()
            assert process.wait(DEADLINE) == 0
        finally:
            process.kill()


def test_one_file_for_both_keeps_the_order_of_all_lines(pipe: Pipe) -> None:
    reading, writing = pipe()
    with serving(writing, writing) as process:
        address = address_on(reading)
        for n in range(1, 21):
            say(address, encode(Packet(n)))
            found = read_until(reading, r"closed, PEER.*\n").splitlines()
            assert [re.sub(r"^\d\d:\d\d:\d\d  ", "", line).partition(" from ")[0][:20] for line in found[:2]] == [
                f"session {n}",
                f"session {n}  id {n}  type 0"[:20],
            ]
        process.terminate()
        assert process.wait(DEADLINE) == 0


def probe(address: tuple[str, int], *, reset: bool) -> None:
    with socket.create_connection(address, DEADLINE) as balancer:
        if reset:
            balancer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@each_transport
def test_a_probe_is_one_line_and_only_where_it_is_asked_for(transport: str, pipe: Pipe) -> None:
    for options, told in (([], 0), (["--verbose"], 2)):
        (out, to_out), (err, to_err) = pipe(), pipe()
        with serving(to_out, to_err, "--echo", "--transport", transport, *options) as process:
            address = address_on(out)
            for reset in (False, True):
                probe(address, reset=reset)
            assert say(address, encode(Packet(1))) == encode(Packet(1))
            process.send_signal(signal.SIGTERM)
            log = read_until(err, r"stopped after .*\n")
            assert process.wait(DEADLINE) == 0
        lines = [line.partition("  ")[2] for line in log.splitlines()]
        probes = [
            line for line in lines if re.search(r" from 127\.0\.0\.1:\d+ closed without a byte, (PEER|RESET)$", line)
        ]
        assert len(probes) == told
        about = [line for line in lines if line.startswith("session ") and line not in probes]
        assert [re.sub(r".*?(from|closed).*", r"\1", line) for line in about] == ["from", "closed"]
        assert re.search(r"; silent: 2(;|$)", lines[-1])


def test_a_session_that_was_silent_until_the_server_ended_it_is_one_line(pipe: Pipe) -> None:
    (out, to_out), (err, to_err) = pipe(), pipe()
    with serving(to_out, to_err, "--idle-timeout", "0.2") as process:
        with socket.create_connection(address_on(out), DEADLINE) as device:
            assert device.recv(1) == b""
        read_until(err, r"session 1 from 127\.0\.0\.1:\d+ closed without a byte, IDLE_TIMEOUT\n")
        process.terminate()
        assert process.wait(DEADLINE) == 0


def test_a_session_that_sent_part_of_a_packet_is_told_of_in_full(pipe: Pipe) -> None:
    (out, to_out), (err, to_err) = pipe(), pipe()
    with serving(to_out, to_err) as process:
        say(address_on(out), encode(Packet(1))[:4])
        log = read_until(err, r"session 1 closed.*\n")
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert re.findall(r"session 1 (from|malformed|closed)", log) == ["from", "malformed", "closed"]
