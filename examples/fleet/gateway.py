"""A gateway: devices say who they are, and are then found in the whole cluster.

python -m fleet.gateway nats://127.0.0.1:4222 --name gateway-1 --port 5000
"""

from __future__ import annotations

import argparse

from packetcore import CloseReason, Handler, Packet, Session
from packetcore_asyncio import serve
from packetcore_cluster import Cluster

from .lifetime import run, told_to_end
from .packets import CONFIG, NAME, Kind, group_of

LEASE = 4.0
"""Seconds without a sign of life after which a gateway counts as dead: short, for people who watch. Each process
of the cluster has the same."""


class Gateway(Handler):
    """Binds each session to its device's name. A real one would ask for a proof first, such as a certificate:
    whoever may bind a name gets its packets.

    Args:
        cluster: whose sessions they are.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def packet_received(self, session: Session, packet: Packet) -> None:
        if session.identity is not None:
            return  # heartbeats; replies to commands do not come here
        try:
            if packet.id != Kind.HELLO:
                raise ValueError(f"packet {packet.id} before a hello")
            identity = packet.payload.decode()
            group = group_of(identity)
        except ValueError:
            session.abort(CloseReason.REFUSED)
            return
        session.bind(identity)  # an older session of the device ends with REPLACED, on whichever gateway
        self._cluster.join(session, group)


async def main(url: str, name: str, host: str, port: int) -> None:
    """Serve until told to end."""
    # Here all devices have one address.
    async with Cluster(url, NAME, worker=name, lease=LEASE, max_sessions_per_host=None) as cluster:
        server = await serve(Gateway(cluster), host, port, config=CONFIG, sessions=cluster.sessions)
        try:
            print(server.address[1], flush=True)
            await told_to_end()
        finally:
            await server.close(grace=1.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m fleet.gateway", description="A gateway of the fleet.")
    parser.add_argument("url", help="of the broker")
    parser.add_argument("--name", default="gateway", help="what it is called in the cluster (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one, and prints it")
    options = parser.parse_args()
    run(main(options.url, options.name, options.host, options.port))
