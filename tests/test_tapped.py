"""Who listens in on a session hears every chunk, as it came and went, and changes nothing."""

from __future__ import annotations

import pytest

from packetcore import Address, Carrier, CloseReason, Config, Endpoint, Packet, Session, encode
from packetcore.testing import FakeDatagramEndpoint
from tests.made_up_host import MadeUpHost, Recorder, Rig, open_on

ONE, TWO = encode(Packet(1, b"one")), encode(Packet(2, b"two"))


class Noting:
    """A tap that notes."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def opened(self, session: Session) -> None:
        self.heard.append(("opened", session.peer))

    def received(self, session: Session, data: bytes | bytearray | memoryview) -> None:
        self.heard.append(("received", bytes(data)))

    def unclaimed(self, endpoint: Endpoint, data: bytes, peer: Address, carrier: Carrier) -> None:
        self.heard.append(("unclaimed", data, peer, carrier.kind))

    def eof(self, session: Session) -> None:
        self.heard.append(("eof",))

    def sent(self, session: Session, data: bytes) -> None:
        self.heard.append(("sent", data))

    def eof_sent(self, session: Session) -> None:
        self.heard.append(("eof_sent",))

    def lost(self, session: Session, error: BaseException | None) -> None:
        self.heard.append(("lost", error))


def tapped(**limits: object) -> tuple[Noting, Rig, Session, MadeUpHost]:
    tap = Noting()
    make: type = Config
    rig = Rig(make(tap=tap, **limits))
    rig.handler.on["packet"] = lambda session: session.send(Packet(2, b"two"))
    return tap, rig, *rig.open()


def test_a_tap_hears_the_chunks_as_they_came_and_went_and_both_ends() -> None:
    tap, _, session, host = tapped()
    session.received(ONE[:5], 1.0)
    session.received(ONE[5:] + ONE, 1.1)
    session.close()
    session.flush(1.2)
    session.received(ONE, 1.3)  # is dropped: this side has closed
    session.eof(1.4)
    session.lost(None, 1.5)
    session.received(ONE, 1.6)  # a mistake of the adapter's
    assert tap.heard == [
        ("opened", ("192.0.2.1", 5000)),
        ("received", ONE[:5]),
        ("received", ONE[5:] + ONE),
        ("sent", TWO + TWO),
        ("eof_sent",),
        ("received", ONE),
        ("eof",),
        ("lost", None),
    ]
    assert bytes(host.written) == TWO + TWO


def test_a_tap_hears_of_a_peer_that_is_turned_away_and_of_what_broke_a_connection() -> None:
    tap, rig, session, _ = tapped(max_sessions=1)
    other, host = rig.open()
    other.lost(None, 1.0)
    broken = ConnectionResetError()
    session.lost(broken, 2.0)
    assert "abort" in host.verbs
    assert [call for call in tap.heard if call[0] == "lost"] == [("lost", None), ("lost", broken)]
    assert other.close_reason is CloseReason.REFUSED


def test_a_tap_hears_a_paced_session_send_each_frame_by_itself() -> None:
    tap, _, session, host = tapped(interframe_delay=0.5)
    session.received(ONE + ONE, 100.0)
    assert [call[0] for call in tap.heard] == ["opened", "received"]
    session.tick(100.5)
    session.tick(101.0)
    assert tap.heard[2:] == [("sent", TWO), ("sent", TWO)]
    assert bytes(host.written) == TWO + TWO


def test_a_tap_hears_each_datagram() -> None:
    tap = Noting()
    handler = Recorder()
    handler.on["packet"] = lambda session: session.send(Packet(2, b"two"))
    fake = FakeDatagramEndpoint(handler, Config(tap=tap, datagram_chunk=11))
    fake.endpoint.received(b"rubbish", ("192.0.2.1", 7), 1.0)  # opens no session
    fake.endpoint.received(ONE, ("192.0.2.1", 7), 1.0)
    assert fake.writes == [(TWO[:11], ("192.0.2.1", 7)), (TWO[11:], ("192.0.2.1", 7))]
    assert tap.heard == [
        ("unclaimed", b"rubbish", ("192.0.2.1", 7), "udp"),
        ("opened", ("192.0.2.1", 7)),
        ("received", ONE),
        ("sent", TWO[:11]),
        ("sent", TWO[11:]),
    ]


@pytest.mark.parametrize("verb", ["opened", "received", "sent", "eof", "eof_sent", "lost"])
def test_a_tap_that_raises_is_logged_once_and_the_session_goes_on(verb: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("no")

    tap, rig, session, host = tapped()
    setattr(tap, verb, fail)
    if verb == "opened":
        session, host = rig.open()
    session.received(ONE + ONE, 1.0)
    session.close()
    session.flush(2.0)
    session.eof(2.0)
    session.lost(None, 3.0)
    assert bytes(host.written) == TWO + TWO
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.LOCAL)
    assert rig.log == [f"the tap of session {session.id} with {session.peer} raised, and hears no more"]


def test_a_session_without_a_tap_has_the_host_of_its_adapter() -> None:
    host: MadeUpHost
    _, host = open_on(Endpoint(Recorder()), ("192.0.2.1", 1))
    assert host.session._host is host


def test_a_tap_that_raises_on_a_datagram_of_no_session_is_logged_once() -> None:
    class Raising(Noting):
        def unclaimed(self, endpoint: Endpoint, data: bytes, peer: Address, carrier: Carrier) -> None:
            raise OSError("no")

    tap, log = Raising(), list[str]()
    fake = FakeDatagramEndpoint(Recorder(), Config(tap=tap))
    fake.endpoint.log_exception = log.append
    for data in (b"rubbish", b"more", ONE):
        fake.endpoint.received(data, ("192.0.2.1", 7), 1.0)
    assert log == ["the tap of an endpoint raised, and hears of its datagrams without a session no more"]
    assert tap.heard == [("opened", ("192.0.2.1", 7)), ("received", ONE)]


def test_a_tapped_session_pauses_its_own_socket() -> None:
    session, host = Rig(Config(tap=Noting())).open()
    session.pause()
    session.resume()
    assert [verb for verb in host.verbs if verb.endswith("reading")] == ["pause_reading", "resume_reading"]


def test_a_tap_hears_of_a_session_that_is_turned_away_and_of_no_end_behind_the_loss() -> None:
    tap, rig, session, _ = tapped(max_sessions=1)
    session.lost(None, 101)
    session.eof(102)
    _, host = open_on(rig.endpoint, ("192.0.2.2", 5000))
    open_on(rig.endpoint, ("192.0.2.3", 5000))
    opened = [("opened", (f"192.0.2.{number}", 5000)) for number in (1, 2, 3)]
    assert tap.heard == [opened[0], ("lost", None), *opened[1:]]
    assert "abort" not in host.verbs


def test_a_tapped_session_has_its_timer_all_the_same() -> None:
    _, _, _, host = tapped(idle_timeout=60.0)
    assert host.timer == 160.0
