"""Requests.

Packets that wait for a reply: which packet is the reply to which, and what ends a wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from packetcore import CloseReason, Config, LocalProtocolError, Message, Packet, RequestPending, Session, SessionClosed
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig


class Conversation:
    """A client's stream that asks, and the handler of the server, which answers when told.

    Args:
        rig: what it runs on.
        config: of both sides.
        on: what the server's handler does by itself.
    """

    def __init__(self, rig: Rig, config: Config | None = None, **on: Callable[..., object]) -> None:
        self.rig = rig
        self.server = Recorder(**on)
        self.stream = rig.stream(rig.serve(self.server, config), config)
        if not hasattr(self.stream, "request"):
            pytest.skip("the adapter's streams have no requests")
        self.server.wait("connected")

    @property
    def session(self) -> Session:
        """The server's session."""
        return self.server.sessions[0]

    def ask(self, packet: Packet | bytes, **options: Any) -> Callable[[], Any]:
        """Begin a request, and see it arrive. What this gives waits for the reply."""
        arrived = len(self.server.calls("packet_received"))
        wait = self.rig.in_background(lambda: self.stream.request(packet, **options))
        self.server.wait("packet_received", arrived + 1)
        return wait

    def answer(self, *packets: Packet) -> None:
        """Have the server send packets, in one write."""

        def send() -> None:
            for packet in packets:
                self.session.send(packet)

        self.rig.call(send)

    def receive(self) -> Any:
        """What the client's stream gives next."""
        return self.rig.call(self.stream.recv)


def test_a_reply_has_the_id_of_its_request_and_the_rest_goes_to_the_reader(rig: Rig) -> None:
    talk = Conversation(rig)
    seventh, eighth = talk.ask(Packet(7)), talk.ask(Packet(8))
    talk.answer(Packet(9, b"news"), Packet(8, b"to the second"), Packet(7, b"to the first"), Packet(7, b"more news"))
    assert seventh() == Packet(7, b"to the first")
    assert eighth() == Packet(8, b"to the second")
    assert [talk.receive() for _ in range(2)] == [Packet(9, b"news"), Packet(7, b"more news")]


def test_requests_that_wait_for_one_id_are_sent_in_their_order_as_replies_come(rig: Rig) -> None:
    talk = Conversation(rig)
    replies: list[object] = []

    def ask() -> None:
        for at in range(5):
            talk.stream.session.request(Packet(1, b"%d" % at), replies.append, wait=True)

    rig.call(ask)
    for at in range(5):
        assert talk.server.wait("packet_received", at + 1) == [Packet(1, b"%d" % n) for n in range(at + 1)]
        talk.answer(Packet(1, b"reply %d" % at))
    rig.until(lambda: len(replies) == 5, "all have a reply")
    assert replies == [Packet(1, b"reply %d" % at) for at in range(5)]


def test_an_id_in_flight_is_refused_until_its_reply_came(rig: Rig) -> None:
    talk = Conversation(rig)
    wait = talk.ask(Packet(1, b"first"))
    with pytest.raises(RequestPending, match="id=1 is in flight"):
        rig.call(lambda: talk.stream.request(Packet(1, b"second")))
    talk.answer(Packet(1, b"a reply"))
    assert wait() == Packet(1, b"a reply")
    wait = talk.ask(Packet(1, b"third"))
    talk.answer(Packet(1, b"another"))
    assert wait() == Packet(1, b"another")
    assert talk.server.values("packet_received") == [Packet(1, b"first"), Packet(1, b"third")]


def test_a_payload_alone_is_sent_with_an_id_that_no_request_has(rig: Rig) -> None:
    talk = Conversation(rig)
    talk.ask(Packet(0, b"in flight"))
    waits = [talk.ask(b"payload %d" % at, type=at) for at in range(20)]
    asked = [packet for packet in talk.server.values("packet_received")[1:] if isinstance(packet, Packet)]
    assert len({packet.id for packet in asked} - {0}) == 20
    assert [(packet.payload, packet.type) for packet in asked] == [(b"payload %d" % at, at) for at in range(20)]
    talk.answer(*(Packet(packet.id, packet.payload + b"!") for packet in reversed(asked)))
    assert [wait() for wait in waits] == [Packet(packet.id, packet.payload + b"!") for packet in asked]


