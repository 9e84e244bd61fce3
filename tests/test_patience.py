"""How long the ready layer waits for what does not come, on a loop whose clock is the test's."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
import trustme

from packetcore import AsyncStream, Backoff, Config, Handler, Packet, encode
from packetcore_conformance.websocket_peer import BINARY, PING, PONG, frame, request
from packetcore_sockets import (
    AsyncAdapter,
    AsyncClient,
    AsyncConnectionPool,
    AsyncServer,
    Event,
    Found,
    WebSocketOptions,
)
from packetcore_sockets._unix import FULL_PAUSE
from packetcore_sockets._websocket.dial import dialler_to
from packetcore_sockets._websocket.frames import make_frame
from tests.select_loop import PATIENCE, Call, OwnRuntime, StoppedRuntime

NAME = "server.example"

needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


class Rig:
    """An adapter on such a loop."""

    def __init__(self) -> None:
        self.runtime = StoppedRuntime()
        self.adapter: Any = AsyncAdapter(lambda: self.runtime, AsyncStream, AsyncServer, AsyncClient)
        self.never = Event(self.runtime.call_soon)
        self.log: list[str] = []

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Call:
        """Have a coroutine run as far as it comes."""
        call = Call(self.runtime, coroutine)
        self.runtime.settle()
        return call

    def outcome(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine gives or raises."""
        call = Call(self.runtime, coroutine)
        self.runtime.until(lambda: bool(call.outcome))
        return call.outcome[0]

    def give(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What it gives."""
        outcome = self.outcome(coroutine)
        assert not isinstance(outcome, BaseException), outcome
        return outcome

    def skip(self, seconds: float) -> None:
        """Have time pass."""
        self.runtime.skip(seconds)
        self.runtime.settle()

    async def hang(self, stream: AsyncStream) -> None:
        """A function that ends when it is cancelled."""
        self.log.append("runs")
        try:
            await self.never.wait()
        finally:
            self.log.append("cancelled")

    async def resist(self, stream: AsyncStream) -> None:
        """One that does not."""
        try:
            await self.hang(stream)
        finally:
            await self.never.wait()

    def until_it_runs(self) -> None:
        self.runtime.until(lambda: "runs" in self.log)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    authority = trustme.CA()
    trusted, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert(NAME).configure_cert(trusted)
    authority.configure_trust(trusting)
    return trusted, trusting


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def rig(cleanup: ExitStack) -> Rig:
    rig = Rig()
    cleanup.callback(rig.runtime.close)

    def end() -> None:
        for each in [*rig.runtime.holds]:
            each()
        rig.never.set()
        rig.runtime.settle()

    cleanup.callback(end)
    return rig


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="packetcore") as folder:
        yield os.path.join(folder, "socket")


# Functions that do not end.


def test_a_client_that_closes_gives_a_function_close_timeout_and_as_long_again_when_it_is_cancelled(rig: Rig) -> None:
    server = rig.give(rig.adapter.serve(Handler()))
    config = Config(close_timeout=3.0)
    connect = rig.adapter.connect(*server.address[:2], rig.resist, reconnect=Backoff(), config=config)
    client = rig.give(connect)
    rig.until_it_runs()
    closing = rig.begin(client.close())
    rig.runtime.until(lambda: client.session is None)
    rig.skip(2.5)
    assert rig.log == ["runs"]
    rig.skip(0.5)
    assert rig.log == ["runs", "cancelled"]
    rig.skip(2.5)
    assert closing.outcome == []
    rig.skip(0.5)
    assert closing.outcome == [None]
    assert len(rig.runtime.holds) == 1, "the loop is held by a client that is closed"


def test_a_client_whose_close_is_called_off_closes_on_and_lets_its_loop_go(rig: Rig) -> None:
    server = rig.give(rig.adapter.serve(Handler()))
    client = rig.give(rig.adapter.connect(*server.address[:2], rig.hang, reconnect=Backoff()))
    assert client.endpoint.runtime is rig.runtime
    rig.until_it_runs()
    rig.begin(client.close()).cancel()
    rig.runtime.until(lambda: client.session is None)
    assert len(rig.runtime.holds) == 2
    rig.never.set()
    rig.runtime.until(lambda: len(rig.runtime.holds) == 1)


def test_a_server_that_closes_gives_functions_its_grace_and_close_timeout_when_they_are_cancelled(
    rig: Rig, cleanup: ExitStack
) -> None:
    server = rig.give(rig.adapter.serve(rig.resist, config=Config(close_timeout=3.0)))
    serving = rig.begin(server.serve_forever())
    cleanup.enter_context(socket.create_connection(server.address))
    rig.until_it_runs()
    closing = rig.begin(server.close())
    rig.skip(4.5)
    assert rig.log == ["runs"]
    rig.skip(0.5)
    assert rig.log == ["runs", "cancelled"]
    rig.skip(2.5)
    assert closing.outcome == []
    rig.skip(0.5)
    assert closing.outcome == [None]
    assert serving.outcome == [None], "a server that another has closed serves on"
    assert rig.runtime.holds == []


def test_what_ends_the_program_is_raised_by_who_serves_at_once_and_else_where_the_loop_runs(
    rig: Rig, cleanup: ExitStack
) -> None:
    server = rig.give(rig.adapter.serve(rig.hang))
    told: Callable[[BaseException], object] = server.endpoint.on_ended
    serving = [rig.begin(server.serve_forever()) for _ in range(2)]
    cleanup.enter_context(socket.create_connection(server.address))
    rig.until_it_runs()
    told(error := SystemExit(7))
    rig.runtime.until(lambda: all(call.outcome for call in serving))  # while no time passes
    assert rig.log == ["runs", "cancelled"]
    assert serving[0].outcome + serving[1].outcome in ([error, None], [None, error])
    assert rig.runtime.ended == []
    idle = rig.give(rig.adapter.serve(Handler()))
    session = rig.give(rig.adapter.connect(*idle.address[:2], Handler()))
    for each in (server, idle, session):
        each.endpoint.on_ended(error)
    assert rig.runtime.ended == [error] * 3


def test_what_ends_the_program_comes_out_of_a_loop_that_has_no_way_of_its_own_and_then_of_nothing_else() -> None:
    runtime = OwnRuntime()
    adapter: Any = AsyncAdapter(lambda: runtime, AsyncStream, AsyncServer, AsyncClient)
    serving = Call(runtime, adapter.serve(Handler()))
    runtime.settle()
    (server,) = serving.outcome
    server.endpoint.on_ended(SystemExit(7))
    with pytest.raises(SystemExit, match="7"):
        runtime.settle()
    closing = Call(runtime, server.close())
    runtime.settle()
    assert closing.outcome == [None]
    runtime.close()


@pytest.mark.parametrize("kind", ["TLS", "WebSocket", "first byte", "PROXY header", "refused"])
def test_a_server_that_closes_waits_for_no_handshake_that_is_over(rig: Rig, cleanup: ExitStack, kind: str) -> None:
    trusted, trusting = contexts()
    options: dict[str, dict[str, Any]] = {
        "TLS": {"ssl": trusted},
        "WebSocket": {"websocket": True},
        "first byte": {"websocket": "auto"},
        "PROXY header": {"proxy_protocol": ("127.0.0.1",)},
        "refused": {"ssl": trusted},
    }
    server = rig.give(rig.adapter.serve(Handler(), **options[kind]))
    if kind == "TLS":
        rig.give(rig.adapter.connect(*server.address[:2], Handler(), ssl=trusting, server_hostname=NAME))
    elif kind == "WebSocket":
        rig.give(rig.adapter.connect("ws://{}:{}/".format(*server.address), handler=Handler()))
    else:
        peer = cleanup.enter_context(socket.create_connection(server.address))
        peer.sendall({"first byte": b"\xfe", "PROXY header": b"PROXY UNKNOWN\r\n", "refused": bytes(1000)}[kind])
    if kind == "refused":
        rig.runtime.until(lambda: server.stats.refused == 1)
    else:
        rig.runtime.until(lambda: len(server.sessions) == 1)
        if kind in ("first byte", "PROXY header"):
            peer.close()
    closing = rig.begin(server.close())
    rig.runtime.until(lambda: closing.outcome == [None])


# Dialling.


def fill(cleanup: ExitStack, path: str) -> None:
    """Connect until a queue is full."""
    with suppress(BlockingIOError):
        while True:
            sock = cleanup.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            sock.connect(path)


def accept_all(cleanup: ExitStack, server: socket.socket) -> int:
    """Accept who is in a queue; say how many that were."""
    accepted = 0
    with suppress(BlockingIOError):
        while True:
            cleanup.enter_context(server.accept()[0])
            accepted += 1
    return accepted


@needs_unix
@pytest.mark.parametrize("is_called_off", [False, True])
def test_a_dial_to_a_full_queue_tries_again_after_a_while_unless_it_is_called_off(
    rig: Rig, cleanup: ExitStack, path: str, is_called_off: bool
) -> None:
    server = cleanup.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(path)
    server.listen(0)
    server.setblocking(False)
    fill(cleanup, path)
    dial = rig.begin(rig.adapter.connect_unix(path, Handler()))
    assert rig.runtime.next_at == rig.runtime.time() + FULL_PAUSE
    assert accept_all(cleanup, server) > 0
    if is_called_off:
        dial.cancel()
        rig.runtime.settle()
    rig.skip(FULL_PAUSE)
    assert accept_all(cleanup, server) == (0 if is_called_off else 1)


@needs_unix
def test_tls_over_a_unix_socket_is_agreed_on_within_connect_timeout_or_fails_at_once(
    rig: Rig, cleanup: ExitStack, path: str
) -> None:
    server = cleanup.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(path)
    server.listen()
    connect = partial(rig.adapter.connect_unix, path, Handler(), config=Config(connect_timeout=5.0))
    silent = rig.begin(connect(ssl=ssl.create_default_context(), server_hostname=NAME))
    rig.skip(4.5)
    assert silent.outcome == []
    rig.skip(0.5)
    assert [type(error) for error in silent.outcome] == [TimeoutError]
    tcp = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    for begin in (connect, partial(rig.adapter.connect, *tcp.getsockname(), Handler())):
        assert isinstance(rig.outcome(begin(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))), ssl.SSLError)


def test_a_function_without_reconnect_is_no_handler(rig: Rig) -> None:
    refusal = rig.outcome(rig.adapter.connect("127.0.0.1", 1, rig.hang))
    assert isinstance(refusal, TypeError)
    assert "a function needs reconnect" in str(refusal)


@needs_unix
def test_without_connect_timeout_both_sides_connect(rig: Rig, path: str) -> None:
    trusted, trusting = contexts()
    options: dict[str, Any] = {"config": Config(connect_timeout=None)}
    server = rig.give(rig.adapter.serve(Handler(), ssl=trusted, **options))
    rig.give(rig.adapter.serve_unix(Handler(), path, ssl=trusted, **options))
    options |= {"ssl": trusting, "server_hostname": NAME}
    for connect in (
        rig.adapter.connect(*server.address[:2], Handler(), **options),
        rig.adapter.connect_unix(path, Handler(), **options),
    ):
        session = rig.give(connect)
        assert session.carrier.tls is not None
        session.abort()
    names: list[str | None] = []
    trusted.sni_callback = lambda tls, name, context: names.append(name)
    trusting.check_hostname = False
    rig.give(rig.adapter.connect_unix(path, Handler(), ssl=trusting)).abort()
    assert names == [None], "a path is no name, and none is asked for"


class Pool(AsyncConnectionPool):
    """That of an adapter which a test names."""


def test_how_long_an_address_is_tried_alone_is_asked_of_a_pool_and_of_a_websocket_too(rig: Rig) -> None:
    Pool.adapter = rig.adapter
    for ask in (partial(Pool, "device.example", 7000), partial(dialler_to, rig.runtime, "ws://device.example/", 7000)):
        with pytest.raises(ValueError, match=r"attempt_delay=9\.0"):
            ask(attempt_delay=9.0)


@pytest.mark.parametrize("name", [None, "other.example"])
def test_a_url_with_wss_is_connected_to_by_its_host_and_the_port_given_and_speaks_tls(
    rig: Rig, cleanup: ExitStack, name: str | None
) -> None:
    asked: list[tuple[object, ...]] = []

    def look_up(done: Callable[[Found], object], *place: object) -> None:
        asked.append(place)
        done([(socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname())])

    rig.runtime.look_up = look_up  # type: ignore[method-assign, assignment]
    listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    options = {} if name is None else {"server_hostname": name}
    rig.begin(rig.adapter.connect("wss://device.example/x", 8443, Handler(), **options))
    assert asked == [("device.example", 8443, socket.SOCK_STREAM)]
    peer = cleanup.enter_context(listener.accept()[0])
    peer.settimeout(PATIENCE)
    hello = peer.recv(1 << 16)
    assert hello[0] == 22, "not the handshake of TLS (RFC 8446, section 5.1)"
    assert (name or "device.example").encode() in hello
    listener.close()


# Pings.


def test_a_ping_is_left_out_and_an_answer_waits_while_much_is_unsent(rig: Rig, cleanup: ExitStack) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    options = {
        "socket": listener,
        "websocket": WebSocketOptions(ping_interval=2.0),
        "config": Config(idle_timeout=None, write_high_water=1 << 20),
    }
    server = rig.give(rig.adapter.serve(Handler(), **options))
    peer = cleanup.enter_context(socket.socket())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(server.address)
    peer.setblocking(False)
    peer.sendall(request())
    received = bytearray()

    def receive() -> bool:
        with suppress(BlockingIOError):
            received.extend(peer.recv(1 << 16))
        return True

    rig.runtime.until(lambda: receive() and received.endswith(b"\r\n\r\n"))
    received.clear()
    rig.skip(2.0)
    ping = make_frame(PING, b"", is_client=False)
    rig.runtime.until(lambda: receive() and received == ping)
    (session,) = server.sessions
    packet = Packet(1, bytes(60_000))
    session.send(packet)
    rig.runtime.settle()
    assert session.outstanding > 0
    for _ in range(5):
        rig.skip(2.0)
    rig.runtime.until(lambda: receive() and session.outstanding == 0)
    rig.skip(2.0)
    wanted = ping + make_frame(BINARY, encode(packet), is_client=False) + ping
    rig.runtime.until(lambda: receive() and len(received) >= len(wanted))
    rig.runtime.settle()
    receive()
    assert received == wanted
    received.clear()
    for _ in range(2):
        session.send(packet)
        rig.runtime.settle()
    before = session.outstanding
    rig.runtime.until(lambda: receive() and session.outstanding < before)  # and frames are made of all
    peer.sendall(frame(PING, b"?"))
    rig.runtime.settle()
    answer = make_frame(PONG, b"?", is_client=False)
    rig.runtime.until(lambda: receive() and received.endswith(answer))
    assert len(received) > 120_000, "it came before what there was no room for"
