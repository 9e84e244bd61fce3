"""`packetcore serve --record`: what is said, in a capture."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from packetcore import Config
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._log import log_event
from packetcore_cli._text import counted
from packetcore_cli._usage import need
from packetcore_tap import Recorder

SIZE = 64 << 20
"""Bytes of one file, unless asked otherwise."""

KEEP = 5
"""Files kept, unless asked otherwise."""


@contextmanager
def recorded(args: argparse.Namespace, config: Config) -> Iterator[Config]:
    """Record what the sessions of a configuration say until the end of the block, if that was asked for: see
    `recording`."""
    with recording(args) as recorder:
        yield config if recorder is None else replace(config, tap=recorder)


@contextmanager
def recording(args: argparse.Namespace) -> Iterator[Recorder | None]:
    """What records until the end of the block, if that was asked for.

    Raises:
        Failure: the file cannot be made, or a limit is out of its range.
        WrongUsage: there are limits, and nothing to record.
    """
    if args.record is None:
        need(args, "--record", "--record-size", "--record-keep")
        yield None
        return
    size = SIZE if args.record_size is None else args.record_size
    keep = KEEP if args.record_keep is None else args.record_keep
    try:
        recorder = Recorder(args.record, max_bytes=size, keep=keep)
    except OSError as error:
        raise Failure(f"cannot record to {args.record!r}: {reason_of(error)}") from None
    except ValueError as error:
        raise Failure(f"cannot record to {args.record!r}: {error}") from None
    try:
        yield recorder
    finally:
        recorder.close()
        if recorder.missed:
            missed = counted(recorder.missed, "chunk")
            text = f"recording to {args.record}: {missed} left out, the disk was too slow or they were too long"
            log_event("missed", text, logging.WARNING, chunks=recorder.missed)
