"""What machines see of `packetcore serve`: its metrics and its log."""

from __future__ import annotations

import json
import logging
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from packetcore import Packet, encode
from packetcore_cli.__main__ import main
from packetcore_cli._lines import Writer
from packetcore_cli._log import LOG_FORMS, log_to
from packetcore_cli._terminal import Terminal

DEADLINE = 30.0
ECHOED = encode(Packet(7, b"hello"))

each_transport = pytest.mark.parametrize("transport", ["asyncio", "blocking", "gevent", "twisted"])


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A `packetcore serve --echo` that listens, and where."""
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--echo", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on 127.0.0.1:")
            yield process, ("127.0.0.1", int(line.rpartition(":")[2]))
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def log_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def echo_once(device: socket.socket, noise: bytes = b"") -> None:
    device.settimeout(DEADLINE)
    device.sendall(noise + ECHOED)
    received = b""
    while len(received) < len(ECHOED):
        received += device.recv(64)
    assert received == ECHOED


def scrape(url: str) -> dict[str, float]:
    """The samples that are not 0."""
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=DEADLINE)
    try:
        connection.request("GET", where.path)
        response = connection.getresponse()
        assert response.status == 200
        text = response.read().decode()
    finally:
        connection.close()
    samples = [sample for metric in parse(text) for sample in metric.samples if sample.value]
    return {
        " ".join([sample.name, *(sample.labels[key] for key in sorted(sample.labels))]): sample.value
        for sample in samples
    }


@each_transport
def test_metrics_are_served_until_the_server_ends(transport: str) -> None:
    options = ["--metrics-port", "0", "--grace", "20", "--transport", transport]
    with serving(*options) as (process, address), socket.create_connection(address, DEADLINE) as device:
        found = re.search(r"metrics on (http://127\.0\.0\.1:\d+/metrics)$", log_line(process))
        assert found is not None
        echo_once(device, noise=b"noise")
        assert scrape(found[1]) == {
            "packetcore_sessions serve": 1,
            "packetcore_sessions_opened_total serve": 1,
            "packetcore_packets_received_total serve": 1,
            "packetcore_packets_sent_total serve": 1,
            "packetcore_received_bytes_total serve": len(ECHOED) + 5,
            "packetcore_sent_bytes_total serve": len(ECHOED),
            "packetcore_malformed_total serve noise": 1,
        }
        process.send_signal(signal.SIGTERM)
        assert device.recv(1) == b""
        assert scrape(found[1])["packetcore_sessions serve"] == 1  # while it drains too
        device.close()
        assert process.wait(DEADLINE) == 0
        with pytest.raises(ConnectionRefusedError):
            scrape(found[1])


def test_a_second_signal_does_not_wait_for_a_scrape() -> None:
    with serving("--metrics-port", "0", "--grace", "1000") as (process, address):
        url = urlsplit(log_line(process).split()[-1])
        with socket.create_connection(address, DEADLINE) as device:
            echo_once(device)
            with socket.create_connection((url.hostname, url.port or 0), DEADLINE) as silent:
                silent.sendall(b"GET /metr")
                process.send_signal(signal.SIGINT)
                assert device.recv(1) == b""
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "Traceback" not in err


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str]]:
    """Run a command that is to fail before it serves: its exit code and its one line."""

    def fail(arguments: str) -> tuple[int, str]:
        code = main(arguments.split())
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"packetcore: [^\n]+\n", err)
        return code, err.removeprefix("packetcore: ").rstrip()

    return fail


def test_a_metrics_port_in_use_is_one_line(fail: Callable[[str], tuple[int, str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        reason = f"cannot serve metrics on 127.0.0.1:{port}: Address already in use"
        assert fail(f"serve --metrics-port {port}") == (1, reason)


def test_metrics_without_prometheus_client_are_one_line(
    fail: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    reason = "--metrics-port needs prometheus-client: pip install 'packetcore-cli[metrics]'"
    assert fail("serve --metrics-port 0") == (1, reason)


@pytest.mark.parametrize("form", ["logfmt", "json"])
@each_transport
def test_the_log_names_session_and_peer_in_every_line_about_one(transport: str, form: str) -> None:
    with serving("--log", form, "--transport", transport) as (process, address):
        with socket.create_connection(address, DEADLINE) as device:
            peer = "{}:{}".format(*device.getsockname())
            echo_once(device, noise=b'a "b" = c\n')
            device.shutdown(socket.SHUT_WR)
            assert device.recv(1) == b""
        records = [read(form, log_line(process)) for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE)
    records += [read(form, line) for line in err.splitlines()]
    for record in records:
        assert datetime.fromisoformat(record.pop("time").replace("Z", "+00:00")).tzinfo is not None
    counted = {"packets_received": "1", "packets_sent": "1", "malformed": "1", "dropped": "0"}
    volume = {"bytes_received": str(len(ECHOED) + 10), "bytes_sent": str(len(ECHOED))}
    about = {"session": "1", "peer": peer}
    noise = {"reason": "NOISE", "size": "10", "sample": b'a "b" = c\n'.hex()}
    amiss = {"silent": "0", "refused": "0", "malformed": "1", "errors": "0"}
    assert records == [
        {"level": "info", "event": "opened", **about},
        {"level": "warning", "event": "malformed", **about, **noise},
        {"level": "info", "event": "closed", **about, "reason": "PEER", **counted, **volume},
        {"level": "info", "event": "draining", "sessions": "0", "grace": "5" if form == "logfmt" else "5.0"},
        {"level": "info", "event": "stopped", "sessions": "1", **amiss},
    ]


def read(form: str, line: str) -> dict[str, str]:
    """The fields of a line, as text."""
    if form == "json":
        return {name: str(value) for name, value in json.loads(line).items()}
    return dict(field.split("=", 1) for field in shlex.split(line))


def test_what_others_log_stays_one_line_that_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    awkward = 'a "b"\n= \\ ü'
    for form in LOG_FORMS:
        with Writer() as writer, log_to(Terminal(sys.stderr), writer, form):
            try:
                raise OSError(awkward)
            except OSError:
                logging.getLogger("other").exception(awkward, extra={"peer": ("::1", 7), "identity": awkward})
    logfmt, as_json = capsys.readouterr().err.splitlines()
    expected = {"message": awkward, "peer": "[::1]:7", "identity": awkward, "error": f"OSError: {awkward}"}
    record = json.loads(as_json)
    assert record == {"time": record["time"], "level": "error", **expected}
    fields = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', logfmt)
    assert {name: json.loads(value) for name, value in fields if value.startswith('"')} == {
        name: value for name, value in expected.items() if name != "peer"
    }
    assert ("peer", "[::1]:7") in fields
