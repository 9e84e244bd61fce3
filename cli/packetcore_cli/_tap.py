"""`packetcore tap`: a proxy that shows what it passes on and misbehaves as told, until a signal ends it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from functools import partial

from packetcore_cli._failure import Failure
from packetcore_cli._framings import check_limit
from packetcore_cli._record import recording
from packetcore_cli._running import running
from packetcore_cli._signals import next_signal
from packetcore_cli._tap_commands import IMPAIRMENTS, OF_DATAGRAMS, OF_STREAMS, Commands
from packetcore_cli._tap_printer import Printer
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text
from packetcore_cli._usage import need, refuse_beside
from packetcore_tap import (
    DIRECTIONS,
    Fault,
    Impairments,
    Recorder,
    Tap,
    TapObserver,
)

ACTIONS = ("reset", "close", "stall", "black_hole")
"""What there are faults for."""


@dataclass(frozen=True, slots=True)
class Point:
    """When a fault happens."""

    seconds: float | None = None
    bytes: int | None = None


def point(text: str) -> Point:
    """A point in the life of a connection: a time, as `5s` or `200ms`, or a number of bytes, as `4096B`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)|(\d+)B", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a time, as 5s or 200ms, nor a number of bytes, as 4096B")
    number, unit, size = found.groups()
    return Point(bytes=int(size)) if size else Point(seconds=float(number) * (0.001 if unit == "ms" else 1))


def tap(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Stand between clients and a server until SIGINT or SIGTERM, or nobody reads what is printed.

    Raises:
        Failure: it cannot listen, or a value is out of its range.
        NobodyReads: the other end of standard output was closed.
        OSError: standard output could not be written.
    """
    refuse_beside(args, "--udp", *(f"--{name}" for name in OF_STREAMS))
    need(args, "--udp", *(f"--{name}" for name in OF_DATAGRAMS))
    check_limit(args.framing, args.max_payload)
    if args.target[1] == 0:
        raise Failure("port=0 of TARGET is out of range 1 to 65535")
    with running(out, err) as command:
        printed = command.printed
        printer = Printer(printed, args.framing, args.quiet, args.dump)
        with recording(args) as recorder, _open(args, printer, recorder) as opened:
            printed.put(
                "listening on ", (address_text(opened.address), "bold"), f", target {address_text(args.target)}"
            )
            if args.interactive:
                Commands(opened, args.udp, args.direction, printed, partial(command.signals.put, 0)).start()
            next_signal(command.signals)
        printer.stopped(opened)
    return command.code


def _open(args: argparse.Namespace, observer: TapObserver, recorder: Recorder | None) -> Tap:
    given = {name: value for name in IMPAIRMENTS if (value := getattr(args, name)) is not None}
    faults = []
    try:
        impairments = Impairments(**given)
        for action in ACTIONS:
            for when in getattr(args, f"{action}_after") or ():
                faults.append(Fault(action, when.bytes, when.seconds, args.direction))  # type: ignore[arg-type]
        return Tap(
            args.target,
            args.listen,
            faults=faults,
            seed=args.seed,
            udp=args.udp,
            framing=args.framing,
            max_payload=args.max_payload,
            observer=observer,
            recording=None if recorder is None else recorder.recording,
            keep=0,
            **{each: impairments for each in DIRECTIONS if args.direction in (each, "both")},
        )
    except ValueError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"cannot tap: {error.strerror or error}") from None
