"""Workers of one cluster over a real broker: what an application is promised."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.js.api import StreamConfig

from packetcore import (
    CloseReason,
    Config,
    Handler,
    IdentityTaken,
    LocalProtocolError,
    NotConnected,
    Packet,
    Session,
    SessionClosed,
)
from packetcore.framings import LengthPrefix
from packetcore_asyncio import Server, Stream, connect, connect_udp, serve, serve_udp
from packetcore_cluster import (
    BrokerAway,
    BrokerLost,
    BrokerReached,
    Cluster,
    ClusterEvent,
    Frames,
    IdentityNotConnected,
    IdentityTakenElsewhere,
    NotDelivered,
    Refused,
    Replaced,
    SlowConsumer,
    WorkerLeft,
)
from packetcore_cluster.local import LocalBroker
from tests.cluster_broker import start_broker, until

LEASE = 2.0
BIND, BIND_OR_GO, JOIN = 1, 2, 3
"""Types of packets by which a device says who it is."""


class Gateway(Handler):
    """Binds devices to what they say they are."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ended: list[tuple[object, CloseReason]] = []
        self.errors: list[Exception] = []

    def packet_received(self, session: Session, packet: Packet) -> None:
        text = packet.payload.decode()
        try:
            if packet.type == JOIN:
                self.cluster.join(session, text)
            else:
                session.bind(text, takeover="replace" if packet.type == BIND else "reject")
        except IdentityTaken as error:
            self.errors.append(error)
            session.close()

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.ended.append((session.identity, reason))


class Worker:
    """A cluster and a server of it, as a process of its own would have."""

    def __init__(self, cluster: Cluster, events: list[ClusterEvent], gateway: Gateway, server: Server) -> None:
        self.cluster, self.events, self.gateway, self.server = cluster, events, gateway, server
        self.devices: list[Stream] = []

    async def device(self, identity: str, type: int = BIND) -> Stream:
        stream = await connect(*self.server.address)
        self.devices.append(stream)
        await stream.send(Packet(1, identity.encode(), type=type))
        return stream


@asynccontextmanager
async def worker(broker: LocalBroker, name: str, config: Config | None = None) -> AsyncIterator[Worker]:
    events: list[ClusterEvent] = []
    async with Cluster(broker.url, "test", worker=name, lease=LEASE, on_event=events.append) as cluster:
        gateway = Gateway(cluster)
        async with await serve(gateway, config=config, sessions=cluster.sessions) as server:
            made = Worker(cluster, events, gateway, server)
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


async def ended(device: Stream) -> None:
    """Wait until the worker has ended a device's session."""
    async for _ in device:
        pass
    await device.close()


async def of_two(test: Any, config: Config | None = None) -> None:
    with start_broker() as broker:
        async with worker(broker, "one", config) as one, worker(broker, "two", config) as two:
            await test(one, two)


def test_a_device_that_comes_back_on_another_worker_takes_over_there() -> None:
    async def test(one: Worker, two: Worker) -> None:
        old = await one.device("meter 7")
        await knows(two.cluster, "meter 7", one.cluster)
        new = await two.device("meter 7")
        await ended(old)
        await knows(one.cluster, "meter 7", two.cluster)
        await until(lambda: one.gateway.ended == [("meter 7", CloseReason.REPLACED)], "the handler has heard of it")
        assert one.cluster.sessions.find("meter 7") is None
        assert one.events[-1] == Replaced("meter 7", 1, two.cluster.worker)
        assert [place.worker async for place in one.cluster.where()] == [two.cluster.worker]
        await one.cluster.send("meter 7", Packet(7, b"reset"))
        assert await new.recv() == Packet(7, b"reset")

    run(of_two(test))


def test_packets_reach_a_session_wherever_it_is_and_replies_come_back() -> None:
    async def test(one: Worker, two: Worker) -> None:
        device = await one.device("meter 7")
        await knows(two.cluster, "meter 7", one.cluster)
        for cluster in (one.cluster, two.cluster):
            asked = asyncio.ensure_future(cluster.request("meter 7", Packet(7, b"status?"), timeout=5.0))
            assert await device.recv() == Packet(7, b"status?")
            await device.send(Packet(7, b"\xfe fine"))
            assert await asked == Packet(7, b"\xfe fine")
        with pytest.raises(TimeoutError):
            await two.cluster.request("meter 7", Packet(8, b"?"), timeout=0.1)
        assert await device.recv() == Packet(8, b"?")
        waiting = asyncio.ensure_future(two.cluster.request("meter 7", Packet(9, b"?"), timeout=20.0))
        await device.recv()
        await device.close()
        with pytest.raises(SessionClosed, match="PEER"):
            await waiting
        assert two.cluster.stats.sent == 1  # what came to a reply
        assert one.cluster.stats.received == 3

    run(of_two(test))


