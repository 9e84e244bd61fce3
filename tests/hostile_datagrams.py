"""Hostile datagrams by the hundred thousand: a run that a UDP server must survive as it was.

    python tests/hostile_datagrams.py [--count N] [--seed N] [--transport NAME] [--stream]

They are random bytes and frames cut, joined, damaged and lying, from more addresses than the
server admits, mixed with sound ones. Without a transport they go into a `DatagramEndpoint` on
a made-up socket and clock; with one, over this machine's own network into a server on that
runtime. Nothing may be raised or logged, every session has to end once, what the server holds
may not grow between the first tenth and the end, and it has to answer to the last. With `--stream`
the server joins what one peer sends and cuts what it sends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import logging
import random
import socket
import struct
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from errno import EAGAIN, EHOSTUNREACH
from pathlib import Path

from packetcore import (
    Address,
    Carrier,
    CloseReason,
    Config,
    DatagramEndpoint,
    Handler,
    Packet,
    Session,
    encode,
    load_driver,
)

CONFIG = Config(max_payload=200, max_datagram=600, max_sessions=60, max_sessions_per_host=10, idle_timeout=0.5)
TENTHS = 10
STREAM = replace(CONFIG, datagram_stream=True, datagram_chunk=50, frame_timeout=0.3)
GROWTH_OF_CORE = 64 * 1024
"""Bytes that Python may hold more at the end than after a tenth: room for what it caches."""
GROWTH_OF_PROCESS = 16 * 1024 * 1024
"""Bytes that the whole process may hold more: an allocator does not give everything back."""
PATIENCE = 20.0
"""Seconds until a server that does not answer is given up."""


class Broken(Exception):
    """The server did what it must not."""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


class Echo(Handler):
    """Sends back what comes, and watches that sessions begin and end once."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.calls: Counter[str] = Counter()

    def connected(self, session: Session) -> None:
        self.calls["connected"] += 1
        self.live.add(session.id)

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.calls["packet_received" if session.id in self.live else "packet of nobody"] += 1
        session.send(packet)

    def malformed(self, session: Session, malformed: object) -> None:
        self.calls["malformed"] += 1

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.calls["disconnected" if session.id in self.live else "disconnected twice"] += 1
        self.live.discard(session.id)


def hostile_datagram(rng: random.Random) -> bytes:
    """One datagram; about every third holds a packet."""
    match rng.choice(["sound", "joined", "damaged", "damaged", "lying", "random", "special", "flags", "long"]):
        case "sound":
            return _frame(rng)
        case "joined":
            return b"".join(_damaged(rng, _frame(rng)) if rng.random() < 0.5 else _frame(rng) for _ in range(4))
        case "damaged":
            return _damaged(rng, _frame(rng))
        case "lying":
            length = rng.choice([0, 1, 201, 0xFDFE, 0xFFFFFFFF])
            header = struct.pack(">HBHI", rng.randrange(0x10000), 0, 1, length)
            return b"\xfe" + header.replace(b"\xfd", b"\xfd\x02").replace(b"\xfe", b"\xfd\x01") + rng.randbytes(9)
        case "random":
            return rng.randbytes(rng.randrange(60))
        case "special":
            return bytes(rng.choices(b"\xfd\xfe\x01\x02\x00\xff", k=rng.randrange(60)))
        case "flags":
            return b"\xfe" * rng.randrange(4)
        case _:
            return rng.choice([b"\xfe", b"\xfd\x01", b"\x00"]) * 601


def _frame(rng: random.Random) -> bytes:
    size = rng.choice([0, 1, 20, 200])
    payload = rng.randbytes(size) if rng.random() < 0.7 else b"\xfe" * size
    return encode(Packet(rng.randrange(0x10000), payload, type=rng.randrange(256), count=rng.randrange(3)))


