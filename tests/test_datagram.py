"""UDP's endpoint on a made-up socket and a made-up clock: each of its rules, by itself."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from errno import EAGAIN, ECONNREFUSED, EHOSTUNREACH, ENOBUFS
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from packetcore import (
    Address,
    Carrier,
    CloseReason,
    Config,
    DatagramEndpoint,
    DatagramFraming,
    Decoder,
    Handler,
    LocalProtocolError,
    Malformed,
    Packet,
    PoolFull,
    Reason,
    Refusal,
    Session,
    SessionClosed,
    Wiretap,
    decode,
    encode,
)
from packetcore.framings import SLIP
from packetcore_conformance.strategies import chunked, special_bytes, streams

PING = Packet(1, b"ping")
PONG = Packet(2, b"pong")
DATAGRAM = encode(PING)

A: Address = ("192.0.2.1", 5000)
B: Address = ("192.0.2.2", 5000)
C: Address = ("2001:db8::3", 5000, 0, 0)


class MadeUpHost:
    """A socket that takes every datagram, or fails as a test wants, and notes each verb."""

    def __init__(self) -> None:
        self.sent: list[tuple[Address, Packet]] = []
        self.failures: dict[Address, OSError] = {}
        self.attempts = 0
        self.timer: float | None = None
        self.timers_set = 0
        self.wakes = 0
        self._closings = 0

    def write_to(self, data: bytes, addr: Address) -> None:
        assert not self._closings
        self.attempts += 1
        if addr in self.failures:
            raise self.failures[addr]
        self.sent.append((addr, decode(data)))

    def set_timer(self, at: float | None) -> None:
        self.timer = at
        self.timers_set += 1

    def wake(self) -> None:
        self.wakes += 1

    def carrier(self) -> Carrier:
        return Carrier("udp")

    def close(self) -> None:
        self._closings += 1

    def times_closed(self) -> int:
        return self._closings


class Recorder(Handler):
    """Notes each call with the peer's address, and does what a test hangs on one of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.on: dict[str, Callable[[Session], object]] = {}

    def _note(self, session: Session, name: str, *details: object) -> None:
        self.calls.append((name, session.peer, *details))
        if name in self.on:
            self.on[name](session)

    def connected(self, session: Session) -> None:
        self._note(session, "connected")

    def packet_received(self, session: Session, packet: Packet) -> None:
        self._note(session, "packet", packet)

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self._note(session, "malformed", malformed.reason)

    def sent(self, session: Session, nbytes: int) -> None:
        if "sent" in self.on:
            self._note(session, "sent", nbytes)

    def eof_received(self, session: Session) -> None:
        raise AssertionError("a datagram socket has no end of stream")

    def error_received(self, session: Session, error: OSError) -> None:
        self._note(session, "error", error)

    def draining(self, session: Session) -> None:
        self._note(session, "draining")
        if "draining" not in self.on:
            super().draining(session)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._note(session, "disconnected", reason)

    def named(self, name: str) -> list[tuple[object, ...]]:
        return [call for call in self.calls if call[0] == name]


class Rig:
    """An endpoint, a server's unless told otherwise, on a made-up host."""

    def __init__(self, config: Config | None = None, *, is_server: bool = True) -> None:
        self.handler = Recorder()
        self.host = MadeUpHost()
        self.log: list[str] = []
        self.endpoint = DatagramEndpoint(self.handler, config, is_server=is_server, log_exception=self.log.append)
        self.endpoint.host = self.host

    def open(self, addr: Address, now: float = 100) -> Session:
        """A peer's session, as its first datagram opens it."""
        self.endpoint.received(DATAGRAM, addr, now)
        (session,) = (session for session in self.endpoint.sessions if session.peer == addr)
        return session

    def held(self) -> tuple[int, int, int]:
        """How many sessions, peers and timers there are; of the timers those in waiting."""
        return len(self.endpoint.sessions), len(self.endpoint._peers), len(self.endpoint._timers)


def reply(packet: Packet) -> Callable[[Session], object]:
    return lambda session: session.send(packet)


def nothing(session: Session) -> None:
    pass


def test_a_stranger_who_is_refused_costs_no_session_and_no_handler() -> None:
    made: list[Handler] = []

    def handler() -> Handler:
        made.append(Handler())
        return made[-1]

    endpoint = DatagramEndpoint(handler, Config(max_sessions_per_host=1), is_server=True)
    endpoint.host = MadeUpHost()
    endpoint.received(DATAGRAM, ("192.0.2.1", 1), 100)
    endpoint.received(DATAGRAM, ("192.0.2.1", 2), 100)
    with pytest.raises(PoolFull, match=r"192\.0\.2\.1"):
        endpoint.open(("192.0.2.1", 3), 100)
    endpoint.drain(101, lambda: None)
    endpoint.received(DATAGRAM, B, 102)
    assert len(made) == 1
    assert endpoint.stats.refused == 2


