"""What the log tells of sessions, in fields that a collector can use, and at what cost."""

from __future__ import annotations

import logging
from typing import NoReturn

import pytest

from packetcore import (
    CloseReason,
    Config,
    Endpoint,
    Handler,
    Packet,
    Refusal,
    ServerBase,
    Session,
    SessionPool,
    encode,
)
from packetcore.testing import FakeDatagramEndpoint, FakeDatagramSession, FakeEndpoint, FakeSession
from tests.made_up_host import open_on

PEER = ("192.0.2.1", 5000)
OTHER = ("192.0.2.1", 5001)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """The fields of each record. A formatter that names one which is not there would fail."""
    formatter = logging.Formatter("{session} {peer} {identity} {message}", style="{")
    for record in caplog.records:
        assert record.name == "packetcore"
        formatter.format(record)
    return [(vars(record)["session"], vars(record)["peer"], vars(record)["identity"]) for record in caplog.records]


def test_each_session_s_beginning_and_end_are_told_with_id_peer_and_identity(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "packetcore")
    session = FakeSession(Handler(), is_server=False, peer=PEER)
    session.session.bind("device 7")
    session.lost()
    assert told(caplog) == [(1, PEER, None), (1, PEER, "device 7")]
    assert caplog.messages == [f"session 1 with {PEER} opened", f"session 1 with {PEER} closed: RESET"]


def test_over_udp_it_tells_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "packetcore")
    server = FakeDatagramEndpoint(Handler(), Config(max_sessions=1))
    FakeDatagramSession(server, peer=PEER).feed(Packet(1))
    FakeDatagramSession(server, peer=OTHER).feed(Packet(1))
    server.close()
    assert told(caplog) == [(1, PEER, None), (0, OTHER, None), (1, PEER, None)]
    assert caplog.messages[2].endswith("SHUTDOWN")


def test_who_was_refused_and_what_could_not_be_reached_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "packetcore")
    client = FakeEndpoint(Handler(), Config(max_sessions=1), is_server=False)
    FakeSession(client, peer=PEER)
    FakeSession(client, peer=OTHER)
    endpoint = client.endpoint
    endpoint.connect_failed(ConnectionRefusedError("nobody is there"))
    assert told(caplog)[1:] == [(0, OTHER, None), (0, None, None)]
    assert caplog.messages[1] == f"a session with {OTHER} was refused: {Refusal.MAX_SESSIONS.value}"
    endpoint.refused(OTHER, Refusal.PROXY_FAILED, "its port is 70000")
    assert told(caplog)[-1] == (0, OTHER, None)
    assert caplog.messages[-1].endswith(f"was refused: {Refusal.PROXY_FAILED.value}: its port is 70000")
    assert "nobody is there" in caplog.messages[2]


def test_a_client_that_never_spoke_is_news_unless_it_only_looked_whether_somebody_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "packetcore")
    server = FakeEndpoint(Handler(), Config(idle_timeout=5.0))
    FakeSession(server).eof()
    FakeSession(server).advance(5.0)
    assert [(record.levelname, record.getMessage().split()[-1]) for record in caplog.records] == [
        ("DEBUG", "PEER"),
        ("INFO", "IDLE_TIMEOUT"),
    ]


def test_a_handler_that_raises_is_an_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Handler):
        def packet_received(self, session: Session, packet: Packet) -> None:
            raise RuntimeError("a bug of the application")

    session, _ = open_on(Endpoint(Broken()), PEER)
    session.received(encode(Packet(1)), 101)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a bug of the application"
    assert session.close_reason is CloseReason.HANDLER_ERROR


def test_a_server_tells_its_adapters_own_logger() -> None:
    log: list[str] = []
    server: ServerBase[Packet] = ServerBase(Handler(), lambda function, inbox: None, None, log.append)
    server.endpoint.log_exception("something")
    assert log == ["something"]


class Unprintable(str):
    """Something that must not be formatted."""

    __slots__ = ()

    def __repr__(self) -> NoReturn:
        raise AssertionError("formatted for nobody")

    __str__ = __format__ = __repr__  # type: ignore[assignment]


def test_where_nobody_listens_nothing_is_formatted_or_made(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "packetcore")
    made: list[object] = []
    monkeypatch.setattr(logging.getLogger("packetcore"), "makeRecord", lambda *args, **options: made.append(args))
    sessions: SessionPool[Session] = SessionPool(max_sessions=2)
    client = FakeEndpoint(Handler(), is_server=False, sessions=sessions)
    old, new = (FakeSession(client, peer=(Unprintable(n), n)) for n in range(2))
    FakeSession(client, peer=(Unprintable(), 9))
    old.session.bind(Unprintable("device"))
    new.session.bind(Unprintable("device"))
    client.endpoint.connect_failed(OSError())
    new.lost()
    assert old.close_reason is CloseReason.REPLACED
    assert client.stats.refused == 1
    assert len(sessions) == 0
    assert made == []
