"""The limits, errors and times that a made-up peer goes by are those of the session that is tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from packetcore import CloseReason, Config, Handler, Packet, Session, SyncStream
from packetcore.framings import COBS
from packetcore.layout import U8, Layout
from packetcore.testing import FakeDatagramEndpoint, FakeDatagramSession, FakeEndpoint, FakeSession, Pair
from packetcore.testing import _socket as made_up_socket


@dataclass(frozen=True)
class Reading:
    volts: U8


class Repeating(Handler[Any]):
    def packet_received(self, session: Session[Any], packet: Any) -> None:
        session.send(packet)


def test_a_peer_takes_what_the_session_may_send_be_it_more_than_by_default() -> None:
    session = FakeSession(Handler(), Config(max_payload=2 << 20))
    session.session.send(long := Packet(1, bytes((1 << 20) + 1)))
    assert session.sent == [long]


def test_a_peer_over_udp_speaks_by_the_codec_of_the_endpoint() -> None:
    peer = FakeDatagramSession(FakeDatagramEndpoint(Repeating(), framing=COBS(), codec=Layout(Reading)))
    peer.feed(Reading(7))
    assert peer.sent == [Reading(7)]


def test_a_connection_breaks_by_the_error_that_a_test_gives() -> None:
    class Listening:
        def __getattr__(self, verb: str) -> Callable[..., object]:
            return lambda *told: heard.append(told[-1]) if verb == "lost" else None

    heard: list[BaseException | None] = []
    tap: Any = Listening()
    config, error = Config(tap=tap), TimeoutError("no acknowledgement")
    Pair(Handler(), Handler(), config).lost(error)
    FakeSession(Handler(), config).lost(error)
    assert heard == [error] * 3
    FakeSession(Handler(), config).lost()
    assert isinstance(heard[3], ConnectionResetError)


def test_only_what_is_sent_at_one_time_is_called_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up_socket, "_MOST", 1000)
    session = FakeSession(Handler(), Config(idle_timeout=None))
    most = Packet(1, bytes(1000 - 11))
    for _ in range(3):
        session.session.send(most)
        assert session.sent[-1] == most
        session.advance(0.001)
    session.session.send(most)
    assert session.sent[-1] == most
    session.session.send(Packet(1))
    with pytest.raises(RuntimeError, match=r"^1011 bytes were sent at 0\.003 s"):
        session.advance(0.0)


def test_a_server_that_closes_has_a_grace_of_five_seconds_unless_it_is_told_another() -> None:
    class Busy(Handler):
        def draining(self, session: Session) -> None:
            pass

    server = FakeEndpoint(Busy(), Config(idle_timeout=None))
    session = FakeSession(server)
    server.close()
    session.advance(4.5)
    assert session.close_reason is None
    session.advance(0.5)
    assert session.close_reason is CloseReason.SHUTDOWN


def test_a_function_that_blocks_waits_for_room() -> None:
    session = FakeSession(SyncStream, Config(write_high_water=20, write_low_water=0))
    session.room = 0
    with pytest.raises(TimeoutError, match=r"^111 bytes are still unsent after timeout=1\.0 s$"):
        session.stream.send(Packet(1, bytes(100)), timeout=1.0)
    assert session.clock.now == 1.0
