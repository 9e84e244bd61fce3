"""`packetcore serve --app`: what a user has written, found by its path and served."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from packetcore import Decoder, Packet, encode
from packetcore_cli.__main__ import main
from tests.cli_process import DEADLINE, serving

GATEWAY = """
from packetcore import Handler, Packet

class Gateway(Handler):
    def packet_received(self, session, packet):
        session.send(Packet(packet.id + 1, packet.payload))

class Box:
    instance = Gateway()

class Needs(Handler):
    def __init__(self, database):
        pass

class Raises(Handler):
    def __init__(self):
        raise LookupError("no database")

class Exits(Handler):
    def __init__(self):
        raise SystemExit(3)

def new_gateway():
    return Gateway()

async def new_gateway_soon():
    return Gateway()

async def handle(stream):
    async for packet in stream:
        await stream.send(Packet(packet.id + 1, packet.payload))

def handle_and_wait(stream):
    for packet in stream:
        stream.send(Packet(packet.id + 1, packet.payload))

def nothing():
    return None

def two(one, other):
    pass

number = 5
"""


MANAGED = """
import logging
from contextlib import asynccontextmanager, contextmanager

from packetcore import Handler, Packet, SessionPool

logger = logging.getLogger("managed")

class Gateway(Handler):
    def __init__(self, sessions):
        self.sessions = sessions

    def packet_received(self, session, packet):
        session.bind(packet.payload)
        session.send(Packet(packet.id, b"%d" % self.sessions.find(packet.payload).id))

    def disconnected(self, session, reason):
        logger.info("gateway: %s", reason.name)

@contextmanager
def application():
    sessions = SessionPool()
    logger.info("gateway: entered")
    yield Gateway(sessions), sessions
    logger.info("gateway: left, %d sessions", len(sessions))

@asynccontextmanager
async def application_soon():
    with application() as given:
        yield given

@asynccontextmanager
async def alone():
    yield Gateway(None)

@contextmanager
def without_pool():
    yield Gateway(None), []

@asynccontextmanager
async def broken():
    raise OSError("no broker")
    yield
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module into the current directory, with a name that no other test imports; gives that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(text: str) -> str:
        name = f"written_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def reply_of(address: tuple[str, int], packet: Packet) -> Packet:
    decoder = Decoder()
    with socket.create_connection(address, timeout=DEADLINE) as device:
        device.sendall(encode(packet))
        while data := device.recv(4096):
            for event in decoder.feed(data):
                assert isinstance(event, Packet)
                return event
    raise AssertionError("no reply")


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("Box.instance", "gevent"),
        ("new_gateway", "twisted"),
        ("new_gateway_soon", "asyncio"),
        ("handle", "asyncio"),
        ("handle_and_wait", "blocking"),
    ],
)
def test_an_application_is_served(written: Callable[[str], str], name: str, transport: str) -> None:
    with serving("--app", f"{written(GATEWAY)}:{name}", "--transport", transport) as server:
        host, _, port = server.first_line.removeprefix("listening on ").rpartition(":")
        assert reply_of((host, int(port)), Packet(7, b"x")) == Packet(8, b"x")
        assert server.end() == 0
        assert any("session 1" in line and "opened" in line for line in server.log)


def test_it_is_served_over_udp_in_the_framing_that_is_asked_for(written: Callable[[str], str]) -> None:
    name = written(
        "from packetcore import Handler\n"
        "class Upper(Handler[bytes]):\n"
        "    def packet_received(self, session, packet):\n"
        "        session.send(packet.upper())\n"
    )
    with serving("--app", f"{name}:Upper", "--udp", "--framing", "lines") as server:
        host, _, port = server.first_line.removeprefix("listening on ").rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            device.settimeout(DEADLINE)
            device.sendto(b"status\n", (host, int(port)))
            assert device.recv(100) == b"STATUS\n"
        assert server.end() == 0


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("application", "blocking"),
        ("application", "gevent"),
        ("application_soon", "asyncio"),
        ("application_soon", "twisted"),
    ],
)
def test_an_application_with_sessions_of_its_own_is_entered_and_left(
    written: Callable[[str], str], name: str, transport: str
) -> None:
    options = ["--app", f"{written(MANAGED)}:{name}", "--transport", transport, "--grace", "0.1"]
    with serving(*options) as server:
        host, _, port = server.first_line.removeprefix("listening on ").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=DEADLINE) as device:
            device.sendall(encode(Packet(7, b"meter")))
            assert device.recv(4096) == encode(Packet(7, b"1"))  # found in its register
            assert server.end() == 0
    told = [line.rpartition("gateway: ")[2] for line in server.log if "gateway: " in line]
    assert told == ["entered", "SHUTDOWN", "left, 0 sessions"]  # the server was closed before


