"""The cluster where its two sides are on two threads: what may happen between them, and how programs end."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

import packetcore_blocking
import packetcore_gevent
from packetcore import CloseReason, Handler, LocalProtocolError, NotConnected, Packet, Session, SyncStream
from packetcore_cluster import ClusterEvent, WorkerLeft, WorkerSeen, _delivery, _node
from packetcore_cluster import gevent as on_gevent
from packetcore_cluster._background import MAX_CROSSING, Background, Gate
from packetcore_cluster._calls import Call, Outcome, answer_bytes
from packetcore_cluster._codecs import Packets
from packetcore_cluster._entries import Entry, entry_bytes
from packetcore_cluster._home import Home
from packetcore_cluster._keys import key_of
from packetcore_cluster._node import Node
from packetcore_cluster._operations import Ending
from packetcore_cluster._timing import Timing
from packetcore_cluster.blocking import Cluster
from packetcore_cluster.local import LocalBroker
from tests.cluster_broker import PATIENCE, start_broker

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    with start_broker() as broker:
        yield broker


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.002)


# Between the two sides.


def fake_session() -> Any:
    """A session as far as its end goes: why it was closed."""
    reasons: list[CloseReason] = []
    return SimpleNamespace(close=reasons.append, abort=reasons.append, reasons=reasons)


class Sides:
    """A home whose node hears nothing before the test says so."""

    def __init__(self, codec: Packets | None = None) -> None:
        self.home = Home("test", codec or Packets(), None, None, timeout=None, max_sessions=None, max_per_host=None)
        self.untold: list[tuple[Any, ...]] = []
        node: Any = SimpleNamespace(
            **{name: name for name in ("claim", "release", "listen", "answer")}, check=lambda *args: None
        )
        self.home.node, self.home.tell = node, lambda *told: self.untold.append(told)
        self.home.open(0)
        self.sessions = self.home.sessions
        self.session = fake_session()
        self.id = self.sessions.add(self.session, 0.0)

    def lose(self, identity: str, heard: int) -> list[CloseReason]:
        """The node says, having heard so many claims, that another worker took an identity over."""
        self.home.end(Ending(key_of(identity), self.id, "replaced"), heard)
        reasons: list[CloseReason] = self.session.reasons
        return reasons


def test_an_ending_ends_the_session_that_holds_the_identity() -> None:
    sides = Sides()
    sides.sessions.bind(sides.id, "meter 7")
    assert sides.lose("meter 7", heard=1) == [CloseReason.REPLACED]
    assert sides.sessions.find("meter 7") is None
    assert [told[0] for told in sides.untold] == ["claim", "release"]


def test_an_ending_from_before_a_newer_claim_ends_nothing() -> None:
    sides = Sides()
    for identity in ("meter 7", "meter 8", "meter 7"):
        sides.sessions.bind(sides.id, identity)
    assert sides.lose("meter 7", heard=1) == []
    assert sides.lose("meter 8", heard=2) == []
    assert sides.sessions.identity(sides.id) == "meter 7"
    assert sides.lose("meter 7", heard=3) == [CloseReason.REPLACED]


def test_an_ending_for_who_has_let_go_or_has_gone_ends_nothing() -> None:
    sides = Sides()
    sides.sessions.bind(sides.id, "meter 7")
    sides.sessions.unbind(sides.id)
    assert sides.lose("meter 7", heard=1) == []
    sides.sessions.bind(sides.id, "meter 7")
    sides.sessions.remove(sides.id)
    assert sides.lose("meter 7", heard=2) == []


def test_what_is_told_arrives_in_order_with_the_number_of_the_claim() -> None:
    sides = Sides()
    sides.session.id = sides.id
    sides.sessions.bind(sides.id, "a")
    sides.home.join(sides.session, "group")
    sides.sessions.bind(sides.id, "b")
    sides.sessions.remove(sides.id)
    assert [told[:3] for told in sides.untold] == [
        ("claim", 1, "s.a"),
        ("listen", {"group"}),
        ("release", "s.a", sides.id),
        ("claim", 2, "s.b"),
        ("release", "s.b", sides.id),
        ("listen", set()),
    ]


def test_only_the_first_and_the_last_of_a_group_are_told() -> None:
    sides = Sides()
    both = [sides.session, fake_session()]
    for session in both:
        session.id = sides.id if session is sides.session else sides.sessions.add(session, 0.0)
        sides.home.join(session, "group")
    assert len(sides.home.members("group")) == 2
    sides.home.leave(both[0], "group")
    assert sides.untold == [("listen", {"group"})]
    sides.sessions.remove(both[1].id)
    assert sides.untold == [("listen", {"group"}), ("listen", set())]


def test_a_codec_that_raises_what_it_should_not_leaves_nobody_waiting() -> None:
    class Broken(Packets):
        def decode(self, frame: bytes, /) -> Packet:
            raise KeyError("no such field")

    sides = Sides(Broken())
    sides.session.is_open = True
    sides.sessions.bind(sides.id, "meter 7")
    sides.untold.clear()
    sides.home.called(Call(key_of("meter 7"), b"", False, None), "inbox")
    assert sides.untold == [("answer", "inbox", answer_bytes(Outcome.NOT_DELIVERED, b"KeyError: 'no such field'"))]
    sides.home.cast("group", b"")
    assert sides.home.stats.undecodable == 1


def test_a_call_that_goes_to_one_worker_after_the_other_has_one_time_for_both() -> None:
    clock: Any = SimpleNamespace(now=100.0)
    clock.time = lambda: clock.now
    asked: list[tuple[str, float | None]] = []

    async def call(subject: str, data: bytes, timeout: float | None, given_up: object) -> bytes:
        asked.append((subject, timeout))
        clock.now += 3.0
        if len(asked) > 1:
            raise TimeoutError
        return answer_bytes(Outcome.NOT_HERE)

    async def read(key: str) -> tuple[int, bytes]:
        return 2, entry_bytes(Entry("second", 1, 0.0))

    nothing: Any = SimpleNamespace()
    node = Node("test", "me", ["nats://nobody"], Timing(), nothing, nothing, replicas=1, options={})
    broker: Any = SimpleNamespace(call=call, read=read, max_payload=1000)
    node._broker, node._loop = broker, clock
    key = key_of("meter 7")
    node.register.found(key, 1, entry_bytes(Entry("first", 1, 0.0)), clock.now)
    with pytest.raises(TimeoutError, match=r"^no answer of worker second within timeout=5\.0 s$"):
        asyncio.run(node.call("meter 7", Call(key, b"", False, None), 5.0))
    assert asked == [("packetcore.test.worker.first", 5.0), ("packetcore.test.worker.second", 2.0)]


def test_what_comes_faster_than_it_is_taken_waits_with_the_broker() -> None:
    async def test() -> None:
        crossing: list[Callable[[], object]] = []
        gate, taken = Gate(crossing.append), list[int]()

        async def hand_over() -> None:
            for number in range(3 * MAX_CROSSING):
                await gate.hand_over(taken.append, number)

        task = asyncio.ensure_future(hand_over())
        while not task.done() or crossing:
            await asyncio.sleep(0)
            assert len(crossing) <= MAX_CROSSING
            await asyncio.to_thread(lambda: [crossing.pop(0)() for _ in range(len(crossing))])
        assert taken == [*range(3 * MAX_CROSSING)]

    asyncio.run(test())


def test_who_waits_for_a_loop_that_ends_is_told() -> None:
    told: list[Any] = []
    ready, over = threading.Event(), threading.Event()
    background = Background(lambda function: threading.Thread(target=function).start())
    background.begin(lambda _: ready.set())
    assert ready.wait(PATIENCE)
    background.ask(asyncio.sleep, (60.0,), told.append)
    background.end(lambda _: over.set())
    assert over.wait(PATIENCE)
    background.ask(asyncio.sleep, (0.0,), told.append)
    background.end(told.append)  # it is over already
    assert [type(outcome) for outcome in told] == [LocalProtocolError, LocalProtocolError, type(None)]


def test_what_comes_from_elsewhere_has_the_lock_of_the_sessions() -> None:
    lock, held = threading.Lock(), list[bool]()
    cluster = Cluster("nats://nobody", "test", loop=SimpleNamespace(lock=lock))
    cluster._post(lambda: held.append(lock.locked()))
    assert held == [True]
    assert not lock.locked()


# What callers see.


class Gateway(Handler):
    """Binds devices to what they say they are, and notes what a call in here comes to."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.came_to: list[object] = []

    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())
        for identity in (packet.payload.decode(), "elsewhere"):
            try:
                self.came_to.append(self.cluster.send(identity, Packet(5)))
            except Exception as error:
                self.came_to.append(error)


