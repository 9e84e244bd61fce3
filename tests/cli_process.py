"""A `packetcore serve` as a process, with what it inherits and what it logs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

DEADLINE = 30.0


class Serving:
    """One that listens. Every wait has a deadline.

    Args:
        process: with pipes for what it writes.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self._changed = threading.Condition()
        self._log: list[str] = []
        self._at_end = False
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.first_line = process.stdout.readline().rstrip()
        assert self.first_line.startswith("listening on "), self.log

    @property
    def log(self) -> list[str]:
        """What it has logged until now, without the time."""
        with self._changed:
            return self._log.copy()

    def wait_log(self, pattern: str, count: int = 1) -> str:
        """Wait until it has logged so many lines that hold a pattern; give the last of them."""

        def found() -> list[str]:
            return [line for line in self._log if re.search(pattern, line)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, DEADLINE), (pattern, self._log)
            return found()[count - 1]

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and wait for all that it logs; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self._reading.join(DEADLINE)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._log.append(re.sub(r"^\d\d:\d\d:\d\d  ", "", line.rstrip()))
                self._changed.notify_all()


@contextmanager
def serving(
    *options: str, environ: Mapping[str, str] | None = None, pass_fds: Sequence[int] = (), command: Sequence[str] = ()
) -> Iterator[Serving]:
    """Run it until the end of the block.

    Args:
        options: of the command line.
        environ: its whole environment.
        pass_fds: descriptors that it inherits.
        command: what to run it by, in place of this Python.
    """
    run = [*(command or (sys.executable, "-m", "packetcore_cli")), "serve", *options]
    process = subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, pass_fds=pass_fds
    )
    with process:
        try:
            yield Serving(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def failing(*options: str, pass_fds: Sequence[int] = (), environ: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run it where it does not begin to listen; its exit code, and what it says."""
    run = [sys.executable, "-m", "packetcore_cli", "serve", *options]
    ended = subprocess.run(
        run, capture_output=True, text=True, pass_fds=pass_fds, env=environ, timeout=DEADLINE, check=False
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr.rstrip()
