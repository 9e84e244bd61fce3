"""Tornado's `IOLoop` as a `packetcore_sockets.Runtime`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any

from tornado.ioloop import IOLoop
from tornado.locks import Event

from packetcore import Handle
from packetcore_sockets import Runtime

Callback = Callable[[], object]


class TornadoRuntime(Runtime):
    """The `IOLoop` of where this is made."""

    time = staticmethod(monotonic)  # that of an IOLoop is the wall clock's, which may go back
    new_event = staticmethod(Event)

    def __init__(self) -> None:
        self._loop = IOLoop.current()
        self._watching: dict[socket.socket, dict[int, Callback]] = {}

    def call_soon(self, callback: Callback) -> None:
        self._loop.add_callback(callback)

    def call_at(self, when: float, callback: Callback) -> Handle:
        timeout = self._loop.call_at(self._loop.time() + when - monotonic(), callback)
        return _Timer(partial(self._loop.remove_timeout, timeout))

    def set_reader(self, sock: socket.socket, callback: Callback | None) -> None:
        self._watch(sock, IOLoop.READ, callback)

    def set_writer(self, sock: socket.socket, callback: Callback | None) -> None:
        self._watch(sock, IOLoop.WRITE, callback)

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callback) -> Handle:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(lambda task: done())
        return task

    def _watch(self, sock: socket.socket, event: int, callback: Callback | None) -> None:
        """Set one of the two callbacks of a socket, which has one handler for both."""
        before = self._watching.pop(sock, {})
        callbacks = {of: other for of, other in before.items() if of != event}
        if callback is not None:
            callbacks[event] = callback
        if callbacks:
            self._watching[sock] = callbacks
            if before:
                self._loop.update_handler(sock, sum(callbacks))
            else:
                self._loop.add_handler(sock, self._look, sum(callbacks))
        elif before:
            self._loop.remove_handler(sock)

    def _look(self, sock: socket.socket, events: int) -> None:
        for event in IOLoop.READ, IOLoop.WRITE:
            if events & event and (callback := self._watching.get(sock, {}).get(event)) is not None:
                callback()


class _Timer:
    def __init__(self, cancel: Callback) -> None:
        self.cancel = cancel
