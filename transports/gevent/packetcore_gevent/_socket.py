"""One socket: the loop's callbacks become a session's inputs, the session's verbs become
calls on a non-blocking socket. Nothing is decided here.

No greenlet stands behind a connection. The callbacks run in the hub, where gevent refuses
to switch: a handler that tries to block fails at once and does not hold up the others.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLWantReadError, SSLWantWriteError
from time import monotonic

from gevent import get_hub

from packetcore import Address, Endpoint, Session
from packetcore_sockets import reset_on_close

CHUNK = 64 * 1024
"""Bytes to read at once: more than a TLS record holds, so that OpenSSL keeps none back."""

TLS_RECORD = 16 * 1024
"""Bytes that TLS sends as one. Of a longer write it tells nothing until all has gone."""


class SocketHost:
    """The `Host` of a connected socket, which it owns, on this thread's hub."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, peer: Address) -> None:
        with suppress(OSError):  # the peer may be gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._sock = sock
        self._unwrap: Callable[[], object] | None = getattr(sock, "unwrap", None)  # TLS has it
        self._loop = get_hub().loop
        self._reader = self._loop.io(sock.fileno(), 1)
        self._writer = self._loop.io(sock.fileno(), 2)
        self._timer = self._loop.timer(0)
        self._unsent = bytearray()
        self._ending: Callable[[], object] | None = None  # what to do once all has gone
        self.session = Session(endpoint, self, peer, monotonic())
        self.resume_reading()
        self.session.opened(monotonic())

    # What the session calls.

    def write(self, data: bytes) -> int:
        sent = 0
        if not self._unsent:
            try:
                sent = self._sock.send(data[:TLS_RECORD] if self._unwrap else data)
            except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
                pass
            except OSError as error:
                self.abort(error)
                return 0
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._writer.start(self._writable)
        return sent

    def write_eof(self) -> None:
        # A TLS socket is a plain one after this: what still comes is only waited out.
        self._ending = lambda: self._sock.shutdown(socket.SHUT_WR)
        self._writable()

    def set_timer(self, at: float | None) -> None:
        self._timer.close()
        if at is not None:
            self._timer = self._loop.timer(max(0.001, at - monotonic()))  # libuv wants no less
            self._timer.start(lambda: self.session.tick(monotonic()))

    def pause_reading(self) -> None:
        self._is_reading = False
        self._reader.stop()

    def resume_reading(self) -> None:
        self._is_reading = True
        self._reader.start(self._readable, pass_events=True)

    def close(self) -> None:
        self.pause_reading()
        self._ending = self.abort
        self._writable()

    def abort(self, error: OSError | None = None) -> None:
        for watcher in (self._reader, self._writer, self._timer):
            watcher.close()
        if self._unsent:
            reset_on_close(self._sock)
        self._sock.close()
        self._unsent.clear()
        self._ending = None
        self.session.lost(error, monotonic())

    def wake(self) -> None:
        self._loop.run_callback(lambda: self.session.flush(monotonic()))

    # What the loop calls.

    def _readable(self, events: int) -> None:
        if events < 0:  # libuv stops watching a socket that broke: there may be more to read
            self._reader.stop()
            self.resume_reading()
        try:
            data = self._sock.recv(CHUNK)
        except (BlockingIOError, SSLWantReadError):
            pass
        except SSLWantWriteError:  # TLS has to answer the peer before it goes on
            self._reader.stop()
            self._writer.start(self._writable)
            return
        except OSError as error:
            self.abort(error)
        else:
            if data:
                self.session.received(data, monotonic())
            else:
                self.pause_reading()
                self.session.eof(monotonic())
        if self._unsent:
            self._writable()  # TLS may have waited for what came

    def _writable(self) -> None:
        if self._is_reading:
            self.resume_reading()
        sent = 0
        try:
            if self._unsent:
                sent = self._sock.send(self._unsent[:TLS_RECORD] if self._unwrap else self._unsent)
        except SSLWantReadError:
            self._writer.stop()
            return
        except (BlockingIOError, SSLWantWriteError):
            pass
        except OSError as error:
            self.abort(error)
        if sent:
            del self._unsent[:sent]
            self.session.sent_bytes(sent, monotonic())
        if self._unsent or (self._ending and not self._end(self._ending)):
            self._writer.start(self._writable)
        else:
            self._writer.stop()

    def _end(self, ending: Callable[[], object]) -> bool:
        """Say goodbye in TLS, then do what is to be done; False if there was no room yet."""
        try:
            if self._unwrap:
                self._unwrap()
        except SSLWantWriteError:
            return False
        except (OSError, ValueError):
            pass  # the peer's goodbye is still to come, or this is the second time
        self._ending = None
        with suppress(OSError):
            ending()
        return True
