"""Three brokers that are one, the directory kept on all: each in turn is killed while it leads, then two at once.

    python -m tests.cluster_of_brokers

A device goes to the other worker after each. Printed is how long it is until a command reaches it, and until its
new claim is known; what takes longer than `PATIENCE` ends this with an error. Takes a minute: the suite leaves it out.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack

import nats

from packetcore import Handler, Packet, Session
from packetcore_asyncio import connect, serve
from packetcore_cluster import BrokerAway, Cluster, IdentityNotConnected
from packetcore_cluster.local import nats_server

COUNT = 3
IDENTITY = "meter 7"
LEASE = 4.0
PATIENCE = 60.0
STREAM = "KV_packetcore-brokers"


class Gateway(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())


class Device(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(Packet(packet.id, b"ok"))


class Brokers:
    """The processes, on loopback and ports that were free."""

    def __init__(self, store: str) -> None:
        self._store = store
        with ExitStack() as taken:
            sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2 * COUNT)]
            ports = [sock.getsockname()[1] for sock in sockets]
        self._clients, self._routes = ports[:COUNT], ports[COUNT:]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for index in range(COUNT):
            self.start(index)

    @property
    def urls(self) -> list[str]:
        return [f"nats://127.0.0.1:{port}" for port in self._clients]

    def start(self, index: int) -> None:
        listens = ["-a", "127.0.0.1", "-p", str(self._clients[index]), "-n", str(index)]
        stores = ["-js", "-sd", f"{self._store}/{index}", "-l", f"{self._store}/{index}.log"]
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        joins = ["--cluster_name", "brokers", "--cluster", f"nats://127.0.0.1:{self._routes[index]}"]
        self._processes[index] = subprocess.Popen([nats_server(), *listens, *stores, *joins, "--routes", routes])

    def kill(self, index: int) -> None:
        process = self._processes.pop(index)
        process.kill()
        process.wait(PATIENCE)

    def close(self) -> None:
        for index in [*self._processes]:
            self.kill(index)

    async def leader(self) -> int:
        """Which of them leads the directory."""
        client = await nats.connect(self.urls)
        try:
            info = await client.jetstream().stream_info(STREAM)
        finally:
            await client.close()
        assert info.config.num_replicas == COUNT
        assert info.cluster is not None
        assert info.cluster.leader is not None
        return int(info.cluster.leader)


async def join(urls: list[str], worker: str) -> Cluster:
    """A worker that is in the cluster: brokers that have just begun have to find each other first."""
    deadline = time.monotonic() + PATIENCE
    while True:
        cluster = Cluster(urls, "brokers", worker=worker, replicas=COUNT, lease=LEASE)
        try:
            return await cluster.__aenter__()
        except BrokerAway:
            if time.monotonic() > deadline:
                raise


async def commanded(cluster: Cluster) -> float:
    """Seconds until a command has its reply."""
    since = time.monotonic()
    while True:
        try:
            await cluster.request(IDENTITY, Packet(7, b"status?"), timeout=1.0)
            return time.monotonic() - since
        except (BrokerAway, IdentityNotConnected, TimeoutError):  # its worker has just lost the broker, too
            if time.monotonic() > since + PATIENCE:
                raise
        await asyncio.sleep(0.01)


async def known(cluster: Cluster, worker: str) -> float:
    """Seconds until it is known at which worker the device is."""
    since = time.monotonic()
    while (place := cluster.find(IDENTITY)) is None or place.worker != worker:
        assert time.monotonic() < since + PATIENCE, f"the device is at {place}, and not at {worker}"
        await asyncio.sleep(0.01)
    return time.monotonic() - since


async def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as store:
        brokers = Brokers(store)
        try:
            async with AsyncExitStack() as opened:
                await run(brokers, opened)
        finally:
            brokers.close()


async def run(brokers: Brokers, opened: AsyncExitStack) -> None:
    clusters = [opened.push_async_exit(await join(brokers.urls, name)) for name in ("one", "two")]
    servers = []
    for cluster in clusters:
        servers.append(await opened.enter_async_context(await serve(Gateway(), sessions=cluster.sessions)))

    async def move(to: int, what: str) -> None:
        device = await connect("127.0.0.1", servers[to].address[1], Device())
        device.send(Packet(1, IDENTITY.encode()))
        claimed = await known(clusters[1 - to], clusters[to].worker)
        print(f"{what}: a new claim is known after {claimed:.1f} s, ", end="")
        print(f"a command has its reply after {await commanded(clusters[1 - to]):.1f} s", flush=True)

    await move(0, "all three run")
    for _ in range(COUNT):
        leader = await brokers.leader()
        brokers.kill(leader)
        print(f"broker {leader} led, is killed: a command has its reply after {await commanded(clusters[1]):.1f} s;")
        await move(1, "  the device goes to worker two")
        await move(0, "  and back")
        brokers.start(leader)
    brokers.kill(0)
    brokers.kill(1)
    print("two of three are killed: a command to one that is here: ", end="")
    print(f"reply after {await commanded(clusters[0]):.1f} s", flush=True)
    brokers.start(0)
    brokers.start(1)
    await move(1, "they run again, and the device goes to worker two")


if __name__ == "__main__":
    asyncio.run(main())
