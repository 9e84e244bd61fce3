"""One socket: readiness becomes a session's inputs, the session's verbs become calls on the
socket. Nothing is decided here."""

from __future__ import annotations

import socket
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE
from ssl import SSLError, SSLSocket, SSLWantReadError, SSLWantWriteError
from time import monotonic

from packetcore import Address, Endpoint
from packetcore_blocking._loop import Loop, Timer, after
from packetcore_blocking._session import LockedSession
from packetcore_sockets import reset_on_close

READ_SIZE = 64 * 1024
"""The most that one turn reads from one socket: what an `Inbox` holds."""

WRITE_SIZE = 256 * 1024
"""The most that one turn writes to one socket."""

TLS_RECORD = 16 * 1024
"""The most that TLS sends as one: of more it tells nothing until all of it has gone."""


class Socket:
    """An open, non-blocking socket: the `Host` that a session drives.

    Args:
        sock: connected. Where it has TLS and that is not agreed on yet, the session opens
            once it is, within `connect_timeout`.
        peer: its other end.
    """

    def __init__(self, loop: Loop, sock: socket.socket, endpoint: Endpoint, peer: Address) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # the peer may be gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session = LockedSession(loop, endpoint, self, peer, monotonic())
        self._loop = loop
        self._sock = sock
        self._timer: Timer | None = None
        self._unsent = bytearray()
        self._is_tls = isinstance(sock, SSLSocket)
        self._write_size = TLS_RECORD if self._is_tls else WRITE_SIZE
        self._watched = 0
        self._to_read = EVENT_READ  # what to wait for: TLS may have to write before it can
        self._to_write = EVENT_WRITE  # read on, and the reverse
        self.opened = False
        """Whether TLS is agreed on, where it has that, and the session has begun."""
        self._reading = True
        self._at_eof = False
        self._ending = False  # sending ends once nothing is unsent
        self._ended = False
        self._closing = False  # and the socket with it
        self._closed = False
        loop.open.add(self._shut)
        if isinstance(sock, SSLSocket):
            self.set_timer(after(endpoint.config.connect_timeout))
        self._read()

    # What the session calls.

    def write(self, data: bytes) -> int:
        sent = 0
        if not self._unsent:
            try:
                sent = self._sock.send(data if len(data) <= self._write_size else data[: self._write_size])
            except (BlockingIOError, InterruptedError, SSLWantWriteError):
                pass
            except SSLWantReadError:
                self._to_write = EVENT_READ
            except OSError as error:
                self._lose(error)
                return 0
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._watch()
        return sent

    def write_eof(self) -> None:
        self._ending = True
        self._send()

    def set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def pause_reading(self) -> None:
        self._reading = False
        self._watch()

    def resume_reading(self) -> None:
        self._reading = True
        self._watch()

    def close(self) -> None:
        self._ending = self._closing = True
        self._send()

    def abort(self) -> None:
        self._lose(None)

    def wake(self) -> None:
        self._loop.call_soon(lambda: self.session.flush(monotonic()))

    # What the loop calls.

    def _readable(self, mask: int) -> None:
        """As `_ready`, for a socket that is watched for nothing else and has no TLS: the usual."""
        if not self._reading:  # what another socket brought in the same turn has stopped it
            return
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self.session.received(data, monotonic())
        else:
            self._finished()

    def _finished(self) -> None:
        self._at_eof = True
        self.session.eof(monotonic())
        self._watch()

    def _ready(self, mask: int) -> None:
        if mask & self._to_read and self._wants_to_read():
            self._read()
        if mask & self._to_write and not self._closed:
            self._send()

    def _tick(self) -> None:
        self._timer = None
        if self.opened:
            self.session.tick(monotonic())
        else:
            self._lose(None)

    def _shut(self) -> None:
        self.session.abort()
        self.session.flush(monotonic())

    # What both have done.

    def _wants_to_read(self) -> bool:
        return self._reading and not (self._at_eof or self._closing or self._closed)

    def _read(self) -> None:
        self._to_read = EVENT_READ
        try:
            if self.opened:
                self._receive()
            else:
                self._open()
        except (BlockingIOError, InterruptedError, SSLWantReadError):
            pass
        except SSLWantWriteError:
            self._to_read = EVENT_WRITE
        except OSError as error:
            self._lose(error)
        self._watch()

    def _open(self) -> None:
        if isinstance(self._sock, SSLSocket):
            self._sock.do_handshake()
        self.opened = True
        self.set_timer(None)
        self.session.opened(monotonic())

    def _receive(self) -> None:
        data = self._sock.recv(READ_SIZE)
        if self._is_tls:
            data += self._held_back()
        if data:
            self.session.received(data, monotonic())
        else:
            self._finished()

    def _held_back(self) -> bytes:
        """What no selector sees, because TLS has it already."""
        data = b""
        while isinstance(self._sock, SSLSocket) and (held := self._sock.pending()):
            data += self._sock.recv(held)
        return data

    def _send(self) -> None:
        """Send what is unsent, or a good part of it; then end what is to be ended."""
        self._to_write = EVENT_WRITE
        try:
            size, written = self._write_size, 0
            while self._unsent and written < WRITE_SIZE:
                sent = self._sock.send(self._unsent[:size])
                del self._unsent[:sent]
                written += sent if sent == size else WRITE_SIZE  # less means that there is no room
                self.session.sent_bytes(sent, monotonic())
            if self._ending and not (self._unsent or self._ended or self._closed):
                self._end()
        except (BlockingIOError, InterruptedError, SSLWantWriteError):
            pass
        except SSLWantReadError:
            self._to_write = EVENT_READ
        except OSError as error:
            self._lose(error)
        if self._closing and self._ended:
            self._lose(None)
        self._watch()

    def _end(self) -> None:
        if isinstance(self._sock, SSLSocket):
            try:
                self._sock.unwrap()
            except SSLWantWriteError:
                raise
            except SSLError:
                pass  # the peer was told; it has not said the same, or sends on
            # Of what still comes only the end counts, and TCP's will do.
            self._sock = socket.socket(fileno=self._sock.detach())
            self._sock.setblocking(False)
        self._ended = True
        self._sock.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        wanted = self._to_read if self._wants_to_read() else 0
        if self._unsent or (self._ending and not self._ended):
            wanted |= self._to_write
        if wanted != self._watched and not self._closed:
            self._watched = wanted
            is_usual = wanted == EVENT_READ and self.opened and not self._is_tls
            self._loop.watch(self._sock.fileno(), wanted, self._readable if is_usual else self._ready)

    def _lose(self, error: OSError | None) -> None:
        if not self._closed:
            self._closed = True
            self._loop.watch(self._sock.fileno())
            self._loop.open.discard(self._shut)
            if self._unsent:
                reset_on_close(self._sock)
            self._sock.close()
            self._unsent.clear()  # the session may live on for a while, and hold this
            self.session.lost(error, monotonic())
