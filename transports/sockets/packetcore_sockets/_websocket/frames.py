"""The frames of WebSocket (RFC 6455, section 5), without extensions: made and read as bytes come.

`wsproto` has them too. But every message went through several objects and was copied six times on its way,
which cost more than all else that a packet costs; here it is copied twice.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum

from packetcore import masked

Bytes = bytes | bytearray | memoryview

BINARY, TEXT, CONTINUATION, CLOSE, PING, PONG = 0x2, 0x1, 0x0, 0x8, 0x9, 0xA
"""Opcodes (section 5.2)."""

MAX_CONTROL = 125
"""Bytes of payload that a control frame may have (section 5.5)."""

_FIN, _RESERVED, _MASKED = 0x80, 0x70, 0x80


class CloseCode(IntEnum):
    """Why a connection is closed (section 7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007


class FrameError(Exception):
    """The peer broke the rules.

    Args:
        why: which.
        code: what to tell it.
    """

    def __init__(self, why: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(why)
        self.code = code


def make_frame(opcode: int, payload: Bytes, *, is_client: bool) -> bytes:
    """One frame that is a whole message, or a control frame.

    Args:
        opcode: what it is.
        payload: at most `MAX_CONTROL` bytes in a control frame.
        is_client: whether a client sends it, which has to mask it.
    """
    size = len(payload)
    mask = _MASKED if is_client else 0
    if size <= 125:
        head = bytes((_FIN | opcode, mask | size))
    elif size <= 0xFFFF:
        head = struct.pack("!BBH", _FIN | opcode, mask | 126, size)
    else:
        head = struct.pack("!BBQ", _FIN | opcode, mask | 127, size)
    if not is_client:
        return b"".join((head, payload))
    key = os.urandom(4)
    return b"".join((head, key, masked(payload, key)))


class FrameReader:
    """Reads the frames of one peer, cut anywhere. What waits in it is less than one frame's head and
    `MAX_CONTROL` bytes, whatever sizes the peer names.

    Args:
        is_client: which side this is; the peer is the other, and only clients mask.
    """

    def __init__(self, is_client: bool) -> None:
        self._is_client = is_client
        self._waiting = b""  # of a head, or of a control frame
        self._left = 0  # bytes that the data frame under way has still
        self._key: bytes | None = None  # what masks them
        self._in_message = False  # its last frame is to come

    def receive(self, data: bytes, stream: list[bytes], control: list[tuple[int, bytes]]) -> None:
        """Take what came.

        Args:
            data: the bytes.
            stream: gets what binary messages hold of it.
            control: gets opcode and payload of control frames. After a Close nothing more is read.

        Raises:
            FrameError: the peer broke the rules; what is before that was given, and nothing may come after it.
        """
        if self._waiting:
            data = self._waiting + data
        at, size = 0, len(data)
        while True:
            if self._left:
                at = self._read_payload(data, at, stream)
                if self._left or at == size:
                    break
            body, length, key = self._read_head(data, at)
            if not body:
                break
            opcode = data[at] & 0x0F
            if opcode < CLOSE:
                self._begin(opcode, bool(data[at] & _FIN))
                self._left, self._key = length, key
                at = body
                continue
            if size - body < length:
                break
            at = body + length
            payload = data[body:at] if key is None else masked(data[body:at], key)
            control.append((opcode, payload))
            if opcode == CLOSE:
                _check_close(payload)
                at = size
                break
        self._waiting = data[at:]

    def _read_payload(self, data: bytes, at: int, stream: list[bytes]) -> int:
        end = min(len(data), at + self._left)
        length = end - at
        if not length:
            return at
        piece = data if length == len(data) else data[at:end]
        self._left -= length
        if self._key is not None:
            piece = masked(piece, self._key)
            turned = length % 4
            self._key = self._key[turned:] + self._key[:turned]
        stream.append(piece)
        return end

    def _read_head(self, data: bytes, at: int) -> tuple[int, int, bytes | None]:
        """Where the payload begins, how long it is and what masks it; the first is 0 while the head is not
        there as a whole."""
        size = len(data) - at
        if not size:
            return 0, 0, None
        first = data[at]
        opcode = first & 0x0F
        if first & _RESERVED:
            raise FrameError("a reserved bit is set, as of a compressed message, and no extension was agreed on")
        if opcode not in (BINARY, CONTINUATION, TEXT, CLOSE, PING, PONG):
            raise FrameError(f"opcode {opcode:#x} is reserved")
        if opcode >= CLOSE and not first & _FIN:
            raise FrameError("a control frame is in fragments")
        if size < 2:
            return 0, 0, None
        second = data[at + 1]
        if bool(second & _MASKED) is self._is_client:
            raise FrameError("a server masked a frame" if self._is_client else "a client did not mask a frame")
        length, body = second & 0x7F, at + 2
        if opcode >= CLOSE and length > MAX_CONTROL:
            raise FrameError(f"a control frame has more than {MAX_CONTROL} bytes")
        if length >= 126:
            width, shortest = (2, 126) if length == 126 else (8, 0x10000)
            if size < 2 + width:
                return 0, 0, None
            body += width
            length = int.from_bytes(data[at + 2 : body], "big")
            if length < shortest or length >> 63:
                raise FrameError(f"a length of {length} bytes is written in {width}")
        if self._is_client:
            return body, length, None
        if len(data) - body < 4:
            return 0, 0, None
        return body + 4, length, data[body : body + 4]

    def _begin(self, opcode: int, is_last: bool) -> None:
        """A data frame."""
        if opcode == TEXT:
            raise FrameError("the peer sent a text message", CloseCode.UNSUPPORTED_DATA)
        if (opcode == CONTINUATION) is not self._in_message:
            raise FrameError("a message began within another" if self._in_message else "a message has no beginning")
        self._in_message = not is_last


def _check_close(payload: bytes) -> None:
    """See that a Close frame says why by the rules, or not at all (section 7.4)."""
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    is_known = (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999
    if len(payload) == 1 or not is_known:
        raise FrameError("a Close frame says why by no code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise FrameError("a Close frame says why in no UTF-8", CloseCode.INVALID_DATA) from None
