"""The totals of servers and clients, and several of them over one register of sessions."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from packetcore import (
    CloseReason,
    Config,
    DatagramEndpoint,
    Endpoint,
    EndpointStats,
    IdentityTaken,
    Packet,
    Reason,
    Session,
    SessionClosed,
    SessionPool,
    Stats,
    encode,
)
from tests.made_up_host import MadeUpDatagramHost, MadeUpHost, Recorder, Rig, open_on

PING = Packet(1, b"ping")
PONG = Packet(2, b"pong")
UDP = ("192.0.2.9", 9000)


def numbers(stats: EndpointStats) -> list[int]:
    """Everything in it that may only go up."""
    total = [getattr(stats.total, name) for name in Stats.__slots__ if name != "malformed"]
    return [stats.opened, stats.refused, stats.errors, stats.closed.total(), stats.total.malformed.total(), *total]


class Watcher(Recorder):
    """Looks at the totals in each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint: Endpoint
        self.seen: list[list[int]] = []

    def _note(self, session: Session, *call: object) -> None:
        stats = self.endpoint.stats
        assert stats.opened == stats.sessions + stats.closed.total()
        self.seen.append(numbers(stats))
        super()._note(session, *call)


def test_totals_are_the_sum_of_all_sessions_and_only_ever_go_up() -> None:
    chance = random.Random(5)
    handler = Watcher()
    endpoint = handler.endpoint = Endpoint(handler, Config(max_sessions=5), is_server=True)
    expected = Stats()
    opened: list[MadeUpHost] = []
    live: list[MadeUpHost] = []
    for n in range(400):
        if chance.random() < 0.3:
            session, host = open_on(endpoint, ("192.0.2.1", n))
            if session.id:
                live.append(host)
                opened.append(host)
        elif live:
            host = chance.choice(live)
            match chance.randrange(5):
                case 0:
                    host.session.received(encode(PING) * 3 + b"\xfe\x00\xfe", 101)
                case 1:
                    host.session.send(PONG)
                    host.session.flush(101)
                case 2:
                    host.session.received(b"noise", 101)
                case 3:
                    host.takes = 0
                case 4:
                    live.remove(host)
                    host.session.lost(chance.choice([None, ConnectionResetError()]), 101)
        stats = endpoint.stats
        handler.seen.append(numbers(stats))
        assert stats.sessions == len(live) == len(endpoint.sessions)
        assert stats.outstanding == sum(host.session.outstanding for host in live)
    for host in opened:
        expected.add(host.session.stats)
    assert endpoint.stats.total == expected
    assert expected.packets_received > 0
    assert expected.malformed[Reason.TOO_SHORT] > 0
    assert endpoint.stats.refused > 0
    reasons = Counter(host.session.close_reason for host in opened if host not in live)
    assert endpoint.stats.closed == reasons
    for before, after in zip(handler.seen, handler.seen[1:], strict=False):
        assert all(low <= high for low, high in zip(before, after, strict=True)), "a counter went down"


def test_a_copy_of_the_totals_stays_as_it_is() -> None:
    rig = Rig()
    session, _ = rig.open()
    before = rig.endpoint.stats
    session.received(b"\xfe\x00\xfe" + encode(PING), 101)
    session.lost(None, 102)
    assert before == EndpointStats(sessions=1, opened=1)
    before.closed[CloseReason.RESET] += 1
    before.total.malformed[Reason.NOISE] += 1
    after = rig.endpoint.stats
    assert after.closed == {CloseReason.PEER: 1}
    assert after.malformed == after.total.malformed == {Reason.TOO_SHORT: 1}


def test_stats_add_every_field_of_one_another() -> None:
    names = [name for name in Stats.__slots__ if name != "malformed"]
    one = Stats(**{name: n for n, name in enumerate(names, 1)}, malformed=Counter({Reason.NOISE: 2}))
    both = Stats(malformed=Counter({Reason.NOISE: 1, Reason.TOO_LONG: 1}))
    both.add(one)
    both.add(one)
    assert [getattr(both, name) for name in names] == [2 * n for n in range(1, len(names) + 1)]
    assert both.malformed == {Reason.NOISE: 5, Reason.TOO_LONG: 1}


def test_a_server_that_is_closed_by_the_first_session_it_opens_waits_for_that_one() -> None:
    rig, done = Rig(), list[bool]()
    rig.handler.on["connected"] = lambda session: rig.endpoint.drain(100, lambda: done.append(True))
    session, _ = rig.open()
    assert not done
    session.eof(101)
    session.lost(None, 101)
    assert done == [True]


