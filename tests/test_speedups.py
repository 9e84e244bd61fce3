"""The codec in C says what its Python twin says, whatever it is given, and lets go of it."""

from __future__ import annotations

import array
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from runpy import run_path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Malformed, Packet, Reason, _built
from packetcore._codec import encode as python_encode
from packetcore._decoder import Decoder as PythonDecoder
from packetcore._output import Output as PythonOutput
from packetcore_conformance.strategies import chunked, packets, special_bytes, streams
from tests.hostile import hostile_stream, random_chunks

speedups = pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")

limits = st.sampled_from([0, 1, 8, 40])
FRAME = python_encode(Packet(16, b"\x01\xfe\xfd" * 30))


def outcome(function: Callable[..., object], *arguments: object) -> object:
    """What a call gives or raises, to be compared."""
    try:
        value = function(*arguments)
    except Exception as error:
        return type(error), str(error)
    return value


def assert_alike(chunks: list[bytes], max_payload: int) -> None:
    """Both decoders give the same events, of the same types, and hold the same after each chunk."""
    c, python = speedups.Decoder(max_payload=max_payload), PythonDecoder(max_payload=max_payload)
    for chunk in chunks:
        events, expected = c.feed(chunk), python.feed(chunk)
        assert events == expected
        assert [type(event) for event in events] == [type(event) for event in expected]
        assert c.pending == python.pending
    assert c.feed_eof() == python.feed_eof()
    assert c.pending == 0


@given(st.data(), limits)
def test_both_decode_alike_whole_and_in_chunks(data: st.DataObject, max_payload: int) -> None:
    stream = data.draw(streams(max_payload) | special_bytes(300) | st.binary(max_size=300))
    assert_alike([stream], max_payload)
    assert_alike(data.draw(chunked(stream)), max_payload)


@pytest.mark.parametrize("seed", range(300))
def test_both_decode_hostile_streams_alike(seed: int) -> None:
    rng = random.Random(seed)
    max_payload = rng.choice([0, 1, 8, 40, 300, 5_000])
    stream, _ = hostile_stream(rng, max_payload)
    assert_alike([stream], max_payload)
    assert_alike(list(random_chunks(rng, stream)), max_payload)


