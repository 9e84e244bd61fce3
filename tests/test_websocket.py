"""WebSocket over memory: what RFC 6455 gives as examples, cuts anywhere, and bytes that nobody should send."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from packetcore import Carrier, masked
from packetcore._mask import masked as masked_in_python
from packetcore_conformance.websocket_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    MASK,
    PING,
    PONG,
    TEXT,
    accept_token,
    close_frame,
    frame,
    request,
)
from packetcore_sockets import TLSRecords, WebSocketError, WebSocketOptions
from packetcore_sockets._tls import RECORD
from packetcore_sockets._websocket.dial import dialler_to
from packetcore_sockets._websocket.frames import FrameError, FrameReader, make_frame
from packetcore_sockets._websocket.options import WebSocketURL, options_of
from packetcore_sockets._websocket.records import MAX_UNSENT, MESSAGE, WebSocketRecords, client_records, server_records
from packetcore_sockets._websocket.upgrade import HEADER_SIZE, ClientUpgrade, ServerUpgrade

NAME = "server.example"
OPEN = WebSocketOptions(path=None, origins=None)


def server(options: WebSocketOptions = OPEN) -> WebSocketRecords:
    """A server's side, the handshake done."""
    records = server_records(options, None)
    records.shake_hands(request())
    assert records.is_open
    assert records.went(len(records.take())) == 0
    return records


