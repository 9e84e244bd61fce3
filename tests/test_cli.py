"""The `packetcore` command: what it prints, and how it fails."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from queue import SimpleQueue

import pytest

import packetcore_cli
from packetcore import ENTRY_POINT_GROUP, CloseReason, Handler, Packet, ServerBase, Session, encode, load_driver
from packetcore_cli import _stage
from packetcore_cli.__main__ import main

README_FRAME = "fe001000000100000007010304fd0101fd0202fe"
COMMAND = [sys.executable, "-m", "packetcore_cli"]

UDP_TRANSPORTS = ["asyncio", "blocking", "gevent", "twisted"]

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that is to succeed without complaint, and give what it prints."""

    def run(*arguments: str) -> str:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return run


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command that is to fail, and give its exit code and its one line."""

    def fail(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"packetcore: [^\n]+\n", err)
        return code, err.removeprefix("packetcore: ").removesuffix("\n")

    return fail


class Replies(Handler):
    """Answers every packet with what a function makes of it."""

    def __init__(self, reply: Callable[[Session, Packet], object]) -> None:
        self._reply = reply

    def packet_received(self, session: Session, packet: Packet) -> None:
        self._reply(session, packet)


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve on loopback; gives the port as it is written on a command line."""
    driver = load_driver("asyncio")
    servers: list[ServerBase] = []

    def serve(reply: Callable[[Session, Packet], object], udp: bool = False) -> str:
        start = driver.start_udp_server if udp else driver.start_server
        servers.append(start(Replies(reply)))
        return str(servers[-1].address[1])

    yield serve
    for server in servers:
        driver.call(server.close, 0)
    driver.stop()


