"""packetcore on trio: an example of an adapter. What `serve` and `connect` leave running
runs in the nursery that they are given."""

from packetcore_trio._client import Client
from packetcore_trio._driver import TrioDriver
from packetcore_trio._pool import ConnectionPool
from packetcore_trio._stream import Stream
from packetcore_trio._tcp import Server, connect, serve
from packetcore_trio._udp import connect_udp, serve_udp

__all__ = [
    "Client",
    "ConnectionPool",
    "Server",
    "Stream",
    "TrioDriver",
    "connect",
    "connect_udp",
    "serve",
    "serve_udp",
]
