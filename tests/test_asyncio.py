"""packetcore_asyncio over loopback, on asyncio's own event loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from packetcore import (
    Address,
    CloseReason,
    Config,
    Handler,
    LocalProtocolError,
    Message,
    Packet,
    Session,
    SessionClosed,
    encode,
)
from packetcore_asyncio import AsyncioDriver, Server, Stream, connect, serve

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


async def raw(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = server.address
    return await asyncio.open_connection(host, port)


def test_a_stream_echoes_in_order(run: Main) -> None:
    async def main() -> None:
        async with await serve(echo) as server, await connect(*server.address) as stream:
            packets = [Packet(at, bytes([0xFD, 0xFE, at]) * at) for at in range(200)]
            for packet in packets:
                await stream.send(packet)
            assert [await stream.recv() for _ in packets] == packets
        assert stream.close_reason is CloseReason.LOCAL

    run(main())


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


def test_tasks_that_send_at_once_never_mix_frames(run: Main) -> None:
    async def main() -> None:
        got: list[Packet | Message] = []

        async def collect(stream: Stream) -> None:
            got.extend([item async for item in stream])

        async with await serve(collect) as server:
            async with await connect(*server.address) as stream:

                async def send(id: int) -> None:
                    for at in range(50):
                        await stream.send(Packet(id, at.to_bytes(2, "big") * 5000))

                await asyncio.gather(*(send(id) for id in range(8)))
            await until(lambda: len(server.sessions) == 0)
        for id in range(8):
            assert [int.from_bytes(item.payload[:2], "big") for item in got if item.id == id] == list(range(50))

    run(main())


def test_a_sender_waits_for_a_peer_that_does_not_read(run: Main) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        received = 0

        async def slow(stream: Stream) -> None:
            nonlocal received
            await gate.wait()
            async for item in stream:
                received += len(item.payload)

        async with await serve(slow) as server, await connect(*server.address) as stream:
            total = 0

            async def push() -> None:
                nonlocal total
                for _ in range(400):
                    await stream.send(Packet(1, bytes(100_000)))
                    total += 100_000

            pushing = asyncio.ensure_future(push())
            await until(lambda: stream.session.write_paused)
            assert not pushing.done()
            assert stream.session.outstanding < 16 * 1024 * 1024
            inbox = next(iter(server.sessions))
            gate.set()
            await pushing
            await stream.close()
            await until(lambda: len(server.sessions) == 0)
            assert received == total == 40_000_000
            assert inbox.stats.packets_received == 400

    run(main())


def test_a_reply_after_the_peer_finished_sending_still_arrives(run: Main) -> None:
    async def late(stream: Stream) -> None:
        items = [item async for item in stream]
        await asyncio.sleep(0)
        for item in items:
            assert isinstance(item, Packet)
            await stream.send(item)

    async def main() -> None:
        async with await serve(late) as server:
            reader, writer = await raw(server)
            frames = encode(Packet(1, b"one")) + encode(Packet(2, b"two"))
            writer.write(frames)
            writer.write_eof()
            assert await reader.read() == frames
            writer.close()
            await until(lambda: server.stats.closed[CloseReason.PEER] == 1)

    run(main())


def test_a_silent_peer_is_closed_and_counted(run: Main) -> None:
    async def main() -> None:
        handler = Recorder()
        async with await serve(handler, config=Config(idle_timeout=0.1)) as server:
            reader, writer = await raw(server)
            assert await reader.read() == b""
            writer.close()
            await until(lambda: handler.ended == [CloseReason.IDLE_TIMEOUT])
            assert len(server.sessions) == 0
            assert server.stats.closed == {CloseReason.IDLE_TIMEOUT: 1}

    run(main())


def test_a_peer_that_trickles_a_frame_is_closed(run: Main) -> None:
    async def main() -> None:
        handler = Recorder()
        async with await serve(handler, config=Config(frame_timeout=0.2)) as server:
            reader, writer = await raw(server)
            writer.write(b"\xfe")
            while not reader.at_eof():
                writer.write(b"\x00")
                try:
                    await asyncio.wait_for(reader.read(1), 0.02)
                except asyncio.TimeoutError:
                    continue
            writer.close()
            await until(lambda: handler.ended == [CloseReason.FRAME_TIMEOUT])

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


def test_close_aborts_what_the_grace_did_not_end(run: Main) -> None:
    async def stubborn(stream: Stream) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        server = await serve(stubborn)
        reader, writer = await raw(server)
        writer.write(encode(Packet(1)))
        await until(lambda: len(server.sessions) == 1)
        await server.close(grace=0.05)
        assert server.stats.closed == {CloseReason.SHUTDOWN: 1}
        with contextlib.suppress(ConnectionResetError):  # an orderly end is as good
            assert await reader.read() == b""
        writer.close()

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


def test_messages_longer_than_a_packet_arrive_whole(run: Main) -> None:
    async def main() -> None:
        async def echo_message(stream: Stream) -> None:
            async for item in stream:
                assert isinstance(item, Message)
                await stream.send_message(item.payload, id=item.id, type=item.type, chunk=1000)

        config = Config(join_messages=True)
        async with (
            await serve(echo_message, config=config) as server,
            await connect(*server.address, config=config) as stream,
        ):
            await stream.send_message(b"\xfe" * 100_000, id=5, type=2, chunk=4096)
            assert await stream.recv() == Message(5, b"\xfe" * 100_000, 2)

    run(main())


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


@pytest.mark.parametrize("handler", [None, Recorder()], ids=["stream", "handler"])
def test_a_refused_connection_is_an_os_error(run: Main, handler: Handler | None) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await (connect("127.0.0.1", port) if handler is None else connect("127.0.0.1", port, handler))

    run(main())


def test_connect_timeout_is_kept_and_named(run: Main) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
            address = deaf.getsockname()
            clogs = [socket.socket() for _ in range(4)]
            for clog in clogs:  # fill the accept queue, so that the next one hangs
                clog.setblocking(False)
                clog.connect_ex(address)
            try:
                with pytest.raises(TimeoutError, match=r"connect_timeout=0\.2"):
                    await connect(*address, config=Config(connect_timeout=0.2))
            finally:
                for clog in clogs:
                    clog.close()

    run(main())


def test_a_port_in_use_is_an_os_error(run: Main) -> None:
    async def main() -> None:
        async with await serve(echo) as server:
            with pytest.raises(OSError, match=r"(?i)address already in use"):
                await serve(echo, *server.address)

    run(main())


def test_a_server_restarts_on_its_port_at_once(run: Main) -> None:
    async def main() -> None:
        address: Address = ("127.0.0.1", 0)
        for _ in range(5):
            async with await serve(echo, *address) as server:
                address = server.address
                async with await connect(*address) as stream:
                    await stream.send(Packet(1))
                    assert await stream.recv() == Packet(1)

    run(main())


def test_a_payload_over_the_limit_is_refused_and_changes_nothing(run: Main) -> None:
    async def main() -> None:
        async with await serve(echo) as server, await connect(*server.address) as stream:
            with pytest.raises(LocalProtocolError, match="payload of 1048577 bytes exceeds max_payload=1048576"):
                await stream.send(Packet(1, bytes(1048577)))
            await stream.send(Packet(1, b"still here"))
            assert await stream.recv() == Packet(1, b"still here")

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
