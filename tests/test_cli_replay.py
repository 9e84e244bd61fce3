"""`packetcore serve --record` and `packetcore replay`: from a device's bytes to a file, and back out of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from packetcore import Driver, Packet, ServerBase, encode, load_driver
from packetcore.framings import SLIP
from packetcore_cli.__main__ import main
from packetcore_conformance.recorder import Recorder as Handling
from packetcore_conformance.recorder import echo
from packetcore_tap import CaptureWriter, Chunk, Side, hear
from tests.cli_process import failing, serving

HELLO = encode(Packet(16, b"hello"))
BAD = b"\xfe\x00\x01\xfd\x07\xfe"
TIME = 1_790_000_000 * 10**9

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command; gives the exit code, the lines it printed and what it said of failures."""

    def run(*arguments: str | Path) -> tuple[int, list[str], str]:
        code = main(["replay", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.rstrip()

    return run


def capture(*said: tuple[int, Side, bytes], kind: str = "stream", every: int = 1_000_000) -> bytes:
    """A recording of conversations, which end in the end."""
    writer = CaptureWriter()
    parts, time = [writer.begin()], TIME
    for number, side, data in said:
        if number not in writer:
            ends = ("10.0.0.1", 4000 + number), ("10.0.0.2", 5000)
            parts.append(writer.opened(number, *ends, time, kind=kind, comment=f"device {number}"))  # type: ignore[arg-type]
        time += every
        parts.append(writer.data(number, side, data, time))
    parts += [writer.closed(number, time) for number in dict.fromkeys(number for number, _, _ in said)]
    return b"".join(parts)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "field.pcapng"
    path.write_bytes(
        capture(
            (1, Side.CLIENT, HELLO[:5]), (2, Side.CLIENT, BAD), (1, Side.CLIENT, HELLO[5:]), (1, Side.SERVER, HELLO)
        )
    )
    return path


def parts(line: str) -> list[str]:
    return line.split("  ")


def test_a_recording_is_shown_with_time_side_and_session(run: Run, file: Path) -> None:
    code, lines, err = run(file)
    assert (code, err) == (0, "")
    assert [line.split("  ", 1)[1] if line[2:3] == ":" else line for line in lines] == [
        "2  tcp 10.0.0.1:4002 > 10.0.0.2:5000  device 2",
        "2 >  malformed  BAD_ESCAPE  4 bytes  00 01 fd 07",
        "1  tcp 10.0.0.1:4001 > 10.0.0.2:5000  device 1",
        '1 >  packet     id 16  type 0  count 1  length 5  payload "hello"',
        '1 <  packet     id 16  type 0  count 1  length 5  payload "hello"',
        "1 >  end        the client has finished sending",
        "1 <  end        the server has finished sending",
        "2 >  end        the client has finished sending",
        "2 <  end        the server has finished sending",
        "2 conversations, 2 packets, 1 malformed, 38 bytes",
    ]
    assert [line.split()[0][-6:] for line in lines if " packet " in line] == ["003000", "004000"]


def test_one_conversation_is_dumped_byte_by_byte(run: Run, file: Path) -> None:
    code, lines, _ = run(file, "--only", "2", "--dump")
    assert code == 0
    shown = lines[lines.index("2 >  what the client sent") + 1 : -1]
    assert [parts(line)[1].strip() for line in shown if line.startswith("0")] == ["flag", "id", "escape", "flag"]
    assert lines[-1] == "1 conversation, 0 packets, 1 malformed, 6 bytes"


def test_another_framing_and_udp(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "udp.pcapng"
    half = SLIP().encode(b"whole") + b"half"
    path.write_bytes(capture((1, Side.CLIENT, half), (1, Side.CLIENT, SLIP().encode(b"next")), kind="datagram"))
    code, lines, _ = run(path, "--framing", "slip")
    assert code == 0
    assert [parts(line)[2].strip() for line in lines[1:-1]] == ["frame", "malformed", "frame"]
    assert lines[-1] == "1 conversation, 2 frames, 1 malformed, 17 bytes"


def test_events_are_lines_of_json(run: Run, file: Path) -> None:
    code, lines, _ = run(file, "--json", "--only", "1")
    assert code == 0
    packet = {"id": 16, "type": 0, "count": 1, "payload": b"hello".hex()}
    about = {"conversation": 1, "protocol": "tcp", "client": "10.0.0.1:4001", "server": "10.0.0.2:5000"}
    assert [json.loads(line) for line in lines] == [
        {**about, "from": "client", "time": "1790000000.003000000", "packet": packet},
        {**about, "from": "server", "time": "1790000000.004000000", "packet": packet},
        {**about, "from": "client", "time": "1790000000.004000000", "end": True},
        {**about, "from": "server", "time": "1790000000.004000000", "end": True},
    ]


def test_events_of_two_versions_are_compared(run: Run, file: Path, tmp_path: Path) -> None:
    """One has printed them, the other decodes the same file."""
    old = tmp_path / "old.jsonl"
    old.write_text("\n".join(run(file, "--json")[1]))
    assert run(file, "--compare", old) == (0, ["the same 7 events in both"], "")
    old.write_text(old.read_text().replace(b"hello".hex(), b"hullo".hex(), 1))
    code, lines, err = run(file, "--compare", old)
    assert (code, err) == (1, "")
    assert [line.split("  ")[0] or line.split("  ")[1] for line in lines] == [
        "conversation 1, client, event 1:",
        '{"packet": {"count": 1, "id": 16, "payload": "68756c6c6f", "type": 0}}',
        '{"packet": {"count": 1, "id": 16, "payload": "68656c6c6f", "type": 0}}',
    ]


def test_two_recordings_are_compared_whatever_their_times(run: Run, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pcapng"
    said = ((1, Side.CLIENT, HELLO), (2, Side.CLIENT, BAD), (1, Side.SERVER, HELLO))
    other.write_bytes(capture(*said, every=77))
    assert run(file, "--compare", other, "--only", "1")[0] == 0
    other.write_bytes(capture(*said, (1, Side.SERVER, HELLO)))
    code, lines, _ = run(file, "--compare", other, "--only", "1")
    assert code == 1
    assert lines[0] == "conversation 1, server, event 2:"


@pytest.mark.parametrize("name", ["-", "/dev/fd/0"])
@pytest.mark.parametrize("is_json", [True, False], ids=["json", "capture"])
def test_what_it_is_compared_with_may_come_by_a_pipe(run: Run, file: Path, name: str, is_json: bool) -> None:
    content = "\n".join(run(file, "--json")[1]).encode() if is_json else file.read_bytes()
    command = [sys.executable, "-m", "packetcore_cli", "replay", str(file), "--compare", name]
    done = subprocess.run(command, input=content, capture_output=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"the same 7 events in both\n", b"")


def data_of(path: Path) -> list[bytes]:
    with path.open("rb") as opened:
        return [each.data for each in hear(opened) if isinstance(each, Chunk)]


MANY = [(number % 7, Side(side), HELLO * 3) for number in range(100) for side in ("client", "server")]


def test_a_recording_with_something_malformed_shrinks_to_the_bytes_that_are(run: Run, tmp_path: Path) -> None:
    path, small = tmp_path / "long.pcapng", tmp_path / "small.pcapng"
    path.write_bytes(capture(*MANY, (3, Side.CLIENT, HELLO + BAD + HELLO), *MANY))
    code, lines, err = run(path, "--shrink", small)
    assert (code, err) == (0, "")
    assert data_of(small) == [b"\xfe\xfd\xfe"]
    assert lines[0].startswith("19238 bytes in 401 chunks became 3 bytes in 1 chunk after ")


def test_a_recording_shrinks_to_what_a_command_still_fails_on(run: Run, tmp_path: Path) -> None:
    path, small, script = tmp_path / "long.pcapng", tmp_path / "small.pcapng", tmp_path / "fails.py"
    path.write_bytes(capture(*MANY[:8], (3, Side.SERVER, b"..boom.."), *MANY[:8]))
    script.write_text("import sys\nsys.exit(b'boom' in open(sys.argv[1], 'rb').read())")
    code, _, err = run(path, "--shrink", small, "--fails", f"{sys.executable} {script} {{}}")
    assert (code, err) == (0, "")
    assert data_of(small) == [b"boom"]
    quick = f"{sys.executable} -c pass"
    assert run(path, "--shrink", small, "--fails", quick)[::2] == (
        1,
        f"packetcore: {str(path)!r} does not fail: {quick!r} exits with 0",
    )


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = load_driver("asyncio")
    yield driver
    driver.stop()


def target(server: ServerBase) -> str:
    return f"127.0.0.1:{server.address[1]}"


@pytest.mark.parametrize("speed", ["max", "50"])
def test_what_the_clients_said_is_played_to_a_server_and_the_replies_are_compared(
    run: Run, driver: Driver, tmp_path: Path, speed: str
) -> None:
    handler = echo()
    path = tmp_path / "field.pcapng"
    path.write_bytes(capture(*((n, side, HELLO) for n in range(3) for side in Side), every=100_000_000))
    code, lines, err = run(path, "--to", target(driver.start_server(handler)), "--speed", speed)
    assert (code, err) == (0, "")
    assert lines[-1] == "3 conversations, 3 chunks sent, 3 replies: as recorded"
    assert sum(" < " in line or "<  packet" in line for line in lines) == 3
    server = driver.start_server(handler)
    assert run(path, "--to", target(server), "--speed", speed)[0] == 0
    handler.wait("packet_received", 6)


def test_other_replies_than_recorded_are_shown(run: Run, driver: Driver, tmp_path: Path) -> None:
    def answer(session: object, packet: object) -> None:
        session.send(Packet(1, b"no"))  # type: ignore[attr-defined]

    server = driver.start_server(Handling(packet_received=answer))
    path = tmp_path / "field.pcapng"
    path.write_bytes(capture((1, Side.CLIENT, HELLO), (1, Side.SERVER, HELLO)))
    code, lines, err = run(path, "--to", target(server), "--speed", "max")
    assert (code, err) == (1, "")
    assert lines[1] == "conversation 1, reply 1 is another:"
    assert "68656c6c6f" in lines[2]
    assert "6e6f" in lines[3]


def test_datagrams_are_played_too_and_a_server_that_is_not_there_is_said(
    run: Run, driver: Driver, tmp_path: Path, unused_port: int
) -> None:
    path = tmp_path / "field.pcapng"
    path.write_bytes(capture((1, Side.CLIENT, HELLO), (1, Side.SERVER, HELLO), kind="datagram"))
    server = driver.start_udp_server(echo())
    code, lines, _ = run(path, "--to", target(server), "--speed", "max")
    assert (code, lines[-1]) == (0, "1 conversation, 1 chunk sent, 1 replies: as recorded")
    path.write_bytes(capture((1, Side.CLIENT, HELLO)))
    code, lines, err = run(path, "--to", f"127.0.0.1:{unused_port}", "--speed", "max")
    assert lines == ["1 conversation, 0 chunks sent, 0 replies: 1 failed"]
    assert (code, err) == (1, f"packetcore: conversation 1: 127.0.0.1:{unused_port}: Connection refused")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_of_a_damaged_file_what_is_whole_is_shown_and_then_one_line(run: Run, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])
    code, lines, err = run(file)
    assert code == 1
    assert lines[-1] == "2 conversations, 2 packets, 1 malformed, 38 bytes"
    assert err.startswith(f"packetcore: {str(file)!r} is damaged: the file ends in the midst of a block, after ")
    assert err.endswith("what came before is whole")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.pcapng"], 1, "cannot read 'nowhere.pcapng': No such file or directory"),
        ([__file__], 1, "no capture, neither pcapng nor pcap: it begins with 222222"),
        (["x", "--fails", "true"], 2, "argument --fails: needs argument --shrink (see packetcore replay --help)"),
        (["x", "--speed", "2"], 2, "argument --speed: needs argument --to (see packetcore replay --help)"),
        (["x", "--to", "host"], 2, "argument --to: 'host' is not HOST:PORT"),
        (
            ["x", "--to", "::1:80"],
            2,
            "and [HOST]:PORT: an IPv6 address stands in brackets (see packetcore replay --help)",
        ),
        (["x", "--to", "host:0"], 1, "port=0 is out of range 1 to 65535"),
        (["x", "--tls-ca", "y"], 2, "argument --tls-ca: needs argument --to (see packetcore replay --help)"),
        (["FILE", "--compare", "bytes.jsonl"], 1, "'bytes.jsonl' has no events: 'utf-8' codec can't decode byte 0xff"),
        (["x", "--to", "h:1", "--speed", "0"], 1, "speed=0 is out of range 0.000001 to 1000000, or max"),
        (["x", "--to", "h:1", "--speed", "fast"], 2, "argument --speed: 'fast' is neither a number nor max"),
        (["x", "--json", "--dump"], 2, "argument --dump: not allowed with argument --json"),
        (["x", "--max-payload", "-1"], 1, "max_payload=-1 is out of range"),
        (["FILE", "--compare", __file__], 1, "no capture, neither pcapng nor pcap: it begins with 222222"),
        (["FILE", "--compare", "wrong.jsonl"], 1, "'wrong.jsonl' has no events: line 2 is no event"),
        (["FILE", "--only", "1", "--shrink", "y"], 1, "does not fail: nothing in it is malformed"),
        (["FILE", "--only", "3", "--shrink", "y"], 1, "has no conversation 3: it has 2 conversations, numbered from 1"),
        (["FILE", "--only", "0", "--to", "h:1"], 1, "has no conversation 0: it has 2 conversations, numbered from 1"),
        (["FILE", "--shrink", "nowhere/y"], 1, "cannot write 'nowhere/y': No such file or directory"),
        (["FILE", "--shrink", "y", "--fails", "nowhere/x"], 1, "cannot run 'nowhere/x': No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, file: Path, arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    Path("bytes.jsonl").write_bytes(b"{\xff")
    Path("wrong.jsonl").write_text('{"conversation": 1, "from": "client", "end": true}\nwrong')
    words = [str(file) if word == "FILE" else word for word in arguments]
    ended, out, err = run(*words)
    assert (ended, out) == (code, [])
    assert message in err
    assert "\n" not in err


def test_ctrl_c_ends_a_shrinking_with_the_shortest_until_then(tmp_path: Path) -> None:
    path, small, script = tmp_path / "long.pcapng", tmp_path / "small.pcapng", tmp_path / "fails.py"
    path.write_bytes(capture(*((1, Side.CLIENT, HELLO) for _ in range(40))))
    script.write_text(
        "import os, signal, sys, time\n"
        "if os.path.getsize(sys.argv[1]) < 500:\n"
        "    sys.exit(0)\n"
        "if os.path.getsize(sys.argv[1]) < 2000:\n"
        "    os.kill(os.getppid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
        "sys.exit(1)"
    )
    command = [sys.executable, "-m", "packetcore_cli", "replay", str(path), "--shrink", str(small)]
    command += ["--fails", f"{sys.executable} {script} {{}}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 130
    assert done.stderr == "packetcore: interrupted: it may not be the shortest\n"
    assert 0 < len(data_of(small)) < 40


# serve --record.


def talk(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as device:
        device.sendall(data)
        device.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := device.recv(1 << 16):
            answer += chunk
        return answer


@pytest.mark.parametrize("transport", ["asyncio", "blocking"])
def test_serve_records_what_is_said(run: Run, tmp_path: Path, transport: str) -> None:
    path = tmp_path / "field.pcapng"
    with serving("--echo", "--record", str(path), "--transport", transport) as server:
        port = int(server.first_line.rpartition(":")[2])
        assert talk(port, HELLO * 2) == HELLO * 2
        assert server.end() == 0
    code, lines, err = run(path)
    assert (code, err) == (0, "")
    assert "session 1 of a server, tcp" in lines[0]
    assert lines[-1] == f"1 conversation, 4 packets, 0 malformed, {4 * len(HELLO)} bytes"
    assert os.listdir(tmp_path) == ["field.pcapng"]


def test_a_disk_that_is_full_ends_the_recording_and_not_the_server() -> None:
    with serving("--echo", "--record", "/dev/full") as server:
        port = int(server.first_line.rpartition(":")[2])
        line = server.wait_log("recording to")
        assert line == "recording to /dev/full has ended: [Errno 28] No space left on device"
        assert talk(port, HELLO) == HELLO
        assert server.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--record", "nowhere/x"], 1, "cannot record to 'nowhere/x': No such file or directory"),
        (["--record", "x", "--record-size", "7"], 1, "cannot record to 'x': max_bytes=7 must be at least 1048576"),
        (["--record", "x", "--record-keep", "0"], 1, "cannot record to 'x': keep=0 must be at least 1"),
        (["--record-keep", "3"], 2, "argument --record-keep: needs argument --record (see packetcore serve --help)"),
    ],
)
def test_what_cannot_be_recorded_is_said_in_one_line(
    options: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert failing(*options) == (code, f"packetcore: {message}")
