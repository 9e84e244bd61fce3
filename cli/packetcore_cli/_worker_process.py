"""A worker of `packetcore serve --workers` as its parent has it: a process, and this end of a pipe to it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from packetcore import EndpointStats
from packetcore_cli._worker import Ask, Message, Tell, worker_text

AFTER_GRACE = 10.0
"""Seconds beyond its grace that a worker has for its end, before it is killed; functions over streams may take
`close_timeout` of them."""


class WorkerProcess:
    """A new `packetcore serve` with the options of this one, which inherits its sockets and its end of the pipe.

    Args:
        index: its number.
        command_line: the options.
        sockets: what it serves on.

    Raises:
        OSError: it cannot be started, for want of memory or of processes.
    """

    def __init__(self, index: int, command_line: Sequence[str], sockets: Sequence[socket.socket]) -> None:
        self.index = index
        self.stats = EndpointStats()
        """Its counters, as last told."""
        self.is_loaded = self.is_serving = self.is_leaving = False
        self.asked_at: float | None = None
        """Since when it owes an answer."""
        self.kill_at: float | None = None
        ours, theirs = Pipe()
        self.pipe: Connection[Ask, Message] = ours
        with ExitStack() as unless_started, theirs:
            unless_started.callback(ours.close)
            self.popen = subprocess.Popen(
                [
                    *(sys.executable, "-m", "packetcore_cli", *command_line),
                    *("--as-worker", worker_text(index, theirs.fileno(), sockets)),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *(sock.fileno() for sock in sockets)],
                start_new_session=True,  # Ctrl-C is for the parent alone, who tells them
            )
            unless_started.pop_all()

    @property
    def name(self) -> str:
        """For people."""
        return f"worker {self.index} (pid {self.popen.pid})"

    def ask(self, what: Ask) -> None:
        """Tell it something, if it is there."""
        with suppress(OSError):
            self.pipe.send(what)

    def ask_stats(self, now: float) -> None:
        """Ask for its counters, unless it owes an answer."""
        if self.asked_at is None:
            self.asked_at = now
            self.ask(Ask.STATS)

    def hear(self) -> Iterator[Tell]:
        """What it has said since."""
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                what, stats = self.pipe.recv()
                if stats is not None:
                    self.stats, self.asked_at = stats, None
                yield what

    def retire(self, grace: float) -> None:
        """Have it drain and end."""
        self.is_leaving = True
        self.kill_at = time.monotonic() + grace + AFTER_GRACE
        self._end_by(Ask.DRAIN)

    def abort(self) -> None:
        """Have it end at once."""
        self._end_by(Ask.ABORT)

    def _end_by(self, what: Ask) -> None:
        if self.is_loaded:
            self.ask(what)
        else:
            self.popen.terminate()
