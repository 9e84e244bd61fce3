"""packetcore_twisted: what only Twisted has. The conformance suite holds the rest."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from twisted.internet import endpoints
from twisted.internet.address import IPv4Address
from twisted.internet.base import ReactorBase
from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred, ensureDeferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import LogEvent, globalLogPublisher

from packetcore import (
    TLS,
    Backoff,
    CloseReason,
    Config,
    Handler,
    LocalProtocolError,
    Packet,
    Refusal,
    ServerBase,
    Session,
    SessionClosed,
    encode,
)
from packetcore_twisted import (
    Client,
    ConnectionPool,
    PacketFactory,
    PacketProtocol,
    Server,
    Stream,
    TwistedDriver,
    connect,
    serve,
)
from packetcore_twisted._waiting import Done, soon_of

DEADLINE = 10.0


class Recorder(Handler):
    """Echoes, and keeps what was heard."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.sent_sizes: list[int] = []
        self.ended: list[CloseReason] = []

    def connected(self, session: Session) -> None:
        self.sessions.append(session)

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)

    def sent(self, session: Session, nbytes: int) -> None:
        self.sent_sizes.append(nbytes)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ended.append(reason)


@pytest.fixture(scope="module")
def driver() -> Iterator[TwistedDriver]:
    driver = TwistedDriver()
    yield driver
    driver.stop()


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[LogEvent]]:
    """The failures that Twisted's log is told of. Those that a test leaves in it fail the test."""
    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    publisher: Any = globalLogPublisher
    publisher.addObserver(observe)
    yield failures
    gc.collect()  # a Deferred that nobody asked for its failure logs it when it goes
    publisher.removeObserver(observe)
    assert failures == []


@pytest.fixture(scope="module")
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> TLS:
    """A certificate, and beside it the authority that signed it."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "gateway.example")
    (folder / "authority.pem").write_bytes(authority.cert_pem.bytes())
    (folder / "server.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    return TLS(certificate=str(folder / "server.pem"))


@pytest.fixture(scope="module")
def client_tls(server_tls: TLS) -> TLS:
    assert server_tls.certificate is not None
    return TLS(authority=str(Path(server_tls.certificate).with_name("authority.pem")))


def until(driver: TwistedDriver, condition: Callable[[], bool]) -> None:
    """Wait for something to come true on the reactor."""
    deadline = time.monotonic() + DEADLINE
    while not driver.call(condition):
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)


def in_memory(clock: Clock, handler: Handler, config: Config | None = None) -> tuple[PacketProtocol, Any]:
    """A session on a transport of Twisted's testing kit."""
    protocol: Any = PacketFactory(handler, config, clock).buildProtocol(None)
    new_transport: Any = StringTransportWithDisconnection
    transport = new_transport()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    return protocol, transport


def test_a_handler_runs_on_a_clock_and_a_string_transport() -> None:
    clock, handler = Clock(), Recorder()
    protocol, transport = in_memory(clock, handler, Config(idle_timeout=60))
    frames = encode(Packet(1, b"one")) + encode(Packet(2, b"two"))
    protocol.dataReceived(frames[:20])
    protocol.dataReceived(frames[20:])
    assert transport.value() == frames
    assert sum(handler.sent_sizes) == len(frames)
    clock.advance(59)
    assert handler.ended == []
    clock.advance(1)
    assert handler.ended == [CloseReason.IDLE_TIMEOUT]
    assert clock.getDelayedCalls() == []


