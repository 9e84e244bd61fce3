"""This thread's hub as a `packetcore_sockets.SyncRuntime`.

No greenlet stands behind a connection. The callbacks run in the hub, where gevent refuses
to switch: a handler that tries to block fails at once and does not hold up the others.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import gevent
import gevent.socket
import gevent.ssl
from gevent.event import Event
from gevent.monkey import get_original, is_module_patched

from packetcore import Address, Dial, Endpoint, Handle, Session
from packetcore_sockets import Found, SyncRuntime

T = TypeVar("T")

_get_ident: Callable[[], int] = get_original("threading", "get_ident")
"""Of threads, not of greenlets, also in a patched program."""

_READ, _WRITE = 1, 2

_SHORTEST = 0.001
"""Seconds: libuv wants no shorter timer."""


class Hub(SyncRuntime):
    """The hub of the thread that makes this."""

    time = staticmethod(monotonic)

    def __init__(self) -> None:
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop
        self._thread = _get_ident()
        self._watchers: dict[tuple[socket.socket, int], Any] = {}
        self._must_look = "libuv" in type(self._loop).__module__

    def call_soon(self, callback: Callable[[], object]) -> None:
        if _get_ident() == self._thread:
            self._loop.run_callback(callback)
        else:
            self._loop.run_callback_threadsafe(callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle:
        return _Timer(self._loop, max(_SHORTEST, when - monotonic()), callback)

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        self._watch(sock, _READ, callback)

    def set_writer(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        self._watch(sock, _WRITE, callback)

    def bind(self, endpoint: Endpoint[Any]) -> None:
        # A patched program has greenlets for threads, and each says that it is another one.
        endpoint.runs_by(self.call_soon, any_thread=is_module_patched("threading"))

    def end(self, error: BaseException) -> bool:
        """Have the main greenlet of this thread raise it, whatever that waits for."""
        self._loop.run_callback(self._hub.handle_system_error, type(error), error)
        return True

    def new_condition(self) -> Condition:
        return Condition()

    def start_thread(self, function: Callable[[], object], done: Callable[[], object]) -> Handle:
        task = Task(function)
        task.rawlink(lambda task: done())
        task.start()
        return task

    def look_up(
        self, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
    ) -> None:
        """By the resolver that gevent is set to."""

        def ask() -> None:
            found: Found
            try:
                found = gevent.socket.getaddrinfo(host, port, type=kind, flags=flags)
            except Exception as error:
                found = error
            self.call_soon(lambda: done(found))  # handlers run in the hub

        gevent.spawn(ask)

    def tls_over_memory(self, context: ssl.SSLContext) -> ssl.SSLContext:
        return _over_memory(context)

    def accept(
        self,
        endpoint: Endpoint[Any],
        sock: socket.socket,
        peer: Address,
        context: ssl.SSLContext | None,
        done: Callable[[Session[Any] | Exception], object],
    ) -> Handle | None:
        return super().accept(endpoint, sock, peer, context and _over_memory(context), done)

    def dialler(self, host: str, port: int, *, ssl: ssl.SSLContext | None = None, **options: Any) -> Dial:
        return super().dialler(host, port, ssl=ssl and _over_memory(ssl), **options)

    def _watch(self, sock: socket.socket, events: int, callback: Callable[[], object] | None) -> None:
        if (watcher := self._watchers.pop((sock, events), None)) is not None:
            watcher.close()
        if callback is not None:
            watcher = self._watchers[sock, events] = self._loop.io(sock.fileno(), events)
            self._start(watcher, callback)

    def _start(self, watcher: Any, callback: Callable[[], object]) -> None:
        if self._must_look:
            watcher.start(self._look, watcher, callback, pass_events=True)
        else:
            watcher.start(callback)

    def _look(self, events: int, watcher: Any, callback: Callable[[], object]) -> None:
        if events < 0:  # libuv stops watching a socket that broke: there may be more to read
            watcher.stop()
            self._start(watcher, callback)
        callback()


class Condition:
    """What greenlets wait for: the `packetcore.SyncCondition`."""

    is_served = True

    def __init__(self) -> None:
        self._event = Event()
        self.notify_all = self._event.set

    def wait_for(self, attempt: Callable[[], T], timeout: float | None = None) -> T | None:
        """See `packetcore.SyncCondition`."""
        limit = gevent.Timeout(timeout)
        try:
            with limit:
                while (result := attempt()) is None:
                    self._event.clear()  # whoever else waits was told, if it has not run yet
                    self._event.wait()
                return result
        except gevent.Timeout as expired:
            if expired is not limit:
                raise
            return attempt()


class Task(gevent.Greenlet):  # type: ignore[type-arg]  # it takes none at run time
    """A greenlet that can be cancelled."""

    def cancel(self) -> None:
        """Kill it, soon."""
        self.kill(block=False)


class _Timer:
    """Fires a turn late: of what is due in one turn gevent's loops call timers first, and a peer whose
    bytes are waiting is not silent."""

    def __init__(self, loop: Any, delay: float, callback: Callable[[], object]) -> None:
        self._loop = loop
        self._callback = callback
        self._start(delay, self._due)

    def cancel(self) -> None:
        self._timer.close()

    def _start(self, delay: float, fire: Callable[[], object]) -> None:
        self._timer = self._loop.timer(delay)
        self._timer.start(fire)

    def _due(self) -> None:
        self._timer.close()
        self._start(_SHORTEST, self._fire)

    def _fire(self) -> None:
        self._timer.close()
        self._callback()


class _OverMemory(ssl.SSLObject):
    """Where a callback of gevent's own context (server names) expects a socket."""

    def _sslsock(self) -> _OverMemory:
        """What a callback that gevent has wrapped asks its argument for, to hand that on."""
        return self


def _over_memory(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make a context fit for TLS without sockets; one of the standard library is."""
    if isinstance(context, gevent.ssl.SSLContext) and context.sslobject_class is ssl.SSLObject:
        context.sslobject_class = _OverMemory
    return context
