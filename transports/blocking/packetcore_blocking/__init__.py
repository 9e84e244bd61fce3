"""packetcore on plain sockets and `selectors`, for programs without an event loop.

`connect` gives a `Stream` whose methods block, with timeouts; `serve` runs a
`packetcore.Handler`, or a function over a `Stream` on a thread of its own for each session.
"""

from packetcore_blocking._client import Client
from packetcore_blocking._driver import BlockingDriver
from packetcore_blocking._pool import ConnectionPool
from packetcore_blocking._stream import Stream
from packetcore_blocking._tcp import Server, connect, serve
from packetcore_blocking._udp import connect_udp, serve_udp

__version__ = "0.1.0"

__all__ = [
    "BlockingDriver",
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "connect",
    "connect_udp",
    "serve",
    "serve_udp",
]
