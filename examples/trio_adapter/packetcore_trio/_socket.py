"""One socket: what a stream of trio's gives becomes a session's inputs. A session's verbs are
plain calls and a stream's are awaited, so the verbs leave notes for three tasks: one reads,
one sends, one keeps the time. Nothing is decided here."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from packetcore import Address, Endpoint, Session
from packetcore_sockets import reset_on_close
from packetcore_trio._timer import Timer

_PIECE = 16 * 1024
"""Bytes sent at a time, before the session is told: one record of TLS (RFC 8446, section 5.1)."""


class StreamHost:
    """The `Host` of one session, over a stream that is connected and past its handshake."""

    def __init__(self, endpoint: Endpoint, stream: trio.abc.Stream, peer: Address) -> None:
        self.session = Session(endpoint, self, peer, trio.current_time())
        self._stream = stream
        self._life = trio.CancelScope()
        self._timer = Timer(self.session.tick)
        self._receiving = trio.CancelScope()
        self._may_read = True
        self._unsent = bytearray()
        self._then: Callable[[], Awaitable[None]] | None = None  # to be done once all has gone
        self._notes = trio.lowlevel.ParkingLot()  # where `_read` and `_send` wait for one
        self._error: trio.BrokenResourceError | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the session, and run until its socket is gone."""
        try:
            self.session.opened(trio.current_time())
            task_status.started()
            with self._life:
                async with trio.open_nursery() as nursery:
                    for task in (self._read, self._send, self._timer.run):
                        nursery.start_soon(self._until_broken, task)
        finally:
            if not self._life.cancel_called:  # the program cancelled all that this runs in
                self.session.abort()
            if self._unsent:
                beneath_tls: Any = getattr(self._stream, "transport_stream", self._stream)
                reset_on_close(beneath_tls.socket)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            self.session.lost(self._error, trio.current_time())

    def write(self, data: bytes) -> int:
        self._unsent += data
        self._notes.unpark_all()
        return 0  # what has gone is told once it has

    def write_eof(self) -> None:
        stream = self._stream
        self._then = stream.send_eof if isinstance(stream, trio.abc.HalfCloseableStream) else self._close
        self._notes.unpark_all()

    def set_timer(self, at: float | None) -> None:
        self._timer.set(at)

    def pause_reading(self) -> None:
        self._may_read = False
        self._receiving.cancel()

    def resume_reading(self) -> None:
        self._may_read = True
        self._notes.unpark_all()

    def close(self) -> None:
        self._then = self._close
        self._notes.unpark_all()

    def abort(self) -> None:
        self._life.cancel()

    def wake(self) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(lambda: self.session.flush(trio.current_time()))

    async def _read(self) -> None:
        while True:
            while not self._may_read:
                await self._notes.park()
            with trio.CancelScope() as self._receiving:
                data = await self._stream.receive_some()
                if not data:
                    break
                self.session.received(data, trio.current_time())
        self.session.eof(trio.current_time())

    async def _send(self) -> None:
        while True:
            if self._unsent:
                piece = bytes(self._unsent[:_PIECE])
                await self._stream.send_all(piece)
                del self._unsent[: len(piece)]
                self.session.sent_bytes(len(piece), trio.current_time())
            elif self._then is not None:
                then, self._then = self._then, None
                await then()
            else:
                await self._notes.park()

    async def _close(self) -> None:
        await self._stream.aclose()
        self._life.cancel()

    async def _until_broken(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except trio.ClosedResourceError:
            pass  # `_close` closed the stream under `_read`
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLEOFError):  # many a peer ends TLS by closing its socket
                self.session.eof(trio.current_time())
            else:
                self._error = error
            self._life.cancel()
