"""packetcore on trio: an example. What its functions leave running runs in the `nursery` that they take."""

from packetcore_trio._adapter import (
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
from packetcore_trio._driver import TrioDriver

__all__ = [
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "TrioDriver",
    "connect",
    "connect_serial",
    "connect_udp",
    "connect_unix",
    "request",
    "serve",
    "serve_udp",
    "serve_unix",
]
