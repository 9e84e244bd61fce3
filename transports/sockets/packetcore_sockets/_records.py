"""What stands between a socket and a session that speaks through something: bytes in, bytes out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from packetcore import Carrier


class Records(ABC):
    """One side of one connection that is carried in records, as those of TLS or the frames of WebSocket.

    It reads no socket and keeps no time. After each call of anything, write what `take` gives; tell `went`
    how much of it has gone, that of the handshake too.
    """

    protocol: str
    """What it speaks, for people."""

    is_open: bool = False
    """Whether the handshake is done, so that `send` may be called."""

    at_end: bool = False
    """Whether the peer has said that it has finished sending."""

    ends_socket: bool = True
    """Whether the sending half of the socket ends with `close`."""

    ping_interval: float | None = None
    """After how many seconds to `ping`, again and again; `None` for never."""

    @property
    @abstractmethod
    def error(self) -> OSError | None:
        """What went wrong, in the handshake or after it: nothing more can be received then, but what the
        call before has given still counts. After what is sent in reply to that, `close` says so to the peer."""

    @abstractmethod
    def shake_hands(self, data: bytes) -> None:
        """Take what the socket received until `is_open`. What the application's part of it may be,
        `receive` gives."""

    @abstractmethod
    def receive(self, data: bytes) -> bytes:
        """Take what the socket received, and give the application's part of it. See then whether
        `is_open`, `at_end` or `error` has changed."""

    @abstractmethod
    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Make records of what the application sends."""

    @abstractmethod
    def close(self, *, going_away: bool = False) -> None:
        """Say that this side has finished sending. Idempotent.

        Args:
            going_away: because its server is shutting down.
        """

    @abstractmethod
    def take(self) -> bytes:
        """Take the records to write, `b""` if there are none."""

    @abstractmethod
    def went(self, size: int) -> int:
        """The system took `size` more bytes of records: how many more bytes of the application's have
        gone by that?"""

    @abstractmethod
    def carrier(self, below: Carrier) -> Carrier:
        """Say what the handshake came to, once it is done.

        Args:
            below: what carries the records.
        """

    def ping(self) -> None:  # noqa: B027  not every kind has a way
        """Ask the peer for a sign of life, where there is a way."""

    def heard(self) -> bool:
        """Whether the peer has given a sign of life that is nothing of the application's, since this was
        asked last."""
        return False
