"""Cluster.

Two workers of one register over a real broker, each with its server: who holds an identity, and what reaches it.
"""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest

from packetcore import CloseReason, Config, IdentityTaken, NotConnected, Packet, Session, SessionClosed, encode
from packetcore_conformance.peer import DEADLINE, Peer
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

try:
    from packetcore_cluster import (
        BrokerAway,
        BrokerLost,
        BrokerReached,
        ClusterEvent,
        IdentityNotConnected,
        IdentityTakenElsewhere,
        Refused,
        Replaced,
        SlowConsumer,
        WorkerLeft,
    )
    from packetcore_cluster.local import LocalBroker
except ImportError:
    pytest.skip("these cases are of packetcore-cluster, which is not installed", allow_module_level=True)

LEASE = 2.0
BIND, BIND_OR_GO, JOIN = 1, 2, 3
"""Types of packets by which a device says who it is, or in which group."""


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    try:
        broker = LocalBroker()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with broker:
        yield broker


class Worker:
    """A cluster of the adapter and a server of it, as a process of its own would have."""

    def __init__(self, rig: Rig, url: str, cluster: str, name: str, config: Config | None) -> None:
        self.rig = rig
        self.events: list[ClusterEvent] = []
        self.errors: list[Exception] = []
        self.cluster = rig.cluster(url, cluster, worker=name, lease=LEASE, on_event=self.events.append)
        self.name: str = self.cluster.worker
        self.handler = Recorder(packet_received=self._introduced)
        self.server = rig.serve(self.handler, config, sessions=self.cluster.sessions)

    def _introduced(self, session: Session, packet: Packet) -> None:
        text = packet.payload.decode()
        try:
            if packet.type == JOIN:
                self.cluster.join(session, text)
            elif packet.type:
                session.bind(text, takeover="replace" if packet.type == BIND else "reject")
        except IdentityTaken as error:
            self.errors.append(error)
            session.close()

    def device(self, identity: str, type: int = BIND) -> Peer:
        """A device that says who it is."""
        peer = self.rig.peer(self.server)
        peer.send(encode(Packet(1, identity.encode(), type=type)))
        return peer

    def ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the cluster, and wait for its result."""
        return self.rig.call(partial(getattr(self.cluster, method), *args, **options))

    def begin(self, method: str, *args: Any, **options: Any) -> Callable[[], Any]:
        """Begin to call it; what this gives waits for its result."""
        return self.rig.in_background(partial(getattr(self.cluster, method), *args, **options))

    def where(self) -> set[tuple[object, str]]:
        """Who is online, and on which worker."""

        async def listed(places: Any) -> list[Any]:
            return [place async for place in places]

        def where() -> Any:
            places = self.cluster.where()
            return listed(places) if hasattr(places, "__aiter__") else places

        return {(place.identity, place.worker) for place in self.rig.call(where)}

    def session(self, identity: str) -> Session:
        """Wait until an identity is bound here; give its session."""
        self.rig.until(lambda: self.cluster.sessions.find(identity) is not None, f"{identity} is bound")
        session: Session = self.rig.call(self.cluster.sessions.find, identity)
        return session

    def knows(self, identity: str, holder: Worker) -> None:
        """Wait until it knows who holds an identity."""

        def found() -> bool:
            place = self.cluster.find(identity)
            return place is not None and place.worker == holder.name

        self.rig.until(found, f"{self.name} knows that {identity} is at {holder.name}")


@pytest.fixture
def worker(rig: Rig, transport: str, broker: LocalBroker, request: pytest.FixtureRequest) -> Callable[..., Worker]:
    """Makes workers of a cluster of the case's own."""
    if rig.new_cluster is None:
        pytest.skip(f"no package offers a cluster for {transport}, in the group packetcore.clusters of entry points")
    cluster = f"case-{abs(hash(request.node.nodeid))}"

    def worker(name: str, config: Config | None = None) -> Worker:
        return Worker(rig, broker.url, cluster, name, config)

    return worker


@pytest.fixture
def two(worker: Callable[..., Worker]) -> tuple[Worker, Worker]:
    """Two that know each other."""
    pair = worker("one"), worker("two")
    for each in pair:
        each.rig.until(lambda each=each: each.cluster.stats.workers == 1, "they have met")  # type: ignore[misc]
    return pair


def got(device: Peer, packet: Packet) -> None:
    """The next that a device is sent is this."""
    frame = encode(packet)
    assert device.receive(len(frame)) == frame


