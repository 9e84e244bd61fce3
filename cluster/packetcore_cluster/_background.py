"""An asyncio loop on a thread of its own, and the way from there to the thread of the sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from threading import get_ident
from typing import Any

from packetcore import LocalProtocolError
from packetcore_cluster._log import logger

MAX_CROSSING = 100
"""Messages of other workers on their way to a thread of sessions that is busy; more wait with the broker's client,
which counts what it drops."""

_PATIENCE = 1.0
"""Seconds that what was cancelled has for its end."""

Done = Callable[[Any], object]


class Background:
    """The loop and its thread, which lasts until `end`. All but what is called there may be called on any thread.

    Args:
        start_thread: runs a function on a new thread.
    """

    def __init__(self, start_thread: Callable[[Callable[[], None]], object]) -> None:
        self._start_thread = start_thread
        self._loop: asyncio.AbstractEventLoop
        self._waiting: dict[object, Done] = {}
        self._asked: dict[asyncio.Task[Any], bool] = {}  # and whether it was cancelled
        self._enders: list[Done] = []
        self._is_over = False
        self._thread = 0

    def begin(self, done: Done) -> None:
        """Start; `done` is called there with `None`, or with what went wrong."""
        self._start_thread(partial(self._serve, done))

    def tell(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function there, soon and in order; nothing, once it is over."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed
            logger.debug("%r comes too late", function)

    def ask(self, function: Callable[..., Coroutine[Any, Any, Any]], args: Any, done: Done) -> Callable[[], None]:
        """Run a coroutine there, and call `done` once, there as a rule, with what it gives or raises.

        Returns:
            What cancels it.

        Raises:
            RuntimeError: this is the thread itself, which nothing may hold up.
        """
        if self._thread == get_ident():
            raise RuntimeError("on_event must not block: it holds up the thread of the cluster")
        token = object()
        task: asyncio.Task[Any] | None = None

        def settle(outcome: Any) -> None:
            told = self._waiting.pop(token, None)
            if told is not None:
                _call(told, outcome)

        def over(task: asyncio.Task[Any]) -> None:
            del self._asked[task]
            settle(_left() if task.cancelled() else task.exception() or task.result())

        def begin() -> None:
            nonlocal task
            task = self._loop.create_task(function(*args))
            self._asked[task] = False
            task.add_done_callback(over)

        def cancel() -> None:
            if task is not None:
                self._cancel(task)

        self._waiting[token] = done
        self.tell(begin)
        if self._is_over:
            settle(_left())
        return partial(self.tell, cancel)

    def end(self, done: Done) -> None:
        """Cancel what goes on, and call `done` with `None` once the loop is closed."""
        self._enders.append(done)
        self.tell(self._stop)
        if self._is_over:
            self._tell_enders()

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if self._asked.get(task) is False:
            self._asked[task] = True  # it may wait in what it does at its end
            task.cancel()

    def _stop(self) -> None:
        self._loop.stop()

    async def _cancel_all(self) -> None:
        for task in [*self._asked]:
            self._cancel(task)
        if self._asked:
            await asyncio.wait(self._asked, timeout=_PATIENCE)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        if others:
            await asyncio.wait(others, timeout=_PATIENCE)

    def _serve(self, done: Done) -> None:
        try:
            self._loop = loop = asyncio.new_event_loop()
        except BaseException as error:
            done(error)
            raise
        self._thread = get_ident()
        loop.call_soon(_call, done, None)
        try:
            loop.run_forever()
            loop.run_until_complete(self._cancel_all())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
            self._is_over = True
            for token in [*self._waiting]:
                if (told := self._waiting.pop(token, None)) is not None:
                    _call(told, _left())
            self._tell_enders()

    def _tell_enders(self) -> None:
        while self._enders:
            try:
                done = self._enders.pop()
            except IndexError:  # another thread had it
                return
            _call(done, None)


class Gate:
    """The way to the thread of the sessions: see `Crossing`. Used on the thread of the loop.

    Args:
        post: calls something there, now or soon, and in order: from any thread.
    """

    def __init__(self, post: Callable[[Callable[[], object]], object]) -> None:
        self._post = post
        self._given = 0  # changed on the loop's thread alone
        self._taken = 0  # on the other alone
        self._must_tell = False
        self._room = asyncio.Event()

    def post(self, function: Callable[..., object], /, *args: object) -> None:
        """See `Crossing`."""
        self._post(partial(_run, function, args))

    async def hand_over(self, function: Callable[..., object], /, *args: object) -> None:
        """See `Crossing`."""
        while self._given - self._taken >= MAX_CROSSING:
            self._room.clear()
            self._must_tell = True
            if self._given - self._taken >= MAX_CROSSING:  # else nobody may be left to tell
                await self._room.wait()
        self._given += 1
        self._post(partial(self._take, asyncio.get_running_loop(), function, args))

    def _take(self, loop: asyncio.AbstractEventLoop, function: Callable[..., object], args: tuple[object, ...]) -> None:
        self._taken += 1
        if self._must_tell:
            self._must_tell = False
            try:
                loop.call_soon_threadsafe(self._room.set)
            except RuntimeError:  # it is closed
                return
        _run(function, args)


def _run(function: Callable[..., object], args: tuple[object, ...]) -> None:
    try:
        function(*args)
    except Exception:
        logger.exception("%r, called for the cluster, raised", function)


def _call(done: Done, outcome: Any) -> None:
    try:
        done(outcome)
    except Exception as error:  # the runtime of who waited has gone
        logger.debug("nobody hears of %r: %r", outcome, error)


def _left() -> LocalProtocolError:
    return LocalProtocolError("the cluster was left meanwhile")
