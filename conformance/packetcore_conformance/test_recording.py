"""Recording.

What sessions say is in the capture, to the byte, whatever carries them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packetcore import Config, Driver, Packet, encode
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig
from packetcore_conformance.vectors import PACKETS, STREAM
from packetcore_tap import Chunk, Conversation, Ended, Heard, Reset, Side, hear
from packetcore_tap import Recorder as Capture

PING = encode(Packet(1, b"ping"))


class Captured:
    """What a capture holds, once it is closed."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.heard: list[Heard] = list(hear(file))

    @property
    def conversations(self) -> list[Conversation]:
        return list(dict.fromkeys(each.conversation for each in self.heard))

    def chunks(self, side: Side) -> list[bytes]:
        """What one side sent."""
        return [each.data for each in self.heard if isinstance(each, Chunk) and each.sender is side]

    def said(self) -> tuple[bytes, bytes]:
        """What the client sent and what the server did, of all conversations."""
        return b"".join(self.chunks(Side.CLIENT)), b"".join(self.chunks(Side.SERVER))


@pytest.fixture
def server_capture(tmp_path: Path) -> Iterator[Capture]:
    with Capture(tmp_path / "server.pcapng") as recorder:
        yield recorder


@pytest.fixture
def client_capture(tmp_path: Path) -> Iterator[Capture]:
    with Capture(tmp_path / "client.pcapng") as recorder:
        yield recorder


def closed(recorder: Capture) -> Captured:
    recorder.close()
    assert (recorder.error, recorder.missed) == (None, 0)
    return Captured(Path(recorder.recording.path))


def test_a_server_and_a_client_record_the_same(rig: Rig, server_capture: Capture, client_capture: Capture) -> None:
    heard = Recorder()
    theirs = echo()
    server = rig.serve(theirs, Config(tap=server_capture))
    session = rig.connect(server, heard, Config(tap=client_capture))
    for packet in PACKETS:
        rig.call(session.send, packet)
    heard.wait("packet_received", len(PACKETS))
    local = rig.call(lambda: session.carrier.local)
    rig.call(session.close)
    heard.wait_reasons()
    theirs.wait_reasons()
    captures = closed(server_capture), closed(client_capture)
    for capture in captures:
        assert capture.said() == (STREAM, STREAM)
        (conversation,) = capture.conversations
        assert (conversation.client.port, conversation.server.port) == (local[1], server.address[1])
        ends = [each for each in capture.heard if not isinstance(each, Chunk)]
        assert {type(each) for each in ends} == {Ended}
        assert ends[0].sender is Side.CLIENT
    assert "of a server" in captures[0].conversations[0].comments[0]
    assert "of a client" in captures[1].conversations[0].comments[0]


def test_a_recording_has_a_write_for_each_chunk_and_a_reset_where_one_was(rig: Rig, server_capture: Capture) -> None:
    handler = echo()
    server = rig.serve(handler, Config(tap=server_capture))
    peer = rig.peer(server)
    for count in (1, 3):
        peer.send(PING * count)
        peer.receive(len(PING) * count)
    peer.send(PING)
    peer.receive(len(PING))
    peer.reset()
    handler.wait_reasons()
    capture = closed(server_capture)
    assert capture.chunks(Side.CLIENT) == capture.chunks(Side.SERVER) == [PING, PING * 3, PING]
    assert [type(each) for each in capture.heard[-1:]] == [Reset]
    assert capture.heard[-1].sender is Side.CLIENT


def test_tls_is_recorded_in_the_clear(
    rig: Rig, driver: Driver, certificates: Certificates, server_capture: Capture
) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    handler = echo()
    server = rig.serve(handler, Config(tap=server_capture), tls=certificates.server)
    peer = rig.peer(server, tls=certificates.raw_context(), server_hostname=SERVER_NAME)
    peer.send(STREAM)
    assert peer.receive(len(STREAM)) == STREAM
    peer.close()
    handler.wait_reasons()
    capture = closed(server_capture)
    assert capture.said() == (STREAM, STREAM)
    assert "decrypted from TLSv1" in capture.conversations[0].comments[0]


