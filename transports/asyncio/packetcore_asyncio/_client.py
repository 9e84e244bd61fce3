"""Connecting over TCP."""

from __future__ import annotations

import asyncio
import logging
import ssl as _ssl
from typing import overload

from packetcore import Config, Handler, Inbox, Session, StreamEndpoint
from packetcore_asyncio._socket import SocketProtocol
from packetcore_asyncio._stream import Stream

_logger = logging.getLogger("packetcore_asyncio")


@overload
async def connect(
    host: str,
    port: int,
    handler: None = None,
    *,
    config: Config | None = None,
    ssl: _ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> Stream: ...


@overload
async def connect(
    host: str,
    port: int,
    handler: Handler,
    *,
    config: Config | None = None,
    ssl: _ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> Session: ...


async def connect(
    host: str,
    port: int,
    handler: Handler | None = None,
    *,
    config: Config | None = None,
    ssl: _ssl.SSLContext | None = None,
    server_hostname: str | None = None,
) -> Stream | Session:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        handler: what hears of packets; with none you get a `Stream` to receive from.
        config: limits and timeouts.
        ssl: speak TLS with this context.
        server_hostname: the name in the server's certificate, where it is not `host`.

    Raises:
        OSError: it was refused or not reached; `TimeoutError` after `connect_timeout`;
            `ssl.SSLError` where TLS failed.
    """
    loop = asyncio.get_running_loop()
    inbox = Inbox()
    endpoint = StreamEndpoint(inbox if handler is None else handler, config, log_exception=_logger.exception)
    timeout = endpoint.config.connect_timeout
    connecting = loop.create_connection(
        lambda: SocketProtocol(endpoint, loop), host, port, ssl=ssl, server_hostname=server_hostname
    )
    try:
        _, protocol = await asyncio.wait_for(connecting, timeout)
    except asyncio.TimeoutError:
        raise TimeoutError(f"connecting to {host} port {port} took longer than connect_timeout={timeout} s") from None
    return Stream(inbox, loop) if handler is None else protocol.session
