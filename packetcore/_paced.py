"""A session that sends a frame at a time, with silence between two."""

from __future__ import annotations

from collections import deque

from packetcore._carrier import Address
from packetcore._host import Host
from packetcore._packet import AnyPacket
from packetcore._session import _ABORTED, _NEVER, Session, SessionEndpoint
from packetcore._state import State


class PacedSession(Session[AnyPacket]):
    """A session with `Config.interframe_delay`. To the application it is a `Session`: what waits for
    its time is outstanding.

    The next frame goes to the host once the one before has left the system (`Host.write`,
    `Session.sent_bytes`) and both it and the last bytes received are long enough ago. What the system
    takes is no sign of life of the peer: a bus takes all.
    """

    __slots__ = ("_frames", "_give_up_at", "_is_late", "_leaving", "_silent_until")

    def __init__(self, endpoint: SessionEndpoint[AnyPacket], host: Host, peer: Address, now: float) -> None:
        super().__init__(endpoint, host, peer, now)
        self._frames: deque[bytes] = deque()  # that wait for their time
        self._leaving = 0  # bytes that the host has and the system has not taken
        self._silent_until = -_NEVER  # by then the next may go
        self._is_late = False  # whether it is later than `_now` says
        self._give_up_at = _NEVER

    def received(self, data: bytes | bytearray | memoryview, now: float, /) -> None:
        """See `Pump`."""
        self._keep_silent(now)
        super().received(data, now)

    def sent_bytes(self, n: int, now: float) -> None:
        """See `Session`."""
        if not self._lost:
            self._leaving -= n
            self._keep_silent(now)
            self._must_arm = True
            self._count_sent(n, now)

    def tick(self, now: float) -> None:
        """See `Session`."""
        if self._frames and not self._lost:
            self._now = now
            self._write()  # before the session itself does, and takes what has gone for a sign of life
        if not self._lost:
            super().tick(now)

    def _keep_silent(self, now: float) -> None:
        self._silent_until = max(self._silent_until, now + self._endpoint.config.interframe_delay)

    def _write(self) -> None:
        frames = self._connection.frames_to_send()
        self._unsent += sum(map(len, frames))
        self._frames += frames
        taken = 0
        if self._frames and not (self._leaving or self._is_late or self._now < self._silent_until):
            frame = self._frames.popleft()
            self._leaving = len(frame)
            taken = self._host.write(frame)
            self._leaving -= taken
            if taken:
                self._keep_silent(self._now)
        self._must_arm = True
        if not self._lost:
            self._written(taken)

    def _overflow(self) -> None:
        self._is_late = not self._running
        super()._overflow()
        self._is_late = False

    def _hang_up(self) -> None:
        # Nothing is said of the end before what waits has gone, or `close_timeout` has passed.
        if self._frames and not (self._aborting or self._reason in _ABORTED):
            if self._connection.state is State.CLOSING:
                return  # for so long as the connection says
            timeout = self._endpoint.config.close_timeout
            if self._give_up_at == _NEVER and timeout is not None:
                self._give_up_at = self._now + timeout
            if self._now < self._give_up_at:
                return
            self._aborting = True
        super()._hang_up()

    def _arm(self) -> None:
        super()._arm()
        if self._lost or not self._frames:
            return
        deadline = self._give_up_at if self._leaving else min(self._silent_until, self._give_up_at)
        if deadline < self._timer_at:
            self._timer_at = deadline
            self._host.set_timer(deadline)

    def _finish(self) -> None:
        self._frames.clear()
        super()._finish()
