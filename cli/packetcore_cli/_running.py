"""What all commands have in common that go on until a signal, or until nobody reads what they print."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from packetcore_cli._lines import Lines, writers
from packetcore_cli._log import log_event, log_to
from packetcore_cli._signals import Impatient, heard
from packetcore_cli._terminal import Terminal


@dataclass
class Running:
    """A command that goes on."""

    signals: SimpleQueue[int]
    """What is to end it; 0 where a line could not be printed."""

    printed: Lines
    """Standard output. Whoever reads that slowly or not at all delays neither devices nor the end."""

    code: int = 0
    """Its exit code: 1 where a second signal has cut the end short."""


@contextmanager
def running(
    out: Terminal,
    err: Terminal,
    log: str | None = None,
    *,
    signals: SimpleQueue[int] | None = None,
    verbose: bool = False,
    sessions: bool = False,
    worker: int | None = None,
) -> Iterator[Running]:
    """Hear signals, print and log until the end of the block, which a second signal leaves at once.

    Args:
        out: standard output.
        err: standard error.
        log: the form of log records; see `log_to`, and so all that follows but this.
        signals: where they go; a new queue if `None`.

    Raises:
        NobodyReads: the other end of standard output was closed.
        OSError: standard output could not be written.
    """
    signals = SimpleQueue() if signals is None else signals
    with (
        writers(out, err) as (to_out, to_err),
        log_to(err, to_err, log, verbose=verbose, sessions=sessions, worker=worker),
    ):
        command = Running(signals, Lines(to_out, out, failed=partial(signals.put, 0)))
        try:
            with heard(signals):
                yield command
        except Impatient:
            log_event("aborted", "aborted by a second signal", logging.WARNING)
            command.code = 1
    if command.code == 0 and command.printed.error is not None:
        raise command.printed.error