def client() -> WebSocketRecords:
    """A client's side, the handshake done."""
    records = client_records(WebSocketURL("ws://server.example/"), None, None)
    head = records.take().decode()
    key = next(line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
    answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    records.shake_hands(f"{answer}Sec-WebSocket-Accept: {accept_token(key)}\r\n\r\n".encode())
    assert records.is_open
    return records


def carry(source: WebSocketRecords, to: WebSocketRecords, size: int = 1 << 20) -> bytes:
    """Carry what one side has to write to the other, in pieces; give what that makes of it."""
    data = source.take()
    source.went(len(data))
    return b"".join(to.receive(data[at : at + size]) for at in range(0, len(data), size))


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    authority = trustme.CA()
    trusted, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert(NAME).configure_cert(trusted)
    authority.configure_trust(trusting)
    return trusted, trusting


def over_tls(said: bytes) -> tuple[WebSocketRecords, TLSRecords]:
    """A server's side, and the bare TLS of a client, which has said something and has been answered."""
    trusted, trusting = contexts()
    ours, theirs = server_records(OPEN, trusted), TLSRecords(trusting, server_hostname=NAME)
    for _ in range(2):
        ours.receive(theirs.take())
        theirs.receive(ours.take())
    theirs.send(said)
    ours.receive(theirs.take())
    theirs.receive(ours.take())
    return ours, theirs


# The examples.


def test_the_handshake_of_the_rfc_is_answered_as_there() -> None:
    records = server_records(WebSocketOptions(path="/chat", origins=["http://example.com"]), None)
    asked = request("/chat", "Origin: http://example.com", "Sec-WebSocket-Protocol: chat, packetcore", key=KEY)
    records.shake_hands(asked)
    answer = records.take().decode().lower().split("\r\n")
    assert answer[0].startswith("http/1.1 101 ")
    assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in answer
    assert "sec-websocket-protocol: packetcore" in answer
    assert not [line for line in answer if line.startswith("sec-websocket-extensions")]


def test_the_frames_of_the_rfc() -> None:
    assert make_frame(PING, b"Hello", is_client=False) == b"\x89\x05Hello"
    assert make_frame(BINARY, bytes(256), is_client=False) == b"\x82\x7e\x01\x00" + bytes(256)
    assert make_frame(BINARY, bytes(65536), is_client=False) == b"\x82\x7f\0\0\0\0\0\1\0\0" + bytes(65536)
    assert bytes(masked(b"Hello", MASK)) == b"\x7f\x9f\x4d\x51\x58"
    stream: list[bytes] = []
    control: list[tuple[int, bytes]] = []
    FrameReader(False).receive(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", stream, control)
    assert (stream, control) == ([], [(PONG, b"Hello")])


def test_a_client_masks_each_frame_by_another_key() -> None:
    frames = {bytes(make_frame(BINARY, b"the same", is_client=True))[2:6] for _ in range(50)}
    assert len(frames) == 50


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_masking_is_what_the_rfc_says_and_its_own_inverse(data: bytes, key: bytes) -> None:
    wanted = bytes(byte ^ key[at % 4] for at, byte in enumerate(data))
    for mask in (masked, masked_in_python):
        assert mask(data, key) == wanted
        assert mask(bytearray(wanted), key) == data
        with memoryview(data) as view:
            assert mask(view, key) == wanted
    for key in (b"", b"123", b"12345"):
        with pytest.raises(ValueError, match="it has 4"):
            masked(data, key)
        with pytest.raises(ValueError, match="it has 4"):
            masked_in_python(data, key)


# Both sides, cut anywhere.


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_two_sides_agree_and_carry_a_stream_however_it_is_cut(size: int) -> None:
    ours = server_records(OPEN, None)
    theirs = client_records(WebSocketURL("ws://server.example/a?b=c", origin="null", headers={"X-Y": "z"}), None, None)
    carry(theirs, ours, size)
    carry(ours, theirs, size)
    for length in (0, 1, 125, 126, 65535, 65536, 3 * MESSAGE + 1):
        data = bytes(at % 251 for at in range(length))
        for source, to in ((ours, theirs), (theirs, ours)):
            source.send(data)
            assert carry(source, to, max(size, length // 500)) == data
    info = ours.carrier(Carrier("tcp")).websocket
    assert info is not None
    assert (info.path, info.origin, info.subprotocol) == ("/a?b=c", "null", "packetcore")
    assert ("x-y", "z") in info.headers
    theirs.close()
    carry(theirs, ours, size)
    assert ours.at_end
    ours.send(b"a last word")
    ours.close(going_away=True)
    assert carry(ours, theirs, size) == b"a last word"
    assert theirs.at_end
    assert (ours.error, theirs.error) == (None, None)


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_they_do_so_over_tls_which_ends_after_both_have(size: int) -> None:
    trusted, trusting = contexts()
    ours, theirs = server_records(OPEN, trusted), client_records(WebSocketURL(f"wss://{NAME}/"), trusting, None)
    for _ in range(4):
        assert carry(theirs, ours, size) + carry(ours, theirs, size) == b""
    assert ours.is_open
    assert theirs.is_open
    theirs.send(b"hello" * 30_000)
    data = theirs.take()
    gone = [theirs.went(1) for _ in data]
    assert sum(gone) == 150_000
    assert sum(map(bool, gone)) <= 150_000 // RECORD + 2, "what has gone counts by whole records of TLS"
    assert ours.receive(data) == b"hello" * 30_000
    carrier = ours.carrier(Carrier("tcp"))
    assert carrier.kind == "websocket"
    assert carrier.tls is not None
    ours.close()
    carry(ours, theirs, size)
    assert theirs.at_end
    theirs.close()
    carry(theirs, ours, size)
    assert ours.at_end
    assert (ours.error, theirs.error) == (None, None)


def test_tls_that_ends_without_a_close_frame_is_an_error() -> None:
    trusted, trusting = contexts()
    for until in (2, 3):  # in the handshake, and after it
        ours, theirs = server_records(OPEN, trusted), TLSRecords(trusting, server_hostname=NAME)
        for step in range(until):
            ours.receive(theirs.take())
            theirs.receive(ours.take())
            if step == 1 and until == 3:
                theirs.send(request())
        assert ours.is_open is (until == 3)
        theirs.close()
        ours.receive(theirs.take())
        assert isinstance(ours.error, WebSocketError)


def test_tls_that_ends_after_this_side_has_closed_is_the_end_too() -> None:
    ours, theirs = over_tls(request())
    ours.close()
    theirs.close()
    ours.receive(theirs.take())
    assert (ours.at_end, ours.error) == (True, None)


@pytest.mark.parametrize("is_first", [False, True], ids=["the peer first", "this side first"])
def test_tls_ends_once_both_sides_have_closed(is_first: bool) -> None:
    ours, theirs = over_tls(request())
    assert ours.is_open
    if is_first:
        ours.close()
        theirs.receive(ours.take())
    else:
        theirs.send(close_frame())
        ours.receive(theirs.take())
        theirs.receive(ours.take())
    ended = [theirs.at_end]
    if is_first:
        theirs.send(close_frame())
        ours.receive(theirs.take())
    else:
        ours.close()
    theirs.receive(ours.take())
    assert [*ended, theirs.at_end] == [False, True]
    assert ours.error is None


@pytest.mark.parametrize(
    "said", [request() + frame(BINARY, b"", rsv=4), b"GET / HTTP/1.1\r\n\r\n"], ids=["rules", "HTTP"]
)
def test_tls_ends_where_the_peer_is_told_what_it_did_wrong(said: bytes) -> None:
    ours, theirs = over_tls(said)
    assert ours.error is not None
    ours.close()
    theirs.receive(ours.take())
    assert theirs.at_end
    assert theirs.error is None


def test_what_comes_with_the_end_of_the_handshake_counts() -> None:
    asked = request() + frame(BINARY, b"at once") + close_frame()
    for cut in range(len(asked)):
        records = server_records(OPEN, None)
        assert records.receive(asked[:cut]) + records.receive(asked[cut:]) == b"at once"
        assert records.at_end
    records = server_records(OPEN, None)
    records.shake_hands(asked)
    assert records.receive(b"") == b"at once"
    long = bytes(2 * HEADER_SIZE)
    assert server_records(OPEN, None).receive(request() + frame(BINARY, long)) == long, "which is no header"


def test_it_is_told_how_much_has_gone() -> None:
    records = server()
    records.send(b"a" * 1000)
    records.ping()
    size = len(records.take())
    records.send(b"b" * 100_000)  # while nothing of the first has gone
    size += len(records.take())
    assert records.went(4) == 0
    assert records.went(999) == 999
    assert records.went(1) == 1
    assert records.went(size - 1005) == 100_000 - 1
    assert records.went(1) == 1
    records.receive(frame(PING, b"?"))
    assert records.take() == make_frame(PONG, b"?", is_client=False), "a peer that has taken all is not slow"


# `wsproto` as another opinion.

payloads = st.one_of(st.binary(max_size=40), st.binary(min_size=120, max_size=300))
messages = st.lists(
    st.tuples(st.lists(payloads, min_size=1, max_size=3), st.sampled_from([None, PING, PONG])), max_size=5
)


@given(messages, st.lists(st.integers(1, 50), max_size=20))
def test_fragments_with_control_frames_between_make_the_stream_that_wsproto_makes(
    sent: list[tuple[list[bytes], int | None]], sizes: list[int]
) -> None:
    wire, said = b"", []
    for pieces, between in sent:
        for number, piece in enumerate(pieces):
            wire += frame(CONTINUATION if number else BINARY, piece, fin=number == len(pieces) - 1)
            if between is not None:
                wire += frame(between, b"between")
                said.append((between, b"between"))
    other = FrameProtocol(False, [])
    other.receive_bytes(wire)
    wanted = b"".join(each.payload for each in other.received_frames() if each.opcode is Opcode.BINARY)  # type: ignore[misc]
    reader = FrameReader(False)
    stream: list[bytes] = []
    control: list[tuple[int, bytes]] = []
    at = 0
    for end in [*accumulate(sizes), len(wire)]:
        reader.receive(wire[at:end], stream, control)
        at = max(at, end)
    assert b"".join(stream) == wanted == b"".join(piece for pieces, _ in sent for piece in pieces)
    assert control == said


@given(st.booleans(), st.lists(st.binary(max_size=40), max_size=8))
def test_what_wsproto_refuses_is_refused_and_nothing_else(is_client: bool, chunks: list[bytes]) -> None:
    reader, other = FrameReader(is_client), FrameProtocol(is_client, [])
    stream: list[bytes] = []
    control: list[tuple[int, bytes]] = []
    wanted, is_over = b"", False
    for chunk in chunks:
        refusal = theirs = None
        try:
            reader.receive(chunk, stream, control)
        except FrameError as error:
            refusal = error
        other.receive_bytes(chunk)
        try:
            for each in other.received_frames():
                if each.opcode is Opcode.TEXT:
                    raise ParseFailed("text")
                is_over |= each.opcode is Opcode.CLOSE
                wanted += each.payload if each.opcode is Opcode.BINARY else b""  # type: ignore[operator]
        except ParseFailed as error:
            theirs = error
        assert b"".join(stream) == wanted
        if theirs is not None:
            assert refusal is not None
        if refusal is not None or theirs is not None or is_over:
            return
        assert len(reader._waiting) <= 14 + 125


# Bytes that nobody should send.

heads = st.sampled_from([b"", request(), request("/x", "Origin: null"), b"GET / HTTP/1.1\r\n", b"HTTP/1.1 101 X\r\n"])
hostile = st.lists(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            frame,
            st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG, 3, 11]),
            st.binary(max_size=130),
            fin=st.booleans(),
            rsv=st.sampled_from([0, 0, 0, 4]),
            key=st.sampled_from([MASK, None]),
        ),
    ),
    max_size=12,
)


