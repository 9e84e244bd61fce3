"""TLS or other records above a plain transport: on every event loop the same, and with an end that loses nothing,
which asyncio's own transport has not."""

from __future__ import annotations

import asyncio
from typing import Any

from packetcore import Address, Carrier, Endpoint
from packetcore_asyncio._opening import Opening
from packetcore_asyncio._socket import FAIR, Place, SocketProtocol
from packetcore_sockets import Records


class TLSProtocol(SocketProtocol):
    """A `SocketProtocol` whose session begins with the end of the handshake.

    Args:
        tls: this side of it, or of what else is carried in records, new.
    """

    __slots__ = ("_ping_timer", "_tls")

    def __init__(
        self, endpoint: Endpoint[Any], place: Place, opening: Opening, peer: Address | None, tls: Records
    ) -> None:
        super().__init__(endpoint, place, opening, peer)
        self._tls = tls
        self._ping_timer: asyncio.TimerHandle | None = None

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        self._decrypt(data)
        if self._place.is_uvloop and len(data) >= FAIR:
            self._be_fair()

    def eof_received(self) -> bool:
        if not self._is_open:
            what = f"the {self._tls.protocol} handshake"
            self._fail(ConnectionResetError(f"the peer closed the connection during {what}"))
            return False
        if not self._tls.at_end:
            self.session.eof(self._time(), truncated=True)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._fail(exc or ConnectionResetError(f"the connection was lost during the {self._tls.protocol} handshake"))
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._put(self._tls.take())  # what it had to say may have waited for room

    # What the session calls.

    def write(self, data: bytes) -> int:
        self._tls.send(data)
        records = self._tls.take()
        had_gone = not self._unreported
        self._put(records)
        if had_gone and not self._is_behind:
            self._unreported = 0
            return self._tls.went(len(records))
        return self._gone()

    def write_eof(self) -> None:
        self._say_goodbye()
        if self._tls.ends_socket:
            super().write_eof()

    def close(self) -> None:
        self._say_goodbye()
        super().close()

    def carrier(self) -> Carrier:
        return self._tls.carrier(super().carrier())

    # What both have done.

    def _connected(self) -> None:
        self._put(self._tls.take())

    def _decrypt(self, data: bytes) -> None:
        tls = self._tls
        knew_end = tls.at_end
        plain = tls.receive(data)
        if records := tls.take():
            self._put(records)
        if tls.is_open and not self._is_open and tls.error is None:
            self._open_session()
            self._ping_later()
        if plain:
            self.session.received(plain, self._time())
        if tls.heard():
            self.session.touch(self._time())
        if tls.at_end and not knew_end:
            self.session.eof(self._time())
        if (error := tls.error) is not None:
            tls.close()
            self._put(tls.take())
            self._break(error)

    def _receive_rest(self, rest: bytes) -> None:
        self._decrypt(rest)

    def _break(self, error: Exception) -> None:
        if self._is_open:
            self.session.lost(error, self._time())
        self._transport.close()  # with the alert that tells the peer
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._opening is not None:
            self._opening.failed(error)

    def _say_goodbye(self) -> None:
        self._tls.close(going_away=self._endpoint.draining)
        self._put(self._tls.take())

    def _ping_later(self) -> None:
        if self._tls.ping_interval is not None:
            self._ping_timer = self._place.loop.call_later(self._tls.ping_interval, self._ping)

    def _ping(self) -> None:
        if not self._transport.get_write_buffer_size():  # else it would only wait behind that
            self._tls.ping()
            self._put(self._tls.take())
        self._ping_later()

    def _put(self, records: bytes) -> None:
        if records and not self._transport.is_closing():
            self._transport.write(records)
            self._unreported += len(records)

    def _gone(self) -> int:
        """Bytes of the application's that have gone since it was asked last."""
        waiting = self._transport.get_write_buffer_size()
        went, self._unreported = self._unreported - waiting, waiting
        return self._tls.went(went) if went > 0 else 0

    def _report(self) -> None:
        if (gone := self._gone()) and self._is_open:
            self.session.sent_bytes(gone, self._time())
