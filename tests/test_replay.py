"""What a recording comes to: its events, where two part, and the shortest that still fails."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packetcore import Decoder, Malformed, Packet, Reason, encode
from packetcore.framings import SLIP, LengthPrefix
from packetcore_conformance.strategies import chunked, streams
from packetcore_tap import (
    CaptureWriter,
    Chunk,
    Difference,
    Ended,
    Gap,
    Heard,
    Shrinking,
    Side,
    as_json,
    capture_of,
    differences,
    events,
    hear,
    shortest,
)


def heard_of(*said: tuple[Side, bytes | int]) -> list[Heard]:
    """One conversation, in which numbers are bytes that are missing."""
    writer = CaptureWriter()
    parts = [writer.begin(), writer.opened(1, ("10.0.0.1", 1), ("10.0.0.2", 2), 5)]
    for side, what in said:
        if isinstance(what, int):
            writer.missed(1, side, what)
        else:
            parts.append(writer.data(1, side, what, 5))
    parts += [writer.ended(1, side, 5) for side in Side]
    return list(hear(io.BytesIO(b"".join(parts))))


@given(st.data())
def test_the_events_are_the_decoders_in_each_direction(data: st.DataObject) -> None:
    sides = {side: data.draw(streams(40)) for side in Side}
    left = {side: data.draw(chunked(stream)) for side, stream in sides.items()}
    said: list[tuple[Side, bytes | int]] = []
    while any(left.values()):
        side = data.draw(st.sampled_from([side for side in Side if left[side]]))
        said.append((side, left[side].pop(0)))
    heard = heard_of(*[each for each in said if each[1]])
    told = [*events(heard, max_payload=40)]
    for side, stream in sides.items():
        decoder = Decoder(max_payload=40)
        expected = [*decoder.feed(stream), *decoder.feed_eof()]
        found = [each.what for each in told if each.sender is side]
        assert found[:-1] == expected
        assert isinstance(found[-1], Ended)


def test_behind_a_gap_a_new_decoder_goes_on() -> None:
    """A length prefix would never find the next frame again."""
    framing = LengthPrefix(1)
    heard = heard_of((Side.CLIENT, b"\x05he"), (Side.CLIENT, 3), (Side.CLIENT, framing.encode(b"whole")))
    what = [each.what for each in events(heard, framing) if each.sender is Side.CLIENT]
    assert [type(each) for each in what] == [Malformed, Gap, bytes, Ended]
    assert isinstance(what[0], Malformed)
    assert (what[0].reason, what[2]) == (Reason.TRUNCATED, b"whole")


def test_each_kind_of_event_is_json_of_its_own() -> None:
    heard = heard_of((Side.CLIENT, encode(Packet(1)) + b"x\xfe"), (Side.CLIENT, 7))
    lines = [*map(as_json, events(heard)), *map(as_json, events(heard_of((Side.SERVER, SLIP().encode(b"s"))), SLIP()))]
    kinds = ["packet", "malformed", "missing", "end", "reset", "frame"]
    assert [next(kind for kind in kinds if f'"{kind}"' in line) for line in lines] == [
        *("packet", "malformed", "missing", "end", "end"),
        *("frame", "end", "end"),
    ]


def line(number: int, side: str, what: str, time: int = 0) -> str:
    return f'{{"conversation": {number}, "from": "{side}", "time": "{time}", "frame": "{what}"}}'


def test_lists_part_where_they_differ_first_in_each_direction() -> None:
    one = [line(1, "client", "aa"), line(1, "client", "bb"), line(2, "server", "cc"), line(3, "client", "dd")]
    other = [line(3, "client", "dd", 9), line(1, "client", "aa"), line(1, "client", "b0"), line(1, "client", "b1")]
    assert differences(one, other) == [
        Difference(1, "client", 2, '{"frame": "bb"}', '{"frame": "b0"}'),
        Difference(2, "server", 1, '{"frame": "cc"}', None),
    ]
    assert differences(one, [*one]) == []
    with pytest.raises(ValueError, match="line 2 is no event"):
        differences(one, [one[0], "[]"])


@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.integers(0, 9), max_size=4))
def test_of_the_shortest_nothing_can_be_left_out(items: list[int], wanted: list[int]) -> None:
    def fails(some: list[int]) -> bool:
        """Whether the wanted ones are there, in their order."""
        left = iter(some)
        return all(each in left for each in wanted)

    if not fails(items):
        return
    *_, last = [items, *shortest(items, fails)]
    assert last == wanted


def test_a_recording_shrinks_over_conversations_chunks_and_bytes_and_is_written_again() -> None:
    heard = heard_of((Side.CLIENT, b"first"), (Side.SERVER, b"an x and"), (Side.SERVER, b"a y"), (Side.CLIENT, b"last"))

    def said(some: list[Heard]) -> bytes:
        return b"|".join(each.data for each in some if isinstance(each, Chunk))

    def fails(some: list[Heard]) -> bool:
        return b"x" in said(some) and b"y" in said(some)

    shrinking = Shrinking(heard, fails)
    steps: Iterator[list[Heard]] = shrinking.run()
    assert all(fails(step) for step in steps)
    assert said(shrinking.best) == b"x|y"
    assert said(list(hear(io.BytesIO(b"".join(capture_of(shrinking.best)))))) == b"x|y"
    assert shrinking.tries < 60
