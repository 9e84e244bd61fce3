"""A client that comes back."""

from __future__ import annotations

from functools import partial
from random import random
from time import monotonic

import gevent
from gevent.event import Event

from packetcore import Backoff, ClientBase, Config, Handler
from packetcore_gevent._dial import Dial
from packetcore_gevent._functions import Functions, StreamFunction
from packetcore_gevent._loop import HubLoop
from packetcore_sockets import StreamSocket


class Client(ClientBase):
    """A client that comes back; `connect` with `reconnect` gives it. `with` closes it at the
    end."""

    def __init__(
        self,
        handler: Handler | StreamFunction,
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        loop: HubLoop,
        dial: Dial,
    ) -> None:
        self._loop = loop
        self._functions = Functions()
        self._changed = Event()
        self._dial = dial
        super().__init__(handler, self._functions.start, config, reconnect, keep=keep, random=random, clock=monotonic)
        loop.bind(self.endpoint)
        self.endpoint.on_ended = self._ended
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
            dialled = self._dial(self.endpoint)
        except Exception as error:
            self._failed(error)
        else:
            self._loop.call_soon(partial(StreamSocket, self._loop, self.endpoint, *dialled))  # handlers run in the hub

    def _ended(self, error: BaseException) -> None:
        self._begin_closing()
        self._dialing.kill(block=False)
        self._loop.end(error)

    def _on_change(self) -> None:
        self._changed.set()
