"""WebSocket.

The stream in binary messages, whoever made them; `websockets` on the other side; who is sent away.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import pytest

from packetcore import Backoff, CloseReason, Config, Driver, Packet, Refusal, ServerBase, Session, encode
from packetcore.framings import COBS
from packetcore_conformance.certificates import SERVER_NAME, Certificates
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Recorder, echo, send_back
from packetcore_conformance.rig import Rig
from packetcore_conformance.tls_peer import TLSPeer
from packetcore_conformance.vectors import PACKETS, STREAM
from packetcore_conformance.websocket_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    WebSocketPeer,
    close_frame,
    frame,
    request,
)

try:
    from websockets.asyncio.client import connect as connect_theirs
    from websockets.asyncio.server import ServerConnection
    from websockets.asyncio.server import serve as serve_theirs
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol
except ImportError:
    pytest.skip("the other side of these cases is the websockets library", allow_module_level=True)

ONE = Packet(1, b"ping")
PING_FRAME = encode(ONE)
FEW = [Packet(1, b""), Packet(0xFEFD, b"\xfe\xfd\xff"), Packet(3, b"cut anywhere")]
SHORT = b"".join(map(encode, FEW))
UNMASKED = None


@pytest.fixture(autouse=True)
def needs_websocket(driver: Driver) -> None:
    if "websocket" not in driver.capabilities():
        pytest.skip("the adapter says that it has no WebSocket: that needs wsproto")


def options(**what: Any) -> Any:
    """What `serve` takes to say how."""
    from packetcore_sockets import WebSocketOptions  # which an adapter without need not have

    return WebSocketOptions(**what)


def url_of(server: ServerBase, path: str = "/", scheme: str = "ws", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{server.address[1]}{path}"


def raw(rig: Rig, server: ServerBase, *headers: str) -> WebSocketPeer:
    """A raw client, the handshake done."""
    peer = WebSocketPeer(rig.peer(server))
    assert peer.ask("/", *headers).startswith("HTTP/1.1 101 ")
    return peer


def refused(rig: Rig, server: ServerBase, count: int = 1, refusal: Refusal = Refusal.WEBSOCKET_FAILED) -> None:
    rig.until(lambda: server.stats.refusals == {refusal: count}, f"{count} were refused")


class Theirs:
    """A server of the `websockets` library, on a thread. Over TLS its asyncio side alone will do: the threads of
    the other share one connection of OpenSSL, which fails now and then.

    Args:
        handle: is called with each connection.
    """

    def __init__(self, handle: Callable[[ServerConnection], Coroutine[Any, Any, object]], **options: Any) -> None:
        self._codes: Future[int] = Future()
        started: Future[tuple[int, Callable[[], object]]] = Future()

        async def run(connection: ServerConnection) -> None:
            with suppress(ConnectionClosed):
                await handle(connection)
            await connection.close()
            if not self._codes.done():
                self._codes.set_result(connection.close_code or 0)

        async def main() -> None:
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            async with serve_theirs(run, "127.0.0.1", 0, compression=None, **options) as server:
                port = next(iter(server.sockets)).getsockname()[1]
                started.set_result((port, lambda: loop.call_soon_threadsafe(over.set)))
                await over.wait()

        self._thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
        self._thread.start()
        port, self._end = started.result(DEADLINE)
        self.url = f"{'wss' if 'ssl' in options else 'ws'}://127.0.0.1:{port}/"

    def wait_code(self) -> int:
        """Wait until a connection has ended; give by which code."""
        return self._codes.result(DEADLINE)

    def close(self) -> None:
        self._end()
        self._thread.join(DEADLINE)


@pytest.fixture
def theirs() -> Iterator[Callable[..., Theirs]]:
    started: list[Theirs] = []

    def start(handle: Callable[[ServerConnection], Coroutine[Any, Any, object]], **options: Any) -> Theirs:
        started.append(Theirs(handle, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


async def echo_theirs(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


# Both sides ours.


def test_the_golden_frames_cross_and_both_sides_know_by_what(rig: Rig) -> None:
    carriers: list[Any] = []
    handler = Recorder(packet_received=send_back, connected=lambda session: carriers.append(session.carrier))
    server = rig.serve(handler, websocket=options(path="/meters", origins=["https://example.org"]))
    client = Recorder()
    session: Session = rig.connect_url(
        url_of(server, "/meters?id=7"), client, origin="https://example.org", headers={"X-Token": "secret"}
    )
    for packet in PACKETS:
        rig.call(session.send, packet)
    assert client.wait("packet_received", len(PACKETS)) == PACKETS
    for carrier in (*carriers, rig.call(lambda: session.carrier)):
        told = carrier.websocket
        assert (carrier.kind, told.path, told.origin) == ("websocket", "/meters?id=7", "https://example.org")
        assert (told.subprotocol, carrier.tls, carrier.family) == ("packetcore", None, socket.AF_INET)
    assert ("x-token", "secret") in carriers[0].websocket.headers
    rig.call(session.close)
    assert client.wait_reasons() == [CloseReason.LOCAL]
    assert handler.wait_reasons() == [CloseReason.PEER]
    rig.until_empty(server)


def test_a_stream_crosses_over_tls(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    server = rig.serve(handler, tls=certificates.server, websocket=True)
    stream = rig.connect_url(url_of(server, scheme="wss"), tls=certificates.client)
    packet = Packet(1, b"\xfe\xfd" * 400_000)
    rig.call(stream.send, packet)
    assert rig.call(stream.recv) == packet
    for session in (stream.session, handler.sessions[0]):
        carrier = rig.call(lambda session=session: session.carrier)
        assert (carrier.kind, carrier.tls.version[:4], carrier.websocket.path) == ("websocket", "TLSv", "/")
    rig.call(stream.close)
    assert stream.close_reason is CloseReason.LOCAL
    assert handler.wait_reasons() == [CloseReason.PEER]


def test_another_framing_crosses_too(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, websocket=True, framing=COBS())
    stream = rig.connect_url(url_of(server), framing=COBS())
    rig.call(stream.send, b"any \0 bytes")
    assert rig.call(stream.recv) == b"any \0 bytes"


@pytest.mark.usefixtures("needs_reconnect", "needs_pool")
def test_a_client_comes_back_and_a_pool_lends(rig: Rig) -> None:
    server = rig.serve(echo(), websocket=True)
    client = Recorder()
    rig.connect_url(url_of(server), client, reconnect=Backoff(initial=0.01, maximum=0.01))
    rig.call(rig.sessions(server, 1)[0].abort)
    client.wait("connected", 2)
    pool = rig.connection_pool((url_of(server), None))
    rig.borrow(pool, lambda stream: stream.send(ONE))
    assert {session.carrier.kind for session in rig.sessions(server, 2)} == {"websocket"}


# `websockets` on the other side.


def test_their_client_is_served_however_it_cuts_and_told_when_we_close(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, websocket=True)
    with connect(url_of(server), subprotocols=[Subprotocol("packetcore")]) as theirs:  # offers compression
        assert theirs.subprotocol == "packetcore"
        assert theirs.protocol.extensions == []
        for cut in range(1, len(SHORT)):
            theirs.send(SHORT[:cut])
            theirs.send(SHORT[cut:])
        theirs.send(SHORT[at : at + 1] for at in range(len(SHORT)))  # in fragments
        theirs.send(b"")
        wanted, came = SHORT * len(SHORT), b""
        while len(came) < len(wanted):
            message = theirs.recv(DEADLINE)
            assert isinstance(message, bytes)
            came += message
        assert came == wanted
        assert theirs.ping().wait(DEADLINE)
        rig.call(handler.sessions[0].close)
        with pytest.raises(ConnectionClosed):
            theirs.recv(DEADLINE)
        assert theirs.close_code == 1000
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_their_client_closes_and_a_server_says_when_it_goes(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    server = rig.serve(handler, tls=certificates.server, websocket=True)
    context, url = certificates.raw_context(), url_of(server, scheme="wss")

    async def talk() -> tuple[object, int | None, int | None]:
        async with connect_theirs(url, ssl=context, server_hostname=SERVER_NAME) as first:
            await first.send(PING_FRAME)
            said = await first.recv()
        async with connect_theirs(url, ssl=context, server_hostname=SERVER_NAME) as second:
            await second.send(PING_FRAME)
            with suppress(ConnectionClosed):
                async for _ in second:
                    closing.append(rig.in_background(server.close))
        return said, first.close_code, second.close_code

    closing: list[Callable[[], Any]] = []
    assert rig.in_thread(asyncio.run, talk())() == (PING_FRAME, 1000, 1001)
    closing[0]()
    assert handler.wait_reasons(2) == [CloseReason.PEER, CloseReason.SHUTDOWN]


def test_our_client_is_served_by_theirs(rig: Rig, theirs: Callable[..., Theirs], certificates: Certificates) -> None:
    context = certificates.server.context(server_side=True)
    server = theirs(echo_theirs, ssl=context, subprotocols=["packetcore"])
    client = Recorder()
    session = rig.connect_url(server.url, client, tls=certificates.client)
    for packet in PACKETS:
        rig.call(session.send, packet)
    large = Packet(9, bytes(range(256)) * 4000)
    rig.call(session.send, large)
    assert client.wait("packet_received", len(PACKETS) + 1) == [*PACKETS, large]
    assert rig.call(lambda: session.carrier).websocket.subprotocol == "packetcore"
    rig.call(session.close)
    assert client.wait_reasons() == [CloseReason.LOCAL]
    assert server.wait_code() == 1000


def test_our_client_reads_what_they_cut_answers_pings_and_hears_their_end(
    rig: Rig, theirs: Callable[..., Theirs]
) -> None:
    answered: list[float] = []

    async def talk(connection: ServerConnection) -> None:
        for cut in range(1, len(SHORT)):
            await connection.send(SHORT[:cut])
            answered.append(await asyncio.wait_for(await connection.ping(), DEADLINE))
            await connection.send(SHORT[at : at + 3] for at in range(cut, len(SHORT), 3))

    server = theirs(talk)
    client = Recorder()
    rig.connect_url(server.url, client)
    assert client.wait("packet_received", (len(SHORT) - 1) * len(FEW)) == FEW * (len(SHORT) - 1)
    assert client.wait_reasons() == [CloseReason.PEER]
    assert server.wait_code() == 1000
    assert len(answered) == len(SHORT) - 1


# Raw peers: rules that are broken, and ends.


def test_frames_arrive_however_their_bytes_are_cut(rig: Rig) -> None:
    server = rig.serve(echo(), websocket=True)
    peer = raw(rig, server)
    sent = frame(BINARY, SHORT[:5], fin=False) + frame(PING, b"?") + frame(CONTINUATION, SHORT[5:]) + frame(PONG)
    for cut in range(len(sent)):
        peer.send(sent[:cut])
        peer.send(sent[cut:])
    came, pongs = b"", 0
    while len(came) < len(sent) * len(SHORT) or not pongs:  # of several pings that came together one is answered
        opcode, payload = peer.receive()
        if opcode == PONG:
            assert payload == b"?"
            pongs += 1
        else:
            assert opcode == BINARY
            came += payload
    assert came == SHORT * len(sent)


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (frame(TEXT, b"hello"), 1003),
        (frame(BINARY, PING_FRAME, rsv=4), 1002),  # compressed, as never agreed on
        (frame(BINARY, PING_FRAME, key=UNMASKED), 1002),
        (frame(CONTINUATION, PING_FRAME), 1002),
        (frame(BINARY, b"", fin=False) + frame(BINARY, b""), 1002),
        (frame(PING, b"", fin=False), 1002),
        (frame(3, b""), 1002),
        (b"\x89\xfe\x00\x7e" + bytes(4), 1002),  # a ping of 126 bytes
        (b"\x82\xff" + b"\xff" * 8, 1002),
        (close_frame(1005), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
def test_who_breaks_the_rules_is_told_which(rig: Rig, bytes_sent: bytes, code: int) -> None:
    handler = echo()
    server = rig.serve(handler, websocket=True)
    peer = raw(rig, server)
    peer.send(frame(BINARY, PING_FRAME) + bytes_sent)
    assert peer.receive() == (BINARY, PING_FRAME)  # what came before counts
    last = peer.receive()
    assert (last.opcode, last.code) == (CLOSE, code)
    peer.wait_closed()
    assert handler.wait_reasons() == [CloseReason.RESET]
    rig.until_empty(server)


def test_a_frame_of_any_length_costs_nothing_until_it_comes(rig: Rig) -> None:
    server = rig.serve(echo(), websocket=True)
    peer = raw(rig, server)
    peer.send(b"\x82\xff" + (1 << 62).to_bytes(8, "big") + bytes(4) + STREAM)
    assert peer.receive_stream(len(STREAM)) == STREAM


def test_an_end_without_a_close_frame_is_a_reset(rig: Rig, certificates: Certificates) -> None:
    handler = echo()
    server = rig.serve(handler, websocket=True)
    peer = WebSocketPeer(half := rig.peer(server))
    peer.ask()
    half.finish()  # in good order, as TCP has it
    assert handler.wait_reasons() == [CloseReason.RESET]
    handler = echo()
    server = rig.serve(handler, tls=certificates.server, websocket=True)
    sock = socket.create_connection(server.address, DEADLINE)
    with sock:
        secure = WebSocketPeer(TLSPeer(sock, certificates.raw_context(), SERVER_NAME))
        assert secure.ask().startswith("HTTP/1.1 101 ")
        assert isinstance(secure.peer, TLSPeer)
        secure.peer.finish()
        assert handler.wait_reasons() == [CloseReason.RESET]


def test_after_the_peer_s_close_a_handler_may_reply_and_then_closes(rig: Rig) -> None:
    def reply(session: Session) -> None:
        session.send(ONE)
        session.close()

    server = rig.serve(Recorder(eof_received=reply), websocket=True)
    peer = raw(rig, server)
    peer.send(close_frame(1001))
    assert peer.receive() == (BINARY, PING_FRAME)
    assert peer.receive() == (CLOSE, (1000).to_bytes(2, "big"))
    assert peer.peer.receive(0) == b""
    peer.wait_closed()


def test_who_never_answers_our_close_is_left(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(close_timeout=0.2), websocket=True)
    peer = raw(rig, server)
    session = rig.sessions(server, 1)[0]
    rig.call(session.close)
    assert peer.receive().code == 1000
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    peer.wait_closed()


def answer_pings(peer: WebSocketPeer, count: int, key: bytes | None) -> None:
    for _ in range(count):
        opcode, payload = peer.receive()
        assert opcode == PING
        peer.send(frame(PONG, payload, key=key))


def test_pings_keep_alive_who_answers(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(idle_timeout=0.3), websocket=options(ping_interval=0.1))
    answer_pings(raw(rig, server), 7, MASK)
    assert not handler.calls("disconnected")
    assert handler.wait_reasons() == [CloseReason.IDLE_TIMEOUT]  # from then on it is silent


def test_our_client_pings_too(rig: Rig) -> None:
    client = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> bool:
            sock, _ = listener.accept()
            with sock:
                peer = WebSocketPeer(Peer(sock))
                peer.answer()
                answer_pings(peer, 7, UNMASKED)
                was_there = not client.calls("disconnected")
                client.wait("disconnected")
                return was_there

        wait = rig.in_thread(accept)
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        rig.connect_url(url, client, Config(idle_timeout=0.3), ping_interval=0.1)
        assert wait()
    assert client.wait_reasons() == [CloseReason.IDLE_TIMEOUT]


# Handshakes that come to nothing.


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request("/elsewhere"), 404),
        (request("/", "Origin: https://evil.example"), 403),
        (request("/", "Origin: null"), 403),
        (request("/").replace(b"packetcore", b"chat"), 400),
        (b"GET / HTTP/1.1\r\nHost: server.example\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: server.example\r\nContent-Length: 0\r\n\r\n", 400),
        (request("/").replace(b": 13", b": 8"), 426),
        (b"\x16\x03\x01\x02\x00\x01\n\n", 400),
        (request("/").replace(b"server", b"\xff\xfe"), 400),
    ],
)
def test_who_asks_for_something_else_is_told_so_in_http(
    rig: Rig, asked: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    handler = echo()
    strict = options(origins=("https://example.org",), require_subprotocol=True)
    server = rig.serve(handler, websocket=strict)
    peer = WebSocketPeer(rig.peer(server))
    if status != 400:
        asked = asked.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat, packetcore\r\n\r\n")
    with caplog.at_level(logging.INFO, "packetcore"):
        peer.send(asked)
        answer = peer.receive_head()
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert peer.peer.receive_rest() == b""
        refused(rig, server)
    assert Refusal.WEBSOCKET_FAILED.value in caplog.text
    assert not handler.calls("connected")
    peer = WebSocketPeer(rig.peer(server))
    assert "101" in peer.ask("/", "Origin: https://example.org", "Sec-WebSocket-Protocol: packetcore")


def test_pages_of_the_very_host_may_connect_and_others_only_where_all_may(rig: Rig) -> None:
    server = rig.serve(echo(), websocket=True)
    raw(rig, server, "Origin: https://server.example")
    raw(rig, rig.serve(echo(), websocket=options(origins=None, path=None)), "Origin: null")
    peer = WebSocketPeer(rig.peer(server))
    assert peer.ask("/", "Origin: https://server.example:8443").startswith("HTTP/1.1 403 ")


def test_a_handshake_ends_in_time_and_within_its_size(rig: Rig) -> None:
    server = rig.serve(echo(), Config(connect_timeout=0.3), websocket=True)
    for begun in (b"", b"GET / HTTP/1.1\r\nHost: server.example\r\n"):
        peer = rig.peer(server)
        peer.send(begun)
        peer.wait_closed()
    refused(rig, server, 2)
    peer = rig.peer(server)
    peer.send(b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"a" * 16 * 1024)
    peer.wait_closed()
    refused(rig, server, 3)
    rig.peer(server).close()
    refused(rig, server, 4)


def test_a_plain_client_of_a_tls_port_is_no_websocket(rig: Rig, certificates: Certificates) -> None:
    server = rig.serve(echo(), tls=certificates.server, websocket=True)
    peer = rig.peer(server)
    peer.send(request())
    peer.wait_closed()
    refused(rig, server, refusal=Refusal.TLS_FAILED)
    sock = socket.create_connection(server.address, DEADLINE)
    with sock:
        secure = WebSocketPeer(TLSPeer(sock, certificates.raw_context(), SERVER_NAME))
        assert secure.ask("/elsewhere").startswith("HTTP/1.1 404 ")
    rig.until(lambda: server.stats.refusals[Refusal.WEBSOCKET_FAILED] == 1, "it was refused")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "302"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "accept token"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000, "16384 bytes"),
        (b"", "left|closed"),
    ],
)
def test_a_client_is_told_why_there_is_no_websocket(rig: Rig, answer: bytes, error: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            sock, _ = listener.accept()
            with sock:
                peer = WebSocketPeer(Peer(sock))
                peer.receive_head()
                peer.send(answer)

        wait = rig.in_thread(accept)
        with pytest.raises(OSError, match=error):
            rig.connect_url(f"ws://127.0.0.1:{listener.getsockname()[1]}/", Recorder())
        wait()


def test_a_client_waits_for_a_handshake_no_longer_than_it_may(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(TimeoutError):
            rig.connect_url(url, Recorder(), Config(connect_timeout=0.3))


# One port for both.


def test_one_port_takes_websocket_and_frames_alike(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler, Config(connect_timeout=0.5), websocket="auto")
    plain = rig.peer(server)
    plain.send(STREAM)
    assert plain.receive(len(STREAM)) == STREAM
    peer = raw(rig, server)
    peer.send(frame(BINARY, STREAM))
    assert peer.receive_stream(len(STREAM)) == STREAM
    assert {session.carrier.kind for session in rig.sessions(server, 2)} == {"tcp", "websocket"}
    silent = rig.peer(server)
    silent.wait_closed()
    refused(rig, server)


# What cannot be asked for.


def test_a_server_is_asked_for_what_goes_together(rig: Rig, certificates: Certificates) -> None:
    context = certificates.server.context(server_side=True)
    wrong: list[dict[str, Any]] = [{"websocket": "auto", "framing": COBS()}, {"websocket": "auto", "ssl": context}]
    for options in wrong:
        with pytest.raises(ValueError, match="auto"):
            rig.serve(echo(), **options)
    with pytest.raises(TypeError, match="websocket=7"):
        rig.serve(echo(), websocket=7)
    with pytest.raises(TypeError, match="SSLContext"):
        rig.serve(echo(), websocket=True, ssl="certificate.pem")
    with pytest.raises(ssl.SSLError):
        rig.serve(echo(), websocket=True, ssl=certificates.raw_context())


def test_a_client_is_asked_for_what_there_is(rig: Rig, certificates: Certificates) -> None:
    for url in ("http://127.0.0.1/", "ws:///", "ws://127.0.0.1:99999/", "ws://127.0.0.1/#top", "ws://me@127.0.0.1/"):
        with pytest.raises(ValueError, match="URL"):
            rig.connect_url(url, Recorder())
    with pytest.raises(ValueError, match="without TLS"):
        rig.connect_url("ws://127.0.0.1/", Recorder(), tls=certificates.client)
    with pytest.raises(ValueError, match="header"):
        rig.connect_url("ws://127.0.0.1/", Recorder(), headers={"X-Bad": "a\r\nb"})
    with pytest.raises(ValueError, match="ping_interval=0"):
        rig.connect_url("ws://127.0.0.1/", Recorder(), ping_interval=0)
    with pytest.raises(TypeError, match="needs a port"):
        rig.connect_url("127.0.0.1", Recorder())
    with pytest.raises(TypeError):
        rig.connect_url("ws://127.0.0.1/", Recorder(), cookies="none")
