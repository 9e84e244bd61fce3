"""`packetcore tap`: a proxy that shows what it passes on and misbehaves as told, until a signal ends it."""

from __future__ import annotations

import argparse
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from packetcore import Malformed, Packet, encode
from packetcore.framings import Framing
from packetcore_cli._dump import dump_lines, malformed_lines
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._framings import check_limit
from packetcore_cli._lines import Line, Lines, writers
from packetcore_cli._log import NOTES_LOGGED, log_to
from packetcore_cli._record import recording
from packetcore_cli._signals import Impatient, heard, next_signal
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import PREVIEW, address_text, content_text, counted
from packetcore_cli._usage import need, refuse_beside
from packetcore_tap import DIRECTIONS, Direction, Ending, Fault, Impairments, Passed, Recorder, Seen, Tap, TapConnection
from packetcore_tap import TapObserver as Observer

IMPAIRMENTS = tuple(field.name for field in fields(Impairments))

ACTIONS = ("reset", "close", "stall", "black_hole")
"""What there are faults for."""

INDENT = " " * 15
"""In front of a dump: the width of the time."""

_ARROWS = {"to_server": ("->", "bold green"), "to_client": ("<-", "bold cyan")}

HELP = (
    "commands: reset, refuse, accept; stall, resume, black-hole, each alone or with to-server or to-client; "
    f"{', '.join(name.replace('_', '-') for name in IMPAIRMENTS)}, each with a value or none; clear, quit"
)


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
    refuse_beside(args, "--udp", "--cut", "--gap", "--merge")
    need(args, "--udp", "--loss", "--duplication")
    check_limit(args.framing, args.max_payload)
    if args.target[1] == 0:
        raise Failure("port=0 of TARGET is out of range 1 to 65535")
    signals: SimpleQueue[int] = SimpleQueue()
    with writers(out, err) as (to_out, to_err), log_to(err, to_err, None), heard(signals):
        printed = Lines(to_out, out, failed=partial(signals.put, 0))
        printer = Printer(printed, args.framing, args.quiet, args.dump)
        try:
            with recording(args) as recorder, _open(args, printer, recorder) as opened:
                printed.put(
                    "listening on ", (address_text(opened.address), "bold"), f", target {address_text(args.target)}"
                )
                if args.interactive:
                    obey = partial(_obey, opened, args.direction, signals)
                    threading.Thread(target=_take_commands, args=(obey, printed), daemon=True).start()
                next_signal(signals)
            printer.stopped(opened)
        except Impatient:
            logging.getLogger("packetcore_cli").warning("aborted by a second signal")
            return 1
    if printed.error is not None:
        raise printed.error
    return 0


