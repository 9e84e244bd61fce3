"""The `packetcore` command: which function does what, and how every one of them ends."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import packetcore
from packetcore_cli._arguments import packet_of
from packetcore_cli._bench import bench
from packetcore_cli._completion import complete
from packetcore_cli._decode import decode
from packetcore_cli._demo import demo
from packetcore_cli._dissector import dissector
from packetcore_cli._drivers import list_transports
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._parser import new_parser
from packetcore_cli._replay import replay
from packetcore_cli._send import send
from packetcore_cli._serial import check_serial, serve_serial
from packetcore_cli._serve import serve
from packetcore_cli._tap import tap
from packetcore_cli._terminal import NobodyReads, Terminal
from packetcore_cli._workers import serve_workers


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; those of the process if `None`.

    Returns:
        The exit code: 0; 1 for a failure and 2 for wrong usage, each told in one line on
        standard error; 130 after Ctrl-C.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _fill_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        if sys.stdout is None:
            raise Failure("standard output is closed")
        code = _done(argv)
        sys.stdout.flush()
        return code
    except (NobodyReads, BrokenPipeError):
        _silence()
        return 0
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        return _fail(str(failure), failure.exit_code)
    except OSError as error:
        _silence()
        return _fail(reason_of(error), 1)


def _done(argv: Sequence[str] | None) -> int:
    try:
        args = new_parser().parse_args(argv)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    out, err = Terminal(sys.stdout), Terminal(sys.stderr)
    if args.command in ("serve", "send"):
        check_serial(args)
    match args.command:
        case "demo":
            return demo(args.transport, out)
        case "serve":
            if args.workers is not None and args.as_worker is None:
                command_line = sys.argv[1:] if argv is None else argv
                return serve_workers(args, command_line, out, err)
            return (serve if args.serial is None else serve_serial)(args, out, err)
        case "send":
            return send(args, out, err)
        case "tap":
            return tap(args, out, err)
        case "encode":
            return _encode(args, out)
        case "decode":
            return decode(args, out, err)
        case "bench":
            return bench(args, out)
        case "completion":
            return complete(args.shell, out)
        case "dissector":
            return dissector(args, out)
        case "replay":
            return replay(args, out, err)
        case "transports":
            return list_transports(out)
    raise AssertionError(f"no function for the command {args.command!r}")


def _encode(args: argparse.Namespace, out: Terminal) -> int:
    frame = packetcore.encode(packet_of(args))
    if args.raw:
        sys.stdout.buffer.write(frame)
    else:
        out.line(frame.hex())
    return 0


def _fail(message: str, code: int) -> int:
    with suppress(OSError, AttributeError):  # standard error may be closed too
        sys.stderr.write(f"packetcore: {' '.join(message.split())}\n")
    return code


def _fill_descriptors() -> None:
    """Open nothing where a standard descriptor is closed: a socket that had its number would get
    what others print there, and uvloop aborts when it closes one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def _silence() -> None:
    """Nobody takes what standard output still holds: let the interpreter flush it nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
