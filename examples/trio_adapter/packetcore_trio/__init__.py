"""packetcore on trio: an example. What its functions leave running runs in the `nursery` that they take."""

from packetcore_trio._adapter import (
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
from packetcore_trio._driver import TrioDriver

__all__ = [
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "TrioDriver",
    "connect",
    "connect_udp",
    "request",
    "serve",
    "serve_udp",
]
