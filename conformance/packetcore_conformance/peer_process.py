"""One adapter in a process of its own, for the case in which each talks to each.

    python -m packetcore_conformance.peer_process serve TRANSPORT
    python -m packetcore_conformance.peer_process talk TRANSPORT HOST PORT

`serve` echoes until its standard input ends. `talk` sends the golden frames and a large
packet, over a handler and over a stream, and exits 0 if all came back.
"""

from __future__ import annotations

import sys

from packetcore import Packet, load_driver
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.vectors import PACKETS


def serve(transport: str) -> None:
    """Echo until standard input ends; print where first."""
    driver = load_driver(transport)
    try:
        server = driver.start_server(echo())
        sys.stdout.write("{} {}\n".format(*server.address))
        sys.stdout.flush()
        sys.stdin.read()
        driver.call(server.close, 1.0)
    finally:
        driver.stop()


def talk(transport: str, host: str, port: int) -> None:
    """Send, receive, compare."""
    driver = load_driver(transport)
    packets = [*PACKETS, Packet(1, b"\xfe" * 1_000_000)]
    try:
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
    finally:
        driver.stop()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", transport]:
            serve(transport)
        case ["talk", transport, host, port]:
            talk(transport, host, int(port))
        case _:
            sys.exit(__doc__)
