"""The decoder: a stream of bytes in, packets and malformed runs out.

It decides where frames begin and end, what is no frame and why, and how much of an
unfinished one is kept. It refuses to know where bytes come from and what time it is.

A *run* is what stands between two flags. Every run is judged by its own bytes alone,
and its events are given at places that those bytes fix, so the way a stream is cut
into chunks cannot change them. A flag always ends one run and begins the next, so a
broken run never reaches into the one after it.
"""

from __future__ import annotations

from struct import error as struct_error

from packetcore._codec import (
    ESCAPE,
    ESCAPE_BYTE,
    ESCAPED_ESCAPE,
    ESCAPED_FLAG,
    FLAG,
    FLAG_BYTE,
    HEADER,
    HEADER_SIZE,
    LONG,
    announced_length,
    unescape,
)
from packetcore._errors import MalformedFrame
from packetcore._events import SAMPLE_SIZE, Malformed
from packetcore._packet import MAX_LENGTH, Packet, new_packet
from packetcore._reasons import Reason

DEFAULT_MAX_PAYLOAD = 1 << 20
"""1 MiB: far above what devices send in one packet, and small enough that a hostile
peer holds at most 2 MiB."""

_unpack = HEADER.unpack_from
_PAYLOAD = slice(HEADER_SIZE, None)


