"""Hypothesis strategies for packets, frames and byte streams, sound and hostile.

Each leans towards what breaks decoders: flag and escape bytes in every field, the edges of
every range, lengths that are one off, and cuts inside escapes and headers. They build bad
frames by hand, from the wire format alone, and use the codec for sound ones only.

`max_payload` is in bytes and should be what the decoder under test was given; small ones
find more, since every limit is then within reach.
"""

from __future__ import annotations

import functools
import itertools
import struct

from hypothesis import strategies as st

from packetcore import Packet, encode

FLAG = b"\xfe"
ESCAPE = b"\xfd"
SPECIAL = b"\xfd\xfe\x01\x02\x00\xff"
"""Bytes that mean something, would mean something if they stood elsewhere, or are an edge."""

_TO_SPECIAL = bytes(SPECIAL[byte % len(SPECIAL)] for byte in range(256))

_EDGES = [0, 1, 2, 0xFD, 0xFE, 0xFF, 0x01FD, 0xFD01, 0xFD02, 0xFDFD, 0xFDFE, 0xFEFD, 0xFEFE, 0xFFFF]


def _field(largest: int) -> st.SearchStrategy[int]:
    """A header field: often one that needs escaping or lies at an edge."""
    return st.sampled_from([value for value in _EDGES if value <= largest]) | st.integers(0, largest)


ids = _field(0xFFFF)
"""Any id, 0 to 65535."""

types = _field(0xFF)
"""Any type, 0 to 255."""

counts = _field(0xFFFF)
"""Any count, 0 to 65535."""


def special_bytes(max_size: int) -> st.SearchStrategy[bytes]:
    """Bytes of `SPECIAL` only, at most `max_size` of them."""
    return st.binary(max_size=max_size).map(lambda data: data.translate(_TO_SPECIAL))


