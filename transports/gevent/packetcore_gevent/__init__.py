"""packetcore on gevent, with or without monkey-patching.

`serve` and `connect` take a `packetcore.Handler`, or work with a `Stream`: a plain
function over one on the server, the stream that `connect` gives on the client.
"""

from packetcore_gevent._client import Client
from packetcore_gevent._driver import GeventDriver
from packetcore_gevent._pool import ConnectionPool
from packetcore_gevent._stream import Stream
from packetcore_gevent._tcp import Server, connect, serve
from packetcore_gevent._udp import connect_udp, serve_udp

__version__ = "0.1.0"

__all__ = [
    "Client",
    "ConnectionPool",
    "GeventDriver",
    "Server",
    "Stream",
    "connect",
    "connect_udp",
    "serve",
    "serve_udp",
]
