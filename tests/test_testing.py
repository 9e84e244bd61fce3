"""What users test their applications with: it does what a runtime does, and tells what went wrong."""

from __future__ import annotations

import errno
import gc
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import (
    AsyncStream,
    Carrier,
    CloseReason,
    Config,
    Handler,
    LocalProtocolError,
    Malformed,
    Packet,
    PoolFull,
    Reason,
    Refusal,
    Session,
    SessionClosed,
    SessionPool,
    SyncStream,
    TLSInfo,
    WrongThread,
    encode,
    load_driver,
)
from packetcore.framings import COBS, LengthPrefix
from packetcore.layout import U8, Layout
from packetcore.testing import Clock, FakeDatagramEndpoint, FakeDatagramSession, FakeEndpoint, FakeSession, Pair
from packetcore.testing._clock import Event
from tests.made_up_host import Recorder

PING = Packet(1, b"ping")
PONG = Packet(1, b"pong")
BEAT = Packet(9, b"beat")
BIG = Packet(3, bytes(1 << 20))

BUSY = OSError(errno.EAGAIN, "no room")
UNREACHABLE = OSError(errno.EHOSTUNREACH, "unreachable")


class Gateway(Handler):
    """Replies, binds, closes and fails as it is told."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def connected(self, session: Session) -> None:
        self.calls.append("connected")

    def packet_received(self, session: Session, packet: Packet) -> None:
        match packet.payload:
            case b"ping":
                session.send(PONG)
            case b"bye":
                session.close()
            case b"pause":
                session.pause()
            case b"fail":
                raise ZeroDivisionError("a bug of the application")
            case name:
                session.bind(name)

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self.calls.append(malformed.reason)

    def writable(self, session: Session) -> None:
        self.calls.append("writable")

    def error_received(self, session: Session, error: OSError) -> None:
        self.calls.append(error)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self.calls.append(reason)


# The clock.


def test_what_is_due_is_called_in_order_and_what_was_called_off_is_not() -> None:
    clock, called = Clock(now=5.0), list[tuple[str, float]]()

    def at(name: str) -> Callable[[], object]:
        return lambda: called.append((name, clock.now))

    clock.call_at(8.0, at("late"))
    off = clock.call_at(7.0, at("called off"))
    clock.call_at(7.0, at("first of two"))
    clock.call_at(7.0, lambda: [at("second of two")(), clock.call_at(7.0, at("soon"))])
    clock.call_at(1.0, at("past"))
    off.cancel()
    clock.settle()
    assert called == [("past", 5.0)]
    clock.advance(2.0)
    assert called[1:] == [("first of two", 7.0), ("second of two", 7.0), ("soon", 7.0)]
    clock.advance(3.0)
    assert called[4:] == [("late", 8.0)]
    assert clock.now == 10.0


# A session.


def test_a_handler_is_tested_in_three_lines() -> None:
    session = FakeSession(Gateway())
    session.feed(Packet(1, b"ping"))
    assert session.sent == [Packet(1, b"pong")]


def test_packets_and_bytes_that_are_fed_together_are_one_chunk_unless_they_are_to_be_cut() -> None:
    session = FakeSession(Gateway())
    session.feed(PING, encode(PING), bytearray(encode(PING)))
    assert session.sent == [PONG] * 3
    assert session.writes == [encode(PONG) * 3]
    session.sent.clear()
    session.feed(PING, PING, chunk=1)
    assert session.sent == [PONG] * 2
    assert len(session.writes) == 3
    session.feed()
    session.feed_bytes(b"")
    assert session.session.stats.bytes_received == 5 * len(encode(PING))


def test_bytes_are_fed_as_they_stand() -> None:
    gateway = Gateway()
    session = FakeSession(gateway)
    session.feed(b"noise" + encode(PING)[:-1])
    assert gateway.calls == ["connected", Reason.NOISE]
    session.eof()
    assert gateway.calls[2:] == [Reason.TRUNCATED, CloseReason.PEER]


def test_what_is_sent_outside_the_handler_has_left_when_one_looks() -> None:
    session = FakeSession(Gateway())
    session.session.send(PING)
    session.session.send(BEAT)
    assert session.sent == [PING, BEAT]
    assert session.writes == [encode(PING) + encode(BEAT)]


def test_deadlines_fire_at_their_time_and_in_order() -> None:
    config = Config(idle_timeout=60.0, keepalive_interval=25.0, keepalive_packet=BEAT)
    gateway, clock = Gateway(), Clock(now=500.0)
    server = FakeEndpoint(gateway, config, clock=clock)
    first = FakeSession(server)
    clock.advance(10.0)
    second = FakeSession(server)
    second.advance(49.5)
    assert first.sent == [BEAT] * 2
    assert len(server.sessions) == 2
    server.advance(0.5)
    assert first.close_reason is CloseReason.IDLE_TIMEOUT
    assert second.close_reason is None
    assert clock.time() == 560.0
    ends: list[tuple[float, int]] = []
    gateway.disconnected = lambda session, reason: ends.append((clock.now, session.id))  # type: ignore[method-assign]
    third = FakeSession(server)
    clock.advance(1_000.0)
    assert ends == [(570.0, second.session.id), (620.0, third.session.id)]


def test_a_close_is_over_at_once_with_a_peer_that_closes_too() -> None:
    gateway = Gateway()
    session = FakeSession(gateway)
    session.feed(PING, Packet(1, b"bye"), PING)
    assert session.sent == [PONG]
    assert session.close_reason is CloseReason.LOCAL
    assert session.is_over
    assert not session.was_reset
    assert gateway.calls == ["connected", CloseReason.LOCAL]


def test_a_peer_that_does_not_close_is_waited_for() -> None:
    session = FakeSession(Gateway(), Config(close_timeout=5.0))
    session.peer_closes = False
    session.feed(Packet(1, b"bye"))
    session.feed(PING)  # the peer may send on, and nobody hears it
    session.advance(4.0)
    assert session.close_reason is None
    session.advance(1.0)
    assert session.is_over
    assert session.was_reset
    assert session.sent == []


def test_a_peer_that_has_closed_does_not_close_again() -> None:
    class Late(Gateway):
        def eof_received(self, session: Session) -> None:
            self.session = session

    late = Late()
    session = FakeSession(late)
    session.eof()
    assert session.close_reason is None
    late.session.send(PONG)
    late.session.close()
    assert session.sent == [PONG]
    assert session.close_reason is CloseReason.PEER


def test_a_stream_that_is_cut_without_a_word_is_a_reset() -> None:
    session = FakeSession(Gateway())
    session.eof(truncated=True)
    assert session.close_reason is CloseReason.RESET


def test_what_came_before_a_loss_is_delivered() -> None:
    gateway = Gateway()
    session = FakeSession(gateway)
    session.feed(Packet(1, b"pause"))
    session.feed(Packet(7, b"fail"))
    assert session.unread == len(encode(Packet(7, b"fail")))
    with pytest.raises(ZeroDivisionError):
        session.lost()
    assert gateway.calls[-1] is CloseReason.RESET
    assert FakeSession(Gateway()).unread == 0


def test_a_loss_has_the_error_that_it_is_given_and_may_follow_the_end() -> None:
    class Late(Handler):
        def eof_received(self, session: Session) -> None:
            pass

    session = FakeSession(Late())
    session.eof()
    session.lost(TimeoutError("no route"))
    assert session.close_reason is CloseReason.RESET


def test_a_paused_session_is_given_the_rest_once_it_goes_on() -> None:
    session = FakeSession(Gateway())
    session.feed(Packet(1, b"pause"))
    session.feed(PING)
    session.feed(PING)
    session.eof()
    assert session.sent == []
    session.session.resume()
    assert session.sent == [PONG] * 2
    assert session.close_reason is CloseReason.PEER


def test_a_full_buffer_of_the_system_makes_the_session_wait() -> None:
    gateway = Gateway()
    session = FakeSession(gateway, Config(write_high_water=100, write_low_water=20))
    session.room = 30
    big = Packet(2, bytes(200))
    session.session.send(big)
    assert session.sent == []
    assert session.writes == [encode(big)]
    assert session.room == 0
    assert session.session.outstanding == len(encode(big)) - 30
    assert session.session.write_paused
    session.feed(PING)
    assert session.unread, "a server does not read from a peer that does not read"
    session.room = len(encode(big))
    assert "writable" in gateway.calls
    assert session.sent == [big, PONG]
    session.room = None
    session.feed(PING)
    assert session.sent == [big, PONG, PONG]


def test_a_peer_that_takes_nothing_is_idle() -> None:
    session = FakeSession(Gateway(), Config(idle_timeout=60.0))
    session.room = 0
    session.session.send(PING)
    session.advance(59.0)
    session.room = 4
    session.advance(59.0)
    assert not session.is_over, "what it takes of a backlog is a sign of life"
    session.advance(1.0)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT
    assert session.writes == [encode(PING)]


def test_a_peer_that_reads_too_little_is_closed_as_a_slow_consumer() -> None:
    config = Config(write_high_water=100, write_low_water=20, max_outstanding=1_000)
    session = FakeSession(Gateway(), config)
    session.room = 0
    session.session.send(Packet(2, bytes(2_000)))
    assert session.close_reason is CloseReason.SLOW_CONSUMER
    assert session.was_reset
    session.room = None
    assert session.sent == []


def test_who_sends_for_as_long_as_there_is_room_is_told_that_there_always_is() -> None:
    class Endless(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            while session.send(BIG):
                pass

        def writable(self, session: Session) -> None:
            self.packet_received(session, BIG)

    session = FakeSession(Endless())
    session.room = 1 << 20
    session.feed(PING)
    assert session.session.write_paused
    session = FakeSession(Endless())
    with pytest.raises(RuntimeError, match=r"bytes were sent at 0\.0 s and there is no end"):
        session.feed(PING)


def test_a_session_that_closes_sends_first_what_waits() -> None:
    session = FakeSession(Gateway())
    session.room = 0
    session.feed(PING, Packet(1, b"bye"))
    assert session.close_reason is None
    session.room = None
    assert session.sent == [PONG]
    assert session.close_reason is CloseReason.LOCAL


def test_the_end_of_a_peer_that_was_waited_for_waits_for_what_is_unsent() -> None:
    class Late(Handler):
        def eof_received(self, session: Session) -> None:
            session.send(PONG)
            session.close()

    session = FakeSession(Late())
    session.room = 3
    session.eof()
    assert not session.is_over
    session.room = None
    assert session.sent == [PONG]
    assert session.is_over


def test_a_request_has_its_reply_or_runs_out_of_time() -> None:
    session = FakeSession(Gateway(), is_server=False)
    replies: list[Any] = []
    session.session.request(Packet(7), replies.append, timeout=2.0)
    session.session.request(Packet(8), replies.append, timeout=2.0)
    assert session.sent == [Packet(7), Packet(8)]
    session.feed(Packet(8, b"21"))
    session.advance(2.0)
    assert replies[0] == Packet(8, b"21")
    assert isinstance(replies[1], TimeoutError)


def test_what_another_thread_has_called_soon_is_called() -> None:
    session = FakeSession(Gateway())
    raised: list[Exception] = []

    def elsewhere() -> None:
        try:
            session.session.send(PING)
        except WrongThread as error:
            raised.append(error)
        session.session.call_soon(session.session.send, PING)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)
    assert len(raised) == 1
    assert session.sent == [PING]


def test_what_a_handler_asks_of_the_carrier_is_what_the_test_says() -> None:
    told = Carrier("tcp", tls=TLSInfo("TLSv1.3", "X", subject=(("commonName", "meter 7"),)))
    assert FakeSession(Gateway(), carrier=told).session.carrier is told
    session = FakeSession(Gateway(), peer=("2001:db8::7", 7, 0, 0))
    assert session.session.peer == ("2001:db8::7", 7, 0, 0)
    assert session.session.carrier == Carrier("tcp", ("192.0.2.254", 5000))
    assert "2001:db8::7" in repr(session)


# Mistakes, of the application and of the test.


def fails_in_line(error: BaseException) -> str | None:
    return traceback.extract_tb(error.__traceback__)[-1].line


def test_what_a_handler_raises_comes_out_of_the_test_with_its_own_traceback() -> None:
    gateway = Gateway()
    session = FakeSession(gateway)
    with pytest.raises(ZeroDivisionError) as caught:
        session.feed(PING, Packet(1, b"fail"), PING)
    assert fails_in_line(caught.value) == 'raise ZeroDivisionError("a bug of the application")'
    assert session.close_reason is CloseReason.HANDLER_ERROR
    assert session.sent == [PONG]
    assert session.errors == [caught.value]
    assert gateway.calls[-1] is CloseReason.HANDLER_ERROR


def test_what_a_handler_raises_may_be_kept_instead() -> None:
    session = FakeSession(Gateway(), reraise=False)
    session.feed(Packet(1, b"fail"))
    assert session.close_reason is CloseReason.HANDLER_ERROR
    assert [type(error) for error in session.errors] == [ZeroDivisionError]


def test_of_several_errors_the_first_is_raised_when_all_is_over() -> None:
    class Worse(Gateway):
        def disconnected(self, session: Session, reason: CloseReason) -> None:
            super().disconnected(session, reason)
            raise LookupError("and another")

    worse = Worse()
    session = FakeSession(worse)
    with pytest.raises(ZeroDivisionError):
        session.feed(Packet(1, b"fail"))
    assert worse.calls == ["connected", CloseReason.HANDLER_ERROR]
    assert [type(error) for error in session.errors] == [ZeroDivisionError, LookupError]


def test_an_error_stops_the_clock_at_its_time_and_what_is_due_later_is_done_later() -> None:
    class Fails(Gateway):
        def disconnected(self, session: Session, reason: CloseReason) -> None:
            raise ZeroDivisionError

    server = FakeEndpoint(Fails(), Config(idle_timeout=60.0))
    FakeSession(server)
    server.advance(30.0)
    FakeSession(server)
    with pytest.raises(ZeroDivisionError):
        server.advance(1_000.0)
    assert server.clock.now == 60.0
    assert len(server.sessions) == 1
    with pytest.raises(ZeroDivisionError):
        server.advance(1_000.0)
    assert server.clock.now == 90.0


def test_a_handler_that_ends_the_program_ends_the_test() -> None:
    class Ends(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            raise SystemExit(3)

    session = FakeSession(Ends())
    with pytest.raises(SystemExit):
        session.feed(PING)


def test_a_framing_s_own_error_is_not_hidden_either() -> None:
    class Careless(Layout[Any]):
        def decode(self, frame: bytes) -> Any:
            raise AttributeError("a bug of the codec")

    @dataclass(frozen=True)
    class Reading:
        meter: U8

    session = FakeSession(Handler[Reading](), framing=COBS(), codec=Careless(Reading))
    with pytest.raises(AttributeError):
        session.feed(Reading(7))


def test_feeding_a_session_that_is_over_says_so_and_why() -> None:
    session = FakeSession(Gateway())
    session.eof()
    attempts: dict[str, Callable[[], object]] = {
        "feed": lambda: session.feed(PING),
        "eof": session.eof,
        "lost": session.lost,
    }
    for what, attempt in attempts.items():
        with pytest.raises(LocalProtocolError, match=rf"^{what}: .*192\.0\.2\.1.* is over, PEER"):
            attempt()


def test_a_peer_that_has_finished_sends_nothing_more() -> None:
    session = FakeSession(Gateway())
    session.feed(Packet(1, b"pause"))
    session.eof()
    attempts: list[Callable[[], object]] = [lambda: session.feed(PING), session.eof]
    for attempt in attempts:
        with pytest.raises(LocalProtocolError, match="has finished sending"):
            attempt()


OTHERS_OF_AN_ENDPOINT: dict[str, Any] = {
    "config": Config(),
    "is_server": False,
    "framing": COBS(),
    "codec": object(),
    "peer_codec": object(),
    "clock": Clock(),
    "reraise": False,
}


def test_wrong_arguments_are_named() -> None:
    server = FakeEndpoint(Gateway())
    udp = FakeDatagramEndpoint(Gateway())
    session = FakeSession(server)
    attempts: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: FakeSession(Gateway), TypeError, "Gateway.*is no Handler"),  # type: ignore[arg-type]
        (lambda: FakeSession(7), TypeError, "7 is no Handler"),  # type: ignore[arg-type]
        (lambda: FakeSession(server, Config()), TypeError, "the rest is the endpoint's"),
        (lambda: FakeSession(server, is_server=False), TypeError, "the rest is the endpoint's"),
        *(
            (partial(make, **{name: value}), TypeError, "the rest is the endpoint's")
            for name, value in OTHERS_OF_AN_ENDPOINT.items()
            for make in (partial(FakeSession, server), partial(FakeDatagramSession, udp))
        ),
        (lambda: [FakeDatagramSession(udp, peer=("192.0.2.7", 7)) for _ in "ab"], ValueError, r"192\.0\.2\.7"),
        (lambda: session.feed(7), TypeError, "int"),  # type: ignore[arg-type]
        (lambda: session.feed(PING, chunk=0), ValueError, "chunk=0"),
        (lambda: setattr(session, "room", -1), ValueError, "room=-1"),
        (lambda: session.advance(-1.0), ValueError, r"seconds=-1\.0"),
        (lambda: session.result, LocalProtocolError, "result"),
        (lambda: session.stream, LocalProtocolError, "stream"),
    ]
    for attempt, error, text in attempts:
        with pytest.raises(error, match=text):
            attempt()
    assert session.is_over is False


def test_a_handler_cannot_let_time_pass_but_may_look() -> None:
    class Hasty(Gateway):
        def packet_received(self, session: Session, packet: Packet) -> None:
            self.seen = [*fake.sent]
            if packet.payload == b"again":
                fake.feed(PING)  # what its peer would do meanwhile
            else:
                fake.advance(1.0)

    hasty = Hasty()
    fake = FakeSession(hasty)
    with pytest.raises(LocalProtocolError, match="no time passes while a handler runs"):
        fake.feed(Packet(1, b"again"))
    assert hasty.seen == []


def test_what_never_comes_to_rest_is_an_error() -> None:
    class Restless(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            session.call_soon(self.packet_received, session, packet)

    with pytest.raises(RuntimeError, match="still busy"):
        FakeSession(Restless()).feed(PING)


# Several sessions of one server.


def test_an_identity_passes_from_one_session_to_the_next() -> None:
    server = FakeEndpoint(Gateway())
    old, new = FakeSession(server), FakeSession(server)
    old.feed(Packet(1, b"meter 7"))
    new.feed(Packet(1, b"meter 7"))
    assert old.close_reason is CloseReason.REPLACED
    assert server.sessions.find(b"meter 7") is new.session
    for session in server.sessions:
        session.send(BEAT)
    assert (old.sent, new.sent) == ([], [BEAT])


def test_a_peer_above_a_cap_is_refused() -> None:
    gateway = Gateway()
    server = FakeEndpoint(gateway, Config(max_sessions=2, max_sessions_per_host=1))
    first = FakeSession(server)
    second = FakeSession(server)
    other = FakeSession(server, peer=("192.0.2.2", 1))
    third = FakeSession(server, peer=("192.0.2.3", 1))
    assert [each.close_reason for each in (first, second, other, third)] == [
        None,
        CloseReason.REFUSED,
        None,
        CloseReason.REFUSED,
    ]
    assert server.stats.refusals == {Refusal.MAX_SESSIONS_PER_HOST: 1, Refusal.MAX_SESSIONS: 1}
    assert gateway.calls == ["connected"] * 2
    with pytest.raises(LocalProtocolError, match="is over, REFUSED"):
        second.feed(PING)


def test_a_server_that_closes_waits_for_handlers_that_are_busy_for_as_long_as_it_says() -> None:
    class Busy(Gateway):
        def draining(self, session: Session) -> None:
            if session.identity is None:
                super().draining(session)

    server = FakeEndpoint(Busy())
    idle, busy = FakeSession(server), FakeSession(server)
    busy.feed(Packet(1, b"an order"))
    server.close(grace=5.0)
    assert idle.close_reason is CloseReason.SHUTDOWN
    assert FakeSession(server).close_reason is CloseReason.REFUSED
    busy.feed(PING)
    busy.advance(5.0)
    assert busy.sent == [PONG]
    assert busy.close_reason is CloseReason.SHUTDOWN


# Packets of other kinds.


@dataclass(frozen=True)
class Ask:
    register: U8


@dataclass(frozen=True)
class Answer:
    register: U8
    value: U8


class Slave:
    """What a slave on a bus speaks: it hears questions and gives answers."""

    def encode(self, packet: Ask | Answer) -> bytes:
        return Layout(Answer).encode(packet)  # type: ignore[arg-type]

    def decode(self, frame: bytes) -> Ask | Answer:
        return Layout(Ask).decode(frame)


class Master:
    """And a master."""

    def encode(self, packet: Ask | Answer) -> bytes:
        return Layout(Ask).encode(packet)  # type: ignore[arg-type]

    def decode(self, frame: bytes) -> Ask | Answer:
        return Layout(Answer).decode(frame)


class Device(Handler["Ask | Answer"]):
    def packet_received(self, session: Session[Ask | Answer], packet: Ask | Answer) -> None:
        session.send(Answer(packet.register, 21))


def test_packets_of_a_codec_are_fed_and_sent_and_either_side_may_speak_its_own() -> None:
    session = FakeSession(Device(), framing=COBS(), codec=Slave(), peer_codec=Master())
    session.feed(Ask(3))
    assert session.sent == [Answer(3, 21)]
    session.feed(COBS().encode(b"\x04"))
    assert session.sent[1:] == [Answer(4, 21)]
    pair = Pair(Handler["Ask | Answer"](), Device(), framing=COBS(), codec=Slave(), client_codec=Master())
    pair.client.session.send(Ask(5))
    assert pair.client.sent == [Ask(5)]
    assert pair.server.sent == [Answer(5, 21)]


def test_over_udp_too_either_side_may_speak_its_own() -> None:
    clock = Clock(7.0)
    options: dict[str, Any] = {"framing": COBS(), "codec": Slave(), "peer_codec": Master(), "clock": clock}
    for session in (
        FakeDatagramSession(Device(), **options),
        FakeDatagramSession(FakeDatagramEndpoint(Device(), **options)),
    ):
        session.feed(Ask(3))
        session.feed(COBS().encode(b"\x04"))
        assert session.sent == [Answer(3, 21), Answer(4, 21)]
        assert session.clock is clock


def test_over_udp_too_errors_are_raised_or_kept_and_the_carrier_is_what_the_test_says() -> None:
    told, default = Carrier("udp", ("2001:db8::1", 5, 0, 0)), Carrier("udp", ("192.0.2.254", 5000))
    for reraise in (True, False):
        alone = FakeDatagramSession(Gateway(), reraise=reraise)
        one_of_many = FakeDatagramSession(FakeDatagramEndpoint(Gateway(), reraise=reraise, carrier=told))
        for session, carrier in ((alone, default), (one_of_many, told)):
            session.feed(PING)
            assert session.session.carrier == carrier
            with pytest.raises(ZeroDivisionError) if reraise else nullcontext():
                session.feed(Packet(1, b"fail"))
            assert [type(error) for error in session.errors] == [ZeroDivisionError]
    with pytest.raises(ZeroDivisionError):
        FakeDatagramSession(FakeDatagramEndpoint(Gateway())).feed(Packet(1, b"fail"))
    small = FakeDatagramSession(FakeDatagramEndpoint(Gateway(), Config(max_payload=3)))
    small.feed(PING)
    assert small.endpoint.stats.malformed[Reason.TOO_LONG] == 1


def test_a_datagram_to_a_socket_that_is_closed_says_what_was_tried() -> None:
    session = FakeDatagramSession(Gateway())
    session.endpoint.close()
    attempts: dict[str, Callable[[], object]] = {
        "feed": lambda: session.feed(PING),
        "error": lambda: session.error(OSError()),
    }
    for what, attempt in attempts.items():
        with pytest.raises(LocalProtocolError, match=f"^{what}: the socket to .* is closed"):
            attempt()


def test_peers_have_addresses_of_their_own_in_the_order_of_coming() -> None:
    server = FakeEndpoint(Handler())
    assert [FakeSession(server).session.peer for _ in range(3)] == [("192.0.2.1", 50_000 + n) for n in (1, 2, 3)]
    session = FakeSession(Handler(), Config(max_payload=3), is_server=False)
    session.session.send(Packet(1, b"abc"))
    assert session.sent == [Packet(1, b"abc")]


class Reversing:
    """A codec that both sides can speak."""

    def encode(self, packet: bytes, /) -> bytes:
        return packet[::-1]

    decode = encode


def test_a_pair_is_a_client_and_a_server_with_all_that_it_was_given() -> None:
    pair = Pair(Handler(), Handler(), Config(max_payload=3))
    for end, is_server in ((pair.client, False), (pair.server, True)):
        assert end.session._endpoint.is_server is is_server
        with pytest.raises(LocalProtocolError, match="max_payload=3"):
            end.session.send(PING)
    framed = Pair(Handler[bytes](), Handler[bytes](), framing=COBS(), codec=Reversing())
    framed.client.session.send(b"abc")
    assert framed.client.sent == [b"abc"]
    assert framed.client.writes == [COBS().encode(b"cba")]
    for reraise in (True, False):
        for side in ("client", "server"):
            both = Pair(Gateway(), Gateway(), reraise=reraise)
            with pytest.raises(ZeroDivisionError) if reraise else nullcontext():
                getattr(both, side).feed(Packet(1, b"fail"))
    with pytest.raises(ZeroDivisionError):
        Pair(Gateway(), Gateway()).client.feed(Packet(1, b"fail"))
    lost, error = Pair(Gateway(), Gateway()), OSError("the cable")
    lost.lost(error)
    assert lost.server.is_over


class Shouting(Handler[bytes]):
    def packet_received(self, session: Session[bytes], packet: bytes) -> None:
        session.send(packet.upper())


def test_bytes_are_packets_where_a_framing_has_no_codec() -> None:
    session = FakeSession(Shouting(), framing=LengthPrefix(2))
    session.feed(b"hello")
    session.feed_bytes(b"\x00\x01x")
    assert session.sent == [b"HELLO", b"X"]
    session.feed(bytes(1 << 15), chunk=1_000)
    assert len(session.sent) == 3
    peer = FakeDatagramSession(Shouting(), framing=COBS())
    peer.feed(b"hello")
    peer.feed_bytes(COBS().encode(b"x"))
    assert peer.sent == [b"HELLO", b"X"]


def test_a_peer_may_send_a_frame_longer_than_this_side_allows() -> None:
    session = FakeSession(Shouting(), Config(max_payload=10), framing=COBS())
    session.feed(bytes(11), b"x")
    assert session.session.stats.malformed == {Reason.TOO_LONG: 1}
    assert session.close_reason is None
    assert session.sent == [b"X"]


# Functions over a stream.


async def echo(stream: AsyncStream) -> str:
    async for packet in stream:
        await stream.send(packet)
    return "done"


def test_a_function_over_a_stream_needs_no_runtime() -> None:
    session = FakeSession(echo)
    session.feed(PING, BEAT, chunk=1)
    assert session.sent == [PING, BEAT]
    with pytest.raises(LocalProtocolError, match="has returned"):
        session.result  # noqa: B018
    session.eof()
    assert session.result == "done"
    assert session.close_reason is CloseReason.PEER


def test_a_function_may_ask_and_sleep_and_time_passes_as_the_test_says() -> None:
    clock = Clock()

    async def poll(stream: AsyncStream) -> list[bytes]:
        values = []
        for _ in range(2):
            values.append((await stream.request(Packet(7), timeout=2.0)).payload)
            await clock.sleep(10.0)
        with pytest.raises(TimeoutError):
            await stream.request(Packet(8), timeout=2.0)
        return values

    session = FakeSession(poll, is_server=False, clock=clock)
    for value in (b"20", b"21"):
        assert session.sent == [Packet(7)]
        session.sent.clear()
        session.feed(Packet(7, value))
        assert session.sent == []
        session.advance(10.0)
    assert session.sent == [Packet(8)]
    session.advance(2.0)
    assert session.result == [b"20", b"21"]
    assert session.close_reason is CloseReason.LOCAL


def test_a_function_that_sends_waits_for_room() -> None:
    async def flood(stream: AsyncStream) -> None:
        for number in range(10):
            await stream.send(Packet(number, bytes(100)))

    session = FakeSession(flood, Config(write_high_water=100, write_low_water=20))
    assert len(session.sent) == 10
    assert session.close_reason is CloseReason.LOCAL

    async def late(stream: AsyncStream) -> None:
        await stream.recv()
        await flood(stream)

    slow = FakeSession(late, Config(write_high_water=250, write_low_water=20))
    slow.room = 0
    slow.feed(PING)
    assert 0 < slow.session.outstanding < 500
    slow.room = None
    assert len(slow.sent) == 10


def test_a_reply_that_is_there_before_a_function_waits_is_not_waited_for() -> None:
    clock, woken = Clock(), list[Event]()

    async def wait(stream: AsyncStream) -> str:
        woken.append(Event(clock))
        woken[0].set()
        await woken[0].wait()
        return "at once"

    assert FakeSession(wait, clock=clock).result == "at once"


def test_what_a_function_raises_comes_out_of_the_test_too() -> None:
    async def fail(stream: AsyncStream) -> None:
        await stream.recv()
        raise ZeroDivisionError("a bug of the application")

    session = FakeSession(fail)
    with pytest.raises(ZeroDivisionError) as caught:
        session.feed(PING)
    assert fails_in_line(caught.value) == 'raise ZeroDivisionError("a bug of the application")'
    assert session.close_reason is CloseReason.HANDLER_ERROR


def test_what_belongs_to_a_runtime_cannot_be_awaited_without_one() -> None:
    class Future:
        def __await__(self) -> Any:
            yield "a future"

    async def alien(stream: AsyncStream) -> None:
        await Future()

    with pytest.raises(TypeError, match="'a future' was awaited, which belongs to a runtime"):
        FakeSession(alien)

    async def stubborn(stream: AsyncStream) -> bytes:
        with pytest.raises(TypeError):
            await Future()
        return (await stream.recv()).payload

    session = FakeSession(stubborn)
    session.feed(PING)
    assert session.result == b"ping"


def test_a_function_that_does_not_await_is_told_what_there_is_for_it() -> None:
    with pytest.raises(TypeError, match="a blocking one is called with the `stream`"):
        FakeSession(print)  # type: ignore[arg-type]


def test_what_a_test_leaves_behind_complains_of_nothing() -> None:
    program = """
