"""packetcore_blocking over loopback: what threads, timeouts and signals are promised.

What every adapter must do is held by the conformance suite.
"""

from __future__ import annotations

import errno
import logging
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

import packetcore_sockets._driver
import packetcore_sockets._listener
from packetcore import (
    Backoff,
    CloseReason,
    Config,
    Handler,
    Malformed,
    Message,
    Packet,
    PoolClosed,
    RequestPending,
    Session,
    SessionClosed,
    SessionPool,
    encode,
)
from packetcore.framings import SLIP
from packetcore_blocking import (
    BlockingDriver,
    ConnectionPool,
    Server,
    Stream,
    connect,
    connect_udp,
    connect_unix,
    request,
    serve,
    serve_udp,
    serve_unix,
)

DEADLINE = 10.0

AT_ONCE = Backoff(initial=0.01, maximum=0.02)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    until(lambda: threading.active_count() == before)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that take turns as often as they can, so that what is not locked shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(16) as threads:
        yield threads
    sys.setswitchinterval(interval)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads bring about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)


def echo(stream: Stream) -> None:
    for item in stream:
        assert isinstance(item, Packet)
        stream.send(item)


class Recorder(Handler):
    """Keeps what was heard, and sends it back if it `echoes`."""

    def __init__(self, *, echoes: bool = True) -> None:
        self.echoes = echoes
        self.packets: list[Packet] = []
        self.ended: list[CloseReason] = []

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.packets.append(packet)
        if self.echoes:
            session.send(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ended.append(reason)


class Pair:
    """A client stream and the raw socket on its other end."""

    def __init__(self, config: Config | None = None, receive_buffer: int | None = None) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if receive_buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.stream = connect(*listener.getsockname(), config=config)
            self.peer, _ = listener.accept()
        self.peer.settimeout(DEADLINE)

    def __enter__(self) -> tuple[Stream, socket.socket]:
        return self.stream, self.peer

    def __exit__(self, *exception: object) -> None:
        self.peer.close()
        self.stream.close()


def test_a_receive_that_times_out_names_its_timeout_and_loses_nothing() -> None:
    frame = encode(Packet(7, b"\xfe\xfd" * 20))
    with Pair() as (stream, peer):
        for byte in frame[:-1]:
            peer.send(bytes([byte]))
            with pytest.raises(TimeoutError, match=r"timeout=0\.001 s"):
                stream.recv(0.001)
        with pytest.raises(TimeoutError, match=r"timeout=0 s"):
            stream.recv(0)
        peer.send(frame[-1:])
        assert stream.recv(DEADLINE) == Packet(7, b"\xfe\xfd" * 20)


def test_a_send_that_times_out_tears_no_frame() -> None:
    packet = Packet(1, b"\xfd" * 300_000)
    with Pair(Config(close_timeout=DEADLINE), receive_buffer=4096) as (stream, peer):

        def fill() -> None:
            while True:
                stream.send(packet, timeout=0.01)

        with pytest.raises(TimeoutError, match=r"bytes are still unsent after timeout=0\.01 s"):
            fill()
        sent = stream.session.stats.packets_sent
        assert stream.session.outstanding > 0
        with pytest.raises(TimeoutError):
            stream.recv(0.01)
        expected = encode(packet) * sent + encode(Packet(2))
        received = bytearray()

        def read() -> None:
            while len(received) < len(expected):
                received.extend(peer.recv(1 << 20))

        reader = threading.Thread(target=read)
        reader.start()
        stream.send(Packet(2), timeout=DEADLINE)
        reader.join()
        assert received == expected


def test_a_client_that_does_nothing_after_a_send_has_sent_all_of_it(threads: ThreadPoolExecutor) -> None:
    with Pair(receive_buffer=4096) as (stream, peer):
        sending = threads.submit(stream.send, Packet(1, bytes(900_000)))
        size = len(encode(Packet(1, bytes(900_000))))
        while size:
            size -= len(peer.recv(size))
        sending.result(DEADLINE)
        assert stream.session.outstanding == 0


def test_threads_on_one_client_stream_neither_mix_nor_lose_frames(threads: ThreadPoolExecutor) -> None:
    def send(id: int) -> None:
        for at in range(50):
            stream.send(Packet(id, at.to_bytes(2, "big") * 3000))

    def receive() -> list[Packet]:
        return [item for item in (stream.recv(DEADLINE) for _ in range(100)) if isinstance(item, Packet)]

    with serve(echo) as server, connect(*server.address) as stream:
        receiving = [threads.submit(receive) for _ in range(4)]
        for sending in [threads.submit(send, id) for id in range(8)]:
            sending.result(DEADLINE)
        got = [packet for received in receiving for packet in received.result(DEADLINE)]
    expected = [(id, at.to_bytes(2, "big") * 3000) for id in range(8) for at in range(50)]
    assert sorted((packet.id, packet.payload) for packet in got) == expected


def test_threads_that_ask_over_one_stream_at_once_get_each_its_own_reply(threads: ThreadPoolExecutor) -> None:
    class Picky(Handler):
        """Answers the even ids, and says unasked what it does not."""

        def packet_received(self, session: Session, packet: Packet) -> None:
            session.send(packet if packet.id % 2 == 0 else Packet(1000, packet.payload))

    def ask(id: int) -> None:
        for at in range(25):
            asked = Packet(id, bytes([at]))
            if id % 2 == 0:
                assert stream.request(asked, timeout=DEADLINE) == asked
            elif at == 0:
                with pytest.raises(TimeoutError, match=rf"request {id} .*timeout=0\.05 s"):
                    stream.request(asked, timeout=0.05)

    with serve(Picky()) as server, connect(*server.address) as stream:
        hearing = threads.submit(lambda: {stream.recv(DEADLINE) for _ in range(4)})
        for asking in [threads.submit(ask, id) for id in [*range(0, 20, 2), *range(1, 9, 2)]]:
            asking.result(DEADLINE)
        assert hearing.result(DEADLINE) == {Packet(1000, b"\0")}
        forgotten = threads.submit(stream.request, Packet(9))
        until(lambda: stream.has_received)
        stream.close()
        with pytest.raises(SessionClosed, match="LOCAL"):
            forgotten.result(DEADLINE)


def test_twenty_threads_share_the_connections_of_a_pool() -> None:
    busy: set[Stream] = set()

    def borrow(id: int) -> None:
        for at in range(15):
            with pool.acquire(DEADLINE) as stream:
                assert stream not in busy
                busy.add(stream)
                asked = Packet(id, bytes([at]))
                assert stream.request(asked, timeout=DEADLINE) == asked
                busy.discard(stream)

    with (
        ThreadPoolExecutor(20) as threads,
        serve(echo) as server,
        ConnectionPool(*server.address, max_size=3) as pool,
    ):
        for borrowing in [threads.submit(borrow, id) for id in range(20)]:
            borrowing.result(DEADLINE)
        assert pool.size == pool.idle == server.stats.opened <= 3
        assert pool.stats.reused == 20 * 15 - pool.size
        pool.close()
        until(lambda: server.stats.sessions == 0)
        assert server.stats.closed == {CloseReason.PEER: server.stats.opened}
        with pytest.raises(PoolClosed), pool.acquire():
            pass


def test_a_pools_thread_serves_until_the_last_stream_is_back(threads: ThreadPoolExecutor) -> None:
    def served() -> bool:
        return pool.runtime.thread is not None

    with serve(echo) as server:
        pool = ConnectionPool(*server.address, max_size=1, max_idle=0.05)
        with pool.acquire():
            pass
        until(lambda: pool.size == 0)
        assert pool.stats.expired == 1
        with pool.acquire() as stream:
            with pytest.raises(TimeoutError, match=r"in use still after timeout=0\.01 s"), pool.acquire(timeout=0.01):
                pass
            waiting = threads.submit(pool.acquire().__enter__)
            until(lambda: pool.waiting == 1)
            pool.close()
            with pytest.raises(PoolClosed):
                waiting.result(DEADLINE)
            assert stream.request(Packet(1), timeout=DEADLINE) == Packet(1)
            assert served()
        until(lambda: not served())
        assert stream.close_reason is CloseReason.LOCAL


def test_threads_send_through_a_client_that_comes_back(threads: ThreadPoolExecutor) -> None:
    handler = Recorder(echoes=False)
    with serve(echo) as first:
        host, port = first.address
        client = connect(host, port, handler, reconnect=AT_ONCE, keep=1600)
        until(lambda: client.session is not None and first.stats.sessions == 1)
    until(lambda: client.session is None)

    def send(id: int) -> None:
        for at in range(100):
            client.send(Packet(id, bytes(at)))

    for sending in [threads.submit(send, id) for id in range(8)]:
        sending.result(DEADLINE)
    assert client.kept == 800
    with serve(echo, port=port):
        for sending in [threads.submit(send, id) for id in range(8, 16)]:
            sending.result(DEADLINE)
        until(lambda: len(handler.packets) == 1600)
        for closing in [threads.submit(client.close) for _ in range(4)]:
            closing.result(DEADLINE)
    for id in range(16):
        assert [len(packet.payload) for packet in handler.packets if packet.id == id] == list(range(100))
    assert handler.ended == [CloseReason.PEER, CloseReason.LOCAL]
    assert client.stats.opened == 2
    with pytest.raises(SessionClosed):
        client.send(Packet(1))


def test_closing_a_client_ends_its_function_and_a_try_under_way() -> None:
    ended: list[CloseReason | None] = []

    def receive(stream: Stream) -> None:
        with pytest.raises(SessionClosed):
            stream.recv()
        ended.append(stream.close_reason)

    with serve(echo) as server:
        host, port = server.address
        client = connect(host, port, receive, reconnect=AT_ONCE)
        until(lambda: client.session is not None)
        client.close()
        assert ended == [CloseReason.LOCAL]
    with socket.create_server(("127.0.0.1", 0), backlog=0) as mute:
        host, port = mute.getsockname()
        client = connect(
            host,
            port,
            Recorder(),
            reconnect=AT_ONCE,
            config=Config(connect_timeout=DEADLINE),
            ssl=ssl.create_default_context(),
        )
        peer, _ = mute.accept()  # and say nothing of TLS
        client.close()
        assert client.stats.closed == {}
        peer.close()


def test_a_handler_that_closes_its_client_is_told_and_all_ends(caplog: pytest.LogCaptureFixture) -> None:
    class Impatient(Recorder):
        def connected(self, session: Session) -> None:
            session.send(Packet(1))

        def packet_received(self, session: Session, packet: Packet) -> None:
            client.close()

    handler = Impatient()
    with caplog.at_level(logging.ERROR), serve(echo) as server:
        host, port = server.address
        client = connect(host, port, handler, reconnect=AT_ONCE)
        until(lambda: handler.ended != [])
        client.close()
    assert "a handler must not block" in caplog.text
    assert client.stats.opened == 1


def test_servers_that_share_a_register_share_a_lock_and_a_thread(tmp_path: Path) -> None:
    class Binding(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            session.bind(packet.payload)
            session.send(packet)

    register: SessionPool[Session] = SessionPool()
    udp = serve_udp(Binding(), sessions=register)
    with pytest.raises(OSError, match="203"):
        serve(Binding(), "203.0.113.1", sessions=register)  # an address for documentation, nobody's
    with serve(Binding(), sessions=register) as tcp:
        assert tcp.lock is udp.lock
        if hasattr(socket, "AF_UNIX"):
            with serve_unix(Binding(), str(tmp_path / "socket"), sessions=register) as unix:
                assert unix.lock is udp.lock
        with connect(*tcp.address) as stream, connect_udp(*udp.address[:2]) as datagrams:
            assert stream.request(Packet(1, b"device"), timeout=DEADLINE) == Packet(1, b"device")
            assert datagrams.request(Packet(2, b"device"), timeout=DEADLINE) == Packet(2, b"device")
            with pytest.raises(SessionClosed, match="PEER"):
                stream.recv(DEADLINE)
            stream.close()
            tcp.close(grace=0)
            assert tcp.stats.closed == {CloseReason.REPLACED: 1}
            assert datagrams.request(Packet(3, b"device"), timeout=DEADLINE) == Packet(3, b"device")
            assert len(register) == 1
            udp.close(grace=0)
    assert len(register) == 0
    with serve(Binding(), sessions=register) as again, connect(*again.address) as stream:
        assert stream.request(Packet(1, b"device"), timeout=DEADLINE) == Packet(1, b"device")


@pytest.mark.parametrize("over", ["tcp", "udp"])
def test_what_another_thread_asks_of_a_session_waits_for_the_lock(over: str) -> None:
    listen, dial = (serve, connect) if over == "tcp" else (serve_udp, connect_udp)
    with listen(Recorder()) as server, dial(*server.address[:2]) as stream:
        assert stream.request(Packet(1, b"device"), timeout=DEADLINE) == Packet(1, b"device")
        (session,) = server.sessions
        for each in (session, stream.session):
            closing = threading.Thread(target=each.close)
            with each.endpoint.runtime.lock:
                closing.start()
                closing.join(0.05)
                assert closing.is_alive()
                assert each.is_open, "two threads are in one session at a time"
            closing.join(DEADLINE)
            assert not each.is_open


def test_when_the_thread_that_serves_leaves_another_goes_on(threads: ThreadPoolExecutor) -> None:
    with Pair() as (stream, peer):
        impatient = threads.submit(stream.recv, 0.05)
        patient = [threads.submit(stream.recv, DEADLINE) for _ in range(3)]
        with pytest.raises(TimeoutError):
            impatient.result(DEADLINE)
        for at in range(3):
            peer.send(encode(Packet(at)))
        assert {receiving.result(DEADLINE) for receiving in patient} == {Packet(at) for at in range(3)}


def test_a_close_wakes_threads_that_receive(threads: ThreadPoolExecutor) -> None:
    with Pair() as (stream, peer):
        receiving = [threads.submit(stream.recv) for _ in range(3)]
        until(lambda: all(future.running() for future in receiving))
        closing = threads.submit(stream.close)
        assert peer.recv(1) == b""
        peer.close()
        closing.result(DEADLINE)
        for future in receiving:
            with pytest.raises(SessionClosed, match="LOCAL"):
                future.result(DEADLINE)


def test_a_session_may_be_used_from_any_thread(threads: ThreadPoolExecutor) -> None:
    handler = Recorder(echoes=False)
    with serve(echo) as server:
        host, port = server.address
        session = connect(host, port, handler)

        def send(id: int) -> None:
            for at in range(500):
                session.send(Packet(id, bytes(at)))

        for sending in [threads.submit(send, id) for id in range(8)]:
            sending.result(DEADLINE)
        until(lambda: len(handler.packets) == 4000)
        assert session.stats.packets_sent == session.stats.packets_received == 4000
        for id in range(8):
            assert [len(packet.payload) for packet in handler.packets if packet.id == id] == list(range(500))
        session.close()
        until(lambda: handler.ended == [CloseReason.LOCAL])


def test_handlers_wait_while_a_server_is_locked() -> None:
    handler = Recorder()
    with serve(handler) as server, connect(*server.address) as stream:
        with server.lock:
            stream.send(Packet(1))
            with pytest.raises(TimeoutError):
                stream.recv(0.02)
            assert handler.packets == []
        assert stream.recv(DEADLINE) == Packet(1)


def test_a_handler_that_would_wait_for_itself_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Impatient(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            server.close()

    with caplog.at_level(logging.ERROR), serve(Impatient()) as server, connect(*server.address) as stream:
        stream.send(Packet(1))
        with pytest.raises(SessionClosed):
            stream.recv(DEADLINE)
    assert "a handler must not block" in caplog.text


def test_a_function_may_close_its_own_server() -> None:
    def close(stream: Stream) -> None:
        stream.recv()
        server.close(grace=0.05)

    with serve(close) as server, connect(*server.address) as stream:
        stream.send(Packet(1))
        with pytest.raises(SessionClosed, match="PEER"):
            stream.recv(DEADLINE)


def test_a_server_that_was_never_started_closes() -> None:
    server = serve(echo)
    with socket.create_connection(server.address, DEADLINE) as waiting:
        server.close()
        server.close()
        with pytest.raises(ConnectionError):
            connect(*server.address)
        assert waiting.fileno() >= 0


def test_a_peer_whose_bytes_were_waiting_is_not_called_silent() -> None:
    with Pair(Config(idle_timeout=0.05)) as (stream, peer):
        peer.send(encode(Packet(1)))
        time.sleep(0.06)  # nobody serves a client's socket unless it waits
        assert stream.recv(DEADLINE) == Packet(1)


def test_a_server_short_of_descriptors_accepts_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = socket.socket.accept
    failures = iter([OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()])

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        for failure in failures:
            raise failure
        return accepted(self)

    monkeypatch.setattr(packetcore_sockets._listener, "ACCEPT_PAUSE", 0.02)
    monkeypatch.setattr(socket.socket, "accept", accept)
    with serve(echo) as server, connect(*server.address) as stream:
        stream.send(Packet(1))
        assert stream.recv(DEADLINE) == Packet(1)
    where = "accepting on {} port {}".format(*server.address)
    refusal = f"{where} failed, trying again: [Errno {errno.EMFILE}] Too many open files"
    assert [record.message for record in caplog.records] == [refusal, f"{where} again"]


def test_a_tls_close_reaches_a_peer_that_still_sends() -> None:
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server_side)
    authority.configure_trust(client_side)
    handler = Recorder()
    with serve(handler, ssl=server_side) as server:
        host, port = server.address
        for _ in range(20):
            stream = connect(host, port, ssl=client_side, server_hostname="localhost")
            stream.session.pause()  # what comes back waits, unread
            for at in range(50):
                stream.send(Packet(at, bytes(2000)))
            stream.close()
            assert stream.close_reason is CloseReason.LOCAL
        until(lambda: len(handler.ended) == 20)
    assert len(handler.packets) == 20 * 50
    assert handler.ended == [CloseReason.PEER] * 20


SERVE = """
import os, signal, sys, threading
from packetcore import Handler
from packetcore_blocking import serve

class Echo(Handler):
    def packet_received(self, session, packet):
        session.send(packet)

    def disconnected(self, session, reason):
        print(reason.name, flush=True)

server = serve(Echo())
if "handler" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: server.close(1.0))
print(*server.address, flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(len(server.sessions), threading.active_count(), len(os.listdir("/proc/self/fd")), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_server_leaves_nothing_open(number: signal.Signals) -> None:
    command = [sys.executable, "-W", "error", "-c", SERVE, *(["handler"] if number == signal.SIGTERM else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        with connect(host, int(port)) as stream:
            stream.send(Packet(1))
            assert stream.recv(DEADLINE) == Packet(1)
            process.send_signal(number)
            with pytest.raises(SessionClosed, match="PEER"):
                stream.recv(DEADLINE)
            stream.close()
            output = process.stdout.read().split()
            assert process.wait(DEADLINE) == 0
    interrupted = ["interrupted"] if number == signal.SIGINT else []
    standard_streams_and_the_listing_itself = 4
    assert output == ["SHUTDOWN", *interrupted, "0", "1", str(standard_streams_and_the_listing_itself)]


def test_a_signal_that_comes_as_the_lock_is_taken_may_close_the_server() -> None:
    handler = Recorder()
    server: Any
    with serve(handler) as server, connect(*server.address) as stream:
        stream.send(Packet(1))
        assert stream.recv(DEADLINE) == Packet(1)
        with server.runtime.mutex:  # as in the midst of `with loop:`, before that has counted
            ending = threading.Thread(target=stream.close)
            ending.start()
            server.close(DEADLINE)
        ending.join(DEADLINE)
    assert handler.ended[0] in (CloseReason.SHUTDOWN, CloseReason.PEER)


def test_a_call_holds_every_other_thread_off_until_it_waits() -> None:
    driver = BlockingDriver()
    try:
        handler = Recorder()
        server = driver.start_server(handler)
        stream = driver.connect(*server.address)

        def send_and_look() -> int:
            stream.send(Packet(1))
            time.sleep(0.02)
            return len(handler.packets)

        assert driver.call(send_and_look) == 0
        assert driver.call(stream.recv) == Packet(1)
        with pytest.raises(TimeoutError, match=r"not done after 0\.02 s"):
            driver.call(stream.recv, timeout=0.02)
        driver.call(stream.send, Packet(2))
        assert driver.call(stream.recv) == Packet(2)
    finally:
        driver.stop()
        driver.stop()
    assert handler.ended == [CloseReason.SHUTDOWN]
    with pytest.raises(RuntimeError, match="stopped"):
        driver.call(len, [])


def test_a_server_listens_on_every_address_of_a_name() -> None:
    addresses = {info[4] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    server: Server
    with serve(echo, "localhost") as server:
        for address in addresses:
            with connect(str(address[0]), server.address[1]) as stream:
                stream.send(Packet(1))
                assert stream.recv(DEADLINE) == Packet(1)


class Held:
    """A server whose function runs `body` on its stream, and a socket that talks to it."""

    def __init__(self, body: Callable[[Stream], object], config: Config | None = None) -> None:
        self.server = serve(body, config=config)
        self.server.start()
        self.peer = socket.create_connection(self.server.address, DEADLINE)
        self.peer.settimeout(DEADLINE)

    def __enter__(self) -> tuple[Server, socket.socket]:
        return self.server, self.peer

    def __exit__(self, *exception: object) -> None:
        self.peer.close()
        self.server.close(grace=0)


def test_what_a_function_sends_goes_although_it_does_something_else_and_more_is_to_come() -> None:
    is_seen = threading.Event()

    def first_only(stream: Stream) -> None:
        stream.send(stream.recv())
        assert is_seen.wait(DEADLINE)

    with Held(first_only) as (_, peer):
        peer.sendall(encode(Packet(1)) + encode(Packet(2)))
        assert peer.recv(100) == encode(Packet(1))
        is_seen.set()


def test_others_send_to_a_session_whose_function_sleeps_in_its_stream() -> None:
    with Held(echo) as (server, peer):
        until(lambda: len(server.sessions) == 1)
        for at in range(3):
            with server.lock:
                session = next(iter(server.sessions))
            session.send(Packet(at))
            assert peer.recv(100) == encode(Packet(at))


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_function_that_sleeps_in_its_stream_hears_that_another_thread_ends_it(end: str) -> None:
    ended: list[CloseReason | None] = []

    def receive(stream: Stream) -> None:
        with pytest.raises(SessionClosed):
            stream.recv()
        ended.append(stream.close_reason)

    with Held(receive) as (server, peer):
        until(lambda: len(server.sessions) == 1)
        with server.lock:
            session = next(iter(server.sessions))
        getattr(session, end)()
        with suppress(ConnectionError):
            assert peer.recv(100) == b""
        peer.close()
        until(lambda: ended == [CloseReason.LOCAL])


def test_a_function_and_other_threads_share_its_stream(threads: ThreadPoolExecutor) -> None:
    got: list[Packet | Message] = []
    begun = threading.Event()

    def receive(stream: Stream) -> None:
        others = [threads.submit(lambda: got.append(stream.recv(DEADLINE))) for _ in range(3)]
        begun.set()
        got.append(stream.recv(DEADLINE))
        for other in others:
            other.result(DEADLINE)
        stream.send(Packet(9))

    with Held(receive) as (_, peer):
        assert begun.wait(DEADLINE)
        for at in range(4):
            peer.sendall(encode(Packet(at)))
        assert peer.recv(100) == encode(Packet(9))
    assert {item.id for item in got} == set(range(4))


def test_a_function_that_receives_with_its_server_locked_holds_up_nobody() -> None:
    is_held = threading.Event()

    def receive(stream: Stream) -> None:
        assert is_held.wait(DEADLINE)
        with server.lock:
            stream.send(stream.recv())

    with Held(receive) as (server, peer), socket.create_connection(server.address, DEADLINE) as other:
        is_held.set()
        other.sendall(encode(Packet(1)))
        assert other.recv(100) == encode(Packet(1))
        peer.sendall(encode(Packet(2)))
        assert peer.recv(100) == encode(Packet(2))


def test_a_function_that_does_something_else_learns_meanwhile_what_came_and_that_its_peer_has_gone() -> None:
    seen: list[str] = []

    def busy(stream: Stream) -> None:
        for at in range(3):  # each reads by itself while it waits, and then leaves that to the server
            assert stream.recv() == Packet(at)
            stream.send(Packet(at))
            until(lambda: stream.has_received)
            seen.append("more")
        with pytest.raises(SessionClosed):
            stream.recv()
        seen.append("the end")

    with Held(busy) as (_, peer):
        for at in range(3):
            peer.sendall(encode(Packet(at)))
            assert peer.recv(100) == encode(Packet(at))
        peer.shutdown(socket.SHUT_WR)
        until(lambda: seen == ["more"] * 3 + ["the end"])


def test_a_message_is_sent_as_one_although_other_threads_send_too(threads: ThreadPoolExecutor) -> None:
    class Joined(Handler):
        got: ClassVar[list[int]] = []

        def message_received(self, session: Session, message: Message) -> None:
            self.got.append(len(message.payload))

        def malformed(self, session: Session, malformed: Malformed) -> None:
            self.got.append(-1)

    server = serve(Joined(), config=Config(join_messages=True))
    with server, connect(*server.address) as stream:
        sent = [threads.submit(stream.send_message, bytes(2_000), id=1, chunk=10) for _ in range(20)]
        sent += [threads.submit(stream.send, Packet(1, b"alone")) for _ in range(400)]
        for each in sent:
            each.result(DEADLINE)
        until(lambda: len(Joined.got) >= 420)
    assert sorted(Joined.got) == [5] * 400 + [2_000] * 20


class Ends(Recorder):
    """Wants the program to end when a packet comes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(echoes=False)
        self.error = error

    def packet_received(self, session: Session, packet: Packet) -> None:
        raise self.error


def ends(stream: Stream) -> None:
    stream.recv()
    raise SystemExit(7)


def leave_once_closed(server: Server) -> None:
    with server:
        until(lambda: sum(server.stats.closed.values()) == 1)


@pytest.mark.parametrize("application", [Ends(SystemExit(7)), Ends(KeyboardInterrupt()), ends])
@pytest.mark.parametrize("wait", [Server.serve_forever, leave_once_closed])
def test_what_ends_the_program_comes_out_where_it_waits_and_the_port_is_closed(
    application: Any, wait: Callable[[Server], None]
) -> None:
    server = serve(application)
    with socket.create_connection(server.address, DEADLINE) as peer:
        peer.sendall(encode(Packet(1)))
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            wait(server)
        assert peer.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, DEADLINE)
    assert server.stats.closed == {CloseReason.HANDLER_ERROR: 1}
    server.close()  # it says so once


def test_what_ends_the_program_comes_out_of_the_close_of_a_client_that_comes_back() -> None:
    class Greeting(Handler):
        def connected(self, session: Session) -> None:
            session.send(Packet(1))

    handler = Ends(SystemExit(7))
    with serve(Greeting()) as server:
        host, port = server.address
        client = connect(host, port, handler, reconnect=AT_ONCE)
        until(lambda: handler.ended != [])
        with pytest.raises(SystemExit):
            client.close()
        client.close()
        assert server.stats.opened == 1


def test_a_client_whose_handler_wants_the_program_to_end_has_no_session_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Leaving(Recorder):
        def connected(self, session: Session) -> None:
            raise SystemExit(7)

    handler = Leaving()
    with serve(echo) as server:
        host, port = server.address
        session = connect(host, port, handler)
        until(lambda: session.is_over)
    assert handler.ended == [CloseReason.HANDLER_ERROR]
    assert "raised SystemExit" in caplog.text


def test_call_soon_runs_on_the_thread_that_serves_in_order_whoever_calls_it(threads: ThreadPoolExecutor) -> None:
    ran: list[object] = []

    def run(at: int) -> None:
        ran.append((threading.current_thread().name, at))

    with serve(echo) as server:
        for calling in [threads.submit(server.call_soon, ran.append, None) for _ in range(50)]:
            calling.result(DEADLINE)
        for at in range(100):
            server.call_soon(run, at)
        until(lambda: len(ran) == 150)
    assert ran[50:] == [("packetcore-loop", at) for at in range(100)]


class Text:
    """A codec whose packets are words."""

    def encode(self, packet: str, /) -> bytes:
        return packet.encode()

    def decode(self, frame: bytes, /) -> str:
        return frame.decode()


@pytest.mark.parametrize("over", ["tcp", "unix", "udp"])
def test_a_codec_of_packets_is_spoken_over_every_carrier(over: str, tmp_path: Path) -> None:
    def shout(stream: Stream[str]) -> None:
        for text in stream:
            stream.send(text + "!")  # no bytes could be sent so

    class Hears(Handler[str]):
        def packet_received(self, session: Session[str], packet: str) -> None:
            heard.put(packet)

    heard: queue.Queue[str] = queue.Queue()
    spoken: dict[str, Any] = {"framing": SLIP(), "codec": Text()}
    register: SessionPool[Any] = SessionPool()
    path = str(tmp_path / "socket")
    if over == "unix":
        server, dial = serve_unix(shout, path, sessions=register, **spoken), partial(connect_unix, path)
    else:
        listen = serve if over == "tcp" else serve_udp
        server = listen(shout, "127.0.0.1", sessions=register, **spoken)
        dial = partial(connect if over == "tcp" else connect_udp, *server.address)
    with server:
        assert server.sessions is register
        with dial(**spoken) as stream:
            stream.send("one")
            assert stream.recv(timeout=DEADLINE) == "one!"
        if over != "udp":
            with dial(Hears(), reconnect=AT_ONCE, keep=1, **spoken) as client:
                client.send("two")
                assert heard.get(timeout=DEADLINE) == "two!"
        if over == "tcp":
            with ConnectionPool(*server.address, **spoken) as pool, pool.acquire() as stream:
                stream.send("three")
                assert stream.recv(timeout=DEADLINE) == "three!"


def test_a_request_of_a_session_in_hand_may_have_a_type_and_wait_for_its_id(threads: ThreadPoolExecutor) -> None:
    came, may_reply = threading.Event(), threading.Event()

    def late(stream: Stream) -> None:
        for packet in stream:
            came.set()
            assert may_reply.wait(DEADLINE)
            stream.send(Packet(packet.id, bytes([packet.type])))

    with serve(late, "127.0.0.1") as server, connect(*server.address) as stream:
        first = threads.submit(request, stream.session, Packet(7, type=1), timeout=DEADLINE)
        assert came.wait(DEADLINE)
        with pytest.raises(RequestPending):
            request(stream.session, Packet(7, type=2), timeout=DEADLINE)
        second = threads.submit(request, stream.session, Packet(7, type=3), wait=True, timeout=DEADLINE)
        may_reply.set()
        assert [first.result(DEADLINE).payload, second.result(DEADLINE).payload] == [b"\x01", b"\x03"]
        assert request(stream.session, b"?", type=9, timeout=DEADLINE).payload == b"\x09"


@pytest.mark.parametrize("broadcast", [False, True])
def test_a_udp_server_may_send_to_broadcast_addresses_where_that_was_asked_for(broadcast: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.bind(("127.0.0.1", 0))
        cases: list[dict[str, Any]] = [{}, {"socket": given}]
        for options in cases:
            with serve_udp(Handler(), broadcast=broadcast, **options) as server:
                endpoint: Any = server.endpoint
                sock = endpoint.host._sock
                assert bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)) is broadcast


def test_a_driver_s_thread_keeps_no_program_alive_and_can_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = BlockingDriver()
    try:
        assert driver._thread.daemon
        assert driver._thread.name == "BlockingDriver"
        assert callable(driver.request)
        assert {"tcp", "udp", "websocket", "pool"} <= driver.capabilities()
        monkeypatch.setattr(packetcore_sockets._driver, "find_spec", {"wsproto": None}.__getitem__)
        assert "websocket" not in driver.capabilities()
    finally:
        driver.stop()
