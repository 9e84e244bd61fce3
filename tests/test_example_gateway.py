"""`examples/gateway`: its handler in made-up time, its page in a browser, and all of it as a program."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from examples.gateway import certificates
from examples.gateway.gateway import Gateway
from examples.gateway.protocol import ALIVE, GATEWAY, READING, SILENCE
from packetcore import Carrier, CloseReason, Packet, TLSInfo
from packetcore.testing import FakeEndpoint, FakeSession
from tests.browsers import running_browser
from tests.example_program import Program, refused, running, until

ALIVE_PACKET, COLD = Packet(0, type=ALIVE), Packet(0, "-18.0 °C".encode(), type=READING)


def with_certificate(server: FakeEndpoint, *subject: tuple[str, str]) -> FakeSession:
    """A device that has come with one."""
    return FakeSession(server, carrier=Carrier("tcp", tls=TLSInfo("TLSv1.3", "some cipher", subject=subject)))


@pytest.fixture
def server() -> FakeEndpoint:
    return FakeEndpoint(Gateway(), GATEWAY)


@pytest.fixture
def gateway(server: FakeEndpoint) -> Gateway:
    handler = server.endpoint.new_handler()
    assert isinstance(handler, Gateway)
    return handler


def test_a_device_is_whom_its_certificate_names(server: FakeEndpoint, gateway: Gateway) -> None:
    session = with_certificate(server, ("organizationName", "somebody"), ("commonName", "truck-7"))
    session.feed(COLD)
    assert server.sessions.find("truck-7") is session.session
    device = gateway.devices["truck-7"]
    assert (device.session, device.reading) == (session.session.id, "-18.0 °C")


def test_a_certificate_without_a_name_is_shown_the_door(server: FakeEndpoint, gateway: Gateway) -> None:
    session = with_certificate(server, ("organizationName", "somebody"))
    assert session.close_reason is CloseReason.LOCAL
    assert gateway.devices == {}


def test_a_silent_device_is_offline_and_one_that_beats_is_not(server: FakeEndpoint, gateway: Gateway) -> None:
    silent, alive = (with_certificate(server, ("commonName", name)) for name in ("silent", "alive"))
    for _ in range(3):
        server.advance(SILENCE / 3)
        alive.feed(ALIVE_PACKET)
    assert gateway.devices["silent"].why is CloseReason.IDLE_TIMEOUT
    assert gateway.devices["alive"].why is None
    assert gateway.online == 1
    assert ALIVE_PACKET in silent.sent  # so that a device finds out, too


def test_a_device_that_comes_back_is_online_whatever_becomes_of_its_old_session(
    server: FakeEndpoint, gateway: Gateway
) -> None:
    old, new = (with_certificate(server, ("commonName", "truck-7")) for _ in range(2))
    assert old.close_reason is CloseReason.REPLACED
    assert gateway.devices["truck-7"].session == new.session.id
    new.lost()
    assert new.close_reason is CloseReason.RESET
    assert gateway.devices["truck-7"].session is None


@dataclass
class Running:
    """The program with its page, and two devices."""

    program: Program
    folder: Path
    url: str

    def ask(self, method: str, path: str, told: object = None, **headers: str) -> tuple[int, Any]:
        """Status and content of an answer."""
        connection = HTTPConnection(self.url.removeprefix("http://").rstrip("/"), timeout=30)
        body = None if told is None else json.dumps(told)
        connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def devices(self) -> dict[str, Any]:
        status, told = self.ask("GET", "/devices")
        assert status == 200
        return {device["name"]: device for device in told["devices"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of the program."""
    return tmp_path_factory.mktemp("certificates")


def port_of(program: Program) -> int:
    """Where devices connect to."""
    return int(program.says(r"devices connect to 127\.0\.0\.1:(\d+)")[1])


@pytest.fixture(scope="module")
def gateway_program(folder: Path) -> Iterator[Running]:
    options = ["--port", 0, "--page-port", 0, "--certificates", folder, "--simulate", 2]
    with running("gateway", *options) as program:
        url = program.says(r"http://127\.0\.0\.1:\d+/")[0]
        started = Running(program, folder, url)
        until(lambda: sum(device["reading"] != "" for device in started.devices().values()) == 2, "two devices report")
        yield started
        program.stop()