@pytest.mark.parametrize(
    ("name", "transport", "said"),
    [
        ("without_pool", "asyncio", "its sessions are of type list, which is no SessionPool"),
        ("alone", "blocking", "is for async with, and this transport blocks: it takes a with"),
        ("broken", "asyncio", "entering it raised OSError: no broker (MODULE.py, line 42); --verbose shows the"),
    ],
)
def test_what_cannot_be_entered_is_told_in_one_line(
    written: Callable[[str], str], capsys: pytest.CaptureFixture[str], name: str, transport: str, said: str
) -> None:
    module = written(MANAGED)
    assert main(["serve", "--app", f"{module}:{name}", "--transport", transport]) == 1
    told = capsys.readouterr().err
    assert said.replace("MODULE", module) in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "is not of the form package.module:Name"),
        (":Nope", "has no 'Nope'"),
        (":Box.nope", ".Box has no 'nope'"),
        (".sub:Gateway", "no module 'MODULE.sub', looked in HERE too"),
        (":number", "is no application: something of type int, which is no packetcore.Handler and no function"),
        (":two", "is no application: something of type function"),
        (":nothing", "is no application: called, it gives something of type NoneType"),
        (":Box", "is no application: called, it gives something of type Box"),
        (":Needs", "this class needs arguments; name a function without any that makes one"),
        (":Raises", "Raises() raised LookupError: no database (MODULE.py, line 17); --verbose shows the traceback"),
        (":Exits", "Exits() raised SystemExit: 3 (MODULE.py, line 21); --verbose shows the traceback"),
    ],
)
def test_what_is_no_application_is_told_in_one_line(
    written: Callable[[str], str], capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    module = written(GATEWAY)
    assert main(["serve", "--app", module + name]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"packetcore: --app '{module}{name}'")
    assert said.replace("MODULE", module).replace("HERE", os.getcwd()) in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise OSError('no disk')\n", "raised OSError: no disk (MODULE.py, line 2)"),
        ("import there_is_no_such_module\n", "raised ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("def x(:\n", "raised SyntaxError: invalid syntax (MODULE.py, line 1)"),
        ("raise SystemExit('bye')\n", "raised SystemExit: bye (MODULE.py, line 1)"),
    ],
)
def test_what_an_import_raises_is_told_with_its_line(
    written: Callable[[str], str], capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    module = written(text)
    assert main(["serve", "--app", f"{module}:Gateway"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"packetcore: --app '{module}:Gateway': importing {module} ")
    assert said.replace("MODULE", module) in told
    assert told.count("\n") == 1
    sys.modules.pop(module, None)
    assert main(["serve", "--app", f"{module}:Gateway", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_function_that_awaits_is_refused_where_nothing_does(
    written: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--app", f"{written(GATEWAY)}:handle", "--transport", "blocking"]) == 1
    assert "is an async def, and this transport blocks: it takes a def" in capsys.readouterr().err


def test_a_serial_line_takes_no_function(written: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("serial")
    path = f"{written(GATEWAY)}:handle"
    assert main(["serve", "--app", path, "--serial", "/dev/there-is-none"]) == 1
    assert f"--app '{path}': a serial line needs a packetcore.Handler, no function" in capsys.readouterr().err
    path = f"{written(MANAGED)}:application_soon"
    sys.modules.pop(path.partition(":")[0])
    assert main(["serve", "--app", path, "--serial", "/dev/there-is-none"]) == 1
    assert f"--app '{path}': a serial line has no register of sessions" in capsys.readouterr().err


def test_an_application_and_echo_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--app", "a:b", "--echo"]) == 2
    assert "argument --app: not allowed with argument --echo" in capsys.readouterr().err


def test_the_current_directory_is_looked_in_by_the_installed_command_too(written: Callable[[str], str]) -> None:
    # `python -m` has it in its path anyway, a script has not.
    run = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    code = "import sys; sys.path[:] = [p for p in sys.path if p]; from packetcore_cli.__main__ import main; main()"
    module = written("raise OSError('found')\n")
    ended = subprocess.run(
        [*run, "-c", code, "serve", "--app", f"{module}:X"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "raised OSError: found" in ended.stderr
