"""Functions over streams.

One that raises ends its own session, and a server that closes waits for those that run.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest

from packetcore import Backoff, CloseReason, Config, Packet, encode
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


def test_one_that_is_cancelled_ends_its_session_and_no_other(rig: Rig) -> None:
    if runs_threads(rig):
        pytest.skip("nothing can cancel a thread")
    cancellation = raised_by_a_cancellation(rig)
    try:
        cancellation()
    except TypeError:
        pytest.skip(f"nobody but the runtime itself can raise {cancellation.__name__}")

    def be_cancelled(stream: Any, packet: Packet) -> None:
        if packet.id == 7:
            raise cancellation()

    ends: list[str] = []
    server = start(rig, application(be_cancelled, ends.append))
    cancelled, sound = rig.peer(server), rig.peer(server)
    for peer in (cancelled, sound):
        peer.send(PING)
        assert peer.receive(len(PING)) == PING
    cancelled.send(encode(Packet(7)))
    assert cancelled.receive_rest() == b"", "the session of a function that was cancelled did not end in good order"
    cancelled.close()
    rig.until(lambda: server.stats.closed == {CloseReason.LOCAL: 1}, "one session ended with LOCAL")
    assert ends == [cancellation.__name__]
    sound.send(PING)
    assert sound.receive(len(PING)) == PING, "a function that was cancelled harmed another session"


def runs_threads(rig: Rig) -> bool:
    """Whether each thing that runs has a thread of its own, rather than all have one."""
    return rig.call(threading.current_thread) is not rig.call(threading.current_thread)


def raised_by_a_cancellation(rig: Rig) -> type[BaseException]:
    """What the runtime raises in what it cancels, found by having it cancel a wait."""
    silent = rig.stream(rig.serve())
    raised: list[type[BaseException]] = []

    async def awaited() -> None:
        try:
            await silent.recv()
        except BaseException as error:
            raised.append(type(error))
            raise

    def waiting() -> None:
        try:
            silent.recv()
        except BaseException as error:
            raised.append(type(error))
            raise

    with pytest.raises(TimeoutError):
        rig.call(awaited if hasattr(silent, "__aiter__") else waiting, timeout=0.05)
    rig.until(lambda: bool(raised), "a wait was cancelled")
    return raised[0]


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


def test_one_may_close_the_server_that_runs_it(rig: Rig) -> None:
    """It waits for all else, and not for itself."""
    servers: list[Any] = []
    ends: list[str] = []

    async def awaited(stream: Any) -> None:
        try:
            await stream.recv()
            await servers[0].close(0.1)
        finally:
            ends.append("ended")

    def waiting(stream: Any) -> None:
        try:
            stream.recv()
            servers[0].close(0.1)
        finally:
            ends.append("ended")

    function = rig.stream_function(lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream))
    servers.append(start(rig, function))
    closing, other = rig.peer(servers[0]), rig.peer(servers[0])
    rig.sessions(servers[0], 2)
    closing.send(PING)
    for peer in (closing, other):
        peer.wait_closed()
    rig.until(lambda: len(ends) == 2, "both functions ended")
    assert rig.call(lambda: servers[0].stats.closed) == {CloseReason.SHUTDOWN: 2}


def test_one_may_close_the_client_that_runs_it(rig: Rig) -> None:
    clients: list[Any] = []
    closed: list[bool] = []

    async def awaited(stream: Any) -> None:
        await stream.recv()
        await clients[0].close()
        closed.append(True)

    def waiting(stream: Any) -> None:
        stream.recv()
        clients[0].close()
        closed.append(True)

    handler = Recorder()
    server = rig.serve(handler)
    function = rig.stream_function(lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream))
    clients.append(rig.client(server.address, function, Backoff()))
    handler.wait("connected")
    rig.call(handler.sessions[0].send, Packet(1))
    rig.until(lambda: closed == [True], "a function closed its own client, and went on")
    assert clients[0].is_closed
    handler.wait("disconnected")


def test_a_server_that_closes_does_not_wait_for_ever_for_functions_that_hang(rig: Rig) -> None:
    """They wait for what never comes, elsewhere than in their own stream."""
    silent = rig.serve()
    elsewhere = [rig.stream(silent) for _ in range(2)]
    begun: list[Any] = []
    ends: list[str] = []

    async def awaited(stream: Any) -> None:
        begun.append(stream)
        try:
            await elsewhere[begun.index(stream)].recv()
        finally:
            ends.append("ended")

    def waiting(stream: Any) -> None:
        begun.append(stream)
        try:
            elsewhere[begun.index(stream)].recv()
        finally:
            ends.append("ended")

    server = start(
        rig,
        lambda stream: (awaited if hasattr(stream, "__aiter__") else waiting)(stream),
        Config(close_timeout=0.3),
    )
    peers = [rig.peer(server) for _ in range(2)]
    rig.until(lambda: len(begun) == 2, "both functions run")
    began = time.monotonic()
    rig.call(partial(server.close, 0.2))
    assert time.monotonic() - began < DEADLINE / 2, "a function that hangs holds up the closing of its server"
    if not runs_threads(rig):  # which nothing can cancel
        assert ends == ["ended"] * 2, "a server was closed, and did not cancel the functions that it ran"
    for peer in peers:
        peer.wait_closed()
    assert rig.call(server.endpoint.own_sessions) == []
    for stream in elsewhere:
        rig.call(stream.session.abort)
    rig.until(lambda: len(ends) == 2, "the functions ended")


def test_send_message_waits_for_a_slow_peer(rig: Rig) -> None:
    slow = rig.serve(Recorder(connected=lambda session: session.pause()))
    stream = rig.stream(slow, Config(max_outstanding=None))
    payload = bytes(32 << 20)  # more than both systems keep
    with pytest.raises(TimeoutError):
        rig.call(partial(stream.send_message, payload, id=1, chunk=1 << 20), timeout=0.5)
    assert rig.call(lambda: stream.session.outstanding) > 0


def test_a_recv_that_is_given_up_loses_nothing(rig: Rig) -> None:
    """The loop is kept so busy that what comes and what is given up often meet in one turn."""
    sent = [Packet(number) for number in range(300)]
    handler = Recorder()
    stream = rig.stream(rig.serve(handler))
    handler.wait("connected")
    stopping = threading.Event()

    def feed() -> None:
        for packet in sent:
            rig.call(handler.sessions[0].send, packet)

    def make_turns_long() -> None:
        while not stopping.is_set():
            rig.call(time.sleep, 0.001)

    random = Random(5)
    got: list[Packet] = []

    def take() -> Any:
        item = stream.recv()
        return keep(item) if inspect.isawaitable(item) else got.append(item)

    async def keep(item: Any) -> None:
        got.append(await item)  # here, for the caller may have given up just when it came

    waits = [rig.in_thread(feed), rig.in_thread(make_turns_long)]
    deadline = time.monotonic() + DEADLINE
    try:
        while len(got) < len(sent) and time.monotonic() < deadline:
            with suppress(TimeoutError):
                rig.call(take, timeout=random.uniform(0.0005, 0.004))
            if got and got[-1] == sent[-1]:
                break
    finally:
        stopping.set()
    for wait in waits:
        wait()
    assert got == sent, "a recv that was given up lost what it had taken"
