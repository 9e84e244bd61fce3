"""`packetcore serve --workers`: several processes on one port, and the parent that keeps them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from packetcore import Decoder, Packet, encode
from tests.cli_process import DEADLINE, Serving, failing, serving
from tests.test_cli_systemd import Manager

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes inherit no sockets here")

GOODBYE = 9
IN_FLIGHT = 8

GATEWAY = f"""
import os
from packetcore import Handler, Packet

class Gateway(Handler):
    def packet_received(self, session, packet):
        session.send(Packet(packet.id, packet.payload or str(os.getpid()).encode()))

    def draining(self, session):
        session.send(Packet({GOODBYE}, b""))  # a device that hears it asks no more, and goes when all was answered
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes the application; gives its path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "gateway.py").write_text(text)
        return "gateway:Gateway"

    return write


def address_of(server: Serving) -> tuple[str, int]:
    host, _, port = server.first_line.removeprefix("listening on ").rpartition(":")
    return host, int(port)


class Device:
    """One that is connected, and reads packet by packet."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._sock = socket.create_connection(address, timeout=DEADLINE)
        self._decoder = Decoder()
        self._read: list[Packet] = []

    def send(self, packet: Packet) -> None:
        self._sock.sendall(encode(packet))

    def read(self) -> Packet | None:
        while not self._read:
            if not (data := self._sock.recv(4096)):
                return None
            self._read += [event for event in self._decoder.feed(data) if isinstance(event, Packet)]
        return self._read.pop(0)

    def pid(self) -> int:
        """Of the worker that serves it."""
        self.send(Packet(1, b""))
        reply = self.read()
        assert reply is not None
        return int(reply.payload)

    def close(self) -> None:
        self._sock.close()


def pids_of(address: tuple[str, int], number: int) -> set[int]:
    """The workers that connections come to, until there are so many."""
    pids = set[int]()
    for _ in range(200):
        if len(pids) == number:
            break
        device = Device(address)
        pids.add(device.pid())
        device.close()
    return pids


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Of a parent that has gone: whoever takes its children over may be slow to reap them.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    pause, turns = threading.Event(), int(DEADLINE / 0.05)
    assert any(condition() or pause.wait(0.05) for _ in range(turns))


class Load:
    """Asks on one connection after the other, several questions at a time, and counts what is answered."""

    def __init__(self, address: tuple[str, int], stop: threading.Event) -> None:
        self.asked = self.answered = self.connections = 0
        self.error: Exception | None = None
        self._address, self._stop = address, stop
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._converse()
        except Exception as error:
            self.error = error

    def _converse(self) -> None:
        device = Device(self._address)
        self.connections += 1
        waiting: list[bytes] = []
        until, is_ending = self.asked + 500, False
        while True:
            while not is_ending and len(waiting) < IN_FLIGHT:
                self.asked += 1
                waiting.append(b"%d" % self.asked)
                device.send(Packet(1, waiting[-1]))
            if not waiting:
                break
            reply = device.read()
            assert reply is not None, f"{len(waiting)} questions were not answered"
            if reply.id == GOODBYE:
                is_ending = True
            else:
                assert reply.payload == waiting.pop(0)
                self.answered += 1
            is_ending |= self._stop.is_set() or self.asked >= until
        device.close()


def test_sighup_replaces_workers_under_load_and_no_reply_is_lost(app: Callable[[str], str]) -> None:
    with serving("--app", app(GATEWAY), "--workers", "2") as server:
        address, stop = address_of(server), threading.Event()
        before = pids_of(address, 2)
        assert len(before) == 2
        loads = [Load(address, stop) for _ in range(3)]
        server.send_signal(signal.SIGHUP)
        server.wait_log("SIGHUP: 2 workers replaced")
        stop.set()
        for load in loads:
            load.thread.join(DEADLINE)
            assert load.error is None
            assert load.answered == load.asked > IN_FLIGHT
        assert sum(load.connections for load in loads) > len(loads)
        after = pids_of(address, 2)
        assert len(after) == 2
        assert not after & before
        assert server.end() == 0
        assert all(map(has_ended, after))
        assert not [line for line in server.log if "Traceback" in line or "ended," in line]


def test_a_worker_that_is_killed_is_started_again_and_counts_go_on(app: Callable[[str], str]) -> None:
    pytest.importorskip("prometheus_client")
    with serving("--app", app(GATEWAY), "--workers", "2", "--metrics-port", "0", "--transport", "gevent") as server:
        address = address_of(server)
        url = server.wait_log("metrics on").split()[-1]
        victim, other = sorted(pids_of(address, 2))
        opened = opened_of(url)
        assert opened[""] == opened["0"] + opened["1"] >= 2
        os.kill(victim, signal.SIGKILL)
        line = server.wait_log("ended, SIGKILL: another starts in")
        assert re.match(rf"worker [01] \(pid {victim}\) ended, SIGKILL", line)
        now = pids_of(address, 2)  # who comes to its socket waits for the next worker
        assert other in now
        assert victim not in now
        again = opened_of(url)
        assert again[""] == again["0"] + again["1"] > opened[""]
        assert server.end() == 0


def opened_of(url: str) -> dict[str, float]:
    """Sessions that each worker has opened, and under "" all."""
    with urllib.request.urlopen(url, timeout=DEADLINE) as page:
        text = page.read().decode()
    found = re.findall(r'^packetcore_sessions_opened_total\{endpoint="serve"(?:,worker="(\d)")?\} (\S+)$', text, re.M)
    return {worker: float(number) for worker, number in found}


@pytest.mark.skipif(sys.platform != "linux", reason="no sockets that keep a peer with its worker")
def test_a_udp_peer_stays_with_its_worker(app: Callable[[str], str]) -> None:
    with serving(
        "--app", app(GATEWAY), "--workers", "2", "--udp", "--grace", "0.2", "--transport", "twisted"
    ) as server:
        address = address_of(server)
        devices = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(16)]
        for device in devices:
            device.settimeout(DEADLINE)
            device.connect(address)

        def pid(device: socket.socket) -> int:
            device.send(encode(Packet(1, b"")))
            while True:
                (packet,) = Decoder().feed(device.recv(100))
                assert isinstance(packet, Packet)
                if packet.id != GOODBYE:
                    return int(packet.payload)

        before = [pid(device) for device in devices]
        assert len(set(before)) == 2  # by chance one in 30,000 times not
        assert [pid(device) for device in devices * 3] == before * 3
        server.send_signal(signal.SIGHUP)
        # The handler does not close what drains: the grace ends it, and what comes then waits for the next.
        server.wait_log("SIGHUP: 2 workers replaced")
        after = [pid(device) for device in devices]
        successors = dict(zip(before, after, strict=True))
        assert [successors[one] for one in before] == after
        assert not set(after) & set(before)
        for device in devices:
            device.close()
        assert server.end() == 0


def test_an_application_that_does_not_start_is_told_once(app: Callable[[str], str]) -> None:
    code, said = failing("--app", app("raise OSError('no disk')\n"), "--workers", "3")
    assert code == 1
    assert said.startswith("packetcore: --app 'gateway:Gateway': importing gateway raised OSError: no disk")
    assert "\n" not in said


def test_a_new_application_that_does_not_start_replaces_nobody_and_workers_follow_their_parent(
    app: Callable[[str], str],
) -> None:
    with serving("--app", app(GATEWAY), "--workers", "2") as server:
        address = address_of(server)
        before = pids_of(address, 2)
        app("raise OSError('no disk')\n")
        server.send_signal(signal.SIGHUP)
        server.wait_log("exit status 1, before it served: SIGHUP given up, the workers there are stay")
        assert not any("replaced" in line for line in server.log)
        assert pids_of(address, 2) == before
        server.process.kill()
        server.process.wait(DEADLINE)
        wait_until(lambda: all(map(has_ended, before)))


IMPATIENT = """
import sys
from packetcore import Backoff
from packetcore_cli import _place, _supervisor
from packetcore_cli.__main__ import main

