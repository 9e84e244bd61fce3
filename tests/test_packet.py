"""A packet is a checked, immutable value."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given

from packetcore import Packet
from packetcore_conformance.strategies import packets

pytestmark = pytest.mark.usefixtures("packet_class")


def test_fields_have_defaults() -> None:
    assert Packet(7) == Packet(7, b"", type=0, count=1)


@pytest.mark.parametrize("payload", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"aabbcc")[::2]])
def test_a_payload_is_copied_from_any_bytes_like_object(payload: bytearray | memoryview) -> None:
    packet = Packet(1, payload)
    assert packet.payload == b"abc"
    assert type(packet.payload) is bytes
    if isinstance(payload, bytearray):
        payload.reverse()
        assert packet.payload == b"abc"
        payload.reverse()


@pytest.mark.parametrize("value", [0, 65535])
def test_the_edges_of_every_range_are_in_it(value: int) -> None:
    packet = Packet(value, type=value & 0xFF, count=value)
    assert (packet.id, packet.type, packet.count) == (value, value & 0xFF, value)


@pytest.mark.parametrize("value", [-1, 65536])
def test_an_id_out_of_range_names_the_field_and_the_range(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^id={value} is out of range 0 to 65535$"):
        Packet(value)


@pytest.mark.parametrize("value", [-1, 256])
def test_a_type_out_of_range_names_the_field_and_the_range(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^type={value} is out of range 0 to 255$"):
        Packet(1, type=value)


@pytest.mark.parametrize("value", [-1, 65536])
def test_a_count_out_of_range_names_the_field_and_the_range(value: int) -> None:
    with pytest.raises(ValueError, match=rf"^count={value} is out of range 0 to 65535$"):
        Packet(1, count=value)


def test_a_payload_beyond_32_bits_of_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^payload of 4294967296 bytes exceeds the format's 4294967295$"):
        Packet(1, bytes(1 << 32))  # zeros that nobody writes to take no memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "7"}, "id must be an int, not str"),
        ({"id": 7.0}, "id must be an int, not float"),
        ({"id": 7, "type": None}, "type must be an int, not NoneType"),
        ({"id": 7, "count": b"1"}, "count must be an int, not bytes"),
        ({"id": 7, "payload": "text"}, "payload must be bytes, not str"),
        ({"id": 7, "payload": 16}, "payload must be bytes, not int"),
        ({"id": 7, "payload": [1, 2]}, "payload must be bytes, not list"),
    ],
)
def test_a_field_of_another_type_is_named(arguments: dict[str, object], message: str) -> None:
    make: type = Packet
    with pytest.raises(TypeError, match=f"^{message}$"):
        make(**arguments)


def test_it_cannot_be_changed() -> None:
    packet = Packet(1, b"a")
    for name in ("id", "payload", "type", "count", "other"):
        with pytest.raises(AttributeError):
            setattr(packet, name, 2)
        with pytest.raises(AttributeError):
            delattr(packet, name)


def test_equal_packets_hash_alike_and_each_field_counts() -> None:
    packet = Packet(1, b"a", type=2, count=3)
    others = [Packet(9, b"a", type=2, count=3), Packet(1, b"b", type=2, count=3)]
    others += [Packet(1, b"a", type=9, count=3), Packet(1, b"a", type=2, count=9)]
    assert len({packet, Packet(1, b"a", type=2, count=3), *others}) == 5
    assert (packet != Packet(1, b"a", type=2, count=3)) is False


def test_it_equals_packets_only() -> None:
    assert Packet(1, b"a") != (1, b"a", 0, 1)
    assert Packet(1) != object()
    assert Packet(0) is not None


def test_it_unpacks_into_its_fields() -> None:
    id, payload, type, count = Packet(1, b"a", type=2, count=3)
    assert (id, payload, type, count) == (1, b"a", 2, 3)


@given(packets())
def test_python_and_c_agree_in_what_they_show(packet: Packet) -> None:
    twin = Packet(packet.id, packet.payload, type=packet.type, count=packet.count)
    assert repr(twin) == repr(packet)
    assert tuple(twin) == tuple(packet)
    assert twin.__match_args__ == packet.__match_args__


def test_replace_makes_a_checked_packet() -> None:
    packet = Packet(1, b"a", type=2, count=3)
    assert packet._replace(payload=b"b") == Packet(1, b"b", type=2, count=3)
    assert packet._replace(id=4, type=5, count=6) == Packet(4, b"a", type=5, count=6)
    with pytest.raises(ValueError, match=r"^id=65536 is out of range"):
        packet._replace(id=65536)
    with pytest.raises(TypeError):
        packet._replace(length=1)


def test_it_works_with_match() -> None:
    match Packet(16, b"hello", type=2):
        case Packet(16, payload, type=2, count=1):
            assert payload == b"hello"
        case _:
            pytest.fail("no match")


def test_it_says_what_it_is() -> None:
    assert repr(Packet(16, b"\xfe", type=2)) == "Packet(id=16, payload=b'\\xfe', type=2, count=1)"


@given(packets())
def test_it_survives_copying_and_pickling(drawn: Packet) -> None:
    packet = Packet(drawn.id, drawn.payload, type=drawn.type, count=drawn.count)
    copies = [copy.copy(packet), copy.deepcopy(packet), packet._replace()]
    # The oldest protocols know of no constructor with keywords, and find no such attributes to set.
    copies += [pickle.loads(pickle.dumps(packet, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in copies:
        assert other == packet
        assert type(other) is Packet


def test_packets_have_no_order() -> None:
    with pytest.raises(TypeError, match="not supported between instances"):
        sorted([Packet(2), Packet(1)])