def test_a_device_that_comes_back_on_another_worker_takes_over_there(two: tuple[Worker, Worker]) -> None:
    first, second = two
    old = first.device("meter 7")
    second.knows("meter 7", first)
    new = second.device("meter 7")
    assert old.receive_rest() == b""
    old.close()
    assert first.handler.wait_reasons() == [CloseReason.REPLACED]
    first.knows("meter 7", second)
    assert first.cluster.sessions.find("meter 7") is None
    first.rig.until(lambda: first.events[-1] == Replaced("meter 7", 1, second.name), "it was told as well")
    assert first.where() == {("meter 7", second.name)}
    first.ask("send", "meter 7", Packet(7, b"reset"))
    got(new, Packet(7, b"reset"))


def test_packets_reach_a_session_wherever_it_is_and_replies_come_back(two: tuple[Worker, Worker]) -> None:
    first, second = two
    device = first.device("meter 7")
    second.knows("meter 7", first)
    for each in two:
        asked = each.begin("request", "meter 7", Packet(7, b"status?"), timeout=5.0)
        got(device, Packet(7, b"status?"))
        device.send(encode(Packet(7, b"\xfe fine")))
        assert asked() == Packet(7, b"\xfe fine")
        with pytest.raises(TimeoutError):
            each.ask("request", "meter 7", Packet(8, b"?"), timeout=0.05)
        got(device, Packet(8, b"?"))
        device.send(encode(Packet(8, b"late")))  # which is nobody's
    waiting = [each.begin("request", "meter 7", Packet(9 + number), timeout=20.0) for number, each in enumerate(two)]
    device.receive(2 * len(encode(Packet(9))))
    device.close()
    for result in waiting:
        with pytest.raises(SessionClosed, match="PEER"):
            result()
    assert second.cluster.stats.sent == 1  # what came to a reply
    assert first.cluster.stats.received == 3


def test_nobody_there_is_said_at_once_and_places_are_listed(two: tuple[Worker, Worker]) -> None:
    first, second = two
    begun = time.monotonic()
    with pytest.raises(IdentityNotConnected, match="'meter 8'"):
        first.ask("send", "meter 8", Packet(1))
    with pytest.raises(NotConnected):
        first.ask("request", "meter 8", Packet(1), timeout=20.0)
    assert time.monotonic() - begun < DEADLINE / 2
    assert first.cluster.stats.not_connected == 2
    devices = [each.device(f"meter {number}") for number, each in enumerate(two)]
    for each in two:
        each.knows("meter 0", first)
        each.knows("meter 1", second)
        assert each.where() == {("meter 0", first.name), ("meter 1", second.name)}
    place = first.cluster.find("meter 1")
    assert abs(place.since.timestamp() - time.time()) < 10
    devices[1].close()
    first.rig.until(lambda: first.cluster.find("meter 1") is None, "a device that has left is not listed")


def test_reject_holds_across_workers(two: tuple[Worker, Worker]) -> None:
    first, second = two
    device = first.device("meter 7", BIND_OR_GO)
    second.knows("meter 7", first)
    other = second.device("meter 7", BIND_OR_GO)
    assert other.receive_rest() == b""
    (error,) = second.errors
    assert isinstance(error, IdentityTakenElsewhere)
    assert str(error) == f"identity 'meter 7' is held by session 1 of worker {first.name}"
    second.ask("send", "meter 7", Packet(1))
    got(device, Packet(1))


@pytest.mark.parametrize("type", [BIND, BIND_OR_GO])
def test_of_two_claims_at_the_same_instant_exactly_one_is_left(worker: Callable[..., Worker], type: int) -> None:
    two = [worker(name, Config(close_timeout=0.2)) for name in ("one", "two")]
    rig = two[0].rig
    names = [f"meter {number}" for number in range(20)]
    peers = [(rig.peer(each.server), name) for name in names for each in two]
    for peer, name in peers:
        peer.send(encode(Packet(1, name.encode(), type=type)))

    def ended() -> list[tuple[object, object]]:
        return [
            (each.handler.sessions[call.session - 1].identity, call.value)
            for each in two
            for call in each.handler.calls("disconnected")
        ]

    rig.until(lambda: len(ended()) >= len(names), "one of each has ended")
    for each in two:
        each.ask("settled", 5.0)
    for name in names:
        held = [each for each in two if each.cluster.sessions.find(name) is not None]
        assert len(held) == 1
        for each in two:
            each.knows(name, held[0])
    known_in_time = {str(error.args[0]) for each in two for error in each.errors}
    reason = CloseReason.REPLACED if type == BIND else CloseReason.REFUSED
    told = sorted((pair for pair in ended() if pair[0] is not None), key=str)
    assert told == sorted(((name, reason) for name in {*names} - known_in_time), key=str)
    if type == BIND_OR_GO:
        assert Refused in {event.__class__ for each in two for event in each.events} or known_in_time


