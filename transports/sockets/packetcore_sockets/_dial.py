"""Connecting: to the first address of a name that answers, by sockets that never wait, then TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import Any

from packetcore import Address, Endpoint, Handle, Session
from packetcore_sockets._attempts import ATTEMPT_DELAY, Attempts, checked_delay
from packetcore_sockets._handshake import Handshake
from packetcore_sockets._look_up import Found
from packetcore_sockets._loop import Loop
from packetcore_sockets._race import Connected, Connecting, Race, discard
from packetcore_sockets._records import Records
from packetcore_sockets._tls import TLSRecords


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client connects to, and by which TLS; `connect` says more.

    Raises:
        ValueError: the `attempt_delay` is not within what RFC 8305 recommends.
    """

    host: str
    port: int
    ssl: SSLContext | None = None
    server_hostname: str | None = None
    attempt_delay: float = ATTEMPT_DELAY
    """Seconds after which the next address of the host is tried beside the one before."""
    new_records: Callable[[], Records] | None = None
    """Makes what is spoken in the place of TLS."""

    def __post_init__(self) -> None:
        checked_delay(self.attempt_delay)


class Dial:
    """One try to connect, within `connect_timeout`.

    Args:
        loop: watches the sockets.
        endpoint: whose session it is to be.
        target: where to.
        look_up: see `Network.look_up`.
        begin: begins the session of a connected socket.
        done: called once, but not before this returns, with the session or with what went wrong.
        new_socket: see `Network`.
    """

    def __init__(
        self,
        loop: Loop,
        endpoint: Endpoint[Any],
        target: Target,
        look_up: Callable[[Callable[[Found], object], str, int, socket.SocketKind], object],
        begin: Callable[[Endpoint[Any], socket.socket, Address, Records | None], Session[Any]],
        done: Callable[[Session[Any] | Exception], object],
        new_socket: Callable[[int, int, int], socket.socket] | None = None,
    ) -> None:
        options: Any = {} if new_socket is None else {"new_socket": new_socket}
        self._connecting = partial(Connecting, loop, **options)
        self._loop = loop
        self._endpoint = endpoint
        self._target = target
        self._begin = begin
        self._done = done
        self._attempts: Attempts | None = None  # from the look-up on
        self._race: Race[Connected] | None = None  # while it connects
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
        if self._race is not None:
            self._race.cancel()
            self._race = None

    def _looked_up(self, found: Found) -> None:
        if isinstance(found, Exception):
            self._fail(found)
        elif not self._is_over:
            self._attempts = attempts = Attempts(found, self._target.attempt_delay)
            done = partial(self._connected, attempts)
            self._race = Race(self._loop, attempts, self._connecting, done, discard)

    def _connected(self, attempts: Attempts, result: Connected | Exception | None) -> None:
        self._race = None  # which knows this
        if isinstance(result, tuple):
            self._secure(*result)
        else:
            self._fail(result or attempts.error(self._target.host, self._target.port))

    def _secure(self, sock: socket.socket, peer: Address) -> None:
        try:
            if (records := self._new_records()) is not None:
                done = partial(self._secured, sock, peer)
                self._handshake = Handshake(self._loop, sock, records, done)
        except Exception as error:
            sock.close()
            self._fail(error)
        else:
            if records is None:
                self._secured(sock, peer, None)

    def _new_records(self) -> Records | None:
        target = self._target
        if target.new_records is not None:
            return target.new_records()
        if target.ssl is None:
            return None
        return TLSRecords(target.ssl, server_hostname=target.server_hostname or target.host)

    def _secured(self, sock: socket.socket, peer: Address, result: Records | OSError | None) -> None:
        if isinstance(result, OSError):
            self._fail(result)
        else:
            self._end()
            self._done(self._begin(self._endpoint, sock, peer, result))

    def _time_out(self) -> None:
        self.cancel()
        error = self._endpoint.connect_timed_out(self._target.host, self._target.port)
        self._done(error if self._attempts is None else self._attempts.timed_out(error))

    def _fail(self, error: Exception) -> None:
        if not self._is_over:
            self._end()
            self._done(error)

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