def test_what_a_stranger_is_told_at_once_leaves_by_the_socket_it_came_in_on() -> None:
    unclaimed: list[Carrier] = []

    class Tap:
        def __getattr__(self, verb: str) -> Callable[..., None]:
            return lambda *args: None

        def unclaimed(self, endpoint: object, data: bytes, addr: Address, carrier: Carrier) -> None:
            unclaimed.append(carrier)

    class Other(MadeUpHost):
        def carrier(self) -> Carrier:
            return Carrier("other")

    handler, one, other, tap = Recorder(), MadeUpHost(), Other(), cast(Wiretap, Tap())
    endpoint = DatagramEndpoint(handler, Config(tap=tap), is_server=True)
    endpoint.attach(one)
    endpoint.attach(other)
    handler.on["connected"] = reply(PONG)
    endpoint.received(b"noise", A, 100, other)
    endpoint.received(DATAGRAM, A, 100, other)
    assert (one.sent, other.sent) == ([], [(A, PONG)])
    assert unclaimed == [Carrier("other")]


def test_a_frame_longer_than_a_datagram_is_cut_only_where_that_is_asked_for() -> None:
    with pytest.raises(LocalProtocolError, match="max_datagram=20"):
        DatagramFraming(100, 20).encode(Packet(1, bytes(50)))
    assert len(DatagramFraming(100, 20, cuts=True).encode(Packet(1, bytes(50)))) == 61


def test_a_codec_of_packets_is_asked_for_each_datagram() -> None:
    class Text:
        def encode(self, packet: str) -> bytes:
            return packet.encode()

        def decode(self, frame: bytes) -> str:
            return frame.decode()

    class Host(MadeUpHost):
        def write_to(self, data: bytes, addr: Address) -> None:
            raw.append(data)

    class Echo(Handler[str]):
        def packet_received(self, session: Session[str], packet: str) -> None:
            session.send(packet.upper())

    raw: list[bytes] = []
    endpoint = DatagramEndpoint(Echo(), framing=SLIP(), codec=Text(), is_server=True)
    endpoint.host = Host()
    endpoint.received(b"\xc0abc\xc0", A, 100)
    assert raw == [b"\xc0ABC\xc0"]


# Who gets a session.


@pytest.mark.parametrize(
    ("datagram", "reasons"),
    [
        (b"", []),
        (b"\xfe\xfe\xfe", []),
        (b"random bytes", [Reason.NOISE]),
        (DATAGRAM[:-1], [Reason.TRUNCATED]),
        (b"\xfe\x01\xfe\xfd\xfe", [Reason.TOO_SHORT, Reason.BAD_ESCAPE]),
        (DATAGRAM * 100, [Reason.DATAGRAM_TOO_LONG]),
    ],
    ids=["empty", "flags", "noise", "cut", "malformed", "too long"],
)
def test_a_stranger_whose_datagram_holds_no_packet_is_counted_and_opens_nothing(
    datagram: bytes, reasons: list[Reason]
) -> None:
    rig = Rig(Config(max_datagram=100))
    rig.endpoint.received(datagram, A, 100)
    assert rig.held() == (0, 0, 0)
    assert rig.handler.calls == []
    assert rig.endpoint.stats.malformed == Counter(reasons)
    assert rig.endpoint.stats.refused == 0


def test_the_first_datagram_that_holds_a_packet_opens_a_session_and_is_delivered_whole() -> None:
    rig = Rig()
    rig.endpoint.received(b"noise" + DATAGRAM + encode(PONG), A, 100)
    rig.endpoint.received(b"noise", A, 101)
    assert rig.handler.calls == [
        ("connected", A),
        ("malformed", A, Reason.NOISE),
        ("packet", A, PING),
        ("packet", A, PONG),
        ("malformed", A, Reason.NOISE),
    ]
    assert rig.endpoint.stats.malformed == {Reason.NOISE: 2}
    (session,) = rig.endpoint.sessions
    assert session.stats.malformed == {Reason.NOISE: 2}
    assert session.stats.packets_received == 2


def test_each_address_is_a_peer_of_its_own() -> None:
    rig = Rig()
    rig.handler.on["packet"] = reply(PONG)
    same_host = (A[0], 5001)
    for now, addr in enumerate((A, same_host, C, A), 100):
        rig.endpoint.received(DATAGRAM, addr, now)
    assert [session.peer for session in rig.endpoint.sessions] == [same_host, C, A]
    assert rig.host.sent == [(addr, PONG) for addr in (A, same_host, C, A)]


def test_caps_refuse_strangers_and_touch_nobody_who_is_in() -> None:
    rig = Rig(Config(max_sessions=2, max_sessions_per_host=1))
    first = rig.open(A)
    rig.endpoint.received(DATAGRAM, (A[0], 5001), 101)  # the host's second
    rig.open(B)
    rig.endpoint.received(DATAGRAM, C, 102)  # the server's third
    rig.endpoint.received(b"", C, 102)  # nothing that could be refused
    assert rig.handler.named("connected") == [("connected", A), ("connected", B)]
    assert (rig.endpoint.stats.opened, rig.endpoint.stats.refused) == (2, 2)
    rig.endpoint.received(DATAGRAM, A, 103)
    assert first.stats.packets_received == 2
    first.abort()
    rig.endpoint.flush(104)
    rig.open(C, 105)


def test_open_gives_the_session_there_is_and_says_which_cap_is_reached() -> None:
    rig = Rig(Config(max_sessions=1), is_server=False)
    session = rig.endpoint.open(A, 100)
    assert rig.endpoint.open(A, 101) is session
    with pytest.raises(PoolFull, match="max_sessions=1") as refused:
        rig.endpoint.open(B, 102)
    assert refused.value.refusal is Refusal.MAX_SESSIONS
    assert rig.handler.calls == [("connected", A)]


