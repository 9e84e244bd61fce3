"""Requests: which packet answers which, and how each wait ends, exactly once."""

from __future__ import annotations

from collections.abc import Callable
from errno import EPIPE
from functools import partial

import pytest

from packetcore import (
    CloseReason,
    Config,
    DatagramEndpoint,
    LocalProtocolError,
    Message,
    Packet,
    Reply,
    Session,
    SessionClosed,
    encode,
)
from packetcore._requests import Requests
from tests.made_up_host import MadeUpDatagramHost, Recorder, Rig

ASK = Packet(7, b"?")
ANSWER = Packet(7, b"!")
OTHER = Packet(8, b"news")

Outcome = Reply | Exception


def starts_with(prefix: bytes) -> Callable[[Reply], bool]:
    return lambda reply: reply.payload.startswith(prefix)


def note(ends: list[tuple[str, Outcome]], name: str, outcome: Outcome) -> None:
    ends.append((name, outcome))


def reason_of(outcome: Outcome) -> CloseReason | None:
    assert isinstance(outcome, SessionClosed)
    return outcome.reason


# The bookkeeping alone.


def test_replies_of_one_id_answer_its_requests_in_the_order_of_asking() -> None:
    requests, ends = Requests(), list[tuple[str, Outcome]]()
    for name, id in (("a", 7), ("b", 7), ("c", 8)):
        requests.add(id, None, partial(note, ends, name), None, 0)
    assert requests.take(Packet(8))
    assert requests.take(Packet(7, b"1"))
    assert requests.take(Packet(7, b"2"))
    assert not requests.take(Packet(7, b"3"))
    assert ends == [("c", Packet(8)), ("a", Packet(7, b"1")), ("b", Packet(7, b"2"))]
    assert len(requests) == 0


def test_a_match_decides_alone_and_goes_before_the_ids() -> None:
    requests, ends = Requests(), list[tuple[str, Outcome]]()
    requests.add(7, None, lambda reply: ends.append(("by id", reply)), None, 0)
    requests.add(7, starts_with(b"x"), lambda reply: ends.append(("first", reply)), None, 0)
    requests.add(7, starts_with(b"x"), lambda reply: ends.append(("second", reply)), None, 0)
    for packet in (Packet(9, b"x1"), Packet(7, b"y"), Packet(1, b"x2")):
        assert requests.take(packet)
    assert not requests.take(Packet(7, b"y")), "the id alone is nothing to one with a match"
    assert ends == [("first", Packet(9, b"x1")), ("by id", Packet(7, b"y")), ("second", Packet(1, b"x2"))]


def test_each_wait_has_a_deadline_of_its_own_and_a_reply_calls_it_off() -> None:
    requests, ends = Requests(), list[Outcome]()
    requests.add(1, None, ends.append, 5.0, 100)
    requests.add(2, None, ends.append, 2.0, 100)
    requests.add(3, None, ends.append, None, 100)
    assert requests.next_deadline() == 102
    requests.expire(101.9)
    assert not ends
    requests.take(Packet(2))
    assert requests.next_deadline() == 105
    requests.expire(105)
    assert str(ends[1]) == "no reply to request 1 came within timeout=5.0 s"
    assert isinstance(ends[1], TimeoutError)
    assert (len(requests), requests.next_deadline()) == (1, None)


def test_a_timeout_that_is_begun_later_counts_from_then() -> None:
    requests, ends = Requests(), list[Outcome]()
    requests.add(1, None, ends.append, 5.0, None)
    forgotten = requests.add(2, None, ends.append, 1.0, None)
    assert requests.next_deadline() is None
    requests.discard(forgotten)
    requests.begin(100)
    requests.begin(103)
    assert requests.next_deadline() == 105


def test_one_that_is_forgotten_is_told_nothing_and_leaves_nothing() -> None:
    requests, ends = Requests(), list[Outcome]()
    for _ in range(2):
        for match in (None, starts_with(b"")):
            request = requests.add(7, match, ends.append, 1.0, 100)
            requests.discard(request)
            requests.discard(request)
    assert (len(requests), requests.next_deadline()) == (0, None)
    assert not requests.take(Packet(7))
    assert not requests._by_id
    requests.expire(200)
    requests.fail(SessionClosed())
    assert not ends


