"""What a blocking stream's `send` is, in Python and in C: the method itself, but for what it leaves to that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from packetcore import CloseReason, SessionClosed
from packetcore._sender import Sender as PythonSender

Make = Callable[[Callable[[object], bool]], "Stream"]


class Stream:
    """A stream and its session in one, which note what they are asked for."""

    def __init__(self, new_sender: Any, put: Callable[[object], bool]) -> None:
        self.put = put
        self.calls: list[tuple[object, ...]] = []
        self.sender: Any = new_sender(self, self.drain, self.send_slowly, SessionClosed)

    def send(self, item: object) -> bool:
        self.calls.append(("session", item))
        return self.put(item)

    def drain(self) -> None:
        self.calls.append(("drain",))

    def send_slowly(self, item: object, **options: object) -> None:
        self.calls.append(("send", item, options))


@pytest.fixture(params=["python", "C"])
def new(request: pytest.FixtureRequest) -> Make:
    """Makes a stream with a `Sender` of either kind."""
    if request.param == "python":
        return partial(Stream, PythonSender)
    speedups: Any = pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")
    return partial(Stream, speedups.Sender)


def closed(item: object) -> bool:
    raise SessionClosed(CloseReason.PEER)


def wrong(item: object) -> bool:
    raise TypeError("no packet")


def test_what_there_is_room_for_is_sent(new: Make) -> None:
    stream = new(lambda item: True)
    assert stream.sender(1) is None
    assert stream.calls == [("session", 1)]


def test_where_there_is_no_room_it_waits(new: Make) -> None:
    stream = new(lambda item: False)
    assert stream.sender(1) is None
    assert stream.calls == [("session", 1), ("drain",)]


def test_what_a_closed_session_does_not_take_is_left_to_the_method(new: Make) -> None:
    stream = new(closed)
    stream.sender(1)
    assert stream.calls == [("session", 1), ("send", 1, {})]


def test_a_timeout_is_left_to_the_method(new: Make) -> None:
    stream = new(lambda item: True)
    stream.sender(1, timeout=2)
    stream.sender(item=1)
    assert stream.calls == [("send", 1, {"timeout": 2}), ("send", 1, {})]


def test_what_else_goes_wrong_is_told_and_not_tried_again(new: Make) -> None:
    stream = new(wrong)
    with pytest.raises(TypeError, match="no packet"):
        stream.sender(1)
    assert stream.calls == [("session", 1)]


def test_where_there_is_room_it_gives_what_a_runtime_awaits(new: Make) -> None:
    stream = new(bool)
    send = type(stream.sender)(stream, stream.drain, stream.send_slowly, SessionClosed, list)
    assert send(1) == []
    assert send(0) is None
    assert stream.calls == [("session", 1), ("session", 0), ("drain",)]