def test_100_000_forged_addresses_cost_no_more_than_the_caps_allow() -> None:
    rig = Rig(Config(max_sessions=1_000, max_sessions_per_host=100))
    for n in range(100_000):
        forged = (f"10.0.{n // 1000}.1", 1024 + n)
        rig.endpoint.received(DATAGRAM if n % 3 else b"noise", forged, 100 + n / 10_000)
    assert rig.held() == (1_000, 1_000, 1_000)
    assert max(Counter(session.peer[0] for session in rig.endpoint.sessions).values()) == 100
    stats = rig.endpoint.stats
    assert stats.opened == 1_000
    assert stats.opened + stats.refused + stats.malformed[Reason.NOISE] == 100_000
    assert len(rig.handler.calls) == 2_000
    rig.endpoint.tick(1_000)
    assert rig.held() == (0, 0, 0)
    assert rig.endpoint.stats.closed == {CloseReason.IDLE_TIMEOUT: 1_000}


def test_a_function_that_fails_to_make_a_handler_costs_that_peer_only() -> None:
    handlers: list[Handler] = []

    def make() -> Handler:
        return handlers.pop()

    log: list[str] = []
    endpoint = DatagramEndpoint(make, is_server=True, log_exception=log.append)
    endpoint.host = MadeUpHost()
    endpoint.received(DATAGRAM, A, 100)
    assert len(log) == 1
    assert not endpoint.sessions
    handlers.append(Recorder())
    endpoint.received(DATAGRAM, A, 101)
    assert len(endpoint.sessions) == 1


# What a datagram is.


@given(st.data(), st.sampled_from([0, 1, 8, 40]))
def test_a_datagram_decodes_as_by_a_fresh_decoder_whatever_came_before(data: st.DataObject, max_payload: int) -> None:
    framing = DatagramFraming(max_payload, 150)
    datagrams = data.draw(streams(max_payload).flatmap(chunked)) + data.draw(
        st.lists(streams(max_payload) | special_bytes(200) | st.binary(max_size=200), max_size=4)
    )
    for datagram in data.draw(st.permutations(datagrams)):
        fresh = Decoder(max_payload=max_payload)
        expected = [*fresh.feed(datagram), *fresh.feed_eof()]
        if len(datagram) > 150:
            expected = [Malformed(Reason.DATAGRAM_TOO_LONG, len(datagram), datagram[:64])]
        assert framing.decoder().feed(datagram) == expected
        assert framing.decoder().feed_eof() == []
        assert framing.pending == 0


@settings(max_examples=settings().max_examples // 2)
@given(st.lists(st.tuples(st.sampled_from([A, B, C]), streams(8) | special_bytes(60)), max_size=5))
def test_no_datagram_raises_and_each_is_accounted_for(datagrams: list[tuple[Address, bytes]]) -> None:
    rig = Rig(Config(max_payload=8, max_datagram=100, max_sessions=2))
    for addr, datagram in datagrams:
        before = len(rig.endpoint.sessions)
        rig.endpoint.received(datagram, addr, 100)
        holds_packet = any(isinstance(event, Packet) for event in DatagramFraming(8, 100).feed(datagram))
        assert holds_packet or len(rig.endpoint.sessions) == before
    assert rig.log == []
    received = sum(session.stats.packets_received for session in rig.endpoint.sessions)
    assert received == len(rig.handler.named("packet"))


def test_halves_of_a_frame_in_two_datagrams_are_no_packet() -> None:
    rig = Rig()
    session = rig.open(A)
    rig.endpoint.received(DATAGRAM[:8], A, 101)
    rig.endpoint.received(DATAGRAM[8:], A, 101)
    rig.endpoint.received(DATAGRAM, A, 101)
    assert rig.handler.calls[2:] == [
        ("malformed", A, Reason.TRUNCATED),
        ("malformed", A, Reason.NOISE),
        ("packet", A, PING),
    ]
    assert session.is_open


@pytest.mark.parametrize("method", ["send", "send_message"])
def test_what_does_not_fit_one_datagram_is_refused_at_send_and_changes_nothing(method: str) -> None:
    rig = Rig(Config(max_datagram=100, max_payload=1000))
    session = rig.open(A)
    if method == "send":
        with pytest.raises(LocalProtocolError, match="packet of 102 bytes as sent exceeds max_datagram=100"):
            session.send(Packet(3, bytes(91)))
    else:
        with pytest.raises(LocalProtocolError, match=r"message of 90 bytes exceeds chunk=50.*max_datagram=100"):
            session.send_message(bytes(90), id=3, chunk=50)
    assert (session.outstanding, session.stats.packets_sent) == (0, 0)
    session.send_message(bytes(89), id=3)
    rig.endpoint.flush(101)
    assert rig.host.sent == [(A, Packet(3, bytes(89)))]


def test_a_config_that_datagrams_cannot_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="join_messages=True is for streams"):
        Rig(Config(join_messages=True))
    for pieces in (Config(datagram_stream=True), Config(datagram_chunk=4096)):
        with pytest.raises(ValueError, match="datagram_stream and datagram_chunk are for the default framing"):
            DatagramEndpoint(Recorder(), pieces, framing=SLIP())
    with pytest.raises(ValueError, match="keepalive_packet: packet of 15 bytes as sent exceeds max_datagram=14"):
        Rig(Config(max_datagram=14, keepalive_interval=1, keepalive_packet=PING))


