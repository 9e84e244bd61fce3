"""Requests: which packet answers which, and how each wait ends, exactly once."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from errno import EPIPE
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from packetcore import (
    CloseReason,
    Config,
    Endpoint,
    Handler,
    LocalProtocolError,
    Message,
    Packet,
    Reply,
    Request,
    RequestPending,
    Session,
    SessionClosed,
    encode,
)
from packetcore._requests import Requests
from packetcore.framings import SLIP
from packetcore.testing import FakeDatagramEndpoint, FakeDatagramSession, FakeEndpoint, FakeSession
from tests.made_up_host import Recorder, Rig, open_on

ASK = Packet(7, b"?")
ANSWER = Packet(7, b"!")
OTHER = Packet(8, b"news")

Outcome = Reply | Exception


def starts_with(prefix: bytes) -> Callable[[Reply], bool]:
    return lambda reply: reply.payload.startswith(prefix)


def reason_of(outcome: Outcome) -> CloseReason | None:
    assert isinstance(outcome, SessionClosed)
    return outcome.reason


# The bookkeeping alone.


class Desk:
    """A `Requests`, what it sent, and how each wait ended.

    Args:
        hold: how long the id of a request given up is held.
        ids: how many ids there are to pick from, the first 256 at most.
    """

    def __init__(self, hold: float | None = 60.0, ids: int = 65_536) -> None:
        self.sent: list[Packet] = []
        self.ends: list[tuple[object, Outcome]] = []
        self.is_broken = False
        self.requests = Requests(self.send, hold)
        if ids < 65_536:
            blocks = dict.fromkeys(range(1, 256), (1 << 256) - 1) | {0: (1 << 256) - (1 << ids)}
            self.requests._free._blocks, self.requests._free._full = blocks, (1 << 256) - 2

    def send(self, packet: Packet) -> None:
        if self.is_broken:
            raise LocalProtocolError("nothing can be sent")
        self.sent.append(packet)

    def ask(
        self,
        name: object,
        what: int | bytes | bytearray = 7,
        match: Callable[[Reply], bool] | None = None,
        timeout: float | None = None,
        now: float | None = 100,
        wait: bool = False,
    ) -> Request:
        packet = Packet(what, str(name).encode()) if isinstance(what, int) else what
        return self.requests.ask(
            packet, match, lambda outcome: self.ends.append((name, outcome)), timeout, now, wait=wait
        )

    def ended(self) -> list[object]:
        """Names of those told since the last time."""
        names = [name for name, _ in self.ends]
        self.ends.clear()
        return names


def test_a_match_decides_alone_and_goes_before_the_ids() -> None:
    desk = Desk()
    desk.ask("by id")
    desk.ask("first", match=starts_with(b"x"))
    desk.ask("second", match=starts_with(b"x"))
    for packet in (Packet(9, b"x1"), Packet(7, b"y"), Packet(1, b"x2")):
        assert desk.requests.take(packet)
    assert not desk.requests.take(Packet(7, b"y")), "the id alone is nothing to one with a match"
    assert desk.ends == [("first", Packet(9, b"x1")), ("by id", Packet(7, b"y")), ("second", Packet(1, b"x2"))]
    assert len(desk.requests) == 0


def test_each_wait_has_a_deadline_of_its_own_and_a_reply_calls_it_off() -> None:
    desk = Desk(hold=None)
    for id, timeout in ((1, 5.0), (2, 2.0), (3, None)):
        desk.ask(id, id, timeout=timeout)
    assert desk.requests.next_deadline() == 102
    desk.requests.expire(101.9)
    assert not desk.ends
    desk.requests.take(Packet(2))
    assert desk.requests.next_deadline() == 105
    desk.requests.expire(105)
    assert str(desk.ends[1][1]) == "no reply to request 1 came within timeout=5.0 s"
    assert isinstance(desk.ends[1][1], TimeoutError)
    assert (len(desk.requests), desk.requests.next_deadline()) == (1, None)


def test_times_that_begin_later_count_from_then() -> None:
    desk = Desk(hold=10)
    desk.ask(1, 1, timeout=5.0, now=None)
    forgotten = desk.ask(2, 2, timeout=1.0, now=None)
    desk.requests.forget(forgotten, None)
    assert desk.requests.next_deadline() is None
    desk.requests.begin(0)
    desk.requests.begin(103)
    assert desk.requests.next_deadline() == 5
    desk.requests.take(Packet(1))
    assert desk.requests.next_deadline() == 10, "the hold"


def test_one_that_is_forgotten_is_told_nothing_and_its_reply_answers_nobody() -> None:
    desk = Desk()
    for match in (None, starts_with(b"")):
        request = desk.ask("forgotten", 7, match, timeout=1.0)
        assert desk.requests.forget(request, 100)
        assert not desk.requests.forget(request, 100)
    assert len(desk.requests) == 0
    assert desk.requests.take(Packet(7)), "the late reply is dropped"
    assert not desk.requests.take(Packet(7)), "and no more than that"
    assert (desk.requests.late, desk.requests.next_deadline()) == (1, None)
    desk.requests.expire(200)
    desk.requests.fail(SessionClosed())
    assert not desk.ends


@pytest.mark.parametrize(
    ("hold", "how_long"),
    [(60.0, "for request_hold=60.0 s, or until its reply comes"), (None, "until its reply comes")],
)
def test_an_id_in_flight_or_held_is_refused_and_the_error_says_which(hold: float | None, how_long: str) -> None:
    desk = Desk(hold)
    desk.ask("first", timeout=1.0)
    with pytest.raises(RequestPending, match="a request with id=7 is in flight") as refused:
        desk.ask("second")
    assert refused.value.id == 7
    desk.ask("another id", 8)
    desk.requests.expire(101)
    with pytest.raises(RequestPending) as held:
        desk.ask("second", timeout=1.0)
    assert str(held.value) == f"a request with id=7 was given up, and the id is held {how_long}"
    assert held.value.id == held.value.args[0] == 7
    assert str(pickle.loads(pickle.dumps(held.value))) == str(held.value)
    assert desk.requests.take(ANSWER)
    desk.ask("second")
    desk.requests.take(ANSWER)
    assert desk.ended() == ["first", "second"]
    assert [packet.payload for packet in desk.sent] == [b"first", b"another id", b"second"]


def test_after_the_hold_an_id_is_free_and_a_reply_is_a_packet_like_any_other() -> None:
    desk = Desk(hold=60)
    desk.ask("first", timeout=1.0)
    desk.requests.expire(101)
    desk.requests.expire(160.9)
    assert desk.requests.next_deadline() == 161
    with pytest.raises(RequestPending):
        desk.ask("second")
    desk.requests.expire(161)
    assert not desk.requests.take(ANSWER)
    desk.ask("second")
    assert (desk.requests.unanswered, desk.requests.late) == (2, 0)


@pytest.mark.parametrize("is_over", [False, True])
def test_a_hold_that_ends_before_its_time_begins_leaves_nothing(is_over: bool) -> None:
    desk = Desk(hold=60)
    desk.requests.forget(desk.ask("forgotten", now=None), None)
    if is_over:
        desk.requests.fail(SessionClosed())
    else:
        assert desk.requests.take(ANSWER)
    desk.requests.begin(100)
    assert desk.requests.next_deadline() is None
    desk.ask("again")


def test_one_that_is_told_of_the_end_while_it_is_sent_late_is_told_once() -> None:
    ends: list[Outcome] = []

    def send(packet: Packet) -> None:
        if packet.payload == b"late":
            requests.fail(SessionClosed(CloseReason.RESET))
            raise SessionClosed(CloseReason.RESET)

    requests = Requests(send, 60)
    requests.ask(Packet(7), None, ends.append, None, 100)
    requests.ask(Packet(7, b"late"), None, ends.append, None, 100, wait=True)
    assert requests.take(ANSWER)
    assert [type(end) for end in ends] == [SessionClosed, Packet]
    assert len(requests) == 0


def test_without_a_hold_the_next_may_ask_at_once() -> None:
    desk = Desk(hold=0)
    desk.ask("first", timeout=1.0)
    desk.ask("waits", wait=True)
    desk.requests.expire(101)
    desk.requests.take(ANSWER)
    assert not desk.requests.take(ANSWER)
    assert desk.ended() == ["first", "waits"]


def test_those_that_wait_for_an_id_are_sent_in_their_order_when_it_is_free() -> None:
    desk = Desk(hold=60)
    desk.ask("given up", timeout=1.0)
    desk.ask("waits", wait=True, timeout=200.0)
    desk.ask("has too little time", wait=True, timeout=5.0)
    desk.requests.forget(desk.ask("forgotten", wait=True), 100)
    desk.ask("waits longer", wait=True)
    desk.ask("not concerned", 8, wait=True)
    desk.requests.expire(101)
    desk.requests.expire(105)
    assert str(desk.ends[1][1]) == "id 7 was not free for a request within timeout=5.0 s: it was not sent"
    assert desk.requests.take(Packet(7, b"late"))
    assert [packet.payload for packet in desk.sent] == [b"given up", b"not concerned", b"waits"]
    assert desk.requests.unanswered == 2
    desk.requests.expire(300)
    assert str(desk.ends[2][1]) == "no reply to request 7 came within timeout=200.0 s", "counted from the call"
    assert len(desk.sent) == 3
    desk.requests.expire(360)
    assert desk.sent[3].payload == b"waits longer"
    desk.requests.take(ANSWER)
    assert desk.ended() == ["given up", "has too little time", "waits", "waits longer"]


def test_one_whose_time_is_over_when_its_id_is_free_is_not_sent() -> None:
    for hold in (0, 3):
        desk = Desk(hold)
        desk.ask("first", timeout=5.0)
        desk.ask("waits", wait=True, timeout=5.0 + hold)
        desk.requests.expire(105)
        desk.requests.expire(105 + hold)
        assert len(desk.sent) == 1


def test_one_that_waited_and_cannot_be_sent_is_told_why_and_the_next_has_its_turn() -> None:
    desk = Desk()
    desk.ask("first")
    for name in ("second", "third"):
        desk.ask(name, wait=True)
    desk.is_broken = True
    assert desk.requests.take(ANSWER)
    assert [(name, type(outcome)) for name, outcome in desk.ends] == [
        ("second", LocalProtocolError),
        ("third", LocalProtocolError),
        ("first", Packet),
    ]
    desk.is_broken = False
    assert desk.requests.unanswered == 0
    desk.ask("fourth")


def test_one_that_cannot_be_sent_takes_no_id() -> None:
    desk = Desk()
    desk.is_broken = True
    for match in (None, starts_with(b"")):
        with pytest.raises(LocalProtocolError, match="nothing can be sent"):
            desk.ask("refused", match=match, timeout=1.0)
    assert (len(desk.requests), desk.requests.unanswered, desk.requests.next_deadline()) == (0, 0, None)
    assert not desk.requests.take(ANSWER)
    assert not desk.requests._free._blocks
    desk.is_broken = False
    desk.ask("sent")


def test_one_asked_from_inside_of_a_send_that_fails_has_the_id_next() -> None:
    desk = Desk()

    def send(packet: Packet) -> None:
        desk.requests._send = desk.send
        desk.ask("inner", wait=True)
        raise LocalProtocolError("nothing can be sent")

    desk.requests._send = send
    with pytest.raises(LocalProtocolError):
        desk.ask("outer")
    assert [packet.payload for packet in desk.sent] == [b"inner"]


def test_those_of_one_time_end_in_the_order_of_asking_and_one_without_time_at_once() -> None:
    desk = Desk()
    for id, timeout in ((1, 0.0), (2, 1.0), (3, 1.0)):
        desk.ask(id, id, timeout=timeout, now=None)
    desk.requests.begin(100)
    desk.requests.expire(100)
    assert desk.ended() == [1]
    desk.requests.expire(101)
    assert desk.ended() == [2, 3]


def test_without_a_word_of_waiting_an_id_that_is_taken_is_refused() -> None:
    requests = Requests(print, None)
    requests.ask(ASK, None, print, None, 100)
    with pytest.raises(RequestPending):
        requests.ask(ASK, None, print, None, 100)


def test_what_did_not_come_or_was_not_sent_in_time_is_named() -> None:
    desk = Desk(hold=None, ids=1)
    desk.ask("by match", 7, match=starts_with(b"x"), timeout=1.0)
    desk.ask("first", b"", timeout=None)
    desk.ask("second", b"", timeout=1.0, wait=True)
    desk.requests.expire(101)
    assert [str(error) for _, error in desk.ends] == [
        "no id was free for a request within timeout=1.0 s: it was not sent",
        "no reply to request 7 came within timeout=1.0 s",
    ]
    desk.requests.ask_by(starts_with(b"x"), b"?", lambda outcome: desk.ends.append(("framed", outcome)), 1.0, 101)
    desk.requests.expire(102)
    assert str(desk.ends[-1][1]) == "no reply to the request came within timeout=1.0 s"


def test_a_hold_that_another_has_ended_meanwhile_is_no_mistake_and_each_late_reply_counts() -> None:
    desk = Desk(hold=1.0)
    for id in (1, 2):
        assert desk.requests.forget(desk.ask(id, id), 100)

    def reply_late(outcome: Outcome) -> None:
        assert desk.requests.take(Packet(1))
        assert desk.requests.take(Packet(2))

    desk.requests.ask(Packet(3), None, reply_late, 1.0, 100)
    desk.requests.expire(101)
    assert desk.requests.late == 2


def test_a_payload_gets_an_id_that_is_free() -> None:
    desk = Desk()
    desk.ask("in flight", 0)
    desk.requests.forget(desk.ask("held", 2), 100)
    for kind in (bytes, bytearray, memoryview):
        desk.requests.ask(kind(b"payload"), None, lambda reply: None, None, 100, type=5)
    assert desk.sent[2:] == [Packet(id, b"payload", type=5) for id in (1, 3, 4)]
    desk.requests.take(Packet(1))
    assert desk.ask("later", b"").id == 5, "one used of late does not come again soon"
    assert desk.ask("with a match", b"", starts_with(b"x")).id == 6
    with pytest.raises(TypeError, match="type=5"):
        desk.requests.ask(Packet(9), None, lambda reply: None, None, 100, type=5)
    with pytest.raises(ValueError, match="type=256"):
        desk.requests.ask(b"", None, lambda reply: None, None, 100, type=256)


def test_with_every_id_taken_a_payload_is_refused_or_waits() -> None:
    desk = Desk()
    for n in range(65_536):
        desk.ask(n, b"", timeout=1.0 if n < 5 else None)
    desk.requests.expire(101)
    expected = "no id is free: 65531 have a request in flight, and 5 had one that was given up"
    with pytest.raises(RequestPending, match=expected) as refused:
        desk.ask("refused", b"")
    assert refused.value.id is None
    desk.ends.clear()
    desk.ask("waits", bytearray(b"!"), wait=True)
    desk.ask("has a match", b"", starts_with(b"x"), wait=True)
    desk.ask("has too little time", b"", wait=True, timeout=2.0)
    desk.ask("waits for the id", 40_000, wait=True)
    desk.requests.expire(102)
    assert str(desk.ends.pop()[1]) == "no id was free for a request within timeout=2.0 s: it was not sent"
    desk.requests.take(Packet(40_000))
    desk.requests.take(Packet(40_001))
    desk.requests.take(Packet(40_002))
    assert desk.sent[-3:] == [Packet(40_000, b"waits for the id"), Packet(40_001, b"!"), Packet(40_002)]
    desk.requests.take(Packet(1, b"x"))
    assert desk.ended() == [40_000, 40_001, 40_002, "has a match"]
    assert desk.ask("one is free again", b"").id == 40_002


def test_each_step_takes_as_long_with_all_ids_taken_as_with_none() -> None:
    desk = Desk(hold=None)
    for _ in range(65_535):
        desk.requests.forget(desk.ask("held", b""), 100)
    # Were each of these to search, this would take a minute.
    for n in range(50_000):
        assert desk.ask(n, b"").id == 65_535
        desk.requests.take(Packet(65_535))
        desk.requests.expire(100)
        assert desk.requests.next_deadline() is None


def test_ids_asked_once_leave_nothing_behind() -> None:
    desk = Desk(hold=1)
    for n in range(20_000):
        desk.ask(n, n, timeout=1.0, now=n)
        assert desk.requests.take(Packet(n))
        desk.requests.forget(desk.ask(n, n, timeout=1.0, now=n), n)
        desk.requests.expire(n + 1)
    assert not desk.requests._in_flight
    assert not desk.requests._held
    assert not desk.requests._free._blocks
    assert len(desk.requests._deadlines._heap) < 200


@pytest.mark.parametrize("how", ["fail", "expire"])
def test_one_that_raises_or_asks_again_at_its_end_keeps_nobody_else_from_hearing(how: str) -> None:
    desk, told = Desk(hold=0), list[str]()
    requests = desk.requests

    def raise_it(reply: Outcome) -> None:
        told.append("raises")
        raise RuntimeError("a bug of the application")

    def ask_again(reply: Outcome) -> None:
        told.append("asks again")
        requests.ask(Packet(9), None, lambda reply: told.append("never"), 0.0, 102)

    requests.ask(Packet(7), None, raise_it, 1.0, 100)
    requests.ask(Packet(6), None, ask_again, 1.0, 100)
    last = requests.ask(Packet(5), None, lambda reply: told.append("forgotten"), 1.0, 100)
    requests.ask(Packet(8), None, lambda reply: requests.forget(last), 0.5, 100)
    requests.ask(Packet(4), None, lambda reply: told.append("last"), 1.0, 100)
    if how == "expire":
        with pytest.raises(RuntimeError):
            requests.expire(102)
        assert told == ["raises", "asks again", "last"], "the one due first forgot another"
    else:
        with pytest.raises(RuntimeError):
            requests.fail(SessionClosed())
        assert told == ["raises", "asks again", "forgotten", "last"]
    assert len(requests) == 1


def test_one_that_raises_when_it_cannot_be_sent_keeps_nobody_else_from_being_sent() -> None:
    told: list[str] = []

    def send(packet: Packet) -> None:
        told.append(f"sends {packet.payload!r}")
        if packet.payload == b"bad":
            raise LocalProtocolError("too bad")

    def raise_it(reply: str) -> None:
        raise RuntimeError("a bug of the application")

    def tell(done: Callable[[str], None], reply: Outcome) -> None:
        done("told")

    requests = Requests(send, 60)
    for payload, done in ((b"1", told.append), (b"bad", raise_it), (b"3", told.append)):
        requests.ask(Packet(7, payload), None, partial(tell, done), None, 100, wait=True)
    with pytest.raises(RuntimeError):
        requests.take(ANSWER)
    assert told == ["sends b'1'", "sends b'bad'", "sends b'3'", "told"]


def test_a_match_may_ask_and_forget() -> None:
    desk = Desk()

    def match(reply: Reply) -> bool:
        desk.requests.forget(first)
        desk.ask("asked", 9, starts_with(b"never"))
        return False

    first = desk.ask("first", 7, match)
    desk.ask("second", 7, starts_with(b"!"))
    assert desk.requests.take(ANSWER)
    assert desk.ends == [("second", ANSWER)]


# Against a model, in which lists are searched from end to end.

NEVER = float("inf")
FEW = 4
few_ids = st.integers(0, FEW - 1)
timeouts = st.none() | st.integers(0, 6).map(float)


@dataclass
class Asked:
    """One that waits, in the model."""

    name: int
    id: int | None
    has_match: bool
    due: float | None  # `None` while it has not begun
    timeout: float | None
    handle: Request | None = None
    is_sent: bool = False


class RequestsMachine(RuleBasedStateMachine):
    hold: float | None = 3

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.hold, FEW)
        self.now = 0.0
        self.asked: list[Asked] = []  # those that wait, in the order of asking
        self.held: dict[int, float] = {}
        self.next_id = 0
        self.names = 0
        self.late = 0
        self.unanswered = 0
        self.sent: list[Packet] = []
        self.ends: list[tuple[int, type]] = []

    # The model.

    def taken(self) -> set[int]:
        return {one.id for one in self.asked if one.is_sent and not one.has_match and one.id is not None} | {*self.held}

    def pick(self) -> int | None:
        for id in range(self.next_id, self.next_id + FEW):
            if id % FEW not in self.taken():
                self.next_id = id % FEW + 1
                return id % FEW
        return None

    def pass_on(self) -> None:
        """Send whoever may be sent."""
        for id in range(FEW):
            while id not in self.taken():
                waiting = [one for one in self.asked if not one.is_sent]
                for_it = [one for one in waiting if one.id == id] or [one for one in waiting if one.id is None]
                if not for_it:
                    break
                one = for_it[0]
                one.id = id
                if self.desk.is_broken:
                    self.asked.remove(one)
                    self.ends.append((one.name, LocalProtocolError))
                else:
                    self.send(one)

    def send(self, one: Asked) -> None:
        assert one.id is not None
        one.is_sent = True
        self.unanswered += 1
        self.sent.append(Packet(one.id, str(one.name).encode()))

    def begin(self) -> None:
        for one in self.asked:
            if one.timeout is not None and one.due is None:
                one.due = self.now + one.timeout
        for id, until in self.held.items():
            if until == NEVER and self.hold is not None:
                self.held[id] = self.now + self.hold

    def give_up(self, one: Asked, is_known: bool) -> None:
        self.asked.remove(one)
        if one.is_sent and not one.has_match and one.id is not None and self.hold != 0:
            self.held[one.id] = NEVER
            if is_known and self.hold is not None:
                self.begin()

    # What is done to both.

    @rule(id=few_ids | st.none(), has_match=st.booleans(), timeout=timeouts, wait=st.booleans(), is_known=st.booleans())
    def ask(self, id: int | None, has_match: bool, timeout: float | None, wait: bool, is_known: bool) -> None:
        self.names += 1
        name = self.names
        match = (lambda reply: reply.payload == str(name).encode()) if has_match else None
        expected = self.pick() if id is None else id
        must_wait = expected is None or (not has_match and expected in self.taken())
        what = str(name).encode() if id is None else id
        error: type[Exception] | None = RequestPending if must_wait and not wait else None
        if not must_wait and self.desk.is_broken:
            error = LocalProtocolError
        one = Asked(name, expected, has_match, None, timeout)
        self.asked.append(one)
        if error is not RequestPending and timeout is not None and is_known:
            self.begin()
        if error is not None:
            self.asked.remove(one)
            with pytest.raises(error):
                self.desk.ask(name, what, match, timeout, self.now if is_known else None, wait)
            return
        one.handle = self.desk.ask(name, what, match, timeout, self.now if is_known else None, wait)
        if not must_wait:
            self.send(one)

    @rule(id=few_ids)
    def reply(self, id: int) -> None:
        one = next((one for one in self.asked if one.is_sent and one.id == id and not one.has_match), None)
        is_late = id in self.held
        if one is not None:
            self.asked.remove(one)
        self.held.pop(id, None)
        self.late += is_late
        self.unanswered -= one is not None or is_late
        self.pass_on()
        if one is not None:
            self.ends.append((one.name, Packet))
        assert self.desk.requests.take(Packet(id, b"?")) is (one is not None or is_late)

    @precondition(lambda self: any(one.has_match and one.is_sent for one in self.asked))
    @rule(chance=st.randoms(use_true_random=False))
    def reply_to_a_match(self, chance: random.Random) -> None:
        one = chance.choice([one for one in self.asked if one.has_match and one.is_sent])
        self.asked.remove(one)
        self.unanswered -= 1
        self.ends.append((one.name, Packet))
        assert self.desk.requests.take(Packet(chance.randrange(FEW), str(one.name).encode()))

    @precondition(lambda self: self.asked)
    @rule(chance=st.randoms(use_true_random=False), is_known=st.booleans())
    def forget(self, chance: random.Random, is_known: bool) -> None:
        one = chance.choice(self.asked)
        assert one.handle is not None
        self.give_up(one, is_known)
        self.pass_on()
        assert self.desk.requests.forget(one.handle, self.now if is_known else None)
        assert not self.desk.requests.forget(one.handle, self.now)

    @rule()
    def flush(self) -> None:
        self.begin()
        self.desk.requests.begin(self.now)

    @rule(step=st.integers(0, 4))
    def tick(self, step: int) -> None:
        self.now += step
        over = [id for id, until in self.held.items() if until <= self.now]
        due = [(one.is_sent, one.due, one) for one in self.asked if one.due is not None and one.due <= self.now]
        for _, _, one in sorted(due, key=lambda entry: entry[:2]):
            self.ends.append((one.name, TimeoutError))
            self.give_up(one, True)
            self.pass_on()
        for id in over:  # the first given up is the first to be free
            del self.held[id]
            self.pass_on()
        self.desk.requests.expire(self.now)

    @rule()
    def fail(self) -> None:
        self.ends += [(one.name, SessionClosed) for one in self.asked]
        self.asked.clear()
        self.held.clear()
        self.desk.requests.fail(SessionClosed())

    @rule()
    def break_or_mend(self) -> None:
        self.desk.is_broken = not self.desk.is_broken

    @invariant()
    def both_have_sent_and_told_the_same(self) -> None:
        by_name = partial(sorted, key=str)
        assert by_name((name, type(outcome)) for name, outcome in self.desk.ends) == by_name(self.ends)
        assert by_name(self.desk.sent) == by_name(self.sent), "each goes once, with the same id"
        for sent in (self.desk.sent, self.sent):
            sent.sort(key=lambda packet: packet.id)  # those of one id keep their order
        assert self.desk.sent == self.sent

    @invariant()
    def both_hold_and_count_the_same(self) -> None:
        requests = self.desk.requests
        assert (len(requests), requests.late, requests.unanswered) == (len(self.asked), self.late, self.unanswered)
        assert dict(requests._held) == self.held
        assert set(range(FEW)) - self.taken() == {id for id in range(FEW) if not requests._free._blocks[0] >> id & 1}
        times = [one.due for one in self.asked if one.due is not None]
        times += [until for until in self.held.values() if until < NEVER]
        assert requests.next_deadline() == min(times, default=None)


class WithoutAHold(RequestsMachine):
    hold = 0


class HeldUntilTheReplyComes(RequestsMachine):
    hold = None


TestRequests = RequestsMachine.TestCase
TestWithoutAHold = WithoutAHold.TestCase
TestHeldUntilTheReplyComes = HeldUntilTheReplyComes.TestCase
for case in (TestRequests, TestWithoutAHold, TestHeldUntilTheReplyComes):
    # A run is many examples in one; to explain a failure would take minutes.
    case.settings = settings(max_examples=settings().max_examples // 4, phases=set(Phase) - {Phase.explain})


# Through a session.


def test_a_reply_goes_to_who_asked_and_the_rest_to_the_handler() -> None:
    handler, ends = Recorder(), list[Outcome]()
    session = FakeSession(handler)
    session.session.request(ASK, ends.append)
    assert session.sent == [ASK]
    session.feed(OTHER, ANSWER, ANSWER)
    assert ends == [ANSWER]
    assert handler.named("packet") == [("packet", OTHER), ("packet", ANSWER)]
    assert session.session.stats.packets_received == 3
    session.eof()
    assert ends == [ANSWER]


def test_the_first_request_of_a_session_is_treated_like_any_other() -> None:
    for others in (0, 1):
        handler, ends = Recorder(), list[Outcome]()
        session = FakeSession(handler)
        for _ in range(others):
            session.session.forget(session.session.request(Packet(9), ends.append))
        handler.on["packet"] = partial(Session.request, packet=ASK, done=ends.append)
        session.feed(OTHER, ANSWER)
        assert ends == [ANSWER]


def test_joined_messages_answer_requests_too() -> None:
    handler, ends = Recorder(), list[Outcome]()
    session = FakeSession(handler, Config(join_messages=True))
    session.session.request(ASK, ends.append)
    answer = [Packet(7, part, count=2) for part in (b"long ", b"answer")]
    session.feed(*answer)
    session.feed(*answer)
    assert ends == [Message(7, b"long answer")]
    assert handler.named("message") == [("message", Message(7, b"long answer"))]


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
    assert ticks <= 1000, "one timer for each deadline and each hold at most"
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
    handler, told = Recorder(), list[object]()
    session = FakeSession(handler)
    handler.on["disconnected"] = lambda session: told.append("disconnected")
    for wait in (False, True):
        session.session.request(ASK, lambda reply: told.append(reason_of(reply)), timeout=50, wait=wait)
    session.lost()
    session.advance(100)
    assert told == [CloseReason.RESET, CloseReason.RESET, "disconnected"]


def test_who_asks_again_when_told_of_the_end_keeps_nobody_else_waiting() -> None:
    handler, ends = Recorder(), list[Outcome]()
    session = FakeSession(handler)
    session.session.request(ASK, lambda reply: session.session.request(ASK, ends.append))
    session.session.request(OTHER, ends.append)
    session.lost()
    assert [reason_of(end) for end in ends] == [CloseReason.RESET]
    assert handler.calls[-1] == ("disconnected", CloseReason.RESET)


def test_a_peer_that_has_finished_sending_answers_nothing_more() -> None:
    handler, ends = Recorder(), list[Outcome]()
    session = FakeSession(handler)
    handler.on["eof"] = lambda session: None  # it goes on sending
    session.session.request(ASK, ends.append)
    session.session.request(OTHER, ends.append)
    session.session.request(OTHER, ends.append, wait=True)
    session.feed(ANSWER)
    session.eof()
    assert ends[0] == ANSWER
    assert [reason_of(end) for end in ends[1:]] == [CloseReason.PEER] * 2
    assert session.session.is_open
    with pytest.raises(SessionClosed, match="PEER"):
        session.session.request(ASK, ends.append)
    assert session.session.outstanding == 0


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
    handler, ends = Recorder(), list[Outcome]()
    server = FakeEndpoint(handler)
    session, other = FakeSession(server), FakeSession(server)

    def fail(reply: object) -> bool:
        raise RuntimeError(part)

    if part == "match":
        session.session.request(ASK, ends.append, match=fail)
    else:
        session.session.request(ASK, fail)
    session.session.request(OTHER, ends.append)
    with pytest.raises(RuntimeError, match=part):
        session.feed(ANSWER)
    assert {reason_of(end) for end in ends} == {CloseReason.HANDLER_ERROR}
    assert handler.calls[-1] == ("disconnected", CloseReason.HANDLER_ERROR)
    assert len(session.errors) == 1
    assert other.session.is_open


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
    fake = FakeSession(Handler(), Config(max_payload=4))
    session = fake.session
    assert session.unanswered == 0
    requests = [session.request(Packet(id), lambda reply: None, timeout=1 if id == 9 else None) for id in (7, 8, 9)]
    fake.feed(ANSWER)
    assert session.unanswered == 2
    session.forget(requests[1])
    session.request(OTHER, lambda reply: None, wait=True)
    fake.advance(1)
    assert session.unanswered == 2, "what was not sent has no reply to come"
    with pytest.raises(LocalProtocolError):
        session.request(Packet(7, b"12345"), lambda reply: None)
    assert session.unanswered == 2
    fake.feed(Packet(9))
    assert session.unanswered == 1, "a late reply has come"


def test_a_late_reply_is_dropped_and_counted_and_answers_no_newer_request() -> None:
    handler, ends = Recorder(), list[Outcome]()
    fake = FakeSession(handler)
    session = fake.session
    session.request(ASK, ends.append, timeout=1)
    fake.advance(1)
    with pytest.raises(RequestPending, match=r"id=7 .* held for request_hold=60\.0 s"):
        session.request(ASK, ends.append)
    assert fake.sent == [ASK], "nothing of it was sent"
    fake.feed(Packet(7, b"late"))
    assert (session.stats.late_replies, session.stats.packets_received, len(ends)) == (1, 1, 1)
    assert not handler.named("packet")
    session.request(ASK, ends.append)
    fake.feed(ANSWER, Packet(7, b"news"))
    assert ends[1:] == [ANSWER]
    assert handler.named("packet") == [("packet", Packet(7, b"news"))]
    fake.eof()
    assert fake.endpoint.stats.total.late_replies == 1


@pytest.mark.parametrize("hold", [None, 5.0])
def test_the_timer_frees_an_id_whose_reply_never_came_and_sends_who_waits_for_it(hold: float | None) -> None:
    ends = list[Outcome]()
    session = FakeSession(Handler(), Config(idle_timeout=None, request_hold=hold))
    forgotten = session.session.request(ASK, ends.append)
    session.advance(50)
    session.session.forget(forgotten)
    session.session.request(Packet(7, b"again"), ends.append, wait=True)
    session.advance(4.9)  # from when it was forgotten
    assert session.sent == [ASK]
    session.advance(1e9 if hold is None else 0.1)
    assert session.sent == [ASK] if hold is None else [ASK, Packet(7, b"again")]
    session.feed(ANSWER)
    assert session.sent == [ASK, Packet(7, b"again")]
    session.feed(*[ANSWER] * (hold is None))
    assert ends == [ANSWER]


def test_one_that_waits_for_its_id_is_sent_with_what_the_handler_sends_upon_the_reply() -> None:
    ends = list[Outcome]()
    session = FakeSession(Handler())
    session.session.request(ASK, lambda reply: session.session.send(OTHER))
    session.session.request(ASK, ends.append, timeout=30, wait=True)
    session.advance(1)
    session.feed(ANSWER)
    assert session.sent == [ASK, ASK, OTHER]
    assert len(session.writes) == 2
    session.advance(29)
    assert str(ends[0]) == "no reply to request 7 came within timeout=30 s", "its time was counted already"


def test_a_request_waits_for_its_id_only_where_it_may_be_sent() -> None:
    ends = list[Outcome]()
    session = FakeSession(Handler())
    session.session.request(ASK, ends.append)
    session.session.close()
    with pytest.raises(SessionClosed):
        session.session.request(ASK, ends.append, wait=True)
    assert session.is_over
    assert [reason_of(end) for end in ends] == [CloseReason.LOCAL]


def test_a_payload_is_a_request_with_an_id_of_its_own() -> None:
    ends = list[Outcome]()
    session = FakeSession(Handler())
    asked = [session.session.request(bytearray(b"?"), ends.append, type=type) for type in (None, 5)]
    assert session.sent == [Packet(0, b"?"), Packet(1, b"?", type=5)]
    assert [request.id for request in asked] == [0, 1]
    session.feed(Packet(1, b"!"))
    assert ends == [Packet(1, b"!")]


def test_over_udp_each_peer_has_requests_of_its_own() -> None:
    handler = Recorder()
    client = FakeDatagramEndpoint(handler, is_server=False)
    peers = [FakeDatagramSession(client) for _ in range(3)]
    ends: list[list[Outcome]] = [[], [], []]
    for peer, outcomes, timeout in zip(peers, ends, (1, 2, 3), strict=True):
        peer.session.request(ASK, outcomes.append, timeout=timeout)
        assert peer.sent == [ASK]
    client.advance(0.5)
    peers[1].feed(ANSWER)
    client.advance(0.5)
    assert [type(end) for end in ends[0]] == [TimeoutError]
    assert ends[1] == [ANSWER]
    client.close()
    assert [reason_of(end) for end in ends[2]] == [CloseReason.SHUTDOWN]
    assert len(handler.named("packet")) == 0


def test_a_request_too_long_for_a_datagram_is_refused_and_waits_for_nothing() -> None:
    handler, ends = Recorder(), list[Outcome]()
    peer = FakeDatagramSession(handler, Config(max_datagram=11), is_server=False)
    with pytest.raises(LocalProtocolError, match="max_datagram=11"):
        peer.session.request(ASK, ends.append, timeout=1)
    peer.feed(Packet(7))
    peer.endpoint.close()
    assert handler.named("packet") == [("packet", Packet(7))]
    assert ends == []
    assert peer.session.unanswered == 0


def test_one_that_knows_its_reply_has_its_time_from_begin_and_counts_for_nothing_if_it_cannot_be_sent() -> None:
    desk, ends = Desk(), list[Outcome]()
    desk.requests.ask_by(lambda reply: False, Packet(1), ends.append, 2.0, None)
    assert desk.requests.next_deadline() is None
    desk.requests.begin(100)
    assert desk.requests.next_deadline() == 102
    desk.requests.ask_by(lambda reply: False, Packet(2), ends.append, None, 100)
    desk.requests.ask_by(lambda reply: reply == OTHER, Packet(3), ends.append, 1.0, 100)
    assert desk.sent == [Packet(1), Packet(2), Packet(3)]
    assert desk.requests.next_deadline() == 101
    desk.is_broken = True
    with pytest.raises(LocalProtocolError):
        desk.requests.ask_by(lambda reply: True, Packet(1), ends.append, 0.5, 100)
    assert (len(desk.requests), desk.requests.unanswered, desk.requests.next_deadline()) == (3, 3, 101)
    assert not desk.requests.take(Packet(1))
    assert desk.requests.take(OTHER)
    assert ends == [OTHER]


def test_what_ends_on_the_word_of_another_is_told_nothing_and_of_two_that_raise_the_first_is_heard() -> None:
    desk = Desk()
    requests = desk.requests

    def raise_it(what: Exception, reply: Outcome) -> None:
        raise what

    for id, error in enumerate((SessionClosed(), ValueError("first"), ValueError("second"), SessionClosed())):
        requests.ask(Packet(id), None, partial(raise_it, error), 1.0, 100)
    with pytest.raises(ValueError, match="first"):
        requests.expire(101)
    second = requests.ask(Packet(9), None, lambda reply: desk.ends.append(("second", reply)), 2.0, 101)
    requests.ask(Packet(8), None, lambda reply: requests.forget(second), 1.0, 101)
    requests.expire(104)
    assert (desk.ends, len(requests)) == ([], 0)


def test_one_that_cannot_be_sent_leaves_the_id_to_who_has_it() -> None:
    desk = Desk()
    desk.ask("has it")
    desk.is_broken = True
    with pytest.raises(LocalProtocolError):
        desk.ask("knows its reply", match=starts_with(b"x"))
    desk.is_broken = False
    with pytest.raises(RequestPending):
        desk.ask("wants it")
    desk.ask("waits", wait=True)
    assert len(desk.requests) == 2
    picked = {desk.ask(number, b"any").id for number in range(300)}
    assert len(picked) == 300
    assert 7 not in picked


def test_a_packet_of_another_framing_is_asked_with_a_match() -> None:
    ends: list[Any] = []
    handler = Recorder()
    endpoint: Endpoint[Any] = Endpoint(handler, framing=SLIP())
    session, host = open_on(endpoint, ("192.0.2.1", 5000))
    with pytest.raises(TypeError, match=r"^match=None: packets of another framing have no id to know a reply by$"):
        session.request(b"ask", ends.append)
    session.request(b"ask", ends.append, match=lambda reply: reply == b"answer", timeout=2.0)
    session.flush(101)
    assert (bytes(host.written), host.timer) == (b"\xc0ask\xc0", 103)
    session.received(b"\xc0other\xc0answer\xc0", 102)
    assert ends == [b"answer"]
    assert handler.calls[-1] == ("packet", b"other")

    def ask_again(session: Session[Any]) -> None:
        session.request(b"again", ends.append, match=lambda reply: False, timeout=2.0)

    handler.on["packet"] = ask_again
    session.tick(109)
    session.received(b"\xc0now\xc0", 110)
    assert host.timer == 112, "in a handler the time is known"
    session.tick(112)
    assert isinstance(ends.pop(), TimeoutError)


@pytest.mark.parametrize("where", ["in a handler", "outside"])
@pytest.mark.parametrize("limit", [None, 1])
def test_the_hold_of_one_that_is_forgotten_begins_when_the_time_is_known(limit: int | None, where: str) -> None:
    config = Config(request_hold=5.0, idle_timeout=None, max_requests_in_flight=limit)
    rig = Rig(config)
    session, host = rig.open()
    request = session.request(Packet(1), print)
    session.flush(105)
    assert host.timer is None
    if where == "outside":
        session.forget(request)
        session.flush(110)
    else:
        rig.handler.on["packet"] = lambda session: session.forget(request)
        session.received(encode(Packet(99)), 110)
    assert host.timer == 115


def test_one_that_has_its_turn_outside_an_input_has_its_whole_time() -> None:
    config = Config(request_hold=0, idle_timeout=None, max_requests_in_flight=2, max_payload=4)
    session, host = Rig(config).open()
    outcomes: list[Outcome] = []
    first = session.request(Packet(1), print)
    session.request(Packet(1, b"too long"), outcomes.append, wait=True)
    session.request(Packet(2), print, timeout=5.0)
    session.flush(101)
    session.forget(first)  # has the second fail, so that the third has its turn
    assert len(outcomes) == 1
    session.flush(150)
    session.tick(150)
    assert host.packets() == [Packet(1), Packet(2)]
    assert host.timer == 155


def test_a_payload_may_be_asked_with_a_match_too() -> None:
    session = FakeSession(Handler())
    outcomes: list[Outcome] = []
    session.session.request(b"?", outcomes.append, type=3, match=starts_with(b"!"))
    (sent,) = session.sent
    assert (sent.payload, sent.type) == (b"?", 3)
    session.feed(Packet(9, b"!"))
    assert outcomes == [Packet(9, b"!")]


def test_late_replies_of_all_sessions_are_added_up() -> None:
    server = FakeEndpoint(Handler())
    for _ in range(2):
        session = FakeSession(server)
        session.session.forget(session.session.request(ASK, print))
        session.feed(ANSWER)
    assert server.stats.total.late_replies == 2


def test_who_binds_when_it_is_over_is_told_why() -> None:
    session, _ = Rig().open()
    session.lost(ConnectionResetError(), 101)
    with pytest.raises(SessionClosed) as told:
        session.bind("meter")
    assert told.value.reason is CloseReason.RESET


def test_a_payload_that_waited_for_an_id_keeps_its_type() -> None:
    desk = Desk(ids=1)
    first = desk.ask("first", b"x")
    assert first.id is not None
    desk.requests.ask(b"y", None, lambda reply: None, None, 100, type=5, wait=True)
    desk.requests.take(Packet(first.id))
    assert desk.sent[1:] == [Packet(first.id, b"y", type=5)]


def test_a_message_that_answers_goes_to_who_asked_alone_and_another_to_the_handler_alone() -> None:
    rig, ends = Rig(Config(join_messages=True)), list[Outcome]()
    session, _ = rig.open()
    session.request(Packet(7), ends.append)
    session.received(encode(OTHER) + encode(ANSWER), 101)
    assert ends == [Message(7, b"!")]
    assert rig.handler.named("message") == [("message", Message(8, b"news"))]


def test_one_that_another_forgets_at_the_end_of_all_is_told_nothing() -> None:
    desk = Desk()
    second = desk.ask("second", 9)
    first = desk.requests._in_flight
    desk.requests.ask(Packet(8), lambda reply: False, lambda reply: desk.requests.forget(second), None, 100)
    desk.requests.fail(SessionClosed())
    assert (desk.ends, len(desk.requests), first) == ([], 0, {})
