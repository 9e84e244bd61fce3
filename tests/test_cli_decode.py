"""`packetcore decode`: what it reads from, what it says to scripts, and a file that grows."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Packet, encode
from packetcore.framings import SLIP
from packetcore_cli.__main__ import main
from packetcore_cli._annotate import Span, Spans
from packetcore_cli._decode import READ_SIZE
from packetcore_cli._framed import HEAD, TAIL, FrameSpans, spans_of
from packetcore_cli._framings import framing_named
from packetcore_conformance.strategies import chunked, streams
from packetcore_tap import CaptureWriter, Side
from packetcore_tap._pcapng import interface_description

COMMAND = [sys.executable, "-m", "packetcore_cli"]
DEADLINE = 30.0
TIME = 1_790_000_000 * 10**9
HELLO, BYE = encode(Packet(16, b"hello")), encode(Packet(17, b"bye"))
BAD = b"\xfe\x00\x01\xfd\x07\xfe"

HELLO_JSON = {"packet": {"id": 16, "type": 0, "count": 1, "payload": b"hello".hex()}}
BYE_JSON = {"packet": {"id": 17, "type": 0, "count": 1, "payload": b"bye".hex()}}
BAD_JSON = {"malformed": {"reason": "BAD_ESCAPE", "size": 4, "sample": "0001fd07"}}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; gives the exit code, what it printed and what it said of failures."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["decode", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def capture(*said: tuple[str, Side, bytes], overlapping: bool = False) -> bytes:
    """Conversations over "stream" or "datagram", one of each; if so, each segment twice, the later one first."""
    writer = CaptureWriter()
    parts = [writer.begin()]
    for number, kind in enumerate(("stream", "datagram")):
        ends = ("10.0.0.1", 4000 + number), ("10.0.0.2", 5000)
        parts.append(writer.opened(kind, *ends, TIME, kind=kind))  # type: ignore[arg-type]
    blocks = [writer.data(kind, side, data, TIME) for kind, side, data in said]
    parts += [*reversed(blocks), *blocks] if overlapping else blocks
    parts += [writer.closed("stream", TIME), writer.closed("datagram", TIME)]
    return b"".join(parts)


def test_each_event_is_a_line_of_json_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "field.bin").write_bytes(HELLO + BAD)
    code, out, err = run("--json", tmp_path / "field.bin")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"at": 1} | HELLO_JSON,
        {"at": len(HELLO) + 1} | BAD_JSON,
    ]
    code, out, _ = run("--json", "--framing", "slip", SLIP().encode(b"frame").hex())
    assert json.loads(out) == {"at": 0, "frame": b"frame".hex()}


@pytest.mark.parametrize(
    ("content", "printed"),
    [(HELLO.hex().encode(), [{"at": 1} | HELLO_JSON]), (capture(("datagram", Side.CLIENT, HELLO)), [HELLO_JSON])],
    ids=["hex", "capture"],
)
def test_a_pipe_with_a_name_is_read_once_and_to_its_end(content: bytes, printed: list[dict[str, object]]) -> None:
    """As a shell gives it for <(a command); what was read of it is not there a second time."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    command = [*COMMAND, "decode", "--json", f"/dev/fd/{reading}"]
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[reading], timeout=DEADLINE, check=False)
    os.close(reading)
    assert (done.returncode, done.stderr) == (0, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [{name: each[name] for name in ("at", "packet") if name in each} for each in found if "packet" in each] == (
        printed
    )


@pytest.mark.parametrize("seconds", [2**62, -(2**62)])
def test_a_time_that_no_clock_tells_is_shown_all_the_same(run: Run, tmp_path: Path, seconds: int) -> None:
    content = capture(("datagram", Side.CLIENT, HELLO))
    # if_tsoffset, of the interface of what somebody between the two has captured: seconds that are added.
    description = interface_description("packetcore tap")
    offset = struct.pack("<HHq", 14, 8, seconds)
    moved = description[:-8] + offset + description[-8:-4] + struct.pack("<I", len(description) + len(offset))
    moved = moved[:4] + moved[-4:] + moved[8:]
    (tmp_path / "field.pcapng").write_bytes(content.replace(description, moved))
    code, out, err = run(tmp_path / "field.pcapng")
    assert (code, err) == (0, "")
    assert [line.split("  ")[0][:9] for line in out.splitlines() if " packet " in line] == ["??:??:??."]


def test_check_tells_by_the_exit_code_whether_all_is_well(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    assert [run("--check", data.hex())[0] for data in (HELLO, BAD)] == [0, 1]
    for said, code in ((HELLO, 0), (BAD, 1)):
        path.write_bytes(capture(("stream", Side.CLIENT, said)))
        assert [run("--check", *options, path)[0] for options in ((), ("--json",))] == [code, code]


@pytest.mark.parametrize("by", ["file", "standard input"])
def test_a_capture_is_known_and_both_directions_put_together(
    by: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = capture(
        ("stream", Side.CLIENT, HELLO[:7]), ("stream", Side.CLIENT, HELLO[7:]), ("stream", Side.SERVER, BYE),
        overlapping=True,
    ) + capture(("datagram", Side.CLIENT, HELLO + BAD))  # fmt: skip
    path = tmp_path / "any name"
    path.write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    source: str | Path = path if by == "file" else "-"
    code, out, err = run("--json", source)
    assert (code, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    about = [(each["protocol"], each["from"], each["client"]) for each in told if "end" not in each]
    assert sorted(about) == [
        *[("tcp", side, "10.0.0.1:4000") for side in ("client", "server")],
        *[("udp", "client", "10.0.0.1:4001")] * 2,
    ]
    (said,) = [
        each["packet"] for each in told if each["protocol"] == "tcp" and each["from"] == "client" and "packet" in each
    ]
    assert {"packet": said} == HELLO_JSON


def test_a_capture_is_listed_and_dumped_for_each_side(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    path.write_bytes(capture(("stream", Side.CLIENT, HELLO * 400), ("stream", Side.SERVER, BYE)))
    code, out, err = run(path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "1  tcp 10.0.0.1:4000 > 10.0.0.2:5000"
    assert sum("packet     id 16" in line for line in lines) == 400
    at = lines.index("1 >  what the client sent")
    assert lines[at + 1 : at + 3] == ["0000  flag     fe", "0001  id       00 10           16 (0x10)"]
    assert "... the dump ends here: 4096 of 6400 bytes" in lines
    assert lines[-1] == f"1 conversation, 401 packets, 0 malformed, {len(HELLO) * 400 + len(BYE)} bytes"
    said = f"packetcore: {str(path)!r} has no conversation 2: it has 1 conversation, numbered from 1\n"
    assert run("--only", "2", path) == (1, "", said)


def test_a_capture_cut_in_the_middle_is_shown_up_to_there(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    data = capture(("stream", Side.CLIENT, HELLO), ("stream", Side.CLIENT, BYE))
    path.write_bytes(data[: data.index(BYE) + 2])
    code, out, err = run("--json", path)
    assert code == 1
    assert [json.loads(line)["packet"]["id"] for line in out.splitlines()] == [16]
    assert err.startswith(f"packetcore: {str(path)!r} is damaged: the file ends in the midst of a block, after ")
    assert err.endswith(": what came before is whole\n")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["missing"], 1, "'missing' is neither a file nor hex: 'm' is not a hex digit"),
        (["folder"], 1, "cannot read 'folder': Is a directory"),
        (["--follow", "folder"], 1, "cannot read 'folder': Is a directory"),
        (["fe0"], 1, "'fe0' is neither a file nor hex: an odd number of hex digits (3)"),
        (
            ["head.pcapng"],
            1,
            "cannot decode 'head.pcapng': the file ends in the midst of a block, after 30 bytes of it",
        ),
        (["--follow", "fe"], 2, "argument --follow: needs a file or standard input"),
        (["--only", "1", "fe"], 2, "argument --only: needs a capture"),
        (["odd"], 0, "'odd' is taken as bytes, though it looks like hex: an odd number of hex digits (3)"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    options: list[str], code: int, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "odd").write_text("fe0")
    (tmp_path / "head.pcapng").write_bytes(capture()[:30])
    found, _, err = run(*options)
    assert (found, err.count("\n")) == (code, 1)
    assert err.startswith(f"packetcore: {said}")


@given(data=st.data(), name=st.sampled_from(["fefd", "slip", "hdlc", "cobs", "u16", "lines"]))
def test_however_a_stream_is_cut_each_event_has_its_place(data: st.DataObject, name: str) -> None:
    stream = data.draw(streams(8))
    framing = framing_named(name)
    found = Spans(8) if framing is None else FrameSpans(framing, 8)
    told = [span for piece in data.draw(chunked(stream)) for span in found.feed(piece)]
    told += found.feed_eof()
    assert told == list(spans_of(stream, framing, 8))


@pytest.mark.parametrize(
    ("name", "idle"), [("lines", b"x"), ("hdlc", b"\x7e"), ("cobs", b"\x05"), ("slip", b"\xdb\x01"), ("hdlc", b"y")]
)
def test_what_has_no_end_is_not_kept_and_the_frame_behind_it_has_its_place(name: str, idle: bytes) -> None:
    framing = framing_named(name)
    assert framing is not None
    frame = framing.encode(b"frame")
    stream = idle * 60_000 + frame[-1:] + frame
    found = FrameSpans(framing, 8)
    seen: list[Span] = []
    held = 0
    for start in range(0, len(stream), 1000):
        seen += found.feed(stream[start : start + 1000])
        held = max(held, len(found._held))
    seen += found.feed_eof()
    assert held <= 2 * (HEAD + TAIL)
    assert [span.start for span in seen] == [0, *(span.stop for span in seen[:-1])]
    assert seen[-1].stop == len(stream)
    (found_frame,) = [span for span in seen if isinstance(span.event, bytes)]
    assert found_frame.event == b"frame"
    assert stream[found_frame.start : found_frame.stop].strip(b"\x7e\xc0\0\n") == frame.strip(b"\x7e\xc0\0\n")


class Following:
    """A `decode --follow` as a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def events(self, number: int) -> list[object]:
        """The next lines of JSON, without the places."""
        assert self.process.stdout is not None
        found = [json.loads(self.process.stdout.readline()) for _ in range(number)]
        for each in found:
            each.pop("at", None)
        return found

    def says(self) -> str:
        """The next line of what it tells beside."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip()

    def interrupt(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


@contextmanager
def following(*options: str | Path, stdin: int | None = None) -> Iterator[Following]:
    command = [*COMMAND, "decode", "--follow", *map(str, options)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield Following(process)
        finally:
            process.kill()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_file_that_grows_is_followed_and_what_becomes_of_it_told(tmp_path: Path) -> None:
    path = tmp_path / "field.bin"
    path.write_bytes(HELLO + BYE[:5])
    with following("--json", path) as follower:
        assert follower.events(1) == [HELLO_JSON]
        append(path, BYE[5:] + BAD)
        assert follower.events(2) == [BYE_JSON, BAD_JSON]
        path.rename(tmp_path / "field.1.bin")
        append(tmp_path / "field.1.bin", HELLO)  # by whoever has it open still
        assert follower.events(1) == [HELLO_JSON]
        assert follower.says() == f"packetcore: {str(path)!r} is gone: waiting for another"
        path.write_bytes(BYE)
        assert follower.says() == f"packetcore: another file took the place of {str(path)!r}: from its beginning"
        assert follower.events(1) == [BYE_JSON]
        path.write_bytes(b"\n")
        assert follower.says() == f"packetcore: {str(path)!r} was cut short: from its beginning again"
        assert follower.interrupt() == (130, "", "")


def test_standard_input_is_followed_to_its_end_as_bytes_or_lines_of_hex() -> None:
    for said in (HELLO + BYE, f"{HELLO.hex()}\n{BYE.hex(' ')}".encode()):
        reading, writing = os.pipe()
        with following("--json", "-", stdin=reading) as follower:
            os.close(reading)
            os.write(writing, said[:40])
            assert follower.events(1) == [HELLO_JSON]
            os.write(writing, said[40:])
            os.close(writing)
            assert follower.events(1) == [BYE_JSON]
            assert follower.process.wait(DEADLINE) == 0


def test_a_line_of_hex_without_an_end_is_decoded_as_it_comes() -> None:
    number = READ_SIZE // len(HELLO.hex()) + 100  # what is left when it prints fits into a pipe
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe, following("--json", "-", stdin=reading) as follower:
        os.close(reading)
        pipe.write(HELLO.hex().encode() * number)
        pipe.flush()
        assert follower.events(number - 100) == [HELLO_JSON] * (number - 100)
        pipe.close()
        assert follower.events(100) == [HELLO_JSON] * 100
        assert follower.process.wait(DEADLINE) == 0


def test_a_capture_is_followed_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "field.pcapng"
    data = capture(("stream", Side.CLIENT, HELLO), ("stream", Side.CLIENT, BYE))
    at = data.index(BYE)
    path.write_bytes(data[:at])
    with following(path) as follower:
        out: IO[str] | None = follower.process.stdout
        assert out is not None
        assert out.readline() == "1  tcp 10.0.0.1:4000 > 10.0.0.2:5000\n"
        assert "packet     id 16" in out.readline()
        append(path, data[at:])
        assert "packet     id 17" in out.readline()
        out.close()
        assert follower.process.wait(DEADLINE) == 0  # nobody reads, and nothing is added
