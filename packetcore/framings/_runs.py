"""Streams that one byte cuts into runs, each of which is a frame in some form or none."""

from __future__ import annotations

from packetcore._events import Malformed
from packetcore._reasons import Reason
from packetcore.framings._dropped import Dropped
from packetcore.framings._framing import Data, Frames, as_bytes


class RunDecoder:
    """The part of a decoder that finds the runs; a subclass says what is in them.

    A run is judged by its own bytes alone, and the flag that ends it begins the next, so a
    broken one never reaches into the one after it. An empty one is nothing.

    Args:
        flag: the byte that ends each run.
        bound: the most bytes that the run of a frame of `max_frame` bytes can have.
        max_frame: the longest frame that is handed out, in bytes.
        opens: whether a flag stands in front of each frame too. What comes before the first
            one is then noise; else it is a frame.
    """

    __slots__ = ("_bound", "_dropped", "_flag", "_flag_byte", "_in_frame", "_max_frame", "_opens", "_run", "_shared")

    def __init__(self, flag: bytes, bound: int, max_frame: int, opens: bool) -> None:
        self._flag = flag
        self._flag_byte = flag[0]
        self._bound = bound
        self._max_frame = max_frame
        self._opens = opens
        self._run = bytearray()  # the open run, kept while it may become a frame
        self._in_frame = not opens  # False before the first flag and after a TOO_LONG
        self._shared = False  # the flag before the open run ended a frame, and may begin none
        self._dropped = Dropped()

    @property
    def pending(self) -> int:
        return len(self._run) if self._in_frame else min(self._dropped.size, self._bound)

    def feed(self, data: Data, /) -> Frames:
        data = as_bytes(data)
        events: Frames = []
        if self._flag_byte not in data:
            self._hold(data, events)
            return events
        flag = self._flag
        if self._run or not self._in_frame:
            # Long frames: what a chunk ends and what it leaves open are most of it. To search
            # for one flag is cheap; to split looks at each byte in turn.
            end, _, rest = data.partition(flag)
            closed, found, open_run = rest.rpartition(flag)
            runs = [self._end_open_run(end, events), *(closed.split(flag) if found else ())]
        else:
            runs = data.split(flag)
            open_run = runs.pop()
        try:
            self._take([*filter(None, runs)], events)
        except BaseException:  # a check ends the program; the rest of what was fed is lost
            self._begin_anew()
            raise
        self._shared = self._opens and bool(runs[-1]) and isinstance(events[-1], bytes)
        if open_run:
            self._hold(open_run, events)
        return events

    def feed_eof(self) -> list[Malformed]:
        events = [Malformed.of(Reason.TRUNCATED, self._run)] if self._run else self._dropped.take()
        self._begin_anew()
        return events

    def feed_timeout(self) -> list[Malformed]:
        # Behind a flag that has ended a frame, nobody can tell one that shares it from a line
        # end or the like; where no flag of its own comes, it is held for the latter.
        if not self.pending or (self._in_frame and not self._shared):
            return []
        self._in_frame = self._shared = False
        self._dropped.add(bytes(self._run))
        self._run.clear()
        return self._dropped.take()

    def _begin_anew(self) -> None:
        self._run.clear()
        self._dropped.take()
        self._in_frame = not self._opens
        self._shared = False

    def _take(self, runs: list[bytes], events: Frames) -> None:
        """Give what these whole runs are; none of them is empty."""
        raise NotImplementedError

    def _refuse(self, run: bytes, reason: Reason, events: Frames) -> None:
        """Say why a run is no frame: because it is too long, if it is, else for `reason`."""
        proof = self._bound + 1
        if len(run) < proof:
            events.append(Malformed.of(reason, run))
            return
        events.append(Malformed.of(Reason.TOO_LONG, run[:proof]))
        self._dropped.add(run[proof:])
        events += self._dropped.take()

    def _end_open_run(self, end: bytes, events: Frames) -> bytes:
        """A flag came: give the whole of the run that it ends, nothing if it was noise."""
        if not self._in_frame:
            self._dropped.add(end)
            events += self._dropped.take()
            self._in_frame = True
            return b""
        run = bytes(self._run) + end
        self._run.clear()
        return run

    def _hold(self, data: bytes, events: Frames) -> None:
        """Bytes with no flag among them: keep them if a frame can still come of them."""
        if not self._in_frame:
            self._dropped.add(data)
            return
        run = self._run
        room = self._bound + 1 - len(run)
        run += data[:room]
        if len(run) > self._bound:
            events.append(Malformed.of(Reason.TOO_LONG, run))
            run.clear()
            self._in_frame = False
            self._dropped.add(data[room:])
