"""How a server and a client speak WebSocket (RFC 6455): what each may choose. It needs no `wsproto`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal
from urllib.parse import urlsplit

SUBPROTOCOL = "packetcore"
"""What both sides call what they speak, unless they are told another name."""

PORTS = {"ws": 80, "wss": 443}
"""The port of each scheme, where a URL has none (RFC 6455, section 3)."""


class WebSocketError(ConnectionError):
    """WebSocket failed: the peer broke its rules, spoke none, or was refused, or refused this side."""


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """Whom a server lets speak WebSocket, and how.

    Compression (permessage-deflate) is not negotiated: a peer's few bytes could cost much memory and
    time, and each connection a window.

    Raises:
        TypeError: `origins` is one string.
        ValueError: `path` does not begin with "/", or `ping_interval` is not above 0.
    """

    path: str | None = "/"
    """The path that is asked for, without what follows a "?"; another gets a 404. `None` for any."""

    origins: Collection[str] | None = ()
    """The pages of which scripts may connect, as browsers name them in `Origin`: "https://example.org", or
    "null" for a file. Pages of the very host and port that is connected to always may, and so may who is no
    browser and sends no `Origin`. Others get a 403. `None` for all pages."""

    subprotocol: str | None = SUBPROTOCOL
    """What is spoken, for clients that ask by name; `None` for no name."""

    require_subprotocol: bool = False
    """Whether clients have to ask for it; who does not gets a 400."""

    ping_interval: float | None = None
    """After how many seconds the peer is pinged, again and again, in seconds; `None` for never. Its answers
    count as signs of life, to `idle_timeout` too."""

    or_raw: bool = False
    """Whether frames without WebSocket may come by the same port: the first byte tells them apart, which
    has to come within `connect_timeout`. For the default framing, without TLS."""

    def __post_init__(self) -> None:
        if isinstance(self.origins, str):
            raise TypeError(f"origins={self.origins!r} is one string: give a tuple of them")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"path={self.path!r} does not begin with '/'")
        check_ping_interval(self.ping_interval)


WebSocket = WebSocketOptions | bool | Literal["auto"]
"""How `serve` is asked for it."""


def options_of(websocket: WebSocket) -> WebSocketOptions | None:
    """What `serve` was asked for; `None` for no WebSocket.

    Raises:
        ImportError: `wsproto` is not installed.
        TypeError: it is something else.
    """
    if websocket is False:
        return None
    if websocket == "auto":
        options = WebSocketOptions(or_raw=True)
    elif websocket is True:
        options = WebSocketOptions()
    elif isinstance(websocket, WebSocketOptions):
        options = websocket
    else:
        raise TypeError(f"websocket={websocket!r} is none of True, False, 'auto' and a WebSocketOptions")
    need_wsproto()
    return options


@dataclass(frozen=True, slots=True)
class WebSocketURL:
    """Where a client connects to, and what it asks for there.

    Raises:
        ValueError: the URL is none of WebSocket's, or a port is given twice.
    """

    url: str
    port: int | None = None
    """That of the URL, or of its scheme, where this is `None`."""
    subprotocol: str | None = SUBPROTOCOL
    origin: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    ping_interval: float | None = None
    host: str = field(init=False)
    target: str = field(init=False)
    """Path and query."""
    is_secure: bool = field(init=False)

    def __post_init__(self) -> None:
        check_ping_interval(self.ping_interval)
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{self.url!r} is no URL: {error}") from None
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError(f"{self.url!r} is no URL of WebSocket: ws://HOST:PORT/PATH or wss://HOST:PORT/PATH")
        if parts.fragment or parts.username is not None:
            raise ValueError(f"{self.url!r} has a fragment or a user's name, which a URL of WebSocket may not have")
        if port is not None and self.port is not None:
            raise ValueError(f"{self.url!r} has a port, and so port={self.port} is one too many")
        path = parts.path or "/"
        set_field = object.__setattr__
        set_field(self, "host", parts.hostname)
        set_field(self, "port", self.port if port is None else port)
        set_field(self, "target", f"{path}?{parts.query}" if parts.query else path)
        set_field(self, "is_secure", parts.scheme == "wss")

    @property
    def number(self) -> int:
        """The port, whoever named it."""
        return PORTS[self.scheme] if self.port is None else self.port

    @property
    def scheme(self) -> str:
        """ "ws" or "wss"."""
        return "wss" if self.is_secure else "ws"

    @property
    def authority(self) -> str:
        """Host and port as the header `Host` has them (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.number == PORTS[self.scheme] else f"{host}:{self.number}"


def is_url(host: object) -> bool:
    """Whether a host is a URL."""
    return isinstance(host, str) and "://" in host


def check_ping_interval(interval: float | None) -> None:
    """See that it is none or above 0.

    Raises:
        ValueError: it is not.
    """
    if interval is not None and not interval > 0:
        raise ValueError(f"ping_interval={interval} is not above 0 s")


def need_wsproto() -> None:
    """See that what speaks WebSocket is installed.

    Raises:
        ImportError: it is not; the message says what to install.
    """
    if find_spec("wsproto") is None:
        raise ImportError("WebSocket needs wsproto: pip install 'packetcore-sockets[websocket]'", name="wsproto")
