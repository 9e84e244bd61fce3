"""Sending on a stream, where there nearly always is room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class _Session(Protocol):
    def send(self, item: Any, /) -> bool: ...


class Sender:
    """Is called as a stream's `send`, and leaves to that what is seldom.

    Args:
        session: the stream's.
        drain: waits for room.
        send: the stream's method: for what is sent with options, or was not since the session is closed.
        closed: what that raises then.
        sent: makes what is given where there was room; `None` where calls block, to give that.
    """

    __slots__ = ("_closed", "_drain", "_send", "_sent", "_session")

    def __init__(
        self,
        session: _Session,
        drain: Callable[[], object],
        send: Callable[..., object],
        closed: type[Exception],
        sent: Callable[[], object] | None = None,
        /,
    ) -> None:
        self._session = session
        self._drain = drain
        self._send = send
        self._closed = closed
        self._sent = sent

    def __call__(self, *args: Any, **options: Any) -> Any:
        if len(args) != 1 or options:
            return self._send(*args, **options)
        try:
            has_room = self._session.send(*args)
        except self._closed:
            return self._send(*args)  # nothing was sent, and it will say so again
        if not has_room:
            return self._drain()
        return None if self._sent is None else self._sent()
