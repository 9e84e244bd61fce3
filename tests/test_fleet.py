"""`examples/fleet` as a person runs it: devices are found, commanded and looked for again when a gateway dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import expect

from packetcore import CloseReason, Packet, Session
from packetcore.testing import FakeSession
from packetcore_cluster.local import nats_server
from tests.browsers import running_browser

pytest.importorskip("aiohttp", reason="the fleet's web service needs it")
from examples.fleet.gateway import Gateway  # behind the check
from examples.fleet.packets import CONFIG, Kind

EXAMPLES = Path(__file__).parents[1] / "examples"
DEVICES = 12
PATIENCE = 30.0

pytestmark = pytest.mark.timeout(120)


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.02)
    return found


class Fleet:
    """The example, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.lines: list[str] = []
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if "open http" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+/", "".join(self.lines))
        assert found is not None, self.lines
        self.url = found[0]

    @property
    def pids(self) -> list[int]:
        """What it says that it has started, and which there are."""
        told = [int(pid) for line in self.lines for pid in re.findall(r" pid (\d+)", line)]
        return [*told, *(int(worker["pid"]) for worker in self.look()["workers"])]

    def look(self) -> Any:
        """What the page sees."""
        with urlopen(self.url + "fleet.json", timeout=PATIENCE) as answer:
            return json.load(answer)

    def post(self, path: str, said: object, **headers: str) -> tuple[int, Any]:
        """Ask for something: the status, and the answer."""
        headers = {"Content-Type": "application/json", **headers}
        try:
            with urlopen(Request(self.url + path, json.dumps(said).encode(), headers), timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, json.load(error)

    def command(self, device: str, text: str) -> Any:
        """What a device replies, as soon as it is there."""
        return until(
            lambda: self.post("command", {"device": device, "text": text})[1].get("reply"), f"{device} replies"
        )

    def at(self) -> dict[str, str]:
        """Where each device is."""
        return {device["id"]: device["at"] for device in self.look()["devices"]}


@contextmanager
def running(*options: str) -> Iterator[Fleet]:
    try:
        nats_server()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    command = [sys.executable, "-W", "error", "-m", "fleet", "--devices", str(DEVICES), *options]
    process = subprocess.Popen(
        command,
        cwd=EXAMPLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # its group hears what a terminal's does at Ctrl-C
    )
    with process:
        try:
            yield Fleet(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_devices_are_found_wherever_they_are_and_nothing_is_left_behind(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running("--stay", "1.5") as fleet:
        until(lambda: len(fleet.at()) == DEVICES, "all devices are online")
        assert {device["at"] for device in fleet.look()["devices"]} <= {"gateway-1", "gateway-2"}

        # Wherever it is, also after it has moved.
        assert fleet.command("meter 2", "off") == "meter 2 is off"
        before = fleet.at()["meter 2"]
        until(lambda: fleet.at()["meter 2"] != before, "it moves")
        assert "meter 2 is off, up" in fleet.command("meter 2", "status")
        assert fleet.command("meter 2", "<b>").endswith("and not '<b>'")

        def hears(text: str) -> bool:
            assert fleet.post("broadcast", {"group": "lamps", "text": text}) == (200, {"sent": True})
            return text in fleet.command("lamp 1", "status")

        until(lambda: hears("lights out"), "its group hears a notice")
        assert "lights out" not in fleet.command("meter 2", "status")

        # What is wrong is told.
        nobody = fleet.post("command", {"device": "meter 999", "text": "status"})
        assert nobody == (404, {"error": "no session holds the identity 'meter 999'"})
        assert fleet.post("command", {"device": "<script>", "text": "status"})[0] == 404
        long = {"device": "meter 2", "text": "x" * 501}
        wrong: list[object] = [[], {"device": "meter 2"}, {"device": 7, "text": "on"}, long]
        for said in wrong:
            assert fleet.post("command", said)[0] == 400
        assert fleet.post("command", {"device": "meter 2", "text": "x" * 9000})[0] in (400, 413)
        assert fleet.post("command", {}, Host="elsewhere.example")[0] == 421
        assert fleet.post("command", {}, **{"Content-Type": "text/plain"})[0] == 415

        # A gateway dies without a word.
        pids = fleet.pids
        (dead,) = (int(worker["pid"]) for worker in fleet.look()["workers"] if worker["name"] == "gateway-1")
        os.kill(dead, signal.SIGKILL)
        until(lambda: [*fleet.at().values()] == ["gateway-2"] * DEVICES, "all devices are with the other")
        assert "meter 2 is off" in fleet.command("meter 2", "status")
        gone = {"name": "gateway-1", "pid": str(dead), "alive": False, "devices": 0}
        until(lambda: gone in fleet.look()["workers"], "the page says that it is gone")

        # Ctrl-C, in a terminal.
        os.killpg(fleet.process.pid, signal.SIGINT)
        rest, _ = fleet.process.communicate(timeout=PATIENCE)
        assert fleet.process.returncode == 0
        assert "gateway-1 has ended, SIGKILL: its devices go to the other" in rest
        assert rest.endswith("all have ended\n")
        assert "lost the broker" not in rest  # which ends last, so that all could say goodbye
        assert "Traceback" not in rest
        assert [pid for pid in pids if is_running(pid)] == []
        assert [*tmp_path.iterdir()] == []


def test_the_page_shows_the_fleet_and_its_replies_as_text() -> None:
    with running_browser() as browser, running() as fleet:
        page = browser.new_page()
        page.goto(fleet.url)
        body = page.locator("body")
        expect(body).to_contain_text("the broker is here")
        expect(body).to_contain_text(f"Online: {DEVICES}")
        expect(body).to_contain_text("gateway-2: ")
        page.locator("td").get_by_role("button", name="meter 2", exact=True).click()
        page.locator("#command [name=text]").fill("<img src=x>")
        page.locator("#command [name=text]").press("Enter")
        expect(body).to_contain_text("meter 2 knows status, on, off and restart, and not '<img src=x>'")
        assert page.locator("img").count() == 0


class Groups:
    """What a gateway uses of a cluster."""

    def __init__(self) -> None:
        self.joined: list[tuple[object, str]] = []

    def join(self, session: Session, group: str) -> None:
        self.joined.append((session.identity, group))


@pytest.mark.parametrize("said", [Packet(Kind.HEARTBEAT), Packet(Kind.HELLO, b"Meter"), Packet(Kind.HELLO, b"\xff")])
def test_a_gateway_refuses_who_does_not_say_who_it_is(said: Packet) -> None:
    groups: Any = Groups()
    device = FakeSession(Gateway(groups), config=CONFIG)
    device.feed(said)
    assert device.close_reason is CloseReason.REFUSED
    assert groups.joined == []


def test_a_gateway_binds_a_device_and_puts_it_into_its_group() -> None:
    groups: Any = Groups()
    device = FakeSession(Gateway(groups), config=CONFIG)
    device.feed(Packet(Kind.HELLO, b"valve 3"))
    device.feed(Packet(Kind.HELLO, b"valve 4"))  # it has said who it is
    assert device.session.identity == "valve 3"
    assert groups.joined == [("valve 3", "valves")]
