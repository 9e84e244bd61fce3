"""Workers of one cluster over a real broker: what is not about the runtime, on asyncio. What is, the conformance kit
has, for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig

from packetcore import (
    Config,
    Handler,
    LocalProtocolError,
    Packet,
    Session,
)
from packetcore.framings import LengthPrefix
from packetcore_asyncio import Server, Stream, connect, connect_udp, serve, serve_udp
from packetcore_cluster import (
    BrokerAway,
    BrokerLost,
    Cluster,
    ClusterEvent,
    Frames,
    NotDelivered,
    SlowConsumer,
    WorkerLeft,
    _delivery,
)
from packetcore_cluster.local import LocalBroker
from tests.cluster_broker import start_broker, until

LEASE = 2.0


class Gateway(Handler):
    """Binds devices to what they say they are."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())


class Worker:
    """A cluster and a server of it, as a process of its own would have."""

    def __init__(self, cluster: Cluster, events: list[ClusterEvent], server: Server) -> None:
        self.cluster, self.events, self.server = cluster, events, server
        self.devices: list[Stream] = []

    async def device(self, identity: str) -> Stream:
        stream = await connect(*self.server.address)
        self.devices.append(stream)
        await stream.send(Packet(1, identity.encode()))
        return stream


@asynccontextmanager
async def worker(broker: LocalBroker, name: str, config: Config | None = None) -> AsyncIterator[Worker]:
    events: list[ClusterEvent] = []
    async with (
        Cluster(broker.url, "test", worker=name, lease=LEASE, on_event=events.append) as cluster,
        await serve(Gateway(), config=config, sessions=cluster.sessions) as server,
    ):
        made = Worker(cluster, events, server)
        try:
            yield made
        finally:
            for device in made.devices:
                device.session.abort()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 50))


async def knows(cluster: Cluster, identity: str, holder: Cluster) -> None:
    def found() -> bool:
        place = cluster.find(identity)
        return place is not None and place.worker == holder.worker

    await until(found, f"{cluster.worker} knows that {identity} is at {holder.worker}")


async def of_two(test: Any, config: Config | None = None) -> None:
    with start_broker() as broker:
        async with worker(broker, "one", config) as one, worker(broker, "two", config) as two:
            await test(one, two)


def test_requests_that_a_device_leaves_unanswered_are_bounded() -> None:
    async def test(one: Worker, two: Worker) -> None:
        await one.device("meter 7")
        await knows(two.cluster, "meter 7", one.cluster)
        asked = [
            asyncio.ensure_future(two.cluster.request("meter 7", Packet(number), timeout=0.5)) for number in range(150)
        ]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(error, SlowConsumer) for error in done) == 50
        assert sum(isinstance(error, TimeoutError) for error in done) == 100

    run(of_two(test))


def test_a_request_that_is_lost_with_the_connection_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(one: Worker, two: Worker) -> None:
        device = await one.device("meter 7")
        await knows(two.cluster, "meter 7", one.cluster)
        asked = asyncio.ensure_future(two.cluster.request("meter 7", Packet(1)))
        assert await device.recv() == Packet(1)
        await two.cluster._node._broker._give_up()
        with pytest.raises(BrokerAway, match="lost while waiting"):
            await asked
        await two.cluster.settled(30.0)
        asked = asyncio.ensure_future(two.cluster.request("meter 7", Packet(2)))
        await device.send(await device.recv())
        assert await asked == Packet(2)

    monkeypatch.setattr(_delivery, "MAX_UNANSWERED", 1)
    run(of_two(test))


def test_a_packet_that_cannot_be_sent_there_is_an_error_here() -> None:
    async def test(one: Worker, two: Worker) -> None:
        await one.device("meter 7")
        await knows(two.cluster, "meter 7", one.cluster)
        with pytest.raises(NotDelivered, match="payload of 1000 bytes exceeds max_payload=100"):
            await two.cluster.send("meter 7", Packet(1, bytes(1000)))
        with pytest.raises(LocalProtocolError, match="max_payload=1048576"):
            await two.cluster.send("meter 7", Packet(1, bytes(1 << 20)))
        with pytest.raises(TypeError):
            await two.cluster.send(("meter", 7), Packet(1))

    run(of_two(test, Config(max_payload=100)))


def test_packets_of_another_framing_travel_by_its_codec() -> None:
    class Names(Handler[bytes]):
        def packet_received(self, session: Session[bytes], packet: bytes) -> None:
            session.bind(packet.decode())

    async def test() -> None:
        with start_broker() as broker:

            def cluster() -> Cluster[bytes]:
                return Cluster(
                    broker.url, "frames", codec=Frames(), is_reply=lambda asked, reply: reply[:1] == asked[:1]
                )

            async with cluster() as one, cluster() as two:
                framing = LengthPrefix(2)
                server = await serve(Names(), framing=framing, sessions=one.sessions)
                device = await connect(*server.address, framing=framing)
                await device.send(b"meter 7")
                await until(lambda: two.find("meter 7"), "the other knows")
                asked = asyncio.ensure_future(two.request("meter 7", b"1 status?", timeout=5.0))
                assert await device.recv() == b"1 status?"
                await device.send(b"1 fine")
                assert await asked == b"1 fine"
                await device.close()
                await server.close()

    run(test())