def test_a_wall_clock_that_steps_ahead_ends_no_session(driver: TwistedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Recorder()
    server = driver.start_server(handler)
    with raw_peer(server, None) as peer:
        peer.sendall(encode(Packet(1)))
        assert peer.recv(100) == encode(Packet(1))
        real = ReactorBase.seconds
        monkeypatch.setattr(ReactorBase, "seconds", staticmethod(lambda: real() + 3600))
        for _ in range(3):  # each wakes the reactor, which then sees all its timers due
            driver.call(lambda: None)
            peer.sendall(encode(Packet(2)))
            assert peer.recv(100) == encode(Packet(2))
        assert handler.ended == []
    until(driver, lambda: handler.ended == [CloseReason.PEER])
    driver.call(server.close)


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_wall_clock_that_steps_ends_nothing_that_waits(
    driver: TwistedDriver, server_tls: TLS, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """A handshake, a connect and the grace of a server: each has its timer with the reactor."""
    server: Any = driver.start_server(tls=server_tls)

    class Patient(Recorder):
        def draining(self, session: Session) -> None:
            """It goes on."""

    handler = Patient()
    slow = driver.start_server(handler)
    options = {"reactor": driver.runtime.reactor, **driver.tls_options(server_tls, server_side=False)}
    with raw_peer(server, None) as shaking, raw_peer(slow, None), socket.create_server(("127.0.0.1", 0)) as silent:
        until(driver, lambda: bool(server.listening._opening) and bool(handler.sessions))
        connecting = driver.call(lambda: [connect(*silent.getsockname(), **options)])
        closing = driver.call(lambda: [slow.close(60)])
        real = ReactorBase.seconds
        monkeypatch.setattr(ReactorBase, "seconds", staticmethod(lambda: real() + step))
        for _ in range(3):
            driver.call(lambda: None)
        shaking.setblocking(False)
        with pytest.raises(BlockingIOError):
            shaking.recv(1)
        assert not connecting[0].called
        assert not handler.ended
        driver.call(connecting[0].cancel)
        driver.call(lambda: connecting[0].addErrback(lambda failed: None))
        driver.call(slow.close, 0)
        driver.call(lambda: closing[0])
    driver.call(server.close)


def test_a_clock_that_steps_back_ends_no_session() -> None:
    clock, handler = Clock(), Recorder()
    clock.advance(1_000_000)
    protocol, transport = in_memory(clock, handler, Config(idle_timeout=60))
    clock.rightNow -= 500_000
    protocol.dataReceived(encode(Packet(1)))
    clock.advance(30)
    assert handler.ended == []
    assert transport.value() == encode(Packet(1))


def test_a_transport_without_half_close_is_closed_instead() -> None:
    clock, handler = Clock(), Recorder()
    protocol, transport = in_memory(clock, handler)
    protocol.session.send(Packet(1, b"bye"))
    protocol.session.close()
    clock.advance(0)
    assert transport.value() == encode(Packet(1, b"bye"))
    assert handler.ended == [CloseReason.LOCAL]


def test_reading_is_paused_and_resumed_on_the_transport() -> None:
    protocol, transport = in_memory(Clock(), Recorder())
    protocol.session.pause()
    assert transport.producerState == "paused"
    protocol.session.resume()
    assert transport.producerState == "producing"


@inlineCallbacks
def echo_one(stream: Stream) -> Generator[Deferred[Any], Any, None]:
    packet = yield stream.recv()
    yield stream.send(packet)


def echo_chained(stream: Any) -> Any:
    return stream.recv().addCallback(stream.send)


def test_what_send_gives_where_there_is_room_is_a_deferred_like_any_other() -> None:
    told: list[object] = []

    async def wait() -> None:
        told.append(await Done())
        told.append(await Done().addCallback(lambda result: (result, "changed")))

    ensureDeferred(wait())
    chained: Deferred[object] = Deferred()
    chained.addCallback(lambda _: Done()).addCallback(told.append)
    chained.callback(1)
    paused = Done()
    paused.pause()
    paused.addCallback(lambda _: told.append("later"))
    told.append("first")
    paused.unpause()
    assert told == [None, (None, "changed"), None, "first", "later"]
    with pytest.raises(AlreadyCalledError):
        Done().callback(None)
    assert not hasattr(Done(), "anything else")


def test_what_is_called_soon_has_turns_and_a_mistake_ends_only_its_own_call() -> None:
    turns, told = list[Callable[[], object]](), list[str]()
    call = soon_of(SimpleNamespace(callLater=lambda delay, callback: turns.append(callback))).call

    def mistake() -> None:
        raise KeyError("a mistake")

    def again(times: int) -> None:
        told.append(f"{times} more")
        if times:
            call(partial(again, times - 1))

    for callback in (partial(again, 3), mistake, lambda: told.append("after it")):
        call(callback)
    assert told == []
    with pytest.raises(KeyError, match="a mistake"):
        turns.pop()()
    assert told == ["3 more"]
    turns.pop()()
    assert told == ["3 more", "after it", "2 more", "1 more"]
    turns.pop()()
    assert told[4:] == ["0 more"]
    assert turns == []


@pytest.mark.parametrize("function", [echo_one, echo_chained])
def test_a_function_may_give_a_deferred(driver: TwistedDriver, function: Callable[[Stream], Any]) -> None:
    server = driver.call(partial(serve, function, reactor=driver.runtime.reactor))
    stream = driver.connect(*server.address)
    driver.call(stream.send, Packet(1, b"hello"))
    assert driver.call(stream.recv) == Packet(1, b"hello")
    with pytest.raises(SessionClosed):
        driver.call(stream.recv)
    driver.call(server.close)
    driver.call(stream.close)


@pytest.mark.parametrize("fails_at_once", [True, False])
def test_what_a_function_raises_is_logged_once(
    driver: TwistedDriver, logged: list[LogEvent], fails_at_once: bool
) -> None:
    def fragile(stream: Stream) -> Deferred[Any]:
        if fails_at_once:
            raise ZeroDivisionError
        return stream.recv().addCallback(lambda _: 1 / 0)

    server = driver.call(partial(serve, fragile, reactor=driver.runtime.reactor))
    stream = driver.connect(*server.address)
    if not fails_at_once:
        driver.call(stream.send, Packet(1))
    until(driver, lambda: server.stats.closed == {CloseReason.HANDLER_ERROR: 1})
    assert [(event["log_namespace"], event["log_failure"].type) for event in logged] == [
        ("packetcore", ZeroDivisionError)
    ]
    logged.clear()
    driver.call(server.close)
    driver.call(stream.close)


def test_a_cancelled_receiver_loses_no_packet(driver: TwistedDriver) -> None:
    server = driver.start_server()
    stream = driver.connect(*server.address)

    async def main() -> None:
        for at in range(50):
            receiving = stream.recv().addErrback(lambda failed: failed.trap(CancelledError))
            receiving.cancel()
            await stream.send(Packet(at))
            assert await stream.recv() == Packet(at)
        await stream.close()

    driver.call(main)
    driver.call(server.close)


def test_a_function_that_only_sends_waits_for_its_peer(driver: TwistedDriver) -> None:
    async def chatter(stream: Stream) -> None:
        for _ in range(200):
            await stream.send(Packet(1, bytes(100_000)))

    server: Server = driver.call(partial(serve, chatter, reactor=driver.runtime.reactor))
    with socket.create_connection(server.address, timeout=DEADLINE) as peer:
        until(driver, lambda: [64 * 1024 < session.outstanding < 1 << 20 for session in server.sessions] == [True])
        received = 0
        while chunk := peer.recv(1 << 20):
            received += len(chunk)
    assert received == 200 * len(encode(Packet(1, bytes(100_000))))
    driver.call(server.close)


@pytest.mark.parametrize("over_tls", [False, True])
def test_sent_is_told_as_a_backlog_goes_and_of_all_of_it(
    driver: TwistedDriver, server_tls: TLS, client_tls: TLS, over_tls: bool
) -> None:
    handler = Recorder()
    server = driver.start_server(handler, config=Config(max_outstanding=None), tls=server_tls if over_tls else None)
    with raw_peer(server, client_tls if over_tls else None) as peer:
        until(driver, lambda: bool(handler.sessions))
        (session,) = handler.sessions
        total = left = driver.call(push, session)
        until(driver, lambda: 0 < session.outstanding < total)
        while left:
            left -= len(peer.recv(1 << 20))
        until(driver, lambda: session.outstanding == 0)
    assert sum(handler.sent_sizes) == total
    assert max(handler.sent_sizes[1:]) <= 64 * 1024  # the first is what went at once
    # Python's own TLS sockets close without a goodbye.
    until(driver, lambda: handler.ended == [CloseReason.RESET if over_tls else CloseReason.PEER])
    driver.call(server.close)


@pytest.mark.parametrize(
    ("end", "reason"),
    [("goodbye", CloseReason.PEER), ("finish", CloseReason.RESET), ("reset", CloseReason.RESET)],
)
def test_tls_that_ends_without_a_goodbye_is_a_loss(
    driver: TwistedDriver, server_tls: TLS, client_tls: TLS, end: str, reason: CloseReason
) -> None:
    handler = Recorder()
    server = driver.start_server(handler, tls=server_tls)
    with raw_peer(server, client_tls) as peer:
        peer.sendall(encode(Packet(1)))
        assert peer.recv(100) == encode(Packet(1))
        if end == "goodbye":
            assert isinstance(peer, ssl.SSLSocket)
            peer.unwrap()
        elif end == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(driver, lambda: handler.ended == [reason])
    driver.call(server.close)


def test_a_peer_that_leaves_tls_with_a_backlog_unread_is_let_go(
    driver: TwistedDriver, server_tls: TLS, client_tls: TLS
) -> None:
    handler = Recorder()
    config = Config(max_outstanding=None, write_high_water=1 << 30)  # so that it goes on reading
    server = driver.start_server(handler, config=config, tls=server_tls)
    with raw_peer(server, client_tls) as peer:
        until(driver, lambda: bool(handler.sessions))
        driver.call(push, handler.sessions[0])
        assert isinstance(peer, ssl.SSLSocket)
        with pytest.raises(ssl.SSLError):  # it says goodbye, and then meets data
            peer.unwrap()
        with socket.socket(fileno=peer.detach()) as below:
            below.settimeout(DEADLINE)
            until_closed(below)
    until(driver, lambda: len(handler.ended) == 1)
    driver.call(server.close)


def test_an_older_context_factory_will_do(driver: TwistedDriver, server_tls: TLS, client_tls: TLS) -> None:
    options = driver.tls_options(server_tls, server_side=True)["ssl"]

    class Factory:
        def getContext(self) -> Any:  # noqa: N802
            return options.getContext()

    server = driver.call(partial(serve, echo_one, ssl=Factory(), reactor=driver.runtime.reactor))
    stream = driver.connect(*server.address, tls=client_tls)
    assert driver.call(stream.request, Packet(1)) == Packet(1)
    driver.call(stream.close)
    driver.call(server.close)


def test_a_handshake_that_fails_is_nobodys_news(driver: TwistedDriver, server_tls: TLS) -> None:
    server = driver.start_server(tls=server_tls)
    with raw_peer(server, None) as peer:
        peer.sendall(encode(Packet(1)))
        until_closed(peer)
    driver.call(server.close)
    assert server.stats.opened == 0


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_factory_serves_either_side_of_any_endpoint(
    driver: TwistedDriver, server_tls: TLS, client_tls: TLS, tmp_path: Path, over_tls: bool
) -> None:
    reactor, handler = driver.runtime.reactor, Recorder()
    factory = PacketFactory(echo_one, reactor=reactor)
    client = PacketFactory(handler, reactor=reactor)
    untyped: Any = endpoints
    listening = untyped.serverFromString(reactor, f"unix:{tmp_path}/socket")
    connecting = untyped.clientFromString(reactor, f"unix:{tmp_path}/socket")
    if over_tls:
        creator = driver.tls_options(client_tls, server_side=False)["ssl"]("gateway.example")
        listening = endpoints.wrapServerTLS(driver.tls_options(server_tls, server_side=True)["ssl"], listening, reactor)
        connecting = endpoints.wrapClientTLS(creator, connecting, reactor)
    port = driver.call(listening.listen, factory)
    protocol = driver.call(connecting.connect, client)
    until(driver, lambda: bool(handler.sessions))
    assert isinstance(protocol, PacketProtocol)
    driver.call(protocol.session.send, Packet(1, bytes(500_000)))
    until(driver, lambda: handler.ended == [CloseReason.PEER])
    assert handler.sessions[0].stats.packets_received == 1
    driver.call(factory.close)
    driver.call(port.stopListening)
    assert factory.stats.closed == {CloseReason.LOCAL: 1}


def test_a_connect_that_is_cancelled_leaves_no_socket(driver: TwistedDriver, client_tls: TLS) -> None:
    options = {"config": Config(connect_timeout=None), "reactor": driver.runtime.reactor}
    options.update(driver.tls_options(client_tls, server_side=False))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connecting = driver.call(lambda: [connect(*silent.getsockname(), **options)])
        peer, _ = silent.accept()
        with peer:
            peer.settimeout(DEADLINE)
            assert peer.recv(1)  # the handshake has begun
            driver.call(connecting[0].cancel)
            with pytest.raises(CancelledError):
                driver.call(lambda: connecting[0])
            until_closed(peer)


def test_the_last_descriptor_serves_a_peer_and_the_others_wait(
    driver: TwistedDriver, caplog: pytest.LogCaptureFixture
) -> None:
    """Twisted's own ports would close those, one after the other, and log each."""
    handler, frame = Recorder(), encode(Packet(1))
    server = driver.start_server(handler)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as closing, contextlib.ExitStack() as taken:
        peers = [closing.enter_context(socket.socket()) for _ in range(4)]
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (peers[-1].fileno() + 20, hard))
        copies: list[socket.socket] = []
        with contextlib.suppress(OSError):
            while True:
                copies.append(taken.enter_context(peers[0].dup()))
        copies[-1].close()
        for peer in peers:
            peer.settimeout(DEADLINE)
            peer.connect(server.address)
        until(driver, lambda: bool(caplog.records))
        taken.close()
        for peer in peers:
            peer.sendall(frame)
            assert peer.recv(100) == frame
        until(driver, lambda: len(caplog.records) == 2)
    assert ["again" in record.getMessage() for record in caplog.records] == [True, True]
    driver.call(server.close)


def test_a_reactor_that_takes_no_sockets_listens_in_its_own_way(driver: TwistedDriver) -> None:
    class Bare:
        """The driver's reactor without its interfaces."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(driver.runtime.reactor, name)

    server: Server = driver.call(partial(serve, echo_one, reactor=Bare()))
    stream = driver.connect(*server.address)
    assert driver.call(stream.request, Packet(1)) == Packet(1)
    with pytest.raises(OSError, match="in use"):
        driver.call(partial(serve, echo_one, port=server.address[1], reactor=Bare()))
    with pytest.raises(TypeError, match="proxy_protocol= needs a reactor"):
        driver.call(partial(serve, echo_one, proxy_protocol=("::1",), reactor=Bare()))
    driver.call(server.close)
    driver.call(stream.close)
    with pytest.raises(ConnectionRefusedError):
        driver.connect(*server.address)


def test_a_handshake_that_fails_is_one_try_of_a_client(driver: TwistedDriver, client_tls: TLS) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        host, port = listener.getsockname()
        backoff = Backoff(initial=0.01, maximum=0.01)
        client: Client = driver.connect(host, port, Recorder(), reconnect=backoff, tls=client_tls)
        for _ in range(3):
            listener.accept()[0].close()
        peer, _ = listener.accept()
        with peer:
            assert client.stats.closed == {CloseReason.CONNECT_FAILED: 3}
            driver.call(client.close)
            until_closed(peer)
    assert client.stats.closed == {CloseReason.CONNECT_FAILED: 3}
    assert client.stats.opened == 0


def test_a_pool_serves_who_has_no_coroutines(driver: TwistedDriver) -> None:
    server = driver.start_server()
    pool: ConnectionPool = driver.open_pool(*server.address, max_size=1)

    def ask(id: int) -> Deferred[Any]:
        return pool.use(lambda stream: stream.request(Packet(id)))

    def fail(stream: Stream) -> None:
        raise ZeroDivisionError

    cancelled: list[Deferred[Any]] = []

    def cancel_one() -> Deferred[Any]:
        first, second, third = ask(1), ask(2), ask(3)
        second.cancel()
        cancelled.append(second.addErrback(lambda failed: type(failed.value)))
        return first.addCallback(lambda one: third.addCallback(lambda three: (one, three)))

    assert driver.call(cancel_one) == (Packet(1), Packet(3))
    assert driver.call(lambda: cancelled[0]) is CancelledError
    assert (pool.size, pool.idle, pool.waiting) == (1, 1, 0)
    with pytest.raises(ZeroDivisionError):
        driver.call(pool.use, fail)
    assert (pool.size, pool.stats.discarded) == (0, 1)
    assert driver.call(ask, 4) == Packet(4)
    driver.call(pool.close)
    driver.call(server.close)


ENDS = """
from packetcore import Backoff, Handler, Packet
from packetcore_twisted import connect, serve
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

class Ends(Handler):
    def packet_received(self, session, packet):
        raise SystemExit(7)

    def disconnected(self, session, reason):
        print(reason.name, flush=True)

class Greets(Handler):
    def connected(self, session):
        session.send(Packet(1))

"""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (
            """
async def main(reactor):
    server = await serve(Ends())
    await connect(*server.address, Greets())
    await server.serve_forever()

task.react(main)
""",
            7,
        ),
        (
            """
async def main():
    server = await serve(Ends())
    await connect(*server.address, Greets())

main = Deferred.fromCoroutine(main())
reactor.run()
""",
            0,
        ),
        (
            """
async def main():
    server = await serve(Greets())
    await connect(*server.address, Ends(), reconnect=Backoff())

main = Deferred.fromCoroutine(main())
reactor.run()
""",
            0,
        ),
    ],
    ids=["react", "a server alone", "a client"],
)
def test_a_handler_may_end_the_program(end: str, code: int) -> None:
    """In a process of its own, with the global reactor."""
    command = [sys.executable, "-W", "error", "-c", ENDS + end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (code, "HANDLER_ERROR\n"), done.stderr


def test_what_a_handler_ends_comes_out_where_the_program_waits(driver: TwistedDriver) -> None:
    class Ends(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            raise KeyboardInterrupt

    server: Server = driver.call(partial(serve, Ends(), reactor=driver.runtime.reactor))
    waiting = driver.call(lambda: [server.serve_forever()])
    with raw_peer(server, None) as peer:
        peer.sendall(encode(Packet(1)))
        until_closed(peer)
    with pytest.raises(KeyboardInterrupt):
        driver.call(lambda: waiting[0])
    with pytest.raises(ConnectionRefusedError):
        driver.connect(*server.address)
    driver.call(server.close)
    driver.call(server.serve_forever)


def test_drivers_share_nothing_and_leave_nothing() -> None:
    """In a process of its own: it counts descriptors, and which modules were imported."""
    program = """
import os, sys, threading
from functools import partial
from packetcore import Handler
from packetcore_twisted import TwistedDriver

def open_files():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

def begin():
    driver = TwistedDriver()
    server = driver.start_server()
    return driver, driver.connect(*server.address), driver.connect(*server.address, Handler())

begin()[0].stop()  # Twisted keeps one descriptor in reserve from the first port on
before = open_files()
begun = [begin() for _ in range(3)]
heard = []
for driver, stream, session in begun:
    driver.call(session.pause)  # a reactor knows nothing of a socket that waits for nothing
    driver.call(lambda: stream.recv().addErrback(heard.append) and None)
for driver, stream, session in begun:
    driver.stop()
    driver.stop()
    assert stream.session.is_over and session.is_over
assert len(heard) == 3, "who waits must hear of the end"
assert open_files() == before, (before, open_files())
assert threading.active_count() == 1, threading.enumerate()
assert "twisted.internet.reactor" not in sys.modules, "the application's choice was taken from it"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)