def test_nobody_there_is_said_at_once_and_places_are_listed() -> None:
    async def test(one: Worker, two: Worker) -> None:
        begun = time.monotonic()
        with pytest.raises(IdentityNotConnected, match="'meter 8'"):
            await one.cluster.send("meter 8", Packet(1))
        with pytest.raises(NotConnected):
            await one.cluster.request("meter 8", Packet(1), timeout=20.0)
        assert time.monotonic() - begun < 1.0
        assert one.cluster.stats.not_connected == 2
        devices = [await each.device(f"meter {number}") for number, each in enumerate((one, two))]
        for each in (one, two):
            await knows(each.cluster, "meter 0", one.cluster)
            await knows(each.cluster, "meter 1", two.cluster)
            found = {(place.identity, place.worker) async for place in each.cluster.where()}
            assert found == {("meter 0", one.cluster.worker), ("meter 1", two.cluster.worker)}
        place = one.cluster.find("meter 1")
        assert place is not None
        assert abs(place.since.timestamp() - time.time()) < 10
        await devices[1].close()
        await until(lambda: one.cluster.find("meter 1") is None, "a device that has left is not listed")

    run(of_two(test))


def test_reject_holds_across_workers() -> None:
    async def test(one: Worker, two: Worker) -> None:
        device = await one.device("meter 7", BIND_OR_GO)
        await knows(two.cluster, "meter 7", one.cluster)
        other = await two.device("meter 7", BIND_OR_GO)
        await ended(other)
        (error,) = two.gateway.errors
        assert isinstance(error, IdentityTakenElsewhere)
        assert str(error) == f"identity 'meter 7' is held by session 1 of worker {one.cluster.worker}"
        await two.cluster.send("meter 7", Packet(1))
        assert await device.recv() == Packet(1)

    run(of_two(test))


@pytest.mark.parametrize("type", [BIND, BIND_OR_GO])
def test_of_two_claims_at_the_same_instant_exactly_one_is_left(type: int) -> None:
    async def test(one: Worker, two: Worker) -> None:
        names = [f"meter {number}" for number in range(20)]
        await asyncio.gather(*(each.device(name, type) for name in names for each in (one, two)))
        await until(lambda: len(one.gateway.ended) + len(two.gateway.ended) >= len(names), "one of each has ended")
        await asyncio.gather(one.cluster.settled(5), two.cluster.settled(5))
        reason = CloseReason.REPLACED if type == BIND else CloseReason.REFUSED
        for name in names:
            held = [each for each in (one, two) if each.cluster.sessions.find(name) is not None]
            assert len(held) == 1
            await knows(one.cluster, name, held[0].cluster)
            await knows(two.cluster, name, held[0].cluster)
        known_in_time = {str(error.args[0]) for each in (one, two) for error in each.gateway.errors}
        ended = [pair for each in (one, two) for pair in each.gateway.ended if pair[0] is not None]
        assert sorted(ended, key=str) == sorted(((name, reason) for name in {*names} - known_in_time), key=str)
        if type == BIND_OR_GO:
            kinds = {event.__class__ for each in (one, two) for event in each.events}
            assert Refused in kinds or known_in_time

    run(of_two(test, Config(close_timeout=0.2)))


def test_a_broadcast_reaches_a_group_on_every_worker_and_nobody_else() -> None:
    async def test(one: Worker, two: Worker) -> None:
        first, second, third = await one.device("a"), await two.device("b"), await two.device("c")
        for device in (first, second):
            await device.send(Packet(2, b"meters", type=JOIN))
        for each in (one, two):
            await until(lambda each=each: each.cluster._groups.members("meters"), "they have joined")  # type: ignore[misc]
        await until(lambda: two.cluster.sessions.find("c"), "all are bound")
        broadcasts = 0
        while broadcasts < 200:  # the subscription may still be on its way
            broadcasts += 1
            await one.cluster.broadcast(Packet(3, b"time"), group="meters")
            try:
                assert await asyncio.wait_for(second.recv(), 0.05) == Packet(3, b"time")
                break
            except asyncio.TimeoutError:
                pass
        for _ in range(broadcasts):  # each once, though the worker hears its own
            assert await first.recv() == Packet(3, b"time")
        await one.cluster.broadcast(Packet(4, b"all"))
        for device in (first, second, third):
            assert await device.recv() == Packet(4, b"all")
        session = one.cluster.sessions.find("a")
        assert session is not None
        one.cluster.leave(session, "meters")
        await one.cluster.broadcast(Packet(5), group="meters")
        assert await second.recv() == Packet(5)
        await one.cluster.send("a", Packet(6))
        assert await first.recv() == Packet(6)
        with pytest.raises(LocalProtocolError, match="not in the register"):
            two.cluster.join(session, "meters")

    run(of_two(test))