@pytest.mark.parametrize("size", [*range(64, 140, 5), 255, 256, 257, 1_000, 1_001, 70_000, 1 << 20])
@pytest.mark.parametrize("chunk", [1 << 12, 1 << 16, 1 << 30])
@pytest.mark.parametrize("alphabet", [bytes(range(256)), b"\x00", b"\xfe", b"\xfd\x00", b"\xfd\x01\x02\xfe"])
def test_both_decode_and_encode_long_payloads_alike(size: int, chunk: int, alphabet: bytes) -> None:
    rng = random.Random(size)
    packet = Packet(1, bytes(rng.choices(alphabet, k=size)))
    stream = python_encode(packet) * 2
    assert speedups.encode(packet) * 2 == stream
    broken = bytearray(stream)
    broken[rng.randrange(len(stream) // 2)] ^= 1 << rng.randrange(8)
    for data in (stream, bytes(broken)):
        assert_alike([data[at : at + chunk] for at in range(0, len(data), chunk)], 1 << 20)


@given(packets() | st.binary(max_size=400).map(lambda payload: Packet(0xFDFE, payload, type=0xFD, count=0xFEFD)))
def test_both_encode_alike(packet: Packet) -> None:
    assert speedups.encode(packet) == python_encode(packet)


@pytest.mark.parametrize("odd", [b"abcd1", None, "text", [1, b"ab"], Malformed(Reason.NOISE, 1, b"a")])
def test_both_encode_nothing_but_packets(odd: object) -> None:
    for encode in (speedups.encode, python_encode):
        with pytest.raises(TypeError, match=rf"encode\(\) takes a Packet, not {type(odd).__name__}"):
            encode(odd)  # type: ignore[arg-type]


SOME = packets(max_payload=20)


@given(st.lists(SOME | st.lists(SOME, max_size=4) | st.sampled_from(["take", "join"]), max_size=12), st.booleans())
def test_both_outputs_alike(steps: list[Packet | list[Packet] | str], own_framing: bool) -> None:
    def framing(packet: Packet) -> bytes:
        return packet.payload + b"|"

    outputs = [
        speedups.Output(framing if own_framing else speedups.encode, 10),
        PythonOutput(framing if own_framing else python_encode, 10),
    ]
    for step in steps:
        method, arguments = (step, []) if isinstance(step, str) else ("put", [step])
        if isinstance(step, list):
            method = "put_all"
        c, python = (outcome(getattr(output, method), *arguments) for output in outputs)
        assert c == python
        c, python = ((output.size, output.packets, output.bytes, output.taken) for output in outputs)
        assert c == python


@pytest.mark.parametrize("odd", [b"abc", None, (1, b"", 0, 1)])
def test_both_outputs_take_nothing_but_packets_and_frames_that_are_bytes(odd: object) -> None:
    for output in (speedups.Output(speedups.encode, 10), PythonOutput(python_encode, 10)):
        with pytest.raises(TypeError, match=f"only a Packet can be sent, not {type(odd).__name__}"):
            output.put(odd)
        assert (output.size, output.packets) == (0, 0)
    with pytest.raises(TypeError, match="encode\\(\\) must give bytes, not str"):
        speedups.Output(lambda packet: "text", 10).put(Packet(1))


@pytest.mark.parametrize("odd", ["text", None, 7, [1], object()])
def test_both_refuse_what_is_not_bytes_and_stay_as_they_were(odd: object) -> None:
    for decoder in (speedups.Decoder(), PythonDecoder()):
        assert decoder.feed(FRAME[:20]) == []
        with pytest.raises(TypeError, match="bytes-like"):
            decoder.feed(odd)  # type: ignore[arg-type]
        assert decoder.pending == 19
        assert decoder.feed(FRAME[20:]) == [Packet(16, b"\x01\xfe\xfd" * 30)]


@pytest.mark.parametrize(
    "max_payload", [-1, 0, 1 << 32, (1 << 32) - 1, 1 << 80, -1 << 80, "8"], ids=lambda value: str(value)[:12]
)
def test_both_take_the_same_limits(max_payload: object) -> None:
    def message(decoder: Callable[..., object]) -> object:
        try:
            decoder(max_payload=max_payload)
        except ValueError as error:
            return str(error)
        except TypeError as error:
            return type(error)
        return None

    assert message(speedups.Decoder) == message(PythonDecoder)


def test_both_have_the_same_limit_unless_told_otherwise() -> None:
    for size in (1 << 20, (1 << 20) + 1):
        assert_alike([python_encode(Packet(1, bytes(size)))], 1 << 20)
        frame = python_encode(Packet(1, bytes(size)))
        assert speedups.Decoder().feed(frame) == PythonDecoder().feed(frame)


def test_a_packet_made_in_c_is_a_packet_like_any_other() -> None:
    packet = Packet(1000, b"payload", type=7, count=300)
    [made] = speedups.Decoder().feed(python_encode(packet))
    assert type(made) is Packet
    assert (made, hash(made), repr(made)) == (packet, hash(packet), repr(packet))
    assert pickle.loads(pickle.dumps(made)) == packet
    assert [type(value) for value in made] == [int, bytes, int, int]
    assert sys.getsizeof(made) == 32


@pytest.mark.parametrize("data", [FRAME, b"\xfe\x01\xfe", b"\xfe\xfd\xfe", b"", b"\x00", FRAME[:30]], ids=repr)
def test_a_buffer_is_let_go_of(data: bytes) -> None:
    buffer = bytearray(data)
    speedups.Decoder().feed(buffer)
    buffer += b"x"  # a buffer that someone holds cannot change its size


def test_a_buffer_with_gaps_or_wide_items_is_read_as_bytes() -> None:
    with_gaps = memoryview(bytes(byte for pair in zip(FRAME, bytes(len(FRAME)), strict=True) for byte in pair))[::2]
    wide = memoryview(array.array("H", FRAME + b"\xfe" * (len(FRAME) % 2)))
    for data in (with_gaps, wide):
        assert speedups.Decoder().feed(data) == PythonDecoder().feed(data) == [Packet(16, b"\x01\xfe\xfd" * 30)]


def test_a_header_alone_sets_little_aside() -> None:
    decoder = speedups.Decoder()
    empty = sys.getsizeof(decoder)
    decoder.feed(b"\xfe\x00\x10\x00\x00\x01\x00\x10\x00\x00")
    assert sys.getsizeof(decoder) - empty <= 1 << 16


def test_a_decoder_can_be_subclassed_and_begun_anew() -> None:
    class Mine(speedups.Decoder):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(max_payload=2)

    decoder = Mine()
    assert decoder.feed(python_encode(Packet(1, b"abc")))[0] == Malformed(
        Reason.TOO_LONG, 9, bytes.fromhex("000100000100000003")
    )
    decoder.feed(b"\x00" * 5)
    Mine.__init__(decoder)
    assert (decoder.pending, decoder.feed(python_encode(Packet(1, b"ab")))) == (0, [Packet(1, b"ab")])


def test_a_decoder_fed_from_within_its_own_feed_stays_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = speedups.Decoder()
    inner: list[object] = []

    def __init__(self: Malformed, reason: Reason, size: int, sample: bytes) -> None:  # noqa: N807
        inner.extend(decoder.feed(FRAME + FRAME[:40]))

    monkeypatch.setattr(Malformed, "__init__", __init__)
    events = decoder.feed(b"\xfe\x01\xfe" + FRAME + FRAME)
    assert inner
    assert len(events) >= 2


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


WHICH = "import packetcore; print(packetcore.speedups, packetcore.Decoder.__module__, packetcore.encode.__module__)"


def test_the_codec_in_c_is_used_where_it_is_there() -> None:
    assert run(WHICH, PACKETCORE_PURE="") == "True packetcore._speedups packetcore._speedups"


def test_the_one_in_python_is_used_where_it_is_asked_for_or_the_other_is_not_built() -> None:
    in_python = "False packetcore._decoder packetcore._codec"
    assert run(WHICH, PACKETCORE_PURE="1") == in_python
    assert run(f"import sys; sys.modules['packetcore._speedups'] = None; {WHICH}", PACKETCORE_PURE="") == in_python


def test_without_the_extension_python_is_used_and_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKETCORE_PURE", "0")
    monkeypatch.setitem(sys.modules, "packetcore._speedups", None)
    assert run_path(_built.__file__)["speedups"] is False
