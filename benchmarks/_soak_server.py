"""The server of `soak.py`: TCP and UDP on one port each, restarted when told, looked into at the end."""

from __future__ import annotations

import gc
import logging
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psutil
from _processes import Echo, answer, begin_child, load, memory

from packetcore import Config, Packet, ServerBase, Session

FLOOD = 9
"""The type of a packet that is answered with more than the limit of unsent bytes."""

CONFIG = Config(
    max_payload=64 * 1024,
    idle_timeout=2.0,
    frame_timeout=1.0,
    close_timeout=1.0,
    max_outstanding=1 << 20,
    max_sessions_per_host=None,
)
"""Short times, so that a soak sees every one of them pass often."""

FLOOD_SIZE = 16 << 20
"""Bytes: more than `max_outstanding` and all that the system's buffers hold."""


@dataclass(frozen=True)
class Census:
    """What the server's process holds."""

    sessions: int
    """In the registers."""
    objects: int
    """Sessions that live in memory, in a register or not."""
    descriptors: int
    rss: int
    """Bytes."""
    errors: list[str]
    """What was logged that should not have been."""


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


class Soaked(Echo):
    """Echoes, and floods whoever asks for it."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        if packet.type != FLOOD:
            session.send(packet)
            return
        reply = Packet(0, bytes(CONFIG.max_payload))
        for _ in range(FLOOD_SIZE // CONFIG.max_payload):
            if not session.is_open:
                break
            session.send(reply)


class Servers:
    """The servers of one process."""

    def __init__(self, transport: str) -> None:
        self._errors = _Errors()
        logging.getLogger().addHandler(self._errors)
        if transport == "twisted":
            from twisted.logger import STDLibLogObserver, globalLogPublisher

            observe: Any = STDLibLogObserver()
            globalLogPublisher.addObserver(observe)
        self._driver = load(transport)
        self._tcp: ServerBase = self._driver.start_server(Soaked(), config=CONFIG)
        self._udp: ServerBase = self._driver.start_udp_server(Echo(), config=CONFIG)
        self.ports: tuple[int, int] = (self._tcp.address[1], self._udp.address[1])

    def restart(self, grace: float) -> None:
        """Close both, and listen on the same ports again."""
        for server in (self._tcp, self._udp):
            self._driver.call(server.close, grace)
        self._tcp = self._driver.start_server(Soaked(), port=self.ports[0], config=CONFIG)
        self._udp = self._driver.start_udp_server(Echo(), port=self.ports[1], config=CONFIG)

    def census(self) -> Census:
        """Count."""
        found: Any = self._driver.call(lambda: len(self._tcp.sessions) + len(self._udp.sessions))
        gc.collect()
        objects = sum(isinstance(found, Session) for found in gc.get_objects())
        return Census(found, objects, psutil.Process().num_fds(), memory().rss, list(self._errors.messages))


def run(pipe: Pipe, transport: str) -> None:
    """Serve in a child process."""
    begin_child()
    servers = Servers(transport)
    answer(
        pipe,
        {
            "ports": lambda: servers.ports,
            "restart": servers.restart,
            "census": servers.census,
            "rss": lambda: psutil.Process().memory_info().rss,
        },
    )
