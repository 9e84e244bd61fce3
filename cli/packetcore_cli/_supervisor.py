"""The parent of `packetcore serve --workers`: it starts workers, starts again those that die, replaces them at SIGHUP
and ends them at SIGTERM. It serves nothing itself, and imports nothing of the application. A worker whose parent has
gone reads the end of its pipe, and drains.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from collections.abc import Sequence
from multiprocessing.connection import wait

from packetcore_cli._counters import Counters
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._log import log_event
from packetcore_cli._place import Place, processes_of
from packetcore_cli._replacing import Replacing
from packetcore_cli._signals import HANGUP, Signals
from packetcore_cli._worker_process import WorkerProcess
from packetcore_sockets import Notifier

TURN = 0.2
"""Seconds between two looks at who has ended, where nobody says so."""

STARTS = 5
"""Workers in a row that may die before they serve; with one more of them nothing works, and all ends, unless
another worker serves: what one lacks, as a broker that is away, those that have begun may do without."""

ABORT_PATIENCE = 2.0
"""Seconds that workers have for their end after a second signal."""


class Ended(Exception):
    """All is to end.

    Args:
        code: with this exit code.
    """

    def __init__(self, code: int = 0) -> None:
        self.code = code


class Supervisor:
    """Runs the workers.

    Args:
        places: of each of them.
        grace: seconds that one has to drain.
        signals: heard here.
        notifier: tells a service manager.
    """

    def __init__(self, places: Sequence[Place], grace: float, signals: Signals, notifier: Notifier) -> None:
        self.counters = Counters(places, signals.wake)
        """Those of the workers."""
        self._places = places
        self._grace = grace
        self._signals = signals
        self._notifier = notifier
        self._replacing = Replacing(places, notifier)
        self._is_ending = False
        self._watched_at = 0.0

    def start(self) -> None:
        """Start the first, and when that serves the others: an application that cannot be started says so once.

        Raises:
            Ended: one could not, and has said why.
            Failure: the system cannot start another process.
        """
        for some in (self._places[:1], self._places[1:]):
            for place in some:
                try:
                    place.start()
                except OSError as error:
                    raise Failure(f"cannot start worker {place.index}: {reason_of(error)}") from None
            while not all(place.current is not None and place.current.is_serving for place in some):
                self.turn(is_first=True)

    def turn(self, *, is_first: bool = False) -> None:
        """Wait for something, and do what is to be done.

        Args:
            is_first: whether a worker that dies is not to be started again.

        Raises:
            Ended: a signal says so, or what happens to the workers does.
        """
        wait([self._signals.reader, *(process.pipe for process in self._processes())], self._patience())
        for number in self._signals.taken():
            if self._is_ending:
                continue
            if number != HANGUP:
                raise Ended
            self._replacing.begin()
        for place in self._places:
            for process in place.processes:
                place.hear(process)
                if process.popen.poll() is not None:
                    place.hear(process)  # what it said last
                    self._gone(place, process, is_first=is_first)
        now = time.monotonic()
        self._start_due(now)
        self._replacing.go_on()
        self._kill_late(now)
        self._watch(now)
        self.counters.go_on(now)

    def drain(self) -> None:
        """Have all workers drain, and wait until they have ended."""
        self._is_ending = True
        self._replacing.stop()
        for place in self._places:
            place.start_at = None
            for process in place.processes:
                if not process.is_leaving:
                    process.retire(self._grace)
        while self._processes():
            self.turn()

    def abort(self) -> None:
        """End all workers at once."""
        for process in self._processes():
            process.abort()
        until = time.monotonic() + ABORT_PATIENCE
        for process in self._processes():
            try:
                process.popen.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()

    def _processes(self) -> list[WorkerProcess]:
        return processes_of(self._places)

    def _patience(self) -> float:
        due = [place.start_at for place in self._places if place.start_at is not None]
        return max(0.0, min([TURN, *(at - time.monotonic() for at in due)]))

    def _start_due(self, now: float) -> None:
        for place in self._places:
            if place.start_at is not None and place.start_at <= now:
                try:
                    place.start()
                except OSError as error:
                    place.start_again()
                    text = f"worker {place.index} cannot be started, trying again: {reason_of(error)}"
                    log_event("not_started", text, logging.ERROR, worker=place.index)

    def _gone(self, place: Place, process: WorkerProcess, *, is_first: bool) -> None:
        was_leaving, was_coming = process is place.leaving, process is place.coming
        place.remove(process)
        if was_leaving or self._is_ending:
            return
        code = process.popen.returncode
        how = f"exit status {code}" if code >= 0 else _signal_name(-code)
        if was_coming and place.current is not None:
            self._replacing.give_up(f"{process.name} ended, {how}, before it served", place)
        elif place.current is None and place.coming is None:
            self._follow(place, process, how, is_first=is_first)

    def _follow(self, place: Place, process: WorkerProcess, how: str, *, is_first: bool) -> None:
        """Have another start where one has ended, or all end."""
        code = process.popen.returncode
        if code == 0:  # as after a handler's SystemExit, or where nobody reads what is printed
            log_event("ended", f"{process.name} has ended by itself, with exit status 0", worker=place.index)
            raise Ended
        if not process.is_serving:
            place.failed += 1
            is_alone = not any(one.is_serving for one in self._processes())
            if is_first and code > 0:  # it has said why
                raise Ended(2 if code == 2 else 1)
            if place.failed > STARTS and is_alone:
                text = f"{process.name} ended, {how}: {place.failed} in a row before they served"
                log_event("failed", text, logging.ERROR, worker=place.index, how=how)
                raise Ended(2 if code == 2 else 1)
        pause = place.start_again()
        text = f"{process.name} ended, {how}: another starts in {pause:.1f} s"
        log_event("died", text, logging.ERROR, worker=place.index, pid=process.popen.pid, how=how, pause=pause)

    def _kill_late(self, now: float) -> None:
        for process in self._processes():
            if process.kill_at is not None and process.kill_at <= now:
                process.kill_at = None
                log_event("killed", f"{process.name} does not end: killed", logging.ERROR, worker=process.index)
                process.popen.kill()

    def _watch(self, now: float) -> None:
        """Tell the watchdog that this process is alive, and be that of the workers."""
        allowed = self._notifier.watchdog
        if allowed is None or now < self._watched_at + allowed / 2:
            return
        self._watched_at = now
        self._notifier.alive()
        for process in self._processes():
            if process.is_serving and not process.is_leaving:
                if process.asked_at is not None and now - process.asked_at >= allowed:
                    text = f"{process.name} has not answered for {now - process.asked_at:.0f} s: killed"
                    log_event("hung", text, logging.ERROR, worker=process.index)
                    process.popen.kill()
                process.ask_stats(now)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those without names
        return f"signal {number}"