def held(records: WebSocketRecords) -> int:
    """Bytes that it keeps."""
    upgrade = records._upgrade
    return len(records._early) + len(records._reader._waiting) + len(records._unsent) + len(upgrade._head)


@pytest.mark.parametrize("make", [server, client, lambda: server_records(OPEN, None)], ids=["server", "client", "new"])
@given(heads, hostile)
def test_nothing_that_comes_raises_or_piles_up(
    make: Callable[[], WebSocketRecords], head: bytes, chunks: list[bytes]
) -> None:
    records = make()
    for chunk in (head, *chunks):
        stream = records.receive(chunk)
        assert len(stream) <= len(chunk) + 200
        records.went(len(records.take()))
        assert held(records) <= HEADER_SIZE + len(chunk)
        if records.error is not None:
            records.close()
            records.take()
            assert records.receive(frame(BINARY, b"after that")) == b""
            assert held(records) <= 14 + 125
            return


def test_pings_of_a_peer_that_reads_nothing_get_one_answer_when_it_does() -> None:
    records = server()
    records.send(bytes(2 * MAX_UNSENT))
    under_way = len(records.take())
    for number in range(100_000):
        records.receive(frame(PING, number.to_bytes(4, "big")))
        assert records.take() == b""
    assert records.went(under_way) == 2 * MAX_UNSENT
    assert records.take() == frame(PONG, (99_999).to_bytes(4, "big"), key=None)
    assert records.heard()
    assert not records.heard()


