"""The host of a session that somebody listens in on."""

from __future__ import annotations

from collections.abc import Callable

from packetcore._carrier import Carrier
from packetcore._host import Host


class TappedHost:
    """Hands everything on to a host, and says what is sent.

    Args:
        host: the socket's verbs.
        sent: told of each chunk before the host is.
        eof_sent: likewise, of the end.
    """

    __slots__ = ("_eof_sent", "_host", "_sent")

    def __init__(self, host: Host, sent: Callable[[bytes], object], eof_sent: Callable[[], object]) -> None:
        self._host = host
        self._sent = sent
        self._eof_sent = eof_sent

    def write(self, data: bytes) -> int:
        """See `Host`."""
        self._sent(data)
        return self._host.write(data)

    def write_eof(self) -> None:
        """See `Host`."""
        self._eof_sent()
        self._host.write_eof()

    def set_timer(self, at: float | None) -> None:
        """See `Host`."""
        self._host.set_timer(at)

    def pause_reading(self) -> None:
        """See `Host`."""
        self._host.pause_reading()

    def resume_reading(self) -> None:
        """See `Host`."""
        self._host.resume_reading()

    def close(self) -> None:
        """See `Host`."""
        self._host.close()

    def abort(self) -> None:
        """See `Host`."""
        self._host.abort()

    def wake(self) -> None:
        """See `Host`."""
        self._host.wake()

    def carrier(self) -> Carrier:
        """See `Host`."""
        return self._host.carrier()
