"""Which loop a server has: one of its own, unless it shares its sessions.

A register has no lock but that of the loop whose sessions it holds. So servers that share a
register share a loop too, and with it the thread that serves and the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from packetcore import Session, SessionPool
from packetcore_blocking._loop import Loop

_lock = threading.Lock()
_loops: dict[SessionPool[Session], Loop] = {}


@contextmanager
def loop_for(sessions: SessionPool[Session] | None) -> Iterator[Loop]:
    """A loop for one more server, which is to `leave` it; where the block raises, this does."""
    with _lock:
        loop = None if sessions is None else _loops.get(sessions)
        if loop is None or loop.closed:
            loop = Loop()
            if sessions is not None:
                _loops[sessions] = loop
        loop.servers += 1
    try:
        yield loop
    except BaseException:
        leave(loop)
        raise


def leave(loop: Loop) -> None:
    """A server needs its loop no more; the last one closes it."""
    with _lock:
        loop.servers -= 1
        is_last = not loop.servers
        for sessions in [sessions for sessions, shared in _loops.items() if is_last and shared is loop]:
            del _loops[sessions]
    if is_last:
        loop.close()
