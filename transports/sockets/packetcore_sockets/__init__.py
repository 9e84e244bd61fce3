"""What packetcore's adapters stand on. Not an adapter itself.

A runtime that can watch a descriptor says so in five verbs, `Loop`, and how its users wait:
`Runtime` where they await, `SyncRuntime` where they block. `AsyncAdapter` and `SyncAdapter` make
an adapter of it. What they are made of serves by itself, too: `StreamSocket`, `DatagramSocket`,
`Listener`, `Dial`, `Handshake`, `TLSRecords`, and the functions that open sockets.
"""

from packetcore import Handle
from packetcore_sockets._adapter import Adapter
from packetcore_sockets._attempts import ATTEMPT_DELAY, Attempts, checked_delay, is_address
from packetcore_sockets._awaiting import AsyncAdapter
from packetcore_sockets._awaiting import Client as AsyncClient
from packetcore_sockets._awaiting import ConnectionPool as AsyncConnectionPool
from packetcore_sockets._awaiting import Server as AsyncServer
from packetcore_sockets._blocking import Client as SyncClient
from packetcore_sockets._blocking import ConnectionPool as SyncConnectionPool
from packetcore_sockets._blocking import Server as SyncServer
from packetcore_sockets._blocking import SyncAdapter, SyncRuntime, wait, waiting
from packetcore_sockets._carrier import address_of, address_text, as_address, carrier_of, scoped_host
from packetcore_sockets._datagram import READ_AT_ONCE, DatagramSocket
from packetcore_sockets._dial import Dial, Target
from packetcore_sockets._driver import AsyncDriver, Started, SyncDriver, ThreadDriver
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._hosts import Hosts
from packetcore_sockets._inherited import Given, given_datagram_sockets, given_listeners
from packetcore_sockets._listener import ACCEPT_PAUSE, BACKLOG, Listener, open_tcp_listeners
from packetcore_sockets._listening import Listening
from packetcore_sockets._look_up import Found, look_up
from packetcore_sockets._loop import Loop
from packetcore_sockets._network import Network
from packetcore_sockets._open import AddressInfo, open_each, open_udp_client, open_udp_servers
from packetcore_sockets._proxied import HeaderReading, Proxies, ProxyNetworks
from packetcore_sockets._proxy import ProxyHeader, read_proxy_header
from packetcore_sockets._race import Attempt, Connecting, Race
from packetcore_sockets._records import Records
from packetcore_sockets._runtime import Runtime
from packetcore_sockets._stream import READ_SIZE, StreamSocket
from packetcore_sockets._systemd import Notifier, has_inherited_sockets, inherited_sockets, socket_of
from packetcore_sockets._task import Event, Task
from packetcore_sockets._tcp import no_delay, prepare, read_rest, reset_on_close
from packetcore_sockets._timers import Timers
from packetcore_sockets._tls import TLSRecords
from packetcore_sockets._websocket.options import WebSocket, WebSocketError, WebSocketOptions

__version__ = "0.1.0"

__all__ = [
    "ACCEPT_PAUSE",
    "ATTEMPT_DELAY",
    "BACKLOG",
    "READ_AT_ONCE",
    "READ_SIZE",
    "Adapter",
    "AddressInfo",
    "AsyncAdapter",
    "AsyncClient",
    "AsyncConnectionPool",
    "AsyncDriver",
    "AsyncServer",
    "Attempt",
    "Attempts",
    "Connecting",
    "DatagramSocket",
    "Dial",
    "Event",
    "Found",
    "Given",
    "Handle",
    "Handshake",
    "HeaderReading",
    "Hosts",
    "Listener",
    "Listening",
    "Loop",
    "Network",
    "Race",
    "Notifier",
    "Proxies",
    "ProxyHeader",
    "ProxyNetworks",
    "Records",
    "Runtime",
    "Started",
    "StreamSocket",
    "SyncAdapter",
    "SyncClient",
    "SyncConnectionPool",
    "SyncDriver",
    "SyncRuntime",
    "SyncServer",
    "TLSRecords",
    "Target",
    "Task",
    "ThreadDriver",
    "Timers",
    "WebSocket",
    "WebSocketError",
    "WebSocketOptions",
    "address_of",
    "address_text",
    "as_address",
    "carrier_of",
    "checked_delay",
    "is_address",
    "given_datagram_sockets",
    "given_listeners",
    "has_inherited_sockets",
    "inherited_sockets",
    "look_up",
    "no_delay",
    "open_each",
    "open_tcp_listeners",
    "open_udp_client",
    "open_udp_servers",
    "prepare",
    "read_proxy_header",
    "read_rest",
    "reset_on_close",
    "scoped_host",
    "socket_of",
    "wait",
    "waiting",
]
