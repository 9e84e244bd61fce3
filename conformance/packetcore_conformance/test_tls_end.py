"""The end over TLS.

Both sides say when they have finished, and who does not is told apart.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from packetcore import CloseReason, Config, Driver, Packet, Refusal, ServerBase, Session, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.tls_peer import TLSPeer

PING = encode(Packet(1, b"ping"))
WHOLE = Packet(2, bytes(1_000_000))

Connect = Callable[..., TLSPeer]


@pytest.fixture(autouse=True)
def needs_tls(driver: Driver) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")


@pytest.fixture
def connect(certificates: Certificates) -> Iterator[Connect]:
    """Gives a raw peer of a server."""
    with ExitStack() as peers:

        def connect(server: ServerBase, receive_buffer: int | None = None) -> TLSPeer:
            sock = peers.enter_context(socket.socket())
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.connect(server.address)
            return TLSPeer(sock, certificates.raw_context(), SERVER_NAME)

        yield connect


def test_a_peer_that_sends_on_while_it_is_closed_gets_every_byte_and_a_clean_end(
    rig: Rig, certificates: Certificates, connect: Connect
) -> None:
    def reply_and_close(session: Session, packet: Packet) -> None:
        session.send(WHOLE)
        session.close()

    handler = Recorder(packet_received=reply_and_close)
    peer = connect(rig.serve(handler, tls=certificates.server))
    peer.send(PING)
    frame = encode(WHOLE)
    begun = peer.receive(300_000)
    peer.send(encode(Packet(1, bytes(50_000))))
    assert begun + peer.receive_rest() == frame, "a session that closed lost what its peer had not read"
    peer.close()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_a_server_says_that_it_has_finished(rig: Rig, certificates: Certificates, connect: Connect) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.close())
    peer = connect(rig.serve(handler, tls=certificates.server))
    peer.send(PING)
    assert peer.receive_rest() == b""
    peer.finish()
    peer.cut()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_a_server_that_closes_says_that_it_has_finished(rig: Rig, certificates: Certificates, connect: Connect) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    peer = connect(server)
    handler.wait("connected")
    closing = rig.in_background(server.close, 5.0)
    assert peer.receive_rest() == b""
    peer.finish()
    peer.cut()
    closing()
    assert handler.wait_reasons() == [CloseReason.SHUTDOWN]


def test_a_server_whose_peer_has_finished_says_the_same(rig: Rig, certificates: Certificates, connect: Connect) -> None:
    handler = echo()
    peer = connect(rig.serve(handler, tls=certificates.server))
    peer.send(PING)
    peer.finish()
    assert peer.receive_rest() == PING
    assert handler.wait_reasons() == [CloseReason.PEER], "a close_notify is a clean end, before that of TCP too"


def test_a_peer_that_has_finished_is_still_answered_at_length(
    rig: Rig, certificates: Certificates, connect: Connect
) -> None:
    def reply_at_length(session: Session) -> None:
        for _ in range(5):
            session.send(WHOLE)
        session.close()

    handler = Recorder(eof_received=reply_at_length)
    peer = connect(rig.serve(handler, tls=certificates.server), receive_buffer=4096)
    peer.finish()
    peer.cut()
    assert peer.receive_rest() == encode(WHOLE) * 5
    assert handler.wait_reasons() == [CloseReason.PEER]


def test_a_reply_may_come_long_after_the_peer_has_finished(
    rig: Rig, certificates: Certificates, connect: Connect
) -> None:
    handler = Recorder(eof_received=lambda session: None)
    server = rig.serve(handler, tls=certificates.server)
    peer = connect(server)
    peer.finish()
    handler.wait("eof_received")
    (session,) = rig.sessions(server, 1)
    rig.call(session.send, Packet(1, b"ping"))
    assert peer.receive(len(PING)) == PING
    rig.call(session.close)
    assert peer.receive_rest() == b""
    assert handler.wait_reasons() == [CloseReason.PEER]


@pytest.mark.parametrize("whole", [True, False], ids=["between frames", "in a frame"])
def test_a_stream_that_was_cut_is_told_as_a_loss(
    rig: Rig, certificates: Certificates, connect: Connect, whole: bool
) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    peer = connect(server)
    peer.send(PING if whole else PING + PING[:5])
    handler.wait("packet_received")
    peer.cut()
    assert handler.wait_reasons() == [CloseReason.RESET], "a stream without close_notify was told as a clean end"
    assert not handler.calls("eof_received")
    rig.until_empty(server)


def test_what_came_before_a_record_that_is_garbage_may_be_replied_to_and_then_that_session_alone_ends(
    rig: Rig, certificates: Certificates, connect: Connect
) -> None:
    handler = echo()
    server = rig.serve(handler, tls=certificates.server)
    sound, peer = connect(server), connect(server)
    peer.send_before_garbage(PING)
    assert handler.wait_reasons() == [CloseReason.RESET]
    assert handler.values("packet_received") == [Packet(1, b"ping")]
    sound.send(PING)
    assert sound.receive(len(PING)) == PING, "one peer's garbage harmed another session"


def test_a_cut_after_this_side_has_closed_changes_nothing(
    rig: Rig, certificates: Certificates, connect: Connect
) -> None:
    handler = Recorder(packet_received=lambda session, packet: session.close())
    peer = connect(rig.serve(handler, tls=certificates.server))
    peer.send(PING)
    assert peer.receive_rest() == b""
    peer.cut()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_client_says_that_it_has_finished(rig: Rig, certificates: Certificates, first: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> bytes:
            sock, _ = listener.accept()
            with sock:
                peer = TLSPeer(sock, certificates.server.context(server_side=True))
                assert peer.receive(len(PING)) == PING
                if first == "server":
                    peer.finish()
                received = peer.receive_rest()
                peer.finish()
                peer.cut()
                return received

        serving = rig.in_thread(serve)
        handler = Recorder()
        host, port = listener.getsockname()
        session = rig.driver.connect(host, port, handler, tls=certificates.client)
        rig.call(session.send, Packet(1, b"ping"))
        if first == "client":
            rig.call(session.close)
        assert serving() == b""
        assert handler.wait_reasons() == [CloseReason.LOCAL if first == "client" else CloseReason.PEER]


def test_a_client_hears_that_its_server_was_cut_off(rig: Rig, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                peer = TLSPeer(sock, certificates.server.context(server_side=True))
                peer.receive(len(PING))
                peer.cut()
                peer.sock.recv(1)

        serving = rig.in_thread(serve)
        handler = Recorder()
        host, port = listener.getsockname()
        session = rig.driver.connect(host, port, handler, tls=certificates.client)
        rig.call(session.send, Packet(1, b"ping"))
        assert handler.wait_reasons() == [CloseReason.RESET]
        with suppress(ConnectionError):  # the client leaves with a reset: nobody is there to flush for
            serving()


def test_over_tls_every_byte_sent_is_told_once(rig: Rig, certificates: Certificates, connect: Connect) -> None:
    handler = echo()
    server = rig.serve(handler, tls=certificates.server)
    peer = connect(server)
    for _ in range(20):
        peer.send(PING * 50)
        assert peer.receive(50 * len(PING)) == PING * 50
    (session,) = rig.sessions(server, 1)
    rig.until(lambda: session.outstanding == 0, "the system has taken everything")
    assert sum(count for count in handler.values("sent") if isinstance(count, int)) == 1000 * len(PING)


def test_a_backlog_over_tls_drains(rig: Rig, certificates: Certificates, connect: Connect) -> None:
    def flood(session: Session) -> None:
        for _ in range(5):
            session.send(WHOLE)

    handler = Recorder(connected=flood)
    server = rig.serve(handler, Config(max_outstanding=None), tls=certificates.server)
    peer = connect(server, receive_buffer=4096)
    (session,) = rig.sessions(server, 1)
    rig.until(lambda: session.write_paused, "the session is above high water")
    assert peer.receive(5 * len(encode(WHOLE))) == encode(WHOLE) * 5
    handler.wait("writable")
    rig.until(lambda: session.outstanding == 0, "the backlog is gone")


def test_a_peer_over_tls_that_lets_too_much_pile_up_is_reset(
    rig: Rig, certificates: Certificates, connect: Connect
) -> None:
    def flood(session: Session, packet: Packet) -> None:
        for _ in range(100):
            session.send(WHOLE)

    handler = Recorder(packet_received=flood)
    server = rig.serve(handler, Config(max_outstanding=2_000_000), tls=certificates.server)
    peer = connect(server, receive_buffer=4096)
    peer.send(PING)
    assert handler.wait_reasons() == [CloseReason.SLOW_CONSUMER]
    with pytest.raises(ConnectionError):
        peer.receive_rest()
    rig.until_empty(server)


@pytest.mark.parametrize("how", ["plain talk", "silence", "leaves"])
def test_a_handshake_that_fails_is_counted(rig: Rig, certificates: Certificates, how: str) -> None:
    server = rig.serve(Recorder(), Config(connect_timeout=0.3), tls=certificates.server)
    peer = rig.peer(server)
    if how == "plain talk":
        peer.send(PING)
    elif how == "leaves":
        peer.finish()
    rig.until(lambda: server.stats.refusals[Refusal.TLS_FAILED] == 1, "the handshake that failed was counted")
    assert server.stats.refused == 1
    assert server.stats.opened == 0
    peer.wait_closed()


class Halting(socket.socket):
    """A client's socket on which something happens in the midst of the TLS handshake: when the server has
    answered, and before it is told that this side has finished."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile: list[Callable[[], object]] = [lambda: None, meanwhile]

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self._meanwhile:
            self._meanwhile.pop(0)()
        super().sendall(data, flags)


