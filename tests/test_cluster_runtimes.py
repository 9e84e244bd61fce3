"""What each runtime does in its own manner: a caller that gives up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from packetcore import Packet, encode, load_driver
from packetcore_cluster import SlowConsumer, _delivery
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig
from tests.cluster_broker import start_broker


def begin_on_asyncio(request: Callable[[], Any]) -> Callable[[], object]:
    task: asyncio.Future[Any] = asyncio.ensure_future(request())
    return task.cancel


def begin_on_gevent(request: Callable[[], Any]) -> Callable[[], object]:
    greenlet = gevent.spawn(request)
    return lambda: greenlet.kill()


def ignore(failure: Failure) -> None:
    assert isinstance(failure.value, CancelledError)


def begin_on_twisted(request: Callable[[], Any]) -> Callable[[], object]:
    waiting: Deferred[Any] = request()
    waiting.addErrback(ignore)
    return waiting.cancel


BEGIN = {"asyncio": begin_on_asyncio, "gevent": begin_on_gevent, "twisted": begin_on_twisted}
"""How to begin a request there; each gives what has its caller give up. On blocking sockets that is Ctrl-C alone."""


@pytest.fixture(params=BEGIN)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    driver = load_driver(request.param)
    rig = Rig(driver, request.param)
    try:
        yield rig
        rig.close()
    finally:
        driver.stop()


def test_a_request_that_is_given_up_leaves_its_place_with_the_other_worker(
    rig: Rig, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_delivery, "MAX_UNANSWERED", 1)
    begin = BEGIN[request.node.callspec.params["rig"]]
    with start_broker() as broker:
        holder, caller = rig.cluster(broker.url, "given-up"), rig.cluster(broker.url, "given-up")
        server = rig.serve(Recorder(connected=lambda session: session.bind("meter 7")), sessions=holder.sessions)
        device = rig.peer(server)
        rig.until(lambda: caller.find("meter 7") is not None, "it is known where the device is")
        give_up = rig.call(begin, lambda: caller.request("meter 7", Packet(1)))
        assert device.receive(len(encode(Packet(1)))) == encode(Packet(1))
        with pytest.raises(SlowConsumer, match="1 requests wait"):
            rig.call(lambda: caller.request("meter 7", Packet(2)))
        rig.call(give_up)
        # In order behind what was given up: the one place is free.
        asked = rig.in_background(lambda: caller.request("meter 7", Packet(3)))
        assert device.receive(len(encode(Packet(3)))) == encode(Packet(3))
        device.send(encode(Packet(3, b"fine")))
        assert asked() == Packet(3, b"fine")
        rig.close()
