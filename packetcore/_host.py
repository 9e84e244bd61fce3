"""What a session asks of an adapter: a few verbs, and no decision in any of them."""

from __future__ import annotations

from typing import Any, Protocol

Address = tuple[Any, ...]
"""A socket address: `(host, port)` for IPv4, `(host, port, flow, scope)` for IPv6."""


class Host(Protocol):
    """One stream's socket, as a session sees it. An adapter implements this and nothing more.

    No verb may raise for what the network does: a socket that fails is reported with
    `Session.lost`. A verb may call the session's inputs before it returns.
    """

    def write(self, data: bytes) -> int:
        """Send `data` after all that was written before, or keep it until the socket takes it.

        Returns:
            How many bytes of all that was written the operating system has taken by now and
            was not said to have. Call `Session.sent_bytes` for what it takes later.
        """

    def write_eof(self) -> None:
        """Finish sending once all that was written has gone. Where the transport has no
        half-close (TLS), close instead."""

    def set_timer(self, at: float | None) -> None:
        """Call `Session.tick` at `at` seconds, in place of any time set before; `None`
        calls it off. A time that has passed means now, but not before this returns."""

    def pause_reading(self) -> None:
        """Read nothing more until `resume_reading`."""

    def resume_reading(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Close once all that was written has gone, then call `Session.lost`."""

    def abort(self) -> None:
        """Close at once, whatever is unsent, then call `Session.lost`."""

    def wake(self) -> None:
        """Call `Session.flush` soon, but not before this returns."""


class DatagramHost(Protocol):
    """One datagram socket, as a `DatagramEndpoint` sees it."""

    def write_to(self, data: bytes, addr: Address) -> None:
        """Hand one datagram to the system.

        Raises:
            OSError: the system did not take it; `BlockingIOError` where it had no room.
        """

    def set_timer(self, at: float | None) -> None:
        """Call `DatagramEndpoint.tick` at `at` seconds, in place of any time set before;
        `None` calls it off. A time that has passed means now, but not before this returns."""

    def wake(self) -> None:
        """Call `DatagramEndpoint.flush` soon, but not before this returns."""

    def close(self) -> None:
        """Close the socket: nothing comes or goes any more."""
