"""What type checkers know of packets that are no `Packet`: checked with the rest, and never run.

Each refused line says by which error; mypy complains of one that has become legal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import packetcore_asyncio as aio
import packetcore_gevent as green
import packetcore_twisted as tx
from packetcore import (
    AsyncStream,
    Backoff,
    Closed,
    Config,
    Connection,
    EndOfStream,
    Handler,
    Malformed,
    Message,
    Packet,
    Session,
    SessionPool,
    SyncStream,
)
from packetcore.framings import COBS
from packetcore.layout import U16, Layout

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import assert_type


@dataclass(frozen=True)
class Reading:
    meter: U16


FRAMING, CODEC = COBS(), Layout(Reading)
packets: list[Packet | Message | Exception] = []
frames: list[bytes | Exception] = []
WHERE = ("127.0.0.1", 1)


class OfPackets(Handler):
    def packet_received(self, session: Session, packet: Packet) -> None:
        session.send(packet)
        session.send(Message(packet.id, packet.payload))
        session.send_message(packet.payload, id=1)
        session.request(b"payload", packets.append, type=1)
        session.send(b"frame")  # type: ignore[call-overload]


class OfFrames(Handler[bytes]):
    def packet_received(self, session: Session[bytes], frame: bytes) -> None:
        session.send(frame)
        session.request(frame, frames.append, match=lambda reply: reply == frame)
        session.request(frame, packets.append, match=lambda reply: True)  # type: ignore[arg-type]
        session.request(frame, print)  # type: ignore[call-arg]
        session.send(Packet(1))  # type: ignore[arg-type]
        session.send_message(frame, id=1)  # type: ignore[misc]

    def packets_received(self, session: Session[bytes], packets: list[bytes]) -> None: ...


class OfReadings(Handler[Reading]):
    def packet_received(self, session: Session[Reading], reading: Reading) -> None:
        session.send(Reading(reading.meter))
        assert_type(session.endpoint.sessions, SessionPool[Session[Reading]])


class Wrong(Handler[Reading]):
    def packet_received(self, session: Session[Reading], frame: bytes) -> None: ...  # type: ignore[override]


class Unsaid(Handler):
    def packet_received(self, session: Session, frame: bytes) -> None: ...  # type: ignore[override]


def a_connection(now: float) -> None:
    assert_type(Connection(now=now).receive_data(b"", now), list[Packet | Message | Malformed | EndOfStream | Closed])
    of_packets = Connection(Config(), now=now)
    of_packets.send(Packet(1))
    of_packets.send(b"frame")  # type: ignore[arg-type]


# Where calls are awaited.


async def over_packets(stream: aio.Stream) -> None:
    async for item in stream:
        assert_type(item, Packet | Message)
    assert_type(stream.session, Session)
    assert_type(await stream.recv(), Packet | Message)
    assert_type(await stream.request(Packet(1)), Packet | Message)
    await stream.send_message(b"payload", id=1)


async def over_frames(stream: aio.Stream[bytes]) -> None:
    async for frame in stream:
        assert_type(frame, bytes)
    assert_type(stream.session, Session[bytes])
    assert_type(stream.recv_nowait(), bytes | None)
    assert_type(await stream.request(b"frame", match=lambda reply: reply[0] == 1), bytes)
    await stream.request(b"frame")  # type: ignore[call-arg]
    await stream.send(Packet(1))  # type: ignore[arg-type]
    await stream.send_message(b"payload", id=1)  # type: ignore[misc]


async def over_readings(stream: aio.Stream[Reading]) -> None:
    assert_type(await stream.recv(), Reading)


async def on_asyncio() -> None:
    register: SessionPool[Session] = SessionPool()
    assert_type(await aio.serve(OfPackets(), sessions=register), aio.Server)
    assert_type(await aio.serve(over_packets), aio.Server)
    assert_type(await aio.serve(OfFrames(), framing=FRAMING), aio.Server[bytes])
    assert_type(await aio.serve(over_frames, framing=FRAMING), aio.Server[bytes])
    assert_type(await aio.serve(OfReadings(), framing=FRAMING, codec=CODEC), aio.Server[Reading])
    assert_type(await aio.serve_udp(over_readings, framing=FRAMING, codec=CODEC), aio.Server[Reading])
    await aio.serve(OfFrames())  # type: ignore[arg-type]
    await aio.serve(OfPackets(), framing=FRAMING)  # type: ignore[arg-type]
    await aio.serve(OfReadings(), framing=FRAMING)  # type: ignore[arg-type]
    await aio.serve(OfFrames(), framing=FRAMING, codec=CODEC)  # type: ignore[arg-type]
    await aio.serve(OfReadings(), codec=CODEC)  # type: ignore[call-overload]
    await aio.serve(over_frames)  # type: ignore[arg-type]
    await aio.serve(over_readings, framing=FRAMING)  # type: ignore[arg-type]
    await aio.serve(OfFrames(), framing=FRAMING, sessions=register)  # type: ignore[arg-type]

    assert_type(await aio.connect(*WHERE), AsyncStream)
    assert_type(await aio.connect(*WHERE, framing=FRAMING), aio.Stream[bytes])
    assert_type(await aio.connect(*WHERE, framing=FRAMING, codec=CODEC), aio.Stream[Reading])
    assert_type(await aio.connect(*WHERE, OfPackets()), Session)
    session = await aio.connect(*WHERE, OfFrames(), framing=FRAMING)
    assert_type(session, Session[bytes])
    assert_type(await aio.request(session, b"frame", match=lambda frame: frame == b""), bytes)
    assert_type(await aio.connect(*WHERE, OfReadings(), framing=FRAMING, codec=CODEC), Session[Reading])
    client = await aio.connect(*WHERE, over_frames, framing=FRAMING, reconnect=Backoff(), keep=1)
    assert_type(client, aio.Client[bytes])
    client.send(Packet(1))  # type: ignore[arg-type]
    await aio.connect(*WHERE, OfFrames())  # type: ignore[arg-type]
    await aio.connect(*WHERE, OfFrames(), framing=FRAMING, codec=CODEC)  # type: ignore[misc]
    await aio.connect(*WHERE, codec=CODEC)  # type: ignore[call-overload]

    assert_type(await aio.connect_udp(*WHERE, framing=FRAMING), aio.Stream[bytes])
    assert_type(await aio.connect_udp(*WHERE, OfPackets(), broadcast=True), Session)
    await aio.connect_udp(*WHERE, OfPackets(), reconnect=Backoff())  # type: ignore[call-overload]

    assert_type(aio.ConnectionPool(*WHERE), aio.ConnectionPool)
    assert_type(aio.ConnectionPool(*WHERE, framing=FRAMING), aio.ConnectionPool[bytes])
    async with aio.ConnectionPool(*WHERE, framing=FRAMING, codec=CODEC) as pool, pool.acquire() as stream:
        assert_type(stream, aio.Stream[Reading])


# Where they block.


def blocking(stream: green.Stream[bytes]) -> None:
    for frame in stream:
        assert_type(frame, bytes)
    assert_type(stream.recv(timeout=1.0), bytes)
    stream.send(Packet(1))  # type: ignore[arg-type]


def on_gevent() -> None:
    assert_type(green.serve(OfPackets()), green.Server)
    assert_type(green.serve(blocking, framing=FRAMING), green.Server[bytes])
    assert_type(green.serve_udp(OfReadings(), framing=FRAMING, codec=CODEC), green.Server[Reading])
    green.serve(blocking)  # type: ignore[arg-type]
    assert_type(green.connect(*WHERE), SyncStream)
    assert_type(green.connect(*WHERE, framing=FRAMING, codec=CODEC), green.Stream[Reading])
    assert_type(
        green.connect(*WHERE, OfReadings(), framing=FRAMING, codec=CODEC, reconnect=Backoff()), green.Client[Reading]
    )
    session = green.connect_udp(*WHERE, OfFrames(), framing=FRAMING)
    assert_type(green.request(session, b"frame", match=lambda frame: frame == b""), bytes)
    green.connect(*WHERE, OfReadings(), framing=FRAMING)  # type: ignore[arg-type]
    with green.ConnectionPool(*WHERE, framing=FRAMING) as pool, pool.acquire(timeout=1.0) as stream:
        assert_type(stream, green.Stream[bytes])


# Where they give Deferreds.


def deferring(stream: tx.Stream[Reading]) -> Deferred[None]:
    assert_type(stream.recv(), Deferred[Reading])
    assert_type(stream.request(Reading(1), match=lambda reply: reply.meter == 1), Deferred[Reading])
    stream.send_message(b"payload", id=1)  # type: ignore[misc]
    return stream.send(Reading(1))


def on_twisted(session: Session[Reading], of_packets: tx.Stream) -> None:
    assert_type(of_packets.request(b"payload", type=1), Deferred[Packet | Message])
    assert_type(tx.serve(OfPackets()), Deferred[tx.Server])
    assert_type(tx.serve(deferring, framing=FRAMING, codec=CODEC), Deferred[tx.Server[Reading]])
    assert_type(tx.serve_udp(OfFrames(), framing=FRAMING), Deferred[tx.Server[bytes]])
    tx.serve(deferring)  # type: ignore[arg-type]
    assert_type(tx.connect(*WHERE), Deferred[tx.Stream])
    assert_type(tx.connect(*WHERE, framing=FRAMING), Deferred[tx.Stream[bytes]])
    assert_type(tx.connect_udp(*WHERE, OfReadings(), framing=FRAMING, codec=CODEC), Deferred[Session[Reading]])
    assert_type(tx.request(session, Reading(1), match=lambda reply: reply.meter == 1), Deferred[Reading])
    tx.connect(*WHERE, OfFrames())  # type: ignore[arg-type]
    pool = tx.ConnectionPool(*WHERE, framing=FRAMING, codec=CODEC)
    assert_type(pool, tx.ConnectionPool[Reading])
    pool.use(deferring)