def test_a_match_function_says_which_packet_is_the_reply(rig: Rig) -> None:
    talk = Conversation(rig)
    waits = [talk.ask(Packet(1), match=lambda reply, at=at: reply.payload == bytes([at])) for at in range(3)]
    talk.answer(Packet(1, b"the same id"), Packet(50, b"\2"), Packet(51, b"\0"), Packet(52, b"\1"))
    assert [wait() for wait in waits] == [Packet(51, b"\0"), Packet(52, b"\1"), Packet(50, b"\2")]
    assert talk.receive() == Packet(1, b"the same id")


def test_five_hundred_requests_at_once_each_get_their_own_reply(rig: Rig) -> None:
    talk = Conversation(rig)
    waits = [rig.in_background(lambda at=at: talk.stream.request(Packet(at, b"?"))) for at in range(500)]
    talk.server.wait("packet_received", 500)
    talk.answer(*(Packet(at, at.to_bytes(2, "big")) for at in reversed(range(500))))
    assert [wait() for wait in waits] == [Packet(at, at.to_bytes(2, "big")) for at in range(500)]


def test_a_client_with_a_handler_asks_too_and_hears_what_answers_nothing(rig: Rig) -> None:
    handler = Recorder()
    replies: list[object] = []
    session = rig.connect(rig.serve(echo()), handler)

    def ask() -> None:
        for id in range(500):
            session.request(Packet(id, b"?"), replies.append)
        session.send(Packet(3, b"said, not asked"))

    rig.call(ask)
    assert handler.wait("packet_received") == [Packet(3, b"said, not asked")]
    assert replies == [Packet(id, b"?") for id in range(500)]


def test_a_server_may_ask_its_client(rig: Rig) -> None:
    asking = Recorder()
    replies: list[object] = []
    server = rig.serve(asking)
    rig.connect(server, echo())
    (session,) = rig.sessions(server, 1)
    rig.call(session.request, Packet(4, b"who are you?"), replies.append)
    rig.until(lambda: bool(replies), "the client answers")
    assert replies == [Packet(4, b"who are you?")]
    assert not asking.calls("packet_received")


class InHand(Conversation):
    """The server asks, on the session that its handler holds, in the manner of the adapter."""

    def __init__(self, rig: Rig, **on: Callable[..., object]) -> None:
        super().__init__(rig, None, **on)
        if rig.driver.request is None:
            pytest.skip("the adapter has no call for a session in hand")

    def request(self, packet: Packet, **options: Any) -> Any:
        assert self.rig.driver.request is not None
        return self.rig.driver.request(self.session, packet, **options)


def test_a_session_in_hand_is_asked_in_one_line(rig: Rig) -> None:
    talk = InHand(rig, packet_received=Session.send)
    replied = rig.in_background(lambda: talk.request(Packet(7, b"status?"), timeout=DEADLINE))
    assert talk.receive() == Packet(7, b"status?")
    rig.call(lambda: talk.stream.send(Packet(7, b"fine")))
    assert replied() == Packet(7, b"fine")
    assert rig.call(lambda: talk.stream.request(Packet(8), timeout=DEADLINE)) == Packet(8)
    assert talk.server.values("packet_received") == [Packet(8)], "the handler hears of the reply too"


def test_a_session_in_hand_that_does_not_reply_or_is_over_is_told(rig: Rig) -> None:
    talk = InHand(rig)
    with pytest.raises(TimeoutError):
        rig.call(lambda: talk.request(Packet(1), timeout=0.05))
    rig.in_background(lambda: talk.stream.close())
    talk.server.wait("disconnected")
    with pytest.raises(SessionClosed):
        rig.call(lambda: talk.request(Packet(2)))