def test_hundreds_of_moves_leave_one_holder_of_each_identity(worker: Callable[..., Worker]) -> None:
    two = [worker(name, Config(close_timeout=0.2)) for name in ("one", "two")]
    random = Random(7)
    names = [f"meter {number}" for number in range(10)]
    for name in names + [random.choice(names) for _ in range(300)]:
        random.choice(two).device(name)
    two[0].rig.until(lambda: sum(len(each.cluster.sessions) for each in two) == len(names), "the others have ended")
    for each in two:
        each.ask("settled", 5.0)
    for name in names:
        held = [each for each in two if each.cluster.sessions.find(name) is not None]
        assert len(held) == 1
        for each in two:
            each.knows(name, held[0])
    assert {*two[0].handler.values("disconnected"), *two[1].handler.values("disconnected")} == {CloseReason.REPLACED}


def test_identities_that_are_let_go_in_a_hurry_are_held_by_nobody(two: tuple[Worker, Worker]) -> None:
    first, second = two
    rig = first.rig
    for number in range(50):  # they leave while their claims are on their way
        first.device(f"meter {number}").reset()
    moody = first.device("left")
    last = encode(Packet(1, b"right", type=BIND))
    moody.send((last + encode(Packet(1, b"left", type=BIND))) * 50 + last)
    second.knows("right", first)
    first.handler.wait_reasons(50)
    first.ask("settled", 5.0)
    rig.until(lambda: second.cluster.stats.identities == 1, "nothing else is left in the directory")
    assert first.cluster.stats.claims == 1
    assert second.where() == {("right", first.name)}
    second.ask("send", "right", Packet(7))
    got(moody, Packet(7))


def test_a_broadcast_reaches_a_group_on_every_worker_and_nobody_else(two: tuple[Worker, Worker]) -> None:
    first, second = two
    one, other, third = first.device("a"), second.device("b"), second.device("c")
    for device in (one, other):
        device.send(encode(Packet(2, b"meters", type=JOIN)))
    for each in (first, second):
        each.handler.wait("packet_received", 2)
    second.session("c")
    frame = encode(Packet(3, b"time"))
    other.sock.settimeout(0.05)
    broadcasts = 0
    while broadcasts < 200:  # the subscription may still be on its way
        broadcasts += 1
        first.ask("broadcast", Packet(3, b"time"), group="meters")
        try:
            assert other.receive(len(frame)) == frame
            break
        except TimeoutError:
            pass
    other.sock.settimeout(10.0)
    assert one.receive(broadcasts * len(frame)) == broadcasts * frame  # each once, though the worker hears its own
    first.ask("broadcast", Packet(4, b"all"))
    for device in (one, other, third):
        got(device, Packet(4, b"all"))
    first.ask("leave", first.session("a"), "meters")
    first.ask("broadcast", Packet(5), group="meters")
    got(other, Packet(5))
    first.ask("send", "a", Packet(6))
    got(one, Packet(6))


def test_a_device_that_does_not_read_is_refused_more_and_its_session_goes_on(two: tuple[Worker, Worker]) -> None:
    first, second = two
    device = first.device("meter 7")
    second.knows("meter 7", first)
    session = first.session("meter 7")
    packet = Packet(1, bytes(64_000))
    sent = 0

    def send_until_refused() -> None:
        nonlocal sent
        while True:
            second.ask("send", "meter 7", packet)
            sent += 1

    with pytest.raises(SlowConsumer, match="does not read"):
        send_until_refused()
    with pytest.raises(SlowConsumer):
        first.ask("send", "meter 7", packet)
    assert session.is_open
    assert session.outstanding < 4 * first.server.endpoint.config.write_high_water
    assert first.cluster.stats.slow == 2
    for _ in range(sent):
        got(device, packet)
    first.rig.until(lambda: not session.write_paused, "it keeps up again")
    second.ask("send", "meter 7", packet)
    got(device, packet)


def insist(worker: Worker, *methods: str, identity: str = "meter 7") -> None:
    """Have one worker try again for as long as it is told at once that something cannot be sent, until another call on
    its runtime has had a turn."""
    cluster, turns = worker.cluster, list[int]()
    packet, deadline = Packet(1, bytes(64_000)), time.monotonic() + DEADLINE
    calls = [partial(getattr(cluster, method), identity, packet) for method in methods]

    async def awaited() -> None:
        for call in itertools.cycle(calls):
            if turns or time.monotonic() > deadline:
                return
            with suppress(NotConnected, SlowConsumer):
                await call()

    def blocking() -> None:
        for call in itertools.cycle(calls):
            if turns or time.monotonic() > deadline:
                return
            with suppress(NotConnected, SlowConsumer):
                call()

    insisting = worker.rig.in_background(awaited if hasattr(cluster, "__aenter__") else blocking)
    worker.rig.call(turns.append, 1)
    insisting()
    assert time.monotonic() < deadline, "nobody else had a turn"


