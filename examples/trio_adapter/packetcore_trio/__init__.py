"""packetcore on trio: an example of an adapter. What its functions leave running, runs in the
`nursery` that each of them takes."""

from packetcore_trio._adapter import Client, ConnectionPool, Server, Stream, adapter
from packetcore_trio._driver import TrioDriver

serve, connect, request = adapter.serve, adapter.connect, adapter.request
serve_udp, connect_udp = adapter.serve_udp, adapter.connect_udp

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