def _damaged(rng: random.Random, frame: bytes) -> bytes:
    at = rng.randrange(len(frame))
    match rng.randrange(5):
        case 0:
            return frame[:at]
        case 1:
            return frame[at:]
        case 2:
            return frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]
        case 3:
            return frame[:at] + frame[at + rng.randint(1, 3) :]
        case _:
            return frame[:at] + rng.choice([b"\xfe", b"\xfd", b"\x00\x00"]) + frame[at:]


class MadeUpHost:
    """A socket that fails now and then, and a clock."""

    def __init__(self, rng: random.Random, handler: Handler, config: Config) -> None:
        self.rng = rng
        self.now = 1_000.0
        self.is_reliable = False
        self.answers: list[tuple[Address, bytes]] = []
        self._timer: float | None = None
        self._is_woken = False
        self.endpoint = DatagramEndpoint(handler, config, is_server=True)
        self.endpoint.host = self

    def write_to(self, data: bytes, addr: Address) -> None:
        if not self.is_reliable and self.rng.random() < 0.1:
            raise OSError(self.rng.choice([EAGAIN, EHOSTUNREACH]), "a made-up failure")
        if self.is_reliable:
            self.answers.append((addr, data))

    def set_timer(self, at: float | None) -> None:
        self._timer = at

    def wake(self) -> None:
        self._is_woken = True

    def carrier(self) -> Carrier:
        return Carrier("udp")

    def close(self) -> None:
        raise Broken("it closed its socket")

    def receive(self, data: bytes, addr: Address) -> None:
        self.endpoint.received(data, addr, self.now)
        if self.rng.random() < 0.01:
            self.endpoint.error(OSError(EHOSTUNREACH, "a made-up failure"), addr, self.now)
        self.now += 0.0005 if self.rng.random() < 0.999 else 1.0
        self.settle()

    def settle(self) -> None:
        """Do all that is due."""
        while self._is_woken or (self._timer is not None and self._timer <= self.now):
            if self._is_woken:
                self._is_woken = False
                self.endpoint.flush(self.now)
            else:
                self._timer = None
                self.endpoint.tick(self.now)

    def fall_silent(self) -> None:
        """Let everybody's time run out."""
        self.now += 10
        self.settle()
        gc.collect()


