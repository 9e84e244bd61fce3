"""What carries a conversation: addresses, and what TLS agreed on. Plain values, the same on
every adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Address = tuple[Any, ...]
"""A socket address: `(host, port)` for IPv4, `(host, port, flow, scope)` for IPv6, `(path,)` for a
Unix socket, "" being the path of one that has none."""


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What a TLS handshake came to."""

    version: str
    """The protocol, such as "TLSv1.3"."""

    cipher: str
    """The cipher suite by OpenSSL's name, such as "TLS_AES_256_GCM_SHA384"."""

    alpn: str | None = None
    """The application protocol agreed on (RFC 7301); `None` if none was."""

    certificate: bytes | None = None
    """The peer's certificate, DER; `None` if it showed none. It was verified where the
    context, or what a runtime has in its place, demands that, and not otherwise."""

    subject: tuple[tuple[str, str], ...] = ()
    """Whom that certificate names: attributes by their long names in OpenSSL and their values,
    in its order, such as `("commonName", "meter 7")`. Empty unless it was verified."""

    @property
    def common_name(self) -> str | None:
        """The subject's first common name; `None` if it has none."""
        return next((value for name, value in self.subject if name == "commonName"), None)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whose process is at the other end of a Unix socket, when it connected or listened (`SO_PEERCRED` of
    unix(7))."""

    pid: int
    """Its process id; 0 where it is in another namespace."""

    uid: int
    """Its user's id."""

    gid: int
    """Its group's id."""


@dataclass(frozen=True, slots=True)
class WebSocketInfo:
    """What a WebSocket handshake came to (RFC 6455, section 4)."""

    path: str
    """What was asked for: the path, and the query behind a "?"."""

    origin: str | None = None
    """The page of which a script asked, as its browser says, such as "https://example.org"; `None` if the
    client is no browser."""

    subprotocol: str | None = None
    """What was agreed on; `None` if nothing was."""

    headers: tuple[tuple[str, str], ...] = ()
    """The peer's other headers, names in small letters: of the request, or at a client of the answer."""


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """What a proxy told of the connection that it hands on, by the PROXY protocol. It is as true as the proxy
    is to be trusted."""

    address: Address = ()
    """The proxy's own, from which the connection came."""

    destination: Address | None = None
    """Where the device had connected to; `None` where the proxy did not say."""

    unique_id: bytes | None = None
    """What the proxy calls the connection, up to 128 bytes; so this and the rest where it said so, in version 2."""

    alpn: str | None = None
    """The application protocol that it agreed on with the device (RFC 7301)."""

    authority: str | None = None
    """The host name that the device asked for; over TLS that of SNI."""

    tls: str | None = None
    """The version of TLS that the device speaks to the proxy, such as "TLSv1.3"."""

    cipher: str | None = None
    """Its cipher suite."""

    common_name: str | None = None
    """The common name in the device's certificate; `None` unless the proxy has verified that."""

    is_verified: bool = False
    """Whether the device showed the proxy a certificate, and that was verified."""

    other: tuple[tuple[int, bytes], ...] = ()
    """What else it told: types and values (TLV) that have no name here, those about TLS included."""


class ProxiedAddress(Address):
    """The address of a peer behind a proxy: a tuple as any other, that knows of the proxy.

    Args:
        address: the peer's own.
        proxy: what the proxy told.
    """

    proxy: ProxyInfo

    def __new__(cls, address: Address, proxy: ProxyInfo) -> ProxiedAddress:
        itself = super().__new__(cls, address)
        itself.proxy = proxy
        return itself

    def __getnewargs__(self) -> tuple[Address, ProxyInfo]:  # a queue of log records pickles it
        return tuple(self), self.proxy


@dataclass(frozen=True, slots=True)
class Carrier:
    """What carries one session."""

    kind: str
    """"tcp", "udp", "unix", "websocket" or what else a transport names."""

    local: Address | None = None
    """This side's address; `None` where the socket had gone before anybody asked."""

    family: int | None = None
    """The address family, one of `socket.AF_INET` and its kin; `None` as `local`."""

    tls: TLSInfo | None = None
    """What TLS agreed on; `None` without TLS."""

    credentials: Credentials | None = None
    """Who the peer is, of a Unix socket and where the system tells (Linux)."""

    websocket: WebSocketInfo | None = None
    """What WebSocket agreed on; `None` without WebSocket."""

    proxy: ProxyInfo | None = None
    """What a proxy in between told; `None` where none is known. The rest is about the way from there on."""
