"""What every adapter's server does, as coroutines; in which manner it is waited for, others say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packetcore import (
    AnyPacket,
    AsyncCondition,
    Config,
    Endpoint,
    Handler,
    Inbox,
    LocalProtocolError,
    ServerBase,
    Session,
    SessionPool,
)
from packetcore_sockets._functions import Functions
from packetcore_sockets._listening import Listening
from packetcore_sockets._runtime import Runtime

HANDSHAKE_GRACE = 2.0
"""Seconds of the grace of a server that closes after which it waits for no handshake: a silent peer is not to
hold it up, and one that is there needs some round trips."""


class Server(ServerBase[AnyPacket]):
    """A server that listens; `serve` gives it.

    Args:
        runtime: on which.
        new_stream: makes a stream of an inbox.
        handler: see `packetcore.ServerBase`, and so all that follows.
    """

    def __init__(
        self,
        runtime: Runtime,
        new_stream: Callable[[Inbox[Any], Any], Any],
        handler: Handler[AnyPacket] | Callable[[Any], Any],
        config: Config | None = None,
        *,
        endpoint: Callable[..., Endpoint[AnyPacket]] = Endpoint,
        sessions: SessionPool[Session[AnyPacket]] | None = None,
    ) -> None:
        self.runtime: Any = runtime
        """What it runs on."""
        self.listening: Listening | None = None
        """Its sockets, of TCP."""
        self._changed = AsyncCondition(runtime.new_event)
        self._functions = Functions(runtime, new_stream, self._changed.notify_all)
        self._is_closed = False
        self._serving = 0
        self._error: BaseException | None = None
        super().__init__(handler, self._functions.start, config, runtime.log_exception, endpoint, sessions)
        self.endpoint.runtime = runtime
        self.endpoint.on_ended = self._ended
        runtime.bind(self.endpoint)
        runtime.hold(self._end)

    async def serve_forever(self) -> None:
        """Serve until cancelled or interrupted, as by Ctrl-C, then close; or until another closes it.
        Raises the `SystemExit` or `KeyboardInterrupt` of a handler."""
        self._serving += 1
        try:
            await self._changed.wait_for(lambda: self._is_closed or self._error is not None)
        finally:
            self._serving -= 1
            await Server.close(self)

    async def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. Cancelling or interrupting this aborts at once. Idempotent.

        A function that is busy elsewhere is cancelled. Where it cannot be, as in a thread, it has
        `close_timeout` more, then it is left to itself and finds its stream closed.

        Raises:
            SystemExit: a handler did, or `KeyboardInterrupt`, which nobody has been told; once.
        """
        if not self._is_closed:
            await self._close(0.0 if self._error else grace)
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _close(self, grace: float) -> None:
        try:
            since = self.runtime.time()
            if self.listening is not None:
                self.listening.stop(self._changed.notify_all)
            self.endpoint.drain(since, self._changed.notify_all, admit_late=self._is_opening())
            await self.runtime.within(min(grace, HANDSHAKE_GRACE), self._changed, lambda: not self._is_opening())
            self._stop_listening()
            await self.runtime.within(max(0.0, since + grace - self.runtime.time()), self._changed, self._is_over)
        finally:
            self._stop_listening()
            self.endpoint.abort(self.runtime.time())
            self._functions.cancel()
            try:
                await self.runtime.within(self.endpoint.config.close_timeout, self._changed, self._is_over)
            finally:
                self._is_closed = True
                self._changed.notify_all()
                self.runtime.release(self._end)

    def reload_tls(self, context: Any) -> None:
        """See `packetcore.ServerBase`.

        Args:
            context: what `serve` takes as `ssl`.
        """
        if self.listening is None:
            raise LocalProtocolError("reload_tls: this server speaks no TLS")
        self.listening.reload_tls(context)

    def _is_over(self) -> bool:
        return self.endpoint.is_empty and not self._functions.others()

    def _is_opening(self) -> bool:
        return self.listening is not None and self.listening.is_opening

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
