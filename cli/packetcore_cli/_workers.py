"""`packetcore serve --workers N`: the parent of N processes that serve one port.

It opens the sockets and keeps them, starts workers, starts again those that die, replaces them at SIGHUP and ends
them at SIGTERM. It serves nothing itself, and imports nothing of the application: a worker is a new
`packetcore serve` with the same options, which inherits its sockets and one end of a pipe (`_worker`). A worker
whose parent has gone reads the end of that pipe, and drains.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue

from packetcore import Backoff, EndpointStats, Redial
from packetcore_cli._failure import Failure, WrongUsage, reason_of
from packetcore_cli._lines import Lines, writers
from packetcore_cli._log import log_event, log_to
from packetcore_cli._metrics import total_of
from packetcore_cli._ports import sockets_of_workers
from packetcore_cli._serve import LOOPBACK, Impatient, heard, log_stopped, metrics_told
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, counted
from packetcore_cli._watching import refuse_without_one_process
from packetcore_cli._worker import Ask, Tell, Told, worker_text
from packetcore_sockets import Notifier, as_address

TURN = 0.2
"""Seconds between two looks at who has ended, where nobody says so."""

BACKOFF = Backoff(initial=0.5, maximum=10.0)
"""When a worker that died is started again. Who connects to its socket meanwhile waits in the backlog, so
the longest wait is shorter than the patience of most peers."""

STARTS = 5
"""Workers in a row that may die before they serve; with one more of them nothing works, and all ends, unless
another worker serves: what one lacks, as a broker that is away, those that have begun may do without."""

STATS_PATIENCE = 2.0
"""Seconds that a scrape waits for a worker; then it has its last numbers."""

AFTER_GRACE = 10.0
"""Seconds beyond its grace that a worker has for its end, before it is killed; functions over streams may take
`close_timeout` of them."""

ABORT_PATIENCE = 2.0
"""Seconds that workers have for their end after a second signal."""


class Process:
    """A worker that runs.

    Args:
        index: its number.
        popen: the process.
        pipe: this end.
    """

    def __init__(self, index: int, popen: subprocess.Popen[bytes], pipe: Connection[Ask, Told]) -> None:
        self.index = index
        self.popen = popen
        self.pipe = pipe
        self.stats = EndpointStats()
        self.is_loaded = self.is_serving = self.is_leaving = False
        self.asked_at: float | None = None
        """Since when it owes an answer."""
        self.kill_at: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"worker {self.index} (pid {self.popen.pid})"

    def ask(self, what: Ask) -> None:
        """Tell it something, if it is there."""
        with suppress(OSError):
            self.pipe.send(what)

    def hear(self) -> Iterator[Tell]:
        """What it has said since."""
        with suppress(EOFError, OSError):
            while self.pipe.poll():
                what, stats = self.pipe.recv()
                if stats is not None:
                    self.stats, self.asked_at = stats, None
                yield what

    def retire(self, grace: float) -> None:
        """Have it drain and end."""
        self.is_leaving = True
        self.kill_at = time.monotonic() + grace + AFTER_GRACE
        if self.is_loaded:
            self.ask(Ask.DRAIN)
        else:
            self.popen.terminate()

    def abort(self) -> None:
        """Have it end at once."""
        if self.is_loaded:
            self.ask(Ask.ABORT)
        else:
            self.popen.terminate()


class Place:
    """What one worker after the other is: a number, and sockets.

    Args:
        index: the number.
        sockets: what they serve on.
    """

    def __init__(self, index: int, sockets: list[socket.socket]) -> None:
        self.index = index
        self.sockets = sockets
        self.current: Process | None = None
        self.coming: Process | None = None
        """Is to replace it."""
        self.leaving: Process | None = None
        """Was replaced, and drains."""
        self.start_at: float | None = None
        self.failed = 0
        """How many in a row died before they served."""
        self.past = EndpointStats()
        """Counters of those that have ended."""
        self.redial = Redial(BACKOFF, random.random)

    @property
    def processes(self) -> list[Process]:
        """All that run."""
        return [one for one in (self.current, self.coming, self.leaving) if one is not None]


class Ended(Exception):
    """All is to end.

    Args:
        code: with this exit code.
    """

    def __init__(self, code: int = 0) -> None:
        self.code = code


class Signals(SimpleQueue[int]):
    """Signals that were heard, and a pipe that is readable when there are some."""

    def __init__(self) -> None:
        self.reader, self._writer = socket.socketpair()
        for sock in (self.reader, self._writer):
            sock.setblocking(False)

    def put(self, item: int, block: bool = True, timeout: float | None = None) -> None:
        """See `SimpleQueue`."""
        super().put(item)
        self.wake()

    def wake(self) -> None:
        """Make the pipe readable."""
        with suppress(OSError):
            self._writer.send(b"\0")

    def taken(self) -> Iterator[int]:
        """All there are, the pipe being emptied first."""
        with suppress(BlockingIOError):
            while self.reader.recv(4096):
                pass
        while not self.empty():
            yield self.get()

    def close(self) -> None:
        """Close the pipe."""
        self.reader.close()
        self._writer.close()


class Parent:
    """Runs the workers.

    Args:
        args: what was asked for.
        command_line: the same as it was written, for the workers.
        sockets: of each.
        signals: heard here.
        notifier: tells a service manager.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        command_line: Sequence[str],
        sockets: Sequence[list[socket.socket]],
        signals: Signals,
        notifier: Notifier,
    ) -> None:
        self._command_line = command_line
        self._udp: bool = args.udp
        self._grace: float = args.grace
        self._signals = signals
        self._notifier = notifier
        self._places = [Place(index, each) for index, each in enumerate(sockets)]
        self._to_replace: deque[Place] = deque()
        self._is_replacing = self._is_ending = False
        self._scrapes: SimpleQueue[Future[dict[str, EndpointStats]]] = SimpleQueue()
        self._reading: list[Future[dict[str, EndpointStats]]] = []
        self._read_until = 0.0
        self._watched_at = 0.0

    def start(self) -> None:
        """Start the first, and when that serves the others: an application that cannot be started says so once.

        Raises:
            Ended: one could not, and has said why.
        """
        for some in (self._places[:1], self._places[1:]):
            for place in some:
                place.current = self._started(place)
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
            if number == signal.SIGHUP:
                self._replace_all()
            elif not self._is_ending:
                raise Ended
        for place in self._places:
            for process in place.processes:
                self._heard(place, process)
                if process.popen.poll() is not None:
                    self._heard(place, process)  # what it said last
                    self._gone(place, process, is_first=is_first)
        now = time.monotonic()
        for place in self._places:
            if place.start_at is not None and place.start_at <= now:
                place.start_at = None
                try:
                    place.current = self._started(place)
                except OSError as error:  # for want of memory, or of processes
                    place.start_at = now + place.redial.lost(now)
                    text = f"worker {place.index} cannot be started, trying again: {reason_of(error)}"
                    log_event("not_started", text, logging.ERROR, worker=place.index)
        self._replace_next()
        self._kill_late(now)
        self._watch(now)
        self._read(now)

    def drain(self) -> None:
        """Have all workers drain, and wait until they have ended."""
        self._is_ending = True
        self._to_replace.clear()
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

    def stats(self) -> dict[str, EndpointStats]:
        """The counters of each place, by its number: for other threads.

        Raises:
            TimeoutError: the parent does not answer.
        """
        scrape: Future[dict[str, EndpointStats]] = Future()
        self._scrapes.put(scrape)
        self._signals.wake()
        return scrape.result(STATS_PATIENCE * 3)

    def totals(self) -> EndpointStats:
        """The sum of all counters, as last told."""
        return total_of(self._stats().values())

    def _processes(self) -> list[Process]:
        return [process for place in self._places for process in place.processes]

    def _patience(self) -> float:
        due = [place.start_at for place in self._places if place.start_at is not None]
        return max(0.0, min([TURN, *(at - time.monotonic() for at in due)]))

    def _started(self, place: Place) -> Process:
        ours, theirs = Pipe()
        with ExitStack() as unless_started, theirs:
            unless_started.callback(ours.close)
            said = worker_text(place.index, theirs.fileno(), place.sockets)
            popen = subprocess.Popen(
                [sys.executable, "-m", "packetcore_cli", *self._command_line, "--as-worker", said],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *(sock.fileno() for sock in place.sockets)],
                start_new_session=True,  # Ctrl-C is for the parent alone, who tells them
            )
            unless_started.pop_all()
        return Process(place.index, popen, ours)

    def _heard(self, place: Place, process: Process) -> None:
        for what in process.hear():
            if what is Tell.LOADED:
                process.is_loaded = True
                # Two that read one UDP socket would share the datagrams of a peer: there the old one ends first.
                if process is place.coming and self._udp:
                    if place.current is not None:
                        place.leaving, place.current = place.current, None
                        place.leaving.retire(self._grace)
                    else:
                        self._take_over(place)
                else:
                    process.ask(Ask.SERVE)
            elif what is Tell.SERVING:
                process.is_serving = True
                place.failed = 0
                place.redial.connected(time.monotonic())
                if process is place.coming:
                    place.current, place.coming, place.leaving = process, None, place.current
                    if place.leaving is not None:
                        place.leaving.retire(self._grace)

    def _take_over(self, place: Place) -> None:
        """The one that is to come can: nobody else reads its sockets."""
        if place.coming is not None and place.coming.is_loaded:
            place.current, place.coming = place.coming, None
            place.current.ask(Ask.SERVE)

    def _gone(self, place: Place, process: Process, *, is_first: bool) -> None:
        process.pipe.close()
        stats = process.stats
        stats.sessions = stats.outstanding = 0
        place.past = total_of([place.past, stats])
        code = process.popen.returncode
        how = f"exit status {code}" if code >= 0 else _signal_name(-code)
        if process is place.leaving:
            place.leaving = None
            if self._udp:
                self._take_over(place)
            return
        if process is place.coming:
            place.coming = None
            if place.current is not None and not self._is_ending:
                self._give_up(f"{process.name} ended, {how}, before it served", place)
                return
        elif process is place.current:
            place.current = None
        if self._is_ending or place.coming is not None:
            if self._udp:
                self._take_over(place)
            return
        if code == 0:  # as after a handler's SystemExit, or where nobody reads what is printed
            log_event("ended", f"{process.name} has ended by itself, with exit status 0", worker=place.index)
            raise Ended
        if not process.is_serving:
            place.failed += 1
            is_alone = not any(one.is_serving for one in self._processes())
            if (is_first and code > 0) or (place.failed > STARTS and is_alone):
                if not is_first:
                    text = f"{process.name} ended, {how}: {place.failed} in a row before they served"
                    log_event("failed", text, logging.ERROR, worker=place.index, how=how)
                raise Ended(2 if code == 2 else 1)
        pause = place.redial.lost(time.monotonic())
        place.start_at = time.monotonic() + pause
        text = f"{process.name} ended, {how}: another starts in {pause:.1f} s"
        log_event("died", text, logging.ERROR, worker=place.index, pid=process.popen.pid, how=how, pause=pause)

    def _replace_all(self) -> None:
        """At SIGHUP."""
        if not self._is_ending:
            self._notifier.reloading()
            log_event("replacing", f"SIGHUP: replacing {counted(len(self._places), 'worker')}")
            self._to_replace = deque(self._places)
            self._is_replacing = True

    def _give_up(self, why: str, place: Place) -> None:
        """Replace no more."""
        self._to_replace.clear()
        self._is_replacing = False
        text = f"{why}: SIGHUP given up, the workers there are stay"
        log_event("not_replaced", text, logging.ERROR, worker=place.index)
        self._notifier.ready()

    def _replace_next(self) -> None:
        """Begin to replace one, if that of none is under way."""
        if not self._is_replacing or any(place.coming or place.leaving for place in self._places):
            return
        if any(place.current is not None and not place.current.is_serving for place in self._places):
            return  # of UDP, one that has taken over; or one that was started again
        if not self._to_replace:
            self._is_replacing = False
            if not self._is_ending:
                log_event("replaced", f"SIGHUP: {counted(len(self._places), 'worker')} replaced")
                self._notifier.ready()
            return
        place = self._to_replace.popleft()
        if place.current is None:  # one will be started anyway
            return
        try:
            place.coming = self._started(place)
        except OSError as error:
            self._give_up(f"worker {place.index} cannot be started: {reason_of(error)}", place)

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
                self._ask_stats(process, now)

    def _ask_stats(self, process: Process, now: float) -> None:
        if process.asked_at is None:
            process.asked_at = now
            process.ask(Ask.STATS)

    def _read(self, now: float) -> None:
        """Answer scrapes: those that came together have one answer."""
        serving = [process for process in self._processes() if process.is_serving]
        if not self._reading and not self._scrapes.empty():
            while not self._scrapes.empty():
                self._reading.append(self._scrapes.get())
            self._read_until = now + STATS_PATIENCE
            for process in serving:
                self._ask_stats(process, now)
        if self._reading and (now >= self._read_until or all(process.asked_at is None for process in serving)):
            for scrape in self._reading:
                scrape.set_result(self._stats())
            self._reading.clear()

    def _stats(self) -> dict[str, EndpointStats]:
        return {
            str(place.index): total_of([place.past, *(process.stats for process in place.processes)])
            for place in self._places
        }


