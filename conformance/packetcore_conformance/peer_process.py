"""One adapter in a process of its own, for the case in which each talks to each.

    python -m packetcore_conformance.peer_process capabilities TRANSPORT
    python -m packetcore_conformance.peer_process serve TRANSPORT tcp|udp [PORT [DESCRIPTORS]]
    python -m packetcore_conformance.peer_process talk TRANSPORT tcp|udp HOST PORT

`capabilities` prints what the adapter can do. `serve` echoes until its standard input ends; with
DESCRIPTORS it may open no more than that many beside those it has when it listens. It prints
where it listens, and at the end how many seconds that took and how many of the processor's.
`talk` sends the golden frames and a large packet, over a handler and over a stream, and
exits 0 if all came back.
"""

from __future__ import annotations

import os
import sys
import time

from packetcore import Driver, Packet, load_driver
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.vectors import PACKETS


def capabilities(transport: str) -> None:
    """Print them in one line."""
    driver = load_driver(transport)
    sys.stdout.write(" ".join(sorted(driver.capabilities())))
    driver.stop()


def serve(transport: str, protocol: str, port: int = 0, descriptors: int | None = None) -> None:
    """Echo until standard input ends."""
    driver = load_driver(transport)
    try:
        if protocol == "udp":
            server = driver.start_udp_server(echo(), port=port)
        else:
            server = driver.start_server(echo(), port=port)
        if descriptors is not None:
            _limit(descriptors)
        began, used = time.monotonic(), time.process_time()
        sys.stdout.write("{} {}\n".format(*server.address))
        sys.stdout.flush()
        sys.stdin.read()
        sys.stdout.write(f"{time.monotonic() - began} {time.process_time() - used}\n")
        driver.call(server.close, 1.0)
    finally:
        driver.stop()


def _limit(descriptors: int) -> None:
    import resource  # other systems than Unix have none

    with open(os.devnull) as lowest:  # the system gives the lowest number that is free
        first = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def talk(transport: str, protocol: str, host: str, port: int) -> None:
    """Send, receive, compare."""
    driver = load_driver(transport)
    try:
        if protocol == "udp":
            _talk_udp(driver, host, port)
        else:
            _talk_tcp(driver, host, port)
    finally:
        driver.stop()


def _talk_tcp(driver: Driver, host: str, port: int) -> None:
    packets = [*PACKETS, Packet(1, b"\xfe" * 1_000_000)]
    handler = Recorder()
    session = driver.connect(host, port, handler)
    for packet in packets:
        driver.call(session.send, packet)
    assert handler.wait("packet_received", len(packets)) == packets
    driver.call(session.close)
    handler.wait_reasons()
    stream = driver.connect(host, port)
    for packet in packets:
        driver.call(stream.send, packet)
    assert [driver.call(stream.recv) for _ in packets] == packets
    driver.call(stream.close)


def _talk_udp(driver: Driver, host: str, port: int) -> None:
    # One at a time: what finds no room in a socket's buffer is lost.
    packets = [*PACKETS, Packet(1, bytes(60_000))]
    handler = Recorder()
    session = driver.connect_udp(host, port, handler)
    for count, packet in enumerate(packets, 1):
        driver.call(session.send, packet)
        assert handler.wait("packet_received", count)[-1] == packet
    driver.call(session.close)
    handler.wait_reasons()
    stream = driver.connect_udp(host, port)
    for packet in packets:
        driver.call(stream.send, packet)
        assert driver.call(stream.recv) == packet
    driver.call(stream.close)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["capabilities", transport]:
            capabilities(transport)
        case ["serve", transport, "tcp" | "udp" as protocol, *numbers] if len(numbers) <= 2:
            serve(transport, protocol, *map(int, numbers))
        case ["talk", transport, "tcp" | "udp" as protocol, host, port]:
            talk(transport, protocol, host, int(port))
        case _:
            sys.exit(__doc__)
