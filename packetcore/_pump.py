"""The pump of a session: what is done for each chunk that comes and each packet that goes.

    chunk -> events -> handler -> frames -> one write

`Session` has the rest: how it begins and ends, what its times are, when the peer has to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from packetcore._events import OTHERS
from packetcore._host import Host
from packetcore._output import Output
from packetcore._owner import get_ident
from packetcore._packet import Packet
from packetcore._state import State

_OPEN = State.OPEN
"""Looking a member up in its enum takes longer than all else that a check costs."""


class Pumped(Protocol):
    """What the pump asks of a `Connection`."""

    state: State
    """Where the conversation stands."""

    frame_since: float | None
    """When the bytes pending began to come, `None` if there are none."""

    sent_at: float
    """When output was last taken."""

    def receive_data(self, data: bytes | bytearray | memoryview, now: float, /) -> list[Any]:
        """What these bytes of the peer complete."""


class Pump:
    """The part of a session that is done for each chunk and for each packet."""

    __slots__ = (
        "_connection",
        "_ease",
        "_host",
        "_is_framed",
        "_lost",
        "_must_arm",
        "_now",
        "_on_packet",
        "_on_packets",
        "_on_sent",
        "_output",
        "_paused",
        "_queue",
        "_refresh_at",
        "_room",
        "_running",
        "_tap",
        "_thread",
        "_unsent",
        "_woken",
        "_write_paused",
    )

    _connection: Pumped
    _host: Host
    _output: Output  # the connection's
    _queue: list[Any]  # what the handler has not heard of, the oldest last
    _on_packet: Callable[[Any, Any], object]
    _on_packets: Callable[[Any, list[Any]], object] | None  # in its place, for several at once
    _on_sent: Callable[[Any, int], object] | None
    _now: float
    _refresh_at: float  # from when on a chunk renews the session's place in the pool
    _unsent: int  # bytes that the host was given and the operating system did not take
    _room: int  # how much of the output may wait before it is too much
    _ease: int  # how much of the output may wait before a sender should
    _paused: bool  # by the application
    _write_paused: bool  # by the peer, who does not read
    _lost: bool  # the socket is gone
    _must_arm: bool  # the timer may have to fire earlier
    _thread: int  # the only one that may send; 0 where any may
    _running: bool  # and writes in the end what is sent meanwhile
    _woken: bool  # the host was, for what was sent while it was not running
    _is_framed: bool  # packets may be of any type
    _tap: Any  # who is told of each chunk; None for nobody

    def send(self, packet: Any, /) -> bool:
        """Send a packet, or a message: at the end of the chunk under way, or soon.

        A peer that leaves more than `max_outstanding` bytes unread is closed with
        SLOW_CONSUMER.

        Returns:
            Whether there is room for more; if not, better wait for `Handler.writable`.

        Raises:
            SessionClosed: the session is closing or closed.
            LocalProtocolError: the payload exceeds `max_payload`.
            TypeError: it is neither.
            WrongThread: this is not the session's own thread.
        """
        is_foreign = self._thread and self._thread != get_ident()
        is_other = packet.__class__ is not Packet and not self._is_framed
        if is_foreign or is_other or self._connection.state is not _OPEN:
            return self._send_other(packet)
        size = self._output.put(packet)
        if self._connection.state is not _OPEN:  # what encodes, a check or a codec, has ended it from inside
            self._output.take_back()
            return self._send_other(packet)
        if size > self._room:
            self._overflow()
        if not (self._running or self._woken):
            self._wake()
        return size <= self._ease

    def received(self, data: bytes | bytearray | memoryview, now: float, /) -> None:
        """The peer sent `data`, cut anywhere."""
        if self._tap is not None:
            self._tell_received(data)
        connection = self._connection
        if connection.state is not _OPEN or not data:
            self._received_late(data, now)
            return
        self._now = now
        outer, self._running = self._running, True  # a check or a codec may end the session from inside
        try:
            events = connection.receive_data(data, now)  # no Closed among them
        finally:
            self._running = outer
        if now >= self._refresh_at:
            self._refresh()
        events.reverse()
        self._queue[:0] = events
        self._pump()

    def _pump(self) -> None:
        """Deliver, write once, and see what the state and the times ask for."""
        if self._running:
            return
        if self._queue or self._output.size:
            self._running = True
            try:
                # A handler that hears of a write may send more, and one that ran into the end
                # of the session still gets the rest of what came before it.
                while True:
                    if self._queue and (not self._paused or self._lost):
                        try:
                            self._deliver_next()
                        except (Exception, KeyboardInterrupt, SystemExit) as error:
                            self._handler_failed(error)
                    elif self._output.size and not self._lost:
                        self._write()
                    else:
                        break
            finally:
                self._running = False
        connection = self._connection
        if self._lost or self._must_arm or connection.state is not _OPEN or connection.frame_since is not None:
            self._settle()

    def _deliver_next(self) -> None:
        queue = self._queue
        event = queue.pop()
        if type(event) is not Packet and type(event) in OTHERS:
            self._deliver(event)
        elif self._on_packets is None:
            self._on_packet(self, event)
        else:
            packets = [event]
            while queue and type(event := queue[-1]) not in OTHERS:
                packets.append(event)
                queue.pop()
            self._on_packets(self, packets)

    def _write(self) -> None:
        """Hand the host all that waits, as one."""
        connection = self._connection
        connection.sent_at = self._now
        data = self._output.join()
        size = len(data)
        self._unsent += size  # the host may say from within that they have gone
        try:
            taken = self._host.write(data)
        except BaseException:
            self._unsent -= size
            raise
        is_plain = not (self._on_sent or self._write_paused) and connection.state is _OPEN
        if is_plain and taken == size == self._unsent and size <= self._ease:  # all has gone, as nearly always
            self._unsent = 0
        else:
            self._written(taken)

    def _send_other(self, item: Any) -> bool:
        raise NotImplementedError

    def _overflow(self) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        raise NotImplementedError

    def _received_late(self, data: bytes | bytearray | memoryview, now: float) -> None:
        raise NotImplementedError

    def _tell_received(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    def _refresh(self) -> None:
        raise NotImplementedError

    def _deliver(self, event: Any) -> None:
        raise NotImplementedError

    def _handler_failed(self, error: Exception | KeyboardInterrupt | SystemExit) -> None:
        raise NotImplementedError

    def _written(self, taken: int) -> None:
        raise NotImplementedError

    def _settle(self) -> None:
        raise NotImplementedError
