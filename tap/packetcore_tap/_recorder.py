"""A `packetcore.Tap` that writes a capture: what each session received and sent, and when.

Blocks are made on the runtime's own thread, where they cost what making them takes, and written on another, so
that a slow disk delays nobody. What it has no room for is left out and counted, where it is missing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from packetcore import Address, Carrier, ProxiedAddress
from packetcore_tap._capture import CaptureWriter, Side
from packetcore_tap._spool import Spool

logger = logging.getLogger("packetcore")

MIN_BYTES = 1 << 20
"""The least that `max_bytes` may be: a few of the longest chunks that a socket gives at a time."""

_END_COST = 4096
"""Bytes kept free in each file for what it ends with."""


class Recorder:
    """Records the sessions of any server, client or pool of any adapter, over any carrier: give it to each as
    `Config(tap=recorder)`. It may be given to several.

    The chunks are as the session received and sent them: without TLS, WebSocket and the PROXY protocol. What was
    sent is noted when it is handed to the socket, whether or not the peer ever gets it. Of UDP there is what
    belongs to a session: a datagram that opens none is not recorded.

    The file can be read at any time, up to what the disk has. What is in `path` already is kept as the older
    file, and so on up to `keep`. Where the file cannot be written, as on a full disk, the recording ends with one
    line in the log, and no session notices.

    Args:
        path: the capture, such as "field.pcapng"; the one before it becomes "field.1.pcapng".
        max_bytes: how long a file may be, in bytes, at least 1 MiB; then the next begins.
        keep: how many files there are at most: so all of them together have `keep * max_bytes` bytes.
        clock: gives the time in nanoseconds since the beginning of 1970.

    Raises:
        OSError: the file cannot be made.
        ValueError: a limit is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 << 20,
        keep: int = 5,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"max_bytes={max_bytes} must be at least {MIN_BYTES}")
        if keep < 1:
            raise ValueError(f"keep={keep} must be at least 1")
        self.path = os.fspath(path)
        """Where the newest file is."""
        self.missed = 0
        """How many chunks are not in the recording, because the disk was too slow or they were too long."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.RLock()  # re-entrant: collecting garbage may end a session
        self._is_closed = False
        self._writer = CaptureWriter()
        self._spool = Spool(path, keep, self._failed)
        self._size = 0  # of the file, with what waits for the disk
        self._begin()

    @property
    def error(self) -> OSError | None:
        """Why the recording has ended early; `None` if it has not."""
        return self._spool.error

    def close(self) -> None:
        """End the recording, and wait up to 5 seconds for the disk. Sessions go on. Idempotent."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._spool.put(self._writer.finish(self._clock()))
        if not self._spool.close() and self._spool.error is None:
            logger.error("recording to %s: the disk took too long, the end is missing", self.path)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What sessions tell; see `packetcore.Tap`.

    def opened(self, session: Any) -> None:
        """See `packetcore.Tap`, and so all that follows."""
        with self._lock:
            if self._is_closed or self._spool.is_full:
                return  # and nothing of it will be recorded
            carrier: Carrier = session.carrier
            is_server = session.endpoint.is_server
            client, server = (session.peer, carrier.local) if is_server else (carrier.local, session.peer)
            self._make_room(0)
            self._put(
                self._writer.opened(
                    session,
                    client,
                    server,
                    self._clock(),
                    kind="datagram" if carrier.kind == "udp" else "stream",
                    here=Side.SERVER if is_server else Side.CLIENT,
                    comment=_comment(session, carrier),
                )
            )

    def received(self, session: Any, data: bytes | bytearray | memoryview) -> None:
        self._data(session, _peer(session), bytes(data))

    def sent(self, session: Any, data: bytes) -> None:
        self._data(session, _peer(session).other, data)

    def eof(self, session: Any) -> None:
        self._ended(session, _peer(session))

    def eof_sent(self, session: Any) -> None:
        self._ended(session, _peer(session).other)

    def lost(self, session: Any, error: BaseException | None) -> None:
        with self._lock:
            if session not in self._writer:
                return
            peer = _peer(session)
            reset = None
            if error is not None:
                reset = peer
            elif not self._writer.has_ended(session, peer):
                if self._writer.has_ended(session, peer.other):  # some runtimes do not say whether the peer has
                    self._writer.forget(session)
                    return
                reset = peer.other
            self._make_room(0)
            reason = "" if error is None else f"session {session.id} was lost: {error!r}"
            self._put(self._writer.closed(session, self._clock(), reset=reset, comment=reason))

    def _data(self, session: Any, sender: Side, data: bytes) -> None:
        with self._lock:
            if session not in self._writer:
                self.missed += 1
            elif self._spool.is_full or len(data) > self._max_bytes // 2:
                self.missed += 1
                self._writer.missed(session, sender, len(data))
            else:
                self._make_room(len(data))
                self._put(self._writer.data(session, sender, data, self._clock()))

    def _ended(self, session: Any, side: Side) -> None:
        with self._lock:
            if session in self._writer:
                self._make_room(0)
                self._put(self._writer.ended(session, side, self._clock()))

    def _make_room(self, size: int) -> None:
        """Begin another file where the blocks of a chunk of so many bytes could make this one too long."""
        if self._size + self._writer.most(size) > self._max_bytes - _END_COST and not self._is_closed:
            self._spool.put(self._writer.finish(self._clock()))
            self._spool.turn()
            self._begin()

    def _put(self, blocks: bytes) -> None:
        if blocks and not self._is_closed:
            self._size += len(blocks)
            self._spool.put(blocks)

    def _begin(self) -> None:
        head = self._writer.begin()
        self._size = len(head)
        self._spool.put(head)

    def _failed(self, error: OSError) -> None:
        with self._lock:
            self._is_closed = True
        logger.error("recording to %s has ended: %s", self.path, error)


def _peer(session: Any) -> Side:
    return Side.CLIENT if session.endpoint.is_server else Side.SERVER


def _comment(session: Any, carrier: Carrier) -> str:
    """What a header of IP cannot tell of a session."""
    side = "server" if session.endpoint.is_server else "client"
    parts = [f"session {session.id} of a {side}, {carrier.kind}"]
    if carrier.tls is not None:
        parts.append(f"decrypted from {carrier.tls.version}")
    if carrier.websocket is not None:
        parts.append(f"path {carrier.websocket.path}")
    if isinstance(session.peer, ProxiedAddress):
        parts.append(f"through the proxy {_text(session.peer.proxy.address)}")
    if carrier.kind not in ("tcp", "udp", "websocket"):
        parts.append(f"peer {_text(session.peer)}, here {_text(carrier.local)}; the addresses are made up")
    return "; ".join(parts)


def _text(address: Address | None) -> str:
    return "unknown" if address is None else ":".join(map(str, address[:2])) or '""'
