"""This thread's hub as the `packetcore_sockets.Loop`.

No greenlet stands behind a connection. The callbacks run in the hub, where gevent refuses
to switch: a handler that tries to block fails at once and does not hold up the others.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent import get_hub
from gevent.monkey import get_original, is_module_patched

from packetcore import Endpoint

_get_ident: Callable[[], int] = get_original("threading", "get_ident")
"""Of threads, not of greenlets, also in a patched program."""

_READ, _WRITE = 1, 2


class _Timer:
    def __init__(self, timer: Any) -> None:
        self._timer = timer

    def cancel(self) -> None:
        self._timer.close()


class HubLoop:
    """Watches sockets on this thread's hub."""

    def __init__(self) -> None:
        self._hub = get_hub()
        self._loop = self._hub.loop
        self._thread = _get_ident()
        self._watchers: dict[tuple[socket.socket, int], Any] = {}
        self._must_look = "libuv" in type(self._loop).__module__

    time = staticmethod(monotonic)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """See `packetcore_sockets.Loop`."""
        if _get_ident() == self._thread:
            self._loop.run_callback(callback)
        else:
            self._loop.run_callback_threadsafe(callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> _Timer:
        """See `packetcore_sockets.Loop`."""

        def fire() -> None:
            timer.close()
            callback()

        timer = self._loop.timer(max(0.001, when - monotonic()))  # libuv wants no less
        timer.start(fire)
        return _Timer(timer)

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        """See `packetcore_sockets.Loop`."""
        self._watch(sock, _READ, callback)

    def set_writer(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        """See `packetcore_sockets.Loop`."""
        self._watch(sock, _WRITE, callback)

    def bind(self, endpoint: Endpoint) -> None:
        """Tell an endpoint how to reach this thread, and who hears of a handler that ends the
        program: the main greenlet."""
        # A patched program has greenlets for threads, and each says that it is another one.
        endpoint.runs_by(self.call_soon, any_thread=is_module_patched("threading"))
        endpoint.on_ended = self.end

    def end(self, error: BaseException) -> None:
        """Have the main greenlet of this thread raise something, whatever it waits for."""
        self._loop.run_callback(self._hub.handle_system_error, type(error), error)

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
