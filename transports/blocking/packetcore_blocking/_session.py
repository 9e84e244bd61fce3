"""Sessions that any thread may use: what is public takes the loop's lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import get_ident
from typing import Any, Protocol

from packetcore import Address, DatagramSession, Endpoint, Host, PacedSession, Session, speedups


class Lock(Protocol):
    """A loop, as a session sees it."""

    driver: int
    """The ident of the thread that serves it now, and has the lock."""

    def __enter__(self) -> None: ...
    def __exit__(self, *exception: object) -> None: ...


class LockedSession(Session[Any]):
    """A session of a stream."""

    __slots__ = ("loop",)

    def __init__(self, loop: Lock, endpoint: Endpoint[Any], host: Host, peer: Address, now: float) -> None:
        super().__init__(endpoint, host, peer, now)
        self.loop = loop


class LockedPacedSession(PacedSession[Any]):
    """A session of a stream with silence between its frames."""

    __slots__ = ("loop",)

    def __init__(self, loop: Lock, endpoint: Endpoint[Any], host: Host, peer: Address, now: float) -> None:
        super().__init__(endpoint, host, peer, now)
        self.loop = loop


class LockedDatagramSession(DatagramSession[Any]):
    """A session of a UDP peer."""

    __slots__ = ("loop",)

    def __init__(self, loop: Lock, endpoint: Endpoint[Any], host: Host, peer: Address, now: float) -> None:
        super().__init__(endpoint, host, peer, now)
        self.loop = loop


def _locked(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.loop.driver == get_ident():  # a handler, which has the lock
            return method(self, *args, **kwargs)
        with self.loop:
            return method(self, *args, **kwargs)

    return call


_TO_LOCK = [
    *("send_message", "request", "forget", "bind", "close", "abort", "pause", "resume", "failed"),
    # In C `send` is one step, in which no other thread has its turn, until it calls one of these.
    *(("_send_other", "_overflow", "_wake") if speedups else ("send",)),
]

_stats = _locked(lambda session: Session.stats.__get__(session))
for _kind in (LockedSession, LockedPacedSession, LockedDatagramSession):
    for _name in _TO_LOCK:
        setattr(_kind, _name, _locked(getattr(_kind, _name)))
    setattr(_kind, "stats", property(_stats))  # noqa: B010