def test_a_head_without_end_is_refused_in_linear_time() -> None:
    records = server_records(OPEN, None)
    for _ in range(HEADER_SIZE):
        records.shake_hands(b"a")
        assert records.error is None
    records.shake_hands(b"a")
    assert isinstance(records.error, WebSocketError)
    assert records.take().startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("upgrade", [ServerUpgrade(OPEN), ClientUpgrade(WebSocketURL("ws://server.example"))])
def test_text_that_is_no_handshake_is_an_error(upgrade: ServerUpgrade | ClientUpgrade) -> None:
    upgrade.receive(b"EHLO mail.example\r\n\r\n")
    assert isinstance(upgrade.error, WebSocketError)


# What can be asked for.


def test_urls_are_taken_apart() -> None:
    url = WebSocketURL("wss://[::1]/devices/7?key=a%20b")
    assert (url.host, url.number, url.target, url.authority) == ("::1", 443, "/devices/7?key=a%20b", "[::1]")
    url = WebSocketURL("ws://server.example:8080")
    assert (url.host, url.number, url.target, url.authority) == (NAME, 8080, "/", f"{NAME}:8080")
    assert WebSocketURL("ws://server.example", 81).authority == f"{NAME}:81"
    url = WebSocketURL("ws://server.example")
    assert (url.number, url.authority) == (80, NAME)
    with pytest.raises(ValueError, match="one too many"):
        WebSocketURL("ws://server.example:80", 81)


def test_options_are_looked_at() -> None:
    assert options_of(False) is None
    assert options_of("auto") == WebSocketOptions(or_raw=True)
    with pytest.raises(ValueError, match="path='chat'"):
        WebSocketOptions(path="chat")
    with pytest.raises(TypeError, match="one string"):
        WebSocketOptions(origins="https://example.org")
    with pytest.raises(ValueError, match="ping_interval=-1"):
        WebSocketOptions(ping_interval=-1)


def test_without_wsproto_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetcore_sockets._websocket.options.find_spec", lambda name: None)
    network: object = None
    for ask in (lambda: options_of(True), lambda: dialler_to(network, "ws://server.example/", None)):  # type: ignore[arg-type]
        with pytest.raises(ImportError, match=r"packetcore-sockets\[websocket\]"):
            ask()


@pytest.mark.parametrize(
    ("asked", "options", "line", "said"),
    [
        (request("/b"), {"path": "/a"}, "404 Not Found", "there is nothing at '/b'"),
        (request("/", "Origin: https://evil.example"), {}, "403 Forbidden", "'https://evil.example' may not connect"),
        (request("/", "Origin: https://[bad"), {}, "403 Forbidden", "may not connect"),
        (request("/", "Origin: null"), {}, "403 Forbidden", "pages of 'null' may not connect"),
        (
            re.sub(b"Host: [^\r]*", b"Host:", request("/", "Origin: null")),
            {},
            "403 Forbidden",
            "pages of 'null' may not connect",
        ),
        (request("/"), {"require_subprotocol": True}, "400 Bad Request", "not for subprotocol 'packetcore'"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", {}, "426 Upgrade Required|400 Bad Request", ""),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * HEADER_SIZE,
            {},
            "431 Request Header Fields Too Large",
            "at most",
        ),
        (b"no request at all\r\n\r\n", {}, "400 Bad Request", ""),
    ],
)
def test_a_handshake_that_is_refused_is_answered_with_what_is_wrong(
    asked: bytes, options: dict[str, Any], line: str, said: str
) -> None:
    upgrade = ServerUpgrade(WebSocketOptions(**{"path": None, "origins": (), **options}))
    assert upgrade.receive(asked) == b""
    answer = upgrade.unsent.decode().split("\r\n")
    assert re.fullmatch(f"HTTP/1.1 ({line})", answer[0])
    assert answer[1] == "Connection: close"
    assert answer[-3:] == ["Content-Length: 0", "", ""]
    assert said in str(upgrade.error)
    assert str(upgrade.error) != "None"
    assert upgrade.info is None


def test_who_asks_for_another_version_is_told_ours() -> None:
    upgrade = ServerUpgrade(OPEN)
    upgrade.receive(request().replace(b"Version: 13", b"Version: 8"))
    answer = upgrade.unsent.decode().lower()  # as RFC 6455 has it, section 4.4
    assert answer.startswith("http/1.1 426 upgrade required\r\n")
    assert "\r\nsec-websocket-version: 13\r\n" in answer


def test_a_page_of_the_same_host_may_connect_and_both_sides_know_the_headers() -> None:
    url = WebSocketURL("ws://a.example/x?y", origin="http://a.example", headers={"X-Y": "z\xe9"}, subprotocol=None)
    asked = ClientUpgrade(url)
    assert b"Origin: http://a.example\r\n" in asked.unsent
    assert b"Sec-WebSocket-Protocol" not in asked.unsent
    heard = ServerUpgrade(WebSocketOptions(path="/x", origins=()))
    assert heard.receive(asked.unsent + b"behind") == b"behind"
    assert heard.info is not None
    assert (heard.info.origin, dict(heard.info.headers)["x-y"]) == ("http://a.example", "z\xe9")
    assert asked.receive(heard.unsent.replace(b"\r\n\r\n", b"\r\nServer: ours\r\n\r\n")) == b""
    assert asked.info is not None
    assert dict(asked.info.headers)["server"] == "ours"