class Printer(Observer):
    """Prints what passes.

    Args:
        out: where to.
        framing: of what passes.
        quiet: whether to leave packets out.
        dump: whether to dump each of them.
    """

    def __init__(self, out: Lines, framing: Framing | None, quiet: bool, dump: bool) -> None:
        self._out = out
        self._framing = framing
        self._quiet = quiet
        self._dump = dump
        self._notes: Counter[int] = Counter()

    def opened(self, connection: TapConnection) -> None:
        self._put(connection, ("   opened    ", "dim"), f"from {address_text(connection.client)}")

    def seen(self, connection: TapConnection, seen: Seen) -> None:
        arrow = _ARROWS[seen.direction]
        event = seen.event
        if isinstance(event, Malformed):
            self._notes[connection.number] += 1
            if self._notes[connection.number] <= NOTES_LOGGED:
                self._put(connection, arrow, " ", ("malformed", "red"), " ", _wrong(event), at=seen.time)
                self._block(malformed_lines(event, framing=self._framing))
            elif self._notes[connection.number] == NOTES_LOGGED + 1:
                self._put(connection, arrow, " ", ("malformed", "red"), " more, from here on only counted")
        elif not self._quiet:
            label = "packet   " if isinstance(event, Packet) else "frame    "
            self._put(connection, arrow, " ", label, " ", content_text(event, PREVIEW), at=seen.time)
            if self._dump:
                data = event if isinstance(event, bytes) else encode(event)
                if isinstance(event, bytes) and self._framing is not None:
                    data = self._framing.encode(event)
                size = len(event) if isinstance(event, bytes) else len(event.payload)
                self._block(dump_lines(data, max_payload=max(1, size), framing=self._framing))

    def encrypted(self, connection: TapConnection) -> None:
        self._put(connection, ("   encrypted ", "yellow"), "the client speaks TLS: it passes, and packets are not seen")

    def failed(self, connection: TapConnection, error: OSError) -> None:
        self._put(connection, ("   failed    ", "red"), reason_of(error))

    def ended(self, connection: TapConnection, direction: Direction) -> None:
        arrow = _ARROWS[direction]
        self._put(connection, arrow, (" end       ", "dim"), "nothing more comes")

    def closed(self, connection: TapConnection, ending: Ending, error: OSError | None) -> None:
        self._notes.pop(connection.number, None)
        style = "dim" if ending in (Ending.FINISHED, Ending.CLOSED) else "yellow"
        why = f"{ending.value}: {reason_of(error)}" if error is not None else ending.value
        self._put(connection, ("   closed    ", style), f"{why}; {_totals(connection.passed)}")

    def stopped(self, opened: Tap) -> None:
        """Say what there was in all."""
        self._out.put((f"stopped after {counted(opened.opened, 'connection')}; {_totals(opened.passed)}", "bold"))

    def _put(self, connection: TapConnection, *cells: Any, at: float | None = None) -> None:
        at = time.time() if at is None else at
        clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"
        self._out.put((clock, "dim"), "  ", (f"#{connection.number}", "bold"), "  ", *cells)

    def _block(self, lines: Iterator[Line]) -> None:
        for line in lines:
            self._out.put(INDENT, *line)


def _wrong(malformed: Malformed) -> str:
    return f"{malformed.reason.name}  {counted(malformed.size, 'byte')}"


def _totals(passed: Callable[[Direction], Passed]) -> str:
    return "; ".join(f"{each.replace('_', ' ')}: {_total(passed(each))}" for each in DIRECTIONS)


def _total(passed: Passed) -> str:
    parts = [counted(passed.packets, "packet"), counted(passed.bytes, "byte")]
    parts += [
        f"{number} {what}" for number, what in ((passed.malformed, "malformed"), (passed.dropped, "lost")) if number
    ]
    return ", ".join(parts)


def _open(args: argparse.Namespace, observer: Observer, recorder: Recorder | None) -> Tap:
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


def _take_commands(obey: Callable[[list[str]], str], out: Lines) -> None:
    """Do what lines of standard input say. They pass by the buffer of Python's file, whose lock this thread would
    have when the process ends."""
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            words = line.decode(errors="replace").split()
            if words:
                out.put((obey(words), "bold"))


def _obey(opened: Tap, direction: str, signals: SimpleQueue[int], words: list[str]) -> str:
    """Do what one line says; what to reply."""
    command, *args = words
    name = command.replace("-", "_")
    try:
        if name in ("stall", "resume", "black_hole") and len(args) <= 1:
            getattr(opened, name)(args[0].replace("-", "_") if args else "both")
        elif name in ("reset", "refuse", "accept") and not args:
            getattr(opened, name)()
        elif name == "quit" and not args:
            signals.put(0)
        elif name == "clear" and not args:
            opened.to_server = opened.to_client = Impairments()
        elif name in IMPAIRMENTS and len(args) == 1:
            _impair(opened, direction, name, args[0])
        else:
            return HELP
    except (ValueError, OverflowError, OSError) as error:
        return f"not done: {error}"
    return f"done: {' '.join(words)}"


def _impair(opened: Tap, direction: str, name: str, text: str) -> None:
    value: Any = getattr(Impairments(), name) if text == "none" else float(text)
    if name in ("cut", "buffer") and value is not None:
        value = int(value)
    for each in DIRECTIONS:
        if direction in (each, "both"):
            setattr(opened, each, replace(getattr(opened, each), **{name: value}))
