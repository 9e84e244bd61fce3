"""One TCP connection, with TLS, WebSocket or neither: readiness becomes a session's inputs, the session's
verbs become calls on a socket that never waits. Nothing is decided here.

What the application sends waits in one place, or where there are records in two: as it came, and as records. So
many records are made as the socket may take in a turn, so that of what a slow peer leaves only a
small part lies here made up.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from packetcore import Address, Carrier, Endpoint, Handle, Host, Session
from packetcore_sockets._carrier import carrier_of
from packetcore_sockets._loop import Loop
from packetcore_sockets._records import Records
from packetcore_sockets._tcp import prepare, read_rest, reset_on_close
from packetcore_sockets._timers import Timers

READ_SIZE = 64 * 1024
"""The most that one turn reads from one socket: what an `Inbox` holds."""

WRITE_SIZE = 256 * 1024
"""Bytes after which one turn encrypts no more for one socket."""

PIECE = 64 * 1024
"""Bytes that are encrypted at once."""


class StreamSocket:
    """The `packetcore.Host` of one connected socket, which it owns. Its session begins with it.

    Args:
        loop: watches the socket.
        endpoint: whose session it is.
        sock: connected.
        peer: its other end, as `accept` gave it: of a peer that has gone the socket knows none.
        tls: TLS, or other records, agreed on; `None` for plain TCP.
        new_session: makes the session, where that is of another kind than its endpoint says.
        timers: the loop's, where it has some for all its sockets.
    """

    __slots__ = (
        "__weakref__",
        "_error",
        "_has_ended",
        "_has_said_goodbye",
        "_is_closing",
        "_is_finishing",
        "_is_gone",
        "_is_reading",
        "_is_writing",
        "_loop",
        "_ping_timer",
        "_plain",
        "_sock",
        "_time",
        "_timers",
        "_tls",
        "_unsent",
        "session",
    )

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        tls: Records | None = None,
        new_session: Callable[[Endpoint[Any], Host, Address, float], Session[Any]] | None = None,
        timers: Timers | None = None,
    ) -> None:
        prepare(sock)
        self._loop = loop
        self._time = loop.time
        self._sock = sock
        self._tls = tls
        self._plain = bytearray()  # where there are records: what they are to be made of
        self._unsent = bytearray()  # what is to be sent as it is
        self._timers = timers or Timers(loop)
        self._ping_timer: Handle | None = None
        self._is_reading = False
        self._is_writing = False  # or waits for room to
        self._has_ended = False  # the peer has
        self._is_finishing = False  # sending ends once nothing is unsent,
        self._is_closing = False  # and the socket with it
        self._has_said_goodbye = False
        self._is_gone = False
        self._error: OSError | None = None  # that broke it
        self.session: Session[Any] = (new_session or endpoint.session_type)(endpoint, self, peer, loop.time())
        self.resume_reading()
        self.session.opened(loop.time())
        if tls is not None:
            self._ping_later(tls)
            self._decrypt(tls, b"")  # what came with the end of the handshake

    # What the session calls.

    def write(self, data: bytes) -> int:
        """See `packetcore.Host`."""
        tls = self._tls
        if self._unsent or self._plain or not data or (tls is not None and len(data) > PIECE):
            return self._write_behind(data)
        if tls is not None:
            tls.send(data)
            data = tls.take()
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error)
            return 0
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._watch_room()
        return sent if tls is None else tls.went(sent)

    def write_eof(self) -> None:
        """See `packetcore.Host`."""
        self._is_finishing = True
        self._finish()

    def set_timer(self, at: float | None) -> None:
        """See `packetcore.Host`."""
        if not self._is_gone:
            self._timers.set(self, at)

    def pause_reading(self) -> None:
        """See `packetcore.Host`."""
        if self._is_reading:
            self._is_reading = False
            self._loop.set_reader(self._sock, None)

    def resume_reading(self) -> None:
        """See `packetcore.Host`."""
        if not (self._is_reading or self._has_ended or self._is_closing or self._is_gone):
            self._is_reading = True
            self._loop.set_reader(self._sock, self._readable)

    def close(self) -> None:
        """See `packetcore.Host`."""
        self.pause_reading()
        self._is_closing = True
        self._finish()

    def abort(self) -> None:
        """See `packetcore.Host`."""
        self._lose(None)

    def wake(self) -> None:
        """See `packetcore.Host`."""
        self._loop.call_soon(self._flush)

    def carrier(self) -> Carrier:
        """See `packetcore.Host`."""
        carrier = carrier_of(self._sock)
        return carrier if self._tls is None else self._tls.carrier(carrier)

    # What the loop calls. Another callback of the same turn may have called it off.

    def _readable(self) -> None:
        if not self._is_reading:
            return
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not data:
            self._end(truncated=self._tls is not None)  # else the records had said so, and nothing more was read
        elif self._tls is None:
            self.session.received(data, self._time())
        else:
            self._decrypt(self._tls, data)

    def _writable(self) -> None:
        if not self._is_gone:
            self._send_on()
            self._finish()

    def tick(self) -> None:
        """Its timer has fired."""
        self.session.tick(self._time())

    def _flush(self) -> None:
        self.session.flush(self._time())

    # What both have done.

    def _decrypt(self, tls: Records, data: bytes) -> None:
        if plain := tls.receive(data):
            self.session.received(plain, self._time())
        if tls.heard():
            self.session.touch(self._time())
        if self._is_gone:
            return
        if tls.error is not None:
            tls.close()
        self._say(tls)  # it may have something to say itself
        if tls.error is not None:
            self._lose(tls.error)
        elif tls.at_end:
            self._end(truncated=False)

    def _say(self, tls: Records) -> None:
        if records := tls.take():
            self._unsent += records
            self._send_on()

    def _ping_later(self, tls: Records) -> None:
        if tls.ping_interval is not None and not self._is_gone:
            self._ping_timer = self._loop.call_at(self._time() + tls.ping_interval, lambda: self._ping(tls))

    def _ping(self, tls: Records) -> None:
        if not (self._unsent or self._plain):  # else it would only wait behind that
            tls.ping()
            self._say(tls)
        self._ping_later(tls)

    def _end(self, *, truncated: bool) -> None:
        if not self._is_gone:
            self.pause_reading()
            self._has_ended = True
            self.session.eof(self._time(), truncated=truncated)

    def _write_behind(self, data: bytes) -> int:
        """Send what waits, or this after it."""
        must_wait = bool(self._unsent and data)
        if self._tls is None:
            self._unsent += data
        else:
            self._plain += data
        return 0 if must_wait else self._push()

    def _send_on(self) -> None:
        if gone := self._push():
            self.session.sent_bytes(gone, self._time())
        if self._tls is not None and not (self._unsent or self._is_gone) and (records := self._tls.take()):
            self._unsent += records  # what it had to say waited for room
            self._push()

    def _push(self) -> int:
        """Send what the socket takes. Returns how many bytes of the application's have gone."""
        gone = 0
        tls = self._tls
        while tls is not None and self._plain and len(self._unsent) < PIECE and gone < WRITE_SIZE:
            with memoryview(self._plain) as plain:
                tls.send(plain[:PIECE])
            del self._plain[:PIECE]
            self._unsent += tls.take()
            gone += self._send()
        if self._unsent and not gone:
            gone = self._send()
        self._watch_room()
        return gone

    def _send(self) -> int:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._break(error)
            return 0
        del self._unsent[:sent]
        return sent if self._tls is None else self._tls.went(sent)

    def _watch_room(self) -> None:
        must_write = bool(self._unsent or self._plain)
        if must_write != self._is_writing and not self._is_gone:
            self._is_writing = must_write
            self._loop.set_writer(self._sock, self._writable if must_write else None)

    def _finish(self) -> None:
        """End what is to be ended, once nothing is unsent."""
        if self._tls is not None and not self._has_said_goodbye and self._may_finish():
            self._has_said_goodbye = True
            self._tls.close(going_away=self.session.endpoint.draining)
            self._unsent += self._tls.take()
            self._send_on()
        if not self._may_finish():
            return
        if self._is_closing:
            self._lose(None)
            return
        self._is_finishing = False
        if self._tls is None or self._tls.ends_socket:
            with suppress(OSError):  # the peer has gone: reading will tell
                self._sock.shutdown(socket.SHUT_WR)

    def _may_finish(self) -> bool:
        return (self._is_finishing or self._is_closing) and not (self._unsent or self._plain or self._is_gone)

    def _break(self, error: OSError) -> None:
        """Nothing can be sent any more; what the system has received still counts."""
        if self._is_gone:  # a reply to what came before it broke
            self._lose(self._error)
            return
        rest = read_rest(self._sock)
        if self._tls is not None and rest:
            rest = self._tls.receive(rest)
        self._error = error
        self._release()
        self.session.received(rest, self._time())
        self.session.lost(error, self._time())

    def _lose(self, error: OSError | None) -> None:
        self._release()
        self.session.lost(error, self._time())

    def _release(self) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        self.pause_reading()
        if self._is_writing:
            self._loop.set_writer(self._sock, None)
        self._timers.set(self, None)
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        if self._unsent or self._plain or self.session.outstanding:  # a paced session holds some of it itself
            reset_on_close(self._sock)
        self._sock.close()
        self._unsent.clear()  # the session may live on for a while, and hold this
        self._plain.clear()
