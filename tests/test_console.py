"""The console over HTTP: what it tells, what it does, and whom it lets do it. `test_console_browser.py` opens it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from packetcore import CloseReason, Config, Decoder, Driver, Handler, Packet, Session, encode, load_driver
from packetcore.framings import SLIP
from packetcore_cli.__main__ import main
from packetcore_cli._dump import malformed_lines
from packetcore_cli._sampler import Sampler
from packetcore_cli.console import Console
from packetcore_cli.console import _actions as actions
from packetcore_cli.console._console import DEEPEST, VIEWERS

DEADLINE = 30.0
PERIOD = 0.05


Answer = tuple[int, HTTPMessage, str]


class Gateway(Handler):
    """Binds who sends a name, and hears how they end."""

    def __init__(self) -> None:
        self.ended: list[CloseReason] = []
        self.heard: list[Packet] = []

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.heard.append(packet)
        session.bind(packet.payload.decode())

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ended.append(reason)


class Rig:
    """A server with a console, and devices of it."""

    def __init__(self, driver: Driver, opened: ExitStack, **options: Any) -> None:
        self.gateway = Gateway()
        self.server = driver.start_server(self.gateway, **options)
        self.sampler = opened.enter_context(Sampler(self.server.endpoint, period=PERIOD))
        self.console = opened.enter_context(Console(self.server, sampler=self.sampler))
        self.opened = opened
        self.token = parse_qs(urlsplit(self.console.url).query)["token"][0]
        status, headers, _ = self.get(f"/?token={self.token}")
        assert status == 303
        self.cookie = headers["Set-Cookie"].partition(";")[0]

    @property
    def host(self) -> str:
        return "{}:{}".format(*self.console.address)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, asked: object, **headers: str) -> Any:
        """What an own page would be told; with other headers than its, in place of them."""
        own = {"Cookie": self.cookie, "Origin": f"http://{self.host}", "Content-Type": "application/json"}
        status, _, text = self.ask("POST", path, json.dumps(asked), own | headers)
        return json.loads(text) if status == 200 else status

    def ask(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        connection = HTTPConnection(*self.console.address, timeout=DEADLINE)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items() if value}
            connection.request(method, path, body, {"Host": self.host, **sent})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def events(self, query: str = "") -> Generator[Any, None, None]:
        connection, answer = self.stream(query)
        try:
            assert answer.status == 200, answer.read()
            while line := answer.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        finally:
            answer.close()
            connection.close()

    def stream(self, query: str = "") -> tuple[HTTPConnection, HTTPResponse]:
        connection = HTTPConnection(*self.console.address, timeout=DEADLINE)
        connection.request("GET", f"/events?{query}", headers={"Cookie": self.cookie})
        return connection, connection.getresponse()

    def until(self, condition: Callable[[Any], Any], query: str = "") -> Any:
        """Wait until the page is told something; give all that it was told then."""
        give_up = time.monotonic() + DEADLINE
        with closing(self.events(query)) as events:
            for told in events:
                if condition(told):
                    return told
                assert time.monotonic() < give_up, told
        raise AssertionError("the stream has ended")

    def device(self, name: str) -> socket.socket:
        (peer,) = self.devices(name)
        return peer

    def devices(self, *names: str) -> list[socket.socket]:
        """Devices that are connected, in this order, and whose names are known."""
        peers = [self.opened.enter_context(socket.create_connection(self.server.address, DEADLINE)) for _ in names]
        for peer, name in zip(peers, names, strict=True):
            peer.sendall(encode(Packet(0, name.encode())))
        give_up = time.monotonic() + DEADLINE
        while not {row.name for row in self.sampler.view(stop=1000).rows} >= {*names}:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        return peers

    def session_of(self, name: str) -> int:
        (row,) = [row for row in self.sampler.view(stop=100).rows if row.name == name]
        return row.id


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    running = load_driver("asyncio")
    yield running
    running.stop()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def rig(driver: Driver, opened: ExitStack) -> Rig:
    return Rig(driver, opened)


# Whom it lets in.


def test_the_token_is_needed_once_and_a_cookie_from_then_on(rig: Rig) -> None:
    status, headers, text = rig.get(f"/?token={rig.token}")
    assert (status, headers["Location"]) == (303, "/")
    assert rig.token not in headers["Set-Cookie"] + text
    for word in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert word in headers["Set-Cookie"]
    status, _, text = rig.get("/", Cookie=rig.cookie)
    assert status == 200
    assert "<title>packetcore</title>" in text


PATHS = ["/", "/page.js", "/page.css", "/events", "/favicon.ico"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_it(rig: Rig, path: str) -> None:
    name = rig.cookie.partition("=")[0]
    all_wrong: list[dict[str, str]] = [
        {},
        {"Cookie": f"{name}=wrong"},
        {"Cookie": f"{name}={rig.token}"},
        {"Authorization": "Bearer x"},
    ]
    for given in all_wrong:
        assert rig.get(path, **given)[0] == 403
    assert rig.get(f"/?token={rig.token[:-1]}")[0] == 403
    assert rig.get("/?token=", Cookie=rig.cookie)[0] == 403
    assert rig.get("/?token=%F0%9F%94%91")[0] == 403


@pytest.mark.parametrize("path", ["/", "/nowhere", "/?token=wrong", "/page.js"])
@pytest.mark.parametrize("is_let_in", [True, False])
def test_every_answer_has_the_headers_that_keep_others_out(rig: Rig, path: str, is_let_in: bool) -> None:
    _, headers, _ = rig.get(path, Cookie=rig.cookie if is_let_in else "")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers


def test_it_answers_to_addresses_in_numbers_and_to_names_that_are_its_own(driver: Driver, opened: ExitStack) -> None:
    rig = Rig(driver, opened)
    named = opened.enter_context(Console(rig.server, names=["Console.Example"], sampler=rig.sampler))
    for host in (rig.host, "127.0.0.1", "localhost:9", "[::1]:80", "192.0.2.7:8080"):
        assert rig.get("/", Cookie=rig.cookie, Host=host)[0] == 200, host
    for host in (
        "evil.example",
        "console.example",
        f"localhost.evil.example:{rig.console.address[1]}",
        "",
        "[::1",
        "a b",
    ):
        status, headers, _ = rig.get(f"/?token={rig.token}", Cookie=rig.cookie, Host=host or " ")
        assert status in (400, 403), host
        assert "Set-Cookie" not in headers
    rig.console = named
    rig.token = parse_qs(urlsplit(named.url).query)["token"][0]
    assert rig.get(f"/?token={rig.token}", Host="console.example.:80")[0] == 303


STRANGERS = {
    "another site": {"Origin": "http://evil.example"},
    "another port of this machine": {"Origin": "http://127.0.0.1:1"},
    "another port, as the browser says": {"Sec_Fetch_Site": "same-site"},
    "another site, as the browser says": {"Sec_Fetch_Site": "cross-site"},
    "a page without an origin": {"Origin": "null"},
    "nobody": {"Origin": ""},
    "a page that has no cookie": {"Cookie": ""},
    "a site that has its name point here": {"Host": "evil.example", "Origin": "http://evil.example"},
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
def test_another_page_can_close_and_send_nothing(driver: Driver, rig: Rig, headers: dict[str, str]) -> None:
    rig.device("meter 7")
    session = rig.session_of("meter 7")
    for path in ("/close", "/send"):
        asked = {"session": session, "id": 1, "type": 0, "count": 1, "payload": "", "form": "text"}
        assert rig.post(path, asked, **headers) == 403
    assert rig.post("/close", {"session": session}, Content_Type="text/plain") == 415
    assert [each.is_open for each in driver.call(rig.server.endpoint.own_sessions)] == [True]


def test_a_script_may_bring_the_token_in_a_header(rig: Rig) -> None:
    rig.device("meter 7")
    bearer = {"Authorization": f"Bearer {rig.token}", "Cookie": "", "Origin": ""}
    assert rig.post("/close", {"session": rig.session_of("meter 7")}, **bearer) == {"closed": True}
    assert rig.get("/", Authorization=f"Bearer {rig.token}")[0] == 200
    # But no page may have it do so.
    assert rig.post("/close", {"session": 1}, **bearer | {"Origin": "http://evil.example"}) == 403


# What it tells.


def test_sessions_come_and_go_with_their_figures(rig: Rig) -> None:
    peer = rig.device("meter 7")
    told = rig.until(lambda told: told["points"])
    (row,) = told["sessions"]["rows"]
    assert (row["identity"], row["peer"]) == ("meter 7", "127.0.0.1:{}".format(*peer.getsockname()[1:]))
    assert 0.0 <= row["age"] < DEADLINE
    assert told["totals"]["sessions"] == 1
    peer.close()
    told = rig.until(lambda told: told["totals"]["closed"])
    assert told["totals"]["closed"] == {"PEER": 1}
    assert told["totals"]["meanings"] == {"PEER": CloseReason.PEER.value}
    rig.until(lambda told: not told["sessions"]["rows"])


def test_the_list_is_searched_sorted_and_turned_on_the_server(rig: Rig) -> None:
    rig.devices(*(f"meter {number:02}" for number in range(22)))

    def names(query: str) -> list[str]:
        return [row["identity"] for row in rig.until(lambda told: True, query)["sessions"]["rows"]]

    assert names("sort=identity") == [f"meter {number:02}" for number in range(20)]
    assert names("sort=identity&page=1") == ["meter 20", "meter 21"]
    assert names("sort=identity&descending=1")[0] == "meter 21"
    assert names("search=METER+1&sort=id") == [f"meter {number}" for number in range(10, 20)]
    for query in ("sort=password", "page=-1", f"page={DEEPEST}", "page=x", "page=1e3", "page=%D9%A3"):
        connection, answer = rig.stream(query)
        assert answer.status == 400, query
        connection.close()


def test_what_is_malformed_is_annotated_as_decode_does(rig: Rig) -> None:
    peer = rig.device("<script>alert(1)</script>")
    peer.sendall(b"\xfe\x00\x10\x01\x00\x01\x00\x00\x00\x0412\xfd\x09<b>\xfe")
    told = rig.until(lambda told: told.get("malformed"))
    (noted,) = told["malformed"]
    assert (noted["reason"], noted["identity"]) == ("BAD_ESCAPE", "<script>alert(1)</script>")
    (kept,) = rig.sampler.malformed
    lines = ["".join(text for text, _ in line) for line in noted["lines"]]
    expected = malformed_lines(kept.malformed)
    assert lines == ["".join(cell if isinstance(cell, str) else cell[0] for cell in line) for line in expected]
    assert any("fd 09" in line and "escape" in line for line in lines)


def test_a_page_more_than_it_bears_is_told_so(rig: Rig) -> None:
    streams = [rig.stream() for _ in range(VIEWERS + 1)]
    assert [answer.status for _, answer in streams] == [200] * VIEWERS + [503]
    for connection, answer in streams:
        answer.close()
        connection.close()
    give_up, status = time.monotonic() + DEADLINE, 503
    while status == 503:  # until it has seen that they are gone
        assert time.monotonic() < give_up
        connection, answer = rig.stream()
        status = answer.status
        answer.close()
        connection.close()
    assert status == 200


# What it does.


def replying(peer: socket.socket, reply: Callable[[Packet], Packet]) -> None:
    """Have a device answer the next packet, on a thread."""

    def run() -> None:
        decoder = Decoder()
        while not (events := decoder.feed(peer.recv(65536))):
            pass
        (packet,) = events
        assert isinstance(packet, Packet)
        peer.sendall(encode(reply(packet)))

    threading.Thread(target=run, daemon=True).start()


def asked_of(session: int, /, **fields: Any) -> dict[str, Any]:
    return {"session": session, "id": 7, "type": 3, "count": 1, "payload": "status?", "form": "text", **fields}


@pytest.mark.parametrize("transport", ["asyncio", "blocking", "gevent", "twisted"])
def test_a_packet_is_sent_its_reply_shown_and_the_session_closed(transport: str, opened: ExitStack) -> None:
    driver = load_driver(transport)
    opened.callback(driver.stop)
    rig = Rig(driver, opened)
    peer = rig.device("meter 7")
    session = rig.session_of("meter 7")
    replying(peer, lambda packet: Packet(packet.id, packet.payload.upper() + b"\x00\xff", type=9))
    told = rig.post("/send", asked_of(session, wait=DEADLINE))
    assert told["reply"] == {
        "head": "id 7, type 9, count 1, 9 bytes",
        "hex": "53 54 41 54 55 53 3f 00 ff",
        "text": "STATUS?\ufffd\ufffd",
    }
    assert len(rig.gateway.heard) == 1, "the reply is the console's"
    assert rig.post("/send", asked_of(session, payload="fe fd 00", form="hex", count=2)) == {"sent": True}
    assert rig.post("/close", {"session": session}) == {"closed": True}
    expected = encode(Packet(7, b"\xfe\xfd\x00", type=3, count=2))
    received = b""
    while data := peer.recv(65536):
        received += data
    assert received == expected
    peer.close()
    rig.until(lambda told: told["totals"]["closed"] == {"LOCAL": 1})
    assert rig.gateway.ended == [CloseReason.LOCAL]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"session": 77}, "there is no session 77 any more"),
        ({"session": "1"}, "session='1' must be a whole number"),
        ({"session": True}, "session=True must be a whole number"),
        ({"id": 65536}, "id=65536 is out of range 0 to 65535"),
        ({"id": "x"}, "id='x' must be a whole number"),
        ({"count": None}, "count=None must be a whole number"),
        ({"form": "xml"}, 'form=\'xml\' must be "text" or "hex"'),
        ({"payload": 1}, "payload=1 must be text"),
        ({"payload": "f", "form": "hex"}, "payload is not hex"),
        ({"wait": 61}, "wait=61 must be above 0 and at most 60 seconds"),
        ({"wait": "2"}, "wait='2' must be above 0"),
        ({"wait": 0.05}, "no reply came within 0.05 s"),
        ({"payload": "x" * 101}, "payload of 101 bytes exceeds max_payload=100"),
    ],
)
def test_what_cannot_be_sent_is_said(driver: Driver, opened: ExitStack, fields: Any, error: str) -> None:
    rig = Rig(driver, opened, config=Config(max_payload=100))
    rig.device("meter 7")
    told = rig.post("/send", asked_of(1, **fields))
    assert told["error"].startswith(error)


def test_what_is_no_object_of_json_is_refused(rig: Rig) -> None:
    for body in ("", "{", "[1]", "null"):
        headers = {"Cookie": rig.cookie, "Origin": f"http://{rig.host}", "Content-Type": "application/json"}
        assert rig.ask("POST", "/send", body, headers)[0] == 400, body


def test_a_frame_of_another_framing_is_sent_and_the_next_is_its_reply(driver: Driver, opened: ExitStack) -> None:
    rig = Rig(driver, opened, framing=SLIP())
    peer = opened.enter_context(socket.create_connection(rig.server.address, DEADLINE))
    told = rig.until(lambda told: told["sessions"]["rows"])
    session = told["sessions"]["rows"][0]["id"]

    def reply() -> None:
        assert peer.recv(100) == b"\xc0status?\xc0"
        peer.sendall(b"\xc0good\xc0")

    threading.Thread(target=reply, daemon=True).start()
    told = rig.post("/send", {"session": session, "payload": "status?", "form": "text", "wait": DEADLINE})
    assert told["reply"] == {"head": "frame, 4 bytes", "hex": "67 6f 6f 64", "text": "good"}


def test_a_server_that_is_stuck_is_said_to_be(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PATIENCE", 0.2)
    rig.device("meter 7")
    stuck, go_on = threading.Event(), threading.Event()

    def be_stuck() -> None:
        stuck.set()
        go_on.wait(DEADLINE)

    rig.server.call_soon(be_stuck)
    try:
        assert stuck.wait(DEADLINE)
        assert rig.post("/close", {"session": 1}) == {"error": "the server has not answered for 0.2 s"}
        rig.until(lambda told: not told["totals"]["answering"])
    finally:
        go_on.set()
    rig.until(lambda told: told["totals"]["answering"])


def test_it_ends_with_all_that_it_began(rig: Rig) -> None:
    told = rig.events()
    next(told)
    thread = rig.console._thread  # others of this process may have consoles too
    assert thread.is_alive()
    rig.console.close()
    with suppress(ConnectionError):
        assert list(told)[-1:] is not None
    thread.join(DEADLINE)
    assert not thread.is_alive()
    with pytest.raises(ConnectionError):
        socket.create_connection(rig.console.address, DEADLINE)
    rig.console.close()


def test_it_is_one_line_in_an_application(driver: Driver) -> None:
    server = driver.start_server(Gateway())
    with Console(server) as console:
        assert console.is_on_loopback
        assert console.url.startswith("http://127.0.0.1:")
        with pytest.raises(OSError, match="in use"):
            Console(server, console.address[1])


# On the command line.


@contextmanager
def serving(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--echo", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def test_serve_prints_its_address_once_and_on_standard_output_alone() -> None:
    with serving("--console", "0", "--log", "json", "--grace", "0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on ")
        url = process.stdout.readline().removeprefix("console on ").strip()
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1"
        connection = HTTPConnection("127.0.0.1", address.port or 0, timeout=DEADLINE)
        connection.request("GET", f"/?{address.query}")
        assert connection.getresponse().status == 303
        connection.close()
        process.terminate()
        out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (0, "")
        assert address.query not in err
        assert all(json.loads(line) for line in err.splitlines())


def test_what_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*options: str) -> tuple[int, str]:
        code = main(["serve", *options])
        out, err = capsys.readouterr()
        assert out == ""
        return code, err.removeprefix("packetcore: ").rstrip()

    hint = "(see packetcore serve --help)"
    assert said("--console", "0", "--workers", "2") == (
        2,
        f"argument --workers: not allowed with argument --console, which shows the sessions of one process {hint}",
    )
    assert said("--console", "here")[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert said("--console", port) == (1, f"cannot serve a console on 127.0.0.1:{port}: Address already in use")
    monkeypatch.setitem(sys.modules, "packetcore_cli.console", None)  # as where it finds no aiohttp
    assert said("--console", "0") == (1, "--console needs aiohttp: pip install 'packetcore-cli[console]'")


def test_the_application_on_the_page_runs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "console.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "5000" in program
    assert "8080" in program
    program = program.replace("5000", "0").replace("8080", "0").replace(".url)", ".url, flush=True)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = urlsplit(process.stdout.readline().strip())
            connection = HTTPConnection("127.0.0.1", url.port or 0, timeout=DEADLINE)
            connection.request("GET", f"/?{url.query}")
            assert connection.getresponse().status == 303
            connection.close()
        finally:
            process.kill()