def push(session: Session) -> int:
    """Send more than the system's buffers hold. Returns how many bytes."""
    for _ in range(200):
        session.send(Packet(1, bytes(100_000)))
    return session.stats.bytes_sent


def raw_peer(server: ServerBase, tls: TLS | None) -> socket.socket:
    sock = socket.create_connection(server.address, timeout=DEADLINE)
    return sock if tls is None else tls.context(server_side=False).wrap_socket(sock, server_hostname="127.0.0.1")


def until_closed(peer: socket.socket) -> None:
    """Read on until the other side is gone, in good order or not."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while peer.recv(1 << 20):
            pass


class ListeningClock(Clock):
    """A reactor that listens, and watches no descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.factories: list[Any] = []

    def listenTCP(self, port: int, factory: Any, backlog: int, interface: str) -> Any:  # noqa: N802
        self.factories.append(factory)
        return SimpleNamespace(getHost=lambda: IPv4Address("TCP", interface, port or 1), stopListening=lambda: None)


def test_a_reactor_with_a_way_of_its_own_to_listen_reloads_its_certificate_too(
    driver: TwistedDriver, server_tls: TLS
) -> None:
    options, other = (driver.tls_options(server_tls, server_side=True)["ssl"] for _ in range(2))

    async def reload() -> None:
        reactor: Any = ListeningClock()
        plain, secured = [await serve(Recorder(), reactor=reactor, ssl=ssl) for ssl in (None, options)]
        with pytest.raises(LocalProtocolError, match="speaks no TLS"):
            plain.reload_tls(other)
        with pytest.raises(TypeError, match="CertificateOptions"):
            secured.reload_tls(driver.tls_options(server_tls, server_side=False)["ssl"])
        _, factory = reactor.factories
        assert factory.options is options
        secured.reload_tls(other)
        assert factory.options is other, "who connects from now on is shown the old certificate"
        with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TypeError, match="IReactorFDSet"):
            await serve(Recorder(), reactor=reactor, socket=listener)

    driver.call(reload)


def is_refused(server: ServerBase) -> bool:
    return server.stats.refusals[Refusal.TLS_FAILED] == 1


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets")
def test_tls_over_a_unix_socket_that_is_given_takes_a_context_of_the_standard_library(
    driver: TwistedDriver, server_tls: TLS, client_tls: TLS, tmp_path: Path
) -> None:
    for name, tls in (
        ("secured", server_tls.context(server_side=True)),
        ("refused", driver.tls_options(server_tls, server_side=True)["ssl"]),
    ):
        given = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        given.bind(path := str(tmp_path / name))
        given.listen()
        server = driver.start_server(Recorder(), socket=given, ssl=tls)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(path)
            if name == "refused":
                assert sock.recv(1) == b""
                until(driver, partial(is_refused, server))
                continue
            context = client_tls.context(server_side=False)
            with context.wrap_socket(sock, server_hostname="gateway.example") as peer:
                peer.sendall(encode(Packet(1)))
                assert peer.recv(64) == encode(Packet(1))