def test_ids_asked_once_leave_nothing_behind() -> None:
    requests = Requests()
    for n in range(20_000):
        requests.add(n, None, lambda reply: None, 1.0, n / 1000)
        assert requests.take(Packet(n))
        requests.discard(requests.add(n, None, lambda reply: None, 1.0, n / 1000))
    assert not requests._by_id
    assert len(requests._deadlines._heap) < 200


@pytest.mark.parametrize("how", ["fail", "expire"])
def test_one_that_raises_or_asks_again_at_its_end_keeps_nobody_else_from_hearing(how: str) -> None:
    requests, told = Requests(), list[str]()

    def raise_it(reply: Outcome) -> None:
        told.append("raises")
        raise RuntimeError("a bug of the application")

    def ask_again(reply: Outcome) -> None:
        told.append("asks again")
        requests.add(7, None, lambda reply: told.append("never"), 0.0, 102)

    requests.add(7, None, raise_it, 1.0, 100)
    requests.add(7, None, ask_again, 1.0, 100)
    last = requests.add(7, None, lambda reply: told.append("forgotten"), 1.0, 100)
    requests.add(8, None, lambda reply: requests.discard(last), 0.5, 100)
    requests.add(8, None, lambda reply: told.append("last"), 1.0, 100)
    if how == "expire":
        with pytest.raises(RuntimeError):
            requests.expire(102)
        assert told == ["raises", "asks again", "last"], "the one due first forgot another"
    else:
        with pytest.raises(RuntimeError):
            requests.fail(SessionClosed())
        assert told == ["raises", "asks again", "forgotten", "last"]
    assert len(requests) == 1


def test_a_match_may_ask_and_forget() -> None:
    requests, ends = Requests(), list[Outcome]()

    def match(reply: Reply) -> bool:
        requests.discard(first)
        requests.add(9, starts_with(b"never"), ends.append, None, 100)
        return False

    first = requests.add(7, match, ends.append, None, 100)
    requests.add(7, starts_with(b"!"), ends.append, None, 100)
    assert requests.take(ANSWER)
    assert ends == [ANSWER]


# Through a session.


def test_a_reply_goes_to_who_asked_and_the_rest_to_the_handler() -> None:
    rig = Rig()
    session, host = rig.open()
    ends: list[Outcome] = []
    session.request(ASK, ends.append)
    session.flush(100)
    assert host.packets() == [ASK]
    session.received(encode(OTHER) + encode(ANSWER) + encode(ANSWER), 101)
    assert ends == [ANSWER]
    assert rig.handler.named("packet") == [("packet", OTHER), ("packet", ANSWER)]
    assert session.stats.packets_received == 3
    session.lost(None, 102)
    assert ends == [ANSWER]


def test_the_first_request_of_a_session_is_treated_like_any_other() -> None:
    for others in (0, 1):
        rig, ends = Rig(), list[Outcome]()
        session, _ = rig.open()
        for _ in range(others):
            session.forget(session.request(OTHER, ends.append))
        rig.handler.on["packet"] = partial(Session.request, packet=ASK, done=ends.append)
        session.received(encode(OTHER) + encode(ANSWER), 101)
        assert ends == [ANSWER]


def test_joined_messages_answer_requests_too() -> None:
    rig = Rig(Config(join_messages=True))
    session, _ = rig.open()
    ends: list[Outcome] = []
    session.request(ASK, ends.append)
    session.flush(100)
    answer = b"".join(encode(Packet(7, part, count=2)) for part in (b"long ", b"answer"))
    session.received(answer, 101)
    session.received(answer, 102)
    assert ends == [Message(7, b"long answer")]
    assert rig.handler.named("message") == [("message", Message(7, b"long answer"))]


def test_a_thousand_at_once_each_end_once_in_time_or_with_their_own_reply() -> None:
    rig = Rig(Config(idle_timeout=None))
    session, host = rig.open()
    ends: dict[int, list[Outcome]] = {n: [] for n in range(1000)}
    for n in range(1000):
        session.request(Packet(n), ends[n].append, timeout=1 + n / 100)
    session.flush(100)
    session.received(b"".join(encode(Packet(n, b"!")) for n in range(999, -1, -2)), 100.5)
    ticks = 0
    while host.timer is not None and host.timer < 200:
        at, host.timer = host.timer, None
        session.tick(at)
        ticks += 1
    assert all(outcomes == [Packet(n, b"!")] for n, outcomes in ends.items() if n % 2)
    assert all(
        len(outcomes) == 1 and isinstance(outcomes[0], TimeoutError) for n, outcomes in ends.items() if not n % 2
    )
    assert ticks <= 501, "one timer for each deadline at most"
    assert session.is_open


