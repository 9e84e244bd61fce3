"""What the documents show is true: each snippet runs, each link leads somewhere."""

from __future__ import annotations

import ast
import asyncio
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from packetcore import Backoff, Config, ConnectionPoolStats, EndpointStats, LocalProtocolError, Packet
from packetcore.framings import COBS
from packetcore.prometheus import PacketcoreCollector
from packetcore_conformance.serial_peer import SerialPeer

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("cli/*.md"),
        *ROOT.glob("conformance/*.md"),
        *ROOT.glob("tap/*.md"),
        *ROOT.glob("cluster/*.md"),
        *ROOT.glob("transports/*/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("examples/*/*.md"),
    ]
)
FINITE = [ROOT / "README.md", *sorted(ROOT.glob("transports/*/README.md"))]
"""Pages whose first Python block is a whole program that ends by itself."""

DRIVEN = """
driver = SelectorDriver()
server = driver.start_server()
pool = driver.open_pool(*server.address)


async def ask():
    async with pool.acquire() as stream:
        return await stream.request(Packet(8, b"driven"), timeout=2.0)


print(driver.call(ask))
driver.stop()
"""
"""What tools do with a driver."""


def test_the_state_diagram_is_the_table_of_transitions() -> None:
    assert subprocess.run([sys.executable, ROOT / "docs/state_diagram.py", "--check"], timeout=30).returncode == 0


@pytest.mark.parametrize("page", FINITE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_program_on_the_page_runs(page: Path) -> None:
    block = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    done = subprocess.run([sys.executable, "-c", block[1]], timeout=30, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hello" in done.stdout


def test_the_binding_on_the_page_runs_and_so_does_its_driver() -> None:
    page = (ROOT / "docs/new-runtime.md").read_text(encoding="utf-8")
    program = "\n\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)) + DRIVEN
    done = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [repr(Packet(7, b"hello")), repr(Packet(8, b"driven"))]


def test_each_protocol_on_the_page_speaks() -> None:
    page = (ROOT / "docs/your-protocol.md").read_text(encoding="utf-8")
    said = []
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        done = subprocess.run([sys.executable, "-c", block], timeout=30, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        said.append(done.stdout.strip())
    assert said == [
        "b'HELLO'",
        "Reading(meter=7, kind=255, value=-40, note=b'seen')",
        r"b'\x10\x02 and \x10\x03 are but bytes'",
    ]


def test_the_line_on_the_page_is_served() -> None:
    page = (ROOT / "docs/serial.md").read_text(encoding="utf-8")
    device, bus = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    peer = SerialPeer()
    try:
        program, places = re.subn(r'"/dev/serial[^"]*"', repr(peer.device), device)
        assert places == 1
        program = program.replace("await asyncio.Event().wait()", "await asyncio.wait_for(heard.wait(), 30)")
        told: list[object] = []
        names: dict[str, Any] = {"heard": asyncio.Event(), "print": lambda *words: told.extend(words)}
        exec(program.replace("print(", "heard.set(), print("), names)
        names["Sensor"].connected = lambda handler, session: peer.send(COBS().encode(b"\x07"))
        asyncio.run(names["main"]())
    finally:
        peer.close()
    assert told == [peer.device, "07"]
    exec(bus, {})


def test_the_simulations_on_the_page_run() -> None:
    page = (ROOT / "docs/simulation.md").read_text(encoding="utf-8")
    first, many = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", first], timeout=30, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "99 reports in 3600.0 virtual seconds\n"
    names: dict[str, Any] = {}
    exec(many, names)
    names["test_meters"]()


def test_the_fuzzing_of_a_handler_runs_and_finds_a_fault() -> None:
    page = (ROOT / "conformance/README.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    sound: dict[str, Any] = {}
    exec(block[1], sound)
    sound["test_no_stream_gives_an_impossible_temperature"]()
    faulty: dict[str, Any] = {}
    exec(block[1].replace("packet.type == 1 and len(packet.payload) == 2", "True"), faulty)
    fuzz = settings(report_multiple_bugs=False)(faulty["test_no_stream_gives_an_impossible_temperature"])
    with pytest.raises((AssertionError, struct.error)):  # whichever it comes upon first
        fuzz()


def test_the_tests_on_the_page_pass_and_find_a_fault() -> None:
    page = ROOT / "docs/testing-your-application.md"
    program = "\n\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(program, page.name, "exec", dont_inherit=True), names)
    tests = {name: test for name, test in names.items() if name.startswith("test_")}
    assert len(tests) == program.count("def test_")
    for test in tests.values():
        test()
    names["Gateway"].packet_received = lambda handler, session, packet: session.abort()
    failed = set()
    for name, test in tests.items():
        try:
            test()
        except (AssertionError, LookupError, pytest.fail.Exception, LocalProtocolError):
            failed.add(name)
    functions = [node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]
    told = {each.name: ast.unparse(each) for each in functions}
    assert failed == {
        name for name, text in told.items() if "Gateway(" in text and ("feed(" in text or "Pair(" in text)
    }


def test_the_pages_know_the_defaults_and_every_metric() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    endpoint, pool = EndpointStats(), ConnectionPoolStats()
    collector = PacketcoreCollector({"endpoint": lambda: endpoint}, {"pool": lambda: pool})
    served = {sample.name for metric in collector.collect() for sample in metric.samples}
    assert set(re.findall(r"`(packetcore_\w+)", page)) == served
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    for limit in ("max_payload", "max_outstanding", "max_sessions", "max_sessions_per_host"):
        value = getattr(Config(), limit)
        told = f"{value // 2**20} MiB" if value >= 2**20 else f"{value:,}"
        assert re.search(rf"`{limit}`[^|]*\({told}\)", page), limit
    for timeout in ("idle_timeout", "frame_timeout", "connect_timeout"):
        assert f"`{timeout}` ({getattr(Config(), timeout):g} s)" in page, timeout
    page = (ROOT / "docs/pools-and-timeouts.md").read_text(encoding="utf-8")
    for name in ("initial", "maximum", "reset_after"):
        assert re.search(rf"`{name}`\s+\({getattr(Backoff(), name):g} s\)", page), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
