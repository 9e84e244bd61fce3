"""What every adapter's client that comes back does, as coroutines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from packetcore import AnyPacket, AsyncCondition, Backoff, ClientBase, Config, Dial, Endpoint, Handler, Inbox
from packetcore_sockets._functions import Functions
from packetcore_sockets._runtime import Runtime


class Client(ClientBase[AnyPacket]):
    """A client that comes back; `connect` with `reconnect` gives it.

    Args:
        runtime: on which.
        new_stream: makes a stream of an inbox.
        handler: see `packetcore.ClientBase`, and so all that follows.
    """

    def __init__(
        self,
        runtime: Runtime,
        new_stream: Callable[[Inbox[Any], Any], Any],
        handler: Handler[AnyPacket] | Callable[[Any], Any],
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        dial: Dial,
        endpoint: Callable[..., Endpoint[AnyPacket]] = Endpoint,
    ) -> None:
        self.runtime: Any = runtime
        """What it runs on."""
        self._changed = AsyncCondition(runtime.new_event)
        self._functions = Functions(runtime, new_stream, self._look)
        self._error: BaseException | None = None
        super().__init__(
            handler,
            self._functions.start,
            config,
            reconnect,
            dial,
            self._look,
            keep=keep,
            random=runtime.random,
            clock=runtime.time,
            call_at=runtime.call_at,
            log_exception=runtime.log_exception,
            endpoint=endpoint,
        )
        self.endpoint.runtime = runtime
        self.endpoint.on_ended = self._ended
        runtime.bind(self.endpoint)
        runtime.hold(self._end)
        self.dial()

    async def close(self) -> None:
        """See `packetcore.ClientBase`. It takes `close_timeout` at most. A function that is busy
        elsewhere has as long again, then it is cancelled; where it cannot be, as in a thread, it is
        left to itself and finds its stream closed. If this is cancelled, the closing goes on. Raises
        the `SystemExit` or `KeyboardInterrupt` of a handler, which nobody has been told, once."""
        limit = self.endpoint.config.close_timeout
        self.begin_closing()
        await self.runtime.within(None, self._changed, lambda: self.session is None)
        await self.runtime.within(limit, self._changed, self._is_over)
        self._functions.cancel()
        await self.runtime.within(limit, self._changed, self._is_over)
        self.runtime.release(self._end)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _is_over(self) -> bool:
        return not self._functions.others()

    def _look(self) -> None:
        self._changed.notify_all()
        if self.is_closed and self.session is None and self._is_over():
            self.runtime.release(self._end)

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self.begin_closing()
        if not self.runtime.end(error):
            self._error = error

    def _end(self) -> None:
        self.begin_closing()
        self.endpoint.abort(self.runtime.time())
