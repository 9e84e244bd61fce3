"""The made-up socket of a stream: what stands in the system's buffers of it, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from packetcore._carrier import Carrier
from packetcore._session import Session
from packetcore._waiting import Handle
from packetcore.testing._clock import Clock

_MOST = 1 << 28
"""Bytes that a session may send at one time: a handler that sends for as long as there is room would
never end where there always is."""


class End:
    """The end of what comes: the peer has finished sending, or has gone.

    Args:
        error: what broke the connection; `None` where the peer has finished.
        truncated: whether it did so without the word that its carrier demands.
    """

    __slots__ = ("error", "truncated")

    def __init__(self, error: Exception | None = None, *, truncated: bool = False) -> None:
        self.error = error
        self.truncated = truncated


class Socket:
    """The `Host` of one session, and what its system does.

    Args:
        clock: the time.
        carrier: what to say of what carries the session.
        writes: keeps what is written, each write by itself.
        leave: called with what goes to the peer: bytes, or the end.
    """

    session: Session[Any]
    """To be set once it is made."""

    def __init__(
        self, clock: Clock, carrier: Carrier, writes: list[bytes], leave: Callable[[bytes | End], object]
    ) -> None:
        self.room: int | None = None
        """How many bytes the system takes yet; `None` for any number."""
        self.has_ended = False
        """Whether the peer has finished sending, or has gone."""
        self.was_reset = False
        """Whether the peer was reset."""
        self._clock = clock
        self._carrier = carrier
        self._writes = writes
        self._leave = leave
        self._unsent = bytearray()
        self._came: deque[bytes | End] = deque()
        self._is_reading = True
        self._must_end = False
        self._must_close = False
        self._has_left = False  # the peer knows of our end
        self._timer: Handle | None = None
        self._taken = 0  # bytes, by writes of one time
        self._taken_at = clock.now

    @property
    def unread(self) -> int:
        """Bytes that have come and that the session does not read."""
        return sum(len(item) for item in self._came if isinstance(item, bytes))

    def arrive(self, item: bytes | End) -> None:
        """Something comes from the peer."""
        self.has_ended |= isinstance(item, End)
        self._came.append(item)
        self._read()

    def drain(self) -> None:
        """There may be room for what waits."""
        if taken := self._take():
            self.session.sent_bytes(taken, self._clock.now)

    def write(self, data: bytes) -> int:
        """See `Host`."""
        if data:
            self._writes.append(data)
        self._unsent += data
        taken = self._take()
        self._taken = taken + (self._taken if self._taken_at == self._clock.now else 0)
        self._taken_at = self._clock.now
        if self._taken > _MOST:
            raise RuntimeError(
                f"{self._taken} bytes were sent at {self._clock.now} s and there is no end: limit the session's `room`"
            )
        return taken

    def write_eof(self) -> None:
        """See `Host`."""
        self._must_end = True
        self._go_on()

    def set_timer(self, at: float | None) -> None:
        """See `Host`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._clock.call_at(at, lambda: self.session.tick(self._clock.now))

    def pause_reading(self) -> None:
        """See `Host`."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """See `Host`."""
        self._is_reading = True
        self._clock.call_soon(self._read)

    def close(self) -> None:
        """See `Host`."""
        self._must_end = self._must_close = True
        self._go_on()

    def abort(self) -> None:
        """See `Host`."""
        self._unsent.clear()
        self.was_reset = self._has_left = True
        self._leave(End(ConnectionResetError("the other side has reset the connection")))
        self._clock.call_soon(self._lose)

    def wake(self) -> None:
        """See `Host`."""
        self._clock.call_soon(lambda: self.session.flush(self._clock.now))

    def carrier(self) -> Carrier:
        """See `Host`."""
        return self._carrier

    def _take(self) -> int:
        """Let what there is room for go to the peer. Returns how many bytes that was."""
        size = len(self._unsent) if self.room is None else min(self.room, len(self._unsent))
        if self.room is not None:
            self.room -= size
        if size:
            self._leave(bytes(self._unsent[:size]))
            del self._unsent[:size]
            self._go_on()
        return size

    def _go_on(self) -> None:
        """End what is to be ended, once all has gone."""
        if self._unsent:
            return
        if self._must_end and not self._has_left:
            self._has_left = True
            self._leave(End())
        if self._must_close:
            self._clock.call_soon(self._lose)

    def _lose(self, error: Exception | None = None) -> None:
        self.session.lost(error, self._clock.now)  # once more does nothing

    def _read(self) -> None:
        is_broken = any(isinstance(item, End) and item.error for item in self._came)
        while self._came and (self._is_reading or is_broken):
            item = self._came.popleft()
            if isinstance(item, bytes):
                self.session.received(item, self._clock.now)
            elif item.error is None:
                self.session.eof(self._clock.now, truncated=item.truncated)
            else:
                self._lose(item.error)
