"""`packetcore decode`: what each byte of a stream is and which packets are in it, or in a capture; for people, or as a
line of JSON for each packet. With `--follow` of what grows, as it comes."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial

from packetcore import Malformed
from packetcore_cli._annotate import Span
from packetcore_cli._arguments import hex_or_path, parse_hex
from packetcore_cli._capture import Capture, Following, given, opened, show
from packetcore_cli._dump import EventList, dump
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._framed import new_spans
from packetcore_cli._framings import check_limit
from packetcore_cli._growing import Growing
from packetcore_cli._terminal import Terminal
from packetcore_cli._usage import refuse
from packetcore_tap import Readable, as_json, event_fields, is_capture

HEAD = 4
"""Bytes by which a capture is known."""

HEX = re.compile(rb"[0-9a-fA-FxX\s:,-]*")
"""What text in hex is made of."""

SEPARATORS = (b" ", b"\t", b",", b":", b"-")

READ_SIZE = 1 << 16


def decode(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Decode what was asked for.

    Returns:
        0; with `--check`, 1 where something is malformed.

    Raises:
        Failure: it cannot be read, or is a capture that is damaged; then what is whole was shown.
    """
    check_limit(args.framing, args.max_payload)
    source = hex_or_path(args.source)
    if args.follow:
        malformed = _follow(source, args, out, err)
    elif isinstance(source, str):
        malformed = _decode_file(source, args, out, err)
    else:
        malformed = _decode_bytes(source, args, out)
    return 1 if args.check and malformed else 0


def _decode_file(path: str, args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    with opened(path) as file:
        try:
            head = file.read(HEAD)
            if not is_capture(head):
                content = head + file.read()
        except OSError as error:
            raise Failure(f"cannot read {path!r}: {reason_of(error)}") from None
        if is_capture(head):  # which may be larger than the memory is
            return _decode_capture(Capture(args, path, partial(given, Following(head, file))), out, with_dump=True)
    if not HEX.fullmatch(content):
        return _decode_bytes(content, args, out)
    try:
        data = parse_hex(content.decode("ascii"))
    except ValueError as error:
        name = "standard input" if path == "-" else repr(path)
        err.line(f"packetcore: {name} is taken as bytes, though it looks like hex: {error}")
        data = content
    return _decode_bytes(data, args, out)


def _decode_bytes(data: bytes, args: argparse.Namespace, out: Terminal) -> int:
    if args.only is not None:
        refuse(args, "--only", "needs a capture")
    view = _View(args, out)
    if not args.json:
        dump(out, data, max_payload=args.max_payload, framing=args.framing)
        if data:
            out.line()
    view.feed(data)
    view.finish()
    return view.malformed


def _decode_capture(capture: Capture, out: Terminal, *, with_dump: bool) -> int:
    if capture.args.json:
        malformed = 0
        for told in capture.events():
            malformed += isinstance(told.what, Malformed)
            out.line(as_json(told))
    else:
        malformed = show(capture, out, with_dump=with_dump)
    if capture.error is not None:
        raise Failure(f"{capture.error}: what came before is whole")
    return malformed


class _View:
    """Shows the events of a stream as its bytes come."""

    def __init__(self, args: argparse.Namespace, out: Terminal) -> None:
        self.malformed = 0
        self._out = out
        self._events = None if args.json else EventList(out, args.framing)
        self._spans = new_spans(args.framing, args.max_payload)

    def feed(self, data: bytes) -> None:
        for span in self._spans.feed(data):
            self._put(span)

    def finish(self) -> None:
        """The stream has ended."""
        for span in self._spans.feed_eof():
            self._put(span)
        self.sum_up()

    def sum_up(self) -> None:
        if self._events is not None:
            self._events.finish()

    def _put(self, span: Span) -> None:
        self.malformed += isinstance(span.event, Malformed)
        if self._events is not None:
            self._events.put(span)
        elif span.event is not None:
            self._out.line(json.dumps({"at": span.start} | event_fields(span.event)))


def _follow(source: bytes | str, args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    if isinstance(source, bytes):
        refuse(args, "--follow", "needs a file or standard input")
    malformed = 0
    with closing(Growing(source, lambda text: err.line(f"packetcore: {text}"), out.check_reader)) as growing:
        for stream in growing.streams():
            head = b""
            while len(head) < HEAD and is_capture(head, so_far=True) and (more := stream.read(HEAD - len(head))):
                head += more
            following = Following(head, stream)
            if is_capture(head):
                capture = Capture(args, source, partial(given, following))
                malformed += _decode_capture(capture, out, with_dump=False)
            else:
                malformed += _follow_bytes(following, args, out)
    return malformed


def _follow_bytes(file: Readable, args: argparse.Namespace, out: Terminal) -> int:
    view = _View(args, out)
    try:
        first = file.read(READ_SIZE)
        pieces = _pieces(first, file)
        for data in _unhexed(pieces) if HEX.fullmatch(first) else pieces:
            view.feed(data)
    except KeyboardInterrupt:
        view.sum_up()
        raise
    view.finish()
    return view.malformed


def _pieces(first: bytes, file: Readable) -> Iterator[bytes]:
    data = first
    while data:
        yield data
        data = file.read(READ_SIZE)


def _unhexed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes that lines of hex stand for, each once it is whole, or is so long that it may have no end."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > READ_SIZE:
            whole = max(map(rest.rfind, SEPARATORS)) + 1 or len(rest) // 2 * 2
            lines.append(rest[:whole])
            rest = rest[whole:]
        yield b"".join(map(_hex_line, lines))
    yield _hex_line(rest)


def _hex_line(line: bytes) -> bytes:
    text = line.decode("ascii", "backslashreplace")
    try:
        return parse_hex(text)
    except ValueError as error:
        raise Failure(f"wrong hex {text[:60]!r}: {error}") from None
