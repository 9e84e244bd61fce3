"""What the adapters over plain sockets have in common. Not an adapter itself.

`DatagramSocket` reads and writes one UDP socket for a `packetcore.DatagramEndpoint`;
`open_udp_server` and `open_udp_client` open it. When to read is the adapter's part.
"""

from packetcore_sockets._datagram import READ_AT_ONCE, DatagramSocket
from packetcore_sockets._listener import ACCEPT_PAUSE, BACKLOG, Listener, open_tcp_listeners
from packetcore_sockets._open import AddressInfo, open_udp_client, open_udp_server, wildcard
from packetcore_sockets._reset import reset_on_close
from packetcore_sockets._rest import no_delay, prepare, read_rest
from packetcore_sockets._tls import TLSRecords

__version__ = "0.1.0"

__all__ = [
    "ACCEPT_PAUSE",
    "BACKLOG",
    "READ_AT_ONCE",
    "Listener",
    "TLSRecords",
    "no_delay",
    "prepare",
    "read_rest",
    "open_tcp_listeners",
    "reset_on_close",
    "AddressInfo",
    "DatagramSocket",
    "open_udp_server",
    "open_udp_client",
    "wildcard",
]
