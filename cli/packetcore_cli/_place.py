"""Where one worker of `packetcore serve --workers` follows another: who serves, who is to, and who drains."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterable, Sequence

from packetcore import Backoff, EndpointStats, Redial
from packetcore_cli._metrics import total_of
from packetcore_cli._worker import Ask, Tell
from packetcore_cli._worker_process import WorkerProcess

BACKOFF = Backoff(initial=0.5, maximum=10.0)
"""When a worker that died is started again. Who connects to its socket meanwhile waits in the backlog, so
the longest wait is shorter than the patience of most peers."""


class Place:
    """A number and sockets, for one worker after the other.

    Args:
        index: the number.
        sockets: what they serve on.
        command_line: what they are started with.
        grace: seconds that one has to drain.
        one_reads: whether one alone may read the sockets. Two that read one UDP socket would share the datagrams of
            a peer: there the old one ends before the new one serves.
    """

    def __init__(
        self,
        index: int,
        sockets: Sequence[socket.socket],
        command_line: Sequence[str],
        *,
        grace: float,
        one_reads: bool,
    ) -> None:
        self.index = index
        self.sockets = sockets
        self.current: WorkerProcess | None = None
        self.coming: WorkerProcess | None = None
        """Is to replace it."""
        self.leaving: WorkerProcess | None = None
        """Was replaced, and drains."""
        self.start_at: float | None = None
        """When to start another, in place of one that died."""
        self.failed = 0
        """How many in a row died before they served."""
        self._past = EndpointStats()  # of those that have ended
        self._redial = Redial(BACKOFF, random.random)
        self._command_line = command_line
        self._grace = grace
        self._one_reads = one_reads

    @property
    def processes(self) -> list[WorkerProcess]:
        """All that run."""
        return [one for one in (self.current, self.coming, self.leaving) if one is not None]

    @property
    def stats(self) -> EndpointStats:
        """The counters of all that have run here, as last told."""
        return total_of([self._past, *(process.stats for process in self.processes)])

    def start(self) -> None:
        """Start one to serve here.

        Raises:
            OSError: see `WorkerProcess`.
        """
        self.start_at = None
        self.current = WorkerProcess(self.index, self._command_line, self.sockets)

    def start_again(self) -> float:
        """Start another after a pause, of which this gives the seconds."""
        now = time.monotonic()
        pause = self._redial.lost(now)
        self.start_at = now + pause
        return pause

    def replace(self) -> None:
        """Start the one that is to replace the one that serves.

        Raises:
            OSError: see `WorkerProcess`.
        """
        self.coming = WorkerProcess(self.index, self._command_line, self.sockets)

    def hear(self, process: WorkerProcess) -> None:
        """Do what follows from what one has said."""
        for what in process.hear():
            if what is Tell.LOADED:
                process.is_loaded = True
                if process is not self.coming or not self._one_reads:
                    process.ask(Ask.SERVE)
                elif self.current is None:
                    self._take_over()
                else:
                    self._retire_current()
            elif what is Tell.SERVING:
                process.is_serving = True
                self.failed = 0
                self._redial.connected(time.monotonic())
                if process is self.coming:
                    self._retire_current()
                    self.current, self.coming = process, None

    def remove(self, process: WorkerProcess) -> None:
        """One has ended: its counters stay, and who waited for its end serves."""
        process.pipe.close()
        process.stats.sessions = process.stats.outstanding = 0
        self._past = total_of([self._past, process.stats])
        if process is self.leaving:
            self.leaving = None
        elif process is self.coming:
            self.coming = None
        else:
            self.current = None
        if self._one_reads:
            self._take_over()

    def _retire_current(self) -> None:
        self.leaving, self.current = self.current, None
        if self.leaving is not None:
            self.leaving.retire(self._grace)

    def _take_over(self) -> None:
        """The one that is to come can: nobody else reads its sockets."""
        if self.coming is not None and self.coming.is_loaded:
            self.current, self.coming = self.coming, None
            self.current.ask(Ask.SERVE)


def processes_of(places: Iterable[Place]) -> list[WorkerProcess]:
    """All that run."""
    return [process for place in places for process in place.processes]
