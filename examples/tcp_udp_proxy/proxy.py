"""Each device that sends a datagram has a TCP connection of its own to the server, and both say the same packets.

A device is its address. Its session ends when it has been silent for `idle_timeout`, when the server closes, or when
the system reports that nobody listens there any more; its connection ends with it, and its next datagram begins both
anew. So the server sees connections come and go as if devices spoke TCP, and what they say has the ids that they
gave it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from packetcore import Config, EndpointStats, LocalProtocolError, SessionClosed
from packetcore_asyncio import Stream, connect

HOLD_OFF = 1.0
"""Seconds after which a device whose server was not reached may try again: one that goes on sending shall not make
the proxy connect for each datagram."""


@dataclass(slots=True)
class Counts:
    """What happened until now."""

    up: int = 0
    """Packets that went to the server."""
    down: int = 0
    """Packets that went to devices."""
    unreachable: int = 0
    """Connections to the server that could not be made."""
    too_long: int = 0
    """Packets of the server that fit no datagram, and were dropped."""


class Proxy:
    """What `serve_udp` runs for each device: `relay`.

    Args:
        host: the server's.
        port: and its port.
        config: limits and timeouts, of both sides. The server may be silent for as long as it likes.
    """

    def __init__(self, host: str, port: int, config: Config) -> None:
        self.counts = Counts()
        self._host = host
        self._port = port
        self._config = replace(config, idle_timeout=None)

    async def relay(self, device: Stream) -> None:
        """Carry packets between a device and the server, until one of them ends."""
        try:
            server = await connect(self._host, self._port, config=self._config)
        except OSError:
            self.counts.unreachable += 1
            await asyncio.sleep(HOLD_OFF)
            return
        down = asyncio.create_task(self._down(server, device))
        try:
            await self._up(device, server)
            await server.close()
        finally:
            down.cancel()
            server.session.abort()  # where even closing was cut short; else it is over, and this does nothing

    async def _up(self, device: Stream, server: Stream) -> None:
        """What the device says, until its session is over. Where the server does not take it, the device waits here,
        and what it sends meanwhile is dropped once 64 KiB wait."""
        with suppress(SessionClosed, ConnectionRefusedError):  # which the system reports where nobody listens
            while True:
                await server.send(await device.recv())
                self.counts.up += 1

    async def _down(self, server: Stream, device: Stream) -> None:
        """What the server says, until it ends: then the device's session does too."""
        with suppress(SessionClosed):
            async for packet in server:
                try:
                    await device.send(packet)
                except SessionClosed:
                    break
                except LocalProtocolError:
                    self.counts.too_long += 1
                else:
                    self.counts.down += 1
        device.session.close()


def figures(counts: Counts, udp: EndpointStats) -> str:
    """All that was counted, in a line."""
    return (
        f"{udp.sessions} devices, {udp.refused} datagrams refused, {udp.malformed.total()} malformed, "
        f"{counts.up} packets up, {counts.down} down, {counts.too_long} too long, "
        f"server not reached {counts.unreachable} times"
    )
