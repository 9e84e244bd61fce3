"""A handler fuzzed: hypothesis makes up streams of bytes, sound and hostile, and looks for one that it does not stand.

It needs `pip install packetcore-conformance`, whose strategies lean towards what breaks decoders and those who trust
what came out of them. pytest finds the tests by their names (`pytest examples/fuzzing_a_handler.py`); run as a
program they run too. What is found is shrunk to the shortest stream that does it.
"""

from __future__ import annotations

from hypothesis import given, settings

from packetcore import Config, Handler, Packet, Session
from packetcore.testing import FakeSession
from packetcore_conformance.strategies import chunked, streams

READING, CONFIRM = 1, 2


class Gateway(Handler):
    """Keeps the last temperature of each device, in hundredths of a degree, and confirms it."""

    def __init__(self) -> None:
        self.readings: dict[int, int] = {}

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type == READING and len(packet.payload) == 2:
            self.keep(packet)
            session.send(Packet(packet.id, type=CONFIRM))

    def keep(self, packet: Packet) -> None:
        self.readings[packet.id] = int.from_bytes(packet.payload, "big", signed=True)


class Trusting(Gateway):
    """Takes every packet for a reading."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        self.keep(packet)
        session.send(Packet(packet.id, type=CONFIRM))


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(streams().flatmap(chunked))
def fuzz(handler: type[Gateway], chunks: list[bytes]) -> None:
    """What holds whatever comes, and however it is cut: nothing raises, what is kept is a temperature, and each
    that is confirmed is kept."""
    gateway = handler()
    session = FakeSession(gateway, Config(max_payload=64))
    for chunk in chunks:
        session.feed_bytes(chunk)  # raises what a handler raised
    assert not session.is_over
    assert all(-(2**15) <= reading < 2**15 for reading in gateway.readings.values())
    assert {packet.id for packet in session.sent} == set(gateway.readings)


def test_the_gateway_stands_every_stream() -> None:
    fuzz(Gateway)


def test_one_that_trusts_its_peers_does_not() -> None:
    try:
        fuzz(Trusting)
    except AssertionError:
        return
    raise RuntimeError("a reading of three bytes went unnoticed")


if __name__ == "__main__":
    for name, test in [*globals().items()]:
        if name.startswith("test_"):
            test()
            print(name.removeprefix("test_").replace("_", " "))
