"""Connection pool.

A client's streams to one server: who gets which, who waits, and what is not kept.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from operator import methodcaller
from random import Random
from typing import Any

import pytest

from packetcore import CloseReason, Config, Packet, PoolClosed, PoolFull, ServerBase, Session
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

pytestmark = pytest.mark.usefixtures("needs_pool")


def ask(id: int) -> Callable[[Any], Any]:
    """What to do with a borrowed stream: ask something, wait for the reply."""
    return methodcaller("request", Packet(id))


class Lending:
    """A pool to a server that answers when told, so that a stream is lent until then."""

    def __init__(self, rig: Rig, config: Config | None = None, **limits: Any) -> None:
        self.rig = rig
        self.handler = Recorder()
        self.server: ServerBase = rig.serve(self.handler, config)
        self.pool = rig.connection_pool(self.server.address, **limits)

    def hold(self, id: int) -> Callable[[], Any]:
        """Borrow a stream until `release(id)`, and see its request arrive. What this gives waits
        for the stream to be back."""
        arrived = len(self.handler.calls("packet_received"))
        wait = self.rig.in_thread(self.rig.borrow, self.pool, ask(id))
        self.handler.wait("packet_received", arrived + 1)
        return wait

    def queue(self, id: int) -> Callable[[], Any]:
        """Borrow as `hold` does, when all streams are lent, and see it wait."""
        waiting = self.rig.call(lambda: self.pool.waiting)
        wait = self.rig.in_thread(self.rig.borrow, self.pool, ask(id))
        self.rig.until(lambda: self.pool.waiting == waiting + 1, "one more waits")
        return wait

    def release(self, id: int) -> None:
        """Answer the request of who holds or held a stream with this id."""
        self.handler.wait("packet_received")
        (asked,) = (call for call in self.handler.calls("packet_received") if call.value == Packet(id))
        session = next(session for session in self.handler.sessions if session.id == asked.session)
        self.rig.call(session.send, Packet(id))


def test_a_stream_that_came_back_is_lent_again(rig: Rig) -> None:
    server = rig.serve(echo())
    pool = rig.connection_pool(server.address)
    assert pool.size == 0
    assert [rig.borrow(pool, ask(id)) for id in range(10)] == [Packet(id) for id in range(10)]
    assert server.stats.opened == 1
    assert (pool.size, pool.idle, pool.stats.opened, pool.stats.reused) == (1, 1, 1, 9)


def test_no_more_streams_are_open_than_allowed_and_who_waits_is_served_in_turn(rig: Rig) -> None:
    lending = Lending(rig, max_size=3)
    held = [lending.hold(id) for id in range(3)]
    waiting = [lending.queue(id) for id in range(3, 10)]
    assert (lending.pool.size, lending.pool.waiting) == (3, 7)
    for id, wait in enumerate(held + waiting):
        lending.release(id)
        assert wait() == Packet(id)
        lending.handler.wait("packet_received", min(10, id + 4))
    assert lending.handler.values("packet_received") == [Packet(id) for id in range(10)]
    assert lending.server.stats.opened == lending.pool.size == lending.pool.idle == 3
    assert lending.pool.stats.waited == 7


def test_who_gives_up_waiting_leaves_the_queue_and_takes_no_place(rig: Rig) -> None:
    lending = Lending(rig, max_size=1)
    held = lending.hold(1)
    before = lending.queue(2)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            rig.borrow(lending.pool, ask(666), patience=0.05)
        with pytest.raises(TimeoutError):
            rig.borrow(lending.pool, ask(666), timeout=0.05)
    rig.until(lambda: lending.pool.waiting == 1, "those who gave up left the queue")
    after = lending.queue(3)
    for id, wait in enumerate([held, before, after], 1):
        lending.release(id)
        assert wait() == Packet(id)
        lending.handler.wait("packet_received", min(3, id + 1))
    assert Packet(666) not in lending.handler.values("packet_received")
    assert (lending.pool.size, lending.pool.idle, lending.server.stats.opened) == (1, 1, 1)


def test_who_is_cancelled_with_a_stream_gives_its_place_to_the_next(rig: Rig) -> None:
    lending = Lending(rig, max_size=1)
    waits = []

    def give_up() -> None:
        with pytest.raises(TimeoutError):
            rig.borrow(lending.pool, ask(1), timeout=0.2)

    waits.append(rig.in_thread(give_up))
    lending.handler.wait("packet_received")
    waits.append(lending.queue(2))
    lending.handler.wait("packet_received", 2)
    lending.release(2)
    for wait in waits:
        wait()
    assert lending.handler.wait_reasons() == [CloseReason.PEER]  # its reply may come yet: nobody else is to get it
    assert lending.server.stats.opened == 2
    assert (lending.pool.size, lending.pool.stats.discarded) == (1, 1)


def test_a_block_that_raises_costs_its_stream_and_no_place(rig: Rig) -> None:
    handler = echo()
    server = rig.serve(handler)
    pool = rig.connection_pool(server.address, max_size=1)

    def fail(stream: Any) -> None:
        raise RuntimeError("a bug of the application")

    for at in range(1, 4):
        with pytest.raises(RuntimeError, match="a bug of the application"):
            rig.borrow(pool, fail)
        assert handler.wait_reasons(at)[-1] is CloseReason.PEER
        assert pool.size == 0
    assert rig.borrow(pool, ask(1)) == Packet(1)
    assert pool.stats.discarded == 3


def test_a_connection_that_died_while_idle_is_not_lent(rig: Rig) -> None:
    server = rig.serve(echo())
    pool = rig.connection_pool(server.address)
    streams: list[Any] = []
    rig.borrow(pool, streams.append)
    rig.call(server.close, 0)
    rig.until(lambda: not streams[0].session.is_open or streams[0].has_received, "the client was told")
    rig.serve(echo(), port=server.address[1])
    for _ in range(2):
        assert rig.borrow(pool, ask(1)) == Packet(1)
    assert (pool.size, pool.stats.dead, pool.stats.opened, pool.stats.reused) == (1, 1, 2, 1)


def test_a_stream_with_something_unread_is_not_lent_again(rig: Rig) -> None:
    def reply(session: Session, packet: Packet) -> None:
        session.send(packet)
        if packet.type:
            session.send(Packet(99, b"unasked"))

    handler = Recorder(packet_received=reply)
    pool = rig.connection_pool(rig.serve(handler).address, max_size=1)
    streams: list[Any] = []

    def ask_on(packet: Packet) -> None:
        def use(stream: Any) -> Any:
            streams.append(stream)
            return stream.request(packet)

        assert rig.borrow(pool, use) == packet

    ask_on(Packet(1, type=1))  # what comes while it is lent
    rig.until(lambda: streams[-1].has_received, "what nobody asked for came")
    ask_on(Packet(2))
    rig.call(handler.sessions[-1].send, Packet(99, b"unasked"))  # what comes while it is idle
    rig.until(lambda: streams[-1].has_received, "what nobody asked for came")
    ask_on(Packet(3))
    assert len({id(stream) for stream in streams}) == 3
    assert (pool.size, pool.stats.dead, pool.stats.opened) == (1, 2, 3)


def test_a_stream_that_nobody_uses_is_closed_after_max_idle(rig: Rig) -> None:
    handler = echo()
    pool = rig.connection_pool(rig.serve(handler).address, max_idle=0.1)
    assert rig.borrow(pool, ask(1)) == Packet(1)
    assert handler.wait_reasons() == [CloseReason.PEER]
    assert (pool.size, pool.idle, pool.stats.expired) == (0, 0, 1)
    assert rig.borrow(pool, ask(1)) == Packet(1)


def test_a_stream_past_max_lifetime_is_left_to_its_user_and_then_closed(rig: Rig) -> None:
    lending = Lending(rig, max_size=1, max_idle=None, max_lifetime=0.1)
    wait = lending.hold(1)
    time.sleep(0.3)
    assert not lending.handler.calls("disconnected")
    lending.release(1)
    assert wait() == Packet(1)
    assert lending.handler.wait_reasons() == [CloseReason.PEER]
    assert (lending.pool.size, lending.pool.stats.expired) == (0, 1)
    wait = lending.hold(2)
    lending.release(2)
    wait()
    assert lending.handler.wait_reasons(2) == [CloseReason.PEER] * 2  # idle, it goes when its time comes


def test_no_more_may_wait_than_max_waiting(rig: Rig) -> None:
    lending = Lending(rig, max_size=1, max_waiting=2)
    waits = [lending.hold(1), lending.queue(2), lending.queue(3)]
    with pytest.raises(PoolFull, match="max_waiting"):
        rig.borrow(lending.pool, ask(4))
    for id, wait in enumerate(waits, 1):
        lending.release(id)
        assert wait() == Packet(id)
        lending.handler.wait("packet_received", min(3, id + 1))


def test_close_ends_the_waits_and_closes_what_is_lent_when_it_comes_back(rig: Rig) -> None:
    lending = Lending(rig, max_size=2)
    idle, held = lending.hold(1), lending.hold(2)
    lending.release(1)
    idle()
    other, waiting = lending.hold(3), lending.queue(4)
    lending.release(3)
    other()
    lending.handler.wait("packet_received", 4)
    queued = lending.queue(5)
    for _ in range(2):
        rig.call(lending.pool.close)
    with pytest.raises(PoolClosed):
        queued()
    with pytest.raises(PoolClosed):
        rig.borrow(lending.pool, ask(6))
    assert not lending.handler.calls("disconnected")
    for id, wait in ((2, held), (4, waiting)):
        lending.release(id)
        assert wait() == Packet(id)
    assert lending.handler.wait_reasons(2) == [CloseReason.PEER] * 2
    assert lending.pool.size == 0


def test_close_closes_what_is_idle(rig: Rig) -> None:
    handler = echo()
    pool = rig.connection_pool(rig.serve(handler).address)
    rig.borrow(pool, ask(1))
    rig.call(pool.close)
    assert handler.wait_reasons() == [CloseReason.PEER]
    assert pool.size == 0


def test_a_connection_that_cannot_be_made_takes_no_place(rig: Rig) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        pool = rig.connection_pool(sock.getsockname(), max_size=1)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                rig.borrow(pool, ask(1))
            assert pool.size == 0
        rig.serve(echo(), port=sock.getsockname()[1])
    assert rig.borrow(pool, ask(1)) == Packet(1)


def test_who_waits_behind_a_connection_that_cannot_be_made_tries_for_itself(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address: tuple[str, int] = deaf.getsockname()
        clogs = [socket.socket() for _ in range(4)]
        for clog in clogs:  # fill the accept queue, so that the next one hangs
            clog.setblocking(False)
            clog.connect_ex(address)
        try:
            pool = rig.connection_pool(address, config=Config(connect_timeout=0.2), max_size=1)
            waits = [rig.in_thread(rig.borrow, pool, ask(id)) for id in range(2)]
            for wait in waits:
                with pytest.raises(TimeoutError, match=r"connect_timeout=0\.2"):
                    wait()
            assert pool.stats.waited == 1
            with pytest.raises(TimeoutError, match=r"not done after|connect_timeout"):
                rig.borrow(pool, ask(2), timeout=0.05)
            rig.until(lambda: pool.size == pool.waiting == 0, "nobody has a place")
        finally:
            for clog in clogs:
                clog.close()


def test_many_who_borrow_fail_and_give_up_at_random_leave_a_sound_pool(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: packet.type or session.send(packet))
    server = rig.serve(handler)
    pool = rig.connection_pool(server.address, max_size=3)

    def fail(stream: Any) -> None:
        raise RuntimeError("a bug of the application")

    def borrow_often(seed: int) -> None:
        random = Random(seed)
        for at in range(15):
            packet = Packet(seed, bytes([at]))
            match random.randrange(5):
                case 0:
                    with pytest.raises(RuntimeError):
                        rig.borrow(pool, fail)
                case 1:
                    with pytest.raises(TimeoutError):
                        rig.borrow(pool, methodcaller("request", Packet(1, type=1)), timeout=0.02)
                case _:
                    assert rig.borrow(pool, methodcaller("request", packet)) == packet

    for wait in [rig.in_thread(borrow_often, seed) for seed in range(8)]:
        wait()
    rig.until(lambda: pool.waiting == 0 and pool.size == pool.idle <= 3, "nothing is lent")
    assert rig.borrow(pool, ask(1)) == Packet(1)
    rig.call(pool.close)
    rig.until_empty(server)