import gc
from packetcore import Packet
from packetcore.testing import FakeSession
async def serve(stream):
    async with stream:
        try:
            await stream.recv()
        finally:
            await stream.close()
for _ in range(3):
    session = FakeSession(serve)
    session.feed(b"\\xfe")
del session
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_of_a_function_left_behind_runs_no_further_than_its_stream() -> None:
    ends: list[str] = []

    async def serve(stream: AsyncStream) -> None:
        try:
            await stream.recv()
        finally:
            ends.append("left")
            await stream.close()
            ends.append("closed")

    clock = Clock()
    FakeSession(FakeEndpoint(serve, clock=clock))
    clock.advance(1_000.0)  # the session has ended, and its function with it
    assert ends == ["left", "closed"]
    FakeSession(serve)
    gc.collect()
    assert ends[2:] == ["left"]


def test_what_a_test_leaves_behind_may_be_collected_on_any_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    FakeSession(echo).feed(PING)
    collecting = threading.Thread(target=gc.collect)
    collecting.start()
    collecting.join()
    assert said == []


def test_a_function_goes_on_though_another_of_its_clock_was_left_behind() -> None:
    clock = Clock()

    async def left(stream: AsyncStream) -> None:
        await Event(clock)  # for which nobody waits but this

    FakeSession(left, Config(idle_timeout=None, frame_timeout=None), clock=clock)
    gc.collect()
    session = FakeSession(echo, clock=clock)
    session.feed(PING)
    session.feed(BEAT)
    assert session.sent == [PING, BEAT]