@pytest.fixture
def unused_port() -> Iterator[str]:
    """A port that is taken and where nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield str(holder.getsockname()[1])


@pytest.fixture
def unused_udp_port() -> Iterator[str]:
    """A UDP port that is taken and where nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        yield str(holder.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("encode --id 65536", "id=65536 is out of range 0 to 65535"),
        ("encode --id -1", "id=-1 is out of range 0 to 65535"),
        ("encode --id 1 --type 256", "type=256 is out of range 0 to 255"),
        ("encode --id 1 --count 0x10000", "count=65536 is out of range 0 to 65535"),
        ("encode --id 1 --hex fe0", "wrong hex 'fe0': an odd number of hex digits (3)"),
        ("encode --id 1 --hex zz", "wrong hex 'zz': 'z' is not a hex digit"),
        ("encode --id 1 --file no-such", "cannot read 'no-such': No such file or directory"),
        ("encode --id 1 --file /", "cannot read '/': Is a directory"),
        ("decode fe00zz", "'fe00zz' is neither a file nor hex: 'z' is not a hex digit"),
        ("decode --max-payload -1 fe", "max_payload=-1 is out of range 0 to 4294967295"),
        ("send 127.0.0.1 1 --id 1 --data hello --max-payload 4", "payload of 5 bytes exceeds max_payload=4"),
        ("send 127.0.0.1 65536 --id 1", "port=65536 is out of range 0 to 65535"),
        ("send 127.0.0.1 0 --id 1 --udp", "port=0 is out of range 1 to 65535"),
        (
            "send 127.255.255.255 9 --id 1 --udp",
            "cannot send to 127.255.255.255:9: Permission denied; a broadcast address needs --broadcast",
        ),
        ("serve --udp --host 192.0.2.1", "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
        ("send 127.0.0.1 1 --id 1 --transport nope", "unknown transport 'nope'; installed: "),
        ("send 127.0.0.1 1 --id 1 --tls-ca no-such", "cannot read 'no-such': No such file or directory"),
        ("serve --transport nope", "unknown transport 'nope'; installed: "),
        ("serve --max-payload -1", "max_payload=-1 is out of range 0 to 4294967295"),
        ("serve --max-sessions 0", "max_sessions=0 must be at least 1"),
        ("serve --max-sessions-per-host 0", "max_sessions_per_host=0 must be at least 1"),
        ("serve --metrics-port 65536", "port=65536 is out of range 0 to 65535"),
        (
            "serve --metrics-port 0 --metrics-host 192.0.2.1",
            "cannot serve metrics on 192.0.2.1:0: Cannot assign requested address",
        ),
        ("serve --idle-timeout -1", "idle_timeout=-1 is out of range 0 to 1000000000 seconds"),
        ("serve --grace inf", "grace=inf is out of range 0 to 1000000000 seconds"),
        ("serve --tls-cert no-such", "cannot read 'no-such': No such file or directory"),
        ("serve --tls-cert pyproject.toml", "cannot use 'pyproject.toml' for TLS: no "),
        ("demo --transport nope", "unknown transport 'nope'; installed: "),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(
    arguments: str, message: str, fail: Callable[..., tuple[int, str]], request: pytest.FixtureRequest
) -> None:
    root = request.config.rootpath
    code, line = fail(*arguments.replace("pyproject.toml", str(root / "pyproject.toml")).split())
    assert code == 1
    assert line.replace(f"{root}{os.sep}", "").startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND (see packetcore --help)"),
        ("fly", "argument COMMAND: invalid choice: 'fly'"),
        ("encode", "the following arguments are required: --id (see packetcore encode --help)"),
        ("encode --id one", "argument --id: 'one' is not an integer (see packetcore encode --help)"),
        ("encode --id 1 --data a --hex 00", "argument --hex: not allowed with argument --data"),
        ("encode --id 1 --file a --hex 00", "argument --hex: not allowed with argument --file"),
        ("encode --id 1 --dat a", "unrecognized arguments: --dat a (see packetcore --help)"),
        ("send 127.0.0.1 --id 1", "the following arguments are required: PORT"),
        ("send 127.0.0.1 http --id 1", "argument PORT: 'http' is not an integer"),
        ("serve --idle-timeout soon", "argument --idle-timeout: 'soon' is not a number of seconds"),
        ("serve --tls-key key.pem", "argument --tls-key: needs argument --tls-cert (see packetcore serve --help)"),
        (
            "serve --metrics-host ::1",
            "argument --metrics-host: needs argument --metrics-port (see packetcore serve --help)",
        ),
        ("serve --log xml", "argument --log/--log-format: invalid choice: 'xml'"),
        ("serve --udp --tls-cert cert.pem", "argument --tls-cert: not allowed with argument --udp"),
        ("serve --udp --tls-key key.pem", "argument --tls-key: not allowed with argument --udp"),
        ("send 127.0.0.1 1 --id 1 --udp --tls", "argument --tls: not allowed with argument --udp"),
        ("send 127.0.0.1 1 --id 1 --broadcast", "argument --broadcast: needs argument --udp"),
        ("demo now", "unrecognized arguments: now"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: str, message: str, fail: Callable[..., tuple[int, str]]
) -> None:
    code, line = fail(*arguments.split())
    assert code == 2
    assert line.startswith(message)
    assert line.endswith("--help)")


def test_a_port_in_use_is_one_line(fail: Callable[..., tuple[int, str]], unused_port: str) -> None:
    assert fail("serve", "--port", unused_port) == (
        1,
        f"cannot listen on 127.0.0.1:{unused_port}: Address already in use",
    )


def test_a_refused_connection_is_one_line(fail: Callable[..., tuple[int, str]], unused_port: str) -> None:
    assert fail("send", "127.0.0.1", unused_port, "--id", "1") == (
        1,
        f"cannot connect to 127.0.0.1:{unused_port}: Connection refused",
    )


@pytest.mark.parametrize("arguments", [("serve", "--udp"), ("send", "127.0.0.1", "1", "--id", "1", "--udp")])
def test_udp_on_a_transport_without_it_is_one_line(
    arguments: tuple[str, ...], fail: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packetcore_asyncio.AsyncioDriver.capabilities", lambda driver: frozenset({"tcp", "tls"}))
    assert fail(*arguments) == (1, "transport 'asyncio' has no UDP; it has tcp, tls")


def test_a_udp_port_in_use_is_one_line(fail: Callable[..., tuple[int, str]], unused_udp_port: str) -> None:
    assert fail("serve", "--udp", "--port", unused_udp_port) == (
        1,
        f"cannot listen on 127.0.0.1:{unused_udp_port}: Address already in use",
    )


@pytest.mark.parametrize("transport", UDP_TRANSPORTS)
def test_a_udp_port_where_nobody_listens_is_one_line(transport: str, fail: Callable[..., tuple[int, str]]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.connect(holder.getsockname())  # hears itself alone, so that the port is taken and refuses
        port = str(holder.getsockname()[1])
        assert fail("send", "127.0.0.1", port, "--udp", "--id", "1", "--transport", transport) == (
            1,
            f"cannot send to 127.0.0.1:{port}: Connection refused",
        )


def test_a_payload_too_large_for_a_datagram_is_one_line(
    fail: Callable[..., tuple[int, str]], unused_udp_port: str, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(65_497))
    assert fail("send", "127.0.0.1", unused_udp_port, "--udp", "--id", "1", "--file", str(tmp_path / "large")) == (
        1,
        "cannot send: packet of 65508 bytes as sent exceeds max_datagram=65507",
    )


def test_encode_prints_the_frame_of_the_readme(run: Run) -> None:
    assert run("encode", "--id", "0x10", "--hex", "01 03 04 FE 01 FD 02") == README_FRAME + "\n"


def test_encode_takes_every_field(run: Run) -> None:
    frame = encode(Packet(65535, "Grüße".encode(), type=255, count=3))
    assert run(*["encode", "--id", "65535", "--type", "0xff", "--count", "3", "--data", "Grüße"]) == frame.hex() + "\n"


def test_encode_writes_raw_bytes_of_a_file(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "payload").write_bytes(bytes(range(256)))
    assert main(["encode", "--id", "1", "--raw", "--file", str(tmp_path / "payload")]) == 0
    assert capfdbinary.readouterr().out == encode(Packet(1, bytes(range(256))))


@pytest.mark.parametrize(
    "spelled",
    [
        README_FRAME,
        README_FRAME.upper(),
        bytes.fromhex(README_FRAME).hex(" "),
        bytes.fromhex(README_FRAME).hex(":"),
        bytes.fromhex(README_FRAME).hex("-"),
        "0x" + README_FRAME,
        ", ".join(f"0x{byte:02X}" for byte in bytes.fromhex(README_FRAME)),
    ],
)
def test_decode_takes_hex_as_people_write_it(
    spelled: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run("decode", README_FRAME)
    assert "packet     id 16  type 0  count 1  length 7  payload 01 03 04 fe 01 fd 02" in expected
    (tmp_path / "hex").write_text(spelled + "\n")
    assert run("decode", spelled) == run("decode", *spelled.split()) == run("decode", str(tmp_path / "hex")) == expected
    for argument in ("-", None):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(spelled.encode())))
        assert run("decode", *filter(None, [argument])) == expected


def test_decode_takes_raw_bytes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = bytes.fromhex(README_FRAME)
    (tmp_path / "raw").write_bytes(frame)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(frame)))
    assert run("decode", str(tmp_path / "raw")) == run("decode") == run("decode", README_FRAME)


def test_send_prints_text_as_text_and_the_rest_as_hex(run: Run, serve: Serve) -> None:
    port = serve(lambda session, packet: session.send(packet))
    assert run("send", "127.0.0.1", port, "--id", "0x10", "--type", "2", "--data", "hello") == (
        'id 16  type 2  count 1  length 5  payload "hello"\n'
    )
    assert run("send", "localhost", port, "--id", "1", "--hex", "1b5b48") == (
        "id 1  type 0  count 1  length 3  payload 1b 5b 48\n"
    )
    assert run("send", "127.0.0.1", port, "--id", "1") == "id 1  type 0  count 1  length 0\n"


def test_send_delivers_a_large_file_without_waiting_for_replies(run: Run, serve: Serve, tmp_path: Path) -> None:
    received: list[Packet] = []
    port = serve(lambda session, packet: received.append(packet))
    (tmp_path / "large").write_bytes(b"\xfd\xfe" * 400_000)
    assert run("send", "127.0.0.1", port, "--id", "9", "--replies", "0", "--file", str(tmp_path / "large")) == ""
    assert received == [Packet(9, b"\xfd\xfe" * 400_000)]


def test_send_says_that_no_reply_came(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    port = serve(lambda session, packet: None)
    assert main(["send", "127.0.0.1", port, "--id", "1", "--timeout", "0.1"]) == 0
    assert capsys.readouterr() == ("", "packetcore: no reply within 0.1 s\n")


@pytest.mark.parametrize("transport", UDP_TRANSPORTS)
def test_send_prints_the_replies_over_udp(transport: str, run: Run, serve: Serve) -> None:
    def answer_twice(session: Session, packet: Packet) -> None:
        session.send(packet)
        session.send(Packet(2))

    arguments = ["--udp", "--id", "1", "--data", "hello", "--replies", "2", "--transport", transport]
    assert run("send", "127.0.0.1", serve(answer_twice, udp=True), *arguments) == (
        'id 1  type 0  count 1  length 5  payload "hello"\nid 2  type 0  count 1  length 0\n'
    )


def test_send_delivers_a_datagram_without_waiting_for_replies(run: Run, serve: Serve) -> None:
    received: SimpleQueue[Packet] = SimpleQueue()
    port = serve(lambda session, packet: received.put(packet), udp=True)
    assert run("send", "127.0.0.1", port, "--udp", "--id", "9", "--replies", "0") == ""
    assert received.get(timeout=10) == Packet(9)


def test_replies_to_a_broadcast_come_with_who_sent_them(run: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.bind(("", 0))
        port = device.getsockname()[1]

        def answer() -> None:
            data, sender = device.recvfrom(65536)
            device.sendto(data, sender)

        answering = threading.Thread(target=answer)
        answering.start()
        out = run("send", "127.255.255.255", str(port), "--udp", "--broadcast", "--id", "1")
        answering.join()
    assert out == f"127.0.0.1:{port}  id 1  type 0  count 1  length 0\n"


def test_send_ends_when_the_peer_closes(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    def answer_once(session: Session, packet: Packet) -> None:
        session.send(packet)
        session.close()

    port = serve(answer_once)
    assert main(["send", "127.0.0.1", port, "--id", "1", "--replies", "3", "--timeout", "0"]) == 0
    assert capsys.readouterr() == (
        "id 1  type 0  count 1  length 0\n",
        "packetcore: 1 of 3 replies before the peer closed\n",
    )


def test_a_lost_connection_is_a_failure(fail: Callable[..., tuple[int, str]]) -> None:
    def reset_the_first(listener: socket.socket) -> None:
        device, _ = listener.accept()
        with device:
            device.recv(1)
            device.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = threading.Thread(target=reset_the_first, args=(listener,))
        peer.start()
        code, line = fail("send", "127.0.0.1", str(listener.getsockname()[1]), "--id", "1")
        peer.join()
    assert (code, line) == (1, f"the connection ended, RESET: {CloseReason.RESET.value}")


def test_transports_lists_what_is_installed_and_what_is_broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [
        *entry_points(group=ENTRY_POINT_GROUP, name="asyncio"),
        EntryPoint("broken", "no_such_module:Driver", ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr("packetcore._driver.entry_points", lambda group: installed)
    lines = run("transports").splitlines()
    assert lines[0].split() == ["transport", "distribution", "version", "capabilities"]
    name, distribution, _, offers = lines[1].split(maxsplit=3)
    assert (name, distribution) == ("asyncio", "packetcore-asyncio")
    assert {"framing", "pool", "proxy", "reconnect", "tcp", "tls", "udp"} <= {*offers.split(", ")}
    assert re.search(r"^broken +- +- +error: .*No module named 'no_such_module'$", lines[2])


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").startswith(f"packetcore-cli {packetcore_cli.__version__}, packetcore ")


@pytest.mark.parametrize("command", ["", "demo", "serve", "send", "encode", "decode", "transports"])
def test_every_command_explains_itself(command: str, run: Run) -> None:
    assert run(*command.split(), "--help").startswith(f"usage: packetcore {command}".rstrip())


def test_a_terminal_gets_colours_and_a_pipe_gets_none(run: Run) -> None:
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    try:
        subprocess.run([*COMMAND, "decode", "fe"], stdout=terminal, env=environment, check=True, timeout=30)
        assert b"\x1b[" in os.read(controller, 65536)
    finally:
        os.close(controller)
        os.close(terminal)
    assert "\x1b" not in run("decode", "fe")


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    command = subprocess.Popen(
        [*COMMAND, "decode", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with command:
        assert command.stdin is not None
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdin.write(encode(Packet(1)) * 20_000)
        command.stdin.close()
        command.stdout.readline()
        command.stdout.close()
        assert command.stderr.read() == b""
        assert command.wait(30) == 0


def test_the_demo_leaves_udp_out_where_there_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("packetcore_asyncio.AsyncioDriver.capabilities", lambda driver: frozenset({"tcp"}))
    assert "UDP" not in run("demo")


def test_the_demo_shows_every_scene(run: Run) -> None:
    out = run("demo")
    assert re.findall(r"^\d+\. (.*)", out, re.MULTILINE) == [
        "A packet becomes a frame",
        "A server listens",
        "Three packets arrive stuck together",
        "One packet arrives cut apart",
        "Noise between packets",
        "The pool knows who is alive",
        "A client comes back",
        "Devices speak UDP",
        "A broken datagram between two good ones",
        "A device comes back from another port",
        "Silence ends a session",
    ]
    told = re.findall(
        r"^   (malformed  \w+|count .*|connected .*|lost .*|kept .*|expired .*|closed .*|command .*)", out, re.MULTILINE
    )
    assert told == [
        "closed     session 1, PEER: the peer closed it",
        "malformed  NOISE",
        "malformed  TOO_SHORT",
        "malformed  LENGTH_MISMATCH",
        "malformed  BAD_ESCAPE",
        "closed     session 2, PEER: the peer closed it",
        "count      2 sessions",
        "expired    session 1, IDLE_TIMEOUT: nothing was received for idle_timeout",
        "count      1 session",
        "closed     session 2, PEER: the peer closed it",
        "count      0 sessions",
        "connected  session 1 of the client",
        "lost       session 1, PEER: the peer closed it",
        "kept       2 packets for the next connection",
        "connected  session 2 of the client",
        "malformed  TRUNCATED",
        "closed     session 1, REPLACED: another session took over its identity",
        'command    id 7  type 0  count 1  length 24  payload "from outside any handler"',
        "expired    session 1, IDLE_TIMEOUT: nothing was received for idle_timeout",
        "count      0 sessions",
    ]
    assert README_FRAME in out
    assert out.count("   packet     ") == 17
    assert out.count("   refresh    session 2 spoke") >= 2
    assert "\x1b" not in out


def test_a_demo_that_goes_wrong_says_what_did_not_happen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_stage, "PATIENCE", 0.2)
    monkeypatch.setattr(_stage.Witness, "packet_received", Handler.packet_received)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "packetcore: demo: the server saw no Packet within 0.2 s\n"


def test_ctrl_c_while_the_command_is_still_being_imported_leaves_no_traceback() -> None:
    impatient = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'packetcore_cli._parser': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from packetcore_cli.__main__ import main\n"
        "sys.exit(main(['transports']))\n"
    )
    done = subprocess.run([sys.executable, "-c", impatient], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_interrupted_demo_ends_without_a_traceback() -> None:
    demo = subprocess.Popen([*COMMAND, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert any("refresh" in line for line in iter(demo.stdout.readline, ""))
        demo.send_signal(signal.SIGINT)
        assert "Done" not in demo.stdout.read()
        assert demo.stderr.read() == ""
        assert demo.wait(30) == 130
