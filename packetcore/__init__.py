"""A packet protocol as plain state machines: no sockets, no clocks, no threads.

Codec: `Packet`, `encode`, `decode`, `Decoder`; `speedups` says whether the one in C is in
use. Messages: `split`, `Joiner`. One stream by hand: `Connection`. An application, the same on
every adapter: `Handler`, `Session`, `Config`. The register of a server's sessions: `SessionPool`. For adapters: `Host`,
`Endpoint`, `DatagramEndpoint`, `Inbox`, `StreamBase`, `AsyncStream`, `SyncStream`, `ServerBase`, `Driver`; and
`AnyPacket` and `AnyItem`, by which these are generic.
"""

from packetcore._backoff import Backoff, Redial
from packetcore._built import speedups
from packetcore._carrier import Address, Carrier, Credentials, ProxiedAddress, ProxyInfo, TLSInfo, WebSocketInfo
from packetcore._client import ClientBase, Dial
from packetcore._codec import Codec, FrameDecoder
from packetcore._config import Config
from packetcore._connection import Connection, PacketFraming
from packetcore._connection_pool import ConnectionPool, ConnectionPoolStats, Lease, LeaseState
from packetcore._datagram import DatagramEndpoint, DatagramFraming, DatagramSession
from packetcore._deadlines import Deadlines
from packetcore._decoder import decode
from packetcore._driver import ENTRY_POINT_GROUP, Driver, installed_transports, load_driver
from packetcore._endpoint import Endpoint
from packetcore._errors import (
    IdentityTaken,
    LocalProtocolError,
    MalformedFrame,
    NotConnected,
    PoolClosed,
    PoolFull,
    ProtocolError,
    RemoteProtocolError,
    RequestPending,
    SessionClosed,
    WrongThread,
)
from packetcore._events import AnyItem, Closed, EndOfStream, Event, Malformed, Message
from packetcore._frames import FrameCodec, PacketCodec
from packetcore._handler import Handler
from packetcore._host import DatagramHost, Host
from packetcore._implementation import Decoder, Latch, encode, masked, open_latches
from packetcore._inbox import Inbox
from packetcore._lending import AsyncConnectionPool, SyncConnectionPool
from packetcore._messages import Joiner, split
from packetcore._paced import PacedSession
from packetcore._packet import AnyPacket, Packet
from packetcore._pool import SessionPool
from packetcore._reasons import CloseReason, Reason, Refusal
from packetcore._requests import Reply, Request
from packetcore._server import ServerBase
from packetcore._session import Session
from packetcore._state import TRANSITIONS, Input, State
from packetcore._stats import EndpointStats, Stats
from packetcore._stream import AsyncStream, StreamBase, SyncStream, ask, ask_and_wait
from packetcore._tls import TLS
from packetcore._waiting import AsyncCondition, AsyncEvent, Handle, SyncCondition
from packetcore._wiretap import Wiretap

__version__ = "0.1.0"

__all__ = [
    "ENTRY_POINT_GROUP",
    "TLS",
    "TRANSITIONS",
    "Address",
    "AnyItem",
    "AnyPacket",
    "AsyncCondition",
    "AsyncConnectionPool",
    "AsyncEvent",
    "AsyncStream",
    "Backoff",
    "Carrier",
    "ClientBase",
    "CloseReason",
    "Closed",
    "Codec",
    "Config",
    "Connection",
    "ConnectionPool",
    "ConnectionPoolStats",
    "Credentials",
    "DatagramEndpoint",
    "DatagramFraming",
    "DatagramHost",
    "DatagramSession",
    "Deadlines",
    "Decoder",
    "Dial",
    "Driver",
    "EndOfStream",
    "Endpoint",
    "EndpointStats",
    "Event",
    "FrameCodec",
    "FrameDecoder",
    "Handle",
    "Handler",
    "Host",
    "IdentityTaken",
    "Inbox",
    "Input",
    "Joiner",
    "Latch",
    "Lease",
    "LeaseState",
    "LocalProtocolError",
    "Malformed",
    "MalformedFrame",
    "Message",
    "NotConnected",
    "PacedSession",
    "Packet",
    "PacketCodec",
    "PacketFraming",
    "PoolClosed",
    "PoolFull",
    "ProtocolError",
    "ProxiedAddress",
    "ProxyInfo",
    "Reason",
    "Redial",
    "Refusal",
    "RemoteProtocolError",
    "Reply",
    "Request",
    "RequestPending",
    "ServerBase",
    "Session",
    "SessionClosed",
    "SessionPool",
    "State",
    "Stats",
    "StreamBase",
    "SyncCondition",
    "SyncConnectionPool",
    "SyncStream",
    "TLSInfo",
    "WebSocketInfo",
    "Wiretap",
    "WrongThread",
    "ask",
    "ask_and_wait",
    "decode",
    "encode",
    "installed_transports",
    "load_driver",
    "masked",
    "open_latches",
    "speedups",
    "split",
]