def test_each_request_has_a_timeout_of_its_own(rig: Rig) -> None:
    talk = Conversation(rig)
    longest, longer = talk.ask(Packet(1)), talk.ask(Packet(2), timeout=0.3)
    shorter = talk.ask(Packet(3), timeout=0.1)
    with pytest.raises(TimeoutError, match=r"timeout=0\.1 s"):
        shorter()
    with pytest.raises(TimeoutError, match=r"timeout=0\.3 s"):
        longer()
    talk.answer(Packet(1, b"in good time"))
    assert longest() == Packet(1, b"in good time")


def test_a_reply_that_comes_too_late_is_dropped_and_answers_no_newer_request(rig: Rig) -> None:
    talk = Conversation(rig)
    with pytest.raises(TimeoutError, match=r"timeout=0\.05 s"):
        talk.ask(Packet(7), timeout=0.05)()
    with pytest.raises(RequestPending, match=r"id=7 .* held"):
        rig.call(lambda: talk.stream.request(Packet(7)))
    talk.answer(Packet(7, b"late"), Packet(9, b"news"))
    assert talk.receive() == Packet(9, b"news")
    assert rig.call(lambda: talk.stream.session.stats.late_replies) == 1
    wait = talk.ask(Packet(7))
    talk.answer(Packet(7, b"in time"), Packet(7, b"more news"))
    assert wait() == Packet(7, b"in time")
    assert talk.receive() == Packet(7, b"more news")


def test_a_reply_that_comes_too_late_does_not_go_to_the_handler(rig: Rig) -> None:
    server, client = Recorder(), Recorder()
    session = rig.connect(rig.serve(server), client)
    outcomes: list[object] = []
    rig.call(lambda: session.request(Packet(1), outcomes.append, timeout=0.05))
    rig.until(lambda: bool(outcomes), "the wait is over")
    assert isinstance(outcomes[0], TimeoutError)
    server.wait("packet_received")

    def answer() -> None:
        for payload in (b"late", b"news"):
            server.sessions[0].send(Packet(1, payload))

    rig.call(answer)
    assert client.wait("packet_received") == [Packet(1, b"news")]
    assert len(outcomes) == 1


@pytest.mark.parametrize("hold", [0.2, 0], ids=["held", "not held"])
def test_after_the_hold_who_waits_is_sent_and_a_late_reply_is_one_like_any_other(rig: Rig, hold: float) -> None:
    talk = Conversation(rig, Config(request_hold=hold))
    with pytest.raises(TimeoutError):
        talk.ask(Packet(1, b"first"), timeout=0.05)()
    wait = talk.ask(Packet(1, b"second"), wait=True)
    talk.answer(Packet(1, b"very late"), Packet(1, b"to the second"))
    assert wait() == Packet(1, b"very late")
    assert talk.receive() == Packet(1, b"to the second")


def test_a_request_that_waits_for_its_id_has_a_timeout_from_the_call_and_is_not_sent_after_it(rig: Rig) -> None:
    talk = Conversation(rig)
    wait = talk.ask(Packet(1, b"first"))
    with pytest.raises(TimeoutError, match=r"id 1 was not free .* timeout=0\.05 s: it was not sent"):
        rig.call(lambda: talk.stream.request(Packet(1, b"second"), timeout=0.05, wait=True))
    talk.answer(Packet(1))
    assert wait() == Packet(1)
    talk.ask(Packet(1, b"third"))
    assert talk.server.values("packet_received") == [Packet(1, b"first"), Packet(1, b"third")]


def test_a_request_that_is_cancelled_is_forgotten_and_its_reply_dropped(rig: Rig) -> None:
    talk = Conversation(rig)
    with pytest.raises(TimeoutError):
        rig.call(lambda: talk.stream.request(Packet(1)), timeout=0.1)
    wait = rig.in_background(lambda: talk.stream.request(Packet(1, b"again"), wait=True))
    talk.server.wait("packet_received")
    talk.answer(Packet(1, b"first"))
    talk.server.wait("packet_received", 2)
    talk.answer(Packet(1, b"second"))
    assert wait() == Packet(1, b"second")


