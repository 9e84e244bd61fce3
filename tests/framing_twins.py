"""The framings in C beside those in Python: random streams that both have to take alike."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from packetcore import _speedups as speedups
from packetcore.framings import Check, Decoder, _check, _prefix, _stuffing, _zeros

Random = random.Random
Feed = Callable[[Random], bytes]

STUFFINGS: list[tuple[int, int, dict[int, int], int]] = [
    (0xC0, 0xDB, {0xC0: 0xDC, 0xDB: 0xDD}, 0),
    (0x7E, 0x7D, {0x7E: 0x5E, 0x7D: 0x5D}, 0x20),
    (0x7E, 0x7D, {0x7E: 2, 0x7D: 0x7D, 0x11: 3}, 0),
    (0xFE, 0xFD, {0xFE: 1, 0xFD: 2}, 0),
]
"""Flag, escape, codes, and what codes are XORed with."""


def compare(kind: str, seed: int) -> None:
    """Hold one pair of twins to each other."""
    KINDS[kind](Random(seed))


def feed_both(rng: Random, c: Decoder, python: Decoder, sound: Feed, letters: bytes) -> None:
    """Feed both decoders the same pieces of sound frames and of anything, and end them at times."""
    for _ in range(rng.randrange(1, 40)):
        action = rng.randrange(16)
        if action == 0:
            assert c.feed_eof() == python.feed_eof()
        elif action == 1:
            assert c.feed_timeout() == python.feed_timeout()
        else:
            size = rng.choice([0, 1, 1, 2, 3, 5, 8, 13, 40, 100, 300, 600])
            data = (
                sound(rng)
                if action < 9
                else bytes(rng.choices(letters, k=size))
                if action < 14
                else rng.randbytes(size)
            )
            if action % 4 == 0:
                data = data[: rng.randrange(len(data) + 1)]
            # A bytes object has a byte more than it shows; this has none.
            exact = memoryview(bytearray(data + b"\x00"))[: len(data)]
            assert c.feed(exact) == python.feed(data)
        assert c.pending == python.pending


def compare_stuffing(rng: Random) -> None:
    flag, escape, codes, xor = rng.choice(STUFFINGS)
    size, name = rng.choice([(0, ""), (0, ""), (2, "fcs16"), (4, "fcs32"), (2, "crc16_modbus"), (1, "xor"), (1, "sum")])
    checks: list[Check | None] = [None, None]
    if name == "sum":
        checks = [Check(1, lambda frame: bytes([sum(frame) & 0xFF]) if len(frame) % 7 else b"!!")] * 2
    elif name:
        checks = [Check(size, getattr(module, name)) for module in (speedups, _check)]
    opens = rng.random() < 0.5
    c = speedups.Stuffing(flag, escape, codes, checks[0], xor, opens)
    python = _stuffing.Stuffing(flag, escape, codes, checks[1], xor, opens)
    letters = bytes([flag, escape, *codes.values(), *b"\x11ABCDEF"])

    def sound(rng: Random) -> bytes:
        frame = bytes(rng.choices(letters, k=rng.randrange(1, rng.choice([10, 70, 400, 3000]))))
        if name == "sum" and len(frame) % 7 == 0:
            frame += b"A"
        sent: bytes = c.encode(frame)
        assert sent == python.encode(frame)
        return sent

    max_frame = rng.choice([1, 4, 40, 300, 5000])
    decoder = speedups.StuffingDecoder(c, max_frame)
    feed_both(rng, decoder, _stuffing.StuffingDecoder(python, max_frame), sound, letters)


def compare_cobs(rng: Random) -> None:
    reduced = rng.random() < 0.5
    encode = speedups.encode_cobsr if reduced else speedups.encode_cobs
    expected = _zeros.encode_cobsr if reduced else _zeros.encode_cobs

    def sound(rng: Random) -> bytes:
        letters = range(rng.choice([0, 0, 1, 2]), rng.choice([3, 256]))
        frame = bytes(rng.choices(letters, k=rng.choice([0, 1, 2, 5, 253, 254, 255, 508, 509, 900])))
        sent: bytes = encode(frame)
        assert sent == expected(frame)
        return sent

    max_frame = rng.choice([1, 4, 40, 300, 5000])
    decoder = speedups.COBSDecoder(max_frame, reduced)
    feed_both(rng, decoder, _zeros.COBSDecoder(max_frame, reduced), sound, b"\x00\x00\x01\x02\x03\xff\xfe\x07\x1e")


def compare_prefix(rng: Random) -> None:
    size: Any = rng.choice([1, 2, 3, 4, 8, "varint"])
    byteorder: Any = rng.choice(["big", "little"])
    magic = rng.choice([b"", b"", b"\xca", b"\x00\x01", b"aab"])
    before = len(magic) + rng.choice([0, 0, 3])
    adjust = rng.choice([0, 0, 1, -1, -3, 5, 1 << 31, -(1 << 31)])
    arguments = (size, byteorder, before, adjust, rng.random() < 0.4, rng.random() < 0.5, magic)

    def sound(rng: Random) -> bytes:
        following = rng.randrange(20)
        field = bytes([following]) if size == "varint" else following.to_bytes(size, byteorder)
        return magic + bytes(before - len(magic)) + field + rng.randbytes(following)

    max_frame = rng.choice([1, 5, 40, 300])
    decoder = speedups.LengthPrefixDecoder(*arguments, max_frame)
    feed_both(
        rng, decoder, _prefix.LengthPrefixDecoder(*arguments, max_frame), sound, b"\x00\x00\x01\x02\xcaab\x80\xff\x05"
    )


def compare_checks(rng: Random) -> None:
    data = rng.randbytes(
        rng.choice([0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 80, 127, 255, 256, 320, rng.randrange(4_000)])
    )
    for name in ("fcs16", "fcs32", "crc16_modbus", "xor"):
        assert getattr(speedups, name)(data) == getattr(_check, name)(data)


KINDS: dict[str, Callable[[Random], None]] = {
    "stuffing": compare_stuffing,
    "COBS": compare_cobs,
    "length prefix": compare_prefix,
    "checks": compare_checks,
}
