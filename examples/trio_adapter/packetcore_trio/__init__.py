"""packetcore on trio: an example of an adapter. What `serve` and `connect` leave running
runs in the `nursery` that all functions here are given."""

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
