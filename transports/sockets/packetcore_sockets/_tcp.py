"""A connected TCP socket: what each needs before its first byte, what is left in it after its last,
and how to close it where data is lost."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

_AT_ONCE = struct.pack("ii", 1, 0)

_CHUNK = 64 * 1024

_MOST = 16 << 20
"""Bytes: more than a system keeps for one socket."""


def no_delay(sock: Any) -> None:
    """Turn Nagle's algorithm off, which holds back a small reply until the one before it is
    acknowledged: 40 ms, where the peer has nothing to say meanwhile.

    Args:
        sock: a TCP socket, accepted or dialled, or what a runtime gives in the place of one.
    """
    with suppress(OSError):  # the peer may be gone already
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def prepare(sock: socket.socket) -> None:
    """Have a TCP socket, accepted or dialled, never wait: neither in a call nor to send."""
    sock.setblocking(False)
    no_delay(sock)


def read_rest(sock: socket.socket) -> bytes:
    """What a non-blocking socket that broke has received and nobody has read: some systems
    (Linux) keep that after a reset. Give it to `Session.received` before `Session.lost`."""
    rest = bytearray()
    with suppress(OSError):
        while len(rest) < _MOST and (data := sock.recv(_CHUNK)):
            rest += data
    return bytes(rest)


def reset_on_close(sock: Any) -> None:
    """Have `close` send a reset, and the system forget what the peer has not taken.

    Without it a peer that never reads would hold the system's buffer long after its session is
    over; and one that does read would see an end in good order, though data was lost.

    Args:
        sock: a socket, or what a runtime gives in the place of one.
    """
    with suppress(OSError):  # it may be closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
