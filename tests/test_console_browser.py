"""The page of the console in a real browser, as wide as a screen and as a phone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from packetcore import CloseReason, Decoder, Driver, Handler, Packet, Session, encode, load_driver
from packetcore_cli._sampler import Sampler
from packetcore_cli.console import Console
from tests.browsers import DEADLINE, running_browser

HOSTILE = "<script>document.title='owned'</script>"


class Gateway(Handler):
    def __init__(self) -> None:
        self.ended: list[CloseReason] = []

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ended.append(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    driver = load_driver("asyncio")
    yield driver
    driver.stop()


class Rig:
    """A console of a server, and devices."""

    def __init__(self, driver: Driver, opened: ExitStack) -> None:
        self.gateway = Gateway()
        self.server = driver.start_server(self.gateway)
        sampler = opened.enter_context(Sampler(self.server.endpoint, period=0.1))
        self.console = opened.enter_context(Console(self.server, title=HOSTILE, sampler=sampler))
        self._opened = opened

    def device(self, name: str) -> socket.socket:
        peer = self._opened.enter_context(socket.create_connection(self.server.address, DEADLINE))
        peer.sendall(encode(Packet(0, name.encode())))
        return peer


@pytest.fixture
def rig(driver: Driver) -> Iterator[Rig]:
    with ExitStack() as opened:
        yield Rig(driver, opened)


@contextmanager
def opened(browser: Browser, url: str, width: int, height: int, scheme: str = "light") -> Iterator[Page]:
    """A page of its own, of which nothing may go wrong and nothing leave for elsewhere."""
    amiss: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.on("console", lambda message: amiss.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: amiss.append(str(error)))
        page.on("requestfailed", lambda failed: amiss.append(failed.url) if "/events" not in failed.url else None)
        page.on("request", lambda sent: amiss.append(sent.url) if not sent.url.startswith(base_of(url)) else None)
        page.goto(url)
        yield page
        assert amiss == []
    finally:
        context.close()


def base_of(url: str) -> str:
    return url.partition("?")[0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 900, "light"), (390, 844, "dark")], ids=["screen", "phone"]
)
def test_sessions_are_seen_sent_to_and_closed(
    browser: Browser, rig: Rig, width: int, height: int, scheme: str, tmp_path: Path
) -> None:
    meter, hostile = rig.device("meter 7"), rig.device(HOSTILE)
    with opened(browser, rig.console.url, width, height, scheme) as page:
        assert page.url == base_of(rig.console.url), "the token stays out of the address"
        rows = page.locator("#list tbody tr")
        expect(rows).to_have_count(2)
        row = rows.filter(has_text="meter 7")
        expect(row).to_contain_text("127.0.0.1:{}".format(*meter.getsockname()[1:]))
        expect(rows.filter(has_text=HOSTILE)).to_have_count(1)
        expect(page.locator("#sessions")).to_have_text("2")
        expect(page.locator("#status")).to_have_text("live")
        expect(page.locator("#packets-chart polyline")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing has to be scrolled aside"
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")

        # A packet, and its reply.
        thread = threading.Thread(target=answer, args=(meter,), daemon=True)
        thread.start()
        row.get_by_role("button", name="Send…").click()
        page.get_by_label("type").fill("3")
        page.get_by_label("payload", exact=True).fill("status?")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator("#reply")).to_contain_text("id 1, type 3, count 1, 18 bytes")
        expect(page.locator("#reply pre").first).to_have_text("STATUS? <b>good</b>"[:18])
        page.get_by_label("id", exact=True).fill("70000")
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator("#reply .error")).to_have_text("id=70000 is out of range 0 to 65535")
        page.keyboard.press("Escape")

        # Searched for, and found no more once it is closed.
        page.get_by_label("Search sessions").fill("METER")
        expect(rows).to_have_count(1)
        row.get_by_role("button", name="Close").click()
        meter.recv(100)
        meter.close()
        expect(page.locator("#list")).to_contain_text("No session matches.")
        expect(page.locator("#closed")).to_contain_text("LOCAL")
        assert rig.gateway.ended == [CloseReason.LOCAL]

        # What is malformed, byte by byte, and none of it markup.
        hostile.sendall(b"\xfe\x00\x10\x01\x00\x01\x00\x00\x00\x0412\xfd\x09<b>\xfe")
        dump = page.locator("#malformed article")
        expect(dump).to_contain_text("BAD_ESCAPE")
        expect(dump).to_contain_text(HOSTILE)
        expect(dump.locator("pre")).to_contain_text("<b>")
        expect(dump.locator("pre .s-magenta").first).to_have_text("escape ")
        assert page.title() == f"packetcore {HOSTILE}"
        assert page.locator("body script, pre b").count() == 0
        page.get_by_label("Search sessions").fill("")
        hostile.close()
        expect(page.locator("#list")).to_contain_text("No session is open.")
        page.screenshot(path=tmp_path / "console.png")


def answer(peer: socket.socket) -> None:
    decoder = Decoder()
    while not (events := decoder.feed(peer.recv(65536))):
        pass
    (packet,) = events
    assert isinstance(packet, Packet)
    peer.sendall(encode(Packet(packet.id, packet.payload.upper() + b" <b>good</b>"[:11], type=packet.type)))


ATTACK = """
async ([base, session]) => {
  const asked = { method: "POST", body: JSON.stringify({ session }), credentials: "include" };
  const ways = [
    { mode: "no-cors", headers: { "Content-Type": "text/plain" } },
    { headers: { "Content-Type": "application/json" } },
    { mode: "no-cors" },
  ];
  const told = [];
  for (const way of ways) {
    told.push(await fetch(base + "close", { ...asked, ...way }).then((answer) => answer.type, () => "refused"));
  }
  told.push(await new Promise((done) => {
    const source = new EventSource(base + "events", { withCredentials: true });
    source.onmessage = () => done("told");
    source.onerror = () => done("refused");
  }));
  return told;
}
"""


@pytest.mark.timeout(120)
def test_another_page_of_the_same_browser_can_do_nothing(browser: Browser, rig: Rig, driver: Driver) -> None:
    meter = rig.device("meter 7")
    with ExitStack() as others:
        # Of another port of this machine: the browser takes it for the same site, and sends the cookie.
        other = others.enter_context(Console(driver.start_server(Gateway())))
        context = browser.new_context(bypass_csp=True)
        others.callback(context.close)
        page = context.new_page()
        page.goto(rig.console.url)
        expect(page.locator("#list tbody tr")).to_have_count(1)
        attacker = context.new_page()
        attacker.goto(other.url)
        told = attacker.evaluate(ATTACK, [base_of(rig.console.url), 1])
        assert told == ["refused"] * 4
        attacker.set_content(f'<iframe src="{base_of(rig.console.url)}"></iframe>')
        frame = attacker.frames[-1]
        assert frame.locator("#list").count() == 0
        # It is there all the same.
        assert [session.is_open for session in driver.call(rig.server.endpoint.own_sessions)] == [True]
        expect(page.locator("#list tbody tr")).to_contain_text("meter 7")
    meter.close()


@pytest.mark.timeout(120)
def test_without_the_token_there_is_no_page(browser: Browser, rig: Rig) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        for url in (base_of(rig.console.url), rig.console.url[:-1]):
            answer = page.goto(url)
            assert answer is not None
            assert answer.status == 403
            expect(page.locator("body")).to_contain_text("Open the address that was printed")
    finally:
        context.close()
