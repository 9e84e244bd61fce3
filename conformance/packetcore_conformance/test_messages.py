"""Messages.

Payloads split over packets and joined again.
"""

from __future__ import annotations

from packetcore import Config, Malformed, Message, Packet, Reason, Session, encode, split
from packetcore_conformance.recorder import Recorder
from packetcore_conformance.rig import Rig

PAYLOAD = bytes(range(256)) * 400


def send_back(session: Session, message: Message) -> None:
    """An echo of messages, in packets of another size."""
    session.send_message(message.payload, id=message.id, type=message.type, chunk=7000)


def test_a_message_is_split_and_joined(rig: Rig) -> None:
    config = Config(join_messages=True)
    server = rig.serve(Recorder(message_received=send_back), config)
    client = Recorder()
    session = rig.connect(server, client, config)
    rig.call(lambda: session.send_message(PAYLOAD, id=5, type=9, chunk=1000))
    rig.call(lambda: session.send_message(b"", id=6, chunk=1000))
    assert client.wait("message_received", 2) == [Message(5, PAYLOAD, 9), Message(6, b"", 0)]
    assert not client.calls("packet_received")


def test_messages_of_different_ids_may_interleave(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(join_messages=True)))
    one, two = split(b"1" * 50, id=1, chunk=10), split(b"2" * 50, id=2, chunk=10)
    peer.send(b"".join(encode(a) + encode(b) for a, b in zip(one, two, strict=True)))
    assert handler.wait("message_received", 2) == [Message(1, b"1" * 50), Message(2, b"2" * 50)]


def test_a_run_whose_count_changes_is_refused(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(join_messages=True)))
    peer.send(encode(Packet(1, b"aa", count=3)) + b"".join(map(encode, split(b"whole", id=1, chunk=3))))
    assert handler.wait("message_received") == [Message(1, b"whole")]
    assert handler.values("malformed") == [Malformed(Reason.COUNT_MISMATCH, 2, b"aa")]


def test_a_message_over_the_limit_is_refused(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(join_messages=True, max_message=100)))
    peer.send(b"".join(map(encode, split(bytes(150), id=1, chunk=60))) + encode(Packet(2, b"next")))
    assert Message(2, b"next") in handler.wait("message_received")
    found = handler.values("malformed")
    assert isinstance(found[0], Malformed)
    assert found[0].reason is Reason.MESSAGE_TOO_LONG


def test_a_message_that_stays_incomplete_is_given_up(rig: Rig) -> None:
    handler = Recorder()
    peer = rig.peer(rig.serve(handler, Config(join_messages=True, message_timeout=0.2)))
    peer.send(encode(Packet(1, b"half of it", count=2)))
    assert handler.wait("malformed") == [Malformed(Reason.MESSAGE_INCOMPLETE, 10, b"half of it")]
    peer.send(encode(Packet(2, b"next")))
    assert handler.wait("message_received") == [Message(2, b"next")]
