"""Functions over streams.

One that raises ends its own session, and a server that closes waits for those that run.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from packetcore import CloseReason, Config, Packet, SessionClosed, encode
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))


def application(step: Callable[[Any, Packet], object], ended: Callable[[str], object]) -> Any:
    """A function over a stream in the manner of the runtime: calls `step` for each packet, sends it
    back, and says how it ended."""

    async def awaited(stream: Any) -> None:
        how = "ended"
        try:
            async for packet in stream:
                step(stream, packet)
                await stream.send(packet)
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            ended(how)

    def waiting(stream: Any) -> None:
        how = "ended"
        try:
            for packet in stream:
                step(stream, packet)
                stream.send(packet)
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            ended(how)

    return lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream)


def start(rig: Rig, function: Any, config: Config | None = None) -> Any:
    serve: Any = rig.driver.start_server
    server = serve(function, config=config)
    rig._servers.append(server)
    return server


def test_one_that_raises_ends_its_session_and_no_other(rig: Rig) -> None:
    def fail(stream: Any, packet: Packet) -> None:
        if packet.id == 7:
            raise RuntimeError("a mistake of the application")

    ends: list[str] = []
    server = start(rig, application(fail, ends.append))
    broken, sound = rig.peer(server), rig.peer(server)
    for peer in (broken, sound):
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
    broken.send(encode(Packet(7)))
    broken.wait_closed()
    broken.close()
    rig.until(lambda: server.stats.closed == {CloseReason.HANDLER_ERROR: 1}, "one session ended with HANDLER_ERROR")
    assert ends == ["RuntimeError"]
    sound.send(PING)
    assert sound.receive(len(PING)) == PING, "a function that raised harmed another session"


def test_a_server_that_closes_waits_for_what_its_functions_do_at_the_end(rig: Rig) -> None:
    """They ask another server something, which takes turns of the loop."""
    elsewhere = rig.stream(rig.serve())
    ends: list[str] = []

    async def awaited(stream: Any) -> None:
        async for packet in stream:
            await stream.send(packet)
        await stream.close()
        for _ in range(10):
            await elsewhere.request(b"bye", timeout=DEADLINE)
        ends.append("ended")

    def waiting(stream: Any) -> None:
        for packet in stream:
            stream.send(packet)
        stream.close()
        for _ in range(10):
            elsewhere.request(b"bye", timeout=DEADLINE)
        ends.append("ended")

    server = start(rig, lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream))
    peers = [rig.peer(server) for _ in range(2)]
    for peer in peers:
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
    closing = rig.in_background(server.close, DEADLINE)
    for peer in peers:
        peer.wait_closed()
        peer.close()
    closing()
    assert ends == ["ended"] * 2, "the server was closed while its functions still ran"


def test_a_server_that_closes_does_not_wait_for_ever_for_a_function_that_hangs(rig: Rig) -> None:
    """One that waits for what never comes, elsewhere than in its own stream."""
    silent = rig.serve()
    elsewhere = rig.stream(silent)
    begun, ends = threading.Event(), threading.Event()

    async def awaited(stream: Any) -> None:
        begun.set()
        try:
            await elsewhere.recv()
        finally:
            ends.set()

    def waiting(stream: Any) -> None:
        begun.set()
        try:
            elsewhere.recv()
        finally:
            ends.set()

    server = start(
        rig,
        lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream),
        Config(close_timeout=0.3),
    )
    peer = rig.peer(server)
    assert begun.wait(DEADLINE)
    began = time.monotonic()
    rig.call(partial(server.close, 0.2))
    assert time.monotonic() - began < DEADLINE / 2, "a function that hangs holds up the closing of its server"
    peer.wait_closed()
    assert rig.call(server.endpoint.own_sessions) == []
    rig.call(elsewhere.session.abort)
    assert ends.wait(DEADLINE), "the function was neither cancelled nor told"


def test_send_message_waits_for_a_slow_peer(rig: Rig) -> None:
    slow = rig.serve(Recorder(connected=lambda session: session.pause()))
    stream = rig.stream(slow, Config(max_outstanding=None))
    payload = bytes(32 << 20)  # more than both systems keep
    with pytest.raises(TimeoutError):
        rig.call(partial(stream.send_message, payload, id=1, chunk=1 << 20), timeout=0.5)
    assert rig.call(lambda: stream.session.outstanding) > 0


def test_a_recv_that_is_given_up_loses_nothing(rig: Rig) -> None:
    sent = [Packet(number) for number in range(200)]
    server = rig.serve()
    stream = rig.stream(server)
    stopping = threading.Event()

    def feed() -> None:
        for packet in sent:
            rig.call(stream.send, packet)  # which the server sends back
            stopping.wait(0.004)

    got: list[Packet] = []

    def take() -> Any:
        item = stream.recv()
        return keep(item) if inspect.isawaitable(item) else got.append(item)

    async def keep(item: Any) -> None:
        got.append(await item)  # here, for the caller may have given up just when it came

    fed = rig.in_thread(feed)
    deadline = time.monotonic() + 2 * DEADLINE
    while len(got) < len(sent):
        assert time.monotonic() < deadline, f"a recv that was given up lost what it had taken: {len(got)} came"
        try:
            rig.call(take, timeout=0.005)
        except TimeoutError:
            continue
        except SessionClosed:
            break
    fed()
    assert got == sent, "a recv that was given up lost what it had taken"
