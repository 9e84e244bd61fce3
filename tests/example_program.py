"""A program of `examples/` as its user starts it: from the repository's root, ended by Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
STRICT = ["-W", "error", "-X", "dev"]
DEADLINE = 30.0
NOT_OURS = re.compile(r"(WARNING asyncio: )?Executing .* took [\d.]+ seconds\n?")
"""What asyncio's debug mode says on a machine that is busy."""


class Program:
    """One that runs.

    Args:
        process: with pipes for what it prints.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        """What it printed."""
        self._came = threading.Condition()
        self._complaints: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=[process.stdout, self.lines], daemon=True),
            threading.Thread(target=self._read, args=[process.stderr, self._complaints], daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it prints, or logs, a line with this in it, a regular expression."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(filter(None, (re.search(pattern, line) for line in self.lines + self._complaints)))
            return bool(found) or self.process.poll() is not None

        with self._came:
            self._came.wait_for(look, DEADLINE)
        assert found, f"{pattern!r} is not in {self.lines}; it complains: {self.complaints()}"
        return found[0]

    def complaints(self) -> list[str]:
        """What it wrote to standard error."""
        return [line for line in self._complaints if not NOT_OURS.fullmatch(line)]

    def stop(self, by: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C: it ends soon, with nothing to complain of."""
        self.process.send_signal(by)
        assert self.process.wait(DEADLINE) == 0, self.complaints()
        for reader in self._readers:
            reader.join(DEADLINE)
        assert self.complaints() == []

    def _read(self, pipe: Iterator[str], lines: list[str]) -> None:
        for line in pipe:
            with self._came:
                lines.append(line)
                self._came.notify_all()


@contextmanager
def running(module: str, *arguments: object) -> Iterator[Program]:
    """A module of `examples`, run; killed at the end if it is still there."""
    command = [sys.executable, *STRICT, "-u", "-m", f"examples.{module}", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def refused(module: str, *arguments: object) -> tuple[int, str]:
    """The exit status of one that cannot start, and the last line of what it says to that."""
    command = [sys.executable, "-m", f"examples.{module}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)
