"""TLS over memory: what a socket received in, what the application and the socket get out.

It reads no socket and keeps no time, so that one implementation serves every runtime. What a
session asks for it does as TCP would: an end of sending is a `close_notify` and the stream may
still be read; an end of the stream without one is told apart from one with it.
"""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any

from packetcore import Carrier, TLSInfo
from packetcore_sockets._records import Records

RECORD = 16 * 1024
"""Bytes of plaintext that one record holds (RFC 8446, section 5.1)."""


class TLSRecords(Records):
    """One side of one TLS connection.

    Args:
        context: certificates, and whom to trust.
        server_side: which side this is.
        server_hostname: a client's name for the server, to ask for and to verify.

    Raises:
        ValueError: the context checks names and there is none.
    """

    protocol = "TLS"

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
    ) -> None:
        if context.check_hostname and not (server_side or server_hostname):
            raise ValueError("check_hostname requires server_hostname")  # which over memory nobody else says
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._error: ssl.SSLError | None = None
        self._is_closing = self._is_deaf = False
        self._waiting = bytearray()  # plaintext that cannot go while the peer renews the handshake
        self._sent = 0  # bytes of records made
        self._went = 0  # how many of them the system took
        self._ends: deque[tuple[int, int]] = deque()  # for each piece sent: where its records end, its size
        self._try_to_agree()

    @property
    def error(self) -> ssl.SSLError | None:
        """See `Records`; `take` may have an alert."""
        return self._error

    def shake_hands(self, data: bytes) -> None:
        """See `Records`."""
        self._incoming.write(data)
        self._try_to_agree()

    def receive(self, data: bytes) -> bytes:
        """See `Records`."""
        if self._error is not None or self._is_deaf:
            return b""
        self._incoming.write(data)
        if not self.is_open:
            self._try_to_agree()
        pieces: list[bytes] = []
        try:
            while self.is_open and not self.at_end:
                piece = self._tls.read(RECORD)
                if not piece:
                    self.at_end = True
                pieces.append(piece)
                if not (self._incoming.pending or self._tls.pending()):
                    break  # another read would only raise, which costs more than a read that does not
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.at_end = True
        except ssl.SSLError as error:
            if self._is_closing:  # of what comes after our own end only the peer's end counts
                self._is_deaf = True
            else:
                self._error = error
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self.send(waiting)
        return b"".join(pieces)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt what the application sends: see `Records`. After a fault nothing goes any more, and what is sent
        in reply to what came before it is lost."""
        if self._waiting:
            self._waiting += data
            return
        if len(data) <= RECORD:
            self._make_record(data)
            return
        with memoryview(data) as view:
            for at in range(0, len(view), RECORD):
                if self._waiting:
                    self._waiting += view[at:]
                    return
                self._make_record(view[at : at + RECORD])

    def _make_record(self, data: bytes | bytearray | memoryview) -> None:
        try:
            size = self._tls.write(data)
        except ssl.SSLWantReadError:  # TLS 1.2 only
            self._waiting += data
            return
        except ssl.SSLError as error:
            self._error = self._error or error
            return
        self._ends.append((self._sent + self._outgoing.pending, size))

    def close(self, *, going_away: bool = False) -> None:
        """Say that this side has finished sending: see `Records`. TLS has no word for why."""
        if self.is_open and not self._is_closing and self._error is None:
            self._is_closing = True
            with suppress(ssl.SSLError):  # the peer's own word is to come, or it sends on
                self._tls.unwrap()

    def take(self) -> bytes:
        """See `Records`."""
        records = self._outgoing.read()
        self._sent += len(records)
        return records

    def went(self, size: int) -> int:
        """See `Records`."""
        self._went += size
        gone = 0
        while self._ends and self._ends[0][0] <= self._went:
            gone += self._ends.popleft()[1]
        return gone

    def carrier(self, below: Carrier) -> Carrier:
        """See `Records`."""
        return replace(below, tls=self.info())

    def info(self) -> TLSInfo:
        """What the handshake came to, once it is done."""
        cipher = self._tls.cipher()
        decoded: dict[str, Any] = self._tls.getpeercert() or {}
        return TLSInfo(
            version=self._tls.version() or "",
            cipher="" if cipher is None else cipher[0],
            alpn=self._tls.selected_alpn_protocol(),
            certificate=self._tls.getpeercert(binary_form=True),
            subject=tuple(attribute for part in decoded.get("subject", ()) for attribute in part),
        )

    def _try_to_agree(self) -> None:
        try:
            self._tls.do_handshake()
            self.is_open = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._error = error
