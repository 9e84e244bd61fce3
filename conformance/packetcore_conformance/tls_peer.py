"""A raw peer over TLS that keeps apart what TCP's end and TLS's own end say.

`ssl.SSLSocket` waits for the other side's `close_notify` when it says its own, and reads nothing
more; this one says what a case wants, and when.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from packetcore_conformance.peer import DEADLINE, ByteStream


class TLSPeer(ByteStream):
    """One side of a TLS connection, the handshake done. Every wait has a deadline.

    Args:
        sock: connected.
        context: what to speak TLS with.
        server_hostname: the name that a client asks for; a server gives `None`.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self.sock = sock
        sock.settimeout(DEADLINE)
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_hostname is None, server_hostname)
        self._is_at_end = False
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fill():
                    raise EOFError("the other side left during the handshake") from None
        self._flush()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        for at in range(0, len(data), 65536):
            self._tls.write(data[at : at + 65536])
        self._flush()

    def send_before_garbage(self, data: bytes) -> None:
        """Send `data`, and with it a record that nobody can decrypt."""
        self._tls.write(data)
        good = self._goes.read()
        self._tls.write(b"garbage")
        bad = self._goes.read()
        self.sock.sendall(good + bad[:-1] + bytes([bad[-1] ^ 1]))

    def receive_rest(self) -> bytes:
        """Receive until the other side says `close_notify`.

        Raises:
            ConnectionAbortedError: its stream ended without.
        """
        data = super().receive_rest()
        if not self._is_at_end:
            raise ConnectionAbortedError(f"the stream was cut after {len(data)} bytes: there was no close_notify")
        return data

    def finish(self) -> None:
        """Say `close_notify`; go on reading."""
        with suppress(ssl.SSLError):  # the other side's is to come
            self._tls.unwrap()
        self._flush()

    def cut(self) -> None:
        """End the sending half of the socket, whatever TLS says; go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self.sock.close()

    def read(self, size: int) -> bytes:
        """See `ByteStream`."""
        while True:
            try:
                data = self._tls.read(size)
                self._is_at_end |= not data
                return data
            except ssl.SSLZeroReturnError:
                self._is_at_end = True
                return b""
            except ssl.SSLWantReadError:
                if not self._fill():
                    return b""

    def _fill(self) -> bool:
        data = self.sock.recv(65536)
        self._came.write(data)
        return bool(data)

    def _flush(self) -> None:
        self.sock.sendall(self._goes.read())
