"""The one place that waits, and the lock around all else.

The core needs mutual exclusion and no particular thread: `with loop:` is that exclusion.
Sockets and timers are served by one thread at a time: by the loop's own where it was started,
else by whichever thread waits for something. It lets others in only while it selects.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from socket import socket, socketpair
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

Callback = Callable[[], object]

LONGEST_WAIT = 86400.0
"""Seconds: a selector counts milliseconds, and refuses more than some days of them."""


@dataclass(order=True, slots=True)
class Timer:
    """Something to do at a time; without a callback it was called off."""

    at: float
    callback: Callback | None = field(compare=False)

    def cancel(self) -> None:
        """Call it off. Idempotent."""
        self.callback = None


class Cancelled(BaseException):
    """Ends a thread that waits for what nobody wants any more."""


class Worker(threading.Thread):
    """A thread whose waits in a loop can be cancelled."""

    cancelled = False


class Loop:
    """A selector, a heap of timers and a re-entrant lock, without which only `wait`, `post`,
    `run_in_thread` and `close` may be called: the `packetcore_sockets.Loop`."""

    time = staticmethod(monotonic)

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: set[Callback] = set()
        """For each open socket, each try to open one and each server, what ends it at once."""
        self.thread: threading.Thread | None = None
        """Its own thread."""
        self.driver = 0
        """The ident of the thread that serves it now."""
        self.servers = 0
        """How many servers use it, where each has to `leave`."""
        self.closed = False
        self._selector = DefaultSelector()
        self._selecting = False
        self._timers: list[Timer] = []
        self._soon: deque[Callback] = deque()
        self._posted: deque[Callback] = deque()
        self._followers: set[threading.Condition] = set()  # of threads that wait and do not serve
        self._idle = threading.Condition(self.lock)
        self._waker, self._alarm = socketpair()
        self.set_reader(self._waker, lambda: self._waker.recv(64))

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *exception: object) -> None:
        try:
            if self._soon and self.driver != threading.get_ident():
                if self.thread is None:
                    self._run_soon()
                else:
                    self.interrupt()
        finally:
            self.lock.release()

    def set_reader(self, sock: socket, callback: Callback | None) -> None:
        """See `packetcore_sockets.Loop`."""
        _, writer = self._watched(sock)
        self._watch(sock, callback or _nothing, writer)

    def set_writer(self, sock: socket, callback: Callback | None) -> None:
        """See `packetcore_sockets.Loop`."""
        reader, _ = self._watched(sock)
        self._watch(sock, reader, callback or _nothing)

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Call something at a time of `time.monotonic`."""
        timer = Timer(when, callback)
        heapq.heappush(self._timers, timer)
        if self._timers[0] is timer:
            self.interrupt()
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Call something as soon as what goes on with the lock held is over."""
        self._soon.append(callback)

    def post(self, callback: Callback) -> None:
        """Have the thread that serves call something, soon; from any thread, without the lock."""
        with self:
            self._posted.append(callback)
            self.interrupt()

    def interrupt(self) -> None:
        """Have whoever serves look again whether there is a change."""
        if self._selecting:
            self._selecting = False
            self._alarm.send(b"\0")

    def notify(self, condition: threading.Condition) -> None:
        """Have those who wait on a condition look again."""
        if condition in self._followers:
            self._followers.discard(condition)
            condition.notify_all()
        if self.thread is None:
            self.interrupt()  # who serves may wait for the same

    def wait(self, condition: threading.Condition, attempt: Callable[[], T], until: float | None = None) -> T | None:
        """Wait for an attempt to give something, and give that; `None` if none did by `until`.

        Raises:
            RuntimeError: called in a handler, for which the whole loop would wait.
        """
        thread = threading.current_thread()
        with self:
            is_last = False
            while not getattr(thread, "cancelled", False):
                result = attempt()
                if result is not None or is_last or self.closed:
                    return result
                if self.driver == thread.ident:
                    raise RuntimeError("a handler must not block: it holds up the thread that would end its wait")
                if self._soon:
                    self._run_soon()
                    continue
                timeout = None if until is None else max(0.0, until - monotonic())
                is_last = timeout == 0
                if self.driver or self.thread not in (None, thread):
                    self._followers.add(condition)
                    condition.wait(timeout)
                else:
                    self._serve(timeout)
            raise Cancelled

    def run_in_thread(self, function: Callable[[], T], timeout: float | None) -> T:
        """Give what a function gives or raises on a thread of its own, which holds the lock
        save where it waits in this loop.

        Raises:
            TimeoutError: it took longer than `timeout` seconds, and will not wait again.
            RuntimeError: the loop is closed.
        """
        if self.closed:
            raise RuntimeError("it was stopped")
        future: Future[T] = Future()
        condition = threading.Condition(self.lock)

        def run() -> None:
            with self:
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
                self.notify(condition)

        worker = Worker(target=run, name="packetcore-worker", daemon=True)
        worker.start()
        try:
            self.wait(condition, lambda: future.done() or None, after(timeout))
        finally:
            worker.cancelled = True
            with self:
                self._wake_followers()
        if not future.done() or isinstance(future.exception(), Cancelled):
            raise TimeoutError(f"not done after {timeout} s")
        return future.result()

    def start(self, name: str, is_over: Callable[[], bool] = lambda: False) -> None:
        """Serve on a thread of its own until it is over, then close; or until closed."""
        thread = threading.Thread(target=self._run, args=(is_over,), name=name, daemon=True)
        thread.start()  # it begins by waiting for the lock
        self.thread = thread

    def close(self) -> None:
        """Close every socket and end the thread. Idempotent."""
        me = threading.current_thread()
        with self:
            thread, self.closed = self.thread, True
            for end in [*self.open]:
                end()
            self.interrupt()
            self._wake_followers()
            while self.driver not in (0, me.ident) or self.thread not in (None, me):
                self._followers.add(self._idle)
                self._idle.wait()
            if not self.driver:
                for closeable in (self._selector, self._waker, self._alarm):
                    closeable.close()
        if thread not in (None, me):
            thread.join()

    def _run(self, is_over: Callable[[], bool]) -> None:
        try:
            self.wait(self._idle, lambda: is_over() or None)
        finally:
            with self:
                self.thread = None
                self.close()

    def _serve(self, timeout: float | None) -> None:
        self.driver = threading.get_ident()
        try:
            due = self._timers[0].at - monotonic() if self._timers else LONGEST_WAIT
            timeout = max(0.0, min(due, LONGEST_WAIT if timeout is None else timeout, LONGEST_WAIT))
            if self._posted:
                timeout = 0.0
            self._selecting = True
            self.lock.release()
            try:
                ready = self._selector.select(timeout)
            finally:
                self.lock.acquire()
                self._selecting = False
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
                self._wake_followers()  # another has to serve when this one leaves

    def _watched(self, sock: socket) -> tuple[Callback, Callback]:
        key = self._selector.get_map().get(sock.fileno())
        return (_nothing, _nothing) if key is None else key.data

    def _watch(self, sock: socket, reader: Callback, writer: Callback) -> None:
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

    def _wake_followers(self) -> None:
        while self._followers:
            self._followers.pop().notify_all()

    def _run_soon(self) -> None:
        while self._soon:
            self._soon.popleft()()


def _nothing() -> None:
    pass


def after(timeout: float | None) -> float | None:
    """When a timeout that begins now is over."""
    return None if timeout is None else monotonic() + timeout
