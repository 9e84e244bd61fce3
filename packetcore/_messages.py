"""Messages: a payload cut into packets, and runs of packets put together again.

The format has a count and no fragment number, so a run can only be joined in the order
in which it was sent: over a stream, never over UDP.
"""

from __future__ import annotations

from collections import OrderedDict

from packetcore._events import Malformed, Message
from packetcore._packet import MAX_COUNT, Packet
from packetcore._reasons import Reason


def split(payload: bytes | bytearray | memoryview, *, id: int, type: int = 0, chunk: int) -> list[Packet]:
    """Cut a payload into packets of at most `chunk` bytes, each bearing their count.

    An empty payload takes one empty packet.

    Raises:
        ValueError: `chunk` is below 1, a field is out of its range, or more than 65535
            packets would be needed.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk} must be at least 1 byte")
    view = memoryview(payload).cast("B")
    count = max(1, -(-len(view) // chunk))
    if count > MAX_COUNT:
        raise ValueError(
            f"payload of {len(view)} bytes takes {count} packets of {chunk} bytes; a message has at most {MAX_COUNT}"
        )
    return [Packet(id, view[at * chunk : (at + 1) * chunk], type=type, count=count) for at in range(count)]


class _Run:
    __slots__ = ("begun", "count", "payload", "refused", "seen")

    def __init__(self, count: int, now: float) -> None:
        self.count = count
        self.seen = 0
        self.payload = bytearray()
        self.refused = False  # too long: its other packets are counted and dropped
        self.begun = now


class Joiner:
    """Puts runs of packets with the same id and type back together.

    Times are seconds since any epoch, supplied by the caller; one before a time given
    earlier counts as that earlier one.

    Args:
        max_size: the longest message, in bytes.
        max_pending: how many runs may be incomplete at a time; one more gives up the
            oldest. Together they bound memory: `max_size * max_pending` bytes.
        timeout: how long a run may stay incomplete, in seconds from its first packet;
            `None` for ever.

    Raises:
        ValueError: one of them is too small.
    """

    __slots__ = ("_max_pending", "_max_size", "_now", "_runs", "_timeout")

    def __init__(self, max_size: int = 4 * 1024 * 1024, max_pending: int = 4, timeout: float | None = 30.0) -> None:
        if max_size < 1 or max_pending < 1 or (timeout is not None and not timeout > 0):
            raise ValueError(f"max_size={max_size}, max_pending={max_pending}, timeout={timeout} must be above 0")
        self._max_size = max_size
        self._max_pending = max_pending
        self._timeout = timeout
        self._runs: OrderedDict[tuple[int, int], _Run] = OrderedDict()
        self._now = float("-inf")

    def __len__(self) -> int:
        """How many runs are incomplete."""
        return len(self._runs)

    def add(self, packet: Packet, now: float) -> list[Message | Malformed]:
        """Take the next packet of the stream.

        Returns:
            The message that it completes, if it does; before that, a `Malformed` for a
            run that it shows to be broken: COUNT_MISMATCH when its count is not that
            of the run under way, which is dropped and begun anew with this packet;
            MESSAGE_TOO_LONG when the run passes `max_size`, the rest of which is then
            dropped, so that it does not pass for the start of the next message;
            MESSAGE_INCOMPLETE for the oldest run when there are more than `max_pending`.
        """
        self._now = max(self._now, now)
        events: list[Message | Malformed] = []
        key = (packet.id, packet.type)
        run = self._runs.get(key)
        if run is not None and packet.count != run.count:
            events += self._give_up(key, Reason.COUNT_MISMATCH)
            run = None
        if run is None:
            if packet.count <= 1:
                if len(packet.payload) > self._max_size:
                    events.append(Malformed.of(Reason.MESSAGE_TOO_LONG, packet.payload))
                else:
                    events.append(Message(packet.id, packet.payload, packet.type))
                return events
            if len(self._runs) >= self._max_pending:
                events += self._give_up(next(iter(self._runs)), Reason.MESSAGE_INCOMPLETE)
            run = self._runs[key] = _Run(packet.count, self._now)
        run.seen += 1
        if not run.refused:
            run.payload += packet.payload
            if len(run.payload) > self._max_size:
                events.append(Malformed.of(Reason.MESSAGE_TOO_LONG, run.payload))
                run.refused = True
                run.payload.clear()
        if run.seen == run.count:
            del self._runs[key]
            if not run.refused:
                events.append(Message(packet.id, bytes(run.payload), packet.type))
        return events

    def next_deadline(self) -> float | None:
        """When the oldest incomplete run is to be given up; `None` if there is none."""
        if self._timeout is None or not self._runs:
            return None
        return next(iter(self._runs.values())).begun + self._timeout

    def expire(self, now: float) -> list[Malformed]:
        """Give up the runs whose time is over, and only touch those."""
        self._now = max(self._now, now)
        expired: list[Malformed] = []
        while (deadline := self.next_deadline()) is not None and deadline <= self._now:
            expired += self._give_up(next(iter(self._runs)), Reason.MESSAGE_INCOMPLETE)
        return expired

    def give_up(self) -> list[Malformed]:
        """The stream has ended: give up every run that is incomplete."""
        return [event for key in list(self._runs) for event in self._give_up(key, Reason.MESSAGE_INCOMPLETE)]

    def _give_up(self, key: tuple[int, int], reason: Reason) -> list[Malformed]:
        run = self._runs.pop(key)
        return [] if run.refused else [Malformed.of(reason, run.payload)]
