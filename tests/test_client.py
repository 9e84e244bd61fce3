"""`ClientBase` on a runtime where the test connects, refuses and lets time pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from packetcore import (
    Backoff,
    ClientBase,
    CloseReason,
    Config,
    Endpoint,
    Handler,
    Inbox,
    LocalProtocolError,
    NotConnected,
    Packet,
    Session,
    SessionClosed,
    encode,
)
from packetcore.framings import FixedLength
from tests.made_up_host import MadeUpHost, Recorder, open_on

A, B, C, D = (Packet(n) for n in range(4))
LOGIN = Packet(9, b"login")


class Later:
    """A try that is under way, or the wait for the next."""

    def __init__(self, happen: Callable[..., object]) -> None:
        self.happen = happen
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Client(ClientBase):
    def __init__(
        self,
        handler: Handler | Callable[[Inbox], object],
        *,
        keep: int = 0,
        backoff: Backoff | None = None,
        config: Config | None = None,
        **more: Any,
    ) -> None:
        self.now = 100.0
        self.delays: list[float] = []
        self.tries: list[Later] = []
        self.waits: list[Later] = []
        self.changes = 0
        self.log: list[str] = []
        super().__init__(
            handler,
            lambda function, inbox: function(inbox),
            config,
            Backoff(initial=1, maximum=8, jitter=0, reset_after=10) if backoff is None else backoff,
            self.begin_try,
            self.note_change,
            keep=keep,
            random=lambda: 0.5,
            clock=lambda: self.now,
            call_at=self.wait_until,
            log_exception=self.log.append,
            **more,
        )
        self.dial()

    def close(self) -> None:
        self.begin_closing()

    def begin_try(self, endpoint: Endpoint, done: Callable[[Session | Exception], object]) -> Later:
        assert endpoint is self.endpoint
        self.tries.append(Later(done))
        return self.tries[-1]

    def wait_until(self, when: float, callback: Callable[[], object]) -> Later:
        self.delays.append(when - self.now)
        self.waits.append(Later(callback))
        return self.waits[-1]

    def note_change(self) -> None:
        self.changes += 1

    def next_try(self) -> Later:
        """The one under way; the one after the wait, where there is a wait."""
        if len(self.waits) == len(self.tries):
            self.waits[-1].happen()
        return self.tries[-1]

    def connect(self) -> MadeUpHost:
        """The try succeeds."""
        under_way = self.next_try()
        session, host = open_on(self.endpoint, ("192.0.2.1", 5000), self.now)
        under_way.happen(session)
        return host

    def fail(self) -> None:
        """The try fails."""
        self.next_try().happen(ConnectionRefusedError("refused"))

    def lose(self, host: MadeUpHost) -> None:
        host.session.lost(ConnectionResetError(), self.now)

    def has_session(self) -> bool:
        return self.session is not None


def test_it_tries_again_later_each_time_and_anew_once_a_connection_stayed_up() -> None:
    client = Client(Recorder())
    client.fail()
    client.fail()
    client.lose(client.connect())  # at once
    assert client.delays == [1, 2, 4]
    host = client.connect()
    client.now += 10
    client.lose(host)
    assert client.delays == [1, 2, 4, 1]
    assert client.stats.closed == {CloseReason.CONNECT_FAILED: 2, CloseReason.RESET: 2}
    assert client.stats.opened == 2


def test_connected_and_disconnected_come_once_for_each_try_that_succeeded() -> None:
    handler = Recorder()
    client = Client(handler)
    client.fail()
    for reason in (CloseReason.RESET, CloseReason.PEER):
        host = client.connect()
        assert client.session is host.session
        host.session.lost(ConnectionResetError() if reason is CloseReason.RESET else None, client.now)
        client.fail()
        assert client.session is None
    names = [call[0] for call in handler.calls]
    assert names == ["connected", "disconnected", "connected", "disconnected"]


def test_what_is_sent_while_disconnected_is_kept_up_to_a_bound_and_goes_out_first_and_once() -> None:
    client = Client(Recorder(), keep=2)
    client.send(A)
    client.send(B)
    with pytest.raises(NotConnected, match="keep=2"):
        client.send(C)
    client.fail()
    assert client.kept == 2
    host = client.connect()
    client.send(C)
    host.session.flush(client.now)
    assert host.packets() == [A, B, C]
    assert client.kept == 0
    client.lose(host)
    client.send(D)
    host = client.connect()
    host.session.flush(client.now)
    assert host.packets() == [D]


def test_by_default_nothing_is_kept() -> None:
    client = Client(Recorder())
    with pytest.raises(NotConnected, match=r"^not connected$"):
        client.send(A)
    host = client.connect()
    client.send(A)
    host.session.eof(client.now)  # and it closes
    with pytest.raises(NotConnected):
        client.send(A)


def test_a_handler_s_own_greeting_goes_before_what_was_kept() -> None:
    handler = Recorder()
    client = Client(handler, keep=1)
    client.send(A)
    handler.on["connected"] = lambda session: session.send(LOGIN)
    assert client.connect().packets() == [LOGIN, A]


def test_a_handler_may_send_through_the_client_as_soon_as_it_hears_of_the_connection() -> None:
    handler = Recorder()
    client = Client(handler)
    handler.on["connected"] = lambda session: client.send(LOGIN)
    assert client.connect().packets() == [LOGIN]
    assert client.log == []


def test_a_connection_that_its_handler_refuses_keeps_what_was_kept() -> None:
    handler = Recorder()
    client = Client(handler, keep=2)
    client.send(A)
    handler.on["connected"] = lambda session: session.abort()
    host = client.connect()
    client.send(B)
    client.lose(host)
    assert client.kept == 2
    handler.on.clear()
    host = client.connect()
    assert host.packets() == [A, B]


def test_a_packet_too_long_is_refused_when_it_is_sent_and_not_when_it_is_too_late() -> None:
    client = Client(Recorder(), keep=1, config=Config(max_payload=4))
    with pytest.raises(LocalProtocolError, match="max_payload=4"):
        client.send(Packet(1, b"12345"))
    assert client.kept == 0


def test_closing_ends_the_connection_and_the_tries() -> None:
    handler = Recorder()
    client = Client(handler, keep=1)
    host = client.connect()
    changes = client.changes
    client.close()
    client.close()
    host.session.flush(client.now)
    host.session.eof(client.now)
    assert client.has_session(), "it is not over yet"
    host.session.lost(None, client.now)
    assert not client.has_session()
    assert client.changes > changes, "whoever waits in close is woken"
    assert handler.calls[-1] == ("disconnected", CloseReason.LOCAL)
    assert client.delays == []
    with pytest.raises(SessionClosed) as caught:
        client.send(A)
    assert caught.value.reason is CloseReason.LOCAL


def test_closing_while_disconnected_drops_what_was_kept_and_tries_no_more() -> None:
    client = Client(Recorder(), keep=1)
    client.send(A)
    client.close()
    assert client.kept == 0
    assert client.tries[0].is_cancelled
    client.fail()
    assert client.delays == []


def test_closing_between_two_tries_calls_off_the_next() -> None:
    client = Client(Recorder())
    client.fail()
    client.close()
    assert client.waits[0].is_cancelled
    assert len(client.tries) == 1


def test_a_connection_that_comes_when_all_is_over_is_closed() -> None:
    handler = Recorder()
    client = Client(handler)
    client.close()
    host = client.connect()
    assert not host.session.is_open
    host.session.flush(client.now)
    host.session.eof(client.now)
    host.session.lost(None, client.now)
    assert client.session is None
    assert client.delays == []
    assert handler.calls == [("connected",), ("disconnected", CloseReason.LOCAL)]


def test_a_handler_may_close_the_client_in_any_of_its_calls() -> None:
    for method in ("connected", "packet", "disconnected"):
        handler = Recorder()
        client = Client(handler)
        handler.on[method] = lambda session, client=client: client.close()  # type: ignore[misc]
        host = client.connect()
        host.session.received(encode(A), client.now)
        host.session.lost(None, client.now)
        assert (client.session, client.delays) == (None, []), method


def test_a_function_over_the_stream_is_run_anew_for_each_connection() -> None:
    runs: list[Session] = []
    client = Client(lambda inbox: runs.append(inbox.session))
    for _ in range(3):
        client.lose(client.connect())
    assert len(set(runs)) == 3


def test_a_handler_that_raises_costs_its_connection_only() -> None:
    handler = Recorder()
    client = Client(handler)

    def fail(session: Session) -> None:
        raise RuntimeError("a bug of the application")

    handler.on["connected"] = fail
    host = client.connect()
    client.lose(host)
    assert client.delays == [1]
    assert client.stats.closed == {CloseReason.HANDLER_ERROR: 1}
    assert len(client.log) == 1


def test_keep_may_not_be_negative() -> None:
    with pytest.raises(ValueError, match="keep=-1"):
        Client(Recorder(), keep=-1)


def test_a_client_that_has_not_dialled_is_closed_like_any_other() -> None:
    class Idle(Client):
        def dial(self) -> None:
            """Not yet."""

    with pytest.raises(ValueError, match="keep=-1 must not be below 0"):
        Idle(Recorder(), keep=-1)
    client = Idle(Recorder())
    client.close()
    assert (client.tries, client.is_closed) == ([], True)
    with pytest.raises(SessionClosed):
        client.send(A)


def test_call_soon_is_that_of_the_clients_thread() -> None:
    client, called = Client(Recorder()), list[object]()
    with pytest.raises(LocalProtocolError):
        client.call_soon(called.append, 1)
    client.endpoint.runs_by(lambda function, *args: function(*args))
    client.call_soon(called.append, 2)
    assert called == [2]


def test_what_is_kept_for_later_is_looked_at_now_in_its_own_framing() -> None:
    client: Any = Client(Recorder(), keep=5, config=Config(max_payload=3))
    with pytest.raises(LocalProtocolError, match="payload of 4 bytes exceeds max_payload=3"):
        client.send(Packet(1, b"long"))
    with pytest.raises(TypeError, match=r"^only a Packet can be sent, not bytes$"):
        client.send(b"long")
    client.send(Packet(1, b"fit"))
    assert client.kept == 1
    client = Client(Recorder(), keep=5, endpoint=partial(Endpoint, framing=FixedLength(2)))
    with pytest.raises(LocalProtocolError):
        client.send(b"long")
    with pytest.raises(TypeError):
        client.send(A)
    client.send(b"ok")
    assert client.kept == 1


def test_a_try_that_failed_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        Client(Recorder()).fail()
    assert caplog.messages == ["connecting failed: refused"]
