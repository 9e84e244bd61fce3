"""packetcore_asyncio over loopback, on asyncio's own event loop and on uvloop's."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import trustme
import uvloop

from packetcore import (
    Backoff,
    CloseReason,
    Endpoint,
    Handler,
    Packet,
    Refusal,
    Session,
    SessionClosed,
    encode,
)
from packetcore_asyncio import AsyncioDriver, Server, Stream, connect, serve
from packetcore_asyncio._runtime import EventLoop

Main = Callable[[Coroutine[Any, Any, None]], None]
DEADLINE = 10.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Main:
    def run(main: Coroutine[Any, Any, None]) -> None:
        loop = request.param()
        try:
            loop.run_until_complete(asyncio.wait_for(main, DEADLINE))
            assert asyncio.all_tasks(loop) == set()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            gc.collect()  # what was left open warns here, and a warning is an error

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other callbacks of the loop bring about."""
    deadline = asyncio.get_running_loop().time() + DEADLINE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def echo(stream: Stream) -> None:
    async for item in stream:
        assert isinstance(item, Packet)
        await stream.send(item)


class Recorder(Handler):
    """Echoes, and keeps what was heard of each session's beginning and end."""

    def __init__(self) -> None:
        self.opened: list[Session] = []
        self.ended: list[CloseReason] = []

    def connected(self, session: Session) -> None:
        self.opened.append(session)

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ended.append(reason)


def test_a_function_is_cancelled_once_however_often_its_server_is_closed(run: Main) -> None:
    """What it does at its end may wait."""
    begun, cancelled, go_on, ends = asyncio.Event(), asyncio.Event(), asyncio.Event(), list[str]()

    async def hang(stream: Stream) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await go_on.wait()
            ends.append("ended")

    async def main() -> None:
        server = await serve(hang)
        async with await connect(*server.address[:2]):
            await begun.wait()
            closing = [asyncio.create_task(server.close(0))]
            await cancelled.wait()
            closing.append(asyncio.create_task(server.close(0)))
            for _ in range(5):
                await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(*closing)
        assert ends == ["ended"]

    run(main())


