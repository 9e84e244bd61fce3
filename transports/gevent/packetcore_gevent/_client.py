"""A client that comes back."""

from __future__ import annotations

import socket
from collections.abc import Callable
from random import random
from time import monotonic

import gevent
from gevent.event import Event

from packetcore import Address, Backoff, ClientBase, Config, Endpoint, Handler
from packetcore_gevent._functions import Functions, StreamFunction
from packetcore_gevent._socket import SocketHost


class Client(ClientBase):
    """A client that comes back; `connect` with `reconnect` gives it. `with` closes it at the
    end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        dial: Callable[[Endpoint], tuple[socket.socket, Address]],
    ) -> None:
        self._loop = gevent.get_hub().loop
        self._functions = Functions()
        self._changed = Event()
        self._dial = dial
        super().__init__(handler, self._functions.start, config, reconnect, keep=keep, random=random, clock=monotonic)
        self._dial_after(0)

    def close(self) -> None:
        """See `packetcore.ClientBase`; a handler has to spawn this. It takes `close_timeout` at
        most. A function that is busy elsewhere has as long again, then it is killed."""
        self._begin_closing()
        self.endpoint.draining = True  # what has connected just now comes too late
        self._dialing.kill()
        while self.session is not None:
            self._changed.clear()
            self._changed.wait()
        others = [function for function in self._functions.running if function is not gevent.getcurrent()]
        gevent.joinall(others, self.endpoint.config.close_timeout)
        gevent.killall(others)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _dial_after(self, delay: float) -> None:
        self._dialing = gevent.spawn_later(max(0.001, delay), self._try)  # libuv wants no less

    def _try(self) -> None:
        try:
            sock, peer = self._dial(self.endpoint)
        except Exception as error:
            self._failed(error)
        else:
            self._loop.run_callback(SocketHost, self.endpoint, sock, peer)  # handlers run in the hub

    def _on_change(self) -> None:
        self._changed.set()
