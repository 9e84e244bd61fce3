"""A client that comes back."""

from __future__ import annotations

from random import random
from threading import Condition
from time import monotonic

from packetcore import Backoff, ClientBase, Config, EndpointStats, Handler, Packet, Session
from packetcore_blocking._dial import Dialling, Target
from packetcore_blocking._functions import Functions, StreamFunction
from packetcore_blocking._loop import Loop, Timer, after


class Client(ClientBase):
    """A client that comes back; `connect` with `reconnect` gives it. `with client` closes it at
    the end.

    A thread serves it until it is closed. Its methods may be called from any thread; only
    `close` not by a handler.
    """

    def __init__(
        self,
        loop: Loop,
        target: Target,
        handler: Handler | StreamFunction,
        config: Config | None,
        reconnect: Backoff,
        keep: int,
    ) -> None:
        self._loop = loop
        self._target = target
        self._changed = Condition(loop.lock)
        self._functions = Functions(loop, self._changed)
        super().__init__(handler, self._functions.start, config, reconnect, keep=keep, random=random, clock=monotonic)
        self.endpoint.runs_by(loop.post, any_thread=True)
        self.endpoint.on_ended = self._ended
        self._error: BaseException | None = None
        self._next: Timer | Dialling
        with loop:
            self._owns_loop = loop.thread is None
            if self._owns_loop:
                loop.start("packetcore-client")
            self._dial_after(0)

    @property
    def stats(self) -> EndpointStats:
        """See `packetcore.ClientBase`."""
        with self._loop:
            return super().stats

    def send(self, packet: Packet) -> None:
        """See `packetcore.ClientBase`. It does not wait: a peer that leaves more than
        `max_outstanding` bytes unread is closed with SLOW_CONSUMER."""
        with self._loop:
            super().send(packet)

    def close(self) -> None:
        """See `packetcore.ClientBase`. It takes `close_timeout` at most: a function that is busy
        elsewhere for longer is left to its thread, and finds its stream closed. Raises
        `SystemExit` or `KeyboardInterrupt` where a handler did, once."""
        try:
            with self._loop:
                self._begin_closing()
                self._next.cancel()
            self._loop.wait(self._changed, self._is_over, after(self.endpoint.config.close_timeout))
        finally:
            if self._owns_loop:
                self._loop.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _is_over(self) -> bool | None:
        return (self.session is None and self._functions.are_over) or None

    def _dial_after(self, delay: float) -> None:
        self._next = self._loop.call_at(monotonic() + delay, self._dial)

    def _dial(self) -> None:
        self._next = Dialling(self._loop, self._target, self.endpoint, self._dialled)

    def _dialled(self, result: Session | Exception) -> None:
        if isinstance(result, Exception):
            self._failed(result)

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self._begin_closing()
        self._next.cancel()
        self._error = error

    def _on_change(self) -> None:
        self._loop.notify(self._changed)
