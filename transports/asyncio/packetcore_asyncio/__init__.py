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
    connect_udp,
    request,
    serve,
    serve_udp,
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
    "connect_udp",
    "request",
    "serve",
    "serve_udp",
]
