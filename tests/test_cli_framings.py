"""`--framing`: `packetcore serve`, `send` and `decode` with frames in place of packets."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Malformed
from packetcore_cli.__main__ import main
from packetcore_cli._framed import spans_of
from packetcore_cli._framings import NAMES, framing_named
from tests.test_cli_serve import read_to_end, serving

SENT = {
    "slip": ("c0 68 69 c0", "c0 7e 00 db dc c0"),
    "cobs": ("03 68 69 00", "02 7e 02 c0 00"),
    "u32": ("00 00 00 02 68 69", "00 00 00 03 7e 00 c0"),
    "crlf": ("68 69 0d 0a", "7e 00 c0 0d 0a"),
    "jt808": ("7e 68 69 01 7e", "7e 7d 02 00 c0 be 7e"),
}
"""The frames "hi" and 7E 00 C0 as each framing sends them."""

SHOWN = ['length 2  hex 68 69  text "hi"', "length 3  hex 7e 00 c0"]

each_framing = pytest.mark.parametrize("name", SENT)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its exit code and what it prints."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@each_framing
def test_serve_prints_each_frame(name: str) -> None:
    with serving("--framing", name) as server:
        with server.connect() as device:
            device.sendall(bytes.fromhex("".join(SENT[name])))
            device.shutdown(socket.SHUT_WR)
            assert read_to_end(device) == b""
        code, out, err = server.end(signal.SIGTERM)
    assert (code, out) == (0, "".join(f"session 1  {line}\n" for line in SHOWN))
    assert "packets: 2 in, 0 out; malformed: 0" in err


@pytest.mark.parametrize("network", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("name", "transport"),
    [("slip", "asyncio"), ("cobs", "blocking"), ("u32", "gevent"), ("crlf", "twisted"), ("jt808", "asyncio")],
)
def test_send_prints_the_frames_that_serve_sends_back(name: str, transport: str, network: str, run: Run) -> None:
    options = ["--framing", name, "--transport", transport, *(["--udp"] if network == "udp" else [])]
    with serving("--echo", *options) as server:
        host, port = server.address
        for payload, shown in zip(("--data=hi", "--hex=7e00c0"), SHOWN, strict=True):
            assert run("send", host, str(port), payload, *options) == (0, shown + "\n", "")
        code, out, err = server.end(signal.SIGTERM)
    assert (code, out) == (0, "")
    assert "stopped after 2 sessions\n" in err


def test_serve_logs_what_is_malformed_and_ends_a_session_that_has_lost_its_place() -> None:
    with serving("--framing", "u32", "--max-payload", "4") as server:
        with server.connect() as device:
            device.sendall(bytes.fromhex("00000002 6869 00000005 68656c6c6f 00000002 6869"))
            device.shutdown(socket.SHUT_WR)
            assert read_to_end(device) == b""
        code, out, err = server.end(signal.SIGTERM)
    assert (code, out) == (0, f"session 1  {SHOWN[0]}\n")
    log = [line.partition("  ")[2] for line in err.splitlines()]
    assert log[1] == "session 1 malformed: TOO_LONG  4 bytes  00 00 00 05"
    assert log[2].startswith("session 1 closed, PROTOCOL_ERROR: ")


@each_framing
def test_decode_shows_each_frame_as_sent_and_its_content(name: str, run: Run, tmp_path: Path) -> None:
    first, second = SENT[name]
    stream = bytes.fromhex(first + second)
    (tmp_path / "stream").write_bytes(stream)
    told = run("decode", "--framing", name, first, second)
    assert told == run("decode", "--framing", name, str(tmp_path / "stream"))
    code, out, err = told
    assert (code, err) == (0, "")
    places = ("0000", f"{len(bytes.fromhex(first)):04x}")
    lines = out.splitlines()
    assert lines[0].startswith(f"{places[0]}  frame    {first}  ")
    assert lines[1].startswith(f"{places[1]}  frame    {second}  ")
    assert lines[2:] == [
        "",
        f"{places[0]}  frame      {SHOWN[0]}",
        f"{places[1]}  frame      {SHOWN[1]}",
        f"2 frames, 0 malformed, {len(stream)} bytes",
    ]


def test_decode_of_a_file_with_damage(run: Run, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(
        bytes.fromhex("6e6f 7e 6869 01 7e 7e 6869 02 7e 7e 61 7d 03 7e 7e 7d02 7e 7e 7e 6f6b 04 7e 7e 63")
    )
    assert run("decode", "--framing", "jt808", str(tmp_path / "damaged"))[1].splitlines() == [
        "0000  noise    6e 6f           no",
        "      ^ NOISE: bytes outside any frame",
        "0002  frame    7e 68 69 01 7e  ~hi.~",
        "0007  flag     7e",
        "0008  broken   68 69 02        hi.",
        "      ^ BAD_CHECK: a frame whose check disagrees with its bytes",
        "000b  flag     7e 7e",
        "000d  broken   61 7d 03        a}.",
        "      ^ BAD_ESCAPE: an escape byte that no code follows",
        "0010  flag     7e 7e",
        "0012  broken   7d 02           }.",
        "      ^ BAD_CHECK: a frame whose check disagrees with its bytes",
        "0014  flag     7e 7e",
        "0016  frame    7e 6f 6b 04 7e  ~ok.~",
        "001b  flag     7e",
        "001c  broken   63              c",
        "      ^ TRUNCATED: the stream or the datagram ended inside a frame",
        "",
        '0000  malformed  NOISE  2 bytes  "no"',
        '0002  frame      length 2  hex 68 69  text "hi"',
        "0008  malformed  BAD_CHECK  3 bytes  68 69 02",
        "000d  malformed  BAD_ESCAPE  3 bytes  61 7d 03",
        "0012  malformed  BAD_CHECK  2 bytes  7d 02",
        '0016  frame      length 2  hex 6f 6b  text "ok"',
        '001c  malformed  TRUNCATED  1 byte  "c"',
        "2 frames, 5 malformed, 29 bytes",
    ]


@given(data=st.data(), name=st.sampled_from([*NAMES.split(", ")[1:-1], "fixed:3"]))
def test_what_decode_shows_is_what_the_decoder_says_and_every_byte_is_one_thing(data: st.DataObject, name: str) -> None:
    framing = framing_named(name)
    assert framing is not None
    frames = st.binary(min_size=3, max_size=3).filter(lambda frame: b"\n" not in frame and b"\0" not in frame)
    pieces = data.draw(st.lists(frames.map(framing.encode) | st.binary(max_size=6), max_size=8))
    stream = b"".join(pieces)
    decoder = framing.decoder(4)
    events = [*decoder.feed(stream), *decoder.feed_eof()]
    told = [*spans_of(stream, framing, 4)]
    assert [span.event for span in told if span.event is not None] == events
    assert [at for span in told for at in range(span.start, span.stop)] == list(range(len(stream)))
    for start, stop, event, _ in told:
        if isinstance(event, Malformed):
            assert (event.size, event.sample) == (stop - start, stream[start:stop][:64])
        elif isinstance(event, bytes):
            shared_flags = (b"", framing.encode(event)[:1])
            assert any(framing.decoder(4).feed(flag + stream[start:stop]) == [event] for flag in shared_flags)


def test_the_default_by_its_name_is_the_default(run: Run) -> None:
    assert run("decode", "--framing", "fefd", "fe001000000100000000fe") == run("decode", "fe001000000100000000fe")
    code, _, err = run("send", "127.0.0.1", "1", "--framing", "fefd")
    assert (code, err) == (
        2,
        "packetcore: the following arguments are required: --id (see packetcore send --help)\n",
    )


@pytest.mark.parametrize("command", ["serve", "send 127.0.0.1 1", "decode 00"])
@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("nope", 2, "argument --framing: unknown framing 'nope'; there are fefd, slip, "),
        ("fixed", 2, "argument --framing: SIZE in 'fixed' is not a number of bytes; there are fefd, slip, "),
        ("fixed:0", 1, "SIZE in 'fixed:0' is out of range 1 to 4294967295"),
    ],
)
def test_a_name_that_is_none_is_one_line(command: str, name: str, code: int, message: str, run: Run) -> None:
    ended, out, err = run(*command.split(), "--framing", name)
    assert (ended, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(f"packetcore: {message}")


@pytest.mark.parametrize("command", ["serve", "send", "decode"])
def test_help_lists_the_names(command: str, run: Run) -> None:
    assert f" {NAMES} (default fefd" in " ".join(run(command, "--help")[1].split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("slip --data a --id 0", 2, "argument --id: not allowed with argument --framing"),
        ("slip --data a --type 0", 2, "argument --type: not allowed with argument --framing"),
        ("slip --data a --count 0", 2, "argument --count: not allowed with argument --framing"),
        ("slip", 1, "cannot send: an empty frame "),
        ("crlf --hex 0d0a", 1, "cannot send: the frame contains the delimiter "),
        ("fixed:3 --data four", 1, "cannot send: a frame has 3 bytes, not 4"),
        ("u32 --data hello --max-payload 4", 1, "frame of 5 bytes exceeds max_payload=4"),
        ("u32 --max-payload 0", 1, "max_payload=0 is out of range 1 to 4294967295 for frames"),
        ("fixed:5 --data hello --max-payload 4", 1, "frames of 5 bytes exceed max_payload=4"),
    ],
)
def test_a_frame_that_cannot_be_is_one_line(arguments: str, code: int, message: str, run: Run) -> None:
    ended, out, err = run("send", "127.0.0.1", "1", "--framing", *arguments.split())
    assert (ended, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(f"packetcore: {message}")


@pytest.mark.parametrize("command", ["serve", "send 127.0.0.1 1 --data hi"])
def test_a_transport_that_has_no_framings_is_one_line(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetcore_asyncio.AsyncioDriver.capabilities", lambda driver: frozenset({"tcp", "tls"}))
    assert run(*command.split(), "--framing", "slip") == (
        1,
        "",
        "packetcore: transport 'asyncio' has no framings; it has tcp, tls\n",
    )
