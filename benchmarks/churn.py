"""Short connections: open one, have one packet echoed, close it; packetcore beside a bare server.

Each server runs in a process of its own, on another CPU than the raw client, which keeps some
connections under way at a time and counts those that are done. Each shakes hands anew, sends a
packet of 64 bytes, compares what comes back, and closes; the server closes for its part when it
sees the end.

The raw servers are nearly as fast as the client, so what is held against the goal is not the rate but the server's
processor time for one connection, the kernel's part included: the stricter of the two.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median

from _common import Results, arguments, interleave, pin, save, show, verdict
from _echo_client import PATIENCE, Measured, cycle_for
from _echo_servers import installed, run
from _processes import TRANSPORTS, Child

AT_ONCE = 50
"""Connections under way at a time."""

GOALS = {"uvloop": 0.70, "gevent": 0.75, "twisted": 0.75, "blocking": 0.75}
"""What raw's cost must be at least, as a part of the handler's."""

SERVERS = ("raw", "handler", "stream")


def measure(child: Child, port: int, seconds: float) -> Measured:
    """Open and close for so long. The figures are of connections, not of packets."""
    frame = cycle_for("handler", 1)
    address = ("127.0.0.1", port)
    under_way: dict[int, socket.socket] = {}
    done = 0
    with select.epoll() as poller:

        def begin() -> None:
            sock = socket.socket()
            sock.setblocking(False)
            if sock.connect_ex(address) not in (0, errno.EINPROGRESS):
                raise OSError(f"connecting to {address} failed after {done} connections")
            under_way[sock.fileno()] = sock
            poller.register(sock, select.EPOLLOUT | select.EPOLLONESHOT)

        used, started = child.ask("processor_time"), time.perf_counter()
        until = started + seconds
        for _ in range(AT_ONCE):
            begin()
        while under_way:
            ready = poller.poll(PATIENCE)
            if not ready:
                raise TimeoutError(f"nothing came back for {PATIENCE} s")
            for number, happened in ready:
                sock = under_way[number]
                if happened & select.EPOLLOUT:
                    sock.send(frame)
                    poller.modify(number, select.EPOLLIN)
                    continue
                if (data := sock.recv(4096)) != frame:
                    raise RuntimeError(f"{data.hex()} came back for {frame.hex()}")
                del under_way[number]
                sock.close()
                done += 1
                if time.perf_counter() < until:
                    begin()
        elapsed = time.perf_counter() - started
        used = child.ask("processor_time") - used
    return Measured(done / elapsed, used / done * 1e6, min(1.0, used / elapsed))


def main() -> None:
    parser = arguments(__doc__, rounds=13)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one measurement (%(default)s)")
    parser.add_argument("--only", action="append", choices=TRANSPORTS, help="only this transport; may be repeated")
    options = parser.parse_args()
    transports = [transport for transport in installed() if transport in (options.only or TRANSPORTS)]
    cases: dict[str, Callable[[], Measured]] = {}
    with ExitStack() as stack:
        for transport in transports:
            for server in SERVERS:
                child = stack.enter_context(Child(run, transport, server, None))
                cases[f"{transport} {server}"] = partial(measure, child, child.ask("start"), options.seconds)
        pin(1)  # not before: a child would begin on the same CPU, and stay there
        results = interleave(cases, options.rounds)
    rows = []
    for transport in transports:
        raw = results[f"{transport} raw"]
        for server in SERVERS:
            values = results[f"{transport} {server}"]
            cost = median(one.cost for one in values)
            ratio = median(one.cost for one in raw) / cost
            goal = GOALS.get(transport) if server == "handler" else None
            rows.append(
                (
                    f"{transport} {server}",
                    f"{median(one.rate for one in values):,.0f}",
                    f"{cost:.1f}",
                    "" if values is raw else verdict(ratio, goal),
                    f"{median(one.busy for one in values):.0%}",
                )
            )
    show(
        f"connections opened, used for one packet and closed, {AT_ONCE} at a time: how many a second; the server's "
        "microseconds for each, and which part of them raw takes",
        ("server", "1/s", "µs", "raw/µs, goal", "busy"),
        rows,
    )
    figures: Results = {name: [one.rate for one in values] for name, values in results.items()}
    figures |= {f"{name}, server's cost": [one.cost for one in values] for name, values in results.items()}
    save(options.json, "churn", "connections per second; server's cost: microseconds per connection", figures)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