# Sending.


def test_each_packet_travels_in_a_datagram_of_its_own() -> None:
    rig = Rig()
    rig.handler.on["packet"] = reply(PONG)
    rig.handler.on["sent"] = nothing
    rig.endpoint.received(DATAGRAM * 3, A, 100)
    assert rig.host.sent == [(A, PONG)] * 3
    assert rig.handler.named("sent") == [("sent", A, len(encode(PONG)))] * 3
    assert rig.host.wakes == 0


def test_sends_outside_an_input_leave_at_the_flush_that_one_wake_asks_for() -> None:
    rig = Rig()
    first, second = rig.open(A), rig.open(B)
    first.send(PING)
    second.send(PING)
    first.send(PONG)
    assert rig.host.wakes == 1
    assert rig.host.sent == []
    rig.endpoint.flush(101)
    assert rig.host.sent == [(A, PING), (A, PONG), (B, PING)]
    second.send(PONG)
    assert rig.host.wakes == 2


@pytest.mark.parametrize("number", [EAGAIN, ENOBUFS])
def test_a_datagram_for_which_there_is_no_room_is_lost_as_in_the_network(number: int) -> None:
    rig = Rig()
    session = rig.open(A)
    rig.handler.on["sent"] = nothing
    rig.host.failures[A] = OSError(number, "no room")
    session.send(PING)
    rig.endpoint.flush(101)
    del rig.host.failures[A]
    session.send(PONG)
    rig.endpoint.flush(102)
    stats = session.stats
    assert (stats.packets_sent, stats.packets_dropped, stats.errors) == (2, 1, 0)
    assert rig.handler.calls[2:] == [("sent", A, len(encode(PONG)))]


def test_another_error_of_a_send_is_told_once_soon_and_not_within_the_send() -> None:
    rig = Rig()
    session, other = rig.open(A), rig.open(B)
    rig.host.failures[A] = error = OSError(EHOSTUNREACH, "no way")
    session.send(PING)
    other.send(PING)
    rig.endpoint.flush(101)
    assert rig.handler.named("error") == []
    assert rig.host.wakes == 2
    rig.endpoint.flush(101)
    rig.endpoint.flush(102)
    assert rig.handler.named("error") == [("error", A, error)]
    assert (session.stats.packets_dropped, session.stats.errors) == (1, 1)
    assert session.is_open
    assert rig.host.sent == [(B, PING)]


def test_a_handler_that_sends_again_on_an_error_tries_once_for_each_input() -> None:
    rig = Rig()
    rig.open(A)
    rig.handler.on["error"] = rig.handler.on["packet"] = reply(PONG)
    rig.host.failures[A] = OSError(EHOSTUNREACH, "no way")
    rig.endpoint.received(DATAGRAM, A, 101)
    for attempts in range(1, 10):
        assert (rig.host.attempts, rig.host.wakes) == (attempts, attempts)
        rig.endpoint.flush(101 + attempts)


def test_an_error_that_comes_to_light_after_the_end_is_told_to_nobody() -> None:
    rig = Rig()
    session = rig.open(A)
    rig.host.failures[A] = OSError(EHOSTUNREACH, "no way")
    session.send(PING)
    session.close()
    rig.endpoint.flush(101)
    rig.endpoint.flush(101)
    assert rig.handler.calls[2:] == [("disconnected", A, CloseReason.LOCAL)]


# Errors that the system reports later.


def test_a_reported_error_reaches_the_session_that_it_is_about_and_costs_it_nothing() -> None:
    rig = Rig()
    session, other = rig.open(A), rig.open(B)
    rig.handler.on["error"] = reply(PONG)
    error = ConnectionRefusedError(ECONNREFUSED, "refused")
    rig.endpoint.error(error, B, 101)
    assert rig.handler.named("error") == [("error", B, error)]
    assert rig.host.sent == [(B, PONG)]
    assert (session.stats.errors, other.stats.errors) == (0, 1)
    assert other.is_open


def test_an_error_of_nobody_is_counted() -> None:
    rig = Rig()
    rig.open(A)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), B, 101)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), None, 101)
    assert rig.endpoint.stats.errors == 2
    assert rig.handler.named("error") == []


def test_an_error_without_an_address_is_that_of_a_clients_one_peer() -> None:
    rig = Rig(is_server=False)
    rig.endpoint.open(A, 100)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), None, 101)
    assert len(rig.handler.named("error")) == 1
    rig.endpoint.open(B, 102)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), None, 103)
    assert len(rig.handler.named("error")) == 1
    assert rig.endpoint.stats.errors == 2


@pytest.mark.parametrize("method", ["connected", "packet", "malformed", "sent", "error", "draining", "disconnected"])
def test_a_handler_that_raises_ends_its_own_session_and_no_other(method: str) -> None:
    rig = Rig()
    other = rig.open(B)

    def fail(session: Session) -> None:
        if session.peer == A:
            raise RuntimeError(method)

    rig.handler.on[method] = fail
    rig.endpoint.received(b"noise" + DATAGRAM, A, 101)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), A, 102)
    for session in rig.endpoint.sessions:
        session.send(PONG)
    rig.endpoint.flush(103)
    if method == "draining":
        rig.endpoint.drain(104, lambda: None)
        assert other.is_open
    elif method == "disconnected":
        rig.endpoint.tick(161.5)
    else:
        assert other.is_open
        assert (B, PONG) in rig.host.sent
        assert rig.handler.named("disconnected") == [("disconnected", A, CloseReason.HANDLER_ERROR)]
    assert len([call for call in rig.handler.named("disconnected") if call[1] == A]) == 1
    assert len(rig.log) == 1


