"""What the page is told, as values of JSON. All of it is text and numbers; the page makes no markup of any."""

from __future__ import annotations

import time
from typing import Any

from packetcore import Message, Packet
from packetcore.framings import COBS
from packetcore_cli._dump import malformed_lines
from packetcore_cli._seen import Noted, Point, Row, Totals, name_of
from packetcore_cli._text import address_text, counted

SHOWN = 4096
"""Bytes of a reply that are shown."""

_ANY = COBS()
"""The dump of frames asks only whether a framing is spoken, not which."""


def totals_told(totals: Totals) -> dict[str, Any]:
    """The figures of the server."""
    return {
        "sessions": totals.sessions,
        "opened": totals.opened,
        "outstanding": totals.outstanding,
        "rates": [round(rate, 2) for rate in totals.rates],
        "closed": {reason.name: number for reason, number in totals.closed.most_common()},
        "meanings": {reason.name: reason.value for reason in totals.closed},
        "refused": totals.refused,
        "malformed": totals.malformed,
        "age": round(totals.age, 1),
        "answering": totals.is_answering,
    }


def point_told(point: Point) -> list[float]:
    """A second of the history: when, the rates, sessions, how many ended."""
    rates = (round(rate, 2) for rate in point.rates)
    return [round(point.time, 1), *rates, point.sessions, sum(point.closed.values())]


def row_told(row: Row) -> dict[str, Any]:
    """A session."""
    now = time.monotonic()
    return {
        "id": row.id,
        "identity": row.name,
        "peer": row.peer,
        "rates": [round(rate, 2) for rate in (row.packets_in, row.packets_out, row.bytes_in, row.bytes_out)],
        "outstanding": row.outstanding,
        "age": None if row.opened is None else round(now - row.opened, 1),
    }


def noted_told(noted: Noted, *, is_framed: bool) -> dict[str, Any]:
    """Something malformed, each of its bytes told apart as `packetcore decode` does: lines of pieces, each a text
    and its style."""
    malformed = noted.malformed
    lines = malformed_lines(malformed, framing=_ANY if is_framed else None)
    return {
        "number": noted.number,
        "time": round(noted.time, 1),
        "session": noted.session,
        "identity": name_of(noted.identity),
        "peer": address_text(noted.peer),
        "reason": malformed.reason.name,
        "size": counted(malformed.size, "byte"),
        "lines": [[[cell, ""] if isinstance(cell, str) else list(cell) for cell in line] for line in lines],
    }


def reply_told(reply: object) -> dict[str, Any]:
    """A packet, a message or a frame that was replied; of an application's own packets what `repr` says."""
    if isinstance(reply, Packet):
        head, payload = f"id {reply.id}, type {reply.type}, count {reply.count}", reply.payload
    elif isinstance(reply, Message):
        head, payload = f"message, id {reply.id}, type {reply.type}", bytes(reply.payload)
    elif isinstance(reply, bytes):
        head, payload = "frame", reply
    else:
        return {"head": type(reply).__name__, "hex": "", "text": _printable(repr(reply)[:SHOWN])}
    shown = payload[:SHOWN]
    more = "" if len(shown) == len(payload) else f", the first {SHOWN} shown"
    return {
        "head": f"{head}, {counted(len(payload), 'byte')}{more}",
        "hex": shown.hex(" "),
        "text": _printable(shown.decode("utf-8", "replace")),
    }


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)
