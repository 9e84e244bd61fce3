"""What packetcore's adapters stand on. Not an adapter itself.

A runtime that can watch a descriptor says so in five verbs, `Loop`, and how its users wait:
`Runtime` where they await, `SyncRuntime` where they block. `AsyncAdapter` and `SyncAdapter` make
an adapter of it. What they are made of serves by itself, too: `StreamSocket`, `DatagramSocket`,
`Listener`, `Dial`, `Handshake`, `TLSRecords`, and the functions that open sockets.
"""

from packetcore import Handle
from packetcore_sockets._adapter import Adapter
from packetcore_sockets._awaiting import AsyncAdapter
from packetcore_sockets._awaiting import Client as AsyncClient
from packetcore_sockets._awaiting import ConnectionPool as AsyncConnectionPool
from packetcore_sockets._awaiting import Server as AsyncServer
from packetcore_sockets._blocking import Client as SyncClient
from packetcore_sockets._blocking import ConnectionPool as SyncConnectionPool
from packetcore_sockets._blocking import Server as SyncServer
from packetcore_sockets._blocking import SyncAdapter, SyncRuntime, wait, waiting
from packetcore_sockets._datagram import READ_AT_ONCE, DatagramSocket
from packetcore_sockets._dial import Dial, Target
from packetcore_sockets._driver import AsyncDriver, Started, SyncDriver, ThreadDriver
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._listener import ACCEPT_PAUSE, BACKLOG, Listener, open_tcp_listeners
from packetcore_sockets._listening import Listening
from packetcore_sockets._look_up import Found, look_up
from packetcore_sockets._loop import Loop
from packetcore_sockets._network import Network
from packetcore_sockets._open import AddressInfo, open_each, open_udp_client, open_udp_servers
from packetcore_sockets._runtime import Runtime
from packetcore_sockets._stream import READ_SIZE, StreamSocket
from packetcore_sockets._task import Event, Task
from packetcore_sockets._tcp import no_delay, prepare, read_rest, reset_on_close
from packetcore_sockets._tls import TLSRecords

__version__ = "0.1.0"

__all__ = [
    "ACCEPT_PAUSE",
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
    "DatagramSocket",
    "Dial",
    "Event",
    "Found",
    "Handle",
    "Handshake",
    "Listener",
    "Listening",
    "Loop",
    "Network",
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
    "look_up",
    "no_delay",
    "open_each",
    "open_tcp_listeners",
    "open_udp_client",
    "open_udp_servers",
    "prepare",
    "read_rest",
    "reset_on_close",
    "wait",
    "waiting",
]
