"""packetcore on plain sockets and `selectors`, for programs without an event loop.

`connect` gives a `Stream` whose methods block, with timeouts; `serve` runs a
`packetcore.Handler`, or a function over a `Stream` on a thread of its own for each session.
"""

from packetcore_blocking._adapter import (
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
from packetcore_blocking._driver import BlockingDriver

__version__ = "0.1.0"

__all__ = [
    "BlockingDriver",
    "Client",
    "ConnectionPool",
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
