"""The one place that waits, and the lock around all else.

The core needs mutual exclusion and no particular thread: `with loop:` is that exclusion.
Sockets and timers are served by one thread at a time: by the loop's own where it was started,
else by whichever thread waits for something. It lets others in only while it selects.
"""

from __future__ import annotations

import heapq
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from socket import socket, socketpair
from time import monotonic
from typing import Any, TypeVar

from packetcore import Address, Endpoint, Handle, Host, Latch, Session, open_latches
from packetcore_blocking._session import LockedDatagramSession, LockedPacedSession, LockedSession
from packetcore_blocking._thread import Cancelled, Thread
from packetcore_sockets import SyncRuntime

T = TypeVar("T")

Callback = Callable[[], object]

LONGEST_WAIT = 1.0 if sys.platform == "win32" else 86400.0
"""Seconds: a selector counts milliseconds, and refuses more than some days of them; and on Windows
Ctrl-C does not interrupt a wait."""


@dataclass(order=True, slots=True)
class Timer:
    """Something to do at a time; without a callback it was called off."""

    at: float
    callback: Callback | None = field(compare=False)

    def cancel(self) -> None:
        """Call it off. Idempotent."""
        self.callback = None


class Loop(SyncRuntime):
    """A selector, a heap of timers and a re-entrant lock, which is held for all calls but of
    `wait`, `post`, `call_soon`, `hold`, `release` and `close`. It closes with the last of what it
    is held for."""

    time = staticmethod(monotonic)

    def __init__(self, is_lasting: bool = False) -> None:
        self.is_lasting = is_lasting
        """Whether it is a driver's, which lasts as long as that."""
        self.lock = self
        self.mutex = threading.RLock()
        """The lock itself."""
        self.thread: threading.Thread | None = None
        """Its own thread."""
        self.driver = 0
        """The ident of the thread that serves it now."""
        self.closed = False
        self.new_datagram_session = partial(LockedDatagramSession, self)
        self._held: set[Callback] = set()
        self._selector = DefaultSelector()
        self._selecting = False
        self._timers: list[Timer] = []
        self._soon: deque[Callback] = deque()
        self._posted: deque[Callback] = deque()
        self._followers: set[Condition] = set()  # of threads that wait and do not serve
        self._opening: list[Latch] = []  # of those to be woken once the lock is let go
        self._depth = 0
        self._own = threading.Condition(self.mutex)  # tells whether this thread has it
        self._idle = Condition(self)
        self._waker, self._alarm = socketpair()
        self.set_reader(self._waker, lambda: self._waker.recv(64))

    def __enter__(self) -> None:
        self.mutex.acquire()
        self._depth += 1

    def __exit__(self, *exception: object) -> None:
        try:
            if self._soon and self.driver != threading.get_ident():
                if self.thread is None:
                    self._run_soon()
                else:
                    self.interrupt()
        finally:
            self._depth -= 1
            opening = self._opening
            if not opening or self._depth:
                self.mutex.release()
            else:
                self._opening = []
                self.mutex.release()
                open_latches(opening)

    def call_soon(self, callback: Callback) -> None:
        """Call something as soon as what goes on with the lock held is over; of a thread that has
        not the lock, see `post`."""
        try:
            self._own.notify(0)
        except RuntimeError:  # this thread has not the lock
            self.post(callback)
        else:
            self._soon.append(callback)

    def post(self, callback: Callback) -> None:
        """Have the thread that serves call something, soon."""
        with self:
            self._posted.append(callback)
            self.interrupt()

    def call_at(self, when: float, callback: Callback) -> Handle:
        timer = Timer(when, callback)
        heapq.heappush(self._timers, timer)
        if self._timers[0] is timer:
            self.interrupt()
        return timer

    def set_reader(self, sock: socket, callback: Callback | None) -> None:
        _, writer = self._watched(sock)
        self._watch(sock, callback or _nothing, writer)

    def set_writer(self, sock: socket, callback: Callback | None) -> None:
        reader, _ = self._watched(sock)
        self._watch(sock, reader, callback or _nothing)

    def new_session(self, endpoint: Endpoint[Any], host: Host, peer: Address, now: float) -> Session[Any]:
        if endpoint.config.interframe_delay:
            return LockedPacedSession(self, endpoint, host, peer, now)
        return LockedSession(self, endpoint, host, peer, now)

    def bind(self, endpoint: Endpoint[Any]) -> None:
        endpoint.runs_by(self.post, any_thread=True)

    def hold(self, end: Callback) -> None:
        """See `packetcore_sockets.Network`.

        Raises:
            RuntimeError: the loop is closed.
        """
        with self:
            if self.closed:
                raise RuntimeError("the loop was closed")
            self._held.add(end)

    def release(self, end: Callback) -> None:
        with self:
            self._held.discard(end)
            is_last = not self._held
        if is_last:
            self.close()

    def end(self, error: BaseException) -> bool:
        """No thread waits for a handler's end of the program: `close` and `serve_forever` raise it."""
        return False

    def start(self) -> None:
        with self:
            if self.thread is None and not self.closed:
                self.thread = threading.Thread(target=self.serve, name="packetcore-loop", daemon=True)
                self.thread.start()  # it begins by waiting for the lock

    def serve(self) -> None:
        """Serve sockets on this thread until closed."""
        with self:
            self.thread = threading.current_thread()
        try:
            self.wait(self._idle, lambda: None)
        finally:
            with self:
                self.thread = None
                self.close()

    def new_condition(self) -> Condition:
        return Condition(self)

    def start_thread(self, function: Callback, done: Callback) -> Thread:
        thread = Thread(function, done)
        thread.start()
        return thread

    def cancel(self, thread: Thread) -> None:
        """Have a thread's waits here raise `Cancelled`."""
        thread.is_cancelled = True
        with self:
            self.notify_followers()

    def interrupt(self) -> None:
        """Have whoever serves look again whether there is a change."""
        if self._selecting:
            self._selecting = False
            self._alarm.send(b"\0")

    def notify(self, condition: Condition) -> None:
        """Have those who wait on a condition look again, once the lock is let go."""
        if condition.latches:
            self._followers.discard(condition)
            self._opening += condition.latches
            condition.latches.clear()
        if self.thread is None:
            self.interrupt()  # who serves may wait for the same

    def notify_followers(self) -> None:
        """Have all look again who wait and do not serve."""
        for condition in [*self._followers]:
            self.notify(condition)

    def wait(self, condition: Condition, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
        """Wait for an attempt to give something, and give that; `None` if it gave nothing for
        `timeout` seconds, or until the loop is closed.

        Raises:
            RuntimeError: called in a handler, for which the whole loop would wait.
        """
        until = None if timeout is None else monotonic() + timeout
        thread = threading.current_thread()
        with self:
            is_last = False
            while not getattr(thread, "is_cancelled", False):
                if self._soon and self.driver != thread.ident:
                    self._run_soon()
                result = attempt()
                if result is not None or is_last or self.closed:
                    return result
                if self.driver == thread.ident:
                    raise RuntimeError("a handler must not block: it holds up the thread that would end its wait")
                if self._soon:  # what the attempt asked for
                    continue
                left = LONGEST_WAIT if until is None else min(max(0.0, until - monotonic()), LONGEST_WAIT)
                is_last = left == 0
                if self.driver or self.thread not in (None, thread):
                    self._follow(condition, left)
                else:
                    self._serve(left)
            raise Cancelled

    def wait_closed(self) -> None:
        """Wait until it closes, unless it is one that lasts."""
        if not self.is_lasting:
            self.wait(self._idle, lambda: None)

    def close(self) -> None:
        """End all that it is held for, and its thread. Idempotent."""
        me = threading.current_thread()
        with self:
            thread, self.closed = self.thread, True
            while self._held:
                self._held.pop()()
            self.interrupt()
            self.notify_followers()
            while self.driver not in (0, me.ident) or self.thread not in (None, me):
                self._follow(self._idle, LONGEST_WAIT)
            if not self.driver:
                self._shut()
        if thread not in (None, me):
            thread.join()

    def _serve(self, timeout: float) -> None:
        self.driver = threading.get_ident()
        try:
            if self._timers:
                timeout = max(0.0, min(timeout, self._timers[0].at - monotonic()))
            if self._posted:
                timeout = 0.0
            self._selecting = True
            held = self._let_go()
            try:
                ready = self._selector.select(timeout)
            finally:
                self._take_back(held)
                self._selecting = False
            if self._timers and self._timers[0].at <= monotonic():
                ready = self._selector.select(0)  # the lock may have been long in coming
            for key, mask in ready:
                reader, writer = key.data
                if mask & EVENT_READ:
                    reader()
                if mask & EVENT_WRITE:
                    writer()
            # Timers come second, so that a peer whose bytes were waiting is not called silent.
            now = monotonic()
            while self._timers and self._timers[0].at <= now:
                if (callback := heapq.heappop(self._timers).callback) is not None:
                    callback()
            for _ in range(len(self._posted)):
                self._posted.popleft()()
        finally:
            self.driver = 0
            if self.thread is not threading.current_thread():
                self.notify_followers()  # another has to serve when this one leaves
                if self.closed:
                    self._shut()

    def _follow(self, condition: Condition, timeout: float) -> None:
        """Wait while others serve, until notified."""
        latch = Latch()
        condition.latches.append(latch)
        self._followers.add(condition)
        held = self._let_go()
        try:
            latch.wait(timeout)
        finally:
            self._take_back(held)
            if latch in condition.latches:  # nobody did
                condition.latches.remove(latch)
                if not condition.latches:
                    self._followers.discard(condition)

    def _let_go(self) -> tuple[int, int]:
        """Let others have the lock, and wake who is to be woken. Returns how often it was held, and `_depth`: a
        signal whose handler waits here may have come before an `acquire` was counted, or after a `release` was."""
        depth, self._depth = self._depth, 0
        opening, self._opening = self._opening, []
        times = 0
        try:
            while True:
                self.mutex.release()
                times += 1
        except RuntimeError:  # it is held no more
            if opening:
                open_latches(opening)
        return times, depth

    def _take_back(self, held: tuple[int, int]) -> None:
        times, depth = held
        for _ in range(times):
            self.mutex.acquire()
        self._depth = depth

    def _shut(self) -> None:
        for closeable in (self._selector, self._waker, self._alarm):
            closeable.close()

    def _watched(self, sock: socket) -> tuple[Callback, Callback]:
        key = None if self.closed else self._selector.get_map().get(sock.fileno())
        return (_nothing, _nothing) if key is None else key.data

    def _watch(self, sock: socket, reader: Callback, writer: Callback) -> None:
        if self.closed:
            return
        fd = sock.fileno()
        mask = (EVENT_READ if reader is not _nothing else 0) | (EVENT_WRITE if writer is not _nothing else 0)
        is_watched = fd in self._selector.get_map()
        if is_watched and mask:
            self._selector.modify(fd, mask, (reader, writer))
        elif is_watched:
            self._selector.unregister(fd)
        elif mask:
            self._selector.register(fd, mask, (reader, writer))
        self.interrupt()  # not every selector sees a change while it waits

    def _run_soon(self) -> None:
        while self._soon:
            self._soon.popleft()()


def _nothing() -> None:
    pass


class Condition:
    """What threads wait for: the `packetcore.SyncCondition`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.latches: list[Latch] = []
        """Of the threads that wait on it and do not serve."""

    @property
    def is_served(self) -> bool:
        """See `packetcore.SyncCondition`."""
        return self._loop.thread is not None

    def notify_all(self) -> None:
        """See `packetcore.SyncCondition`; with the loop's lock held."""
        self._loop.notify(self)

    def wait_for(self, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
        """See `packetcore.SyncCondition` and `Loop.wait`."""
        return self._loop.wait(self, attempt, timeout)
