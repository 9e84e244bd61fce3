"""TCP echo side by side: packetcore, what one writes without it, and bare bytes as the limit.

Each server runs in a process of its own, on another CPU than the raw client that drives
all of them: 50 connections with 32 packets of 64 bytes in flight on each, then with one. With
--tls, packetcore's handler and the runtime's own raw echo over TLS instead: 32 packets in flight on
each of 50 connections, then on a single one.

Where the client is the slower of the two, all servers look alike. So the tables tell what a
packet cost a server in processor time too, the kernel's part included, and how busy it was.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import trustme
from _common import Results, arguments, interleave, pin, save, show, verdict
from _echo_client import PAYLOAD, Measured, measure
from _echo_servers import SERVERS, SERVERS_TLS, installed, run
from _processes import TRANSPORTS, Child

MANY, ONE = 32, 1
"""Packets in flight on each connection."""
CONNECTIONS = 50
LOADS = ((MANY, CONNECTIONS), (ONE, CONNECTIONS))
LOADS_TLS = ((MANY, CONNECTIONS), (MANY, 1))
"""Packets in flight on each connection, and connections."""
SATURATED = 0.9
"""The part of the time for which a server must run for its rate to say how fast it is."""

RAW_BARS = {
    MANY: {"uvloop": 0.40, "gevent": 0.50, "twisted": 0.45, "blocking": 0.40},
    ONE: dict.fromkeys(TRANSPORTS, 0.85),
}
"""What a handler's rate must be at least, as a part of the same transport's raw echo."""
RAW_BAR_TLS = 0.8
"""The same over TLS, on every transport."""

PEER_BARS = {
    ("uvloop handler 32", "uvloop readuntil 32"): 10.0,
    ("uvloop handler 32", "asyncio readuntil 32"): 10.0,
    ("asyncio handler 32", "asyncio readuntil 32"): None,
    ("uvloop handler 32", "twisted Int32StringReceiver 32"): 3.0,
    ("twisted handler 32", "twisted Int32StringReceiver 32"): 1.8,
    ("gevent handler 32", "gevent by hand 32"): None,
    ("gevent handler 32", "gevent raw greenlet 32"): None,
    ("blocking stream 32", "blocking raw thread 32"): None,
    ("uvloop handler TLS 32", "asyncio handler TLS 32"): 1.0,
    ("uvloop handler TLS 32, 1 connection", "asyncio handler TLS 32, 1 connection"): 1.0,
    **{
        (f"{transport} stream {depth}", f"{transport} handler {depth}"): 0.5
        for depth in (MANY, ONE)
        for transport in TRANSPORTS
    },
}
"""How many times as fast the first of two is to be at least."""


class Key(NamedTuple):
    """One case."""

    transport: str
    server: str
    depth: int
    """Packets in flight on each connection."""
    connections: int

    def __str__(self) -> str:
        """As the JSON file has it."""
        name = f"{self.transport} {self.server} {self.depth}"
        return name if self.connections == CONNECTIONS else f"{name}, {self.connections} connection"


def thousands(rate: float) -> str:
    """Of packets a second, to three places or more."""
    return f"{rate / 1000:,.{0 if rate >= 100_000 else 1}f}"


def show_load(depth: int, connections: int, measured: Mapping[Key, Sequence[Measured]], *, tls: bool) -> None:
    """A table of all servers under one of the loads."""
    rows = []
    for key, values in measured.items():
        if (key.depth, key.connections) != (depth, connections):
            continue
        raw = measured[key._replace(server="raw TLS" if tls else "raw")]
        rate, cost = median(one.rate for one in values), median(one.cost for one in values)
        of_raw = rate / median(one.rate for one in raw)
        bar = None
        if key.server.startswith("handler"):
            bar = RAW_BAR_TLS if tls else RAW_BARS[depth].get(key.transport)
        rows.append(
            (
                f"{key.transport} {key.server}",
                f"{thousands(rate)} ({thousands(max(one.rate for one in values))})",
                "" if values is raw else verdict(of_raw, bar),
                f"{cost:.2f}",
                "" if values is raw else f"{median(one.cost for one in raw) / cost:.2f}",
                f"{median(one.busy for one in values):.0%}",
            )
        )
    show(
        f"echo over {'TLS' if tls else 'TCP'}, {connections} connection{'s' * (connections > 1)}, {depth} "
        f"packet{'s' * (depth > 1)} of {PAYLOAD} bytes in flight on each: thousands of packets a second, median "
        "(best), and which part of raw's; the server's microseconds for one, and which part of them raw takes",
        ("server", "1000/s (best)", "of raw, goal", "µs", "raw/µs", "busy"),
        rows,
    )


def show_peers(rates: Results) -> None:
    """A table of what is compared with something else than raw."""
    rows = []
    for (case, base), bar in PEER_BARS.items():
        if case in rates and base in rates:
            ratio = median(rates[case]) / median(rates[base])
            rows.append((case, base, verdict(ratio, bar)))
    if rows:
        show("how many times as fast", ("server", "as", "median, goal"), rows)


def certify(folder: Path) -> tuple[str, ssl.SSLContext]:
    """A server's PEM file, and what its clients speak TLS with."""
    authority = trustme.CA()
    certificate = folder / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return str(certificate), context


def main() -> None:
    parser = arguments(__doc__, rounds=13)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one measurement (%(default)s)")
    parser.add_argument("--only", action="append", choices=TRANSPORTS, help="only this transport; may be repeated")
    parser.add_argument("--tls", action="store_true", help="over TLS")
    options = parser.parse_args()
    transports = [transport for transport in installed() if transport in (options.only or TRANSPORTS)]
    servers: Mapping[str, Mapping[str, object]] = SERVERS_TLS if options.tls else SERVERS
    loads = LOADS_TLS if options.tls else LOADS
    cases: dict[str, Callable[[], Measured]] = {}
    keys: list[Key] = []
    with ExitStack() as stack:
        certificate, context = None, None
        if options.tls:
            certificate, context = certify(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        children = {
            (transport, server): stack.enter_context(Child(run, transport, server, certificate))
            for transport in transports
            for server in servers[transport]
        }
        ports = {which: child.ask("start") for which, child in children.items()}
        pin(1)
        for depth, connections in loads:
            for (transport, server), child in children.items():
                keys.append(key := Key(transport, server, depth, connections))
                port = ports[transport, server]
                cases[str(key)] = partial(
                    measure, child, port, server, depth, options.seconds, context, connections=connections
                )
        results = interleave(cases, options.rounds)
    measured = {key: results[str(key)] for key in keys}
    rates = {case: [one.rate for one in values] for case, values in results.items()}
    for load in loads:
        show_load(*load, measured, tls=options.tls)
    show_peers(rates)
    if any(median(one.busy for one in values) < SATURATED for values in results.values()):
        print(
            f"A server less busy than {SATURATED:.0%} waited for the client: compare its processor time, not its rate."
        )
    costs = {f"{case}, server's cost": [one.cost for one in values] for case, values in results.items()}
    save(options.json, "echo", "packets per second; server's cost: microseconds per packet", rates | costs)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
