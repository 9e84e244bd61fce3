"""What a session asks of an adapter: a few verbs, and no decision in any of them."""

from __future__ import annotations

from typing import Protocol

from packetcore._carrier import Address, Carrier


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
        """Finish sending once all that was written has gone, and read on: over TLS say so first
        (`close_notify`), then end the sending half of the socket. What still comes goes to
        `Session.received`, which drops it, and the peer's end to `Session.eof`."""

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

    def carrier(self) -> Carrier:
        """What carries the session. Asked once, when the application first asks, which may be
        when the socket has gone: then leave out what cannot be told any more."""


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

    def carrier(self) -> Carrier:
        """What carries every session of this socket."""

    def close(self) -> None:
        """Close the socket: nothing comes or goes any more."""
