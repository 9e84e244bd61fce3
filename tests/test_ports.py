"""A number that is no port is refused by name, whatever the adapter: a look-up would take 65536 for 0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from packetcore import Driver, Handler, load_driver


@pytest.fixture(params=["asyncio", "blocking", "gevent", "twisted"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = load_driver(request.param)
    yield driver
    driver.stop()


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_number_that_is_no_port_is_refused(driver: Driver, port: int) -> None:
    told = rf"^port={port} is out of range 0 to 65535$"
    with pytest.raises(ValueError, match=told):
        driver.start_server(Handler(), "127.0.0.1", port)
    with pytest.raises(ValueError, match=told):
        driver.start_udp_server(Handler(), "127.0.0.1", port)
    with pytest.raises(ValueError, match=told):
        driver.connect("127.0.0.1", port, Handler())
    with pytest.raises(ValueError, match=told):
        driver.connect_udp("127.0.0.1", port, Handler())
    with pytest.raises(ValueError, match=told):
        driver.open_pool("127.0.0.1", port)


def test_what_is_no_number_is_refused_too(driver: Driver) -> None:
    connect: Any = driver.connect
    with pytest.raises(TypeError, match=r"^port=<.*Handler object at .*> is no number$"):
        connect("ws://127.0.0.1:7/", Handler())  # a URL needs no port, but in its place
    with pytest.raises(TypeError, match=r"^port='80' is no number$"):
        connect("127.0.0.1", "80", Handler())
