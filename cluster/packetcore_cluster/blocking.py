"""The cluster for `packetcore_blocking`: calls block the thread that makes them.

    with Cluster("nats://127.0.0.1:4222", name="fleet") as cluster:
        with serve(Gateway(), host, port, sessions=cluster.sessions) as server:
            reply = cluster.request("meter 7", Packet(7, b"status?"), timeout=2.0)

Any thread may use it. A handler must not call what waits: that raises `RuntimeError` there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from packetcore import AnyPacket
from packetcore_cluster._threaded import Sync

_LONGEST_WAIT = 1.0 if sys.platform == "win32" else threading.TIMEOUT_MAX
"""Seconds: on Windows Ctrl-C does not interrupt a wait."""

_TURN = 0.001
"""Seconds for which who had a lock lets go of it, so that a thread that waits for it wakes, and has it."""


class Cluster(Sync[AnyPacket]):
    """The sessions of many workers and machines as one register, over NATS with JetStream, on blocking sockets.

    `on_event` is called on a thread of the cluster's own, with the lock of the sessions, and must not block.

    Args:
        loop: what sessions will live on, where that is known before they come, as a driver's is. The others are
            those of `packetcore_cluster.Cluster`.
    """

    def _settle_on(self, options: dict[str, Any]) -> None:
        self._loop = options.pop("loop", None)

    @property
    def _lock(self) -> AbstractContextManager[None]:
        runtime = self._runtime
        return nullcontext() if runtime is None else runtime.lock

    @property
    def _runtime(self) -> Any:
        return self.sessions.runtime or self._loop

    def _post(self, callback: Callable[[], object]) -> None:
        with self._lock:  # any thread may use sessions, and theirs may have nobody to serve it
            callback()

    def _new_pending(self) -> _Pending:
        return _Pending(self._runtime)

    async def _give_way(self) -> None:
        if self._runtime.driver != threading.get_ident():  # a handler has the lock, and keeps it
            self._runtime.new_condition().wait_for(lambda: None, _TURN)


class _Pending:
    """See `Pending`. Where sessions have a loop it waits there: so it lets go of the lock, and serves where nobody
    else does.

    Args:
        runtime: the loop; `None` where none is known.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._condition = None if runtime is None else runtime.new_condition()
        self._event = threading.Event()
        if runtime is not None and runtime.driver == threading.get_ident():
            raise RuntimeError("a handler must not block: it holds up the thread that would end its wait")

    def done(self, outcome: Any) -> None:
        self._outcome = outcome
        self._event.set()
        if self._condition is not None:
            with self._runtime.lock:
                self._condition.notify_all()

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        if self._condition is not None:
            self._condition.wait_for(lambda: self._event.is_set() or None)
        while not self._event.wait(_LONGEST_WAIT):  # the loop may have been closed meanwhile
            pass
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome
