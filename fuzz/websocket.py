"""WebSocket over memory: frames and handshakes however they are cut, with `wsproto` for another opinion."""

from __future__ import annotations

from contextlib import suppress

from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from fuzz.choices import Choices
from packetcore import masked
from packetcore._mask import masked as masked_in_python
from packetcore_sockets import WebSocketOptions
from packetcore_sockets._websocket.frames import FrameError, FrameReader, make_frame
from packetcore_sockets._websocket.options import WebSocketError, WebSocketURL
from packetcore_sockets._websocket.records import WebSocketRecords, client_records, server_records
from packetcore_sockets._websocket.upgrade import HEADER_SIZE

OPEN = WebSocketOptions(path=None, origins=None)
STRICT = WebSocketOptions(path="/meters", origins=("https://example.org",), require_subprotocol=True)
REQUEST = (
    b"GET /meters HTTP/1.1\r\nHost: server.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: packetcore\r\n\r\n"
)
MAX_WAITING = 14 + 125
"""Bytes: a head, and a control frame's payload."""

Control = list[tuple[int, bytes]]


def fuzz(data: bytes) -> None:
    """A byte for what is read and by whom, one for the cuts; then what comes."""
    choices = Choices(data)
    how = choices.byte()
    chunks = choices.chunks()
    match how % 4:
        case 0 | 1:
            _frames(chunks, is_client=how % 2 == 1)
        case 2:
            _records(server_records(OPEN if how & 4 else STRICT, None), [REQUEST, *chunks] if how & 8 else chunks)
        case 3:
            _records(client_records(WebSocketURL("ws://server.example/"), None, None), chunks)
    stream = b"".join(chunks)
    _gives_back(stream)
    assert masked(stream, bytes(range(how, how + 4)) if how < 252 else b"abcd") == masked_in_python(
        stream, bytes(range(how, how + 4)) if how < 252 else b"abcd"
    )


def _frames(chunks: list[bytes], *, is_client: bool) -> None:
    whole, ending = _read([b"".join(chunks)], is_client=is_client)
    assert _read(chunks, is_client=is_client) == (whole, ending)
    # What the other library refuses is refused, and nothing else is made of the rest.
    reader, other = FrameReader(is_client), FrameProtocol(is_client, [])
    stream: list[bytes] = []
    wanted, is_over = b"", False
    for chunk in chunks:
        refusal = theirs = None
        try:
            reader.receive(chunk, stream, [])
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
        assert refusal is not None or theirs is None
        if refusal is not None or is_over:
            return


def _read(chunks: list[bytes], *, is_client: bool) -> tuple[tuple[bytes, Control], tuple[str, int] | None]:
    """All that frames hold, and how they end where they are none."""
    reader = FrameReader(is_client)
    stream: list[bytes] = []
    control: Control = []
    for chunk in chunks:
        before = len(control)
        try:
            reader.receive(chunk, stream, control)
        except FrameError as error:
            return (b"".join(stream), control), (str(error), error.code)
        assert len(reader._waiting) <= MAX_WAITING
        if any(opcode == 8 for opcode, _ in control[before:]):
            break
    return (b"".join(stream), control), None


def _records(records: WebSocketRecords, chunks: list[bytes]) -> None:
    unsent = records.take()
    records.went(len(unsent))
    for chunk in chunks:
        stream = records.receive(chunk)
        assert len(stream) <= len(chunk) + MAX_WAITING + HEADER_SIZE
        records.went(len(records.take()))
        head = records._upgrade._head
        held = len(records._early) + len(records._reader._waiting) + len(records._unsent) + len(head)
        assert held <= HEADER_SIZE + len(chunk)
        if records.error is not None:
            assert isinstance(records.error, WebSocketError)
            records.close()
            records.take()
            assert records.receive(b"\x82\x01a") == b""
            return


def _gives_back(payload: bytes) -> None:
    for is_client in (False, True):
        stream: list[bytes] = []
        FrameReader(not is_client).receive(make_frame(2, payload, is_client=is_client), stream, [])
        assert b"".join(stream) == payload
    with suppress(FrameError):
        FrameReader(True).receive(make_frame(9, payload[:125], is_client=False), [], [])
