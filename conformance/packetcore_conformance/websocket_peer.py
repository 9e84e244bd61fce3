"""A raw peer by WebSocket, on either side: the very handshake, frames and cuts that a case wants.

It is written from RFC 6455 and shares nothing with what it tries.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from packetcore_conformance.peer import Peer
from packetcore_conformance.tls_peer import TLSPeer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The one of the RFC's example (section 1.3)."""

MASK = b"\x37\xfa\x21\x3d"
"""That of the RFC's examples (section 5.7)."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Frame(NamedTuple):
    """One frame that came."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a Close frame."""
        return int.from_bytes(self.payload[:2], "big")


def accept_token(key: str) -> str:
    """What a server answers to a key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()


def request(path: str = "/", *more: str, key: str = KEY) -> bytes:
    """A client's handshake; `more` are headers."""
    lines = [f"GET {path} HTTP/1.1", "Host: server.example", "Upgrade: websocket", "Connection: keep-alive, Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *more, "", ""]
    return "\r\n".join(lines).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes | None = MASK) -> bytes:
    """One frame, masked unless `key` is `None`."""
    size = len(payload)
    mask = 0 if key is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 1 << 16:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    if key is None:
        return head + payload
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def close_frame(code: int = 1000, *, key: bytes | None = MASK) -> bytes:
    """A Close frame with a status code."""
    return frame(CLOSE, code.to_bytes(2, "big"), key=key)


class WebSocketPeer:
    """Speaks WebSocket by a raw peer.

    Args:
        peer: connected.
    """

    def __init__(self, peer: Peer | TLSPeer) -> None:
        self.peer = peer
        self.send = peer.send

    def receive_head(self) -> str:
        """Receive the head of a request or an answer."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.peer.receive(1)
        return head.decode()

    def ask(self, path: str = "/", *more: str) -> str:
        """Shake hands as a client; give what the server answers."""
        self.send(request(path, *more))
        return self.receive_head()

    def answer(self, *more: str) -> str:
        """Shake hands as a server; give what the client asked."""
        asked = self.receive_head()
        key = next(
            line.partition(": ")[2] for line in asked.split("\r\n") if line.lower().startswith("sec-websocket-key")
        )
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept_token(key)}", *more, "", ""]
        self.send("\r\n".join(lines).encode())
        return asked

    def receive(self) -> Frame:
        """Receive one frame; one that is masked is unmasked."""
        first, second = self.peer.receive(2)
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self.peer.receive(2 if size == 126 else 8), "big")
        key = self.peer.receive(4) if second & 0x80 else bytes(4)
        payload = self.peer.receive(size)
        return Frame(first & 0x0F, bytes(byte ^ key[at % 4] for at, byte in enumerate(payload)))

    def receive_stream(self, size: int) -> bytes:
        """Receive binary messages until they hold so many bytes."""
        stream = b""
        while len(stream) < size:
            opcode, payload = self.receive()
            assert opcode == BINARY
            stream += payload
        return stream

    def wait_closed(self) -> None:
        """Read on until the other side is gone, in good order or not."""
        self.peer.wait_closed()