@pytest.mark.parametrize("device", ["nobody", "reads nothing"])
def test_who_tries_again_at_once_lets_others_have_a_turn(two: tuple[Worker, Worker], device: str) -> None:
    worker = two[0]
    if device == "nobody":
        insist(worker, "send", "request")
    else:
        worker.device("meter 7")
        worker.session("meter 7")
        insist(worker, "send")


def test_a_burst_for_a_device_that_reads_is_taken(two: tuple[Worker, Worker]) -> None:
    first, second = two
    device = first.device("meter 7")
    second.knows("meter 7", first)
    packets = [Packet(number, bytes(16_000)) for number in range(20)]

    async def each_of(waits: list[Any]) -> None:
        for wait in waits:
            await wait

    def burst() -> Any:  # in one turn of the runtime, of several times what a session may hold
        waits = [first.cluster.send("meter 7", packet) for packet in packets]
        return each_of(waits) if inspect.isawaitable(waits[0]) else None

    first.rig.call(burst)
    for packet in packets:
        got(device, packet)
    sent = [second.begin("send", "meter 7", packet) for packet in packets]
    assert sorted(device.receive(len(packets) * len(encode(packets[0])))) == sorted(b"".join(map(encode, packets)))
    for result in sent:
        result()


def test_while_the_broker_is_away_what_is_here_goes_on_and_claims_are_made_when_it_is_back(
    two: tuple[Worker, Worker], broker: LocalBroker
) -> None:
    one, other = two
    rig = one.rig
    first, second = one.device("meter 1"), other.device("meter 2")
    one.knows("meter 2", other)
    other.knows("meter 1", one)
    waiting = one.begin("request", "meter 2", Packet(1), timeout=30.0)
    got(second, Packet(1))
    broker.kill()
    try:
        with pytest.raises(BrokerAway, match=r"nats://127\.0\.0\.1:\d+ cannot be reached"):
            waiting()
        rig.until(lambda: BrokerLost() in other.events, "both have noticed")
        one.ask("send", "meter 1", Packet(2))
        got(first, Packet(2))
        with pytest.raises(BrokerAway):
            one.ask("send", "meter 2", Packet(2))
        insist(one, "send", "request", identity="meter 2")
        with pytest.raises(BrokerAway):
            one.ask("broadcast", Packet(3))
        got(first, Packet(3))
        third = one.device("meter 3")
        moved = one.device("meter 2")  # which was with the other
        for identity in ("meter 2", "meter 3"):
            one.session(identity)
        rig.until(lambda: one.cluster.stats.pending == 2, "it waits to claim")
    finally:
        broker.start()
    assert second.receive_rest() == b""
    second.close()
    assert other.handler.wait_reasons() == [CloseReason.REPLACED]
    for identity in ("meter 1", "meter 2", "meter 3"):
        other.knows(identity, one)
    other.ask("send", "meter 3", Packet(4))
    got(third, Packet(4))
    other.ask("send", "meter 2", Packet(4))
    got(moved, Packet(4))
    assert one.cluster.stats.outages == 1
    assert [event for event in one.events if isinstance(event, BrokerReached)][1:] == [
        BrokerReached(identities=2, workers=1, repeated=0)
    ]


def test_a_worker_that_stops_says_goodbye(two: tuple[Worker, Worker]) -> None:
    first, second = two
    second.device("meter 7")
    first.knows("meter 7", second)
    second.ask("stop")
    first.rig.until(lambda: WorkerLeft(second.name) in first.events, "it has said goodbye")
    assert first.where() == set()
    second.ask("stop")  # which does nothing more
    assert (first.cluster.is_connected, second.cluster.is_connected) == (True, False)


def test_a_broker_that_is_not_there_is_said_with_its_url_and_without_a_password(
    rig: Rig, worker: Callable[..., Worker]
) -> None:
    with LocalBroker() as gone:
        url = gone.url
    begun = time.monotonic()
    with pytest.raises(BrokerAway, match=f"^the broker at {url} cannot be reached"):
        rig.cluster(url.replace("//", "//gateway:secret@"), "nobody", connect_timeout=0.3)
    assert time.monotonic() - begun < DEADLINE / 2