# Time.


def test_activity_never_sets_a_timer_and_an_early_tick_does_nothing() -> None:
    rig = Rig(Config(idle_timeout=60))
    session = rig.open(A)
    assert rig.host.timer == 160
    for now in range(101, 150):
        rig.endpoint.received(DATAGRAM, A, now)
    assert rig.host.timers_set == 1
    rig.endpoint.tick(150)
    assert rig.host.timer == 160
    rig.endpoint.tick(160)
    assert rig.host.timer == 149 + 60
    assert session.is_open
    rig.endpoint.tick(209)
    assert rig.handler.calls[-1] == ("disconnected", A, CloseReason.IDLE_TIMEOUT)


def test_each_silent_peer_is_reaped_in_its_own_time_and_once() -> None:
    rig = Rig(Config(idle_timeout=60))
    peers = [(f"192.0.2.{n}", 5000) for n in range(10)]
    for n, addr in enumerate(peers):
        rig.open(addr, 100 + n)
    for n, addr in enumerate(peers):
        assert rig.host.timer == 160 + n
        rig.endpoint.tick(160 + n)
        rig.endpoint.tick(160 + n)
        assert rig.handler.named("disconnected")[n:] == [("disconnected", addr, CloseReason.IDLE_TIMEOUT)]
    assert rig.held() == (0, 0, 0)


@pytest.mark.parametrize("peers", [1, 2, 7])
def test_after_a_tick_the_next_timer_is_later_than_now(peers: int) -> None:
    rig = Rig(Config(idle_timeout=60))
    for now in (100, 110):
        for n in range(peers):
            rig.endpoint.received(DATAGRAM, (f"192.0.2.{n}", 5000), now)
    rig.endpoint.tick(160)
    assert rig.host.timer == 170
    assert rig.host.timers_set == 2


def test_an_empty_datagram_and_a_refresh_in_the_pool_are_signs_of_life() -> None:
    rig = Rig(Config(idle_timeout=60))
    session, other = rig.open(A), rig.open(B)
    rig.endpoint.received(b"", A, 130)
    rig.endpoint.sessions.refresh(other.id, 140)
    rig.endpoint.tick(160)
    assert session.is_open
    rig.endpoint.tick(190)
    assert rig.handler.named("disconnected") == [("disconnected", A, CloseReason.IDLE_TIMEOUT)]
    rig.endpoint.tick(200)
    assert rig.handler.named("disconnected")[1:] == [("disconnected", B, CloseReason.IDLE_TIMEOUT)]


def test_a_clock_that_steps_back_stands_still_and_breaks_nothing() -> None:
    rig = Rig(Config(idle_timeout=60))
    session = rig.open(A, 1_000)
    rig.endpoint.received(DATAGRAM, A, 10)
    rig.open(B, 20)
    rig.endpoint.tick(30)
    rig.endpoint.flush(40)
    assert rig.host.timer == 1_060
    assert session.is_open
    rig.endpoint.tick(1_059)
    assert len(rig.endpoint.sessions) == 2
    rig.endpoint.tick(1_060)
    assert rig.held() == (0, 0, 0)


def test_sessions_that_come_and_go_leave_no_timers_behind() -> None:
    rig = Rig(Config(idle_timeout=3600))
    staying = [rig.open(("198.51.100.1", port), 100) for port in range(50)]
    for n in range(5_000):
        rig.open(A, 100 + n / 1000).abort()
        rig.endpoint.flush(100 + n / 1000)
        assert len(rig.endpoint._timers) <= 2 * (len(staying) + 1) + 101
    for now in (3700, 3800):  # those that were let go did not take others' timers with them
        rig.endpoint.tick(now)
    assert len(rig.handler.named("disconnected")) == 5_050
    assert rig.held() == (0, 0, 0)
    assert not any(session.is_open for session in staying)


def test_who_was_told_that_there_is_no_room_is_told_at_once_that_there_is() -> None:
    rig = Rig(Config(write_high_water=30, write_low_water=0))
    session = rig.open(A)
    told = [session.send(PING) for _ in range(3)]
    heard: list[Session] = []
    rig.handler.writable = lambda session: heard.append(session)  # type: ignore[method-assign]
    rig.endpoint.flush(101)
    assert (told, heard) == ([True, True, False], [session])
    session.send(PING)
    rig.endpoint.flush(102)
    assert heard == [session], "nobody was told anything"

    def send_and_abort(session: Session) -> None:
        for _ in range(3):
            session.send(PING)
        session.abort()

    rig.handler.on["packet"] = send_and_abort
    rig.endpoint.received(DATAGRAM, A, 103)
    assert heard == [session]


