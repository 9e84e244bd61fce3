"""A tap on TCP: each client that comes has a socket to the target, and a link each way between the two.

What one side does the other sees: its bytes, how it finishes and how it breaks off, and that it does not read.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from packetcore import Address
from packetcore_sockets import READ_SIZE, Attempts, Connecting, Race, prepare, read_rest, reset_on_close
from packetcore_tap._connection import Ending, Flow, Line, TapConnection
from packetcore_tap._direction import Direction
from packetcore_tap._link import StreamLink

CONNECT_TIMEOUT = 10.0
"""Seconds that the target may take to answer, as long as a client of packetcore waits by default."""


class StreamFlow(Flow):
    """One direction of a TCP connection. Nothing moves until `start`.

    Args:
        line: what it is part of.
        number: the connection's.
        direction: which way.
        connection: whose it is.
    """

    _link: StreamLink

    def __init__(self, line: Line, number: int, direction: Direction, connection: StreamConnection) -> None:
        super().__init__(line, number, direction, StreamLink)
        self._connection = connection
        self._source: socket.socket | None = None
        self._sink: socket.socket | None = None
        self._arrived: deque[bytes] = deque()  # and not sent yet
        self._is_reading = False
        self._is_writing = False  # or waits for room to
        self.has_ended = False
        """Whether the source has."""
        self._is_broken = False  # with a reset
        self._has_told = False  # the sink, that the source has ended

    def start(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass on what comes from one socket to the other."""
        self._source, self._sink = source, sink
        self.go_on()

    @property
    def is_over(self) -> bool:
        """Whether nothing more can happen."""
        return self.has_ended and (self._has_told or self._link.is_black_hole)

    @property
    def holds_data(self) -> bool:
        """Whether something is under way."""
        return bool(self._arrived or self._link.size)

    def go_on(self) -> None:
        """See `Flow`. One piece in a turn, so that whoever reads has a chance to see each by itself."""
        if self._sink is None:
            return
        link, arrived, now = self._link, self._arrived, self._line.loop.time()
        if link.is_black_hole:
            arrived.clear()
        elif not link.is_stalled:
            if not arrived:
                arrived += link.receive(now)
            if arrived:
                self._send(self._sink, arrived)
            if not self._connection.is_open:
                return
            if not arrived and link.has_ended(now) and not self._has_told:
                self._tell_end(self._sink)
        self._watch(now)

    def source_broke(self, rest: bytes) -> None:
        """The source is no more; this is what it left."""
        if not self.has_ended:
            now = self._line.loop.time()
            self._link.send(rest, now)
            self._link.send_eof(now)
            self.has_ended = True
        self._is_broken = True
        self._has_told = False

    def sink_broke(self) -> None:
        """The sink is no more: what comes goes nowhere."""
        self._arrived.clear()
        self._link.black_hole()

    def finish(self) -> None:
        """Tell the sink that nothing more comes, and pass nothing on."""
        self.sink_broke()
        if self._sink is not None and not self._has_told:
            self._tell_end(self._sink)

    def stop(self) -> None:
        """Watch nothing any more. Idempotent."""
        loop = self._line.loop
        if self._is_reading and self._source is not None:
            loop.set_reader(self._source, None)
        if self._is_writing and self._sink is not None:
            loop.set_writer(self._sink, None)
        self._is_reading = self._is_writing = False
        self.call_off()

    def _send(self, sink: socket.socket, arrived: deque[bytes]) -> None:
        piece = arrived[0][: self._connection.until_fault(self)]
        try:
            size = sink.send(piece)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._connection.broke(sink, error)
            return
        if size < len(arrived[0]):
            arrived[0] = arrived[0][size:]
        else:
            arrived.popleft()
        self._connection.note(self, piece[:size])
        if self._connection.is_open and self._connection.opposite(self).has_ended:
            number = sink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # which nobody would find by reading
            if number:
                self._connection.broke(sink, OSError(number, os.strerror(number)))

    def _tell_end(self, sink: socket.socket) -> None:
        self._has_told = True
        if self._is_broken:
            self._connection.pass_reset(self.direction)
            return
        with suppress(OSError):  # it has gone: reading will tell
            sink.shutdown(socket.SHUT_WR)
        self._connection.note_end(self)
        self._connection.settle()

    def _watch(self, now: float) -> None:
        source, sink = self._source, self._sink
        if source is None or sink is None or not self._connection.is_open:
            return
        link, loop = self._link, self._line.loop
        must_read = not self.has_ended and link.room != 0
        if must_read != self._is_reading:
            self._is_reading = must_read
            loop.set_reader(source, self._readable if must_read else None)
        must_write = bool(self._arrived) and not link.is_stalled
        if must_write != self._is_writing:
            self._is_writing = must_write
            loop.set_writer(sink, self.go_on if must_write else None)
        self._go_on_at(None if self._arrived or self._has_told else link.next_deadline())

    def _readable(self) -> None:
        source, link = self._source, self._link
        if source is None or not self._is_reading:  # called off in the same turn
            return
        room = link.room
        try:
            data = source.recv(READ_SIZE if room is None else min(READ_SIZE, room))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._connection.broke(source, error)
            return
        now = self._line.loop.time()
        if data:
            link.send(data, now)
        else:
            self.has_ended = True
            link.send_eof(now)
        self.go_on()
        self._connection.settle()


