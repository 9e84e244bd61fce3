"""`packetcore replay`: a recording through the decoder, beside another, made shorter, or against a live server."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from packetcore import Malformed
from packetcore_cli._capture import Capture, Following, given, opened, show
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._framings import check_limit
from packetcore_cli._playing import Play, play
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import counted
from packetcore_cli._usage import need
from packetcore_tap import Chunk, Difference, Heard, Shrinking, as_json, capture_of, differences, events

SHOWN = 10
"""Differences that are shown."""


def replay(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Show, compare, shrink or play a recording.

    Returns:
        0; 1 where something differs from what it was compared with.

    Raises:
        Failure: the file cannot be read, or is damaged; then what is whole was used.
    """
    _check(args)
    recording = Capture(args, args.file, partial(opened, args.file))
    code = 0
    if args.shrink is not None:
        code = _shrink(recording, args, out, err)
    elif args.to is not None:
        code = play(Play.of(args), list(recording), out, err)
    elif args.compare is not None:
        code = _compare(recording, args, out)
    elif args.json:
        for told in recording.events():
            out.line(as_json(told))
    else:
        show(recording, out, with_dump=args.dump)
    if recording.error is not None:
        raise Failure(f"{recording.error}: what came before is whole")
    return code


def _check(args: argparse.Namespace) -> None:
    need(args, "--shrink", "--fails")
    need(args, "--to", "--speed", "--timeout", "--tls", "--tls-ca")
    check_limit(args.framing, args.max_payload)


def _compare(recording: Capture, args: argparse.Namespace, out: Terminal) -> int:
    theirs = _events_of(args.compare, args)
    ours = list(map(as_json, recording.events()))
    found = differences(theirs, ours)
    _show_differences(found, out, args.compare, recording.name)
    if not found:
        out.line((f"the same {counted(len(ours), 'event')} in both", "green"))
    return 1 if found else 0


def _events_of(path: str, args: argparse.Namespace) -> list[str]:
    """The events that another recording comes to, or that `--json` has printed of it."""
    with opened(path) as file:
        try:
            head = file.read(1)
            if head == b"{":
                lines = (head + file.read()).decode().splitlines()
                differences((), lines)
                return lines
        except OSError as error:
            raise Failure(f"cannot read {path!r}: {reason_of(error)}") from None
        except ValueError as error:
            raise Failure(f"{path!r} has no events: {error}") from None
        other = Capture(args, path, partial(given, Following(head, file)))
        told = list(map(as_json, other.events()))
    if other.error is not None:
        raise Failure(str(other.error))
    return told


def _show_differences(found: Sequence[Difference], out: Terminal, one: str, other: str) -> None:
    for each in found[:SHOWN]:
        out.line((f"conversation {each.conversation}, {each.sender}, event {each.place}:", "bold red"))
        for path, event in ((one, each.one), (other, each.other)):
            out.line("  ", event or "nothing more", "  ", (path, "dim"))
    if len(found) > SHOWN:
        out.line(f"and {len(found) - SHOWN} more")


def _shrink(recording: Capture, args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    heard = list(recording)
    fails = _malformed_as(heard, args) if args.fails is None else _command(args.fails)
    if not fails(heard):
        what = "nothing in it is malformed" if args.fails is None else f"{args.fails!r} exits with 0"
        raise Failure(f"{recording.name!r} does not fail: {what}")
    shrinking = Shrinking(heard, fails)
    _write(args.shrink, heard)  # what cannot be written is known before hours have passed
    is_cut_short = False
    try:
        for _ in shrinking.run():
            _write(args.shrink, shrinking.best)
    except KeyboardInterrupt:
        is_cut_short = True
        _write(args.shrink, shrinking.best)  # which may be what was interrupted
    text = f"{_size(heard)} became {_size(shrinking.best)} after {counted(shrinking.tries, 'run')}"
    out.line(text, "  ", (args.shrink, "bold"))
    if is_cut_short:
        err.line("packetcore: interrupted: it may not be the shortest")
        raise KeyboardInterrupt
    return 0


def _size(heard: Sequence[Heard]) -> str:
    data = [len(each.data) for each in heard if isinstance(each, Chunk)]
    return f"{counted(sum(data), 'byte')} in {counted(len(data), 'chunk')}"


def _malformed_as(heard: Sequence[Heard], args: argparse.Namespace) -> Callable[[list[Heard]], bool]:
    """Fails where something is malformed as the first that is in the whole."""

    def reasons(some: Iterable[Heard]) -> Iterator[object]:
        return (
            told.what.reason
            for told in events(some, args.framing, args.max_payload)
            if isinstance(told.what, Malformed)
        )

    wanted = next(reasons(heard), None)
    return lambda some: wanted is not None and wanted in reasons(some)


def _command(command: str) -> Callable[[list[Heard]], bool]:
    """Fails where a command does, given the recording as a file: in the place of {}, or as its last word."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise Failure(f"wrong command {command!r}: {error}") from None
    if not words:
        raise Failure("the command of --fails is empty")

    def fails(heard: list[Heard]) -> bool:
        with tempfile.TemporaryDirectory(prefix="packetcore") as folder:
            path = os.path.join(folder, "recording.pcapng")
            _write(path, heard)
            line = [word.replace("{}", path) for word in words]
            if line == words:
                line.append(path)
            try:
                done = subprocess.run(
                    line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
                )
            except OSError as error:
                raise Failure(f"cannot run {words[0]!r}: {reason_of(error)}") from None
            return done.returncode != 0

    return fails


def _write(path: str, heard: Sequence[Heard]) -> None:
    try:
        Path(path).write_bytes(b"".join(capture_of(heard)))
    except (OSError, ValueError) as error:
        raise Failure(f"cannot write {path!r}: {reason_of(error)}") from None
