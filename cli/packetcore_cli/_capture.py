"""A capture through the decoder, as lines of text: for `packetcore decode` and `packetcore replay`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from packetcore import Malformed, Packet
from packetcore_cli._dump import DUMPED, dump
from packetcore_cli._event_line import ARROWS, event_cells
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import counted
from packetcore_tap import CaptureError, Chunk, Conversation, Conversations, Heard, Readable, Side, Told, events, hear


class Capture:
    """What a capture holds, read while one goes through it; of some conversations alone where that was asked for.

    Args:
        args: what was asked for.
        name: of the file, for people.
        opening: opens it; called each time that one goes through it.
    """

    def __init__(
        self, args: argparse.Namespace, name: str, opening: Callable[[], AbstractContextManager[Readable]]
    ) -> None:
        self.error: CaptureError | None = None
        """What is wrong with the file, once all before that was given."""
        self.conversations = Conversations()
        self.args = args
        self.name = name
        self._opening = opening

    def __iter__(self) -> Iterator[Heard]:
        self.conversations = Conversations()
        count = 0
        with self._opening() as file:
            try:
                for heard in hear(file, self.conversations):
                    count += 1
                    if self.args.only is None or heard.conversation.number in self.args.only:
                        yield heard
            except CaptureError as error:
                if not count:
                    raise Failure(f"cannot {self.args.command} {self.name!r}: {error}") from None
                self.error = CaptureError(f"{self.name!r} is damaged: {error}")
            except OSError as error:
                raise Failure(f"cannot read {self.name!r}: {reason_of(error)}") from None
        if self.error is None:
            self._check_only()

    def _check_only(self) -> None:
        """See that there are the conversations that were asked for; this is known once all was read."""
        count = self.conversations.count
        for number in self.args.only or ():
            if not 1 <= number <= count:
                has = counted(count, "conversation")
                raise Failure(f"{self.name!r} has no conversation {number}: it has {has}, numbered from 1")

    def events(self) -> Iterator[Told]:
        """What it comes to."""
        return events(self, self.args.framing, self.args.max_payload)


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file to be read, `-` for standard input.

    Raises:
        Failure: it cannot be opened.
    """
    if path == "-" and sys.stdin is None:
        raise Failure("standard input is closed")
    with ExitStack() as stack:
        try:
            file = sys.stdin.buffer if path == "-" else stack.enter_context(Path(path).open("rb"))
        except (OSError, ValueError) as error:
            raise Failure(f"cannot read {path!r}: {reason_of(error)}") from None
        yield file


class Following:
    """A file of which something was read already: that, then the rest. A pipe cannot be opened once more.

    Args:
        head: what was read.
        file: the rest.
    """

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head = head
        self._file = file

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most so many; none at the end."""
        head, self._head = self._head[:size], self._head[size:]
        return head or self._file.read(size)


@contextmanager
def given(file: Readable) -> Iterator[Readable]:
    """A file that is open already, and is closed by who opened it."""
    yield file


@dataclass
class _Said:
    """What one side has said until now: all of it, or as much as a dump shows."""

    data: bytearray
    size: int = 0

    def add(self, data: bytes, most: int | None) -> None:
        self.size += len(data)
        self.data += data if most is None else data[: max(0, most - len(self.data))]


def show(capture: Capture, out: Terminal, *, with_dump: bool = False) -> int:
    """Print who talks, each event with its time, and how much there was.

    Args:
        capture: what to show.
        out: where to.
        with_dump: whether to show what each byte is, too, up to some thousand of each side.

    Returns:
        How many events are malformed.
    """
    framing, max_payload = capture.args.framing, capture.args.max_payload
    # What the dump shows is the same if the rest is missing, save for frames of a framing.
    most = DUMPED + 2 if framing is None else None
    said: dict[tuple[Conversation, Side], _Said] = {}
    sizes: dict[Conversation, int] = {}

    def noted() -> Iterator[Heard]:
        for heard in capture:
            size = len(heard.data) if isinstance(heard, Chunk) else 0
            sizes[heard.conversation] = sizes.get(heard.conversation, 0) + size
            if isinstance(heard, Chunk) and with_dump:
                key = heard.conversation, heard.sender
                said.setdefault(key, _Said(bytearray())).add(heard.data, most)
            yield heard

    shown: set[Conversation] = set()
    found = malformed = 0
    for told in events(noted(), framing, max_payload):
        if told.conversation not in shown:
            shown.add(told.conversation)
            _introduce(out, told.conversation)
        found += isinstance(told.what, (Packet, bytes))
        malformed += isinstance(told.what, Malformed)
        out.line(*event_cells(told))
    for conversation in sizes:
        if conversation not in shown:  # nothing was whole
            _introduce(out, conversation)
    for (conversation, side), those in sorted(said.items(), key=lambda item: item[0][0].number):
        out.line()
        out.line((f"{conversation.number} {ARROWS[side][0]}  ", "bold"), f"what the {side.value} sent")
        dump(out, bytes(those.data), max_payload=max_payload, framing=framing, size=those.size)
    if said:
        out.line()
    noun = "packet" if framing is None else "frame"
    counts = [counted(len(sizes), "conversation"), counted(found, noun), f"{malformed} malformed"]
    passed_over = capture.conversations.passed_over
    if passed_over:
        counts.append(f"{counted(passed_over, 'packet')} of the network passed over, neither TCP nor UDP or cut up")
    out.line((", ".join([*counts, counted(sum(sizes.values()), "byte")]), "bold"))
    return malformed


def _introduce(out: Terminal, conversation: Conversation) -> None:
    comment = f"  {'; '.join(' '.join(conversation.comments).split(chr(10)))}" if conversation.comments else ""
    began = "" if conversation.kind == "udp" or conversation.has_beginning else "  (its beginning is not there)"
    out.line((f"{conversation.number}  {conversation}", "bold"), (comment, "dim"), (began, "yellow"))
