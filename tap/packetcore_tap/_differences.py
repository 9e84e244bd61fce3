"""Where the events of two recordings part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two lists of events part, in one direction of one conversation."""

    conversation: int
    sender: str
    """"client" or "server"."""
    place: int
    """Which event of that direction it is, from 1."""
    one: str | None
    """What it is in the first list, as JSON without whose it is and when; `None` if that has ended."""
    other: str | None
    """Likewise in the second."""


def differences(one: Iterable[str], other: Iterable[str]) -> list[Difference]:
    """Where the events of two recordings, or of one recording in two versions, part: the first place in each
    direction of each conversation. Times and addresses may differ.

    Args:
        one: lines as of `as_json`.
        other: likewise.

    Raises:
        ValueError: a line is none of those.
    """
    first, second = _by_direction(one), _by_direction(other)
    found = []
    for key in sorted({*first, *second}):
        ours, theirs = first.get(key, []), second.get(key, [])
        if ours == theirs:
            continue
        place = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
        if place is None:
            place = min(len(ours), len(theirs))
        found.append(Difference(*key, place + 1, _at(ours, place), _at(theirs, place)))
    return found


def _at(lines: list[str], place: int) -> str | None:
    return lines[place] if place < len(lines) else None


def _by_direction(lines: Iterable[str]) -> Mapping[tuple[int, str], list[str]]:
    found: dict[tuple[int, str], list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            key = int(fields.pop("conversation")), str(fields.pop("from"))
            for may_differ in ("time", "protocol", "client", "server"):
                fields.pop(may_differ, None)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"line {number} is no event") from None
        found.setdefault(key, []).append(json.dumps(fields, sort_keys=True))
    return found