@pytest.mark.parametrize("between", ["received", "sent", "tick"])
def test_the_timer_is_set_whatever_comes_between_the_request_and_its_flush(between: str) -> None:
    session, host = Rig(Config(idle_timeout=60)).open()
    session.request(ASK, lambda reply: None, timeout=1)
    if between == "received":
        session.received(encode(OTHER), 100.5)
    elif between == "sent":
        session.sent_bytes(0, 100.5)
    else:
        session.tick(100.5)
    session.flush(100.6)
    assert host.timer == pytest.approx(101.6)


@pytest.mark.parametrize("method", ["sent", "writable", "packet"])
def test_a_request_made_in_a_handler_has_its_whole_time_whatever_called_it(method: str) -> None:
    rig = Rig(Config(write_high_water=100, write_low_water=20))
    session, host = rig.open()
    host.takes = 0
    session.send(Packet(1, bytes(200)))
    session.flush(100)

    def ask(session: Session) -> None:
        rig.handler.on.clear()
        session.request(ASK, lambda reply: None, timeout=5)

    rig.handler.on[method] = ask
    host.now = 140.0
    if method == "packet":
        session.received(encode(OTHER), host.now)
    else:
        host.takes = 1 << 30
        host.drain()
    assert host.timer == 145


def test_the_end_is_told_to_each_who_waits_before_the_handler_hears_of_it() -> None:
    rig = Rig()
    session, _ = rig.open()
    told: list[object] = []
    rig.handler.on["disconnected"] = lambda session: told.append("disconnected")
    for _ in range(2):
        session.request(ASK, lambda reply: told.append(reason_of(reply)), timeout=50)
    session.flush(100)
    session.lost(ConnectionResetError(), 101)
    session.tick(200)
    assert told == [CloseReason.RESET, CloseReason.RESET, "disconnected"]


def test_who_asks_again_when_told_of_the_end_keeps_nobody_else_waiting() -> None:
    rig, ends = Rig(), list[Outcome]()
    session, _ = rig.open()
    session.request(ASK, lambda reply: session.request(ASK, ends.append))
    session.request(ASK, ends.append)
    session.flush(100)
    session.lost(None, 101)
    assert [reason_of(end) for end in ends] == [CloseReason.PEER]
    assert rig.log == []
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.PEER)


def test_a_peer_that_has_finished_sending_answers_nothing_more() -> None:
    rig, ends = Rig(), list[Outcome]()
    session, _ = rig.open()
    rig.handler.on["eof"] = lambda session: None  # it goes on sending
    session.request(ASK, ends.append)
    session.request(ASK, ends.append)
    session.flush(100)
    session.received(encode(ANSWER), 101)
    session.eof(101)
    assert ends[0] == ANSWER
    assert reason_of(ends[1]) is CloseReason.PEER
    assert session.is_open
    with pytest.raises(SessionClosed, match="PEER"):
        session.request(ASK, ends.append)
    assert session.outstanding == 0


def test_a_socket_slow_to_close_does_not_spin_the_timer_of_one_that_waits() -> None:
    rig, ends = Rig(Config(close_timeout=None)), list[Outcome]()
    session, host = rig.open()
    session.request(ASK, ends.append, timeout=1)
    session.flush(100)

    def fail(session: Session) -> None:
        raise RuntimeError("a bug of the application")

    rig.handler.on["packet"] = fail
    session.received(encode(OTHER), 100)
    assert "close" in host.verbs
    set_before = host.verbs.count("set_timer")
    session.tick(101)
    assert host.verbs.count("set_timer") == set_before, "there is nothing to wait for but the host"
    assert [type(end) for end in ends] == [TimeoutError]


def test_a_request_whose_send_finds_the_socket_gone_is_told_so() -> None:
    rig, ends = Rig(Config(write_high_water=10, write_low_water=5, max_outstanding=10)), list[Outcome]()
    session, host = rig.open()

    def broken(data: bytes) -> int:
        session.lost(OSError(EPIPE, "gone"), 101)
        return 0

    host.write = broken  # type: ignore[method-assign]
    session.request(ASK, ends.append)
    assert session.is_over
    assert [reason_of(end) for end in ends] == [CloseReason.RESET]


