"""Who is there: every session is the device that its certificate names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from packetcore import CloseReason, Handler, Packet, Session

from .protocol import READING, text_of


@dataclass(slots=True)
class Device:
    """What is known of a device that has been here."""

    name: str
    peer: str = ""
    """Where it spoke from last."""
    session: int | None = None
    """The id of its session; `None` while it is offline."""
    since: float = 0.0
    """When it came, or went: seconds since 1970, as `last_seen`."""
    last_seen: float = 0.0
    """When its last packet came, heartbeats included."""
    why: CloseReason | None = None
    """Why it is offline: IDLE_TIMEOUT if it fell silent, PEER or RESET if it hung up."""
    reading: str = ""
    """The last that it measured."""


class Gateway(Handler):
    """Keeps the devices by their names.

    Args:
        clock: gives the seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.devices: dict[str, Device] = {}
        self._clock = clock

    @property
    def online(self) -> int:
        """How many of the devices are here."""
        return sum(device.session is not None for device in self.devices.values())

    def connected(self, session: Session) -> None:
        tls = session.carrier.tls
        name = None if tls is None else tls.common_name
        if name is None:
            session.close()  # a certificate of our authority, without a name
            return
        session.bind(name)  # the device's old session, if it has one yet, ends with REPLACED
        device = self.devices.setdefault(name, Device(name))
        device.peer = session.peer[0]
        device.session, device.why = session.id, None
        device.since = device.last_seen = self._clock()

    def packet_received(self, session: Session, packet: Packet) -> None:
        device = self._device(session)
        device.last_seen = self._clock()
        if packet.type == READING:
            device.reading = text_of(packet)

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        if session.identity is None:
            return
        device = self._device(session)
        if device.session == session.id:  # it has not come back meanwhile
            device.session, device.why, device.since = None, reason, self._clock()

    def _device(self, session: Session) -> Device:
        return self.devices[str(session.identity)]