def test_a_keepalive_is_sent_to_each_peer_and_is_no_sign_of_life_of_it() -> None:
    rig = Rig(Config(idle_timeout=60, keepalive_interval=25, keepalive_packet=PONG))
    rig.open(A, 100)
    rig.open(B, 110)
    sent_at = []
    while rig.host.timer is not None and rig.endpoint.sessions:
        now = rig.host.timer
        rig.endpoint.tick(now)
        sent_at += [(now, addr) for addr, packet in rig.host.sent if packet == PONG]
        rig.host.sent.clear()
    assert sent_at == [(125, A), (135, B), (150, A), (160, B)]
    assert rig.endpoint.stats.closed == {CloseReason.IDLE_TIMEOUT: 2}


def test_without_timeouts_there_is_no_timer() -> None:
    rig = Rig(Config(idle_timeout=None))
    rig.open(A)
    assert (rig.host.timers_set, rig.held()) == (0, (1, 1, 0))


# Pausing.


def test_what_comes_for_a_paused_session_is_discarded_and_counted() -> None:
    rig = Rig(Config(idle_timeout=60))
    session = rig.open(A)
    rig.handler.on["packet"] = lambda session: session.pause()
    rig.endpoint.received(DATAGRAM + encode(PONG), A, 101)
    rig.endpoint.received(DATAGRAM, A, 102)
    rig.endpoint.received(b"", A, 102)
    rig.open(B, 102)  # the socket is read for the others
    assert (session.stats.packets_discarded, session.stats.bytes_discarded) == (0, len(DATAGRAM))
    for now in range(160, 400, 60):
        rig.endpoint.tick(now)
    assert session.is_open  # it is not the peer who is silent
    del rig.handler.on["packet"]
    session.resume()
    rig.endpoint.flush(400)
    rig.endpoint.received(DATAGRAM, A, 401)
    packets = [call[2] for call in rig.handler.named("packet") if call[1] == A]
    assert packets == [PING, PING, PONG, PING]


def test_a_pause_and_a_resume_outside_the_handler_give_the_peer_its_time_anew() -> None:
    rig = Rig(Config(idle_timeout=60))
    session = rig.open(A)
    session.pause()
    rig.endpoint.flush(101)
    rig.endpoint.received(DATAGRAM, A, 150)
    session.resume()
    rig.endpoint.flush(155)
    rig.endpoint.tick(160)
    assert session.is_open
    rig.endpoint.tick(214)
    assert session.is_open
    rig.endpoint.tick(215)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


# Ends.


def test_closing_sends_what_was_sent_and_is_over_at_once() -> None:
    rig = Rig(Config(close_timeout=5))
    session = rig.open(A)
    session.send(PONG)
    session.close()
    with pytest.raises(SessionClosed):
        session.send(PONG)
    rig.endpoint.received(DATAGRAM, A, 101)
    assert session.stats.bytes_discarded == len(DATAGRAM)
    rig.endpoint.flush(101)
    assert rig.host.sent == [(A, PONG)]
    assert rig.handler.calls[2:] == [("disconnected", A, CloseReason.LOCAL)]
    assert session.is_over
    assert rig.endpoint.sessions.get(session.id) is None
    assert not rig.host.times_closed()
    again = rig.open(A, 102)  # the address is a stranger's once more
    assert again.id > session.id


Ending = Callable[[Rig, Session], object]


@pytest.mark.parametrize(
    ("reason", "end"),
    [
        (CloseReason.LOCAL, lambda rig, session: session.close()),
        (CloseReason.LOCAL, lambda rig, session: session.abort()),
        (CloseReason.IDLE_TIMEOUT, lambda rig, session: rig.endpoint.tick(200)),
        (CloseReason.PROTOCOL_ERROR, lambda rig, session: rig.endpoint.received(b"noise" + DATAGRAM, A, 101)),
        (CloseReason.SHUTDOWN, lambda rig, session: rig.endpoint.drain(101, lambda: None)),
        (CloseReason.SHUTDOWN, lambda rig, session: rig.endpoint.abort(101)),
        (CloseReason.REPLACED, lambda rig, session: (session.bind("device"), rig.open(B).bind("device"))),
    ],
    ids=["close", "abort", "silence", "malformed", "drain", "end of the endpoint", "takeover"],
)
def test_disconnected_follows_connected_once_whatever_comes_after_the_end(reason: CloseReason, end: Ending) -> None:
    rig = Rig(Config(on_malformed="close"))
    session = rig.open(A)
    end(rig, session)
    rig.endpoint.flush(201)
    session.close()
    session.abort()
    session.resume()
    rig.endpoint.flush(202)
    rig.endpoint.tick(203)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), A, 203)
    rig.endpoint.abort(204)
    rig.endpoint.abort(204)
    assert [call[2:] for call in rig.handler.named("disconnected") if call[1] == A] == [(reason,)]
    assert rig.endpoint.stats.closed[reason] >= 1
    assert rig.held()[:2] == (0, 0)
    assert rig.host.times_closed() == 1
    assert rig.host.timer is None


def test_a_session_closed_in_its_first_call_never_gets_its_datagram() -> None:
    rig = Rig()
    rig.handler.on["connected"] = lambda session: session.abort()
    rig.endpoint.received(DATAGRAM * 2, A, 100)
    assert rig.handler.calls == [("connected", A), ("disconnected", A, CloseReason.LOCAL)]
    assert rig.held()[:2] == (0, 0)


