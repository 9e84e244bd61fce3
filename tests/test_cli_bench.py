"""`packetcore bench`: what it counts, from when it measures, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcore import Driver, Packet, Session, encode, load_driver
from packetcore.framings import SLIP
from packetcore_cli.__main__ import main
from packetcore_conformance.certificates import Certificates
from packetcore_conformance.recorder import Recorder

DEADLINE = 30.0

Run = Callable[..., tuple[int, Any, str]]
Serve = Callable[..., tuple[str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; gives the exit code, what it measured if anything, and what it said of failures."""

    def run(*arguments: object) -> tuple[int, Any, str]:
        code = main(["bench", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err.rstrip()

    return run


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = load_driver("asyncio")
    yield driver
    driver.stop()


def send_back(session: Session[Any], packet: Any) -> None:
    session.send(packet)


@pytest.fixture
def serve(driver: Driver) -> Iterator[Serve]:
    """Starts servers; gives their addresses."""
    servers = []

    def serve(answer: Callable[..., object] = send_back, *, udp: bool = False, **options: Any) -> tuple[str, str]:
        start = driver.start_udp_server if udp else driver.start_server
        servers.append(start(Recorder(packet_received=answer), **options))
        host, port = servers[-1].address[:2]
        return host, str(port)

    yield serve
    for server in servers:
        driver.call(server.close, 0)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def swallow(session: Session, packet: Packet) -> None:
    """Answer nothing."""


def test_every_packet_and_byte_is_counted(run: Run, serve: Serve) -> None:
    got: list[Packet] = []

    def answer(session: Session, packet: Packet) -> None:
        got.append(packet)
        session.send(Packet(8, b"answer"))

    options = ("--connections", "3", "--in-flight", "4", "--packets", "100", "--id", "7", "--data", "question")
    code, measured, err = run(*serve(answer), *options)
    assert (code, err) == (0, "")
    assert got == [Packet(7, b"question")] * 100
    names = ("sent", "answered", "lost", "malformed", "unexpected", "ended", "frame_size")
    assert [measured[name] for name in names] == [100, 100, 0, 0, 0, 0, len(encode(got[0]))]
    assert measured["packets_per_second"] == pytest.approx(100 / measured["seconds"])
    assert measured["bytes_out_per_second"] == pytest.approx(100 * len(encode(got[0])) / measured["seconds"])
    assert measured["bytes_in_per_second"] == pytest.approx(
        100 * len(encode(Packet(8, b"answer"))) / measured["seconds"]
    )
    latency = [measured["latency_ms"][name] for name in ("p50", "p90", "p99", "p99.9", "max")]
    assert latency[0] > 0
    assert latency == sorted(latency)
    assert latency[-1] <= measured["seconds"] * 1000 * 1.001  # the histogram's three places


def test_it_ends_with_the_time(run: Run, serve: Serve) -> None:
    code, measured, _ = run(*serve(), "--seconds", "0.3", "--size", "0")
    assert code == 0
    assert measured["answered"] == measured["sent"] > 0
    assert 0.3 <= measured["seconds"] < DEADLINE


def test_with_a_rate_a_packet_waits_from_when_it_was_due(run: Run, serve: Serve) -> None:
    held: list[Packet] = []

    def answer(session: Session, packet: Packet) -> None:  # the first at once, the others once all are here
        held.append(packet)
        if len(held) in (1, 51):
            for each in held[-50:]:
                session.send(each)

    options = ("--connections", "1", "--rate", "500", "--packets", "51")
    code, measured, _ = run(*serve(answer), *options)
    assert (code, measured["answered"], measured["in_flight"]) == (0, 51, None)
    # The last of them came 98 ms after the second was due, whose reply has waited for all of these.
    assert measured["latency_ms"]["max"] >= 97
    assert measured["latency_ms"]["p50"] >= 45


def test_over_udp_what_is_lost_is_counted_and_no_late_reply_taken_for_another(run: Run, serve: Serve) -> None:
    first: list[tuple[Session, Packet]] = []

    def answer(session: Session, packet: Packet) -> None:
        if not first:
            first.append((session, packet))
            return
        first[0][0].send(first[0][1])  # too late
        session.send(packet)

    options = ("--udp", "--connections", "1", "--packets", "5", "--timeout", "1")
    code, measured, err = run(*serve(answer, udp=True), *options)
    assert (code, err) == (0, "")
    assert [measured[name] for name in ("sent", "answered", "lost", "unexpected")] == [5, 4, 1, 0]


def test_tls_and_framings_are_spoken(run: Run, serve: Serve, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    authority = str(certificates.client.authority)
    secured = serve(tls=certificates.server)
    assert run(*secured, "--packets", "20", "--tls-ca", authority)[1]["answered"] == 20
    code, measured, err = run(*secured, "--tls")
    assert (code, measured) == (1, None)
    assert err.startswith(f"packetcore: cannot connect to {':'.join(secured)}: certificate not trusted: ")
    framed = serve(framing=SLIP())
    measured = run(*framed, "--packets", "20", "--framing", "slip", "--hex", "c0")[1]
    assert (measured["answered"], measured["frame_size"]) == (20, len(SLIP().encode(b"\xc0")))


def test_a_server_that_does_not_do_its_part_is_told(run: Run, serve: Serve, unused_port: int) -> None:
    code, measured, err = run("127.0.0.1", unused_port)
    assert (code, measured) == (1, None)
    assert err == f"packetcore: cannot connect to 127.0.0.1:{unused_port}: Connection refused"

    silent = serve(swallow)
    code, measured, err = run(*silent, "--timeout", "0.2", "--connections", "2")
    assert (code, measured) == (1, None)
    assert err == f"packetcore: {':'.join(silent)} replied to none of 2 packets within 0.2 s"

    count = iter(range(100))
    forgetful = serve(lambda session, packet: next(count) < 5 and session.send(packet))
    code, measured, err = run(*forgetful, "--timeout", "1", "--connections", "1")
    assert (code, measured["answered"]) == (1, 5)
    assert err == f"packetcore: {':'.join(forgetful)} did not reply to 1 packet within 1 s"

    closing = serve(lambda session, packet: session.close())
    code, measured, err = run(*closing, "--connections", "2")
    assert (code, measured) == (1, None)
    assert err == f"packetcore: 2 connections of 2 to {':'.join(closing)} ended before the time: closed by the server"


def test_over_udp_it_ends_where_what_was_sent_is_refused_and_other_sockets_wait_for_nothing(
    run: Run, unused_port: int
) -> None:
    code, measured, err = run("127.0.0.1", unused_port, "--udp", "--packets", "1")
    assert (code, measured) == (1, None)
    assert err == f"packetcore: cannot send to 127.0.0.1:{unused_port}: Connection refused"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--connections 0", 1, "connections=0 is out of range 1 to 10000"),
        ("--packets 0", 1, "packets=0 is out of range 1 to 1000000000"),
        ("--seconds 0", 1, "seconds=0 is out of range above 0 to 3600"),
        ("--rate 1e9", 1, "rate=1e+09 is out of range above 0 to 1e+06"),
        ("--timeout 0", 1, "timeout=0 is not possible: there has to be an end"),
        ("--size 9 --max-payload 8", 1, "size=9 is out of range 0 to max_payload=8"),
        ("--udp --in-flight 2", 1, "in_flight=2 is not possible over UDP, where replies overtake each other"),
        ("--id 70000", 1, "id=70000 is out of range 0 to 65535"),
        ("--rate 5 --in-flight 2", 2, "argument --in-flight: not allowed with argument --rate"),
        ("--size 3 --data abc", 2, "argument --size: not allowed with a payload that is given"),
        ("--udp --tls", 2, "argument --tls: not allowed with argument --udp"),
        ("--framing slip --id 1", 2, "argument --id: not allowed with argument --framing"),
    ],
)
def test_what_makes_no_sense_is_told(options: str, code: int, said: str, run: Run) -> None:
    found, measured, err = run("127.0.0.1", "1", *options.split())
    assert (found, measured) == (code, None)
    assert err.startswith(f"packetcore: {said}")


def test_without_its_extra_it_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    missing = "packetcore: bench needs hdrhistogram: pip install 'packetcore-cli[bench]'"
    assert run("127.0.0.1", "1") == (1, None, missing)


def test_ctrl_c_ends_it_with_what_was_measured_and_a_terminal_sees_a_bar(serve: Serve) -> None:
    has_begun = threading.Event()

    def answer(session: Session, packet: Packet) -> None:
        session.send(packet)
        has_begun.set()

    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "packetcore_cli", "bench", *serve(answer), "--json", "--seconds", "3000"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment, text=True) as process:
        os.close(terminal)
        try:
            assert has_begun.wait(DEADLINE)
            shown = b""
            while b"answered" not in shown:
                shown += os.read(controller, 65536)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
            os.close(controller)
    measured = json.loads(out)
    assert (process.returncode, measured["interrupted"]) == (130, True)
    assert measured["answered"] > 0
