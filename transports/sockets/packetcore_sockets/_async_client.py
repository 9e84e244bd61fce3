"""A client that comes back and whose calls are awaited, once for every `Runtime`."""

from __future__ import annotations

from random import random
from typing import Any, Generic, TypeVar

from packetcore import AsyncCondition, Backoff, ClientBase, Config, Dial, Handler
from packetcore_sockets._async_functions import Functions, S, StreamFunction
from packetcore_sockets._runtime import Runtime


class Client(ClientBase, Generic[S]):
    """A client that comes back; `connect` with `reconnect` gives it. `async with` closes it at
    the end."""

    def __init__(
        self,
        runtime: Runtime,
        new_stream: type[S],
        handler: Handler | StreamFunction[S],
        config: Config | None,
        reconnect: Backoff,
        keep: int,
        dial: Dial,
    ) -> None:
        self._runtime = runtime
        self._changed = AsyncCondition(runtime.new_event)
        self._functions = Functions(runtime, new_stream, self._changed.notify_all)
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
        runtime.hold(self._end)
        self.dial()

    async def close(self) -> None:
        """See `packetcore.ClientBase`. It takes `close_timeout` at most; a function that is busy
        elsewhere has as long again, then it is cancelled."""
        self.begin_closing()
        await self._changed.wait_for(lambda: self.session is None)
        limit = self.endpoint.config.close_timeout
        late = None if limit is None else self._runtime.call_at(self._runtime.time() + limit, self._functions.cancel)
        try:
            await self._changed.wait_for(lambda: not self._functions.running)
        finally:
            if late is not None:
                late.cancel()
            self._runtime.release(self._end)

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self.begin_closing()
        self._runtime.end(error)

    def _end(self) -> None:
        self.begin_closing()
        self.endpoint.abort(self._runtime.time())


C = TypeVar("C", bound=Client[Any])
