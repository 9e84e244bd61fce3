"""Latency.

Small replies leave at once, on accepted sockets and on dialled ones.
"""

from __future__ import annotations

import socket
import time

from packetcore import Packet, Session, encode
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

PING = encode(Packet(1))
ROUNDS = 20

FIRST = 10
"""Rounds that do not count: at first Linux acknowledges everything at once."""

LATE = 0.02
"""Seconds: half of what a delayed acknowledgement takes on Linux, for which Nagle's algorithm
waits. It waits each time, and a busy machine is late only sometimes."""


def three_apart(rig: Rig, session: Session) -> None:
    """Send three packets, 1 ms apart."""
    for _ in range(3):
        rig.call(session.send, Packet(1))
        time.sleep(0.001)


def least(rig: Rig, session: Session, peer: socket.socket) -> float:
    """The shortest time, in seconds, from the first of three small packets to the third."""
    seen: list[float] = []
    for _ in range(ROUNDS):
        peer.sendall(PING)  # a peer that sends, too, puts off what it acknowledges
        began = time.perf_counter()
        sent = rig.in_thread(three_apart, rig, session)
        got = 0
        while got < 3 * len(PING):
            got += len(peer.recv(65536))
        seen.append(time.perf_counter() - began)
        sent()
    return min(seen[FIRST:])


def test_small_packets_of_a_server_leave_at_once(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler))
    handler.wait("connected")
    assert least(rig, handler.sessions[0], peer.sock) < LATE, "an accepted socket has no TCP_NODELAY"


def test_small_packets_of_a_client_leave_at_once(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        session = rig.driver.connect(host, port, Recorder())
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(10)
            assert least(rig, session, peer) < LATE, "a dialled socket has no TCP_NODELAY"
        rig.call(session.abort)