def test_a_request_that_may_not_be_sent_is_refused_and_leaves_nothing() -> None:
    rig, ends = Rig(Config(max_payload=4)), list[Outcome]()
    session, host = rig.open()
    before = host.verbs.copy()
    with pytest.raises(LocalProtocolError, match="max_payload=4"):
        session.request(Packet(7, b"12345"), ends.append, timeout=1)
    assert host.verbs == before
    session.received(encode(ANSWER), 101)
    assert rig.handler.named("packet") == [("packet", ANSWER)]
    session.close()
    session.flush(101)
    with pytest.raises(SessionClosed):
        session.request(ASK, ends.append)
    session.lost(None, 102)
    assert ends == []


@pytest.mark.parametrize("part", ["match", "done"])
def test_a_match_or_done_that_raises_ends_its_session_like_a_handler_that_does(part: str) -> None:
    rig, ends = Rig(), list[Outcome]()
    session, _ = rig.open()
    other, _ = rig.open()

    def fail(reply: object) -> bool:
        raise RuntimeError(part)

    if part == "match":
        session.request(ASK, ends.append, match=fail)
    else:
        session.request(ASK, fail)
    session.request(OTHER, ends.append)
    session.flush(100)
    session.received(encode(ANSWER), 101)
    session.lost(None, 102)
    assert len(rig.log) == 1
    assert {reason_of(end) for end in ends} == {CloseReason.HANDLER_ERROR}
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.HANDLER_ERROR)
    assert other.is_open


def test_a_paused_session_keeps_the_reply_until_it_goes_on() -> None:
    rig, ends = Rig(), list[Outcome]()
    session, _ = rig.open()
    session.request(ASK, ends.append, timeout=5)
    session.flush(100)
    session.pause()
    session.received(encode(ANSWER), 101)
    assert ends == []
    session.resume()
    session.flush(102)
    assert ends == [ANSWER]


def test_unanswered_counts_what_waits_and_what_was_given_up() -> None:
    session, _ = Rig(Config(max_payload=4)).open()
    assert session.unanswered == 0
    requests = [session.request(ASK, lambda reply: None, timeout=timeout) for timeout in (None, None, 1)]
    session.flush(100)
    session.received(encode(ANSWER), 100)
    assert session.unanswered == 2
    session.forget(requests[1])
    session.tick(101)
    assert session.unanswered == 2
    with pytest.raises(LocalProtocolError):
        session.request(Packet(7, b"12345"), lambda reply: None)
    assert session.unanswered == 2


def test_over_udp_each_peer_has_requests_of_its_own() -> None:
    handler = Recorder()
    endpoint = DatagramEndpoint(handler)
    host = MadeUpDatagramHost(endpoint)
    ends: dict[int, list[Outcome]] = {1: [], 2: [], 3: []}
    peers = {n: ("192.0.2.1", n) for n in ends}
    for n, peer in peers.items():
        endpoint.open(peer, 100).request(ASK, ends[n].append, timeout=n)
    endpoint.flush(100)
    assert sorted(host.sent) == [(encode(ASK), peer) for peer in peers.values()]
    endpoint.received(encode(ANSWER), peers[2], 100.5)
    assert host.timer == 101
    endpoint.tick(101)
    assert [type(end) for end in ends[1]] == [TimeoutError]
    assert ends[2] == [ANSWER]
    endpoint.abort(101)
    assert [reason_of(end) for end in ends[3]] == [CloseReason.SHUTDOWN]
    assert len(handler.named("packet")) == 0


def test_a_request_too_long_for_a_datagram_is_refused_and_waits_for_nothing() -> None:
    handler, ends = Recorder(), list[Outcome]()
    endpoint = DatagramEndpoint(handler, Config(max_datagram=11))
    MadeUpDatagramHost(endpoint)
    session = endpoint.open(("192.0.2.1", 5000), 100)
    with pytest.raises(LocalProtocolError, match="max_datagram=11"):
        session.request(ASK, ends.append, timeout=1)
    endpoint.received(encode(Packet(7)), session.peer, 101)
    endpoint.abort(102)
    assert handler.named("packet") == [("packet", Packet(7))]
    assert ends == []
    assert session.unanswered == 0
