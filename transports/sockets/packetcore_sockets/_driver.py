"""A runtime on a thread of its own, for tools that know none."""

from __future__ import annotations

import inspect
import socket
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

from packetcore import AsyncStream, Driver, Handle, SyncStream
from packetcore_sockets._adapter import Adapter
from packetcore_sockets._blocking import SyncAdapter, SyncRuntime, waiting
from packetcore_sockets._runtime import Runtime

START_TIMEOUT = 30.0
"""Seconds that a runtime may take to start."""

CANCEL_PATIENCE = 1.0
"""Seconds that a call which was given up has for its end."""

FUNCTIONS = ["serve", "connect", "serve_udp", "connect_udp"]
"""What an adapter has, as far as this system goes, and what is installed."""
if hasattr(socket, "AF_UNIX"):
    FUNCTIONS += ["serve_unix", "connect_unix"]
if find_spec("termios") and find_spec("serial"):
    FUNCTIONS += ["connect_serial"]

Started = Callable[[Any, Callable[[], object]], object]
"""`started(runtime, end)`: to be told a runtime, and what has it end, which is called there."""


class ThreadDriver(Driver):
    """What drivers of both kinds have. A subclass says how its runtime runs.

    Args:
        request: see `packetcore.Driver`.
        echo: see `packetcore.Driver`.
        functions: what else that takes, by its name; each is told where its runtime is.
    """

    def __init__(self, request: Any, echo: Any, **functions: Any) -> None:
        self._calls: dict[Future[Any], Handle] = {}
        started: Future[tuple[Any, Callable[[], object]]] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name=type(self).__name__, daemon=True)
        self._thread.start()
        self.runtime, self._end = started.result(START_TIMEOUT)
        where = self.where()

        bound: dict[str, Any] = {name: partial(function, **where) for name, function in functions.items()}
        super().__init__(echo=echo, request=request, **bound)

    def where(self) -> dict[str, Any]:
        """What the adapter's functions take that its runtime needs to know, as a nursery: asked once
        that runs."""
        return {}

    @abstractmethod
    def run(self, started: Started) -> None:
        """Make a runtime, tell it and what ends it by `started(runtime, end)`, and run it until `end`
        was called, on the runtime: called on a thread of its own."""

    def capabilities(self) -> frozenset[str]:
        """See `packetcore.Driver`. WebSocket takes wsproto."""
        return super().capabilities() - (set() if find_spec("wsproto") else {"websocket"})

    @abstractmethod
    def begin(self, function: Callable[[], Any], future: Future[Any]) -> Handle:
        """Call a function as `call` says, with the outcome in a future: called on the runtime."""

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = 30.0) -> Any:
        """See `packetcore.Driver`."""
        if not self._thread.is_alive():
            raise RuntimeError("the driver was stopped")
        future: Future[Any] = Future()

        def begin() -> None:
            if future.set_running_or_notify_cancel():
                self._calls[future] = self.begin(partial(function, *args), future)

        def give_up() -> None:
            if (called := self._calls.pop(future, None)) is not None:
                called.cancel()

        self.runtime.call_soon(begin)
        try:
            return self.result(future, timeout)
        finally:
            with suppress(RuntimeError, OSError):  # it has ended meanwhile, and the call with it
                self.runtime.call_soon(give_up)
                if not future.done():
                    wait_for([future], CANCEL_PATIENCE)

    def stop(self) -> None:
        """See `packetcore.Driver`."""
        if self._thread.is_alive():
            self.close_all()
            told = threading.Event()
            self.runtime.call_soon(partial(self._stop, told))
            told.set()
            self._thread.join()

    def _run(self, started: Future[tuple[Any, Callable[[], object]]]) -> None:
        try:
            self.run(lambda runtime, end: started.set_result((runtime, end)))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    def _stop(self, told: threading.Event) -> None:
        told.wait()  # else the loop could be gone before whoever woke it has returned
        while self._calls:
            self._calls.popitem()[1].cancel()
        self._end()


class AsyncDriver(ThreadDriver):
    """A driver for an adapter whose calls are awaited.

    Args:
        adapter: its functions.
        new_pool: its `ConnectionPool`.
    """

    runtime: Runtime

    def __init__(self, adapter: Adapter, new_pool: Callable[..., Any]) -> None:
        functions: dict[str, Any] = {name: getattr(adapter, name) for name in FUNCTIONS}
        super().__init__(adapter.request, _echo, new_pool=new_pool, **functions)

    def begin(self, function: Callable[[], Any], future: Future[Any]) -> Handle:
        """See `ThreadDriver`."""

        async def run() -> None:
            try:
                result = function()
                if inspect.isawaitable(result):
                    result = await result
            except Exception as error:
                future.set_exception(error)
            except (KeyboardInterrupt, SystemExit) as error:
                future.set_exception(error)
                raise
            except BaseException:
                future.set_exception(TimeoutError("it was cancelled"))
                raise
            else:
                future.set_result(result)

        return self.runtime.spawn(run(), lambda: None)


class SyncDriver(ThreadDriver):
    """A driver for an adapter whose calls block.

    Args:
        adapter: its functions.
        new_pool: its `ConnectionPool`.
    """

    runtime: SyncRuntime

    def __init__(self, adapter: SyncAdapter, new_pool: Callable[..., Any]) -> None:
        functions: dict[str, Any] = {name: getattr(adapter, f"{name}_and_wait") for name in FUNCTIONS}
        super().__init__(waiting(adapter.request), _echo_and_wait, new_pool=new_pool, **functions)

    def begin(self, function: Callable[[], Any], future: Future[Any]) -> Handle:
        """See `ThreadDriver`."""

        def run() -> None:
            try:
                with self.runtime.lock:
                    result = function()
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                future.set_exception(error)
            except BaseException:
                future.set_exception(TimeoutError("it was cancelled"))
            else:
                future.set_result(result)

        return self.runtime.start_thread(run, lambda: None)


async def _echo(stream: AsyncStream[Any]) -> None:
    async for item in stream:
        await stream.send(item)


def _echo_and_wait(stream: SyncStream[Any]) -> None:
    for item in stream:
        stream.send(item)
