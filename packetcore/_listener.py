"""What a session tells an application: a `Handler`, as the session sees it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from packetcore._events import Malformed, Message
from packetcore._packet import AnyPacket
from packetcore._reasons import CloseReason

S = TypeVar("S", contravariant=True)


class Listener(Protocol[S, AnyPacket]):
    """Who hears of sessions of the kind `S` and of their packets. When each method is called `Handler` says."""

    def connected(self, session: S, /) -> None:
        """A peer was admitted."""

    def packet_received(self, session: S, packet: AnyPacket, /) -> None:
        """A packet came."""

    def packets_received(self, session: S, packets: list[AnyPacket], /) -> None:
        """Packets came together."""

    def message_received(self, session: S, message: Message, /) -> None:
        """A message is whole."""

    def malformed(self, session: S, malformed: Malformed, /) -> None:
        """Bytes came that are no packet."""

    def sent(self, session: S, nbytes: int, /) -> None:
        """The operating system took `nbytes` more."""

    def writable(self, session: S, /) -> None:
        """There is room again."""

    def eof_received(self, session: S, /) -> None:
        """The peer has finished sending."""

    def error_received(self, session: S, error: OSError, /) -> None:
        """The system reports an error of this peer (UDP)."""

    def draining(self, session: S, /) -> None:
        """The server is shutting down."""

    def disconnected(self, session: S, reason: CloseReason, /) -> None:
        """It is over."""
