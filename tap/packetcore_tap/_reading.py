"""Captures read: whether a file is one, of which format, and all that it tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from packetcore_tap._conversations import Conversations
from packetcore_tap._errors import CaptureError
from packetcore_tap._heard import Heard
from packetcore_tap._pcap import MAGIC, PcapReader
from packetcore_tap._pcapng import SECTION_HEADER, PcapngReader, Record

READ_SIZE = 1 << 20


class Readable(Protocol):
    """A file, or what is read like one."""

    def read(self, size: int, /) -> bytes:
        """Some bytes, at most so many; none at the end."""


def hear(file: Readable, conversations: Conversations | None = None) -> Iterator[Heard]:
    """All that a capture tells, pcapng or pcap.

    Args:
        file: the capture, opened for reading bytes. What it does not give yet may be waited for in its `read`.
        conversations: takes the packets, for who wants to know its numbers afterwards.

    Raises:
        CaptureError: the file is no capture, or damaged, or ends in the midst; all that is whole was given.
        OSError: it cannot be read.
    """
    conversations = Conversations() if conversations is None else conversations
    error: CaptureError | None = None
    try:
        for record in _records(file):
            yield from conversations.feed(record)
    except CaptureError as wrong:
        error = wrong
    yield from conversations.feed_eof()
    if error is not None:
        raise error


def is_capture(head: bytes, *, so_far: bool = False) -> bool:
    """Whether a file begins as a capture does.

    Args:
        head: its first 4 bytes.
        so_far: whether it may have fewer yet, and be one all the same.
    """
    starts = [SECTION_HEADER.to_bytes(4, "little"), *MAGIC]
    return any(start.startswith(head) for start in starts) if so_far else head in starts


def _records(file: Readable) -> Iterator[Record]:
    data = file.read(READ_SIZE)
    while 0 < len(data) < 4 and (more := file.read(READ_SIZE)):
        data += more
    reader: PcapngReader | PcapReader
    if data[:4] in MAGIC:
        reader = PcapReader()
    elif data[:4] == SECTION_HEADER.to_bytes(4, "little"):
        reader = PcapngReader()
    else:
        begin = f"it begins with {data[:4].hex()}" if data else "it is empty"
        raise CaptureError(f"no capture, neither pcapng nor pcap: {begin}")
    while data:
        yield from reader.feed(data)
        data = file.read(READ_SIZE)
    reader.feed_eof()
