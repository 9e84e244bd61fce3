"""Connecting: each address of a name in turn, by a socket that never waits, then TLS."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import Any

from packetcore import Address, Endpoint, Handle, Session
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._look_up import Found
from packetcore_sockets._loop import Loop
from packetcore_sockets._open import AddressInfo
from packetcore_sockets._tls import TLSRecords


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client connects to, and by which TLS; `connect` says more."""

    host: str
    port: int
    ssl: SSLContext | None = None
    server_hostname: str | None = None


class Dial:
    """One try to connect, within `connect_timeout`.

    Args:
        loop: watches the sockets.
        endpoint: whose session it is to be.
        target: where to.
        look_up: see `Network.look_up`.
        begin: begins the session of a connected socket.
        done: called once, but not before this returns, with the session or with what went wrong.
    """

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint[Any],
        target: Target,
        look_up: Callable[[Callable[[Found], object], str, int, socket.SocketKind], object],
        begin: Callable[[Endpoint[Any], socket.socket, Address, TLSRecords | None], Session[Any]],
        done: Callable[[Session[Any] | Exception], object],
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._target = target
        self._begin = begin
        self._done = done
        self._infos: list[AddressInfo] = []
        self._sock: socket.socket | None = None  # while it connects
        self._handshake: Handshake | None = None
        self._is_over = False
        limit = endpoint.config.connect_timeout
        self._timer: Handle | None = None if limit is None else loop.call_at(loop.time() + limit, self._time_out)
        look_up(self._looked_up, target.host, target.port, socket.SOCK_STREAM)

    def cancel(self) -> None:
        """Give up and tell nobody. Idempotent."""
        self._end()
        if self._handshake is not None:
            self._handshake.cancel()
        self._drop()

    def _looked_up(self, found: Found) -> None:
        if isinstance(found, Exception):
            self._fail(found)
        else:
            self._infos = [*found]
            self._connect(OSError("the host has no address"))

    def _connect(self, refusal: OSError) -> None:
        """Try the next address; if there is none, say what was wrong with the last."""
        if self._is_over:
            return
        while self._infos:
            family, kind, protocol, _, peer = self._infos.pop(0)
            try:
                self._sock = socket.socket(family, kind, protocol)
                self._sock.setblocking(False)
                with suppress(BlockingIOError):
                    self._sock.connect(peer)
            except OSError as error:
                self._drop()
                refusal = error
            else:
                self._loop.set_writer(self._sock, partial(self._connected, self._sock, peer))
                return
        self._fail(refusal)

    def _connected(self, sock: socket.socket, peer: Address) -> None:
        if sock is not self._sock:  # given up in the same turn
            return
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._drop()
            self._connect(OSError(number, os.strerror(number)))
        else:
            self._loop.set_writer(sock, None)
            self._sock = None
            self._secure(sock, peer)

    def _secure(self, sock: socket.socket, peer: Address) -> None:
        target = self._target
        if target.ssl is None:
            self._secured(sock, peer, None)
            return
        name = target.server_hostname or target.host
        done = partial(self._secured, sock, peer)
        try:
            self._handshake = Handshake(self._loop, sock, target.ssl, done, server_hostname=name)
        except Exception as error:
            self._fail(error)

    def _secured(self, sock: socket.socket, peer: Address, result: TLSRecords | OSError | None) -> None:
        if isinstance(result, OSError):
            self._fail(result)
        else:
            self._end()
            self._done(self._begin(self._endpoint, sock, peer, result))

    def _drop(self) -> None:
        if self._sock is not None:
            self._loop.set_writer(self._sock, None)
            self._sock.close()
            self._sock = None

    def _time_out(self) -> None:
        self.cancel()
        self._done(self._endpoint.connect_timed_out(self._target.host, self._target.port))

    def _fail(self, error: Exception) -> None:
        if not self._is_over:
            self._end()
            self._done(error)

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