class StreamConnection(TapConnection):
    """A TCP connection through a tap.

    Args:
        line: what it is part of.
        sock: accepted.
        client: whose it is.
    """

    def __init__(self, line: Line, sock: socket.socket, client: Address) -> None:
        super().__init__(line, client, is_stream=True)
        prepare(sock)
        self._sockets = [sock]
        self._to_server = StreamFlow(line, self.number, "to_server", self)
        self._to_client = StreamFlow(line, self.number, "to_client", self)
        self.to_server, self.to_client = self._to_server, self._to_client
        self._broken_by: Ending | None = None
        self._race: Race[tuple[socket.socket, Address]] | None = None
        self.begin()
        if self.is_open:
            self._connect()

    def close(self) -> None:
        """See `TapConnection`."""
        with self._line.loop.lock:
            if len(self._sockets) < 2:
                self.finish(Ending.CLOSED)
            for flow in (self._to_server, self._to_client):
                if self.is_open:
                    flow.finish()
                    flow.go_on()

    def broke(self, sock: socket.socket, error: OSError) -> None:
        """One of the sockets has failed: the other side hears of it behind what is under way."""
        if not self.is_open or sock.fileno() < 0:
            return
        if sock is self._sockets[0]:
            there, back, by = self._to_server, self._to_client, Ending.RESET_BY_CLIENT
        else:
            there, back, by = self._to_client, self._to_server, Ending.RESET_BY_SERVER
        self._broken_by = self._broken_by or by
        rest = read_rest(sock)
        there.stop()
        back.stop()
        sock.close()
        there.source_broke(rest)
        back.sink_broke()
        there.go_on()
        if self.is_open:
            back.go_on()
            self.settle()

    def opposite(self, flow: StreamFlow) -> StreamFlow:
        """The other direction."""
        return self._to_client if flow is self._to_server else self._to_server

    def pass_reset(self, direction: Direction) -> None:
        """That one side has broken off reaches the other."""
        self.finish(Ending.RESET_BY_CLIENT if direction == "to_server" else Ending.RESET_BY_SERVER)

    def settle(self) -> None:
        """End it where nothing more can happen."""
        if self._to_server.is_over and self._to_client.is_over:
            self.finish(self._broken_by or Ending.FINISHED)

    def release(self, ending: Ending) -> None:
        """See `TapConnection`."""
        if self._race is not None:
            self._race.cancel()
        flows = (self._to_server, self._to_client)
        has_lost = any(flow.holds_data for flow in flows)
        for flow in flows:
            flow.stop()
        for sock in self._sockets:
            if sock.fileno() < 0:
                continue
            if has_lost or ending not in (Ending.FINISHED, Ending.CLOSED):
                reset_on_close(sock)
            sock.close()

    def _connect(self) -> None:
        loop = self._line.loop
        attempts = Attempts(self._line.target)
        self._timers.append(loop.call_at(loop.time() + CONNECT_TIMEOUT, self._time_out))
        done: Callable[[tuple[socket.socket, Address] | Exception | None], object] = partial(self._connected, attempts)
        self._race = Race(loop, attempts, partial(Connecting, loop), done, lambda connected: connected[0].close())

    def _connected(self, attempts: Attempts, result: tuple[socket.socket, Address] | Exception | None) -> None:
        self._race = None
        if not isinstance(result, tuple):
            host, port = self._line.target[0][4][:2]
            self.finish(Ending.UNREACHABLE, result if isinstance(result, OSError) else attempts.error(host, port))
            return
        sock, self.server = result
        self.connected()
        prepare(sock)
        self._sockets.append(sock)
        client = self._sockets[0]
        self._to_server.start(client, sock)
        if self.is_open:
            self._to_client.start(sock, client)

    def _time_out(self) -> None:
        if self._race is not None:
            self.finish(Ending.UNREACHABLE, TimeoutError(f"no answer within {CONNECT_TIMEOUT:g} s"))
