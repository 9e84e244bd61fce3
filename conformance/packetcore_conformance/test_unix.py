"""Unix sockets.

A path in place of host and port; all else is as over TCP.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcore import Backoff, CloseReason, Config, Packet, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

pytestmark = pytest.mark.usefixtures("needs_unix")

PING = Packet(1, b"ping")
SELDOM = Config(connect_timeout=0.3)


@pytest.fixture
def path() -> Iterator[str]:
    """Where no socket is yet: systems take about 100 bytes, which pytest's own folders exceed."""
    with tempfile.TemporaryDirectory(prefix="packetcore") as folder:
        yield os.path.join(folder, "socket")


def echo(session: Any, packet: Packet) -> None:
    session.send(packet)


def inode(path: str) -> int:
    return os.stat(path).st_ino


def test_packets_come_and_go_and_either_side_may_finish_first(rig: Rig, path: str) -> None:
    handler = Recorder(packet_received=echo)
    server = rig.serve_unix(path, handler)
    frame = encode(PING)
    peer = rig.unix_peer(path)
    for at in range(len(frame)):
        peer.send(frame[at : at + 1])
    assert peer.receive(len(frame)) == frame
    peer.send(frame * 1_000)
    peer.finish()
    assert peer.receive_rest() == frame * 1_000
    assert handler.wait_reasons() == [CloseReason.PEER]
    other = rig.unix_peer(path)
    other.send(frame)
    assert other.receive(len(frame)) == frame
    (session,) = rig.sessions(server, 1)
    rig.call(session.close)
    assert other.receive_rest() == b""


def test_streams_and_requests_of_a_client(rig: Rig, path: str) -> None:
    rig.serve_unix(path)
    stream = rig.connect_unix(path)
    for _ in range(3):
        rig.call(lambda: stream.send(PING))
        assert rig.call(lambda: stream.recv()) == PING
    assert rig.call(lambda: stream.request(b"payload", timeout=DEADLINE)).payload == b"payload"


def test_megabytes_go_through_while_the_peer_is_slow(rig: Rig, path: str) -> None:
    handler = Recorder(packet_received=echo)
    server = rig.serve_unix(path, handler, Config(write_high_water=1 << 16, write_low_water=1 << 15))
    peer = rig.unix_peer(path)
    frame = encode(Packet(1, bytes(1 << 19)))
    sent = rig.in_thread(peer.send, frame * 8)
    (session,) = rig.sessions(server, 1)
    rig.until(lambda: session.stats.bytes_received > 1 << 19, "more than one frame was received")
    assert peer.receive(len(frame) * 8) == frame * 8
    sent()


def test_a_session_knows_its_path_and_whose_process_the_peer_is(rig: Rig, path: str) -> None:
    handler, client = Recorder(), Recorder()
    server = rig.serve_unix(path, handler)
    session = rig.connect_unix(path, client)
    (theirs,) = rig.sessions(server, 1)
    assert server.addresses == [(path,)]
    assert (session.peer, theirs.peer) == ((path,), ("",))
    for each in (session, theirs):
        carrier = rig.call(lambda each=each: each.carrier)
        assert (carrier.kind, carrier.family) == ("unix", int(socket.AF_UNIX))
        if sys.platform == "linux":
            assert (carrier.credentials.pid, carrier.credentials.uid) == (os.getpid(), os.getuid())
    assert rig.call(lambda: theirs.carrier.local) == (path,)


