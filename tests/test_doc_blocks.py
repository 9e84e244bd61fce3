"""Each block of code in the documents runs, or says why it cannot.

The blocks of Python on one page share their names, in their order, as in a notebook, and may `await` as they stand.
What they name is made up for them: networks (a port below 10,000 is that of the server which was started last),
certificates, and, in `BEFORE`, what a page takes for granted.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import doctest
import inspect
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import packetcore_asyncio
import packetcore_blocking
import packetcore_gevent
from packetcore_cli.__main__ import main
from packetcore_cluster.local import LocalBroker
from packetcore_conformance.certificates import Certificates
from tests.doc_blocks import BLOCKS, PAGES, ROOT, Block, check_command, command_lines

OWN = {
    "conformance/README.md": 1,
    "docs/new-runtime.md": 3,
    "docs/serial.md": 2,
    "docs/simulation.md": 2,
    "docs/testing-your-application.md": 11,
    "docs/your-protocol.md": 3,
}
"""How many blocks of Python `test_docs.py` runs of a page, each of which has a test of its own there."""

ELSEWHERE = {"docs/cluster.md": "tests/test_cluster_page.py"}
"""Pages that have a file of tests of their own."""

APART = ("docs/start.md", "transports/")
"""Pages whose blocks are programs of runtimes that want a process of their own."""

COMMON = """
from packetcore import *
from packetcore_asyncio import *

class Gateway(Handler):
    def packet_received(self, session, packet):
        session.send(packet)

class Meter(Handler):
    def packet_received(self, session, packet):
        if packet.type == 3:
            session.send(packet)
"""
PEERS = """
server = await serve(Gateway(), "127.0.0.1", 0)
meter = await connect(*server.address, Meter())
await request(meter, Packet(1, b"hello"), timeout=5.0)
(session,) = server.sessions
stream = await connect(*server.address)
session.bind("meter 7")
"""
BEFORE = {
    "README.md": PEERS,
    "cluster/README.md": "",
    "docs/operations.md": PEERS + "def every(seconds, function): raise AssertionError('there is no watchdog here')",
    "docs/pools-and-timeouts.md": PEERS,
    "docs/tls-and-identities.md": PEERS,
    "docs/websocket.md": "import ssl\ncontext = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)\n"
    "context.load_cert_chain('server.pem')",
    "examples/jt808/README.md": "from jt808.gateway import CONFIG, Gateway\n"
    "from jt808.packet import FRAMING, JT808Codec",
}
"""What a page takes for granted, by its path, behind what is `COMMON`."""

AFTER = {
    "docs/backpressure.md": """
from packetcore.testing import FakeSession
session = FakeSession(News())
session.room = 0
session.room = None
assert [packet.id for packet in session.sent] == list(range(500))
""",
    "docs/wire-format.md": """
import json
from pathlib import Path

def packets(rows):
    return [(row["id"], row["type"], row["count"], bytes.fromhex(row["payload"])) for row in rows if "id" in row]

def decoded(pieces, **limit):
    decoder = Decoder(**limit)
    return [packet for piece in pieces for packet in decoder.feed(piece)]

(rows,) = [json.loads((ROOT / "conformance/packetcore_conformance/dotnet-frames.json").read_text())["vectors"]]
wires = [bytes.fromhex(row["wire"]) for row in rows]
assert len(wires) == 80
assert [encode(*packet) for packet in packets(rows)] == wires
assert decoded(wires) == packets(rows)
assert decoded(bytes([byte]) for byte in b"".join(wires)) == packets(rows)

told = json.loads((ROOT / "docs/stream-cases.json").read_text())
for case in told["cases"]:
    wire, expected = bytes.fromhex(case["wire"]), packets(case["events"])
    assert decoded([wire], max_payload=told["max_payload"]) == expected, case["name"]
    assert decoded((bytes([byte]) for byte in wire), max_payload=told["max_payload"]) == expected, case["name"]
    again = [encode(*packet) for packet in expected]
    assert decoded(again) == expected
