"""A server whose calls block, once for every `SyncRuntime`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from packetcore import Config, Endpoint, EndpointStats, Handler, ServerBase, Session, SessionPool
from packetcore_sockets._listening import Listening
from packetcore_sockets._runtime import SyncRuntime
from packetcore_sockets._sync_functions import Functions, S, StreamFunction


class Server(ServerBase, Generic[S]):
    """A server that listens; `serve` gives it. `with` closes it at the end. A handler must not
    call what waits."""

    def __init__(
        self,
        runtime: SyncRuntime,
        new_stream: type[S],
        handler: Handler | StreamFunction[S],
        config: Config | None = None,
        *,
        endpoint: Callable[..., Endpoint] = Endpoint,
        sessions: SessionPool[Session] | None = None,
    ) -> None:
        self.runtime = runtime
        """What it runs on."""
        self.listening: Listening | None = None
        """Its sockets, of TCP."""
        self._changed = runtime.new_condition()
        self._functions = Functions(runtime, new_stream, self._changed.notify_all)
        self._is_empty = self._is_closed = False
        self._serving = 0
        self._error: BaseException | None = None
        super().__init__(handler, self._functions.start, config, runtime.log_exception, endpoint, sessions)
        self.endpoint.runtime = runtime
        self.endpoint.on_ended = self._ended
        runtime.bind(self.endpoint)
        with runtime.lock:
            runtime.hold(self._end)

    @property
    def stats(self) -> EndpointStats:
        """See `packetcore.ServerBase`."""
        with self.runtime.lock:
            return super().stats

    @property
    def lock(self) -> AbstractContextManager[None]:
        """Hold it where several steps on `sessions` belong together, if threads share them; handlers
        wait meanwhile."""
        return self.runtime.lock

    def start(self) -> None:
        """Serve, where that takes a thread: `with` and `serve_forever` do so themselves. Idempotent."""
        self.runtime.start()

    def serve_forever(self) -> None:
        """Serve until closed or interrupted, as by Ctrl-C; then close. Raises `SystemExit` or
        `KeyboardInterrupt` where a handler did."""
        self._serving += 1
        try:
            self.start()
            self._changed.wait_for(lambda: self._is_closed or self._error is not None or None)
        finally:
            self._serving -= 1
            self.close()

    def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. An interruption aborts at once. Idempotent.

        A function that is busy elsewhere is ended; where it cannot be, it has `close_timeout` more
        and then is left to its thread, and finds its stream closed.

        Raises:
            SystemExit: a handler did, or `KeyboardInterrupt`; once.
        """
        try:
            with self.runtime.lock:
                self._stop_listening()
                self.endpoint.drain(self.runtime.time(), self._emptied)
            self._changed.wait_for(self._is_over, 0.0 if self._error else grace)
        finally:
            with self.runtime.lock:
                self.endpoint.abort(self.runtime.time())
                self._functions.cancel()
            try:
                self._changed.wait_for(self._is_over, self.endpoint.config.close_timeout)
            finally:
                with self.runtime.lock:
                    self._is_closed = True
                    self._changed.notify_all()
                self.runtime.release(self._end)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self: V) -> V:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _emptied(self) -> None:
        self._is_empty = True
        self._changed.notify_all()

    def _is_over(self) -> bool | None:
        return (self._is_empty and self._functions.are_over()) or None

    def _stop_listening(self) -> None:
        if self.listening is not None:
            self.listening.close()

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self._stop_listening()
        if self._serving or not self.runtime.end(error):
            self._error = error
            self._changed.notify_all()

    def _end(self) -> None:
        self._stop_listening()
        self.endpoint.abort(self.runtime.time())


V = TypeVar("V", bound=Server[Any])