class Decoder:
    """Takes the bytes of one stream, however they are cut, and gives what they hold.

    Args:
        max_payload: the longest payload accepted, in bytes, 0 to 4294967295.

    Raises:
        ValueError: `max_payload` is out of that range.
    """

    __slots__ = ("_bound", "_dropped", "_header_read", "_in_frame", "_max_payload", "_run", "_sample", "_shares_flag")

    def __init__(self, *, max_payload: int = DEFAULT_MAX_PAYLOAD) -> None:
        if not 0 <= max_payload <= MAX_LENGTH:
            raise ValueError(f"max_payload={max_payload} is out of range 0 to {MAX_LENGTH}")
        self._max_payload = max_payload
        self._bound = 2 * (max_payload + HEADER_SIZE)  # a frame of nothing but escapes
        self._run = bytearray()  # the open run, kept while it may become a packet
        self._in_frame = False  # False before the first flag and after a TOO_LONG
        self._header_read = False  # the open run's header needs no further look
        self._shares_flag = False  # the flag before the open run ended a packet
        self._dropped = 0  # bytes outside a frame: counted, not kept
        self._sample = b""  # the first of those

    @property
    def pending(self) -> int:
        """Bytes fed that neither an event nor a flag speaks for yet.

        Those of an open frame are held. Those outside a frame are counted only, and
        the number given stops at `2 * (max_payload + 9)`, the bound of what is held.
        """
        return len(self._run) if self._in_frame else min(self._dropped, self._bound)

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[Packet | Malformed]:
        """Take the next bytes of the stream: any number of them, none included.

        Returns:
            What they complete, in the order of the stream. Whatever the bytes are, it
            does not raise.
        """
        if not isinstance(data, bytes):
            data = bytes(memoryview(data))
        events: list[Packet | Malformed] = []
        if FLAG_BYTE not in data:
            self._hold(data, events)
            return events
        self._header_read = False
        if self._run or not self._in_frame:
            # Long frames: what a chunk ends and what it leaves open are most of it. To search
            # for one flag is cheap; to split looks at each byte in turn.
            end, _, rest = data.partition(FLAG)
            closed, flag, open_run = rest.rpartition(FLAG)
            runs = [self._end_open_run(end, events), *(closed.split(FLAG) if flag else ())]
        else:
            runs = data.split(FLAG)
            open_run = runs.pop()
        max_payload = self._max_payload
        give = events.append
        for run in filter(None, runs):  # nothing between two flags is nothing
            plain = run
            if ESCAPE_BYTE in run:
                if len(run) > LONG:
                    unescaped = unescape(run)
                else:  # what `unescape` does, without the call and where one kind is enough
                    unescaped = run.replace(ESCAPED_FLAG, FLAG)
                    if ESCAPE_BYTE in unescaped:
                        unescaped = unescaped.replace(ESCAPED_ESCAPE, ESCAPE)
                        if len(run) - len(unescaped) != run.count(ESCAPE):
                            unescaped = None
                if unescaped is None:
                    self._refuse(run, None, events)
                    continue
                plain = unescaped
            try:
                id, type, count, length = _unpack(plain)
            except struct_error:  # too short for a header
                self._refuse(run, plain, events)
                continue
            payload = plain[_PAYLOAD]
            if length == len(payload) <= max_payload:
                # The header's widths keep the fields in range: no second check.
                give(new_packet(Packet, (id, payload, type, count)))
            else:
                self._refuse(run, plain, events)
        self._shares_flag = bool(runs[-1]) and isinstance(events[-1], Packet)
        if open_run:
            self._hold(open_run, events)
        return events

    def feed_timeout(self) -> list[Malformed]:
        """Say that what is pending has been so for too long: give it as NOISE, unless it is a
        frame begun.

        Bytes outside any frame are none. Bytes behind a flag are, save where that flag has
        ended a packet: then nobody can tell a frame that shares it from a line end or the like
        behind the packet, and where no flag of its own comes they are held for the latter.

        Returns:
            One `Malformed`, and what comes up to the next flag belongs to the noise; nothing
            where a frame was begun, or nothing is pending.
        """
        events: list[Malformed] = []
        if not self._in_frame or self._shares_flag:
            self._in_frame = False
            self._drop(bytes(self._run))
            self._run.clear()
            self._report_dropped(events)
        return events

    def feed_eof(self) -> list[Malformed]:
        """Say that the stream has ended.

        Returns:
            One `Malformed` if it ended inside a frame (TRUNCATED) or in noise (NOISE),
            else nothing. The decoder is then as new and may be fed another stream.
        """
        events: list[Malformed] = []
        if self._run:
            events.append(Malformed.of(Reason.TRUNCATED, self._run))
            self._run.clear()
        self._report_dropped(events)
        self._in_frame = False
        return events

    def _end_open_run(self, end: bytes, events: list[Packet | Malformed]) -> bytes:
        """A flag came: give the whole of the run that it ends, nothing if it was noise."""
        if not self._in_frame:
            self._drop(end)
            self._report_dropped(events)
            self._in_frame = True
            return b""
        run = bytes(self._run) + end
        self._run.clear()
        return run

    def _hold(self, data: bytes, events: list[Packet | Malformed]) -> None:
        """Bytes with no flag among them: keep them if a packet can still come of them."""
        if not self._in_frame:
            self._drop(data)
            return
        run = self._run
        room = self._bound + 1 - len(run)
        run += data[:room]
        if self._header_read and len(run) <= self._bound:
            return
        self._header_read = announced_length(run) is not None or len(run) >= 2 * HEADER_SIZE
        if proof := self._too_long(run):
            events.append(Malformed.of(Reason.TOO_LONG, run[:proof]))
            self._in_frame = False
            self._drop(bytes(run[proof:]))
            self._drop(data[room:])
            run.clear()

    def _refuse(self, run: bytes, plain: bytes | None, events: list[Packet | Malformed]) -> None:
        """Say why a run that a flag has ended is no packet."""
        if proof := self._too_long(run):
            events.append(Malformed.of(Reason.TOO_LONG, run[:proof]))
            self._drop(run[proof:])
            self._report_dropped(events)
        elif plain is None:
            events.append(Malformed.of(Reason.BAD_ESCAPE, run))
        elif len(plain) < HEADER_SIZE:
            events.append(Malformed.of(Reason.TOO_SHORT, run))
        else:
            events.append(Malformed.of(Reason.LENGTH_MISMATCH, run))

    def _too_long(self, run: bytes | bytearray) -> int:
        """How many bytes of a run it takes to prove that it is too long; 0 if it is not."""
        header = announced_length(run)
        if header is not None and header[1] > self._max_payload:
            return header[0]
        return self._bound + 1 if len(run) > self._bound else 0

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if len(self._sample) < SAMPLE_SIZE:
            self._sample = (self._sample + data[:SAMPLE_SIZE])[:SAMPLE_SIZE]

    def _report_dropped(self, events: list[Packet | Malformed] | list[Malformed]) -> None:
        if self._dropped:
            events.append(Malformed(Reason.NOISE, self._dropped, self._sample))
            self._dropped = 0
            self._sample = b""


def decode(frame: bytes | bytearray | memoryview) -> Packet:
    """Give the packet of exactly one frame: a flag, a body, a flag and nothing else.

    Raises:
        MalformedFrame: for anything else. Its `reason` is what a decoder would say of
            the body; TRUNCATED where the closing flag is missing; NOISE where bytes
            stand outside the two flags; TOO_SHORT where nothing stands between them.
    """
    data = bytes(memoryview(frame))
    if data and not data.startswith(FLAG):
        raise MalformedFrame(Reason.NOISE, f"a frame begins with FE, not {data[0]:02X}")
    body, closing, rest = data[1:].partition(FLAG)
    if not closing:
        raise MalformedFrame(Reason.TRUNCATED, f"no closing FE in {len(data)} bytes")
    if not body:
        raise MalformedFrame(Reason.TOO_SHORT, "nothing between the two flags")
    event = Decoder(max_payload=MAX_LENGTH).feed(FLAG + body + FLAG)[0]
    if isinstance(event, Malformed):
        raise MalformedFrame(event.reason, f"{event.reason.value} ({event.size} bytes between flags)")
    if rest:
        raise MalformedFrame(Reason.NOISE, f"{len(rest)} bytes after the closing FE")
    return event