def test_its_devices_are_told_to_do_something_and_answer(gateway_program: Running) -> None:
    ask = gateway_program.ask
    assert set(gateway_program.devices()) == {"cellar-1", "cellar-2"}
    told = {"text": "target 4"}
    assert ask("POST", "/devices/cellar-1/command", told) == (200, {"reply": "keeps 4 °C from now on"})
    assert ask("POST", "/devices/nobody/command", told) == (409, {"detail": "nobody is offline"})
    assert ask("POST", "/devices/cellar-1/command", {"text": ""})[0] == 422
    metrics = ask("GET", "/metrics")[1]
    assert 'packetcore_sessions{endpoint="gateway"} 2.0' in metrics
    assert 'gateway_devices{state="online"} 2.0' in metrics


def test_no_other_page_may_read_or_command(gateway_program: Running) -> None:
    ask, told = gateway_program.ask, {"text": "status"}
    assert ask("POST", "/devices/cellar-1/command", told, Origin="http://elsewhere.example")[0] == 403
    assert ask("POST", "/devices/cellar-1/command", told, Origin=gateway_program.url.rstrip("/"))[0] == 200
    assert ask("GET", "/devices", Host="elsewhere.example") == (400, "Invalid host header")


def test_who_has_no_certificate_is_turned_away(gateway_program: Running) -> None:
    port = port_of(gateway_program.program)
    context = ssl.create_default_context(cafile=gateway_program.folder / certificates.AUTHORITY)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as sock,
        suppress(ssl.SSLError, ConnectionError),
        context.wrap_socket(sock, server_hostname="localhost") as stranger,
    ):
        assert stranger.recv(1) == b""
    refusals = 'packetcore_refused_total{endpoint="gateway",reason="tls_failed"} 1.0'
    until(lambda: refusals in gateway_program.ask("GET", "/metrics")[1], "it is counted")


def test_a_device_of_its_own_process_comes_and_goes(gateway_program: Running) -> None:
    port = port_of(gateway_program.program)
    with running("gateway.device", "visitor", "--certificates", gateway_program.folder, "--port", port) as device:
        until(lambda: "visitor" in gateway_program.devices(), "the device is here")
        device.process.send_signal(signal.SIGINT)
        assert device.process.wait(30) == 0
    until(lambda: gateway_program.devices()["visitor"]["why"] == "PEER", "it has gone")


@pytest.mark.timeout(120)
def test_the_page_shows_them_and_what_they_say_is_text(gateway_program: Running) -> None:
    with running_browser() as browser:
        page = browser.new_page()
        page.goto(gateway_program.url)
        device = page.locator("#device-cellar-2")
        expect(device).to_contain_text("online")
        markup = "<img src=x onerror=document.title=1>"
        device.get_by_label("command to cellar-2").fill(markup)
        device.get_by_role("button").click()
        expect(device.locator(".reply")).to_contain_text(f"'{markup}' means nothing to me")
        expect(page.locator("img")).to_have_count(0)


def test_the_keys_it_makes_are_for_its_user_alone(tmp_path: Path) -> None:
    certificates.make(tmp_path / "pki", ["truck-7"])
    assert certificates.device_names(tmp_path / "pki") == ["truck-7"]
    for folder in (tmp_path / "pki", tmp_path / "pki" / certificates.DEVICES):
        assert folder.stat().st_mode & 0o077 == 0


def test_what_it_cannot_start_with_is_one_line(gateway_program: Running, folder: Path) -> None:
    port = gateway_program.url.rstrip("/").rpartition(":")[2]
    status, said = refused("gateway", "--port", 0, "--page-port", port, "--certificates", folder)
    assert (status, f"('127.0.0.1', {port})" in said) == (1, True)
    status, said = refused("gateway.device", "nobody", "--certificates", folder)
    assert (status, "nobody.pem" in said) == (1, True)


def test_at_the_end_a_command_under_way_gets_its_answer(folder: Path, gateway_program: Running) -> None:
    context = certificates.device_context(folder, "visitor")
    with (
        running("gateway", "--port", 0, "--page-port", 0, "--certificates", folder) as program,
        ThreadPoolExecutor(1) as other,
        socket.create_connection(("127.0.0.1", port_of(program)), timeout=30) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as device,
    ):
        started = Running(program, folder, program.says(r"http://127\.0\.0\.1:\d+/")[0])
        until(lambda: "visitor" in started.devices(), "the device is here")
        asked = other.submit(started.ask, "POST", "/devices/visitor/command", {"text": "status"})
        assert b"status" in device.recv(1000)  # and it does not answer
        program.process.send_signal(signal.SIGTERM)
        assert asked.result(30) == (502, {"detail": "visitor went away before it answered"})
        program.stop(signal.SIGTERM)