""",
}
"""What is asked of a page's blocks once they have run."""


def names(blocks: list[Block]) -> dict[str, Any]:
    """For `parametrize`."""
    return {"argvalues": blocks, "ids": [block.place for block in blocks]}


def python(page: str) -> list[Block]:
    return [block for block in BLOCKS if block.page == page and block.language == "python" and block.why_not is None]


class Network:
    """The addresses on the pages, made up: servers listen on loopback, and whoever names a port below 10,000 means
    the one of its kind that was started last."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        """The page's own. A program with a loop of its own closes what it opens there."""
        self.opened: list[Any] = []
        self._addresses: dict[str, tuple[Any, ...]] = {}

    def patch(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind in ("", "_udp"):
            monkeypatch.setattr(module, f"serve{kind}", self._serving(getattr(module, f"serve{kind}"), kind))
            monkeypatch.setattr(module, f"connect{kind}", self._connecting(getattr(module, f"connect{kind}"), kind))
        for name in ("serve_unix", "connect_unix"):
            monkeypatch.setattr(module, name, self._by_path(getattr(module, name)))
        pool = module.ConnectionPool
        monkeypatch.setattr(
            module, "ConnectionPool", lambda *where, **options: pool(*self._found(where, ""), **options)
        )

    def _found(self, where: tuple[Any, ...], kind: str) -> tuple[Any, ...]:
        if isinstance(where[0], str) and (url := re.fullmatch(r"(wss?://)[\w.]+(/.*)?", where[0])):
            return f"{url[1]}127.0.0.1:{self._addresses[''][1]}{url[2] or ''}", *where[1:]
        if len(where) > 1 and isinstance(where[1], int) and 0 < where[1] < 10_000:
            return (*self._addresses[kind], *where[2:])
        return where

    def _kept(self, given: Any, then: Callable[[Any], object] = lambda given: None) -> Any:
        """What a call gives is closed in the end, be it awaited first or not."""

        def keep(opened: Any) -> Any:
            if not inspect.isawaitable(given) or asyncio.get_running_loop() is self.loop:
                self.opened.append(opened)
                then(opened)
            return opened

        async def awaited() -> Any:
            return keep(await given)

        return awaited() if inspect.isawaitable(given) else keep(given)

    def _serving(self, serve: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def listen(handler: Any, host: Any = None, port: int = 0, **options: Any) -> Any:
            def note(server: Any) -> None:
                self._addresses[kind] = server.address[:2]

            given = {} if "socket" in options else {"host": "127.0.0.1", "port": 0}
            return self._kept(serve(handler, **given, **options), note)

        return listen

    def _connecting(self, connect: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def dial(*where: Any, **options: Any) -> Any:
            if "ssl" in options and not where[0].startswith("127."):
                options.setdefault("server_hostname", where[0])
            return self._kept(connect(*self._found(where, kind), **options))

        return dial

    def _by_path(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def made_up(*arguments: Any, **options: Any) -> Any:
            there = [each.rpartition("/")[2] if isinstance(each, str) else each for each in arguments]
            return self._kept(call(*there, **options))

        return made_up


class Page:
    """Runs the blocks of one page."""

    def __init__(self, network: Network) -> None:
        self.names: dict[str, Any] = {"__name__": "page", "ROOT": ROOT}
        self._network = network
        self._loop = network.loop

    def run(self, text: str, place: str = "before", line: int = 1) -> None:
        if text.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(text, self.names, place, place, line)
            told: list[str] = []
            assert doctest.DocTestRunner().run(test, out=told.append, clear_globs=False).failed == 0, "".join(told)
            self.names.update(test.globs)
            return
        text = re.sub(r"\bserve_forever\(\)", "close()", text)  # it would
        code = compile("\n" * (line - 1) + text, place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            self._loop.run_until_complete(asyncio.wait_for(eval(code, self.names), 30.0))
        else:
            exec(code, self.names)

    def close(self) -> None:
        async def close() -> None:
            for opened in reversed(self._network.opened):
                closing = opened.close()
                if inspect.isawaitable(closing):
                    await closing
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=10.0)

        self._loop.run_until_complete(close())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page's blocks run in a folder of their own, with certificates, and find servers where they look for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    network = Network()
    for module in (packetcore_asyncio, packetcore_blocking, packetcore_gevent):
        network.patch(module, monkeypatch)
    page = Page(network)
    yield page
    page.close()


TOGETHER = [
    name
    for name in PAGES
    if python(name) and name not in {*OWN, *ELSEWHERE} and not name.startswith(APART) and name != "cluster/README.md"
]


@pytest.mark.parametrize("name", TOGETHER)
def test_the_python_on_the_page_runs(name: str, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ssl" in "".join(block.text for block in python(name)):
        Certificates(tmp_path)
        shutil.copy("server.pem", "key.pem")
        monkeypatch.setenv("SSL_CERT_FILE", "authority.pem")
    if name != "docs/wire-format.md":  # it is to do without
        page.run(COMMON)
    page.run(BEFORE.get(name, ""))
    for block in python(name):
        page.run(block.text, name, block.line)
    page.run(AFTER.get(name, ""))


def in_process_of_its_own(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


STARTS = python("docs/start.md")


@pytest.mark.parametrize("block", **names(STARTS[:4]))
def test_each_start_prints_what_the_page_says(block: Block) -> None:
    (printed,) = [each.text for each in BLOCKS if each.page == "docs/start.md" and each.language == "text"]
    assert in_process_of_its_own(block.text) == printed


def test_the_function_over_a_stream_serves(page: Page) -> None:
    (block,) = STARTS[4:]
    page.run(COMMON)
    page.run(block.text, block.page, block.line)
    page.run("stream = await connect(*server.address)\nassert await stream.request(b'a', timeout=5.0)")


def test_the_first_page_prints_what_it_says(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python("docs/index.md")
    page.run(block.text, block.page, block.line)
    (printed,) = [each.text for each in BLOCKS if each.page == "docs/index.md" and each.language == "text"]
    assert capsys.readouterr().out == printed


def test_the_gevent_client_that_comes_back_reports(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    _, block = python("transports/gevent/README.md")  # the first is run by test_docs.py
    page.run("import packetcore_gevent, gevent.event\nfrom packetcore_gevent import serve\n")
    page.run(
        "heard = gevent.event.Event()\nserver = serve(lambda stream: (stream.recv(), heard.set()), '127.0.0.1', 7000)"
    )
    text = block.text.replace("    ...\n", "    assert heard.wait(10.0)\n")
    assert text != block.text
    page.run(text, block.page, block.line)


def test_the_pool_and_the_endpoints_on_the_page_of_twisted_work() -> None:
    first, pool, endpoints = python("transports/twisted/README.md")  # the first is run by test_docs.py, too
    echo = first.text[: first.text.index("async def main")]
    port = unused_port()
    program = f"""{echo}
from packetcore import Handler

class MyHandler(Handler):
    def connected(self, session):
        met.callback(None)

async def main(reactor):
    global met
    from twisted.internet.defer import Deferred
    met = Deferred()
{textwrap.indent(endpoints.text + pool.text, "    ")}
    await met
    await asking
    await client.stopService()
    await pool.close()

task.react(main)
"""
    assert "id=16, payload=b'hello'" in in_process_of_its_own(program.replace("9000", str(port)))


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_the_cluster_on_the_page_works(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    with LocalBroker() as broker:
        for block in python("cluster/README.md"):
            text = block.text.replace("nats://127.0.0.1:4222", broker.url)
            if "react(" in text:  # which ends its process
                loopback = text.replace('"0.0.0.0", 5000', '"127.0.0.1", 0').replace("serve_forever()", "close()")
                in_process_of_its_own(loopback)
            else:
                page.run(text, block.page, block.line)
    assert re.search(r"^nats://127\.0\.0\.1:\d+$", capsys.readouterr().out, re.M)


def test_each_block_of_python_is_run() -> None:
    """Those of `OWN` pages by `test_docs.py`, of `APART` pages and the cluster's by tests above, others together."""
    assert {page: len(python(page)) for page in OWN} == OWN
    by_name = {"docs/start.md": 5, "cluster/README.md": len(python("cluster/README.md"))}
    adapters = {"asyncio": 1, "blocking": 1, "gevent": 2, "sockets": 1, "twisted": 3}
    apart = by_name | {f"transports/{name}/README.md": number for name, number in adapters.items()}
    assert {page: len(python(page)) for page in apart} == apart
    elsewhere = {page for page in ELSEWHERE if page in PAGES}
    assert all(Path(page).name in (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8") for page in elsewhere)
    assert {page for page in PAGES if python(page)} == {*OWN, *apart, *TOGETHER, *elsewhere}


SHELL = [block for block in BLOCKS if block.language in ("sh", "console", "") and block.why_not is None]


@pytest.mark.parametrize("block", **names([block for block in SHELL if command_lines(block)]))
def test_the_commands_exist_with_their_options(block: Block) -> None:
    folder = ROOT
    for words in command_lines(block):
        check_command(words, folder)
        if words[0] == "cd":
            folder = folder / words[1]


OFFLINE = re.compile(r"^\$ packetcore ((?:encode|decode) [^|#.\n]+)\n(.*?)(?=^\$|\Z)", re.M | re.S)
"""Commands that need neither a network nor a file."""


@pytest.mark.parametrize("block", **names([block for block in SHELL if OFFLINE.search(block.text)]))
def test_what_the_command_prints_is_what_the_page_shows(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for command, printed in OFFLINE.findall(block.text):
        main(shlex.split(command))
        out = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
        assert out.strip() == printed.strip(), command


def test_units_of_systemd_are_whole_and_start_what_exists() -> None:
    units = [block for block in BLOCKS if block.language == "ini"]
    assert units
    for block in units:
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(block.text.replace("\\\n", " "))
        assert {"Unit", "Service", "Socket", "Install"} >= {*parser.sections()} != set(), block.place
        if parser.has_option("Service", "ExecStart"):
            path, *words = shlex.split(parser.get("Service", "ExecStart"))
            check_command([Path(path).name, *words])


def test_other_languages_can_be_read() -> None:
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "toml" and sys.version_info >= (3, 11):
            import tomllib

            tomllib.loads(block.text)
        elif block.language == "yaml":
            assert [*pytest.importorskip("yaml").safe_load_all(block.text)]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_scripts_for_browsers_can_be_parsed(tmp_path: Path) -> None:
    for number, block in enumerate([block for block in BLOCKS if block.language == "javascript"]):
        script = tmp_path / f"{number}.mjs"
        script.write_text(block.text, encoding="utf-8")
        done = subprocess.run(["node", "--check", script], timeout=30, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (block.place, done.stderr)


LANGUAGES = {
    "python": "runs",
    "sh": "commands and options exist",
    "console": "commands and options exist",
    "": "commands and options exist, if there are any",
    "ini": "is read as systemd would, and starts what exists",
    "json": "is read",
    "toml": "is read",
    "yaml": "is read",
    "conf": "is for nats-server, which test_cluster_page.py starts with it",
    "javascript": "is parsed",
    "mermaid": "is drawn by state_diagram.py",
    "text": "is no code: what something prints, or looks like",
    "{eval-rst}": "is for the site",
}


def test_no_block_is_left_out() -> None:
    unknown = {block.place: block.language for block in BLOCKS if block.language not in LANGUAGES}
    assert unknown == {}
    fences = {page: len(re.findall(r"^ *```", (ROOT / page).read_text(encoding="utf-8"), re.M)) for page in PAGES}
    found = Counter(block.page for block in BLOCKS)
    assert {page: count // 2 for page, count in fences.items() if count} == found
    reasons = [block.why_not for block in BLOCKS if block.why_not is not None]
    assert all(len(reason) > 10 for reason in reasons)