_place.BACKOFF = Backoff(initial=0.01, maximum=0.02)
_supervisor.STARTS = 1
sys.exit(main())
"""


def test_one_that_cannot_start_ends_all_where_no_other_serves(app: Callable[[str], str]) -> None:
    command = (sys.executable, "-c", IMPATIENT)
    with serving("--app", app(GATEWAY), "--workers", "2", command=command) as server:
        address = address_of(server)
        first, second = pids_of(address, 2)
        device = Device(address)
        app("raise OSError('no disk')\n")
        os.kill(second if device.pid() == first else first, signal.SIGKILL)
        server.wait_log("ended, exit status 1: another starts in", count=3)  # more often than one alone may
        assert device.pid() in (first, second)
        os.kill(device.pid(), signal.SIGKILL)
        assert server.process.wait(DEADLINE) == 1
        server.wait_log("in a row before they served")
        device.close()


def test_a_second_signal_ends_what_drains(app: Callable[[str], str]) -> None:
    with serving("--app", app(GATEWAY), "--workers", "2", "--grace", "1000") as server:
        device = Device(address_of(server))
        pid = device.pid()
        server.send_signal(signal.SIGTERM)
        assert device.read() == Packet(GOODBYE, b"")
        assert server.end() == 1
        assert has_ended(pid)
        device.close()


def test_a_service_manager_hears_of_the_parent_alone_and_a_worker_that_hangs_is_replaced(
    app: Callable[[str], str], tmp_path: Path
) -> None:
    hangs = GATEWAY.replace("        session.send", "        while packet.id == 5: pass\n        session.send", 1)
    manager = Manager(str(tmp_path / "notify"))
    environ = {**manager.environ, "WATCHDOG_USEC": "1000000"}
    options = ["--workers", "2", "--grace", "1", "--transport", "blocking"]
    with serving("--app", app(hangs), *options, environ=environ) as server:
        told = manager.hear()
        assert told["READY"] == "1"
        assert told["STATUS"].endswith(", 2 workers")
        device = Device(address_of(server))
        pid = device.pid()
        device.send(Packet(5, b""))
        server.wait_log(rf"worker \d \(pid {pid}\) has not answered for \d s: killed")
        server.wait_log(rf"pid {pid}\) ended, SIGKILL: another starts")
        device.close()
        assert pid not in pids_of(address_of(server), 2)
        # As systemd does, all processes of the unit are told to end: that is no second signal.
        workers = pids_of(address_of(server), 2)
        for each in workers:
            os.kill(each, signal.SIGTERM)
        assert server.end() == 0
        assert manager.hear()["STOPPING"] == "1"
        assert not [line for line in server.log if "aborted" in line]
    manager.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk here is always full")
def test_all_end_where_what_the_parent_prints_cannot_be_written() -> None:
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--workers", "2", "--echo"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "packetcore: No space left on device"


def test_a_port_in_use_is_told(app: Callable[[str], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = str(taken.getsockname()[1])
        code, said = failing("--workers", "2", "--echo", "--port", port)
    assert (code, said) == (1, f"packetcore: cannot listen on 127.0.0.1:{port}: Address already in use")


def test_a_descriptor_that_is_not_open_is_told_and_is_no_other_socket_of_the_parent() -> None:
    code, said = failing("--echo", "--workers", "2", "--fd", "3")
    assert (code, said) == (1, "packetcore: cannot listen: descriptor 3: Bad file descriptor")


def test_where_metrics_cannot_be_served_no_worker_starts() -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = failing("--workers", "2", "--echo", "--metrics-port", port)
    assert (code, said) == (1, f"packetcore: cannot serve metrics on 127.0.0.1:{port}: Address already in use")


def test_sockets_that_are_given_are_shared(app: Callable[[str], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        with serving("--app", app(GATEWAY), "--workers", "2", "--fd", str(number), pass_fds=[number]) as server:
            assert address_of(server) == listener.getsockname()
            device = Device(address_of(server))
            assert device.pid() != server.process.pid
            device.close()
            assert server.end() == 0
