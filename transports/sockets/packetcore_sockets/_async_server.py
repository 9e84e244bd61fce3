"""A server whose calls are awaited, once for every `Runtime`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from packetcore import AsyncCondition, Config, Endpoint, Handler, ServerBase, Session, SessionPool
from packetcore_sockets._async_functions import Functions, S, StreamFunction
from packetcore_sockets._listening import Listening
from packetcore_sockets._runtime import Runtime


class Server(ServerBase, Generic[S]):
    """A server that listens; `serve` gives it. `async with` closes it at the end."""

    def __init__(
        self,
        runtime: Runtime,
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
        """Serve until cancelled, then close; or until another task closes it. Raises the `SystemExit`
        or `KeyboardInterrupt` of a handler, which else comes out of the runtime."""
        self._serving += 1
        try:
            await self._changed.wait_for(lambda: self._is_closed or self._error is not None)
        finally:
            self._serving -= 1
            await self.close(0.0 if self._error else 5.0)
        if self._error is not None:
            raise self._error

    async def close(self, grace: float = 5.0) -> None:
        """See `packetcore.ServerBase`. Cancelling this aborts at once."""
        self._stop_listening()
        now = self.runtime.time()
        states = {"empty": False, "late": False}

        def become(state: str) -> None:
            states[state] = True
            self._changed.notify_all()

        def is_over() -> bool:
            return states["empty"] and not self._functions.running

        late = self.runtime.call_at(now + grace, lambda: become("late"))
        self.endpoint.drain(now, lambda: become("empty"))
        try:
            await self._changed.wait_for(lambda: is_over() or states["late"])
        finally:
            late.cancel()
            self.endpoint.abort(self.runtime.time())
            self._functions.cancel()
            await self._changed.wait_for(is_over)
            self._is_closed = True
            self._changed.notify_all()
            self.runtime.release(self._end)

    async def __aenter__(self: V) -> V:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _stop_listening(self) -> None:
        if self.listening is not None:
            self.listening.close()

    def _ended(self, error: BaseException) -> None:
        """A handler wants the program to end."""
        self._stop_listening()
        if self._serving:
            self._error = error
            self._changed.notify_all()
        else:
            self.runtime.end(error)

    def _end(self) -> None:
        self._stop_listening()
        self.endpoint.abort(self.runtime.time())


V = TypeVar("V", bound=Server[Any])
