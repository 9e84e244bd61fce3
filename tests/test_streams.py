"""Streams, awaited and blocking, over a made-up socket."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from packetcore import (
    AsyncStream,
    CloseReason,
    Config,
    Malformed,
    Packet,
    RequestPending,
    SessionClosed,
    SyncStream,
    encode,
)
from tests.made_up_host import MadeUpHost
from tests.test_lending import Condition, Event, Network, Task

NEWS = Packet(1, b"news")


def test_a_message_to_a_peer_that_was_lost_is_dropped_until_the_reader_was_told() -> None:
    network = Network()
    awaited = AsyncStream(network.open(), network.clock, Event)
    blocking = SyncStream(network.open(), network.clock, Condition)
    for stream in (awaited, blocking):
        stream.session.lost(ConnectionResetError(), 101)
    assert Task(awaited.send_message(b"reply", id=1)).is_done
    blocking.send_message(b"reply", id=1)
    with pytest.raises(SessionClosed) as told:
        blocking.recv()
    assert told.value.reason is CloseReason.RESET
    with pytest.raises(SessionClosed):
        blocking.send_message(b"reply", id=1)


def test_one_packet_may_be_asked_for_as_of_any_asynchronous_iterator() -> None:
    network = Network()
    stream = AsyncStream(network.open(), network.clock, Event)
    got: list[object] = []

    async def take() -> None:
        async for packet in stream:
            got.append(packet)
            break
        got.append(await stream.__anext__())

    task = Task(take())
    for count in range(2):
        assert len(got) == count
        network.sessions[0].received(encode(NEWS), 101)
        task.step()
    assert (got, task.is_done) == ([NEWS, NEWS], True)


def awaited_and_blocking(network: Network) -> tuple[AsyncStream, SyncStream]:
    return (
        AsyncStream(network.open(), network.clock, Event),
        SyncStream(network.open(), network.clock, partial(Condition, lambda: network.meanwhile())),
    )


def sent_by(host: MadeUpHost) -> list[Packet | Malformed]:
    host.session.flush(101)
    packets = host.packets()
    host.written.clear()
    return packets


def test_what_is_sent_and_asked_goes_to_the_session_as_it_is() -> None:
    network = Network()
    awaited, blocking = awaited_and_blocking(network)
    fives, replies = [Packet(1, bytes(5), type=2, count=2)] * 2, list[object]()

    async def ask(**options: Any) -> None:
        try:
            replies.append(await awaited.request(**options))
        except (TimeoutError, RequestPending) as error:
            replies.append(type(error))

    host, other = network.hosts
    assert Task(awaited.send(NEWS)).is_done
    blocking.send(NEWS)
    assert sent_by(host) == sent_by(other) == [NEWS]
    assert Task(awaited.send_message(bytes(10), id=1, type=2, chunk=5)).is_done
    blocking.send_message(bytes(10), id=1, type=2, chunk=5)
    assert sent_by(host) == sent_by(other) == fives
    assert Task(awaited.send_message(b"", id=1)).is_done
    blocking.send_message(b"", id=1)
    assert sent_by(host) == sent_by(other) == [Packet(1)]

    task = Task(ask(packet=b"what?", type=3, timeout=5.0))
    (question,) = sent_by(host)
    assert isinstance(question, Packet)
    assert (question.payload, question.type) == (b"what?", 3)
    host.session.received(encode(Packet(question.id, b"that")), 102)
    task.step()
    assert replies.pop() == Packet(question.id, b"that")
    task = Task(ask(packet=NEWS, timeout=5.0))
    host.session.flush(102)
    Task(ask(packet=NEWS))
    assert replies.pop() is RequestPending
    waits = Task(ask(packet=NEWS, wait=True, match=None))
    host.session.tick(107)
    task.step()
    assert replies.pop() is TimeoutError
    assert not waits.is_done
    matched = Task(ask(packet=Packet(9), match=lambda reply: reply.payload == b"match"))
    host.session.received(encode(Packet(5, b"match")), 108)
    matched.step()
    assert replies.pop() == Packet(5, b"match")


def test_who_may_wait_waits_until_there_is_room() -> None:
    network = Network(Config(write_high_water=20, write_low_water=0))
    awaited, blocking = awaited_and_blocking(network)
    host, other = network.hosts
    for each in network.hosts:
        each.takes = 0
    first = Task(awaited.send(Packet(1, bytes(100))))
    assert not first.is_done
    message = Task(awaited.send_message(bytes(10), id=2))
    assert not message.is_done
    assert len(host.packets()) == 1, "it was handed on before anybody waited"
    host.takes = 1000
    host.drain()
    first.step()
    message.step()
    assert (first.is_done, message.is_done) == (True, True)
    with pytest.raises(TimeoutError, match=r"^\d+ bytes are still unsent after timeout=3 s"):
        blocking.send(Packet(1, bytes(100)), timeout=3)
    with pytest.raises(TimeoutError, match=r"^\d+ bytes are still unsent after timeout=4 s"):
        blocking.send_message(bytes(10), id=2, timeout=4)
    with pytest.raises(TimeoutError, match=r"^nothing was received within timeout=5 s$"):
        blocking.recv(5)

    def take_all() -> None:
        other.takes = 1000
        other.drain()

    network.meanwhile = take_all
    blocking.send(NEWS)
    assert [*map(type, sent_by(other))] == [Packet] * 3


def test_an_application_that_fails_ends_its_stream_and_one_that_returns_closes_it() -> None:
    network = Network()
    awaited, blocking = awaited_and_blocking(network)

    async def fail(stream: AsyncStream) -> None:
        raise ValueError("a bug of the application")

    async def leave(stream: AsyncStream) -> None:
        await stream.send(NEWS)

    host, other = network.hosts

    def take_all_and_go() -> None:
        other.session.flush(103)
        other.session.lost(None, 103)

    network.meanwhile = take_all_and_go
    blocking.run(lambda stream: stream.send(NEWS))
    assert (sent_by(other), blocking.close_reason) == ([NEWS], CloseReason.LOCAL)
    network.now = 102
    task = Task(awaited.run(fail))
    ends = [task.is_done]
    assert awaited.close_reason is CloseReason.HANDLER_ERROR
    host.session.lost(None, 103)
    task.step()
    ends.append(task.is_done)
    assert ends == [False, True], "it waits until the socket has gone"
    again = AsyncStream(network.open(), network.clock, Event)
    task = Task(again.run(leave))
    network.hosts[-1].session.flush(104)
    network.sessions[-1].eof(105)
    network.sessions[-1].lost(None, 106)
    task.step()
    assert (task.is_done, again.close_reason) == (True, CloseReason.LOCAL)


def test_what_is_sent_to_a_lost_peer_is_dropped_up_to_the_high_water_mark() -> None:
    network = Network(Config(write_high_water=20, write_low_water=0))
    awaited, blocking = awaited_and_blocking(network)
    for session in network.sessions:
        session.received(encode(NEWS), 101)
        session.lost(ConnectionResetError(), 101)
    for _ in range(2):
        assert Task(awaited.send_message(bytes(11), id=1)).is_done
        blocking.send_message(bytes(11), id=1)
    with pytest.raises(SessionClosed):
        Task(awaited.send(NEWS))
    with pytest.raises(SessionClosed):
        blocking.send(NEWS)
    assert awaited.recv_nowait() == blocking.recv_nowait() == NEWS
    assert Task(awaited.send(Packet(1, bytes(21)))).is_done  # taking an item begins the count anew
    blocking.send(Packet(1, bytes(21)))
    with pytest.raises(SessionClosed):
        Task(awaited.send(NEWS))
    with pytest.raises(SessionClosed):
        blocking.send(NEWS)


def test_who_sends_packets_without_bytes_or_length_to_a_lost_peer_is_told_in_the_end_too() -> None:
    network = Network(Config(write_high_water=20, write_low_water=0))
    for item in (Packet(1), 7):  # a number is a packet of a codec that makes numbers of frames
        streams: tuple[Any, Any] = awaited_and_blocking(network)
        awaited, blocking = streams
        for stream in streams:
            stream.session.lost(ConnectionResetError(), 101)
        for _ in range(21):
            assert Task(awaited.send(item)).is_done
            blocking.send(item)
        with pytest.raises(SessionClosed):
            Task(awaited.send(item))
        with pytest.raises(SessionClosed):
            blocking.send(item)


class Unserved(Condition):
    """That of a thread whose socket is served only while it waits."""

    is_served = False


@pytest.mark.parametrize("condition", [Condition, Unserved])
def test_what_a_thread_hands_to_its_socket_itself_puts_the_keepalive_off(condition: type[Condition]) -> None:
    config = Config(keepalive_interval=10.0, keepalive_packet=NEWS, write_high_water=20, write_low_water=0)
    network = Network(config)
    stream = SyncStream(network.open(), network.clock, condition)
    (host,) = network.hosts
    network.now = 105.0
    stream.send(long := Packet(1, bytes(100)))
    host.session.tick(110)
    assert host.packets() == [long]
    host.session.tick(115)
    assert host.packets() == [long, NEWS]


def test_where_nobody_serves_a_socket_a_sender_waits_until_the_system_has_it_all() -> None:
    network = Network()
    stream = SyncStream(network.open(), network.clock, Unserved)
    (host,) = network.hosts
    stream.send(NEWS)
    assert host.packets() == [NEWS]
    host.takes = 5
    with pytest.raises(TimeoutError, match=r"^10 bytes are still unsent after timeout=3 s"):
        stream.send(NEWS, timeout=3)


def test_a_stream_that_sends_in_a_way_of_its_own_is_asked() -> None:
    class Counting(SyncStream):
        count = 0

        def send(self, item: Any, *, timeout: float | None = None) -> None:
            self.count += 1
            super().send(item, timeout=timeout)

    network = Network()
    stream = Counting(network.open(), network.clock, Condition)
    stream.send(NEWS)
    assert (stream.count, sent_by(network.hosts[0])) == (1, [NEWS])
