"""What a client is told to connect to: a host and a port, or a URL of WebSocket."""

from __future__ import annotations

from functools import partial
from ssl import SSLContext, create_default_context
from typing import Any

from packetcore import Dial
from packetcore_sockets._attempts import ATTEMPT_DELAY
from packetcore_sockets._hosts import check_port
from packetcore_sockets._network import Network
from packetcore_sockets._websocket.options import WebSocketURL, is_url, need_wsproto


def dialler_to(network: Network, host: str, port: int | None, **options: Any) -> Dial:
    """What connects to a place, each time that it is called.

    Args:
        network: on which.
        host: a name or an address, or a URL.
        port: its port; not needed for a URL.
        options: see `Network.dialler`; for a URL see `websocket_dialler`.

    Raises:
        ImportError: `wsproto` is not installed.
        TypeError: an option is none, or there is no port.
        ValueError: the URL is none, or the port or an option is out of its range.
    """
    if port is not None:
        check_port(port)
    if is_url(host):
        return websocket_dialler(network, host, port, **options)
    if port is None:
        raise TypeError(f"host={host!r} needs a port: a URL of WebSocket alone may have none")
    return network.dialler(host, port, **options)


def websocket_dialler(
    network: Network,
    url: str,
    port: int | None = None,
    *,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    attempt_delay: float = ATTEMPT_DELAY,
    **request: Any,
) -> Dial:
    """What connects to a URL of WebSocket, each time that it is called.

    Args:
        network: on which.
        url: "ws://HOST:PORT/PATH", or over TLS "wss://HOST:PORT/PATH".
        port: where the URL has none; by default 80, over TLS 443.
        ssl: what to speak TLS by; by default the system's authorities are trusted.
        server_hostname: the name in the server's certificate, where it is not the URL's host.
        attempt_delay: see `connect`.
        request: `subprotocol`, by default "packetcore", `None` for none; `origin`, for servers that look at
            it; `headers`, more of them; `ping_interval`, see `WebSocketOptions`.

    Raises:
        ImportError: `wsproto` is not installed.
        TypeError: an option is none, or `ssl` is no `SSLContext`.
        ValueError: the URL, a header or the `ping_interval` is none, or there is TLS beside "ws://".
    """
    place = WebSocketURL(url, port, **request)
    need_wsproto()
    if not isinstance(ssl, SSLContext | bool | None):
        raise TypeError(f"WebSocket speaks TLS by an SSLContext on every adapter, not by {ssl!r}")
    if ssl and not place.is_secure:
        raise ValueError(f"{url!r} is without TLS: wss:// goes with ssl={ssl!r}")
    context = ssl if isinstance(ssl, SSLContext) else create_default_context() if place.is_secure else None
    from packetcore_sockets._websocket.records import client_records  # wsproto need not be installed

    new_records = partial(client_records, place, context and network.tls_over_memory(context), server_hostname)
    new_records()  # what cannot be asked for is told now
    return network.dialler_over(place.host, place.number, new_records, attempt_delay=attempt_delay)