def test_a_device_that_does_not_read_is_refused_more_and_its_session_goes_on() -> None:
    async def test(one: Worker, two: Worker) -> None:
        device = await one.device("meter 7")
        await knows(two.cluster, "meter 7", one.cluster)
        session = one.cluster.sessions.find("meter 7")
        assert session is not None
        device.session.pause()  # it reads no more
        packet = Packet(1, bytes(16_000))
        sent = 0

        async def send_until_refused() -> None:
            nonlocal sent
            while True:
                await two.cluster.send("meter 7", packet)
                sent += 1

        with pytest.raises(SlowConsumer, match="does not read"):
            await send_until_refused()
        with pytest.raises(SlowConsumer):
            await one.cluster.send("meter 7", packet)
        assert session.is_open
        assert session.outstanding < 4 * one.server.endpoint.config.write_high_water
        assert one.cluster.stats.slow >= 2
        device.session.resume()
        for _ in range(sent):
            assert await device.recv() == packet
        await until(lambda: not session.write_paused, "it keeps up again")
        await two.cluster.send("meter 7", packet)
        assert await device.recv() == packet

    run(of_two(test))


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
                await serve_udp(Gateway(one), sessions=one.sessions) as server,
            ):
                device = await connect_udp(*server.address)
                await device.send(Packet(1, b"meter 7", type=BIND))
                await knows(two, "meter 7", one)
                await two.send("meter 7", Packet(2, b"reset"))
                assert await device.recv() == Packet(2, b"reset")
                await device.close()

    run(test())


def test_while_the_broker_is_away_what_is_here_goes_on_and_claims_are_made_when_it_is_back() -> None:
    async def test() -> None:
        with start_broker() as broker:
            async with worker(broker, "one") as one, worker(broker, "two") as two:
                first, second = await one.device("meter 1"), await two.device("meter 2")
                await knows(one.cluster, "meter 2", two.cluster)
                await knows(two.cluster, "meter 1", one.cluster)
                waiting = asyncio.ensure_future(one.cluster.request("meter 2", Packet(1), timeout=30.0))
                await second.recv()
                broker.kill()
                with pytest.raises(BrokerAway, match=r"nats://127\.0\.0\.1:\d+ cannot be reached"):
                    await waiting
                await until(lambda: BrokerLost() in two.events, "both have noticed")
                await one.cluster.send("meter 1", Packet(2))
                assert await first.recv() == Packet(2)
                with pytest.raises(BrokerAway):
                    await one.cluster.send("meter 2", Packet(2))
                with pytest.raises(BrokerAway):
                    await one.cluster.broadcast(Packet(3))
                assert await first.recv() == Packet(3)
                third = await one.device("meter 3")
                moved = await one.device("meter 2")  # which was with the other
                await until(lambda: one.cluster.sessions.find("meter 2"), "bound here")
                assert one.cluster.stats.pending == 2
                broker.start()
                await ended(second)
                await until(lambda: two.gateway.ended == [("meter 2", CloseReason.REPLACED)], "its handler has heard")
                for identity in ("meter 1", "meter 2", "meter 3"):
                    await knows(two.cluster, identity, one.cluster)
                await two.cluster.send("meter 3", Packet(4))
                assert await third.recv() == Packet(4)
                await two.cluster.send("meter 2", Packet(4))
                assert await moved.recv() == Packet(4)
                assert one.cluster.stats.outages == 1
                assert [event for event in one.events if isinstance(event, BrokerReached)][1:] == [
                    BrokerReached(identities=2, workers=1, repeated=0)
                ]

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
            session: Any = object()
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


def test_a_broker_that_is_not_there_is_said_with_its_url() -> None:
    async def test() -> None:
        with start_broker() as broker:
            broker.kill()
            with pytest.raises(BrokerAway, match=broker.url):
                async with Cluster(broker.url, "test", connect_timeout=0.3):
                    raise AssertionError("nobody is there")
            broker.start()

    run(test())