def test_a_client_closes_its_socket_with_its_last_session() -> None:
    rig = Rig(is_server=False)
    first, second = rig.endpoint.open(A, 100), rig.endpoint.open(B, 100)
    first.abort()
    rig.endpoint.flush(101)
    assert not rig.host.times_closed()
    second.send(PING)
    second.close()
    rig.endpoint.flush(102)
    assert rig.host.sent == [(B, PING)]
    assert (rig.host.times_closed(), rig.host.timer) == (1, None)
    rig.endpoint.abort(103)
    assert rig.host.times_closed() == 1


def test_draining_waits_for_handlers_and_refuses_strangers() -> None:
    rig = Rig()
    session = rig.open(A)
    rig.open(B)
    rig.handler.on["draining"] = lambda session: session.close() if session.peer == B else session.send(PONG)
    done: list[bool] = []
    rig.endpoint.drain(101, lambda: done.append(True))
    assert rig.handler.named("disconnected") == [("disconnected", B, CloseReason.SHUTDOWN)]
    assert rig.host.sent == [(A, PONG)]
    rig.endpoint.received(DATAGRAM, A, 102)
    rig.endpoint.received(DATAGRAM, C, 102)
    assert session.stats.packets_received == 2
    assert rig.endpoint.stats.refused == 1
    assert not done
    session.close()
    rig.endpoint.flush(103)
    assert rig.handler.calls[-1] == ("disconnected", A, CloseReason.SHUTDOWN)
    assert done == [True]
    assert not rig.host.times_closed()  # it is the adapter who ends it
    rig.endpoint.abort(104)
    assert rig.host.times_closed() == 1


def test_a_sole_session_has_what_comes_from_anywhere() -> None:
    rig = Rig(is_server=False)
    everyone: Address = ("192.0.2.255", 5000)
    session = rig.endpoint.open(everyone, 100, sole=True)
    rig.endpoint.received(DATAGRAM, A, 101)
    rig.endpoint.received(b"noise", B, 101)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), C, 102)
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), None, 102)
    assert [call[0] for call in rig.handler.calls] == ["connected", "packet", "malformed", "error", "error"]
    assert {call[1] for call in rig.handler.calls} == {everyone}
    session.send(PING)
    session.close()
    rig.endpoint.flush(103)
    assert rig.host.sent == [(everyone, PING)]
    assert rig.host.times_closed() == 1


def test_once_a_sole_session_is_over_strangers_have_their_own_again() -> None:
    rig = Rig(is_server=False)
    sole = rig.endpoint.open(A, 100, sole=True)
    rig.endpoint.open(B, 100)
    sole.abort()
    rig.endpoint.flush(101)
    rig.endpoint.received(DATAGRAM, C, 102)
    assert rig.handler.calls[-2:] == [("connected", C), ("packet", C, PING)]
    rig.endpoint.error(OSError(ECONNREFUSED, "refused"), A, 103)
    assert rig.endpoint.stats.total.errors == 1


def test_without_a_sole_session_each_who_replies_to_a_broadcast_has_its_own() -> None:
    rig = Rig(is_server=False)
    rig.endpoint.open(("192.0.2.255", 5000), 100)
    rig.endpoint.received(DATAGRAM, A, 101)
    rig.endpoint.received(DATAGRAM, B, 101)
    assert [session.peer for session in rig.endpoint.sessions] == [("192.0.2.255", 5000), A, B]


# Any order of all of it.

addresses = st.sampled_from([A, (A[0], 5001), (A[0], 5002), B, C])
steps = st.sampled_from([-3.0, 0.0, 0.5, 4.0, 11.0])
"""How far the clock goes before an input, in seconds; it may go back."""


