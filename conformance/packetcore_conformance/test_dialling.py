"""Dialling.

Each address of a name is tried, no look-up holds up the loop, and nothing is left of a failure.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from typing import Any

import pytest

from packetcore import Backoff, Config, Driver, Packet, encode
from packetcore_conformance.certificates import Certificates
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

PING = encode(Packet(1, b"ping"))
NAME = "meters.example"


def patch(monkeypatch: pytest.MonkeyPatch, hosts: list[str], wait: threading.Event | None = None) -> list[object]:
    """Have the system's resolver know a made-up name. Gives who asked for it."""

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return real(host, port, *args, **kwargs)
        if (kwargs.get("flags") or (args[3] if len(args) > 3 else 0)) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "it is a name")  # trio asks that on the loop, first
        asked.append(host)
        if wait is not None:
            wait.wait(DEADLINE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, int(port or 0))) for one in hosts]

    real: Any = socket.getaddrinfo
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_each_address_of_a_name_is_tried(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rig.serve(echo())
    asked = patch(monkeypatch, ["127.0.0.2", "127.0.0.1"])  # nobody listens on the first
    handler = Recorder()
    try:
        session = rig.driver.connect(NAME, server.address[1], handler)
    except OSError:
        assert not asked, "only the first of several addresses was tried"
        return  # the runtime has a resolver of its own, which knows no made-up name
    rig.call(session.send, Packet(1, b"ping"))
    assert handler.wait("packet_received") == [Packet(1, b"ping")]
    rig.call(session.abort)


def test_a_look_up_that_takes_long_holds_up_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    server = rig.serve(echo())
    peer = rig.peer(server)
    answer = threading.Event()
    asked = patch(monkeypatch, ["127.0.0.1"], answer)

    def dial() -> None:
        try:
            session = rig.driver.connect(NAME, server.address[1], Recorder())
        except OSError:
            return  # the runtime has a resolver of its own, which knows no made-up name
        rig.call(session.abort)

    dialling = rig.in_thread(dial)
    try:
        deadline = time.monotonic() + 1.0
        while not asked and time.monotonic() < deadline:
            time.sleep(0.005)
        peer.sock.settimeout(DEADLINE / 2)
        for _ in range(3):
            peer.send(PING)
            assert peer.receive(len(PING)) == PING, "a look-up holds up the loop"
    finally:
        answer.set()
    dialling()


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are not listed there")
def test_a_connection_that_cannot_be_made_leaves_no_descriptor(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    with socket.socket() as unused, socket.create_server(("127.0.0.1", 0)) as deaf:
        unused.bind(("127.0.0.1", 0))
        nobody, silent = unused.getsockname()[1], deaf.getsockname()[1]

        def fail() -> None:
            with pytest.raises(OSError):  # noqa: PT011  the system's own words
                driver.connect("127.0.0.1", nobody, Recorder())
            if "tls" in driver.capabilities():
                with pytest.raises(TimeoutError):
                    driver.connect(
                        "127.0.0.1", silent, Recorder(), config=Config(connect_timeout=0.1), tls=certificates.client
                    )

        for _ in range(3):  # what is opened once and kept
            fail()
        before = open_descriptors()
        for _ in range(10):
            fail()
        deadline = time.monotonic() + DEADLINE
        while (after := open_descriptors()) > before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert after <= before + 3, f"{after - before} descriptors are left of 20 connections that were not made"


@pytest.mark.usefixtures("needs_reconnect")
def test_a_client_that_is_closed_while_it_dials_leaves_nothing(
    rig: Rig, driver: Driver, certificates: Certificates
) -> None:
    if "tls" not in driver.capabilities():
        pytest.skip("the adapter says that it has no TLS")
    handler = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(DEADLINE)
        host, port = deaf.getsockname()
        connect: Any = driver.connect
        client = connect(host, port, handler, reconnect=Backoff(initial=0.01, maximum=0.01), tls=certificates.client)
        accepted, _ = deaf.accept()
        with accepted:
            accepted.settimeout(DEADLINE)
            assert accepted.recv(1), "the client says nothing"  # it waits for the answer to its hello
            rig.call(client.close)
            try:
                while accepted.recv(65536):
                    pass
            except ConnectionError:
                pass
            except TimeoutError:
                pytest.fail("a dial survived the close of its client")
            deaf.settimeout(0.2)
            with pytest.raises(TimeoutError):
                deaf.accept()
    assert not handler.calls("connected")
