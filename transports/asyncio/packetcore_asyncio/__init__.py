"""packetcore on asyncio.

`serve` and `connect` take a `packetcore.Handler`, or work with a `Stream`: an
`async def handler(stream)` on the server, the stream that `connect` gives on the client.
"""

from packetcore_asyncio._client import Client
from packetcore_asyncio._driver import AsyncioDriver
from packetcore_asyncio._pool import ConnectionPool
from packetcore_asyncio._stream import Stream
from packetcore_asyncio._tcp import Server, connect, serve
from packetcore_asyncio._udp import connect_udp, serve_udp

__version__ = "0.1.0"

__all__ = [
    "AsyncioDriver",
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "connect",
    "connect_udp",
    "serve",
    "serve_udp",
]
