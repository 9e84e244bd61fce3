"""How long the simulation takes over a thousand devices and a million virtual seconds (eleven and a half days).

    python benchmarks/simulation.py [--devices 1000] [--seconds 1000000]

The load: each device has a client that comes back, and a host of its own. It reports once an hour, by 40 bytes, and
the gateway says that it has them. Twice a day the gateway asks each device something and has its reply within 5 s.
Once in three days or so each has an outage: half of them are resets, half a connection that is forgotten on the way,
which only `idle_timeout` tells. The invariants that hold for every simulation are seen to, and nothing may be left
at the end.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from packetcore import Backoff, Config, Handler, Packet, Session
from packetcore_conformance.simulation import Simulation, connect, serve, sleep

HOUR = 3600.0
CONFIG = Config(idle_timeout=2.5 * HOUR, max_sessions_per_host=None)
HELLO, REPORT, RECEIPT, ASK = range(4)


class Gateway(Handler):
    """Says that it has each report."""

    def __init__(self) -> None:
        self.reports = self.replies = 0

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == HELLO:
            session.bind(packet.payload)
        else:
            self.reports += 1
            session.send(Packet(packet.id, type=RECEIPT))

    def answered(self, reply: Any) -> None:
        """A device has answered, or not."""
        self.replies += isinstance(reply, Packet)


class Device(Handler):
    """Says who it is, and answers."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def connected(self, session: Session) -> None:
        session.send(Packet(1, self.name, type=HELLO))

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == ASK:
            session.send(packet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=1_000_000.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began, processor = time.perf_counter(), time.process_time()
    with Simulation(given.seed) as simulation:
        gateway, devices = simulation.host("gateway"), range(given.devices)
        handler, servers, clients = Gateway(), [], {}
        sent = outages = 0
        random = simulation.random.random

        async def run_gateway() -> None:
            servers.append(await serve(handler, "0.0.0.0", 5000, config=CONFIG))

        async def run_device(number: int, first: float) -> None:
            nonlocal sent
            device = Device(b"device %d" % number)
            options: Any = {"reconnect": Backoff(), "keep": 10, "config": CONFIG}
            clients[number] = client = await connect("gateway", 5000, device, **options)
            await sleep(first)
            while not client.is_closed:
                sent += 1
                client.send(Packet(2, bytes(40), type=REPORT))
                await sleep(HOUR)

        def ask(number: int) -> None:
            session = servers[0].sessions.find(b"device %d" % number)
            if session is not None:
                session.request(Packet(3, type=ASK), handler.answered, timeout=5.0)
            simulation.at(simulation.now + 12 * HOUR, partial(gateway.call_soon, partial(ask, number)))

        def fail(number: int) -> None:
            nonlocal outages
            outages += 1
            path = simulation.path("gateway", f"device {number}")
            if random() < 0.5:
                path.reset()
            else:
                path.forget()
            simulation.at(simulation.now + 6 * 24 * HOUR * random(), partial(fail, number))

        gateway.run(run_gateway)
        for number in devices:
            simulation.host(f"device {number}").run(partial(run_device, number, HOUR * random()))
            simulation.at(12 * HOUR * random(), partial(gateway.call_soon, partial(ask, number)))
            simulation.at(6 * 24 * HOUR * random(), partial(fail, number))
        simulation.run(given.seconds)

        async def close() -> None:
            for client in clients.values():
                await client.close()
            await servers[0].close()

        simulation.complete(close(), gateway)
        simulation.run(2 * HOUR)  # the devices' programs see that their clients are closed
        simulation.finish()
        took, processor = time.perf_counter() - began, time.process_time() - processor
        reasons = {reason.name: count for reason, count in simulation.watch.reasons.items()}
        print(f"{given.devices} devices, {given.seconds:,.0f} virtual seconds: {took:.1f} s", end=", ")
        print(f"of processor {processor:.1f} s")
        events = simulation.world.events
        print(f"{events:,} events, {processor / events * 1e6:.1f} µs of processor each")
        print(f"{sent:,} reports sent, {handler.reports:,} received, {handler.replies:,} replies, {outages:,} outages")
        print(f"sessions ended: {reasons}; trace {simulation.digest}")


if __name__ == "__main__":
    main()
