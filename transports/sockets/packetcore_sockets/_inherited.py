"""Sockets that somebody else opened, to serve on: a parent process, a service manager, the application."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from packetcore_sockets._open import keep_errors

Given = socket.socket | Sequence[socket.socket]
"""What `serve` takes as `socket`: one, or several of one server."""

_UNIX = getattr(socket, "AF_UNIX", None)
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_OF_HOST = ("127.0.0.1", 0)
"""What `host` and `port` are where nobody gave them."""


def given_listeners(given: Given, host: object, port: object) -> list[socket.socket]:
    """Sockets that a server of streams is given, once all of them were found to be what they should.

    Args:
        given: one, or several; they are made non-blocking.
        host: what `serve` was given beside them, and `port`.

    Raises:
        TypeError: something is no socket, or host or port are given too.
        ValueError: there is none, one is given twice, is closed, is no stream socket of IP or Unix, or
            does not listen. All sockets stay the caller's then.
    """
    sockets = _given(given, socket.SOCK_STREAM, host, port)
    for sock in sockets:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError(f"socket={sock!r} does not listen: call its listen() first")
    for sock in sockets:
        sock.setblocking(False)
    return sockets


def given_datagram_sockets(given: Given, host: object, port: object, *, broadcast: bool) -> list[socket.socket]:
    """The same of UDP: each must be bound.

    Args:
        given: see `given_listeners`, and so `host` and `port`.
        broadcast: let them send to broadcast addresses too.
    """
    sockets = _given(given, socket.SOCK_DGRAM, host, port)
    for sock in sockets:
        if not sock.getsockname()[1]:
            raise ValueError(f"socket={sock!r} is bound to no port: call its bind() first")
    for sock in sockets:
        sock.setblocking(False)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        keep_errors(sock)
    return sockets


def _given(given: Given, kind: socket.SocketKind, host: object, port: object) -> list[socket.socket]:
    if (host, port) != _OF_HOST:
        raise TypeError(f"socket= takes the place of host and port: give no host={host!r}, port={port!r}")
    sockets = [given] if isinstance(given, socket.socket) else [*given]
    if not sockets:
        raise ValueError(f"socket={given!r} holds no socket")
    families = {*_FAMILIES, *([_UNIX] if _UNIX is not None and kind is socket.SOCK_STREAM else [])}
    for sock in sockets:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"socket={sock!r} is no socket.socket")
        if sock.fileno() < 0:
            raise ValueError(f"socket={sock!r} is closed")
        if sock.type != kind or sock.family not in families:
            wanted = "stream socket (TCP or Unix)" if kind is socket.SOCK_STREAM else "datagram socket of UDP"
            raise ValueError(f"socket={sock!r} is no {wanted}")
    if len({sock.fileno() for sock in sockets}) < len(sockets):
        raise ValueError(f"socket={sockets!r} holds one socket twice")
    return sockets
