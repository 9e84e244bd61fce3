"""What an application writes: the same class on every adapter."""

from __future__ import annotations

from typing import Generic

from packetcore._events import Malformed, Message
from packetcore._packet import AnyPacket
from packetcore._reasons import CloseReason
from packetcore._session import Session


class Handler(Generic[AnyPacket]):
    """Override what you need; every method is optional.

    One handler serves all sessions of a server: keep what belongs to one of them in a
    dict by `session.id`, or give the server a function over a `Stream` instead. Methods
    run on the runtime's own thread and must not block. One that raises is logged and
    closes that session with HANDLER_ERROR; no other notices.

    Where a framing is given, say what its packets are, so that type checkers know: they are
    `bytes` for a `Handler[bytes]`.
    """

    def connected(self, session: Session[AnyPacket]) -> None:
        """A peer was admitted. `disconnected` will follow exactly once."""

    def packet_received(self, session: Session[AnyPacket], packet: AnyPacket) -> None:
        """A packet came. What is sent here leaves in one write, after the last packet of
        the same chunk. Not called where `join_messages` is set."""

    def packets_received(self, session: Session[AnyPacket], packets: list[AnyPacket]) -> None:
        """Packets came together. Calls `packet_received` for each; override it to take all of
        a chunk at once, which costs a call for each chunk and not for each packet."""
        for packet in packets:
            self.packet_received(session, packet)

    def message_received(self, session: Session[AnyPacket], message: Message) -> None:
        """A message is whole. Called only where `join_messages` is set."""

    def malformed(self, session: Session[AnyPacket], malformed: Malformed) -> None:
        """Bytes came that are no packet. They are counted in `session.stats` already."""

    def sent(self, session: Session[AnyPacket], nbytes: int) -> None:
        """The operating system took `nbytes` more of what was sent."""

    def writable(self, session: Session[AnyPacket]) -> None:
        """Unsent bytes had passed `write_high_water` and are below `write_low_water` again."""

    def eof_received(self, session: Session[AnyPacket]) -> None:
        """The peer has finished sending and may still read. Closes the session once all
        that was sent has gone; override it to reply later, and close then."""
        session.close()

    def error_received(self, session: Session[AnyPacket], error: OSError) -> None:
        """The system reports that something sent to this peer went wrong, such as a port
        that is not in use. UDP only; the session lives on, close it if that is enough."""

    def draining(self, session: Session[AnyPacket]) -> None:
        """The server is shutting down. Closes the session; override it to say goodbye or
        to finish something first, and close before the grace is over."""
        session.close()

    def disconnected(self, session: Session[AnyPacket], reason: CloseReason) -> None:
        """It is over, exactly once for each `connected`. The session can no longer send."""
