"""`packetcore serve` as a process: what it prints, how it serves and how it ends."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from packetcore import Decoder, Packet, encode

DEADLINE = 30.0
CLIENTS = 50
IN_FLIGHT = 32


each_transport = pytest.mark.parametrize("transport", ["asyncio", "blocking", "gevent", "twisted"])


class Serving:
    """A `packetcore serve` that listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        line = process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:")
        self.address = ("127.0.0.1", int(line.rpartition(":")[2]))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=DEADLINE)

    def udp_device(self) -> socket.socket:
        device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        device.settimeout(DEADLINE)
        device.connect(self.address)
        return device

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        """Send a signal; the exit code, and the rest of what was printed."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err


@contextmanager
def serving(*options: str) -> Iterator[Serving]:
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield Serving(process)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def read_to_end(device: socket.socket) -> bytes:
    return b"".join(iter(lambda: device.recv(65536), b""))


def is_echoed(serving: Serving, seed: int, together: threading.Barrier) -> bool:
    """Keep `IN_FLIGHT` packets under way until ten times as many have come back, in order."""
    choose = random.Random(seed)
    sent = [
        Packet(
            choose.randrange(0x10000),
            bytes(choose.choices(b"\xfd\xfe\x01\x02ab", k=choose.randrange(200))),
            type=choose.randrange(256),
            count=choose.randrange(0x10000),
        )
        for _ in range(10 * IN_FLIGHT)
    ]
    received: list[Packet] = []
    decoder = Decoder()
    with serving.connect() as device:
        together.wait(DEADLINE)
        device.sendall(b"".join(map(encode, sent[:IN_FLIGHT])))
        under_way = IN_FLIGHT
        while len(received) < len(sent):
            packets = decoder.feed(device.recv(65536))
            for packet in packets:
                assert isinstance(packet, Packet)
                received.append(packet)
            device.sendall(b"".join(map(encode, sent[under_way : under_way + len(packets)])))
            under_way += len(packets)
    return received == sent and decoder.pending == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fifty_clients_get_every_byte_back(number: signal.Signals) -> None:
    together = threading.Barrier(CLIENTS)
    with serving("--transport", "asyncio", "--echo") as server:
        with ThreadPoolExecutor(CLIENTS) as clients:
            assert all(clients.map(lambda seed: is_echoed(server, seed, together), range(CLIENTS)))
        code, out, err = server.end(number)
    assert (code, out) == (0, "")
    assert f"stopped after {CLIENTS} sessions" in err
    assert "malformed: 0" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@each_transport
def test_a_signal_lets_connected_clients_finish(transport: str, number: signal.Signals) -> None:
    with ExitStack() as clients, serving("--echo", "--grace", "20", "--transport", transport) as server:
        devices = [clients.enter_context(server.connect()) for _ in range(3)]
        for device in devices:
            device.sendall(encode(Packet(1, b"hello")))
            assert device.recv(1) == b"\xfe"
        server.process.send_signal(number)
        for device in devices:  # the rest of the echo, then the end
            assert read_to_end(device) == encode(Packet(1, b"hello"))[1:]
            device.close()
        _, err = server.process.communicate(timeout=DEADLINE)
    assert server.process.returncode == 0
    assert "draining 3 sessions" in err
    assert err.count("closed, SHUTDOWN") == 3
    assert err.endswith("stopped after 3 sessions\n")


def test_clients_that_stay_do_not_outlive_the_grace() -> None:
    with serving("--echo", "--grace", "0.3") as server, server.connect() as device:
        device.sendall(encode(Packet(1)))
        assert device.recv(1) == b"\xfe"
        code, _, err = server.end(signal.SIGTERM)
    assert code == 0
    assert "session 1 closed, SHUTDOWN" in err


@each_transport
def test_a_second_signal_ends_it_at_once(transport: str) -> None:
    with ExitStack() as clients, serving("--echo", "--grace", "1000", "--transport", transport) as server:
        devices = [clients.enter_context(server.connect()) for _ in range(3)]
        for device in devices:
            device.sendall(encode(Packet(1)))
            assert device.recv(64) == encode(Packet(1))
        server.process.send_signal(signal.SIGTERM)
        for device in devices:
            assert read_to_end(device) == b""  # it drains, and waits for this client to close
        code, _, err = server.end(signal.SIGINT)
    assert code == 1
    assert err.count("closed, SHUTDOWN") == 3
    assert err.endswith("aborted by a second signal\n")
    assert "Traceback" not in err


def test_packets_are_printed_and_the_rest_is_logged() -> None:
    with serving() as server:
        with server.connect() as device:
            device.sendall(b"noise" + encode(Packet(7, b"hello")) + b"\xfe".join([b"x"] * 30) + b"\xfe")
            device.shutdown(socket.SHUT_WR)
            assert read_to_end(device) == b""
        code, out, err = server.end(signal.SIGTERM)
    assert (code, out) == (0, 'session 1  id 7  type 0  count 1  length 5  payload "hello"\n')
    log = [line.partition("  ")[2] for line in err.splitlines()]
    assert log[0].startswith("session 1 from 127.0.0.1:")
    assert log[1] == 'session 1 malformed: NOISE  5 bytes  "noise"'
    assert log[11:13] == [
        "session 1 malformed: more, from here on only counted",
        "session 1 closed, PEER: the peer closed it; packets: 1 in, 0 out; malformed: 31",
    ]


def test_limits_are_the_ones_asked_for() -> None:
    with serving("--max-sessions", "1", "--max-payload", "4", "--idle-timeout", "1", "--echo") as server:
        with server.connect() as device:
            device.sendall(encode(Packet(1, b"hello")) + encode(Packet(2, b"four")))
            assert device.recv(64) == encode(Packet(2, b"four"))
            with server.connect() as other, suppress(ConnectionResetError):
                assert read_to_end(other) == b""
            assert read_to_end(device) == b""
        code, _, err = server.end(signal.SIGTERM)
    assert code == 0
    assert "TOO_LONG" in err
    assert "session 1 closed, IDLE_TIMEOUT" in err
    assert err.endswith("stopped after 1 session; refused: 1; malformed: 2\n")


def test_a_cap_for_each_host_is_the_one_asked_for() -> None:
    with serving("--max-sessions-per-host", "1", "--echo") as server:
        with server.connect() as device, server.connect() as other:
            device.sendall(encode(Packet(1)))
            assert device.recv(64) == encode(Packet(1))
            with suppress(ConnectionResetError):
                assert read_to_end(other) == b""
        _, _, err = server.end(signal.SIGTERM)
    assert err.endswith("stopped after 1 session; refused: 1\n")


def test_a_reader_that_leaves_ends_the_server_quietly() -> None:
    with serving() as server:
        assert server.process.stdout is not None
        server.process.stdout.close()
        with server.connect() as device:
            device.sendall(encode(Packet(1)))
            assert read_to_end(device) == b""
        assert server.process.wait(DEADLINE) == 0
        assert server.process.stderr is not None
        assert "Traceback" not in server.process.stderr.read()


def test_it_listens_on_ipv6() -> None:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        command = [sys.executable, "-m", "packetcore_cli", "serve", "--host", "::1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening on [::1]:")
            process.terminate()
            assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_it_listens_on_several_hosts_with_one_port(udp: bool) -> None:
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--host", "127.0.0.1", "--host", "127.0.0.2"]
    process = subprocess.Popen([*command, *(["--udp"] if udp else [])], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            first, second = process.stdout.readline().removeprefix("listening on ").strip().split(", ")
            port = first.rpartition(":")[2]
            assert (first, second) == (f"127.0.0.1:{port}", f"127.0.0.2:{port}")
        finally:
            process.terminate()
        assert process.wait(DEADLINE) == 0


def test_each_host_that_was_asked_for_stands_in_the_error() -> None:
    command = [sys.executable, "-m", "packetcore_cli", "serve", "--host", "127.0.0.1", "--host", "192.0.2.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("cannot listen on 127.0.0.1:0, 192.0.2.1:0: Cannot assign requested address\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@each_transport
def test_udp_is_echoed_until_a_signal(transport: str, number: signal.Signals) -> None:
    options = ["--udp", "--echo", "--transport", transport]
    with serving(*options) as server, server.udp_device() as device, server.udp_device() as other:
        for sender, packet in ((device, Packet(1, b"\xfd\xfe")), (other, Packet(2)), (device, Packet(3))):
            sender.send(encode(packet))
            assert sender.recv(65536) == encode(packet)
        code, out, err = server.end(number)
    assert (code, out) == (0, "")
    log = [line.partition("  ")[2] for line in err.splitlines()]
    assert "draining 2 sessions for at most 5 s; a second signal aborts" in log
    assert "session 1 closed, SHUTDOWN: the server shut down; packets: 2 in, 2 out; malformed: 0" in log
    assert log[-1] == "stopped after 2 sessions"


def test_what_udp_brings_is_printed_and_strangers_are_counted() -> None:
    with serving("--udp", "--max-sessions", "1") as server:
        with server.udp_device() as device, server.udp_device() as stranger:
            stranger.send(b"noise")
            device.send(encode(Packet(7, b"hello")) + b"cut")
            stranger.send(encode(Packet(8)))
            device.send(encode(Packet(9)))
            assert server.process.stdout is not None
            lines = [server.process.stdout.readline() for _ in range(2)]
        code, out, err = server.end(signal.SIGTERM)
    assert lines == [
        'session 1  id 7  type 0  count 1  length 5  payload "hello"\n',
        "session 1  id 9  type 0  count 1  length 0\n",
    ]
    assert (code, out) == (0, "")
    assert 'session 1 malformed: TRUNCATED  3 bytes  "cut"' in err
    assert err.endswith("stopped after 1 session; refused: 1; malformed: 2\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say which peer an error is about")
def test_a_udp_peer_that_has_gone_is_logged() -> None:
    with serving("--udp", "--echo") as server:
        with server.udp_device() as device:
            server.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
            device.send(encode(Packet(1)))
        server.process.send_signal(signal.SIGCONT)  # what it sends back finds nobody
        assert server.process.stderr is not None
        log = iter(server.process.stderr.readline, "")
        assert any(line.endswith("session 1 error: Connection refused\n") for line in log)
        assert server.end(signal.SIGTERM)[0] == 0


def test_behind_a_proxy_it_logs_the_device_s_address_and_refuses_who_is_no_proxy() -> None:
    ping = encode(Packet(1, b"ping"))
    for networks, is_proxy in ((("10.0.0.0/8", "127.0.0.0/8"), True), (("10.0.0.0/8",), False)):
        options = [word for network in networks for word in ("--proxy-protocol", network)]
        with serving("--echo", *options) as server:
            with server.connect() as device, suppress(ConnectionError):
                device.sendall(b"PROXY TCP4 198.51.100.7 203.0.113.1 40007 7000\r\n" + ping)
                assert device.recv(len(ping), socket.MSG_WAITALL) == (ping if is_proxy else b"")
            code, _, err = server.end(signal.SIGTERM)
        assert code == 0
        assert ("session 1 from 198.51.100.7:40007" in err) == is_proxy, err
        assert ("refused: 1" in err) != is_proxy, err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--proxy-protocol", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
        (["--proxy-protocol", "gateway"], "'gateway' does not appear to be"),
        (["--proxy-protocol", "::1", "--udp"], "not allowed with argument --udp"),
    ],
)
def test_what_is_no_network_of_proxies_is_wrong_usage(options: list[str], says: str) -> None:
    command = [sys.executable, "-m", "packetcore_cli", "serve", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 2
    assert "--proxy-protocol" in ended.stderr
    assert says in ended.stderr
