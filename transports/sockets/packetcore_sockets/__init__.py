"""What the adapters over plain sockets have in common. Not an adapter itself.

A runtime that can watch a descriptor (`Loop`) has here the `Host` of a TCP connection, with TLS
or without: `StreamSocket`; and what comes before it: `Listener`, `Acceptor`, `Handshake`.
`DatagramSocket` reads and writes one UDP socket for a `packetcore.DatagramEndpoint`;
`open_udp_servers` and `open_udp_client` open it. When to read is the adapter's part.
"""

from packetcore_sockets._acceptor import Acceptor
from packetcore_sockets._datagram import READ_AT_ONCE, DatagramSocket
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._listener import ACCEPT_PAUSE, BACKLOG, Listener, open_tcp_listeners
from packetcore_sockets._loop import Handle, Loop
from packetcore_sockets._open import AddressInfo, open_each, open_udp_client, open_udp_servers
from packetcore_sockets._reset import reset_on_close
from packetcore_sockets._rest import no_delay, prepare, read_rest
from packetcore_sockets._stream import READ_SIZE, StreamSocket
from packetcore_sockets._tls import TLSRecords

__version__ = "0.1.0"

__all__ = [
    "ACCEPT_PAUSE",
    "BACKLOG",
    "READ_AT_ONCE",
    "READ_SIZE",
    "Acceptor",
    "AddressInfo",
    "DatagramSocket",
    "Handle",
    "Handshake",
    "Listener",
    "Loop",
    "StreamSocket",
    "TLSRecords",
    "no_delay",
    "open_each",
    "open_tcp_listeners",
    "open_udp_client",
    "open_udp_servers",
    "prepare",
    "read_rest",
    "reset_on_close",
]
