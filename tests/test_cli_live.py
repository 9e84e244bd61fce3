"""The table that `packetcore serve` shows in a terminal, and where it shows none."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from rich.console import Console

from packetcore import CloseReason, Endpoint, Handler, Packet, Session, encode
from packetcore_cli._lines import Lines, Writer
from packetcore_cli._printed import LONGEST, prints_to
from packetcore_cli._sampler import Sampler
from packetcore_cli._seen import Row
from packetcore_cli._table import table_of
from packetcore_cli._terminal import Terminal
from tests.made_up_host import MadeUpHost

DEADLINE = 30.0
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")
ERASED = "\x1b[2K"
"""What comes before a table is drawn anew."""


class Screen:
    """A `packetcore serve` on a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.text = ""
        self._descriptor = descriptor

    def read(self, until: Callable[[str], object]) -> str:
        """Read until the text so far is as it should be."""
        give_up = time.monotonic() + DEADLINE
        while not until(self.text):
            assert select.select([self._descriptor], [], [], give_up - time.monotonic())[0], self.text
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # the other end is closed
                data = b""
            assert data, f"it ended: {self.text}"
            self.text += data.decode()
        return self.text

    def connect(self) -> socket.socket:
        listening = re.compile(r"listening on 127\.0\.0\.1:(\d+)\n")
        where = listening.search(CONTROL.sub("", self.read(lambda text: listening.search(CONTROL.sub("", text)))))
        assert where is not None
        return socket.create_connection(("127.0.0.1", int(where[1])), DEADLINE)

    def end(self, number: signal.Signals) -> str:
        """End it, and give all that it wrote."""
        self.process.send_signal(number)
        with suppress(AssertionError):
            self.read(lambda text: False)
        assert self.process.wait(DEADLINE) == 0
        return self.text


@contextmanager
def screen(environ: dict[str, str], *options: str) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--grace", "0", *options]
    environment = {**os.environ, "TERM": "xterm-256color", **environ}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            yield Screen(process, ours)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            os.close(ours)


def shown(text: str) -> str:
    """The table that was drawn last."""
    return CONTROL.sub("", text.rpartition(ERASED)[2])


@pytest.mark.parametrize(
    ("number", "environ"), [(signal.SIGINT, {}), (signal.SIGTERM, {"NO_COLOR": "1"})], ids=["SIGINT", "SIGTERM"]
)
def test_it_stays_below_the_lines_and_is_left_as_it_was_last(number: signal.Signals, environ: dict[str, str]) -> None:
    with screen(environ) as terminal:
        with terminal.connect() as peer:
            peer.sendall(encode(Packet(7, b"hello")) + b"\x01\xfe")
            row = re.compile(r"(?m)^ +1 +127.0.0.1:\d+ ")
            terminal.read(
                lambda text: (
                    "  1 session  in" in (table := shown(text)) and "malformed 1" in table and bool(row.search(table))
                )
            )
        text = terminal.end(number)
        plain = CONTROL.sub("", text)
        for line in ("session 1 from 127.0.0.1:", 'payload "hello"', "malformed: TOO_SHORT", "stopped after 1 session"):
            assert plain.count(line) == 1, "a line is printed once, and stays"
        assert re.search(r"1 session until now, closed: (PEER|SHUTDOWN) 1\n$", shown(text))
        assert plain.rindex("stopped after") < plain.rindex("1 session until now")
        assert "\x1b[?25l" not in text, "the cursor is never hidden: it would stay so where the process is killed"
        assert bool(COLOUR.search(text)) == (not environ)


@pytest.mark.parametrize(
    ("options", "environ"),
    [(["--plain"], {}), (["--log-format", "json"], {}), ([], {"TERM": "dumb"})],
    ids=["plain", "json", "dumb"],
)
def test_there_are_plain_lines_for_who_wants_them(options: list[str], environ: dict[str, str]) -> None:
    with screen(environ, *options) as terminal:
        with terminal.connect() as peer:
            peer.sendall(encode(Packet(7, b"hello")))
            terminal.read(lambda text: "hello" in text)
        terminal.read(lambda text: "closed" in text)
        text = terminal.end(signal.SIGTERM)
        assert ERASED not in text
        assert "until now" not in text
        if "json" in options:
            records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
            assert [record["event"] for record in records] == ["opened", "closed", "draining", "stopped"]


@contextmanager
def seen(*names: str) -> Iterator[Sampler]:
    """A sampler that has seen sessions of these names."""
    endpoint: Endpoint[Packet] = Endpoint(Handler(), is_server=True)
    endpoint.runs_by(lambda function: None)
    with Sampler(endpoint) as sampler:
        for number, name in enumerate(names):
            session = Session(endpoint, MadeUpHost(), ("192.0.2.7", number), 0.0)
            session.opened(0.0)
            row = sampler._rows[session.id] = Row(session, time.monotonic(), 0.0)
            row.name, row.packets_in, row.bytes_in = name, 12_345.0 * number, 1e6 * number
        yield sampler


@pytest.mark.parametrize("width", [30, 44, 64, 80, 100, 200])
@pytest.mark.parametrize("height", [5, 24])
def test_it_fits_the_terminal(width: int, height: int) -> None:
    with seen(*["meter 7", "[bold]" + "x" * 90, "水" * 50] * 5) as sampler:
        console = Console(width=width, height=height, markup=False)
        with console.capture() as capture:
            console.print(table_of(sampler, "127.0.0.1:7000", width, height))
        lines = capture.get().splitlines()
    assert all(console.measure(line).maximum <= width for line in lines)
    rows = [line for line in lines if re.match(r" +\d+ ", line)]
    assert len(rows) == (1 if height == 5 else 10)
    assert height == 5 or "meter 7"[: max(1, width - 27)] in rows[2]
    assert [line for line in lines if line.startswith(f"and {15 - len(rows)} more")]


def test_it_says_who_ended_and_how() -> None:
    with seen() as sampler:
        sampler.endpoint._stats.closed[CloseReason.IDLE_TIMEOUT] = 3
        sampler.endpoint._stats.opened = 3
        sampler.close()
        console = Console(width=80)
        with console.capture() as capture:
            console.print(table_of(sampler, "127.0.0.1:7000", 80, 24))
    assert capture.get().splitlines()[-1].strip() == "3 sessions until now, closed: IDLE_TIMEOUT 3"


def test_what_an_application_prints_is_put_as_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[tuple[object, ...]] = []
    before = sys.stdout
    with Writer() as writer:
        lines = Lines(writer, Terminal(None))
    monkeypatch.setattr(lines, "put", lambda *cells: put.append(cells))
    with prints_to(lines, "stdout"):
        print("one", "line", flush=True)  # noqa: T201
        print("begun, ", end="")  # noqa: T201
        assert put == [("one line",)]
        sys.stdout.writelines(["two\n", "three\nnot ended"])
        assert sys.stdout.encoding == before.encoding
    assert put == [("one line",), ("begun, two",), ("three",), ("not ended",)]
    assert sys.stdout is before
    put.clear()
    with prints_to(lines, "stdout"):
        for _ in range(2 * LONGEST):
            print(".", end="")  # noqa: T201
        assert len("".join(str(line) for (line,) in put)) >= LONGEST, "what never ends is not kept"
    assert "".join(str(line) for (line,) in put) == "." * 2 * LONGEST
