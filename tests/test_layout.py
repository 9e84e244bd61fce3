"""`Layout`: packets of fixed fields."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore.layout import F32, I16, U8, U16, U64, Layout


@dataclass(frozen=True)
class Reading:
    meter: U16
    offset: I16
    name: Annotated[bytes, 4]
    rest: bytes


@dataclass(frozen=True)
class Fixed:
    kind: U8
    stamp: U64
    value: F32


READING = Reading(7, -2, b"main", b"the rest")


def test_fields_stand_one_after_the_other_in_the_order_asked_for() -> None:
    assert Layout(Reading).encode(READING) == b"\x00\x07\xff\xfemainthe rest"
    assert Layout(Reading, "little").encode(READING) == b"\x07\x00\xfe\xffmainthe rest"
    assert Layout(Fixed).encode(Fixed(1, 2, 0.5)) == b"\x01" + bytes(7) + b"\x02" + b"\x3f\x00\x00\x00"


@given(st.integers(0, 65535), st.integers(-(1 << 15), (1 << 15) - 1), st.binary(min_size=4, max_size=4), st.binary())
def test_a_packet_comes_back_as_it_went(meter: int, offset: int, name: bytes, rest: bytes) -> None:
    reading = Reading(meter, offset, name, rest)
    for order in ("big", "little"):
        layout: Layout[Reading] = Layout(Reading, order)
        assert layout.decode(layout.encode(reading)) == reading


@given(st.binary(max_size=30))
def test_a_frame_gives_a_packet_or_a_value_error(frame: bytes) -> None:
    for layout in (Layout(Reading), Layout(Fixed)):
        with suppress(ValueError):
            assert layout.encode(layout.decode(frame)) == frame  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packet", "error", "words"),
    [
        (Reading(65536, 0, b"main", b""), ValueError, "meter=65536 is out of range 0 to 65535"),
        (Reading(0, -40000, b"main", b""), ValueError, "offset=-40000 is out of range -32768 to 32767"),
        (Reading(0, 0, b"much too long", b""), ValueError, "name=b'much too long' has 13 bytes, not 4"),
        (Reading(0, 0, "main", b""), TypeError, "name='main' is not bytes"),  # type: ignore[arg-type]
        (Reading("7", 0, b"main", b""), TypeError, "meter='7' is no integer"),  # type: ignore[arg-type]
        (Reading(0, 0.5, b"main", b""), TypeError, "offset=0.5 is no integer"),  # type: ignore[arg-type]
        (Fixed(0, 1 << 64, 0.0), ValueError, f"stamp={1 << 64} is out of range 0 to {(1 << 64) - 1}"),
        (Fixed(0, 0, 1e300), ValueError, r"value=1e\+300 is too large for 32 bits"),
        (Fixed(0, 0, 10**400), ValueError, "value=10{400} is too large for 32 bits"),
        (Fixed(0, 0, None), TypeError, "value=None is no number"),  # type: ignore[arg-type]
        (b"bytes", TypeError, "only a (Reading|Fixed) can be sent, not bytes"),
    ],
)
def test_what_cannot_be_sent_is_told_by_its_field(packet: Any, error: type[Exception], words: str) -> None:
    layout: Layout[Any] = Layout(Fixed if isinstance(packet, Fixed) else Reading)
    with pytest.raises(error, match=f"^{words}$"):
        layout.encode(packet)


def test_a_frame_of_another_length_is_told_with_both_lengths() -> None:
    fixed, reading = (
        len(Layout(Fixed).encode(Fixed(0, 0, 0.0))),
        len(Layout(Reading).encode(Reading(0, 0, b"main", b""))),
    )
    with pytest.raises(ValueError, match=f"^a Fixed has {fixed} bytes, not 1$"):
        Layout(Fixed).decode(b"x")
    with pytest.raises(ValueError, match=f"^a Reading has at least {reading} bytes, not 1$"):
        Layout(Reading).decode(b"x")
    one: Any = make_dataclass("One", [("letter", Annotated[bytes, 1])])
    assert Layout(one).decode(b"x") == one(b"x")


def test_what_is_no_layout_is_refused() -> None:
    @dataclass
    class Vague:
        number: int

    with pytest.raises(TypeError, match=r"Vague\.number is neither"):
        Layout(Vague)
    for width in (0, -1, "4"):
        hint = Annotated[bytes, width]
        with pytest.raises(TypeError, match=r"Narrow\.name is neither"):
            Layout(make_dataclass("Narrow", [("name", hint)]))
    with pytest.raises(TypeError, match="is no dataclass"):
        Layout(int)
    with pytest.raises(ValueError, match="byteorder='middle'"):
        Layout(Fixed, "middle")  # type: ignore[arg-type]
