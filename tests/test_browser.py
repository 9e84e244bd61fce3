"""`examples/browser`: its page in a real browser, its codec beside ours.

The browser is Debian's Chromium, or what else of its kind is installed; the codec runs in Node. A machine that
lacks them skips these tests and says so.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import ClientConnection, connect

from packetcore import Packet
from packetcore_conformance.vectors import PACKETS, STREAM

BROWSER = Path(__file__).parents[1] / "examples" / "browser"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DEADLINE = 40.0

CHECK = """
const { encode, Decoder } = require(process.argv[1]);
const hex = (bytes) => Buffer.from(bytes).toString("hex");
const { stream, sizes } = JSON.parse(require("fs").readFileSync(0));
const bytes = Buffer.from(stream, "hex");
const result = sizes.map((size) => {
  const decoder = new Decoder(4096), packets = [];
  for (let at = 0; at < bytes.length; at += size) packets.push(...decoder.feed(bytes.subarray(at, at + size)));
  const told = packets.map((each) => [each.id, each.type, each.count, hex(each.payload), hex(encode(each))]);
  return [decoder.malformed, told];
});
console.log(JSON.stringify(result));
"""


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node is not installed, which runs the page's codec without a browser")
    return found


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"there is no browser to open the page in: none of {', '.join(BROWSERS)} is installed")
    return found


def in_node(node: str, stream: bytes, *sizes: int) -> list[tuple[int, list[tuple[Packet, bytes]]]]:
    """What the page's codec makes of a stream in pieces of so many bytes: malformed runs, and packets with
    what it encodes them to."""
    command = [node, "-e", CHECK, str(BROWSER / "packetcore.js")]
    asked = json.dumps({"stream": stream.hex(), "sizes": sizes})
    told = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
    return [
        (
            malformed,
            [
                (Packet(id, bytes.fromhex(payload), type=type, count=count), bytes.fromhex(wire))
                for id, type, count, payload, wire in packets
            ],
        )
        for malformed, packets in json.loads(told)
    ]


def test_its_codec_makes_and_reads_the_golden_frames(node: str) -> None:
    for malformed, packets in in_node(node, STREAM, 1, 7, len(STREAM)):
        assert malformed == 0
        assert [packet for packet, _ in packets] == PACKETS
        assert b"".join(wire for _, wire in packets) == STREAM


def test_its_codec_finds_the_next_frame_behind_a_broken_one(node: str) -> None:
    good = bytes.fromhex("fe000700000100000001" + "78" + "fe")
    broken = b"\xfe\x00\x07\xfd\x03\xfe" + b"\xfe\x00\xfe" + b"noise" + b"\xfe" + bytes(3 * 4096)
    for malformed, packets in in_node(node, broken + good + broken + good, 1, 1000):
        assert malformed == 8
        assert [packet for packet, _ in packets] == [Packet(7, b"x")] * 2


@pytest.fixture
def page() -> Iterator[str]:
    """The address of the page, as its server prints it."""
    command = [sys.executable, str(BROWSER / "server.py"), "0", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


class Tab:
    """A page in a headless browser, looked at by the DevTools protocol.

    Args:
        socket: speaks that.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        asked = {"id": 1, "method": "Runtime.evaluate", "params": {"expression": expression, "returnByValue": True}}
        self._socket.send(json.dumps(asked))
        while True:
            told = json.loads(self._socket.recv(DEADLINE))
            if told.get("id") == 1:
                return told.get("result", {}).get("result", {}).get("value")

    def shows(self, text: str) -> None:
        """Wait until the page shows a text."""
        shown = "document.body ? document.body.innerText : ''"  # it may be on its way
        _until(lambda: text in (self.evaluate(shown) or ""), f"the page shows {text!r}")


def target_of(url: str, devtools: str) -> str:
    """Wait until a browser has opened a page; give the address to look at it by."""
    targets: list[Any] = []

    def find() -> bool:
        with urlopen(re.sub(r"ws://([^/]+)/.*", r"http://\1/json/list", devtools), timeout=DEADLINE) as answer:
            targets[:] = [target for target in json.load(answer) if target["url"] == url]
        return bool(targets)

    _until(find, f"the browser opens {url}")
    address: str = targets[0]["webSocketDebuggerUrl"]
    return address


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


@contextmanager
def opened(browser: str, url: str, folder: Path) -> Iterator[Tab]:
    """A page, open."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with subprocess.Popen([browser, *options, url], stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            listening = next(line for line in running.stderr if line.startswith("DevTools listening on "))
            with connect(target_of(url, listening.split()[-1]), max_size=None) as socket:
                yield Tab(socket)
        finally:
            running.terminate()
            running.stderr.close()


@pytest.mark.timeout(120)
def test_the_page_talks_packets_with_the_server(browser: str, page: str, tmp_path: Path) -> None:
    with opened(browser, page, tmp_path) as tab:
        tab.shows("Connection: open, by packetcore")
        tab.shows("sent 1: a payload with þ and ý")  # bytes FE and FD are none of UTF-8
        tab.shows("packet 1 of type 7: A PAYLOAD WITH Þ AND Ý")
        bytes_sent = "new Uint8Array([0x61, 0xfe, 0xfd, 0x62])"
        tab.evaluate(f"packets.send({{ id: 0xfefd, type: 0xfe, payload: {bytes_sent} }})")
        tab.shows("packet 65277 of type 254: A\ufffd\ufffdB")
        tab.evaluate("for (let i = 0; i < 200; i++) packets.send({ id: i, payload: 'x'.repeat(i * 10) })")
        tab.shows("packet 199 of type 0: " + "X" * 1990)
        assert tab.evaluate("document.querySelectorAll('.theirs').length") == 202
        assert tab.evaluate("packets.decoder.malformed") == 0
        tab.evaluate("packets.close()")
        tab.shows("Connection: closed, code 1000")


@pytest.mark.timeout(120)
def test_a_page_from_elsewhere_is_refused(browser: str, page: str, tmp_path: Path) -> None:
    with opened(browser, page.replace("127.0.0.1", "localhost", 1), tmp_path) as tab:
        tab.shows("Connection: closed, code 1006")