def test_a_request_that_is_cancelled_while_it_waits_for_its_id_is_not_sent(rig: Rig) -> None:
    talk = Conversation(rig)
    first = talk.ask(Packet(1, b"first"))
    with pytest.raises(TimeoutError):
        rig.call(lambda: talk.stream.request(Packet(1, b"cancelled"), wait=True), timeout=0.1)
    third = rig.in_background(lambda: talk.stream.request(Packet(1, b"third"), wait=True))
    talk.answer(Packet(1))
    assert first() == Packet(1)
    assert talk.server.wait("packet_received", 2) == [Packet(1, b"first"), Packet(1, b"third")]
    talk.answer(Packet(1, b"!"))
    assert third() == Packet(1, b"!")


def test_a_request_that_cannot_be_sent_waits_for_nothing(rig: Rig) -> None:
    talk = Conversation(rig, Config(max_payload=100))
    with pytest.raises(LocalProtocolError, match="payload of 101 bytes exceeds max_payload=100"):
        rig.call(lambda: talk.stream.request(Packet(1, bytes(101))))
    talk.answer(Packet(1, b"unasked"))
    assert talk.receive() == Packet(1, b"unasked")
    rig.call(talk.stream.close)
    with pytest.raises(SessionClosed):
        rig.call(lambda: talk.stream.request(Packet(1)))


@pytest.mark.parametrize("end", [Session.close, Session.abort], ids=["closes", "aborts"])
def test_every_request_fails_when_the_peer_ends_the_session(rig: Rig, end: Callable[[Session], object]) -> None:
    talk = Conversation(rig, Config(close_timeout=60))
    waits = [talk.ask(Packet(1)), talk.ask(Packet(2), timeout=60), talk.ask(Packet(3), match=lambda reply: True)]
    rig.call(end, talk.session)
    for wait in waits:
        with pytest.raises(SessionClosed) as raised:
            wait()
        assert raised.value.reason in (CloseReason.PEER, CloseReason.RESET)
    with pytest.raises(SessionClosed):
        rig.call(lambda: talk.stream.request(Packet(4)))


def test_every_request_fails_when_this_side_ends_the_session(rig: Rig) -> None:
    talk = Conversation(rig)
    waits = [talk.ask(Packet(id)) for id in range(3)]
    outcomes: list[SessionClosed] = []
    rig.call(lambda: talk.stream.session.request(Packet(0), outcomes.append, wait=True))
    rig.call(talk.stream.close)
    assert [outcome.reason for outcome in outcomes] == [CloseReason.LOCAL]
    for wait in waits:
        with pytest.raises(SessionClosed) as raised:
            wait()
        assert raised.value.reason is CloseReason.LOCAL


def test_a_handler_may_ask_again_when_a_reply_comes(rig: Rig) -> None:
    session = rig.connect(rig.serve(echo()), Recorder())
    replies: list[object] = []

    def ask_next(reply: object) -> None:
        replies.append(reply)
        if len(replies) < 100:
            session.request(Packet(len(replies)), ask_next)

    rig.call(session.request, Packet(0), ask_next)
    rig.until(lambda: len(replies) == 100, "a hundred replies came")
    assert replies == [Packet(id) for id in range(100)]


def test_a_message_may_be_the_reply(rig: Rig) -> None:
    config = Config(join_messages=True)
    stream = rig.stream(rig.serve(config=config), config)
    if not hasattr(stream, "request"):
        pytest.skip("the adapter's streams have no requests")
    assert rig.call(lambda: stream.request(Packet(6, b"as a message"))) == Message(6, b"as a message")


@pytest.mark.usefixtures("needs_udp")
def test_requests_over_udp(rig: Rig) -> None:
    handler = Recorder(packet_received=lambda session, packet: packet.id and session.send(packet))
    stream = rig.stream_udp(rig.serve_udp(handler).address)
    if not hasattr(stream, "request"):
        pytest.skip("the adapter's streams have no requests")
    with pytest.raises(TimeoutError, match=r"timeout=0\.05 s"):
        rig.call(lambda: stream.request(Packet(0), timeout=0.05))
    assert rig.call(lambda: stream.request(Packet(5, b"?"), timeout=5)) == Packet(5, b"?")
