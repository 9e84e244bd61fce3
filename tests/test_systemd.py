"""Sockets of a service manager by name, and what it is told; the rest is seen in `test_cli_systemd`."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from packetcore_sockets import Notifier, _systemd, has_inherited_sockets, inherited_sockets

START = 200
"""The first descriptor that is handed over here, where 3 is pytest's."""

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="service managers speak over Unix sockets")


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Says that two sockets are handed over, "devices" and "metrics", which they are."""
    monkeypatch.setattr(_systemd, "LISTEN_FDS_START", START)
    with ExitStack() as opened:
        for at in range(2):
            with socket.create_server(("127.0.0.1", 0)) as sock:
                os.dup2(sock.fileno(), START + at, inheritable=True)
            opened.callback(_close, START + at)
        yield {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "devices:metrics", "HOME": "/"}


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # a socket that was taken has closed it
        return


def test_the_sockets_are_given_once_and_inherited_no_further(environ: dict[str, str]) -> None:
    sockets = inherited_sockets(environ)
    assert environ == {"HOME": "/"}
    assert [sock.fileno() for sock in sockets] == [START, START + 1]
    assert not any(sock.get_inheritable() for sock in sockets)
    assert inherited_sockets(environ) == []
    for sock in sockets:
        sock.close()


def test_they_are_told_apart_by_their_names(environ: dict[str, str]) -> None:
    (metrics,) = inherited_sockets(environ, name="metrics", unset=False)
    (devices,) = inherited_sockets(environ, name="devices", unset=False)
    assert (devices.fileno(), metrics.fileno()) == (START, START + 1)
    assert inherited_sockets(environ, name="another") == []
    for sock in (devices, metrics):
        sock.close()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"LISTEN_FDS": "two"}, "LISTEN_FDS='two' is no number above 0"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS='-1' is no number above 0"),
        ({"LISTEN_FDS": "9" * 5000}, "is no number above 0"),
        ({"LISTEN_FDNAMES": "devices"}, "LISTEN_FDNAMES='devices' does not name the 2"),
    ],
)
def test_variables_that_are_wrong_are_refused(environ: dict[str, str], variables: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        inherited_sockets({**environ, **variables}, name="devices")


def test_a_descriptor_that_is_no_socket_is_told_and_the_others_are_closed(environ: dict[str, str]) -> None:
    with open(__file__, encoding="utf-8") as file:
        os.dup2(file.fileno(), START + 1)
    with pytest.raises(OSError, match=f"descriptor {START + 1}: Socket operation on non-socket"):
        inherited_sockets(environ)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(START)


def test_without_a_count_there_are_none(environ: dict[str, str]) -> None:
    del environ["LISTEN_FDS"]
    assert not has_inherited_sockets(environ)
    assert inherited_sockets(environ) == []


@pytest.mark.parametrize("variables", [{"LISTEN_PID": "1"}, {"LISTEN_FDS": "0"}, {"LISTEN_PID": ""}])
def test_what_is_another_s_or_nothing_gives_none(environ: dict[str, str], variables: dict[str, str]) -> None:
    assert inherited_sockets({**environ, **variables}) == []
    assert inherited_sockets({}) == []


def test_the_variables_of_the_watchdog_are_for_one_process(tmp_path: Path) -> None:
    told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
    environ = dict(told)
    assert Notifier(environ).watchdog == 30.0
    assert environ == {}, "a child would speak for us"
    assert Notifier(told | {"WATCHDOG_PID": str(os.getpid())}).watchdog == 30.0
    assert Notifier(told | {"WATCHDOG_PID": "1"}).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog is None, "nobody hears it"
    assert not Notifier({})


def test_what_cannot_be_sent_is_told_once_and_never_raised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        with caplog.at_level(logging.WARNING, "packetcore"):
            for _ in range(10_000):  # more than the system keeps for one that does not listen
                notifier.alive()
    assert len(caplog.records) == 1
    assert "WATCHDOG=1" in caplog.text


def test_a_status_is_one_line(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        Notifier({"NOTIFY_SOCKET": path}).ready("busy\nREADY=0")
        assert manager.recv(4096) == b"READY=1\nSTATUS=busy READY=0"


@pytest.mark.parametrize(
    "is_abstract",
    [False, pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux has abstract names"))],
)
def test_each_state_is_told_in_the_words_of_sd_notify(is_abstract: bool, tmp_path: Path) -> None:
    path = f"\0packetcore-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": path.replace("\0", "@")})
        assert notifier
        notifier.ready()
        notifier.ready("\udcff")
        notifier.stopping("drains")
        notifier.stopping()
        notifier.alive()
        said = [b"READY=1", b"READY=1\nSTATUS=\xff", b"STOPPING=1\nSTATUS=drains", b"STOPPING=1", b"WATCHDOG=1"]
        assert [manager.recv(4096) for _ in said] == said
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        word, _, usec = manager.recv(4096).decode().partition("\nMONOTONIC_USEC=")
        assert word == "RELOADING=1"
        assert before <= int(usec) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"NOTIFY_SOCKET": "notify"}, "NOTIFY_SOCKET='notify' is no Unix socket"),
        ({"NOTIFY_SOCKET": "/"}, "NOTIFY_SOCKET='/' is no Unix socket"),
        ({"NOTIFY_SOCKET": "/a", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC='0' is no number above 0"),
        ({"NOTIFY_SOCKET": "/a", "WATCHDOG_USEC": "1" * 19}, f"WATCHDOG_USEC='{'1' * 19}' is no number above 0"),
    ],
)
def test_what_the_manager_says_wrongly_is_one_line_of_the_log(
    variables: dict[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(variables)
    assert notifier.watchdog is None
    assert caplog.messages == [says]
    assert Notifier({"NOTIFY_SOCKET": "/a", "WATCHDOG_USEC": "1" * 18}).watchdog == int("1" * 18) / 1e6
    assert Notifier({"NOTIFY_SOCKET": "/a", "WATCHDOG_USEC": "1"}).watchdog == 1e-6