def serve_workers(args: argparse.Namespace, command_line: Sequence[str], out: Terminal, err: Terminal) -> int:
    """Serve by several processes until SIGINT or SIGTERM; then have all of them drain.

    Returns:
        0; 1 where a second signal cut the draining short, or workers cannot be started; 2 for what a worker
        finds wrong with the command line, and has told.
    """
    if args.workers < 1:
        raise Failure(f"workers={args.workers} must be at least 1")
    if args.record is not None:
        raise WrongUsage("argument --workers: not allowed with argument --record (see packetcore serve --help)")
    refuse_without_one_process(args)
    if args.metrics_host is not None and args.metrics_port is None:
        raise WrongUsage("--metrics-host needs --metrics-port (see packetcore serve --help)")
    signals = Signals()
    with ExitStack() as opened:
        opened.callback(signals.close)
        sockets = sockets_of_workers(args, args.host or [LOOPBACK], opened)
        to_out, to_err = opened.enter_context(writers(out, err))
        opened.enter_context(log_to(err, to_err, args.log, verbose=args.verbose))
        opened.enter_context(heard(signals))
        notifier = Notifier()
        parent = Parent(args, command_line, sockets, signals, notifier)
        where = ", ".join(address_text(as_address(sock.getsockname())) for sock in sockets[0])
        code = 0
        try:
            try:
                parent.start()
                if args.metrics_port is not None:
                    opened.enter_context(metrics_told(args, parent.stats))
                Lines(to_out, out).put("listening on ", (where, "bold"))
                log_event("workers", f"{counted(args.workers, 'worker')} serve", workers=args.workers)
                notifier.ready(f"listening on {where}, {counted(args.workers, 'worker')}")
                while True:
                    parent.turn()
            except Ended as ended:
                code = ended.code
            finally:
                if not isinstance(sys.exc_info()[1], Impatient):
                    notifier.stopping(f"draining {counted(args.workers, 'worker')}")
                    parent.drain()
        except Impatient:
            log_event("aborted", "aborted by a second signal", logging.WARNING)
            code = 1
        finally:
            parent.abort()
        if code == 0:
            log_stopped(parent.totals())
        return code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those without names
        return f"signal {number}"