def test_pings_are_sent_and_heard_only_while_the_conversation_is_open() -> None:
    assert server_records(WebSocketOptions(ping_interval=0.5), None).ping_interval == 0.5
    assert client_records(WebSocketURL("ws://a.example/", ping_interval=0.5), None, None).ping_interval == 0.5
    early = server_records(OPEN, None)
    early.ping()
    assert early.take() == b""
    records = server()
    records.ping()
    assert records.take() == frame(PING, key=None)
    records.receive(frame(BINARY, b"x"))
    assert not records.heard(), "data is a sign of life by itself"
    records.receive(frame(PONG))
    assert [records.heard(), records.heard()] == [True, False]
    records.receive(frame(TEXT, b"x"))
    records.ping()
    assert records.take() == b""
    closing = server()
    closing.close()
    closing.ping()
    assert closing.take() == close_frame(1000, key=None)


@pytest.mark.parametrize("going_away", [False, True])
def test_one_close_frame_says_why_and_of_what_comes_then_only_the_end_counts(going_away: bool) -> None:
    early = server_records(OPEN, None)
    early.close()
    assert early.take() == b""
    records = server()
    for _ in range(2):
        records.close(going_away=going_away)
    assert records.take() == close_frame(1001 if going_away else 1000, key=None)
    assert records.receive(frame(BINARY, b"under way")) == b"under way"
    assert records.receive(frame(TEXT, b"no matter")) == b""
    assert records.receive(frame(BINARY, b"behind it")) == b""
    assert (records.error, records.at_end) == (None, False)
    ended = server()
    ended.receive(close_frame())
    assert ended.at_end
    ended.close()
    assert ended.take() == close_frame(1000, key=None)


def test_what_comes_behind_a_handshake_in_pieces_is_kept_in_order() -> None:
    records = server_records(OPEN, None)
    records.shake_hands(request() + frame(BINARY, b"one")[:3])
    records.shake_hands(frame(BINARY, b"one")[3:])
    records.shake_hands(frame(BINARY, b"two"))
    assert records.receive(b"") == b"onetwo"


@pytest.mark.parametrize(
    ("sent", "says", "code"),
    [
        (frame(BINARY, b"", rsv=4), "a reserved bit is set", 1002),
        (frame(3), "opcode 0x3 is reserved", 1002),
        (frame(CLOSE, b"\x03\xe8", fin=False), "a control frame is in fragments", 1002),
        (frame(BINARY, key=None), "a client did not mask a frame", 1002),
        (frame(CLOSE, b"\x03\xe8" + bytes(124)), "a control frame has more than 125 bytes", 1002),
        (b"\x82\xfe\x00\x7d", "a length of 125 bytes is written in 2", 1002),
        (frame(TEXT), "the peer sent a text message", 1003),
        (frame(BINARY, fin=False) + frame(BINARY), "a message began within another", 1002),
        (frame(CONTINUATION), "a message has no beginning", 1002),
        (frame(CLOSE, b"\x03"), "a Close frame says why by no code", 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), "a Close frame says why in no UTF-8", 1007),
    ],
)
def test_the_rule_that_was_broken_is_named_and_told_by_its_code(sent: bytes, says: str, code: int) -> None:
    records = server()
    records.receive(sent)
    assert says in str(records.error)
    records.close()
    assert records.take() == close_frame(code, key=None)
    ours = client()
    ours.receive(frame(BINARY))
    assert "a server masked a frame" in str(ours.error)


def test_a_close_frame_has_one_of_the_codes_of_the_registry_and_125_bytes_at_most() -> None:
    known = []
    for code in (999, *range(1000, 1017), 2999, 3000, 3999, 4000, 4999, 5000, 0xFFFF):
        records = server()
        records.receive(close_frame(code))
        if records.at_end:
            known.append(code)
    assert known == [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
    records = server()
    records.receive(frame(CLOSE, b"\x03\xe8" + b"a" * 123))
    assert records.at_end
