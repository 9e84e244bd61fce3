"""Who listens in on sessions: told of every chunk as it comes and goes."""

from __future__ import annotations

from typing import Any, Protocol

from packetcore._carrier import Address, Carrier


class Wiretap(Protocol):
    """What `Config.tap` is told of each session, on the runtime's thread.

    The chunks are those of the session: cut as they came and go, without TLS, WebSocket or the PROXY protocol. Of
    UDP each is one datagram. Keep no reference to one that is not `bytes`. No verb may block; one that raises is
    logged, and the session tells nothing more.
    """

    def opened(self, session: Any) -> None:
        """A session begins. One that is about to be turned away has no `id`."""

    def received(self, session: Any, data: bytes | bytearray | memoryview) -> None:
        """The peer sent this. What comes while the session closes is told too, and dropped."""

    def eof(self, session: Any) -> None:
        """The peer has finished sending."""

    def sent(self, session: Any, data: bytes) -> None:
        """This is handed to the socket, behind all that was; what becomes of it nobody knows."""

    def eof_sent(self, session: Any) -> None:
        """This side finishes sending, behind all that was handed over."""

    def unclaimed(self, endpoint: Any, data: bytes, peer: Address, carrier: Carrier) -> None:
        """Over UDP, a datagram came that belongs to no session: it is not worth one, or its peer was turned
        away."""

    def lost(self, session: Any, error: BaseException | None) -> None:
        """The socket is gone, with the `error` that broke it; the last word of a session."""