def payloads(max_size: int = 64) -> st.SearchStrategy[bytes]:
    """Any payload of at most `max_size` bytes, often one that is all escapes once sent."""
    full = st.sampled_from([FLAG * max_size, ESCAPE * max_size, b"\x00" * max_size, FLAG * (max_size // 2)])
    return special_bytes(max_size) | st.binary(max_size=max_size) | full


def packets(max_payload: int = 64) -> st.SearchStrategy[Packet]:
    """Any packet whose payload has at most `max_payload` bytes."""
    return st.builds(Packet, ids, payloads(max_payload), type=types, count=counts)


def frames(max_payload: int = 64) -> st.SearchStrategy[bytes]:
    """A sound frame with both its flags."""
    return packets(max_payload).map(encode)


def _escape(plain: bytes) -> bytes:
    return plain.replace(b"\xfd", b"\xfd\x02").replace(b"\xfe", b"\xfd\x01")


def headers(lengths: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """The nine plain bytes of a header, its length field drawn from `lengths`."""
    return st.builds(struct.Struct(">HBHI").pack, ids, types, counts, lengths)


def oversize_headers(max_payload: int = 64) -> st.SearchStrategy[bytes]:
    """An escaped header, without a flag, that announces more than `max_payload`."""
    above = max_payload + 1
    lengths = st.sampled_from([above, max(above, 0xFDFEFDFE), max(above, 0xFEFEFEFE), 0xFFFFFFFF])
    return headers(lengths | st.integers(above, 0xFFFFFFFF)).map(_escape)


def bad_escapes(max_payload: int = 64) -> st.SearchStrategy[bytes]:
    """A frame in which something other than 01 or 02 follows an FD; it may be the flag."""
    return _bad_escapes(frames(max_payload))


@st.composite
def _bad_escapes(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    body = draw(sound)[1:-1]
    at = draw(st.integers(0, len(body)))
    follower = draw(st.sampled_from([b"\x00", b"\x03", b"\xfd", b"\xff", b""]))
    return FLAG + body[:at] + ESCAPE + follower + (body[at:] if follower else b"") + FLAG


def wrong_lengths(max_payload: int = 64) -> st.SearchStrategy[bytes]:
    """A frame whose length field differs from the length of its payload."""
    lengths = st.sampled_from([-1, 0, 1, max_payload, max_payload + 1]) | st.integers(0, max_payload)
    return st.builds(_with_wrong_length, packets(max_payload), lengths, st.booleans())


def _with_wrong_length(packet: Packet, length: int, relative: bool) -> bytes:
    size = len(packet.payload)
    announced = size + length if relative else length
    if announced < 0 or announced == size:
        announced = size + 1
    header = struct.pack(">HBHI", packet.id, packet.type, packet.count, announced)
    return FLAG + _escape(header + packet.payload) + FLAG


def past_the_bound(max_payload: int = 64) -> st.SearchStrategy[bytes]:
    """A frame of more than `2 * (max_payload + 9)` bytes between its flags, which no header
    announces: its length field is within the limit or cannot be read."""
    bound = 2 * (max_payload + 9)
    starts = headers(st.integers(0, max_payload)).map(_escape) | st.just(b"\xfd\xfd")
    fillers = st.sampled_from([b"\xfd\x01", b"\xfd", b"\x00", b"\xfd\x02"])
    return st.builds(
        lambda start, filler, over: FLAG + (start + filler * bound)[: bound + over] + FLAG,
        starts,
        fillers,
        st.integers(1, 6),
    )


def too_short() -> st.SearchStrategy[bytes]:
    """A frame with less between its flags than a header takes."""
    return st.binary(min_size=1, max_size=8).map(lambda plain: FLAG + _escape(plain) + FLAG)


def malformed_frames(max_payload: int = 64) -> st.SearchStrategy[bytes]:
    """A frame, with both its flags and none between them, that is no packet."""
    oversize = st.builds(
        lambda header, rest: FLAG + header + _escape(rest) + FLAG, oversize_headers(max_payload), payloads(8)
    )
    return st.one_of(
        bad_escapes(max_payload), too_short(), wrong_lengths(max_payload), oversize, past_the_bound(max_payload)
    )


_any_byte = st.sampled_from(SPECIAL) | st.integers(0, 255)
_damage = st.sampled_from(["change", "insert", "delete"])


@st.composite
def corrupted(draw: st.DrawFn, data: bytes) -> tuple[bytes, int]:
    """`data` with one byte changed, inserted or deleted, and where: `(result, index)`.

    An inserted byte stands before the one that had that index. `data` must not be empty.
    """
    at = draw(st.integers(0, len(data) - 1))
    damage = draw(_damage)
    byte = b"" if damage == "delete" else bytes([draw(_any_byte)])
    return data[:at] + byte + data[at + (damage != "insert") :], at


def streams(max_payload: int = 64, max_pieces: int = 8) -> st.SearchStrategy[bytes]:
    """The bytes of one stream: sound frames, near misses, noise and stray flags, in any
    order, sometimes damaged once more as a whole."""
    return _streams(_pieces(max_payload, max_pieces))


@functools.cache  # building a strategy costs more than drawing from it
def _pieces(max_payload: int, max_pieces: int) -> st.SearchStrategy[list[bytes]]:
    sound = frames(max_payload)
    malformed = malformed_frames(max_payload)
    cut_short = st.builds(lambda frame, missing: frame[:-missing], sound, st.integers(1, 12))
    piece = st.one_of(
        sound,
        sound,
        sound.map(lambda frame: frame[1:]),  # its opening flag is the last frame's closing one
        malformed,
        malformed,
        cut_short,
        oversize_headers(max_payload).map(lambda header: FLAG + header),
        st.sampled_from([FLAG, FLAG * 3, ESCAPE]),
        special_bytes(2 * (max_payload + 9)),
        st.binary(max_size=16),
    )
    return st.lists(piece, max_size=max_pieces)


_damages = st.sampled_from([0, 0, 1, 3])


@st.composite
def _streams(draw: st.DrawFn, pieces: st.SearchStrategy[list[bytes]]) -> bytes:
    stream = b"".join(draw(pieces))
    for _ in range(draw(_damages) if stream else 0):
        stream, _at = draw(corrupted(stream or FLAG))
    return stream


@st.composite
def chunked(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` as the chunks in which it might arrive, some of them empty: whole, byte by
    byte, or cut where it hurts: beside flags, inside escapes, inside headers."""
    how = draw(st.sampled_from(["whole", "bytes", "cut", "cut", "cut"]))
    if how == "whole" or not data:
        return [data]
    if how == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    beside = [at for at, byte in enumerate(data) if byte in (0xFD, 0xFE)]
    delicate = [at + step for at in beside for step in (0, 1, 2, 9, 10) if at + step <= len(data)]
    places = st.integers(0, len(data))
    if delicate:
        places = st.sampled_from(delicate) | places
    cuts = [0, *sorted(draw(st.lists(places, max_size=12))), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(cuts)]