def read_meter(stream: SyncStream) -> bytes:
    """A function that blocks: it gives up after the second try."""
    for _ in range(2):
        try:
            return stream.request(Packet(7), timeout=2.0, wait=True).payload
        except TimeoutError:
            pass
    return b"?"


def test_a_function_that_blocks_is_called_with_a_stream_and_time_passes_where_it_waits() -> None:
    class Meter(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            session.send(Packet(packet.id, b"230 V"))

    pair = Pair(SyncStream, Meter())
    assert read_meter(pair.client.stream) == b"230 V"
    assert pair.clock.now == 0.0
    session = FakeSession(SyncStream, Config(request_hold=0.0), is_server=False)
    assert read_meter(session.stream) == b"?"
    assert session.clock.now == 4.0
    session.feed(PING, BEAT)
    assert session.stream.recv() == PING
    assert session.stream.recv(timeout=0.0) == BEAT
    with pytest.raises(TimeoutError):
        session.stream.recv(timeout=5.0)
    session.room = 0
    session.stream.send(PING)  # there is room yet for it to wait in
    assert session.clock.now == 9.0
    session.room = None
    with pytest.raises(SessionClosed) as ended:
        session.stream.recv()
    assert ended.value.reason is CloseReason.IDLE_TIMEOUT
    assert session.clock.now == 69.0, "what it took of a backlog was a sign of life"


def test_a_function_that_blocks_for_ever_is_an_error() -> None:
    session = FakeSession(SyncStream, Config(idle_timeout=None))
    with pytest.raises(TimeoutError):
        session.stream.recv(timeout=1.0)
    with pytest.raises(LocalProtocolError, match="never comes"):
        session.stream.recv()


# UDP.


def test_a_peer_over_udp_is_tested_in_three_lines() -> None:
    peer = FakeDatagramSession(Gateway())
    peer.feed(Packet(1, b"ping"))
    assert peer.sent == [Packet(1, b"pong")]


def test_each_packet_is_a_datagram_and_silence_ends_the_session() -> None:
    gateway = Gateway()
    peer = FakeDatagramSession(gateway, Config(idle_timeout=60.0))
    with pytest.raises(LocalProtocolError, match="has sent no packet"):
        peer.session  # noqa: B018
    peer.feed(b"noise")
    assert gateway.calls == []
    peer.feed(PING, PING, encode(PING) * 2)
    assert peer.sent == [PONG] * 4
    assert peer.writes == [encode(PONG)] * 4
    first = peer.session
    assert peer.close_reason is None
    peer.advance(60.0)
    assert peer.is_over
    assert first.close_reason is CloseReason.IDLE_TIMEOUT
    peer.feed(PING)
    assert peer.session is not first
    assert peer.session.is_open
    assert peer.session.carrier.kind == "udp"


def test_peers_of_one_socket_are_told_apart() -> None:
    server = FakeDatagramEndpoint(Gateway(), Config(max_sessions=2))
    old, new = FakeDatagramSession(server), FakeDatagramSession(server)
    third = FakeDatagramSession(server, peer=("192.0.2.3", 1))
    for peer in (old, new):
        peer.feed(Packet(1, b"meter 7"), PING)
    assert old.close_reason is CloseReason.REPLACED
    new.feed(PING)
    assert (old.sent, new.sent) == ([PONG], [PONG] * 2)
    server.endpoint.received(encode(PING), ("192.0.2.9", 9), server.clock.now)
    assert server.writes[-1] == (encode(PONG), ("192.0.2.9", 9)), "also to peers that no test plays"
    third.feed(PING)
    assert server.stats.refusals == {Refusal.MAX_SESSIONS: 1}
    with pytest.raises(PoolFull):
        server.endpoint.open(("192.0.2.8", 8), server.clock.now)


def test_what_the_system_says_of_a_datagram_reaches_the_handler() -> None:
    gateway = Gateway()
    peer = FakeDatagramSession(gateway)
    peer.feed(Packet(1, b"meter 7"))
    peer.failure = BUSY
    peer.feed(PING)
    assert peer.sent == []
    assert peer.session.stats.packets_dropped == 1
    peer.failure = UNREACHABLE
    peer.feed(PING)
    peer.error(BUSY)
    assert gateway.calls[1:] == [UNREACHABLE, BUSY]


def test_a_client_over_udp_has_its_session_at_once_and_closes_its_socket() -> None:
    session = FakeDatagramSession(Gateway(), is_server=False)
    replies: list[Any] = []
    session.session.request(Packet(7), replies.append, timeout=2.0)
    assert session.sent == [Packet(7)]
    session.feed(Packet(7, b"21"))
    assert replies == [Packet(7, b"21")]
    session.session.close()
    assert session.close_reason is CloseReason.LOCAL
    assert session.endpoint.is_closed
    attempts: list[Callable[[], object]] = [lambda: session.feed(PING), lambda: session.error(BUSY)]
    for attempt in attempts:
        with pytest.raises(LocalProtocolError, match=r"is closed, LOCAL$"):
            attempt()


def test_a_server_over_udp_closes_its_socket() -> None:
    server = FakeDatagramEndpoint(Gateway())
    peer = FakeDatagramSession(server)
    peer.feed(PING)
    server.close()
    assert peer.close_reason is CloseReason.SHUTDOWN
    assert server.is_closed
    server.advance(5.0)


def test_a_function_over_a_stream_serves_a_peer_over_udp() -> None:
    peer = FakeDatagramSession(echo)
    peer.feed(PING)
    assert peer.sent == [PING]
    peer.advance(60.0)
    assert peer.errors == []


def test_a_frame_in_several_datagrams_is_one_packet() -> None:
    peer = FakeDatagramSession(echo, Config(datagram_chunk=10, datagram_stream=True))
    peer.feed(PING)
    assert list(map(len, peer.writes)) == [10, len(encode(PING)) - 10]
    assert peer.sent == [PING]


def test_tcp_and_udp_share_a_register_and_a_clock() -> None:
    clock, sessions = Clock(), SessionPool[Session](60.0)
    tcp = FakeSession(FakeEndpoint(Gateway(), sessions=sessions, clock=clock))
    udp = FakeDatagramSession(FakeDatagramEndpoint(Gateway(), sessions=sessions, clock=clock))
    tcp.feed(Packet(1, b"meter 7"))
    udp.feed(Packet(1, b"meter 7"))
    assert tcp.close_reason is CloseReason.REPLACED
    clock.advance(60.0)
    assert udp.close_reason is CloseReason.IDLE_TIMEOUT


# A pair.


class Greets(Handler):
    """Greets its peer before that is there, twice."""

    def connected(self, session: Session) -> None:
        session.send(PING)
        session.call_soon(session.send, PING)


def test_a_client_and_a_server_are_joined() -> None:
    pair = Pair(Greets(), Gateway())
    assert pair.client.sent == [PING] * 2
    assert pair.server.sent == [PONG] * 2
    pair.client.session.close()
    assert pair.client.close_reason is CloseReason.LOCAL
    assert pair.server.close_reason is CloseReason.PEER


@given(st.lists(st.integers(1, 20), max_size=40), st.lists(st.sampled_from([PING, BEAT]), max_size=6))
def test_however_the_bytes_are_cut_the_same_arrives(cuts: list[int], packets: list[Packet]) -> None:
    pair = Pair(Handler(), echo, cuts=cuts)
    for packet in packets:
        pair.client.session.send(packet)
    assert pair.server.sent == packets
    assert pair.client.session.stats.packets_received == len(packets)


def test_single_bytes_arrive_one_by_one() -> None:
    pair = Pair(echo, Handler(), cuts=repeat(1))
    pair.server.session.send(PING)
    pair.server.session.send(BEAT)
    assert pair.client.sent == [PING, BEAT]
    with pytest.raises(ValueError, match="cuts=0 must be"):
        Pair(Greets(), Gateway(), cuts=[0])


def test_a_pair_has_one_clock_and_each_its_limits() -> None:
    pair = Pair(Handler(), Handler(), Config(idle_timeout=60.0), client_config=Config(idle_timeout=30.0))
    pair.advance(30.0)
    assert pair.client.close_reason is CloseReason.IDLE_TIMEOUT
    assert pair.server.close_reason is CloseReason.PEER
    assert Pair(Handler(), Handler(), clock=pair.clock).clock.now == 30.0


def test_a_connection_breaks_for_both() -> None:
    pair = Pair(Handler(), Handler())
    pair.lost()
    assert pair.client.close_reason is pair.server.close_reason is CloseReason.RESET
    pair.lost()


def test_a_side_that_aborts_resets_the_other_and_what_is_under_way_to_it_is_lost() -> None:
    pair = Pair(Handler(), Gateway())
    pair.client.session.send(PING)
    pair.server.session.abort()
    assert pair.server.was_reset
    assert pair.client.close_reason is CloseReason.RESET


def test_a_side_that_pauses_leaves_the_other_with_its_bytes() -> None:
    pair = Pair(Handler(), Gateway())
    pair.client.session.send(Packet(1, b"pause"))
    pair.client.session.send(PING)
    assert pair.server.sent == []
    pair.server.session.resume()
    assert pair.server.sent == [PONG]


# As on sockets.


class Story(Recorder):
    """Notes what it hears, to whoever waits for the end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = threading.Event()

    def packet_received(self, session: Session, packet: Packet) -> None:
        super().packet_received(session, packet)
        Gateway.packet_received(self, session, packet)  # type: ignore[arg-type]

    def sent(self, session: Session, nbytes: int) -> None:
        """How much goes at a time is the system's."""

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        super().disconnected(session, reason)
        self.is_over.set()


SCRIPTS: dict[str, tuple[list[bytes], str]] = {
    "it leaves": ([encode(PING) * 2], "eof"),
    "it never said a word": ([], "eof"),
    "in the middle of a frame": ([encode(PING)[:5]], "eof"),
    "it is told to leave": ([encode(PING), encode(Packet(1, b"bye")) + encode(PING)], "nothing"),
    "noise": ([b"noise" + encode(PING) + b"\xfe\x01\xfe", encode(Packet(1, b"bye"))], "nothing"),
    "a handler that fails": ([encode(PING) + encode(Packet(1, b"fail")) + encode(PING)], "nothing"),
    "it is silent": ([encode(PING)], "silence"),
    "half a frame": ([encode(PING) + encode(PING)[:9]], "silence"),
    "it breaks": ([encode(PING)], "lost"),
}


@pytest.mark.parametrize("transport", ["asyncio", "blocking"])
@pytest.mark.parametrize(("chunks", "end"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_handler_hears_what_it_hears_on_sockets(transport: str, chunks: list[bytes], end: str) -> None:
    config = Config(idle_timeout=0.2, frame_timeout=0.1) if end == "silence" else Config()
    told = Story()
    session = FakeSession(told, config, reraise=False)
    for chunk in chunks:
        session.feed(chunk)
    if end == "eof":
        session.eof()
    elif end == "lost":
        session.lost()
    elif end == "silence":
        session.advance(1.0)
    assert session.is_over

    heard, replies = Story(), b""
    driver = load_driver(transport)
    try:
        server = driver.start_server(heard, config=config)
        with socket.create_connection(server.address[:2], timeout=10.0) as peer:
            for chunk in chunks:
                peer.sendall(chunk)
            if end == "eof":
                peer.shutdown(socket.SHUT_WR)
            elif end == "lost":
                replies = peer.recv(1000)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while end != "lost" and (data := peer.recv(1000)):
                replies += data
        assert heard.is_over.wait(10.0)
    finally:
        driver.stop()
    assert heard.calls == told.calls
    assert replies == b"".join(session.writes)
