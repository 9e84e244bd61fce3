"""One socket: what is ready becomes a session's inputs. A session's verbs are plain calls and
waiting is awaited, so verbs that cannot be done at once leave notes for three tasks: one reads,
one sends, one keeps the time. Nothing is decided here."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from packetcore import Address, Carrier, Endpoint, Session
from packetcore_sockets import TLSRecords, read_rest, reset_on_close
from packetcore_trio._timer import Timer

_CHUNK = 64 * 1024
"""Bytes read at a time."""


class StreamHost:
    """The `Host` of one session, over a socket that is connected and past its handshake."""

    def __init__(
        self, endpoint: Endpoint, sock: socket.socket, peer: Address, tls: TLSRecords | None = None, early: bytes = b""
    ) -> None:
        self._early = early
        self.session = Session(endpoint, self, peer, trio.current_time())
        self._sock = sock
        self._tls = tls
        self._life = trio.CancelScope()
        self._timer = Timer(self.session.tick)
        self._may_read = True
        self._unsent = bytearray()  # over TLS its records
        self._is_leaving = False  # close the socket once all has gone
        self._then: Callable[[], object] | None = None  # to be done once all has gone
        self._notes = trio.lowlevel.ParkingLot()  # where `_read` and `_send` wait for one

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the session, and run until its socket is gone."""
        try:
            self.session.opened(trio.current_time())
            task_status.started()
            if self._early:  # what came with the end of the handshake
                self.session.received(self._early, trio.current_time())
            if self._tls is not None and self._tls.at_end:
                self.session.eof(trio.current_time())
            with self._life:
                async with trio.open_nursery() as nursery:
                    for task in (self._read, self._send, self._timer.run):
                        nursery.start_soon(self._until_closed, task)
        finally:
            if not self._life.cancel_called:  # the program cancelled all that this runs in
                self.session.abort()
            self._lose(None)

    # What the session calls.

    def write(self, data: bytes) -> int:
        if self._tls is not None:
            self._tls.send(data)
            data = self._tls.take()
        was_empty = not self._unsent
        self._unsent += data
        sent = self._try_to_send() if was_empty or not data else 0
        if self._unsent:
            self._notes.unpark_all()
        return sent

    def write_eof(self) -> None:
        self._after_sending(self._finish_sending)

    def set_timer(self, at: float | None) -> None:
        self._timer.set(at)

    def pause_reading(self) -> None:
        self._may_read = False

    def resume_reading(self) -> None:
        self._may_read = True
        self._notes.unpark_all()

    def close(self) -> None:
        self._is_leaving = True
        self._after_sending(self._finish_sending)

    def abort(self) -> None:
        self._life.cancel()

    def wake(self) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(lambda: self.session.flush(trio.current_time()))

    def carrier(self) -> Carrier:
        info = self._tls.info() if self._tls is not None else None
        if self._sock.fileno() < 0:
            return Carrier("tcp", tls=info)
        return Carrier("tcp", self._sock.getsockname(), int(self._sock.family), info)

    # What the tasks do.

    async def _until_closed(self, task: Callable[[], Awaitable[None]]) -> None:
        with suppress(trio.ClosedResourceError):  # `_lose` closed the socket under it
            await task()

    async def _read(self) -> None:
        while True:
            while not self._may_read:
                await self._notes.park()
            if self._is_gone:
                return
            await trio.lowlevel.wait_readable(self._sock)
            if self._receive():
                return

    def _receive(self) -> bool:
        """Read once, unless that was paused meanwhile. Returns whether the stream has ended."""
        if not self._may_read:
            return False
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._break(error)
            return True
        return self._received(data) or self._is_gone

    def _received(self, data: bytes) -> bool:
        """Take what the socket gave. Returns whether the stream has ended."""
        tls, now = self._tls, trio.current_time()
        if not data:
            self.session.eof(now, truncated=tls is not None and not tls.at_end)
            return True
        if tls is None:
            self.session.received(data, now)
            return False
        knew_end = tls.at_end
        plain = tls.receive(data)
        if records := tls.take():
            self._unsent += records
            self._send_on()
            self._notes.unpark_all()
        if plain:
            self.session.received(plain, now)
        if tls.at_end and not knew_end:
            self.session.eof(now)
        if tls.error is not None:
            self._lose(tls.error)
        return tls.error is not None

    @property
    def _is_gone(self) -> bool:
        return self._sock.fileno() < 0

    async def _send(self) -> None:
        while True:
            while not self._unsent:
                await self._notes.park()
            if self._is_gone:
                return
            await trio.lowlevel.wait_writable(self._sock)
            self._send_on()

    def _send_on(self) -> None:
        if gone := self._try_to_send():
            self.session.sent_bytes(gone, trio.current_time())

    def _try_to_send(self) -> int:
        """Send what the system takes. Returns how many bytes of the application's have gone."""
        sent = 0
        try:
            while self._unsent and (size := self._sock.send(self._unsent)):
                del self._unsent[:size]
                sent += size
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._break(error)
        gone = sent if self._tls is None else self._tls.went(sent)
        if not self._unsent and self._then is not None:
            then, self._then = self._then, None
            then()
        return gone

    def _after_sending(self, then: Callable[[], object]) -> None:
        self._then = then
        self._send_on()

    def _finish_sending(self) -> None:
        if self._tls is not None:
            self._tls.close()
            self._unsent += self._tls.take()
        self._after_sending(self._life.cancel if self._is_leaving else self._shut)
        self._notes.unpark_all()

    def _shut(self) -> None:
        with suppress(OSError):  # the peer has gone: reading will tell
            self._sock.shutdown(socket.SHUT_WR)

    def _break(self, error: OSError) -> None:
        """The socket failed: what the system has received still counts."""
        self._unsent.clear()
        with suppress(OSError):
            if rest := read_rest(self._sock):
                self._received(rest)
        self._lose(error)

    def _lose(self, error: OSError | None) -> None:
        if not self._is_gone:
            trio.lowlevel.notify_closing(self._sock)
            if self._unsent:
                reset_on_close(self._sock)
            self._sock.close()
            self._life.cancel()
            self.session.lost(error, trio.current_time())


async def secure(sock: socket.socket, tls: TLSRecords) -> bytes:
    """Shake hands over a socket that does not block.

    Returns:
        What the peer has sent with the end of its handshake.

    Raises:
        OSError: it failed (`ssl.SSLError`), or the peer has gone.
    """
    early = b""
    while True:
        records = tls.take()
        while records:
            await trio.lowlevel.wait_writable(sock)
            sent = sock.send(records)
            tls.went(sent)
            records = records[sent:]
        if tls.error is not None:
            raise tls.error
        if tls.is_open:
            return early
        await trio.lowlevel.wait_readable(sock)
        data = sock.recv(_CHUNK)
        if not data:
            raise ConnectionResetError("the peer closed the connection during the TLS handshake")
        early = tls.receive(data)