def attack_core(count: int, seed: int, config: Config) -> str:
    """Send into an endpoint without a socket. Returns a summary."""
    rng, handler = random.Random(seed), Echo()
    host = MadeUpHost(rng, handler, config)
    endpoint = host.endpoint
    baseline = 0
    tracemalloc.start()
    for number in range(count):
        datagram = hostile_datagram(rng)
        addr: Address = (f"10.0.0.{rng.randrange(40)}", rng.randrange(1024, 1074))
        try:
            host.receive(datagram, addr)
        except Exception as error:
            raise Broken(f"datagram {number}, {datagram.hex()} from {addr}, raised {error!r}") from error
        check(len(endpoint.sessions) <= 60, f"{len(endpoint.sessions)} sessions pass max_sessions")
        if (number + 1) % max(1, count // TENTHS) == 0:
            progress(number + 1, count, f"{len(endpoint.sessions)} sessions")
            if not baseline:
                host.fall_silent()
                baseline = tracemalloc.get_traced_memory()[0]
    host.fall_silent()
    growth = tracemalloc.get_traced_memory()[0] - baseline
    tracemalloc.stop()
    check(growth < GROWTH_OF_CORE, f"it holds {growth} bytes more than after a tenth")
    check(not endpoint.sessions and not handler.live, "sessions outlive their time")
    host.is_reliable = True
    question = encode(Packet(7, b"still there?"))
    host.receive(question, ("192.0.2.1", 5000))
    check(host.answers == [(("192.0.2.1", 5000), question)], "it does not answer")
    return report(handler, endpoint.stats.refused, f"{growth / 1024:+.1f} KiB held")


def attack_transport(count: int, seed: int, config: Config, name: str) -> str:
    """Send over sockets into a server on a runtime. Returns a summary."""
    rng, handler, complaints = random.Random(seed), Echo(), io.StringIO()
    logging.basicConfig(stream=complaints, level=logging.ERROR)
    with contextlib.redirect_stderr(complaints):
        driver = load_driver(name)
        try:
            server = driver.start_udp_server(handler, config=config)
            baseline = 0
            with probe(server.address) as ask:
                ask.still_there()  # it is in before the others are
                for number in range(0, count, 50):
                    for _ in range(2):  # each from an address of its own
                        with attacker(rng, server.address) as sock:
                            for _ in range(25):
                                with contextlib.suppress(OSError):  # the server's own answer was refused
                                    sock.send(hostile_datagram(rng))
                    ask.still_there()  # and has read what came before
                    done = min(number + 50, count)
                    if done * TENTHS // count > number * TENTHS // count:
                        progress(done, count, f"{resident() // 1024} KiB resident")
                        baseline = baseline or resident()
            growth = resident() - baseline
            deadline = time.monotonic() + PATIENCE
            while driver.call(len, server.sessions):
                check(time.monotonic() < deadline, "sessions outlive their time")
                time.sleep(0.05)
            closed = driver.call(lambda: sum(server.stats.closed.values()))
            check(closed == server.stats.opened, f"{server.stats.opened} sessions opened and {closed} closed")
            with probe(server.address) as newcomer:
                newcomer.still_there()
        finally:
            driver.stop()
    check(not complaints.getvalue(), f"it complained:\n{complaints.getvalue()}")
    check(growth < GROWTH_OF_PROCESS, f"the process holds {growth} bytes more than after a tenth")
    return report(handler, server.stats.refused, f"{growth / 1024:+.0f} KiB resident")


@contextlib.contextmanager
def attacker(rng: random.Random, server: Address) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine's
            sock.bind((f"127.0.0.{rng.randint(2, 100)}", 0))
        sock.connect(server)
        yield sock


class Probe:
    """A peer that asks and waits for its answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._asked = 0

    def still_there(self) -> None:
        """Ask until it answers: a full buffer may cost the question or the answer."""
        self._asked = (self._asked + 1) % 0x10000
        question = encode(Packet(self._asked, b"still there?"))
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._sock.send(question)
            with contextlib.suppress(TimeoutError):
                while self._sock.recv(1000) != question:
                    pass
                return
        raise Broken("it does not answer")


@contextlib.contextmanager
def probe(server: Address) -> Iterator[Probe]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.connect(server)
        yield Probe(sock)


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


def progress(done: int, count: int, what: str) -> None:
    sys.stdout.write(f"{done} of {count} datagrams, {what}\n")
    sys.stdout.flush()


def report(handler: Echo, refused: int, growth: str) -> str:
    calls = handler.calls
    check(not {"packet of nobody", "disconnected twice"} & {*calls}, f"a session began or ended wrongly: {calls}")
    told = ", ".join(f"{calls[name]} {name}" for name in ("connected", "packet_received", "malformed", "disconnected"))
    return f"{told}, {refused} refused; {growth}"


def main() -> str | None:
    """Returns what to say if the server did not survive."""
    parser = argparse.ArgumentParser(description="Send hostile datagrams.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transport", metavar="NAME", help="an installed adapter; without one, the core alone")
    parser.add_argument("--stream", action="store_true", help="join a peer's datagrams, and cut what is sent")
    options = parser.parse_args()
    config = STREAM if options.stream else CONFIG
    begun = time.monotonic()
    try:
        if options.transport is None:
            summary = attack_core(options.count, options.seed, config)
        else:
            summary = attack_transport(options.count, options.seed, config, options.transport)
    except Broken as broken:
        return f"seed {options.seed}: {broken}"
    seconds = time.monotonic() - begun
    where = options.transport or "core"
    sys.stdout.write(f"{options.count} hostile datagrams, seed {options.seed}, {where}: {summary}; {seconds:.1f} s\n")
    return None


if __name__ == "__main__":
    sys.exit(main())
