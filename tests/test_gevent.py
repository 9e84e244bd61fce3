"""packetcore_gevent: what only gevent has. The conformance suite holds the rest."""

from __future__ import annotations

import gc
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import gevent
import gevent.socket
import gevent.ssl
import pytest
import trustme

from packetcore import Backoff, CloseReason, Config, Handler, Packet, Session, encode
from packetcore_gevent import ConnectionPool, GeventDriver, Server, Stream, connect, serve
from packetcore_sockets import Connecting, Listener

DEADLINE = 10.0


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    with gevent.Timeout(DEADLINE):
        yield
    gc.collect()  # what was left open warns here, and a warning is an error


def until(condition: Callable[[], bool]) -> None:
    """Let the hub run until it has brought something about."""
    while not condition():
        gevent.sleep(0.002)


def echo(stream: Stream) -> None:
    for item in stream:
        assert isinstance(item, Packet)
        stream.send(item)


def raw(server: Server) -> socket.socket:
    return gevent.socket.create_connection(server.address[:2])


def test_a_handler_that_waits_ends_its_own_session_only() -> None:
    class Waiting(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            if packet.id == 13:
                gevent.sleep(0)
            session.send(packet)

    with serve(Waiting()) as server, connect(*server.address) as other, connect(*server.address) as stream:
        stream.send(Packet(13))
        assert list(stream) == []
        other.send(Packet(1))
        assert other.recv() == Packet(1)
        assert server.stats.closed == {CloseReason.HANDLER_ERROR: 1}


def test_a_wait_that_is_ended_loses_no_packet() -> None:
    with serve(echo) as server, connect(*server.address) as stream:
        for at in range(20):
            with pytest.raises(TimeoutError, match=r"within timeout=0\.001 s"):
                stream.recv(timeout=0.001)
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
                stream.recv()
            receiving = gevent.spawn(stream.recv)
            gevent.sleep(0)
            stream.send(Packet(at))
            receiving.kill()
            assert stream.recv() == Packet(at)


def test_greenlets_share_a_stream() -> None:
    with serve(echo) as server, connect(*server.address) as stream:
        receivers = [gevent.spawn(stream.recv) for _ in range(20)]
        for at in range(20):
            gevent.spawn(stream.send, Packet(at, bytes(10_000)))
        gevent.joinall(receivers)
        assert sorted(receiver.get().id for receiver in receivers) == list(range(20))


@pytest.mark.parametrize("kind", [ssl.SSLContext, gevent.ssl.SSLContext], ids=["stdlib", "gevent"])
def test_contexts_of_both_kinds_serve(kind: type[ssl.SSLContext]) -> None:
    authority = trustme.CA()
    serving, other = kind(ssl.PROTOCOL_TLS_SERVER), kind(ssl.PROTOCOL_TLS_SERVER)
    connecting = kind(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("one.example").configure_cert(serving)
    authority.issue_cert("two.example").configure_cert(other)
    authority.configure_trust(connecting)
    serving.sni_callback = lambda sock, name, context: setattr(sock, "context", other)
    packet = Packet(1, bytes(range(256)) * 4000)
    with serve(echo, ssl=serving) as server:
        with connect(*server.address, ssl=connecting, server_hostname="two.example") as stream:
            stream.send(packet)
            assert stream.recv() == packet
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(*server.address, ssl=connecting)


def test_connect_timeout_covers_the_name_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *args, **options: gevent.sleep(DEADLINE))
    with pytest.raises(TimeoutError, match=r"slow\.example port 7 .* connect_timeout=0\.01 s"):
        connect("slow.example", 7, config=Config(connect_timeout=0.01))


def test_a_greenlet_killed_in_a_handshake_leaves_nothing_open() -> None:
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connecting = gevent.spawn(lambda: connect(*listener.getsockname(), ssl=ssl.create_default_context()))
        with listener.accept()[0] as peer:
            assert peer.recv(1) == b"\x16"  # a handshake record
            connecting.kill()
            while peer.recv(10_000):
                pass


def test_a_silent_tls_client_does_not_hold_up_a_close() -> None:
    server = serve(echo, ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with raw(server) as silent:
        gevent.sleep(0.01)
        server.close(grace=2 * DEADLINE)
        assert silent.recv(1) == b""
    assert server.stats.opened == 0


def test_a_timeout_that_leaves_a_function_is_its_error(caplog: pytest.LogCaptureFixture) -> None:
    def impatient(stream: Stream) -> None:
        with gevent.Timeout(0.001):
            stream.recv()

    with serve(impatient) as server, raw(server) as peer:
        assert peer.recv(1) == b""
        assert server.stats.closed == {CloseReason.HANDLER_ERROR: 1}
    assert [record.name for record in caplog.records] == ["packetcore"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors to set")
def test_a_server_out_of_descriptors_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    monkeypatch.setattr("packetcore_sockets._listener.ACCEPT_PAUSE", 0.01)
    tries: list[bool] = []
    accept = Listener._readable

    def try_to_accept(listener: Listener) -> None:
        accept(listener)
        tries.append(not listener._is_failing)

    monkeypatch.setattr(Listener, "_readable", try_to_accept)
    caplog.set_level(logging.WARNING)
    with serve(echo) as server, gevent.socket.socket() as peer:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(lowest := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        try:
            peer.connect(server.address)
            until(lambda: len(tries) == 5)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        peer.sendall(encode(Packet(1)))
        assert peer.recv(100) == encode(Packet(1))
    assert tries == [False] * 5 + [True]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_server_may_be_closed_while_it_waits_to_accept_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetcore_sockets._listener.ACCEPT_PAUSE", 0.01)
    tries: list[None] = []

    def fail_to_accept(listener: Listener) -> None:
        tries.append(None)
        listener._fail(OSError("no descriptors"))

    monkeypatch.setattr(Listener, "_readable", fail_to_accept)
    server = serve(echo)
    with raw(server):
        until(lambda: len(tries) == 1)
        server.close()
        gevent.sleep(0.03)
        assert len(tries) == 1


def test_the_late_reply_to_a_request_that_was_ended_is_dropped() -> None:
    with serve(Handler()) as server, connect(*server.address) as stream:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
            stream.request(Packet(1))
        asking = gevent.spawn(stream.request, Packet(2))
        gevent.sleep(0)
        asking.kill()
        until(lambda: len(server.sessions) == 1)
        session = next(iter(server.sessions))
        for id in (1, 2, 3):
            session.send(Packet(id))
        assert stream.recv() == Packet(3)
        assert stream.session.stats.late_replies == 2


def test_greenlets_killed_while_they_wait_for_a_pool_leave_their_places() -> None:
    with serve(echo) as server, ConnectionPool(*server.address, max_size=1) as pool:

        def use() -> None:
            with pool.acquire() as stream:
                assert stream.request(Packet(2)) == Packet(2)

        with pool.acquire():
            waiting = [gevent.spawn(use) for _ in range(4)]
            gevent.sleep(0)
            waiting[0].kill()
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
                use()
            with pytest.raises(TimeoutError, match=r"timeout=0\.001 s"), pool.acquire(timeout=0.001):
                pass
            assert pool.waiting == 3
            waiting[1].kill(block=False)  # it is handed the connection before it hears of that
        gevent.joinall(waiting[2:], raise_error=True)
        assert (pool.size, pool.idle, pool.waiting, pool.stats.opened) == (1, 1, 0, 1)


def test_a_pool_closes_what_was_idle_for_too_long() -> None:
    with serve(echo) as server, ConnectionPool(*server.address, max_idle=0.01) as pool:
        with pool.acquire() as stream:
            session = stream.session
        until(lambda: session.is_over)
        assert (pool.size, pool.stats.expired) == (0, 1)


def test_a_client_that_is_closed_while_it_connects_leaves_nothing_open() -> None:
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        context = ssl.create_default_context()
        host, port = listener.getsockname()
        client = connect(host, port, Handler(), reconnect=Backoff(), ssl=context)
        with listener.accept()[0] as peer:
            assert peer.recv(1) == b"\x16"  # a handshake record
            client.close()
            while peer.recv(10_000):
                pass


def test_a_client_that_is_closed_just_when_it_has_connected_opens_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    closing: list[gevent.Greenlet[..., None]] = []
    writable = Connecting._writable

    def close_first(attempt: Connecting) -> None:
        if not closing:
            closing.append(gevent.spawn(client.close))
            gevent.get_hub().loop.run_callback(writable, attempt)

    monkeypatch.setattr(Connecting, "_writable", close_first)
    with serve(Handler()) as server:
        host, port = server.address
        client = connect(host, port, Handler(), reconnect=Backoff())
        until(lambda: sum(server.stats.closed.values()) == 1)
        gevent.joinall(closing, raise_error=True)
        assert client.session is None
        assert (len(closing), client.stats.opened) == (1, 0)


def test_a_function_of_a_client_may_close_it_and_those_that_tarry_are_killed() -> None:
    ended: list[str] = []

    def tarry(stream: Stream) -> None:
        try:
            if server.stats.opened == 1:
                stream.session.abort()
            else:
                client.close()
                ended.append("closed")
            gevent.sleep(DEADLINE)
        except gevent.GreenletExit:
            ended.append("killed")
            raise

    with serve(Handler()) as server:
        host, port = server.address
        client = connect(host, port, tarry, reconnect=Backoff(initial=0.001), config=Config(close_timeout=0.05))
        until(lambda: len(ended) == 2)
        assert ended == ["killed", "closed"]
        client.close()
        assert ended == ["killed", "closed", "killed"]


def test_serve_forever_ends_when_the_server_is_closed() -> None:
    server = serve(echo)
    serving = gevent.spawn(server.serve_forever)
    gevent.sleep(0)
    server.close()
    serving.get()


def test_drivers_leave_no_thread_and_no_descriptor() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    before = threading.active_count(), descriptors()
    for _ in range(2):
        drivers = [GeventDriver(), GeventDriver()]
        for driver in drivers:
            stream = driver.connect(*driver.start_server().address)
            driver.call(stream.send, Packet(1))
            assert driver.call(stream.recv) == Packet(1)
            with pytest.raises(TimeoutError, match=r"0\.01 s"):
                driver.call(gevent.sleep, DEADLINE, timeout=0.01)
        for driver in drivers:
            driver.stop()
            driver.stop()
        del driver, drivers, stream
        gc.collect()
        assert (threading.active_count(), descriptors()) == before


EXIT = """
import sys
import gevent
import gevent.socket
from packetcore import Handler, Packet, encode
from packetcore_gevent import connect, serve
class Ends(Handler):
    def packet_received(self, session, packet):
        sys.exit(7)
def end(stream):
    stream.recv()
    sys.exit(7)
server = serve(end if "function" in sys.argv else Ends())
peer = gevent.socket.create_connection(server.address)
peer.sendall(encode(Packet(1)))
try:
    if "forever" in sys.argv:
        server.serve_forever()
    else:
        gevent.sleep(60)
except SystemExit as error:
    print(error.code, [reason.name for reason in server.stats.closed], flush=True)
    try:
        gevent.socket.create_connection(server.address)
    except ConnectionRefusedError:
        print("refused", flush=True)
    peer.close()
    raise
"""


@pytest.mark.parametrize("kind", ["handler", "function"])
@pytest.mark.parametrize("wait", ["forever", "sleep"])
def test_system_exit_comes_out_of_serve_forever_or_of_the_main_greenlet(kind: str, wait: str) -> None:
    command = [sys.executable, "-W", "error", "-c", EXIT, kind, wait]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (7, "7 ['HANDLER_ERROR']\nrefused\n", "")


SCRIPT = """
import sys
if "patched" in sys.argv:
    from gevent import monkey
    monkey.patch_all()
import socket, struct
import gevent
from packetcore import Config, Handler, Packet, encode
from packetcore_gevent import connect, serve
class Echo(Handler):
    def packet_received(self, session, packet):
        if packet.payload:
            session.send(packet)
with serve(Echo(), None, config=Config(idle_timeout=0.5)) as server:
    port = server.address[1]
    with connect("localhost", port) as stream:
        stream.send(Packet(1, bytes(1000000)))
        assert len(stream.recv(10).payload) == 1000000
    with connect("127.0.0.1", port) as stream:
        assert [*stream] == []
    peer = socket.create_connection(("127.0.0.1", port))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sendall(encode(Packet(2)))
    peer.close()
    while sum(server.stats.closed.values()) < 3:
        gevent.sleep(0.01)
    print([reason.name for reason in server.stats.closed])
"""


@pytest.mark.parametrize("loop", ["libev-cext", "libev-cffi", "libuv"])
@pytest.mark.parametrize("patched", ["patched", "plain"])
def test_it_runs_on_every_loop_and_in_a_patched_program(loop: str, patched: str) -> None:
    environment = {**os.environ, "GEVENT_LOOP": loop}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, patched],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (run.stdout, run.stderr) == ("['PEER', 'IDLE_TIMEOUT', 'RESET']\n", "")


def test_a_server_listens_on_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with serve(echo, "::1") as server, raw(server) as peer:
        peer.sendall(encode(Packet(6)))
        assert peer.recv(100) == encode(Packet(6))
        assert next(iter(server.sessions)).peer[0] == "::1"