def test_a_handshake_that_is_under_way_when_the_server_closes_comes_to_a_session(
    rig: Rig, certificates: Certificates
) -> None:
    def say_goodbye(session: Session) -> None:
        session.send(WHOLE)
        session.close()

    handler = Recorder(draining=say_goodbye)
    server = rig.serve(handler, tls=certificates.server)
    closing: list[Callable[[], object]] = []

    def close_server() -> None:
        closing.append(rig.in_background(server.close, DEADLINE))
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            try:
                Peer.connect(server.address).close()
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # it had not been accepted
                pass
        raise AssertionError("a server that closes listens on")

    with Halting(close_server) as sock:
        sock.connect(server.address)
        peer = TLSPeer(sock, certificates.raw_context(), SERVER_NAME)
        assert peer.receive_rest() == encode(WHOLE)
        peer.finish()
        peer.cut()
        closing[0]()
    assert handler.wait_reasons() == [CloseReason.SHUTDOWN]
    assert len(handler.calls("draining")) == 1


def test_no_handshake_outlasts_the_grace_of_a_server_that_closes(rig: Rig, certificates: Certificates) -> None:
    server = rig.serve(Recorder(), Config(connect_timeout=None), tls=certificates.server)
    peer = rig.peer(server)
    rig.call(server.close, 0.1)
    peer.wait_closed()
    assert server.stats.opened == 0
