"""What the fuzzers run over, here without one: each input in `fuzz/corpus`, and what they found, each by its name.

`make fuzz` looks for more (`docs/testing.md`).
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz import TARGETS

pytest.importorskip("packetcore._speedups", reason="the extension in C is not built")

from fuzz.implementations import in_c, in_python
from fuzz.planted import BUGS, Bug, plant
from packetcore import speedups

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"

pytestmark = pytest.mark.skipif(not speedups, reason="PACKETCORE_PURE: both run here")

each_core = pytest.mark.parametrize("core", [pytest.param(in_c, id="C"), pytest.param(in_python, id="python")])
Core = Callable[[], Any]


def files(name: str) -> list[Path]:
    found = sorted((CORPUS / name).iterdir())
    assert found
    return found


@pytest.mark.parametrize("name", [name for name, ways in TARGETS.items() if "compiled" in ways])
def test_the_corpus_breaks_no_law_in_c(name: str) -> None:
    target = importlib.import_module(f"fuzz.{name}").fuzz
    for file in files(name):
        try:
            target(file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{file.relative_to(ROOT)}") from error


def test_the_corpus_breaks_no_law_in_python() -> None:
    done = over_the_corpus(*(name for name, ways in TARGETS.items() if "pure" in ways), PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, "")


def over_the_corpus(*names: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run targets over their inputs in Python, in another process."""
    code = "import sys; from fuzz.one import load; from pathlib import Path\n"
    code += "for file in map(Path, sys.argv[1:]): load(file.parent.name)(file.read_bytes())"
    inputs = [str(file) for name in names for file in files(name)]
    return subprocess.run(
        [sys.executable, "-c", code, *inputs],
        cwd=CORPUS,  # where Python finds no package of ours
        env={**os.environ, "PACKETCORE_PURE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_corpus_is_small() -> None:
    sizes = [file.stat().st_size for name in TARGETS for file in files(name)]
    assert max(sizes) <= 512
    assert sum(sizes) < 200_000


def test_what_crashed_is_repeated_by_the_line_that_the_runner_gives() -> None:
    def repeat(target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fuzz", target, "--repeat", str(CORPUS / "decode" / "one-frame")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = repeat("decode.pure")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = repeat("decode.compile")
    assert done.returncode == 2
    assert "no target 'decode.compile': there are decoder, decode," in done.stderr


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_corpus_notices_what_is_planted(bug: Bug, tmp_path: Path) -> None:
    package = plant(bug, tmp_path)
    done = over_the_corpus("decoder", PYTHONPATH=os.pathsep.join([str(package.parent), str(ROOT)]))
    assert "AssertionError" in done.stderr


# What the fuzzers found.


class Life:
    """A session on a host that takes everything, with frames of a codec that ends it from inside."""

    def __init__(self, core: Any, *, check: Any = None) -> None:
        self.heard: list[str] = []
        self.core = core
        self.written = b""
        self.codec_does: Callable[[], object] = str
        heard = self.heard

        class Listener(core.Handler):  # type: ignore[misc]  # of a package chosen as we run
            def packet_received(self, session: object, packet: object) -> None:
                heard.append("packet")

            def disconnected(self, session: object, reason: object) -> None:
                heard.append("disconnected")

        framing = core.framings.ByteStuffing(0x7E, 0x7D, xor=0x20, check=check)
        self.endpoint = core.Endpoint(Listener(), framing=framing, codec=self)
        self.session = core.Session(self.endpoint, self, ("192.0.2.1", 5000), 0.0)
        self.session.opened(0.0)

    def encode(self, packet: bytes) -> bytes:
        self.codec_does()
        return packet

    def decode(self, frame: bytes) -> bytes:
        self.codec_does()
        return frame

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def set_timer(self, at: float | None) -> None:
        """Nobody's clock runs."""

    def wake(self) -> None:
        """Nobody flushes."""

    close = abort = write_eof = pause_reading = resume_reading = wake


@each_core
def test_nothing_is_delivered_behind_disconnected_where_a_codec_loses_its_own_session(core: Core) -> None:
    life = Life(core())
    life.codec_does = lambda: life.session.lost(None, 0.0)
    life.session.received(b"~one~~two~", 0.0)
    assert life.heard == ["packet", "packet", "disconnected"]


@each_core
def test_what_a_codec_sends_while_it_decodes_leaves_in_the_one_write_of_the_chunk(core: Core) -> None:
    life = Life(core())
    replies = [b"reply"]
    life.codec_does = lambda: life.session.send(replies.pop()) if replies else None
    life.session.received(b"~one~", 0.0)
    assert life.written == b"~reply~"


@each_core
def test_a_codec_that_closes_its_session_as_it_encodes_sends_nothing(core: Core) -> None:
    life = Life(core())
    life.codec_does = life.session.abort
    with pytest.raises(core().SessionClosed):
        life.session.send(b"one")
    assert life.session.outstanding == life.session.bytes_sent == life.session.stats.packets_sent == 0


@pytest.mark.parametrize("name", ["lost-in-writable", "lost-in-writable-of-a-message"])
def test_a_socket_lost_while_a_send_overflows_is_told_of(name: str) -> None:
    importlib.import_module("fuzz.session").fuzz((CORPUS / "session" / name).read_bytes())


def outputs() -> list[Any]:
    from packetcore import _speedups
    from packetcore._codec import encode
    from packetcore._output import Output

    c: Any = _speedups.Output
    return [pytest.param(c, _speedups.encode, id="C"), pytest.param(Output, encode, id="python")]


each_output = pytest.mark.parametrize(("make", "encode"), outputs())


@each_output
@pytest.mark.parametrize("odd", [None, b"ab", "text", 7])
def test_an_output_that_checks_nothing_lets_encode_say_what_is_no_packet(make: Any, encode: Any, odd: object) -> None:
    output = make(encode, 10, False)  # where the C took it for a packet, and crashed
    with pytest.raises(TypeError, match=rf"encode\(\) takes a Packet, not {type(odd).__name__}"):
        output.put(odd)
    assert (output.size, output.packets) == (0, 0)


@each_output
@pytest.mark.parametrize("odd", ["text", None, [b"ab"], bytearray(b"ab")])
def test_an_encode_that_gives_no_bytes_is_refused_before_anything_waits(make: Any, encode: Any, odd: object) -> None:
    output = make(lambda packet: odd if packet.id else b"frame", 10)
    packet = in_c().Packet
    for method, packets in ((output.put, packet(1)), (output.put_all, [packet(0), packet(1)])):
        with pytest.raises(TypeError, match=rf"encode\(\) must give bytes, not {type(odd).__name__}"):
            method(packets)
    assert (output.size, output.packets, output.join()) == (0, 0, b"")


@each_output
def test_no_packet_of_several_is_encoded_before_all_were_checked(make: Any, encode: Any) -> None:
    encoded: list[object] = []

    def own(packet: object) -> bytes:
        encoded.append(packet)
        return b"frame"

    output = make(own, 10)
    with pytest.raises(TypeError, match="only a Packet can be sent, not str"):
        output.put_all([in_c().Packet(1), "text"])
    assert encoded == []


@each_core
@pytest.mark.parametrize("compare", ["__lt__", "__le__", "__gt__", "__ge__"])
def test_packets_have_no_order_in_either_form(core: Core, compare: str) -> None:
    packet = core().Packet
    assert getattr(packet(1), compare)(packet(2)) is NotImplemented


@each_core
def test_a_check_that_ends_the_program_leaves_a_decoder_that_waits_for_a_flag(core: Core) -> None:
    def check(frame: bytes) -> bytes:
        if frame == b"stop":
            raise KeyboardInterrupt
        return b"!"

    framings = core().framings
    decoder = framings.ByteStuffing(0x7E, 0x7D, xor=0x20, check=framings.Check(1, check)).decoder(40)
    with pytest.raises(KeyboardInterrupt):
        decoder.feed(b"~stop!~")
    assert decoder.pending == 0
    assert [type(event).__name__ for event in decoder.feed(b"abc!~")] == ["Malformed"]
    assert decoder.feed(b"abc!~") == [b"abc"]