def test_udp_peers_are_found_as_well() -> None:
    async def test() -> None:
        with start_broker() as broker:
            async with (
                Cluster(broker.url, "udp") as one,
                Cluster(broker.url, "udp") as two,
                await serve_udp(Gateway(), sessions=one.sessions) as server,
            ):
                device = await connect_udp(*server.address)
                await device.send(Packet(1, b"meter 7"))
                await knows(two, "meter 7", one)
                await two.send("meter 7", Packet(2, b"reset"))
                assert await device.recv() == Packet(2, b"reset")
                await device.close()

    run(test())


def test_the_directory_is_a_bucket_that_tools_can_read_and_a_worker_that_leaves_says_so() -> None:
    async def test() -> None:
        with start_broker() as broker:
            async with worker(broker, "one") as one:
                async with worker(broker, "two") as two:
                    await two.device("meter 7")
                    await knows(one.cluster, "meter 7", two.cluster)
                    client = await nats.connect(broker.url)
                    bucket = await client.jetstream().key_value("packetcore-test")
                    entry = await bucket.get("s.meter=207")
                    assert entry.value is not None
                    assert two.cluster.worker.encode() in entry.value
                    assert sorted(await bucket.keys()) == sorted(
                        ["s.meter=207", f"w.{one.cluster.worker}", f"w.{two.cluster.worker}"]
                    )
                await until(lambda: WorkerLeft(two.cluster.worker) in one.events, "it has said goodbye")
                assert await bucket.keys() == [f"w.{one.cluster.worker}"]
                assert one.cluster.find("meter 7") is None
                await client.close()

    run(test())


def test_a_cluster_is_entered_once_and_before_sessions_bind() -> None:
    async def test() -> None:
        with start_broker() as broker:
            cluster = Cluster(broker.url, "test")
            session: Any = SimpleNamespace(id=1)
            id = cluster.sessions.add(session, 0.0)
            with pytest.raises(LocalProtocolError, match="'test' was not entered yet"):
                cluster.sessions.bind(id, "meter 7")
            assert cluster.sessions.find("meter 7") is None
            async with cluster:
                with pytest.raises(LocalProtocolError, match="on the loop of another thread"):
                    await asyncio.to_thread(cluster.sessions.bind, id, "meter 7")
                cluster.sessions.bind(id, "meter 7")
                await cluster.settled(5.0)
                place = cluster.find("meter 7")
                assert place is not None
                assert place.session == id
            assert not cluster.is_connected
            with pytest.raises(LocalProtocolError, match="make another Cluster"):
                await cluster.__aenter__()
            with pytest.raises(ValueError, match=r"name='a\.b' must be"):
                Cluster(broker.url, "a.b")
            with pytest.raises(ValueError, match="lease=0 must be above 0"):
                Cluster(broker.url, "test", lease=0)
            with pytest.raises(ValueError, match="names no broker"):
                Cluster([], "test")

    run(test())


def test_a_bucket_that_was_there_before_will_do() -> None:
    async def test() -> None:
        with start_broker() as broker:
            client = await nats.connect(broker.url)
            config = StreamConfig(name="KV_packetcore-test", subjects=["$KV.packetcore-test.>"], max_msgs_per_subject=1)
            await client.jetstream().add_stream(config)
            async with worker(broker, "one") as one:
                device = await one.device("meter 7")
                await until(lambda: one.cluster.stats.claims == 1, "it is bound")
                await one.cluster.settled(5.0)
                await device.close()
                await until(lambda: one.cluster.stats.claims == 0, "it has left")
                await one.cluster.settled(0.9)  # at once, and not after a try that was refused
                assert one.cluster.stats.identities == 0
            await client.close()

    run(test())


def test_why_a_broker_keeps_no_directory_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        with start_broker() as broker:
            entering = asyncio.ensure_future(Cluster(broker.url, "test", replicas=3, connect_timeout=50).start())
            told = "the broker does not tell the directory packetcore-test: replicas > 1 not supported in non-clustered"
            await until(lambda: told in caplog.text, "it says so")
            entering.cancel()
            await asyncio.wait([entering])

    run(test())


def test_a_broker_from_which_nothing_comes_is_given_up_until_it_is_back() -> None:
    async def test() -> None:
        with start_broker() as broker:
            async with worker(broker, "one") as one, worker(broker, "two") as two:
                device = await one.device("meter 7")
                await knows(two.cluster, "meter 7", one.cluster)
                broker.pause()
                await until(lambda: BrokerLost() in one.events and BrokerLost() in two.events, "both notice", 2 * LEASE)
                await one.cluster.send("meter 7", Packet(1))
                assert await device.recv() == Packet(1)
                broker.resume()
                await until(lambda: one.cluster.is_connected and two.cluster.is_connected, "both are back")
                await asyncio.gather(one.cluster.settled(10.0), two.cluster.settled(10.0))
                await two.cluster.send("meter 7", Packet(2))
                assert await device.recv() == Packet(2)

    run(test())


def test_a_local_broker_runs_once() -> None:
    with start_broker() as broker, pytest.raises(RuntimeError, match=f"runs already, as process {broker.pid}"):
        broker.start()
