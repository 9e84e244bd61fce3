"""TLS.

Certificates checked on both sides, and plain talk where none belongs.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

import pytest

from packetcore import TLS, CloseReason, Config, Driver, Packet, SessionClosed, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import Peer
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.vectors import PACKETS, STREAM

PING = encode(Packet(1, b"ping"))


@pytest.fixture(autouse=True)
def needs_tls(driver: Driver) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")


@pytest.mark.parametrize("client", ["client", "address_client", "known_client"])
def test_the_golden_frames_cross_tls(rig: Rig, certificates: Certificates, client: str) -> None:
    server = rig.serve(echo(), tls=certificates.strict_server if client == "known_client" else certificates.server)
    handler = Recorder()
    session = rig.connect(server, handler, tls=getattr(certificates, client))
    for packet in PACKETS:
        rig.call(session.send, packet)
    assert handler.wait("packet_received", len(PACKETS)) == PACKETS
    rig.call(session.close)
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    rig.until_empty(server)


def test_a_stream_crosses_tls(rig: Rig, certificates: Certificates) -> None:
    stream = rig.stream(rig.serve(tls=certificates.server), tls=certificates.client)
    packet = Packet(1, b"\xfe\xfd" * 400_000)
    rig.call(stream.send, packet)
    assert rig.call(stream.recv) == packet
    rig.call(stream.close)
    assert stream.close_reason is CloseReason.LOCAL


def test_a_raw_tls_peer_is_answered_and_its_end_noticed(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    server = rig.serve(handler, tls=certificates.server)
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    peer.send(STREAM)
    assert peer.receive(len(STREAM)) == STREAM
    peer.close()
    handler.wait("disconnected")
    rig.until_empty(server)


def test_a_large_reply_is_flushed_before_a_tls_close(rig: Rig, certificates: Certificates) -> None:
    def reply_and_close(session: object, packet: Packet) -> None:
        handler.sessions[0].send(Packet(1, bytes(1_000_000)))
        handler.sessions[0].close()

    handler = Recorder(packet_received=reply_and_close)
    server = rig.serve(handler, Config(close_timeout=60), tls=certificates.server)
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    peer.send(PING)
    frame = encode(Packet(1, bytes(1_000_000)))
    assert peer.receive(len(frame)) == frame
    peer.wait_closed()
    peer.close()
    assert handler.wait_reasons() == [CloseReason.LOCAL]


@pytest.mark.parametrize("client", ["distrustful_client", "misled_client"])
def test_a_client_refuses_a_server_that_it_does_not_trust(rig: Rig, certificates: Certificates, client: str) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    with pytest.raises(OSError, match=r"(?i)certificate|hostname|verif"):
        rig.connect(server, Recorder(), tls=getattr(certificates, client))
    rig.until_empty(server)
    works = rig.stream(server, tls=certificates.client)
    rig.call(works.close)


def test_a_server_refuses_a_client_without_a_certificate(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.strict_server)
    client = Recorder()
    try:
        rig.connect(server, client, tls=certificates.client)
    except OSError:
        pass  # TLS 1.2 and a quick peer say so while connecting; TLS 1.3 lets the client begin
    else:
        client.wait_reasons()
    rig.until_empty(server)
    assert not handler.calls("packet_received")


def test_application_protocols_are_agreed_on(rig: Rig, certificates: Certificates) -> None:
    server = rig.serve(echo(), tls=certificates.alpn_server)
    context = certificates.raw_context(alpn=("packets/1", "something-else"))
    peer = rig.peer(server, tls=context, server_hostname=SERVER_NAME)
    assert isinstance(peer.sock, ssl.SSLSocket)
    assert peer.sock.selected_alpn_protocol() == "packets/1"


def test_the_client_names_the_server_it_wants(rig: Rig, certificates: Certificates) -> None:
    names: list[str | None] = []
    context = certificates.server.context(server_side=True)
    context.sni_callback = lambda sock, name, context: names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            sock, _ = listener.accept()
            sock.settimeout(5)
            with suppress(ConnectionError), context.wrap_socket(sock, server_side=True) as wrapped:
                wrapped.recv(1)  # an abort may reset

        wait = rig.in_thread(accept)
        handler = Recorder()
        host, port = listener.getsockname()
        session = rig.driver.connect(host, port, handler, tls=certificates.client)
        rig.call(session.abort)
        wait()
    assert names == [SERVER_NAME]


def test_a_plain_client_on_a_tls_port_is_sent_away(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    client = Recorder()
    session = rig.connect(server, client)
    rig.call(session.send, Packet(1, b"plain talk"))
    assert client.wait_reasons()[0] in (CloseReason.PEER, CloseReason.RESET)
    rig.until_empty(server)
    assert not handler.calls("packet_received")


def test_a_tls_client_on_a_plain_port_is_sent_away(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, Config(on_malformed="close", frame_timeout=0.3))
    with pytest.raises(OSError):  # noqa: PT011  the message is the runtime's own
        rig.connect(server, Recorder(), Config(connect_timeout=5), tls=certificates.client)
    assert handler.wait_reasons()[0] in (CloseReason.FRAME_TIMEOUT, CloseReason.PROTOCOL_ERROR, CloseReason.PEER)
    rig.until_empty(server)


def test_a_handshake_that_never_ends_is_cut_off(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    server = rig.serve(handler, Config(connect_timeout=0.3), tls=certificates.server)
    silent = rig.peer(server)
    silent.wait_closed()
    assert not handler.calls("connected")
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    peer.send(PING)
    assert peer.receive(len(PING)) == PING


def test_a_server_that_never_answers_the_handshake_is_given_up(rig: Rig, certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        host, port = deaf.getsockname()
        with pytest.raises(TimeoutError, match=r"connect_timeout=0\.3"):
            rig.driver.connect(host, port, Recorder(), config=Config(connect_timeout=0.3), tls=certificates.client)


def test_a_missing_certificate_file_is_an_os_error(rig: Rig) -> None:
    with pytest.raises(OSError):  # noqa: PT011
        rig.serve(Recorder(), tls=TLS(certificate="/nowhere/server.pem", key="/nowhere/server.pem"))


def test_a_server_that_closes_tells_its_tls_peers(rig: Rig, certificates: Certificates) -> None:
    handler = Recorder()
    server = rig.serve(handler, tls=certificates.server)
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    handler.wait("connected")
    closing = rig.in_background(server.close, 5.0)
    peer.wait_closed()
    peer.close()
    closing()
    assert handler.wait_reasons() == [CloseReason.SHUTDOWN]
    with pytest.raises(ConnectionRefusedError):
        Peer.connect(server.address)


def test_a_broken_tls_stream_raises_in_the_receiver(rig: Rig, certificates: Certificates) -> None:
    server = rig.serve(Recorder(packet_received=lambda session, packet: session.abort()), tls=certificates.server)
    stream = rig.stream(server, tls=certificates.client)
    rig.call(stream.send, Packet(1))
    with pytest.raises(SessionClosed):
        rig.call(stream.recv)
