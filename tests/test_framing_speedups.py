"""The framings in C do what their Python twins do, whatever they are given, and let go of it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from packetcore import Malformed, Reason
from packetcore.framings import COBS, HDLC, SLIP, Check, Framing, LengthPrefix, _stuffing

speedups = pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")

from tests.framing_twins import KINDS, compare  # noqa: E402  it needs the extension

STUFFINGS = pytest.mark.parametrize("module", [speedups, _stuffing], ids=["C", "python"])


def with_check(module: Any, check: Check | None, max_frame: int = 100) -> Any:
    rules = module.Stuffing(0x7E, 0x7D, {0x7E: 2, 0x7D: 1}, check)
    return module.StuffingDecoder(rules, max_frame)


@pytest.mark.parametrize("kind", KINDS)
def test_both_take_streams_alike(kind: str) -> None:
    for seed in range(1_000):
        try:
            compare(kind, seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


@STUFFINGS
def test_a_check_that_raises_makes_a_frame_malformed_and_no_other(module: Any) -> None:
    def check(frame: bytes) -> bytes:
        return frame[:1] if len(frame) == 3 else frame[5:6] if frame[5] else b""

    decoder = with_check(module, Check(1, check))
    bad = Malformed(Reason.BAD_CHECK, 2, b"ab")
    assert decoder.feed(b"~abca~ab~abca~") == [b"abc", bad, b"abc"]


@STUFFINGS
def test_a_check_that_ends_the_program_does_so_and_the_decoder_begins_anew(module: Any) -> None:
    def check(frame: bytes) -> bytes:
        if frame == b"stop":
            raise KeyboardInterrupt
        return b"!"

    decoder = with_check(module, Check(1, check))
    decoder.feed(b"~sto")
    with pytest.raises(KeyboardInterrupt):
        decoder.feed(b"p!~")
    assert decoder.feed(b"~abc!~") == [b"abc"]


@pytest.mark.parametrize("cut", [0, 3])
def test_a_check_may_feed_the_very_decoder_that_asks_it(cut: int) -> None:
    fed: list[bytes] = []

    def check(frame: bytes) -> bytes:
        if len(fed) < 3:
            fed.append(frame)
            decoder.feed(b"~xy!~held")
        return b"!"

    decoder = with_check(speedups, Check(1, check))
    stream = b"~abc!~" * 3
    decoder.feed(stream[:cut])
    decoder.feed(stream[cut:])
    assert fed
    decoder.feed_eof()
    assert decoder.feed(b"~abc!~") == [b"abc"]


def test_what_was_escaped_leaves_no_more_room_than_a_seventh() -> None:
    decoder = with_check(speedups, None, 10_000)
    for plain, escaped in ((900, 100), (100, 900), (0, 1_000)):
        frame = b"a" * plain + b"~" * escaped
        [given] = decoder.feed(b"~" + frame.replace(b"~", b"}\x02") + b"~")
        assert given == frame
        assert sys.getsizeof(given) == sys.getsizeof(frame)
        assert hash(given) == hash(frame)


def test_only_stuffing_makes_a_decoder_of_it() -> None:
    python = _stuffing.Stuffing(0x7E, 0x7D, {0x7E: 2, 0x7D: 1}, None)
    with pytest.raises(TypeError, match="Stuffing"):
        speedups.StuffingDecoder(python, 10)
    with pytest.raises(ValueError, match="max_frame=0 is below 1"):
        speedups.COBSDecoder(0)
    with pytest.raises(ValueError, match="max_frame=0 is below 1"):
        speedups.LengthPrefixDecoder(4, "big", 0, 0, 0, 1, b"", 0)
    huge = speedups.COBSDecoder(1 << 100)
    assert huge.feed(b"\x02a\x00") == [b"a"]


@pytest.mark.parametrize("wrong", ["text", 5, None, [1]])
def test_a_feed_of_no_bytes_is_refused_and_changes_nothing(wrong: object) -> None:
    for decoder in (
        with_check(speedups, None),
        speedups.COBSDecoder(9),
        speedups.LengthPrefixDecoder(1, "big", 0, 0, 0, 1, b"", 9),
    ):
        decoder.feed(b"~\x02")
        pending = decoder.pending
        with pytest.raises(TypeError, match="bytes-like"):
            decoder.feed(wrong)
        assert decoder.pending == pending


def test_a_decoder_takes_no_more_memory_than_its_framing_says() -> None:
    framings: list[tuple[Framing, int]] = [
        (SLIP(), 2 * 1000 + 1),
        (HDLC(), 2 * (1000 + 4) + 1),
        (COBS(), 1000 + 1000 // 254 + 2),
        (LengthPrefix(), 4 + 1000),
    ]
    for framing, most in framings:
        decoder = framing.decoder(1000)
        empty = sys.getsizeof(decoder)
        for byte in framing.encode(b"a" * 1000)[:-1]:
            decoder.feed(bytes([byte]))
            assert sys.getsizeof(decoder) - empty <= most
        assert decoder.pending >= 1000
