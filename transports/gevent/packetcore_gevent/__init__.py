"""packetcore on gevent, with or without monkey-patching.

`serve` and `connect` take a `packetcore.Handler`, or work with a `Stream`: a plain
function over one on the server, the stream that `connect` gives on the client.
"""

from packetcore_gevent._adapter import (
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
from packetcore_gevent._driver import GeventDriver

__version__ = "0.1.0"

__all__ = [
    "Client",
    "ConnectionPool",
    "GeventDriver",
    "Server",
    "Stream",
    "connect",
    "connect_serial",
    "connect_udp",
    "connect_unix",
    "request",
    "serve",
    "serve_udp",
    "serve_unix",
]
