"""Unit tests of a gateway: no socket, no sleep, no runtime, and a minute passes in no time.

pytest finds the tests by their names (`pytest examples/testing_a_handler.py`); run as a program
they run too.
"""

from __future__ import annotations

from packetcore import CloseReason, Config, Handler, Packet, Session
from packetcore.testing import FakeEndpoint, FakeSession

LOGIN, READING, CONFIRM = 1, 2, 3


class Gateway(Handler):
    """Devices log in by their number, then send readings, each of which is confirmed."""

    def __init__(self) -> None:
        self.readings: dict[int, list[int]] = {}

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == LOGIN:
            session.bind(packet.id)
            self.readings.setdefault(packet.id, [])
        elif session.identity is None:
            session.close()  # who are you?
        else:
            self.readings[packet.id].append(int.from_bytes(packet.payload, "big"))
            session.send(Packet(packet.id, type=CONFIRM))


def reading(device: int, value: int) -> Packet:
    return Packet(device, value.to_bytes(2, "big"), type=READING)


def test_a_reading_is_kept_and_confirmed() -> None:
    gateway = Gateway()
    session = FakeSession(gateway)
    session.feed(Packet(7, type=LOGIN), reading(7, 21), chunk=1)  # byte by byte
    assert session.sent == [Packet(7, type=CONFIRM)]
    assert gateway.readings == {7: [21]}


def test_who_does_not_log_in_is_not_heard() -> None:
    gateway = Gateway()
    session = FakeSession(gateway)
    session.feed(reading(7, 21))
    assert session.close_reason is CloseReason.LOCAL
    assert gateway.readings == {}


def test_a_device_that_comes_back_replaces_its_old_session() -> None:
    server = FakeEndpoint(Gateway())
    old, new = FakeSession(server), FakeSession(server)
    for session in (old, new):
        session.feed(Packet(7, type=LOGIN))
    assert old.close_reason is CloseReason.REPLACED
    assert server.sessions.find(7) is new.session


def test_a_silent_device_is_given_up_after_a_minute() -> None:
    session = FakeSession(Gateway(), Config(idle_timeout=60.0))
    session.feed(Packet(7, type=LOGIN))
    session.advance(59.9)
    assert not session.is_over
    session.advance(0.1)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


if __name__ == "__main__":
    for name, test in [*globals().items()]:
        if name.startswith("test_"):
            test()
            print(name.removeprefix("test_").replace("_", " "))
