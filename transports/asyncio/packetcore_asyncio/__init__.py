"""packetcore on asyncio.

`serve` and `connect` take a `packetcore.Handler`, or work with a `Stream`: an
`async def handler(stream)` on the server, the stream that `connect` gives on the client.
"""

from packetcore_asyncio._adapter import (
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
from packetcore_asyncio._driver import AsyncioDriver

__version__ = "0.1.0"

__all__ = [
    "AsyncioDriver",
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
