"""The totals of servers and clients, and several of them over one register of sessions."""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

import pytest

from packetcore import (
    CloseReason,
    Config,
    Endpoint,
    EndpointStats,
    Handler,
    IdentityTaken,
    Packet,
    Reason,
    Session,
    SessionClosed,
    SessionPool,
    Stats,
    encode,
)
from packetcore.testing import Clock, FakeDatagramEndpoint, FakeDatagramSession, FakeEndpoint, FakeSession
from tests.made_up_host import Recorder, open_on

PING = Packet(1, b"ping")
PONG = Packet(2, b"pong")


def numbers(stats: EndpointStats) -> list[int]:
    """Everything in it that may only go up."""
    total = [getattr(stats.total, name) for name in Stats.__slots__ if name != "malformed"]
    return [stats.opened, stats.refused, stats.errors, stats.closed.total(), stats.total.malformed.total(), *total]


class Watcher(Recorder):
    """Looks at the totals in each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.server: FakeEndpoint
        self.seen: list[list[int]] = []

    def _note(self, session: Session, *call: object) -> None:
        stats = self.server.stats
        assert stats.opened == stats.sessions + stats.closed.total()
        self.seen.append(numbers(stats))
        super()._note(session, *call)


def test_totals_are_the_sum_of_all_sessions_and_only_ever_go_up() -> None:
    chance = random.Random(5)
    handler = Watcher()
    server = handler.server = FakeEndpoint(handler, Config(max_sessions=5))
    expected = Stats()
    opened: list[FakeSession] = []
    live: list[FakeSession] = []
    for _ in range(400):
        if chance.random() < 0.3:
            session = FakeSession(server)
            if session.session.id:
                live.append(session)
                opened.append(session)
        elif live:
            session = chance.choice(live)
            match chance.randrange(5):
                case 0:
                    session.feed(encode(PING) * 3 + b"\xfe\x00\xfe")
                case 1:
                    session.session.send(PONG)
                case 2:
                    session.feed(b"noise")
                case 3:
                    session.room = 0
                case 4:
                    live.remove(session)
                    session.room = None  # what is unsent would hold up an end in good order
                    if chance.random() < 0.5:
                        session.eof()
                    else:
                        session.lost()
        stats = server.stats
        handler.seen.append(numbers(stats))
        assert stats.sessions == len(live) == len(server.sessions)
        assert stats.outstanding == sum(session.session.outstanding for session in live)
    for session in opened:
        expected.add(session.session.stats)
    assert server.stats.total == expected
    assert expected.packets_received > 0
    assert expected.malformed[Reason.TOO_SHORT] > 0
    assert server.stats.refused > 0
    assert server.stats.closed == Counter(session.close_reason for session in opened if session not in live)
    for before, after in zip(handler.seen, handler.seen[1:], strict=False):
        assert all(low <= high for low, high in zip(before, after, strict=True)), "a counter went down"


def test_a_copy_of_the_totals_stays_as_it_is() -> None:
    session = FakeSession(Handler())
    before = session.endpoint.stats
    session.feed(b"\xfe\x00\xfe" + encode(PING))
    session.eof()
    assert before == EndpointStats(sessions=1, opened=1)
    before.closed[CloseReason.RESET] += 1
    before.total.malformed[Reason.NOISE] += 1
    after = session.endpoint.stats
    assert after.closed == {CloseReason.PEER: 1}
    assert after.malformed == after.total.malformed == {Reason.TOO_SHORT: 1}


def test_why_peers_were_refused_or_left_in_silence_is_a_copy_too() -> None:
    server = FakeEndpoint(Handler(), Config(max_sessions=1))
    ended: list[object] = []
    server.endpoint.on_finished = ended.append
    FakeSession(server).lost()
    session = FakeSession(server)
    before = server.stats
    FakeSession(server)
    session.lost()
    assert ended[1] is session.session
    assert (before.refused, before.silent) == (0, {CloseReason.RESET: 1})
    assert (server.stats.refused, server.stats.silent) == (1, {CloseReason.RESET: 2})


def test_a_session_whose_handler_could_not_be_made_counts_as_a_handlers_error() -> None:
    def fail() -> Handler:
        raise RuntimeError("no handler today")

    log: list[str] = []
    endpoint = Endpoint(fail, log_exception=log.append)
    session, host = open_on(endpoint, ("192.0.2.1", 1))
    assert host.verbs[-1] == "abort"
    session.lost(None, host.now)
    assert endpoint.stats.closed == {CloseReason.HANDLER_ERROR: 1}
    assert log == ["making the handler of a session raised"]


def test_an_endpoint_is_a_clients_unless_told_otherwise_and_its_register_has_the_timeout_of_its_config() -> None:
    endpoint = Endpoint(Handler(), Config(idle_timeout=5.0))
    assert not endpoint.is_server
    _, host = open_on(endpoint, ("192.0.2.1", 1))
    assert endpoint.sessions.next_deadline() == host.now + 5.0


def test_stats_add_every_field_of_one_another() -> None:
    names = [name for name in Stats.__slots__ if name != "malformed"]
    one = Stats(**{name: n for n, name in enumerate(names, 1)}, malformed=Counter({Reason.NOISE: 2}))
    both = Stats(malformed=Counter({Reason.NOISE: 1, Reason.TOO_LONG: 1}))
    both.add(one)
    both.add(one)
    assert [getattr(both, name) for name in names] == [2 * n for n in range(1, len(names) + 1)]
    assert both.malformed == {Reason.NOISE: 5, Reason.TOO_LONG: 1}


def test_a_server_that_is_closed_by_the_first_session_it_opens_waits_for_that_one() -> None:
    handler, done = Recorder(), list[CloseReason | None]()
    server = FakeEndpoint(handler)
    handler.on["connected"] = lambda session: server.endpoint.drain(0.0, lambda: done.append(session.close_reason))
    FakeSession(server)
    assert done == [CloseReason.SHUTDOWN]


class Shared:
    """A server over TCP and one over UDP, with one register of sessions."""

    def __init__(self, **caps: int) -> None:
        self.pool: SessionPool[Session] = SessionPool(**caps)
        self.clock = Clock()
        self.ports = count(9000)
        self.tcp = FakeEndpoint(Handler(), sessions=self.pool, clock=self.clock)
        self.udp = FakeDatagramEndpoint(Handler(), sessions=self.pool, clock=self.clock)

    def open(self, is_tcp: bool, host: str = "192.0.2.9") -> FakeSession | FakeDatagramSession:
        """One more session, unless it is refused."""
        peer = (host, next(self.ports))
        if is_tcp:
            return FakeSession(self.tcp, peer=peer)
        session = FakeDatagramSession(self.udp, peer=peer)
        session.feed(PING)
        return session


def test_ids_and_caps_are_those_of_the_register_and_not_of_one_server() -> None:
    shared = Shared(max_sessions=3, max_per_host=2)
    opened = [shared.open(is_tcp) for is_tcp in (True, False)]
    refused = shared.open(is_tcp=True)
    assert refused.close_reason is CloseReason.REFUSED, "two of one host, whatever they came over"
    opened.append(shared.open(is_tcp=True, host="192.0.2.1"))
    shared.open(is_tcp=False, host="192.0.2.2")
    assert [each.session.id for each in opened] == [1, 2, 3]
    assert (shared.tcp.stats.refused, shared.udp.stats.refused) == (1, 1)
    assert (shared.tcp.stats.sessions, shared.udp.stats.sessions) == (2, 1)


def test_each_server_counts_its_own() -> None:
    shared = Shared()
    tcp, _ = FakeSession(shared.tcp), shared.open(is_tcp=False)
    tcp.feed(PING, PING)
    tcp.room = 0
    tcp.session.send(PONG)
    assert shared.tcp.stats.total.packets_received == 2
    assert shared.udp.stats.total.packets_received == 1
    assert (shared.tcp.stats.outstanding, shared.udp.stats.outstanding) == (len(encode(PONG)), 0)
    assert shared.tcp.endpoint.own_sessions() == [tcp.session]


@pytest.mark.parametrize("is_tcp", [True, False])
def test_draining_and_aborting_one_server_touch_only_its_own(is_tcp: bool) -> None:
    shared, done = Shared(), list[bool]()
    own, other = shared.open(is_tcp), shared.open(not is_tcp)
    if isinstance(own, FakeSession):
        own.peer_closes = False
    drained: Endpoint = shared.tcp.endpoint if is_tcp else shared.udp.endpoint
    drained.drain(0.0, lambda: done.append(True))
    assert not own.session.is_open
    assert other.session.is_open
    assert done == ([] if is_tcp else [True]), "a peer over TCP has not closed yet"
    drained.abort(0.0)
    assert own.close_reason is CloseReason.SHUTDOWN
    assert done == [True], "though the other's sessions live on"
    assert list(shared.pool) == [other.session]
    other.session.send(PONG)
    assert other.sent == [PONG]
    assert shared.open(not is_tcp).session.is_open
    assert shared.open(is_tcp=True).close_reason is (CloseReason.REFUSED if is_tcp else None)
    assert shared.udp.stats.sessions == (2 if is_tcp else 0)


@pytest.mark.parametrize("is_tcp_first", [True, False])
def test_a_device_that_comes_back_over_the_other_transport_takes_its_identity_along(is_tcp_first: bool) -> None:
    shared = Shared()
    old, new = shared.open(is_tcp_first), shared.open(not is_tcp_first)
    old.session.bind("device 7")
    with pytest.raises(IdentityTaken):
        new.session.bind("device 7", takeover="reject")
    assert shared.pool.find("device 7") is old.session
    new.session.bind("device 7")
    assert shared.pool.find("device 7") is new.session
    assert not old.session.is_open
    assert old.close_reason is CloseReason.REPLACED
    assert (shared.pool.get(old.session.id), shared.pool.get(new.session.id)) == (None, new.session)
    assert shared.pool.find("device 7") is new.session
    assert (shared.tcp if is_tcp_first else shared.udp).stats.closed == {CloseReason.REPLACED: 1}


def test_a_session_that_was_replaced_cannot_take_its_identity_back() -> None:
    server = FakeEndpoint(Handler())
    old, new = FakeSession(server), FakeSession(server)
    old.session.bind("device 7")
    new.session.bind("device 7")
    with pytest.raises(SessionClosed):
        old.session.bind("device 7")  # it is closing: its handler may still be at work
    assert server.sessions.find("device 7") is new.session
    assert new.session.is_open
