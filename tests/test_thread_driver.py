"""What a driver's thread does with calls: that are given up, that end the program, that are under way at its end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from packetcore import AsyncStream, Handle, load_driver
from packetcore_sockets import (
    AsyncAdapter,
    AsyncClient,
    AsyncConnectionPool,
    AsyncDriver,
    AsyncServer,
    Started,
    SyncRuntime,
    ThreadDriver,
)
from packetcore_sockets._blocking import wait
from tests.select_loop import PATIENCE, OwnRuntime


class OwnDriver(AsyncDriver):
    """One whose calls are awaited, on a loop that has neither tasks nor transports."""

    def __init__(self) -> None:
        self.own = OwnRuntime()
        adapter = AsyncAdapter(lambda: self.own, AsyncStream, AsyncServer, AsyncClient)
        super().__init__(adapter, AsyncConnectionPool)

    def run(self, started: Started) -> None:
        stopping = list[bool]()
        started(self.own, lambda: stopping.append(True))
        with suppress(SystemExit):  # as the program whose loop it is would end
            while not stopping:
                self.own.turn(0.001)
        self.own.settle()
        self.own.close()


@pytest.fixture(params=[OwnDriver, partial(load_driver, "blocking")], ids=["awaited", "blocking"])
def driver(request: pytest.FixtureRequest) -> Iterator[Any]:
    driver = request.param()
    yield driver
    driver.stop()


class Wait:
    """A call that waits for what never comes, and notes what is raised there."""

    def __init__(self, driver: Any) -> None:
        self.runtime = driver.runtime
        self.has_begun = threading.Event()
        self.raised: list[type[BaseException]] = []

    def __call__(self) -> Any:
        self.has_begun.set()
        coroutine = self.wait()
        return wait(coroutine, self.runtime.lock) if isinstance(self.runtime, SyncRuntime) else coroutine

    async def wait(self) -> None:
        try:
            await self.runtime.new_event().wait()
        except BaseException as error:
            self.raised.append(type(error))
            raise


def test_where_nothing_else_is_said_it_echoes_and_it_asks_as_its_adapter_does(driver: Any) -> None:
    server = driver.start_server()
    stream = driver.connect(*server.address[:2])
    assert driver.call(stream.request, b"one").payload == b"one"
    assert driver.call(partial(driver.request, stream.session), b"two").payload == b"two"


def test_a_call_that_is_given_up_is_cancelled_where_it_waits(driver: Any, caplog: pytest.LogCaptureFixture) -> None:
    waiting = Wait(driver)
    with pytest.raises(TimeoutError, match=r"not done after 0\.05 s"):
        driver.call(waiting, timeout=0.05)
    assert len(waiting.raised) == 1, "the call goes on, though its caller does not wait any more"
    assert driver.call(lambda: 7) == 7
    assert caplog.records == []


def test_a_call_that_is_given_up_before_it_could_begin_never_does() -> None:
    driver, is_held, go_on, begun = OwnDriver(), threading.Event(), threading.Event(), list[bool]()

    def hold() -> None:
        is_held.set()
        go_on.wait(PATIENCE)

    driver.own.call_soon(hold)
    assert is_held.wait(PATIENCE)
    with pytest.raises(TimeoutError):
        driver.call(begun.append, True, timeout=0.01)
    go_on.set()
    assert driver.call(lambda: 7) == 7
    assert begun == []
    driver.stop()


def test_a_call_under_way_when_its_driver_stops_is_over_and_says_so(driver: Any) -> None:
    waiting = Wait(driver)
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(driver.call, waiting, timeout=None)
        assert waiting.has_begun.wait(PATIENCE)
        driver.stop()
        assert isinstance(under_way.exception(PATIENCE), TimeoutError)
    assert len(waiting.raised) == 1
    with pytest.raises(RuntimeError, match="the driver was stopped"):
        driver.call(lambda: 7)


def test_what_ends_the_program_is_raised_where_it_was_called_from(driver: Any) -> None:
    with pytest.raises(SystemExit, match="7"):
        driver.call(sys.exit, 7)
    if isinstance(driver, OwnDriver):
        driver._thread.join(PATIENCE)


def test_a_runtime_that_cannot_start_says_why() -> None:
    class Failing(ThreadDriver):
        def run(self, started: Started) -> None:
            raise OSError("no descriptors left")

        def begin(self, function: Callable[[], Any], future: Future[Any]) -> Handle:
            raise NotImplementedError

    with pytest.raises(OSError, match="no descriptors left"):
        Failing(None, print)
