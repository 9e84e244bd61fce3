"""How a connected socket comes to speak TLS, or what else is carried in records."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ssl import SSLContext

from packetcore_sockets._loop import Loop
from packetcore_sockets._prelude import Prelude
from packetcore_sockets._records import Records
from packetcore_sockets._tcp import no_delay
from packetcore_sockets._tls import TLSRecords

_CHUNK = 16 * 1024


class Handshake(Prelude):
    """One handshake.

    Args:
        loop: see `Prelude`, and so `sock` and `until`.
        context: what to speak TLS by, or another kind of records, new.
        done: called once, with the records agreed on or with what went wrong.
        server_hostname: on a client the server's name, to ask for and to verify; on a server
            `None`.

    Raises:
        OSError: TLS cannot even begin, as with a context for the other side (`ssl.SSLError`).
        ValueError: the name is none.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        context: SSLContext | Records,
        done: Callable[[Records | OSError], object],
        *,
        until: float | None = None,
        server_hostname: str | None = None,
    ) -> None:
        try:
            no_delay(sock)
            self._tls: Records = (
                context
                if isinstance(context, Records)
                else TLSRecords(context, server_side=server_hostname is None, server_hostname=server_hostname)
            )
            if self._tls.error is not None:
                raise self._tls.error
        except BaseException:
            sock.close()
            raise
        super().__init__(loop, sock, done, until)
        self._unsent = self._tls.take()
        loop.set_reader(sock, self._readable)
        if self._unsent:
            loop.set_writer(sock, self._writable)

    def _readable(self) -> None:
        if self._is_over:
            return
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if not data:
            what = f"the {self._tls.protocol} handshake"
            self._fail(ConnectionResetError(errno.ECONNRESET, f"the peer left during {what}"))
            return
        self._tls.shake_hands(data)
        self._unsent += self._tls.take()
        if self._tls.is_open:
            self._loop.set_reader(self._sock, None)  # what comes next is for the session
        self._writable()

    def _writable(self) -> None:
        if self._is_over:
            return
        try:
            if self._unsent:
                sent = self._sock.send(self._unsent)
                self._tls.went(sent)
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(self._tls.error or error)
            return
        if self._tls.error is not None:
            self._fail(self._tls.error)  # an alert says so to the peer, if there was room
        elif self._unsent or not self._tls.is_open:
            self._loop.set_writer(self._sock, self._writable if self._unsent else None)
        else:
            self._end(self._tls)

    def _leave(self) -> None:
        super()._leave()
        self._loop.set_writer(self._sock, None)