class EndpointMachine(RuleBasedStateMachine):
    """A server against a model: since when each peer has been silent, and whether it is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(Config(idle_timeout=10, max_sessions=3, max_sessions_per_host=2))
        self.silent_since: dict[Address, float] = {}
        self.paused: set[Address] = set()
        self.clock, self.latest = 100.0, float("-inf")
        self.refused = self.malformed = self.discarded = 0

    def at(self, step: float) -> float:
        self.clock += step
        self.latest = max(self.latest, self.clock)
        return self.clock

    def session(self, addr: Address) -> Session | None:
        return next((session for session in self.rig.endpoint.sessions if session.peer == addr), None)

    def has_room(self, addr: Address) -> bool:
        return len(self.silent_since) < 3 and sum(other[0] == addr[0] for other in self.silent_since) < 2

    @rule(step=steps, addr=addresses, datagram=st.sampled_from([DATAGRAM, b"noise", b"", DATAGRAM * 2]))
    def receive(self, step: float, addr: Address, datagram: bytes) -> None:
        before = len(self.rig.handler.named("packet"))
        self.rig.endpoint.received(datagram, addr, self.at(step))
        packets = datagram.count(DATAGRAM)
        if addr in self.paused:
            self.discarded += len(datagram)
            packets = 0
        elif addr in self.silent_since or (packets and self.has_room(addr)):
            self.silent_since[addr] = self.latest
            self.malformed += datagram == b"noise"
        elif packets:
            self.refused += 1
            packets = 0
        else:
            self.malformed += bool(datagram)
        assert len(self.rig.handler.named("packet")) - before == packets

    @rule(step=steps)
    def tick(self, step: float) -> None:
        now, host = self.at(step), self.rig.host
        if host.timer is not None and host.timer <= now:
            host.timer = None  # it has fired
        self.rig.endpoint.tick(now)
        for addr, since in list(self.silent_since.items()):
            if addr not in self.paused and since + 10 <= self.latest:
                del self.silent_since[addr]
                assert ("disconnected", addr, CloseReason.IDLE_TIMEOUT) in self.rig.handler.calls
        assert host.timer is None or host.timer > now

    @rule()
    def tick_at_the_timer(self) -> None:
        if self.rig.host.timer is not None:
            self.tick(self.rig.host.timer - self.clock)

    @rule(step=steps, addr=addresses, answer=st.sampled_from([None, EAGAIN, EHOSTUNREACH]))
    def send(self, step: float, addr: Address, answer: int | None) -> None:
        session, host = self.session(addr), self.rig.host
        if session is not None:
            if answer is not None:
                host.failures[addr] = OSError(answer, "made up")
            session.send(PONG)
            before, errors = host.attempts, session.stats.errors
            self.rig.endpoint.flush(self.at(step))
            host.failures.clear()
            self.rig.endpoint.flush(self.clock)
            assert host.attempts == before + 1
            assert session.stats.errors - errors == (answer == EHOSTUNREACH)

    @rule(addr=addresses, is_abort=st.booleans())
    def end(self, addr: Address, is_abort: bool) -> None:
        session = self.session(addr)
        if session is not None:
            session.abort() if is_abort else session.close()
            self.rig.endpoint.flush(self.clock)
            assert session.is_over
            del self.silent_since[addr]
            self.paused.discard(addr)

    @rule(step=steps, addr=addresses)
    def pause_or_resume(self, step: float, addr: Address) -> None:
        session = self.session(addr)
        if session is None:
            return
        if addr in self.paused:
            self.paused.remove(addr)
            session.resume()
            self.rig.endpoint.flush(self.at(step))
            self.silent_since[addr] = self.latest
        else:
            self.paused.add(addr)
            session.pause()
            self.rig.endpoint.flush(self.at(step))

    @precondition(lambda self: self.silent_since)
    @rule(step=steps, addr=addresses)
    def report(self, step: float, addr: Address) -> None:
        before = self.rig.endpoint.stats.errors, len(self.rig.handler.named("error"))
        self.rig.endpoint.error(OSError(ECONNREFUSED, "refused"), addr, self.at(step))
        told = addr in self.silent_since
        after = self.rig.endpoint.stats.errors, len(self.rig.handler.named("error"))
        assert after == (before[0] + 1, before[1] + told)

    @invariant()
    def it_holds_whom_the_model_holds_and_nothing_else(self) -> None:
        assert {session.peer for session in self.rig.endpoint.sessions} == {*self.silent_since}
        assert self.rig.endpoint._peers.keys() == self.silent_since.keys()
        assert len(self.rig.endpoint._timers) <= 2 * len(self.silent_since) + 102

    @invariant()
    def what_it_counts_is_what_came(self) -> None:
        stats, handler = self.rig.endpoint.stats, self.rig.handler
        assert (stats.refused, sum(stats.malformed.values())) == (self.refused, self.malformed)
        assert stats.opened == len(handler.named("connected"))
        assert stats.opened == len(handler.named("disconnected")) + len(self.silent_since)
        assert self.rig.log == []

    @invariant()
    def the_timer_is_never_late(self) -> None:
        deadlines = [since + 10 for addr, since in self.silent_since.items() if addr not in self.paused]
        assert not deadlines or (self.rig.host.timer is not None and self.rig.host.timer <= min(deadlines))


TestEndpoint = EndpointMachine.TestCase
# A run is many examples in one; to explain a failure would take minutes.
TestEndpoint.settings = settings(max_examples=settings().max_examples // 2, phases=set(Phase) - {Phase.explain})


# Hostile datagrams.


@pytest.mark.parametrize("options", [[], ["--stream"]], ids=["each by itself", "joined"])
def test_100_000_hostile_datagrams_can_be_run_by_hand_and_2_000_are_run_here(options: list[str]) -> None:
    script = Path(__file__).with_name("hostile_datagrams.py")
    command = [sys.executable, str(script), "--count", "2000", "--seed", "7", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert "2000 hostile datagrams, seed 7" in run.stdout


def test_a_message_over_udp_is_a_packet_of_its_type_and_no_longer_than_its_chunk() -> None:
    rig = Rig()
    rig.open(A).send_message(bytes(50), id=3, type=4, chunk=50)
    rig.endpoint.flush(101)
    assert rig.host.sent == [(A, Packet(3, bytes(50), type=4))]


def test_errors_of_several_sessions_in_one_turn_wake_the_host_once() -> None:
    wakes: list[int] = []

    class Waking:
        def wake(self) -> None:
            wakes.append(1)

    endpoint: Any = DatagramEndpoint(Recorder())
    endpoint.attach(Waking())
    for session in ("one", "two"):
        endpoint.report(session, OSError())
    assert wakes == [1]


def test_a_session_may_be_paused_when_it_hears_of_an_error() -> None:
    rig = Rig()
    session = rig.open(A)
    rig.host.failures[A] = OSError(EHOSTUNREACH, "unreachable")
    session.send(PONG)
    rig.endpoint.flush(101)
    rig.handler.on["error"] = lambda session: session.pause()
    rig.endpoint.flush(102)
    assert len(rig.handler.named("error")) == 1
    assert session.is_open
