"""Closing a TCP socket whose data is lost."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

_AT_ONCE = struct.pack("ii", 1, 0)


def reset_on_close(sock: Any) -> None:
    """Have `close` send a reset, and the system forget what the peer has not taken.

    Without it a peer that never reads would hold the system's buffer long after its session is
    over; and one that does read would see an end in good order, though data was lost.

    Args:
        sock: a socket, or what a runtime gives in the place of one.
    """
    with suppress(OSError):  # it may be closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
