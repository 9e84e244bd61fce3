"""packetcore on Tornado's `IOLoop`: an example of an adapter."""

from packetcore_tornado._adapter import (
    Client,
    ConnectionPool,
    Server,
    Stream,
    connect,
    connect_udp,
    request,
    serve,
    serve_udp,
)
from packetcore_tornado._driver import TornadoDriver

__all__ = [
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "TornadoDriver",
    "connect",
    "connect_udp",
    "request",
    "serve",
    "serve_udp",
]
