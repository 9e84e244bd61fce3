"""packetcore on Tornado's `IOLoop`: an example of an adapter."""

from packetcore_tornado._adapter import (
    Client,
    ConnectionPool,
    Server,
    Stream,
    connect,
    connect_serial,
    connect_udp,
    connect_unix,
    request,
    serve,
    serve_udp,
    serve_unix,
)
from packetcore_tornado._driver import TornadoDriver

__all__ = [
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "TornadoDriver",
    "connect",
    "connect_serial",
    "connect_udp",
    "connect_unix",
    "request",
    "serve",
    "serve_udp",
    "serve_unix",
]
