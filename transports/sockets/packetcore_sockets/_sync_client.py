"""A client that comes back and whose calls block, once for every `SyncRuntime`."""

from __future__ import annotations

from random import random
from typing import Any, Generic, TypeVar

from packetcore import Backoff, ClientBase, Config, Dial, EndpointStats, Handler, Packet
from packetcore_sockets._runtime import SyncRuntime
from packetcore_sockets._sync_functions import Functions, S, StreamFunction


class Client(ClientBase, Generic[S]):
    """A client that comes back; `connect` with `reconnect` gives it. `with` closes it at the end.
    A handler must not call `close`."""

    def __init__(
        self,
        runtime: SyncRuntime,
        new_stream: type[S],
        handler: Handler | StreamFunction[S],
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        dial: Dial,
    ) -> None:
        self._runtime = runtime
        self._changed = runtime.new_condition()
        self._functions = Functions(runtime, new_stream, self._changed.notify_all)
        self._error: BaseException | None = None
        super().__init__(
            handler,
            self._functions.start,
            config,
            reconnect,
            dial,
            self._changed.notify_all,
            keep=keep,
            random=random,
            clock=runtime.time,
            call_at=runtime.call_at,
            log_exception=runtime.log_exception,
        )
        self.endpoint.runtime = runtime
        self.endpoint.on_ended = self._ended
        runtime.bind(self.endpoint)
        with runtime.lock:
            runtime.hold(self._end)
            self.dial()

    @property
    def stats(self) -> EndpointStats:
        """See `packetcore.ClientBase`."""
        with self._runtime.lock:
            return super().stats

    def send(self, packet: Packet) -> None:
        """See `packetcore.ClientBase`. It does not wait: a peer that leaves more than
        `max_outstanding` bytes unread is closed with SLOW_CONSUMER."""
        with self._runtime.lock:
            super().send(packet)

    def close(self) -> None:
        """See `packetcore.ClientBase`. It takes `close_timeout` at most. A function that is busy
        elsewhere has as long again, then it is ended; where it cannot be, it has `close_timeout` once
        more and then is left to its thread, and finds its stream closed. Raises `SystemExit` or
        `KeyboardInterrupt` where a handler did, once."""
        limit = self.endpoint.config.close_timeout
        try:
            with self._runtime.lock:
                self.begin_closing()
            self._changed.wait_for(lambda: self.session is None or None)
            self._changed.wait_for(self._functions.are_over, limit)
        finally:
            with self._runtime.lock:
                self._functions.cancel()
            try:
                self._changed.wait_for(self._functions.are_over, limit)
            finally:
                self._runtime.release(self._end)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self.begin_closing()
        if not self._runtime.end(error):
            self._error = error

    def _end(self) -> None:
        self.begin_closing()
        self.endpoint.abort(self._runtime.time())


C = TypeVar("C", bound=Client[Any])
