"""`examples/browser`: its page in a real browser, its codec beside ours.

The codec runs in Node. A machine that lacks that, or a browser, skips these tests and says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from packetcore import Packet
from packetcore_conformance.vectors import PACKETS, STREAM
from tests.browsers import DEADLINE, running_browser

BROWSER = Path(__file__).parents[1] / "examples" / "browser"

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
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


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


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[Page]:
    """A page, open."""
    page = browser.new_page()
    try:
        page.goto(url)
        yield page
    finally:
        page.close()


@pytest.mark.timeout(120)
def test_the_page_talks_packets_with_the_server(browser: Browser, page: str) -> None:
    with opened(browser, page) as tab:
        body = tab.locator("body")
        expect(body).to_contain_text("Connection: open, by packetcore")
        expect(body).to_contain_text("sent 1: a payload with þ and ý")  # bytes FE and FD are none of UTF-8
        expect(body).to_contain_text("packet 1 of type 7: A PAYLOAD WITH Þ AND Ý")
        bytes_sent = "new Uint8Array([0x61, 0xfe, 0xfd, 0x62])"
        tab.evaluate(f"packets.send({{ id: 0xfefd, type: 0xfe, payload: {bytes_sent} }})")
        expect(body).to_contain_text("packet 65277 of type 254: A\ufffd\ufffdB")
        tab.evaluate("for (let i = 0; i < 200; i++) packets.send({ id: i, payload: 'x'.repeat(i * 10) })")
        expect(body).to_contain_text("packet 199 of type 0: " + "X" * 1990)
        expect(tab.locator(".theirs")).to_have_count(202)
        assert tab.evaluate("packets.decoder.malformed") == 0
        tab.evaluate("packets.close()")
        expect(body).to_contain_text("Connection: closed, code 1000")


@pytest.mark.timeout(120)
def test_a_page_from_elsewhere_is_refused(browser: Browser, page: str) -> None:
    with opened(browser, page.replace("127.0.0.1", "localhost", 1)) as tab:
        expect(tab.locator("body")).to_contain_text("Connection: closed, code 1006")
