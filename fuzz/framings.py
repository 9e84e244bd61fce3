"""Every framing: its laws, on streams of the fuzzer's."""

from __future__ import annotations

from contextlib import suppress

from fuzz.choices import Choices
from packetcore import speedups
from packetcore_conformance import laws
from packetcore_conformance.laws import Subject
from tests.test_framings import SUBJECTS

NAMES = (*SUBJECTS,)
"""The suite's: a byte picks one, so that new ones belong at the end."""

SHORT = 32
"""Bytes of a stream that are tried again and again, to count the work: to trace each line takes long."""

ODD_DELIMITERS = "delimiters in each other"
"""Where what is malformed is taken out of a stream of these, a delimiter may stand that was none."""


def fuzz(data: bytes) -> None:
    """A byte for the framing, one for its limit and what is looked at, one for the cuts; then the stream."""
    choices = Choices(data)
    name = choices.pick(NAMES)
    how = choices.byte()
    subject = SUBJECTS[name]
    max_frame = subject.limits[how % len(subject.limits)]
    chunks = choices.chunks()
    stream = b"".join(chunks)
    laws.hold(subject, max_frame, chunks, accounts=name != ODD_DELIMITERS)
    _gives_back(subject, stream)
    if how == 254 and len(stream) <= SHORT and not speedups:  # the C has no lines to count
        _works_in_proportion(subject, max_frame, stream)


def _gives_back(subject: Subject, frame: bytes) -> None:
    with suppress(ValueError):  # the framing cannot carry it, and says so
        sent = subject.framing.encode(frame)
        decoder = subject.framing.decoder(max(1, len(frame)))
        if subject.framing.resynchronises or frame:
            assert decoder.feed(sent * 2) == [frame, frame]
            assert decoder.pending == 0


def _works_in_proportion(subject: Subject, max_frame: int, stream: bytes) -> None:
    for size in (1, 1 << 30):
        once, four_times = (
            laws.steps(
                subject.framing.decoder(max_frame),
                [(stream * times)[at : at + size] for at in range(0, len(stream) * times, size)],
            )
            for times in (5, 20)
        )
        assert four_times <= 6 * once + 20 * len(stream), f"{once} steps, and then {four_times}"
