"""One socket: asyncio's callbacks become a session's inputs, the session's verbs become calls
on the transport. Nothing is decided here."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, cast

from packetcore import Address, Carrier, Endpoint, Session
from packetcore_asyncio._opening import Opening
from packetcore_sockets import READ_SIZE, Timers, as_address, carrier_of, no_delay, read_rest, reset_on_close

FAIR = 64 * 1024
"""Bytes after which others get their turn: uvloop reads up to 32 chunks of 250 KiB in one go,
and writes nothing meanwhile."""


class Place(Protocol):
    """What of an `EventLoop` its sockets need."""

    loop: asyncio.AbstractEventLoop
    """The event loop itself."""

    is_uvloop: bool
    """Whether that is one of uvloop's, which reads on for as long as there is something."""

    time: Callable[[], float]
    """Tells its time."""

    @property
    def socket_timers(self) -> Timers:
        """See `packetcore_sockets.Network`."""


class SocketProtocol(asyncio.Protocol):
    """The protocol that asyncio drives and the `Host` that a session drives.

    Args:
        endpoint: the server or client that it belongs to.
        place: where it is.
        opening: told that the session begins, or why it does not.
        peer: the address that `accept` gave: of a peer that has gone the socket knows none.
    """

    __slots__ = (
        "_endpoint",
        "_is_behind",
        "_is_open",
        "_opening",
        "_paused",
        "_peer",
        "_place",
        "_time",
        "_transport",
        "_unreported",
        "session",
    )

    session: Session[Any]
    """From `connection_made` on; over TLS, once the handshake is done."""

    def __init__(self, endpoint: Endpoint[Any], place: Place, opening: Opening, peer: Address | None = None) -> None:
        self._endpoint = endpoint
        self._place = place
        self._time = place.time
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until `connection_made`
        self._opening: Opening | None = opening  # until the session begins
        opening.drop = self._drop
        self._peer = peer
        self._is_open = False
        self._paused = False
        self._unreported = 0  # bytes written of which the session was not told that they went
        self._is_behind = False  # some of them may wait

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if self._opening is None or self._opening.is_over:  # uvloop makes connections that were given up
            transport.abort()
            return
        # It pauses at one byte, from within `write`: so the system did not take everything.
        transport.set_write_buffer_limits(high=0)
        if hasattr(transport, "max_size"):  # 256 KiB, which asyncio has made anew for each read, however little came
            transport.max_size = READ_SIZE
        if self._peer is None:  # dialled; of those accepted it was done, faster on the socket itself
            no_delay(transport.get_extra_info("socket"))
        self._connected()

    def _connected(self) -> None:
        self._open_session()

    def _open_session(self) -> None:
        peer = self._peer or self._transport.get_extra_info("peername") or ("unknown", 0)
        self._is_open = True
        self.session = self._endpoint.session_type(self._endpoint, self, peer, self._time())
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.begun(self.session)
        self.session.opened(self._time())
        if self._paused:  # uvloop and Python 3.10 begin to read only now, and forget the pause
            self._place.loop.call_soon(self._pause_again)

    def data_received(self, data: bytes) -> None:
        self.session.received(data, self._time())
        if self._place.is_uvloop and len(data) >= FAIR:
            self._be_fair()

    def _be_fair(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
            self._place.loop.call_soon(self._read_on)

    def eof_received(self) -> bool:
        self.session.eof(self._time())
        return True  # the session closes, after its replies

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_open:  # it was given up, or TLS has failed
            return
        if exc is not None and (rest := _left_in(self._transport)):
            self._receive_rest(rest)
        self.session.lost(exc, self._time())

    def _receive_rest(self, rest: bytes) -> None:
        self.session.received(rest, self._time())

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _read_on(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _pause_again(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
            self._transport.pause_reading()

    # What the session calls.

    def write(self, data: bytes) -> int:
        self._transport.write(data)
        if not self._is_behind:
            return len(data)
        written = self._unreported + len(data)
        self._unreported = self._transport.get_write_buffer_size()
        return written - self._unreported

    def write_eof(self) -> None:
        with suppress(OSError):  # the peer has reset the connection: connection_lost is next
            self._transport.write_eof()

    def set_timer(self, at: float | None) -> None:
        self._place.socket_timers.set(self, at)

    def pause_reading(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        is_held = self.session.outstanding > self._unreported  # by a paced session
        if is_held or self._transport.get_write_buffer_size():
            reset_on_close(self._transport.get_extra_info("socket"))
        self._transport.abort()

    def wake(self) -> None:
        self._place.loop.call_soon(lambda: self.session.flush(self._time()))

    def carrier(self) -> Carrier:
        sock = self._transport.get_extra_info("socket")
        carrier = Carrier("tcp") if sock is None else carrier_of(sock)
        local = self._transport.get_extra_info("sockname")
        return carrier if carrier.local or not local else replace(carrier, local=as_address(local))

    def tick(self) -> None:
        """Its timer has fired."""
        self._report()
        self.session.tick(self._time())

    def _report(self) -> None:
        waiting = self._transport.get_write_buffer_size()
        if waiting < self._unreported:
            taken, self._unreported = self._unreported - waiting, waiting
            self.session.sent_bytes(taken, self._time())

    def pause_writing(self) -> None:
        self._is_behind = True

    def resume_writing(self) -> None:
        self._report()
        self._is_behind = self._unreported > 0


def _left_in(transport: asyncio.Transport) -> bytes:
    """What the system has received for a transport that broke, and which that forgets."""
    sock: Any = transport.get_extra_info("socket")
    with suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as copy:  # the loops' own give no access
        copy.setblocking(False)
        return read_rest(copy)
    return b""
