"""The states of a conversation and every legal step between them, in one table.

    OPEN         both sides may send
    HALF_CLOSED  the peer has finished sending; this side may still reply
    CLOSING      this side has finished; what the peer still sends is dropped
    CLOSED       over

What may live here: which input is legal in which state, and where it leads. Nothing
else: not what is reported, not when a deadline falls, not what happens to a socket. A
pair that the table lacks is the caller's mistake and changes nothing.

Closing takes two steps on purpose. A socket closed while the peer's bytes are unread
answers them with a reset, which can destroy the last replies on their way; so this side
says that it has finished (CLOSING) and waits for the peer to say the same.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a conversation stands."""

    __hash__ = object.__hash__  # an enum's own is Python, and most of what a look into TRANSITIONS costs

    OPEN = enum.auto()
    HALF_CLOSED = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


class Input(enum.Enum):
    """What can happen to it."""

    __hash__ = object.__hash__

    DATA = enum.auto()
    """Bytes came from the peer."""
    EOF = enum.auto()
    """The peer has finished sending."""
    SEND = enum.auto()
    """The application sends."""
    CLOSE = enum.auto()
    """The application has finished."""
    FAIL = enum.auto()
    """A timeout, a broken rule or a lost connection ends it at once."""


TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.OPEN, Input.DATA): State.OPEN,
    (State.OPEN, Input.EOF): State.HALF_CLOSED,
    (State.OPEN, Input.SEND): State.OPEN,
    (State.OPEN, Input.CLOSE): State.CLOSING,
    (State.OPEN, Input.FAIL): State.CLOSED,
    (State.HALF_CLOSED, Input.SEND): State.HALF_CLOSED,
    (State.HALF_CLOSED, Input.CLOSE): State.CLOSED,
    (State.HALF_CLOSED, Input.FAIL): State.CLOSED,
    (State.CLOSING, Input.DATA): State.CLOSING,
    (State.CLOSING, Input.EOF): State.CLOSED,
    (State.CLOSING, Input.CLOSE): State.CLOSING,
    (State.CLOSING, Input.FAIL): State.CLOSED,
    (State.CLOSED, Input.CLOSE): State.CLOSED,
    (State.CLOSED, Input.FAIL): State.CLOSED,
}