@pytest.mark.usefixtures("needs_udp")
def test_each_datagram_is_recorded_by_itself(rig: Rig, server_capture: Capture, client_capture: Capture) -> None:
    server = rig.serve_udp(echo(), Config(tap=server_capture))
    heard = Recorder()
    session = rig.connect_udp(server.address, heard, Config(tap=client_capture))
    for count in range(1, 6):
        rig.call(session.send, PACKETS[0])
        heard.wait("packet_received", count)
    rig.call(session.close)
    rig.call(server.close, 0)
    frame = encode(PACKETS[0])
    for capture in (closed(server_capture), closed(client_capture)):
        assert capture.chunks(Side.CLIENT) == capture.chunks(Side.SERVER) == [frame] * 5
        assert capture.conversations[0].kind == "udp"
        assert capture.conversations[0].server.port == server.address[1]


@pytest.mark.usefixtures("needs_udp")
def test_a_datagram_that_opens_no_session_is_recorded_too(rig: Rig, server_capture: Capture) -> None:
    server = rig.serve_udp(echo(), Config(tap=server_capture))
    peer = rig.udp_peer(server.address)
    peer.send(b"rubbish", PING)
    assert peer.receive() == PING
    capture = closed(server_capture)
    assert (capture.chunks(Side.CLIENT), capture.chunks(Side.SERVER)) == ([b"rubbish", PING], [PING])
    (conversation,) = capture.conversations
    assert (conversation.client.port, conversation.server.port) == (peer.address[1], server.address[1])


@pytest.mark.usefixtures("needs_unix")
def test_a_unix_socket_is_recorded_with_its_path(rig: Rig, server_capture: Capture) -> None:
    handler = echo()
    with tempfile.TemporaryDirectory(prefix="packetcore") as folder:
        path = os.path.join(folder, "socket")
        rig.serve_unix(path, handler, Config(tap=server_capture))
        peer = rig.unix_peer(path)
        peer.send(STREAM)
        assert peer.receive(len(STREAM)) == STREAM
        peer.finish()
        handler.wait_reasons()
    capture = closed(server_capture)
    assert capture.said() == (STREAM, STREAM)
    assert path in capture.conversations[0].comments[0]


@pytest.mark.usefixtures("needs_serial")
def test_a_serial_line_is_recorded_with_its_device(rig: Rig, client_capture: Capture) -> None:
    peer, handler = rig.serial_peer(), echo()
    session = rig.connect_serial(peer.device, handler, Config(tap=client_capture))
    peer.send(PING * 10)
    assert peer.receive(len(PING) * 10) == PING * 10
    rig.call(session.close)
    handler.wait_reasons()
    capture = closed(client_capture)
    assert capture.said() == (PING * 10, PING * 10)
    assert peer.device in capture.conversations[0].comments[0]


def test_websocket_is_recorded_without_its_frames(
    rig: Rig, driver: Driver, server_capture: Capture, client_capture: Capture
) -> None:
    if "websocket" not in driver.capabilities():
        pytest.skip("the adapter says that it has no WebSocket: that needs wsproto")
    theirs, heard = echo(), Recorder()
    server = rig.serve(theirs, Config(tap=server_capture), websocket=True)
    session = rig.connect_url(f"ws://127.0.0.1:{server.address[1]}/", heard, Config(tap=client_capture))
    for packet in PACKETS:
        rig.call(session.send, packet)
    heard.wait("packet_received", len(PACKETS))
    rig.call(session.close)
    heard.wait_reasons()
    theirs.wait_reasons()
    for capture in (closed(server_capture), closed(client_capture)):
        assert capture.said() == (STREAM, STREAM)
        assert "path /" in capture.conversations[0].comments[0]


@pytest.mark.usefixtures("needs_pool")
def test_a_pool_is_recorded_connection_by_connection(rig: Rig, client_capture: Capture) -> None:
    server = rig.serve()
    pool = rig.connection_pool(server.address, config=Config(tap=client_capture))

    def use(stream: Any) -> Any:
        return stream.request(Packet(1, b"ping"))

    for _ in range(3):
        assert rig.borrow(pool, use) == Packet(1, b"ping")
    rig.call(pool.close)
    rig.until_empty(server)
    capture = closed(client_capture)
    assert capture.said() == (PING * 3, PING * 3)
    assert len(capture.conversations) == 1
