"""packetcore on Twisted: `serve` and `connect` with Deferreds, over a `packetcore.Handler` or
a `Stream`; `PacketFactory` and `PacketProtocol` for endpoints of your own."""

from packetcore_twisted._adapter import (
    Client,
    ConnectionPool,
    PacketFactory,
    Server,
    connect,
    connect_serial,
    connect_udp,
    connect_unix,
    request,
    serve,
    serve_udp,
    serve_unix,
)
from packetcore_twisted._driver import TwistedDriver
from packetcore_twisted._protocol import PacketProtocol
from packetcore_twisted._stream import Stream

__version__ = "0.1.0"

__all__ = [
    "Client",
    "ConnectionPool",
    "PacketFactory",
    "PacketProtocol",
    "Server",
    "Stream",
    "TwistedDriver",
    "connect",
    "connect_serial",
    "connect_udp",
    "connect_unix",
    "request",
    "serve",
    "serve_udp",
    "serve_unix",
]
