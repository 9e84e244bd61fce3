"""packetcore on Twisted: `serve` and `connect` with Deferreds, over a `packetcore.Handler` or
a `Stream`; `PacketFactory` and `PacketProtocol` for endpoints of your own."""

from packetcore_twisted._client import Client
from packetcore_twisted._driver import TwistedDriver
from packetcore_twisted._pool import ConnectionPool
from packetcore_twisted._socket import PacketProtocol
from packetcore_twisted._stream import Stream
from packetcore_twisted._tcp import PacketFactory, Server, connect, serve
from packetcore_twisted._udp import connect_udp, serve_udp

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
    "connect_udp",
    "serve",
    "serve_udp",
]
