"""`Session`: what a life that a fuzzer wrote must not break."""

from __future__ import annotations

from typing import Any

import packetcore
from fuzz.program import Program
from packetcore import Decoder, Malformed
from tests.hostile import Reference

END = "disconnected"


def fuzz(data: bytes) -> None:
    """See `fuzz.program`."""
    program = Program(packetcore, data, has_odd_hosts=False)
    log: list[Any] = program.run()
    calls = [entry[0] for entry in log if isinstance(entry[0], str)]
    heard = [name for name in calls if name in HEARD]
    assert heard[0] == "connected"
    assert heard[-1] == END
    assert heard.count("connected") == heard.count(END) == 1
    assert program.session.is_over
    if program.framing is None:
        _tears_no_frame(bytes(program.host.written))
        if not (program.joins or program.was_timed or program.has_asked):
            _delivers_what_came(program, log)


HEARD = ("connected", "packet", "packets", "message", "malformed", "writable", "eof_received", "draining", "sent", END)


def _tears_no_frame(written: bytes) -> None:
    events = Decoder().feed(written)
    assert not any(isinstance(event, Malformed) for event in events)


def _delivers_what_came(program: Program, log: list[Any]) -> None:
    """In its order, from the first on; the end may have come before the rest, and in the middle of a frame."""
    delivered: list[object] = []
    for entry in log:
        if entry[0] in ("packet", "malformed"):
            delivered.append(entry[1])
        elif entry[0] == "packets":
            delivered += entry[1]
    reference = Reference(program.fed, program.config.max_payload)
    events, ending = (list(map(program.plain, each)) for each in (reference.events, reference.at_eof))
    if delivered[-1:] == ending:  # what had come before it may have been dropped
        del delivered[-1:]
    assert delivered == events[: len(delivered)]
