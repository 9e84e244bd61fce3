"""Packets, frames and what is malformed, as one line of text.

Payloads come from strangers: what is printed of them is hex, or JSON text in which every
control character is escaped.
"""

from __future__ import annotations

import json

from packetcore import Address, Malformed, Packet

PREVIEW = 64
"""Bytes of a payload or a frame shown where many packets are listed: as much as a `Malformed` keeps."""


def packet_text(packet: Packet, limit: int | None = None) -> str:
    """The fields of a packet, its payload cut to `limit` bytes."""
    id, payload, type, count = packet
    head = f"id {id}  type {type}  count {count}  length {len(payload)}"
    return f"{head}  payload {bytes_text(payload, limit)}" if payload else head


def frame_text(frame: bytes, limit: int | None = None) -> str:
    """The length of a frame and its bytes in hex, cut to `limit`, and as text too if all can be read."""
    head = f"length {len(frame)}"
    if not frame:
        return head
    shown = frame[:limit]
    text = _readable(shown)
    as_text = "" if text is None else f"  text {_quoted(text)}"
    return f"{head}  hex {shown.hex(' ')}{as_text}{_more(shown, len(frame))}"


Content = Packet | bytes
"""What is sent and what comes: a packet, or a frame of another framing."""


def content_text(content: Content, limit: int | None = None) -> str:
    """A packet, or where another framing is spoken a frame."""
    return frame_text(content, limit) if isinstance(content, bytes) else packet_text(content, limit)


def malformed_text(malformed: Malformed) -> str:
    """Why bytes were refused, how many they are, and the first of them."""
    size = malformed.size
    return f"{malformed.reason.name}  {counted(size, 'byte')}  {bytes_text(malformed.sample, size=size)}"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 byte`, `2 bytes`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def bytes_text(data: bytes, limit: int | None = None, *, size: int | None = None) -> str:
    """Bytes as quoted text if all of them can be read, else in hex.

    Args:
        data: the bytes.
        limit: show at most so many; `None` for all.
        size: how many there were, where `data` is only the first of them.
    """
    shown = data[:limit]
    text = _readable(shown)
    return (shown.hex(" ") if text is None else _quoted(text)) + _more(shown, len(data) if size is None else size)


def address_text(address: Address) -> str:
    """An address as HOST:PORT, an IPv6 host in brackets and with its scope; that of a Unix socket as its
    path."""
    if len(address) == 1:
        return str(address[0] or "unix")
    host, port = address[:2]
    if len(address) == 4 and address[3] and "%" not in host:
        host = f"{host}%{address[3]}"
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _more(shown: bytes, size: int) -> str:
    return f" ... ({len(shown)} of {size} bytes)" if len(shown) < size else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _readable(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.translate({9: None, 10: None, 13: None}).isprintable() else None