class Binds(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.bind(packet.payload.decode())


@contextmanager
def silent_device(broker: LocalBroker, name: str, **options: Any) -> Iterator[tuple[Cluster[Packet], SyncStream]]:
    """A worker that holds `silent`, a device that replies to nothing."""
    with (
        Cluster(broker.url, name, worker="holder", **options) as cluster,
        packetcore_blocking.serve(Binds(), sessions=cluster.sessions) as server,
        packetcore_blocking.connect(*server.address) as device,
    ):
        device.send(Packet(1, b"silent"))
        until(lambda: cluster.stats.claims == 1, "it is bound")
        cluster.settled(PATIENCE)
        yield cluster, device


def test_a_handler_that_would_block_is_told_so_at_once_and_one_that_need_not_is_not(broker: LocalBroker) -> None:
    with Cluster(broker.url, "handlers") as cluster:
        gateway = Gateway(cluster)
        with (
            packetcore_blocking.serve(gateway, sessions=cluster.sessions) as server,
            packetcore_blocking.connect(*server.address) as device,
        ):
            device.send(Packet(1, b"here"))
            assert device.recv(timeout=PATIENCE) == Packet(5)
            until(lambda: len(gateway.came_to) == 2, "it has tried both")
            assert gateway.came_to[0] is None
            assert "must not block" in str(gateway.came_to[1])
    with on_gevent.Cluster(broker.url, "handlers") as other:
        gateway = Gateway(other)
        with (
            packetcore_gevent.serve(gateway, sessions=other.sessions) as server,
            packetcore_gevent.connect(*server.address) as device,
        ):
            device.send(Packet(1, b"here"))
            assert device.recv(timeout=PATIENCE) == Packet(5)
            assert gateway.came_to[0] is None
            assert "must not block" in str(gateway.came_to[1])


def test_a_wait_that_is_given_up_leaves_nothing_behind(broker: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_node, "MAX_CALLS", 1)
    monkeypatch.setattr(_delivery, "MAX_UNANSWERED", 1)
    with (
        silent_device(broker, "given-up"),
        on_gevent.Cluster(broker.url, "given-up") as cluster,
        packetcore_gevent.serve(Binds(), sessions=cluster.sessions) as server,
        packetcore_gevent.connect(*server.address) as device,
    ):
        device.send(Packet(1, b"here"))
        while cluster.find("here") is None:
            gevent.sleep(0)
        for number in range(2):  # more than one at a time would be refused
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
                cluster.request("here", Packet(number))
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            cluster.request("silent", Packet(1), timeout=0.1)
        cluster.send("silent", Packet(3))


def test_any_thread_may_use_a_blocking_cluster(broker: LocalBroker) -> None:
    with silent_device(broker, "threads") as (holder, _), Cluster(broker.url, "threads") as cluster:
        outcomes: list[object] = []

        def use(number: int) -> None:
            for each in (holder, cluster):
                for _ in range(20):
                    each.send("silent", Packet(number))
                with pytest.raises(NotConnected):
                    each.send("nobody", Packet(number))
            outcomes.append(number)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert sorted(map(str, outcomes)) == ["0", "1", "2", "3", "4"]
        assert holder.stats.received == cluster.stats.sent == 100


# How programs end.


@contextmanager
def program(broker: LocalBroker, runtime: str, end: str) -> Iterator[subprocess.Popen[str]]:
    warn = ["-W", "always::ResourceWarning", "-W", "ignore:This process:DeprecationWarning"]  # that it forks
    command = [sys.executable, *warn, "-m", "tests.cluster_program", runtime, end, broker.url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("runtime", "end"),
    [
        ("blocking", "interrupted"),
        ("blocking", "forgotten"),
        ("gevent", "interrupted"),
        ("patched", "forgotten"),
        ("twisted", "interrupted"),
    ],
)
def test_a_program_that_ends_says_goodbye(broker: LocalBroker, runtime: str, end: str) -> None:
    events: list[ClusterEvent] = []
    with (
        silent_device(broker, "programs", on_event=events.append) as (_, device),
        program(broker, runtime, end) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if end == "interrupted":
            if runtime != "twisted":  # whose program waits for its reactor alone
                assert device.recv(timeout=PATIENCE) == Packet(2)  # to which it waits for a reply
            process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=PATIENCE)
        wanted = 0 if end == "forgotten" or runtime == "twisted" else -signal.SIGINT
        assert (process.returncode, said) == (wanted, ""), told
        assert "Warning" not in told
        assert told == "" if wanted == 0 else told.endswith("KeyboardInterrupt\n"), told
        until(lambda: {type(event) for event in events} >= {WorkerSeen, WorkerLeft}, "it has said goodbye")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_that_was_forked_is_told_and_leaves_its_parent_alone(broker: LocalBroker) -> None:
    with program(broker, "blocking", "forked") as process:
        said, told = process.communicate(timeout=PATIENCE)
        assert (process.returncode, told) == (0, "")
        ready, *refused, status = said.splitlines()
        assert (ready, status) == ("ready", "0")
        assert [line.partition(":")[0] for line in refused] == ["send", "request"]
        assert all("make another Cluster here" in line for line in refused)


# The page.


def test_the_programs_on_the_page_run(broker: LocalBroker) -> None:
    page = (ROOT / "cluster/README.md").read_text(encoding="utf-8")
    on_asyncio, on_blocking, on_twisted, _ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    running = []
    for program in (on_asyncio, on_blocking, on_blocking.replace("blocking", "gevent"), on_twisted):
        text = program.replace("nats://127.0.0.1:4222", broker.url).replace('"0.0.0.0", 5000', '"127.0.0.1", 0')
        text, endless = re.subn(r"(await |yield )?server.serve_forever\(\)", "print('serves')", text)
        assert endless == 1
        pipe = subprocess.PIPE
        running.append(subprocess.Popen([sys.executable, "-c", text], stdout=pipe, stderr=pipe, text=True))
    for process in running:
        with process:
            said, told = process.communicate(timeout=30)
            assert (process.returncode, said, told) == (0, "serves\n", "")