async def raw(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.address
    return await asyncio.open_connection(host, port)


def test_iteration_ends_when_the_peer_closes(run: Main) -> None:
    async def greet(stream: Stream) -> None:
        await stream.send(Packet(1, b"hello"))

    async def main() -> None:
        async with await serve(greet) as server, await connect(*server.address) as stream:
            assert [item async for item in stream] == [Packet(1, b"hello")]
            with pytest.raises(SessionClosed) as raised:
                await stream.recv()
            assert raised.value.reason is CloseReason.PEER

    run(main())


def test_iteration_raises_when_the_connection_breaks(run: Main) -> None:
    async def reset(stream: Stream) -> None:
        await stream.recv()
        stream.session.abort()

    async def main() -> None:
        async with await serve(reset) as server, await connect(*server.address) as stream:
            # Bytes that the other side has not read turn its close into a reset.
            await stream.send_message(bytes(8_000_000), id=2, chunk=1_000_000)
            with pytest.raises(SessionClosed) as raised:
                async for _ in stream:
                    pass
            assert raised.value.reason is CloseReason.RESET

    run(main())


def test_close_waits_for_handlers_within_the_grace(run: Main) -> None:
    async def main() -> None:
        finish = asyncio.Event()

        async def work(stream: Stream) -> None:
            packet = await stream.recv()
            assert isinstance(packet, Packet)
            await finish.wait()
            await stream.send(packet)

        server = await serve(work)
        stream = await connect(*server.address)
        await stream.send(Packet(1, b"order"))
        await until(lambda: any(session.stats.packets_received for session in server.sessions))
        closing = asyncio.ensure_future(server.close(grace=DEADLINE))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            await connect(*server.address)
        finish.set()
        assert await stream.recv() == Packet(1, b"order")
        await stream.close()
        await closing
        assert server.stats.closed == {CloseReason.SHUTDOWN: 1}

    run(main())


def test_a_function_that_raises_is_logged_and_harms_no_other(run: Main, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def fragile(stream: Stream) -> None:
            async for item in stream:
                assert isinstance(item, Packet)
                if item.id == 13:
                    raise RuntimeError("a bug of the application")
                await stream.send(item)

        async with await serve(fragile) as server:
            async with await connect(*server.address) as other, await connect(*server.address) as stream:
                await stream.send(Packet(13))
                assert [item async for item in stream] == []
                await other.send(Packet(1))
                assert await other.recv() == Packet(1)
            await until(lambda: server.stats.closed[CloseReason.HANDLER_ERROR] == 1)

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [record.name for record in caplog.records] == ["packetcore"]
    assert "a bug of the application" in caplog.text


def test_cancelled_receivers_lose_no_packet(run: Main) -> None:
    async def main() -> None:
        async with await serve(echo) as server, await connect(*server.address) as stream:
            for at in range(50):
                receiving = asyncio.ensure_future(stream.recv())
                await asyncio.sleep(0)
                receiving.cancel()
                await stream.send(Packet(at))
                assert await stream.recv() == Packet(at)

    run(main())


@pytest.mark.parametrize("serve_forever", [True, False])
def test_a_cancelled_server_leaves_nothing_behind(run: Main, serve_forever: bool) -> None:
    async def main() -> None:
        handler = Recorder()
        server = await serve(handler)
        stream = await connect(*server.address)
        await until(lambda: len(handler.opened) == 1)
        serving: Awaitable[None] = server.serve_forever() if serve_forever else server.close(grace=DEADLINE)
        task = asyncio.ensure_future(serving)
        await asyncio.sleep(0.01)
        task.cancel()
        reading = asyncio.ensure_future(stream.close())
        with pytest.raises(asyncio.CancelledError):
            await task
        await reading
        await until(lambda: handler.ended == [CloseReason.SHUTDOWN])

    run(main())


def test_a_client_with_ssl_true_trusts_whom_the_system_trusts(run: Main) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def main() -> None:
        async with await serve(echo, ssl=context) as server:
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(*server.address, ssl=True)
            await until(lambda: server.stats.refusals[Refusal.TLS_FAILED] == 1)

    run(main())


def test_a_server_with_a_client_s_context_turns_everybody_away(run: Main) -> None:
    async def main() -> None:
        async with await serve(echo, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as server:
            _, writer = await raw(server)
            await until(lambda: server.stats.refusals[Refusal.TLS_FAILED] == 1)
            writer.close()
            await writer.wait_closed()

    run(main())


class Ending(Recorder):
    """Ends the program at the first packet."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def packet_received(self, session: Session, packet: Packet) -> None:
        raise self.error


async def cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run_program(request: pytest.FixtureRequest) -> Main:
    """What `asyncio.run` does, on either loop."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        loop = request.param()
        try:
            loop.run_until_complete(main)
        finally:
            loop.run_until_complete(cancel_others())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            gc.collect()

    return run


ENDS = pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"])


@ENDS
@pytest.mark.parametrize("kind", ["handler", "function"])
def test_what_ends_the_program_comes_out_of_the_event_loop(run_program: Main, error: BaseException, kind: str) -> None:
    handler = Ending(error)
    addresses: list[Any] = []

    async def function(stream: Stream) -> None:
        handler.opened.append(stream.session)
        await stream.recv()
        raise error

    async def main() -> None:
        server = await serve(handler if kind == "handler" else function)
        addresses.append(server.address)
        async with await connect(*server.address) as other, await connect(*server.address) as stream:
            await until(lambda: len(handler.opened) == 2)
            await stream.send(Packet(7))
            with pytest.raises(SessionClosed):
                await other.recv()
            await asyncio.wait_for(server.serve_forever(), DEADLINE)

    with pytest.raises(type(error)) as raised:
        run_program(main())
    assert raised.value is error
    if kind == "handler":
        assert set(handler.ended) == {CloseReason.HANDLER_ERROR, CloseReason.SHUTDOWN}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(addresses[0], timeout=DEADLINE)


@ENDS
@pytest.mark.parametrize("kind", ["handler", "function"])
def test_what_ends_the_program_comes_out_of_a_client_that_comes_back(
    run_program: Main, error: BaseException, kind: str
) -> None:
    handler = Ending(error)
    stopped: list[bool] = []

    async def function(stream: Stream) -> None:
        await stream.recv()
        raise error

    async def greet(stream: Stream) -> None:
        await stream.send(Packet(1))
        async for _ in stream:
            pass

    async def main() -> None:
        async with await serve(greet) as server:
            application: Any = handler if kind == "handler" else function
            host, port = server.address
            async with await connect(host, port, application, reconnect=Backoff(initial=0.01)) as client:
                try:
                    await asyncio.sleep(DEADLINE)
                finally:
                    stopped.append(client.is_closed)

    with pytest.raises(type(error)) as raised:
        run_program(main())
    assert raised.value is error
    assert stopped == [True], "the client would have gone on connecting"


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_driver_serves_tools_on_other_threads(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    driver = AsyncioDriver(new_event_loop)
    try:
        server = driver.start_server(Recorder())
        host, port = server.address
        with socket.create_connection((host, port), timeout=DEADLINE) as client:
            client.sendall(encode(Packet(7, b"x")))
            assert client.recv(100) == encode(Packet(7, b"x"))
            assert driver.call(lambda: [session.id for session in server.endpoint.sessions]) == [1]
            driver.call(server.close, 0.05)
        with pytest.raises(ConnectionRefusedError):
            driver.connect(host, port, Recorder())
        assert ("uvloop" in driver.capabilities()) == (new_event_loop is uvloop.new_event_loop)
    finally:
        driver.stop()
        driver.stop()


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_is_given_up_at_any_moment_leaves_no_socket_open(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop], turns: int
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            endpoint = Endpoint(Recorder(), is_server=True)
            opening = EventLoop().accept(endpoint, ours, ("",), None, lambda result: None)
            assert opening is not None
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            endpoint.abort(0.0)
            theirs.setblocking(False)
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 1), DEADLINE) == b""

    loop = new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
