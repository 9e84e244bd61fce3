"""`packetcore serve` under a service manager: sockets that it inherits, and what it tells of itself."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from packetcore import Packet, encode
from tests.cli_process import DEADLINE, Serving, failing, serving

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="service managers speak over Unix sockets")

PING = encode(Packet(1, b"ping"))

# What a service manager does between fork and exec: the sockets become descriptors 3, 4, ..., and the
# process learns that they are meant for it.
ACTIVATED = """
import os, sys
given = [int(number) for number in sys.argv[1].split(",")]
high = [os.dup2(descriptor, 100 + at) for at, descriptor in enumerate(given)]
for at, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=os.environ.get("LISTEN_PID") or str(os.getpid()), LISTEN_FDS=str(len(given)))
os.execv(sys.executable, [sys.executable, "-m", "packetcore_cli", *sys.argv[2:]])
"""

each_transport = pytest.mark.parametrize("transport", ["asyncio", "blocking", "gevent", "twisted"])


def activated(*sockets: socket.socket) -> list[str]:
    return [sys.executable, "-c", ACTIVATED, ",".join(str(sock.fileno()) for sock in sockets)]


def is_echoed(address: tuple[str, int]) -> bool:
    with socket.create_connection(address, timeout=DEADLINE) as device:
        device.sendall(PING)
        received = b""
        while len(received) < len(PING) and (data := device.recv(64)):
            received += data
    return received == PING


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


class Manager:
    """Hears what a service tells.

    Args:
        address: of a Unix socket.
    """

    def __init__(self, address: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(DEADLINE)
        self._sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.environ = {**os.environ, "NOTIFY_SOCKET": address}

    def hear(self) -> dict[str, str]:
        """The next message that is not of the watchdog."""
        while "WATCHDOG" in (told := self.hear_any()):
            pass
        return told

    def hear_any(self) -> dict[str, str]:
        """The next message."""
        text = self._sock.recv(4096).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def hear_all(self, for_seconds: float) -> list[dict[str, str]]:
        """What comes within a time."""
        until, told = time.monotonic() + for_seconds, list[dict[str, str]]()
        while select.select([self._sock], [], [], max(0.0, until - time.monotonic()))[0]:
            told.append(self.hear_any())
        return told

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def ended_in_order(server: Serving) -> None:
    assert server.end() == 0
    assert not [line for line in server.log if "Traceback" in line]


# Sockets.


@each_transport
def test_it_serves_on_an_open_descriptor(transport: str, listener: socket.socket) -> None:
    number = listener.fileno()
    address = listener.getsockname()
    options = ["--fd", str(number), "--echo", "--transport", transport]
    with serving(*options, pass_fds=[number]) as server:
        assert server.first_line == f"listening on 127.0.0.1:{address[1]}"
        assert is_echoed(address)
        ended_in_order(server)
    assert listener.fileno() == number


@each_transport
def test_it_serves_on_the_sockets_that_systemd_hands_over(transport: str, listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        sockets = [listener, other]
        with serving(
            "--echo",
            "--transport",
            transport,
            pass_fds=[sock.fileno() for sock in sockets],
            command=activated(*sockets),
        ) as server:
            assert all(is_echoed(sock.getsockname()) for sock in sockets)
            ended_in_order(server)


def test_udp_is_served_on_a_socket_that_systemd_hands_over() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device,
    ):
        sock.bind(("127.0.0.1", 0))
        device.settimeout(DEADLINE)
        device.connect(sock.getsockname())
        with serving("--udp", "--echo", pass_fds=[sock.fileno()], command=activated(sock)) as server:
            device.send(PING)
            assert device.recv(64) == PING
            ended_in_order(server)


@pytest.mark.parametrize(
    ("options", "environ"), [(("--port", "0"), {}), ((), {"LISTEN_PID": "1"})], ids=["a port is asked for", "another's"]
)
def test_sockets_that_are_not_meant_are_left_alone(
    options: tuple[str, ...], environ: Mapping[str, str], listener: socket.socket
) -> None:
    with serving(
        *options,
        environ={**os.environ, **environ},
        pass_fds=[listener.fileno()],
        command=activated(listener),
    ) as server:
        assert server.first_line != f"listening on 127.0.0.1:{listener.getsockname()[1]}"
        ended_in_order(server)


def test_a_descriptor_that_is_nothing_to_serve_on_is_told_in_one_line(listener: socket.socket) -> None:
    number = listener.fileno()
    assert failing("--fd", "999") == (1, "packetcore: cannot listen: descriptor 999: Bad file descriptor")
    assert failing("--fd", "-1") == (1, "packetcore: fd=-1 is out of range 0 to 2147483647")
    with open(__file__, encoding="utf-8") as file:
        of_file = file.fileno()
        says = f"packetcore: cannot listen: descriptor {of_file}: Socket operation on non-socket"
        assert failing("--fd", str(of_file), pass_fds=[of_file]) == (1, says)
    code, text = failing("--fd", str(number), "--udp", pass_fds=[number])
    assert (code, text.partition("socket=")[0]) == (1, f"packetcore: cannot listen on descriptor {number}: ")
    assert "is no datagram socket of UDP" in text
    code, text = failing("--fd", str(number), "--port", "0", pass_fds=[number])
    assert code == 2
    assert text.startswith("packetcore: argument --fd: not allowed with arguments --host and --port")


@pytest.mark.parametrize("count", ["many", "-1", "9" * 30, "2"])
def test_variables_of_systemd_that_are_wrong_are_told_in_one_line(count: str, listener: socket.socket) -> None:
    number = listener.fileno()
    command = [part.replace("LISTEN_FDS=str(len(given))", f"LISTEN_FDS={count!r}") for part in activated(listener)]
    ended = subprocess.run(
        [*command, "serve"], capture_output=True, text=True, pass_fds=[number], timeout=DEADLINE, check=False
    )
    wrong = "descriptor 4: Bad file descriptor" if count == "2" else f"LISTEN_FDS={count!r} is no number above 0"
    assert (ended.returncode, ended.stderr) == (1, f"packetcore: cannot listen: {wrong}\n")


# What it tells.


@each_transport
def test_a_service_manager_hears_when_it_is_ready_alive_and_stopping(transport: str, manager: Manager) -> None:
    environ = {**manager.environ, "WATCHDOG_USEC": "200000"}
    with serving("--port", "0", "--transport", transport, environ=environ) as server:
        assert manager.hear() == {"READY": "1", "STATUS": server.first_line}
        begun = time.monotonic()
        for _ in range(4):
            assert manager.hear_any() == {"WATCHDOG": "1"}
        assert time.monotonic() - begun > 0.25, "it is told more than twice in the time that the watchdog allows"
        server.send_signal(signal.SIGTERM)
        assert manager.hear() == {"STOPPING": "1", "STATUS": "draining 0 sessions"}
        assert server.process.wait(DEADLINE) == 0


def test_a_server_that_is_stuck_is_not_told_to_be_alive(manager: Manager) -> None:
    """Its loop hangs as a handler that never returns makes it, while the rest of the process works."""
    stuck = (
        "import sys, threading, packetcore_cli._serve as serve\n"
        "class Stuck(serve.Echo):\n"
        "    def packet_received(self, session, packet): threading.Event().wait()\n"
        "serve.Echo = Stuck\n"
        "from packetcore_cli.__main__ import main\n"
        "sys.exit(main())\n"
    )
    environ = {**manager.environ, "WATCHDOG_USEC": "200000"}
    with serving("--port", "0", "--echo", environ=environ, command=[sys.executable, "-c", stuck]) as server:
        manager.hear()
        assert manager.hear_any() == {"WATCHDOG": "1"}
        address = ("127.0.0.1", int(server.first_line.rpartition(":")[2]))
        with socket.create_connection(address, timeout=DEADLINE) as device:
            device.sendall(PING)
            assert len(manager.hear_all(for_seconds=0.6)) < 3, "those under way come, and then none"
            assert manager.hear_all(for_seconds=0.5) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the abstract namespace is Linux's")
def test_a_service_manager_may_have_a_name_in_the_abstract_namespace() -> None:
    manager = Manager(f"@packetcore-test-{os.getpid()}")
    with serving("--port", "0", environ=manager.environ) as server:
        assert manager.hear()["READY"] == "1"
        ended_in_order(server)
    manager.close()


def test_a_reload_is_told_from_its_beginning_to_its_end(manager: Manager) -> None:
    with serving("--port", "0", environ=manager.environ) as server:
        manager.hear()
        before = time.monotonic_ns() // 1000
        server.send_signal(signal.SIGHUP)
        told = manager.hear()
        assert told.keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.hear() == {"READY": "1"}
        ended_in_order(server)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"NOTIFY_SOCKET": "/nowhere/notify"}, "the service manager cannot be told READY=1: .*No such file"),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, "NOTIFY_SOCKET='vsock:2:1234' is no Unix socket"),
        ({"NOTIFY_SOCKET": "/" + "x" * 200}, "the service manager cannot be told READY=1: AF_UNIX path too long"),
        ({"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "-5"}, "WATCHDOG_USEC='-5' is no number above 0"),
    ],
    ids=["gone", "another kind", "too long", "watchdog"],
)
def test_a_service_manager_that_cannot_be_told_disturbs_nothing(environ: Mapping[str, str], says: str) -> None:
    with serving("--port", "0", "--echo", environ={**os.environ, **environ}) as server:
        server.wait_log(says)
        assert is_echoed(("127.0.0.1", int(server.first_line.rpartition(":")[2])))
        ended_in_order(server)
    assert len([line for line in server.log if "NOTIFY" in line or "manager" in line or "WATCHDOG" in line]) == 1