class Shared:
    """A server over TCP and one over UDP, with one register of sessions."""

    def __init__(self, **caps: int) -> None:
        self.pool: SessionPool[Session] = SessionPool(**caps)
        self.tcp = Rig(is_server=True, sessions=self.pool)
        self.handler = Recorder()
        self.udp = DatagramEndpoint(self.handler, is_server=True, sessions=self.pool)
        self.socket = MadeUpDatagramHost(self.udp)

    def open_udp(self, port: int = 9000) -> Session:
        return self.udp.open(("192.0.2.9", port), 100)


def test_ids_and_caps_are_those_of_the_register_and_not_of_one_server() -> None:
    shared = Shared(max_sessions=3, max_per_host=2)
    ids = [shared.tcp.open("192.0.2.9")[0].id, shared.open_udp().id]
    refused, _ = shared.tcp.open("192.0.2.9")
    assert refused.close_reason is CloseReason.REFUSED, "two of one host, whatever they came over"
    ids.append(shared.tcp.open("192.0.2.1")[0].id)
    shared.udp.received(encode(PING), ("192.0.2.2", 1), 100)
    assert ids == [1, 2, 3]
    assert (shared.tcp.endpoint.stats.refused, shared.udp.stats.refused) == (1, 1)
    assert (shared.tcp.endpoint.stats.sessions, shared.udp.stats.sessions) == (2, 1)


def test_each_server_counts_its_own() -> None:
    shared = Shared()
    session, _ = shared.tcp.open()
    session.received(encode(PING) * 2, 101)
    shared.udp.received(encode(PING), UDP, 101)
    session.send(PONG)
    assert shared.tcp.endpoint.stats.total.packets_received == 2
    assert shared.udp.stats.total.packets_received == 1
    assert (shared.tcp.endpoint.stats.outstanding, shared.udp.stats.outstanding) == (len(encode(PONG)), 0)
    assert shared.tcp.endpoint.own_sessions() == [session]


@pytest.mark.parametrize("is_tcp", [True, False])
def test_draining_and_aborting_one_server_touch_only_its_own(is_tcp: bool) -> None:
    shared, done = Shared(), list[bool]()
    tcp, host = shared.tcp.open()
    udp = shared.open_udp()
    drained: Endpoint = shared.tcp.endpoint if is_tcp else shared.udp
    own, other = (tcp, udp) if is_tcp else (udp, tcp)
    own_handler = shared.tcp.handler if is_tcp else shared.handler
    drained.drain(101, lambda: done.append(True))
    assert not own.is_open
    assert other.is_open
    if is_tcp:
        assert not done, "the peer has not closed yet"
    drained.abort(102)
    host.session.lost(None, 102) if is_tcp else None
    assert done == [True], "though the other's sessions live on"
    assert own_handler.calls[-1] == ("disconnected", CloseReason.SHUTDOWN)
    assert list(shared.pool) == [other]
    other.send(PING)
    assert shared.tcp.open()[0].is_open is not is_tcp
    shared.udp.received(encode(PING), ("192.0.2.2", 1), 103)
    assert shared.udp.stats.sessions == (2 if is_tcp else 0)


@pytest.mark.parametrize("is_tcp_first", [True, False])
def test_a_device_that_comes_back_over_the_other_transport_takes_its_identity_along(is_tcp_first: bool) -> None:
    shared = Shared()
    tcp, host = shared.tcp.open()
    udp = shared.open_udp()
    old, new = (tcp, udp) if is_tcp_first else (udp, tcp)
    old.bind("device 7")
    with pytest.raises(IdentityTaken):
        new.bind("device 7", takeover="reject")
    assert shared.pool.find("device 7") is old
    new.bind("device 7")
    assert shared.pool.find("device 7") is new
    assert not old.is_open
    host.session.flush(101)
    host.session.eof(101)
    shared.udp.flush(101)
    if is_tcp_first:
        host.session.lost(None, 101)
    assert old.close_reason is CloseReason.REPLACED
    assert (shared.pool.get(old.id), shared.pool.get(new.id)) == (None, new)
    assert shared.pool.find("device 7") is new
    replaced = (shared.tcp.endpoint if is_tcp_first else shared.udp).stats.closed
    assert replaced == {CloseReason.REPLACED: 1}


def test_a_session_that_was_replaced_cannot_take_its_identity_back() -> None:
    rig = Rig()
    old, _ = rig.open()
    new, _ = rig.open()
    old.bind("device 7")
    new.bind("device 7")
    with pytest.raises(SessionClosed):
        old.bind("device 7")  # it is closing: its handler may still be at work
    assert rig.endpoint.sessions.find("device 7") is new
    assert new.is_open
