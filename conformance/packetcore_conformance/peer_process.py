"""One adapter in a process of its own, for the case in which each talks to each.

    python -m packetcore_conformance.peer_process capabilities TRANSPORT
    python -m packetcore_conformance.peer_process serve TRANSPORT tcp|udp
    python -m packetcore_conformance.peer_process talk TRANSPORT tcp|udp HOST PORT

`capabilities` prints what the adapter can do. `serve` echoes until its standard input ends.
`talk` sends the golden frames and a large packet, over a handler and over a stream, and
exits 0 if all came back.
"""

from __future__ import annotations

import sys

from packetcore import Driver, Packet, load_driver
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.vectors import PACKETS


def capabilities(transport: str) -> None:
    """Print them in one line."""
    driver = load_driver(transport)
    sys.stdout.write(" ".join(sorted(driver.capabilities())))
    driver.stop()


def serve(transport: str, protocol: str) -> None:
    """Echo until standard input ends; print where first."""
    driver = load_driver(transport)
    try:
        server = driver.start_udp_server(echo()) if protocol == "udp" else driver.start_server(echo())
        sys.stdout.write("{} {}\n".format(*server.address))
        sys.stdout.flush()
        sys.stdin.read()
        driver.call(server.close, 1.0)
    finally:
        driver.stop()


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
        case ["serve", transport, "tcp" | "udp" as protocol]:
            serve(transport, protocol)
        case ["talk", transport, "tcp" | "udp" as protocol, host, port]:
            talk(transport, protocol, host, int(port))
        case _:
            sys.exit(__doc__)
