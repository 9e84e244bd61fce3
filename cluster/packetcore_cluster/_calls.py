"""What workers say to each other: calls and answers as bytes.

    call     kind u8 | timeout f64 | length of key u16 | key | packet        big-endian
    given up kind u8 | subject of the answer
    answer   outcome u8 | a packet, or words
    cast     length of worker u16 | worker | packet

A call is for the session that holds the key's identity; one that is given up is a request whose caller waits no longer,
known by where its answer would have gone. A cast is for all of a group, and has no answer.
"""

from __future__ import annotations

import enum
import struct
from math import inf, isnan
from typing import NamedTuple

_CALL = struct.Struct(">BdH")
_CAST = struct.Struct(">H")
_SEND, _REQUEST, _GIVEN_UP = 0, 1, 2


class Call(NamedTuple):
    """A packet for a session elsewhere."""

    key: str
    packet: bytes
    is_request: bool
    """Whether the answer is to be the session's reply."""
    timeout: float | None
    """How long to wait for that, in seconds; `None` for as long as the session lives."""


class GivenUp(NamedTuple):
    """Nobody waits any more for the answer to a request."""

    subject: str
    """Where it would have gone."""


class Outcome(enum.Enum):
    """What became of a call."""

    DONE = 0
    NOT_HERE = 1
    SLOW_CONSUMER = 2
    TIMED_OUT = 3
    CLOSED = 4
    NOT_DELIVERED = 5


def call_bytes(call: Call) -> bytes:
    """A call as bytes."""
    key = call.key.encode()
    timeout = inf if call.timeout is None else call.timeout
    return _CALL.pack(_REQUEST if call.is_request else _SEND, timeout, len(key)) + key + call.packet


def given_up_bytes(subject: str) -> bytes:
    """That the answer by a subject is given up, as bytes."""
    return bytes((_GIVEN_UP,)) + subject.encode()


def call_from(data: bytes) -> Call | GivenUp:
    """The call in bytes, or which one is given up.

    Raises:
        ValueError: there is none in them.
    """
    if data[:1] == bytes((_GIVEN_UP,)):
        return GivenUp(data[1:].decode())
    if len(data) < _CALL.size:
        raise ValueError(f"call of {len(data)} bytes is shorter than its header of {_CALL.size}")
    kind, timeout, length = _CALL.unpack_from(data)
    end = _CALL.size + length
    if kind not in (_SEND, _REQUEST) or isnan(timeout) or len(data) < end:
        raise ValueError(f"call of kind {kind}, timeout {timeout} and a key of {length} bytes in {len(data)} bytes")
    key = data[_CALL.size : end].decode("ascii")
    return Call(key, data[end:], kind == _REQUEST, None if timeout == inf else timeout)


def answer_bytes(outcome: Outcome, what: bytes = b"") -> bytes:
    """An answer as bytes."""
    return bytes((outcome.value,)) + what


def answer_from(data: bytes) -> tuple[Outcome, bytes]:
    """The answer in bytes.

    Raises:
        ValueError: there is none in them.
    """
    if not data:
        raise ValueError("answer of 0 bytes")
    return Outcome(data[0]), data[1:]


def cast_bytes(worker: str, packet: bytes) -> bytes:
    """A packet for a group, from a worker, as bytes."""
    name = worker.encode()
    return _CAST.pack(len(name)) + name + packet


def cast_from(data: bytes) -> tuple[str, bytes]:
    """From which worker, and the packet.

    Raises:
        ValueError: there is none in them.
    """
    if len(data) < _CAST.size or len(data) < _CAST.size + (length := _CAST.unpack_from(data)[0]):
        raise ValueError(f"{len(data)} bytes hold no cast")
    end = _CAST.size + length
    return data[_CAST.size : end].decode(), data[end:]