def test_peers_without_a_path_are_not_one_host(rig: Rig, path: str) -> None:
    handler = Recorder(packet_received=echo)
    rig.serve_unix(path, handler, Config(max_sessions_per_host=1))
    for peer in [rig.unix_peer(path) for _ in range(3)]:
        peer.send(encode(PING))
        assert peer.receive(len(encode(PING))) == encode(PING)


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_file_has_the_permissions_asked_for(rig: Rig, path: str, mode: int) -> None:
    rig.serve_unix(path, mode=mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_the_file_goes_with_the_server_unless_it_is_another_s(rig: Rig, path: str) -> None:
    server = rig.serve_unix(path)
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    rig.call(server.close)
    assert not os.path.exists(path)
    server = rig.serve_unix(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(path)
        rig.call(server.close)
        assert os.path.exists(path)


def test_a_stale_socket_is_replaced_and_nothing_else(rig: Rig, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    rig.serve_unix(path)
    after = inode(path)
    rig.unix_peer(path)
    with pytest.raises(OSError, match="listens there") as refused:
        rig.serve_unix(path)
    assert refused.value.errno == errno.EADDRINUSE
    assert inode(path) == after


def test_what_cannot_be_listened_on_is_left_alone(rig: Rig, path: str) -> None:
    Path(path).write_text("a letter")
    with pytest.raises(FileExistsError, match="no socket"):
        rig.serve_unix(path)
    assert Path(path).read_text() == "a letter"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        rig.serve_unix(os.path.join(path + "-nowhere", "socket"))
    with pytest.raises(OSError, match="too long"):
        rig.serve_unix(path + "x" * 200)
    with pytest.raises(ValueError, match="names no socket"):
        rig.serve_unix("")


def test_a_server_that_cannot_be_leaves_no_file(rig: Rig, path: str) -> None:
    with pytest.raises(TypeError, match="no Packet"):
        rig.serve_unix(path, config=Config(keepalive_packet=b"beat"))
    assert not os.path.exists(path)
    with pytest.raises((OverflowError, TypeError)):
        rig.serve_unix(path, mode=1 << 70)
    assert not os.path.exists(path)


def test_a_client_says_where_nobody_listens(rig: Rig, path: str) -> None:
    with pytest.raises(FileNotFoundError, match="socket"):
        rig.connect_unix(path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    with pytest.raises(ConnectionRefusedError, match="socket"):
        rig.connect_unix(path)


def test_a_client_waits_for_a_server_that_is_behind(rig: Rig, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        waiting = []
        try:
            while True:
                sock = socket.socket(socket.AF_UNIX)
                waiting.append(sock)
                sock.setblocking(False)
                try:
                    sock.connect(path)
                except BlockingIOError:
                    break
            with pytest.raises(TimeoutError, match=r"connect_timeout=0\.3"):
                rig.connect_unix(path, config=SELDOM)
            with pytest.raises(OSError, match="listens there"):
                rig.serve_unix(path)
            connected = rig.in_thread(rig.connect_unix, path, Recorder())
            server.settimeout(DEADLINE)
            server.accept()[0].close()
            assert connected().peer == (path,)
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.usefixtures("needs_reconnect")
def test_a_client_comes_back_when_the_server_does(rig: Rig, path: str) -> None:
    handler = Recorder()
    client = rig.connect_unix(path, Recorder(), reconnect=Backoff(initial=0.01, maximum=0.05), keep=1)
    rig.call(client.send, PING)
    server = rig.serve_unix(path, handler)
    assert handler.wait("packet_received") == [PING]
    rig.call(server.close)
    again = Recorder()
    rig.serve_unix(path, again)
    again.wait("connected")


def test_tls_over_it(rig: Rig, path: str, certificates: Certificates) -> None:
    rig.serve_unix(path, ssl=certificates.server.context(server_side=True))
    context = certificates.client.context(server_side=False)
    stream = rig.connect_unix(path, ssl=context, server_hostname=SERVER_NAME)
    rig.call(lambda: stream.send(PING))
    assert rig.call(lambda: stream.recv()) == PING
    assert rig.call(lambda: stream.session.carrier.tls.version).startswith("TLS")
    with pytest.raises(OSError, match=r"(?i)certificate|hostname"):
        rig.connect_unix(path, ssl=context, server_hostname="elsewhere")
    with pytest.raises(ValueError, match="server_hostname"):
        rig.connect_unix(path, ssl=context)
    context.check_hostname = False
    nameless = rig.connect_unix(path, ssl=context)
    rig.call(lambda: nameless.send(PING))
    assert rig.call(lambda: nameless.recv()) == PING


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has names without files")
def test_the_abstract_namespace_has_no_files(rig: Rig, path: str) -> None:
    name = "\0" + path
    rig.serve_unix(name)
    stream = rig.connect_unix(name)
    rig.call(lambda: stream.send(PING))
    assert rig.call(lambda: stream.recv()) == PING
    assert not os.path.exists(path)
