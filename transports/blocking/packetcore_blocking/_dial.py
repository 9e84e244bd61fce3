"""Connecting: each address of a name in turn, by a socket that never waits."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext

from packetcore import Address, Config, Endpoint, Inbox, Session
from packetcore_blocking._look_up import Found, look_up
from packetcore_blocking._loop import Loop, Timer, after
from packetcore_blocking._socket import Socket
from packetcore_blocking._stream import Stream
from packetcore_sockets import AddressInfo, Handshake, TLSRecords


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client connects to, and by which TLS; `connect` says more."""

    host: str
    port: int
    ssl: SSLContext | None = None
    server_hostname: str | None = None


class Dialling:
    """One try to connect. Hold the loop's lock to begin one.

    Args:
        done: called once, by who serves the loop, with the session or with what went wrong.
    """

    def __init__(
        self, loop: Loop, target: Target, endpoint: Endpoint, done: Callable[[Session | Exception], object]
    ) -> None:
        self._loop = loop
        self._target = target
        self._endpoint = endpoint
        self._done = done
        self._infos: list[AddressInfo] = []
        self._sock: socket.socket | None = None  # while it connects
        self._handshake: Handshake | None = None
        self._is_over = False
        self._timer: Timer | None = None
        loop.open.add(self.cancel)
        until = after(endpoint.config.connect_timeout)
        if until is not None:
            self._timer = loop.call_at(until, self._timed_out)
        look_up(loop, self._looked_up, target.host, target.port, socket.SOCK_STREAM)

    def cancel(self) -> None:
        """Give up and tell nobody; hold the lock. Idempotent."""
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

    def _drop(self) -> None:
        if self._sock is not None:
            self._loop.set_writer(self._sock, None)
            self._sock.close()
            self._sock = None

    def _secure(self, sock: socket.socket, peer: Address) -> None:
        target = self._target
        if target.ssl is None:
            self._succeed(sock, peer, None)
            return
        done = partial(self._secured, sock, peer)
        name = target.server_hostname or target.host
        try:
            self._handshake = Handshake(self._loop, sock, target.ssl, done, server_hostname=name)
        except Exception as error:
            self._fail(error)

    def _secured(self, sock: socket.socket, peer: Address, result: TLSRecords | OSError) -> None:
        if isinstance(result, OSError):
            self._fail(result)
        else:
            self._succeed(sock, peer, result)

    def _succeed(self, sock: socket.socket, peer: Address, tls: TLSRecords | None) -> None:
        self._end()
        self._done(Socket(self._loop, self._endpoint, sock, peer, tls).session)

    def _fail(self, error: Exception) -> None:
        if not self._is_over:
            self._end()
            self._done(error)

    def _timed_out(self) -> None:
        self.cancel()
        self._done(self._endpoint.connect_timed_out(self._target.host, self._target.port))

    def _end(self) -> None:
        self._is_over = True
        self._loop.open.discard(self.cancel)
        if self._timer is not None:
            self._timer.cancel()


def open_session(loop: Loop, target: Target, endpoint: Endpoint) -> Session:
    """Connect, and wait for it.

    Raises:
        OSError: see `connect`.
    """
    endpoint.runs_by(loop.post, any_thread=True)
    endpoint.on_ended = partial(log_end, endpoint)
    outcome: list[Session | Exception] = []
    changed = threading.Condition(loop.lock)

    def done(result: Session | Exception) -> None:
        outcome.append(result)
        loop.notify(changed)

    with loop:
        dialling = Dialling(loop, target, endpoint, done)
    try:
        loop.wait(changed, lambda: outcome or None)
    except BaseException:
        with loop:
            dialling.cancel()
            for opened in outcome:
                if isinstance(opened, Session):  # just when nobody waited any more
                    opened.abort()
        raise
    result = outcome[0] if outcome else ConnectionAbortedError("the loop was closed meanwhile")
    if isinstance(result, Exception):
        raise result
    return result


def log_end(endpoint: Endpoint, error: BaseException) -> None:
    """Tell that a handler of a client wants the program to end; no thread waits for that."""
    endpoint.log_exception(f"the handler of a client raised {type(error).__name__}: it has no session any more")


def open_stream(loop: Loop, target: Target, config: Config | None) -> Stream:
    """Connect as `open_session` does, to receive from a `Stream`."""
    inbox = Inbox()
    open_session(loop, target, Endpoint(inbox, config))
    return Stream(inbox, loop)
