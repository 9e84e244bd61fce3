"""Connecting: the one thing here that blocks in the system, so on a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from time import monotonic

from packetcore import Address, Config, Endpoint, Inbox, Session
from packetcore_blocking._loop import Loop, Timer, after
from packetcore_blocking._socket import Socket
from packetcore_blocking._stream import Stream
from packetcore_sockets import Handshake, TLSRecords


@dataclass(frozen=True, slots=True)
class Target:
    """Where a client connects to, and by which TLS; `connect` says more."""

    host: str
    port: int
    ssl: SSLContext | None = None
    server_hostname: str | None = None

    def dial(self, until: float | None) -> tuple[socket.socket, Address]:
        """Give a connected socket and its peer's address; a time limit holds for each step."""
        # Only here a socket blocks: nothing is sent yet that a timeout could tear.
        sock = socket.create_connection((self.host, self.port), _left(until))
        try:
            return sock, sock.getpeername()
        except BaseException:
            sock.close()
            raise


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
        self._sock: socket.socket | None = None
        self._handshake: Handshake | None = None
        self._is_over = False
        self._timer: Timer | None = None
        loop.open.add(self.cancel)
        until = after(endpoint.config.connect_timeout)
        if until is not None:  # which the resolver does not know
            self._timer = loop.call_at(until, self._timed_out)
        thread = threading.Thread(target=self._run, args=(until,), name="packetcore-dial", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there are too many
            loop.call_at(monotonic(), partial(self._fail, error))

    def cancel(self) -> None:
        """Give up and tell nobody; hold the lock. Its thread may last as long as the system
        takes to say no, at most until the time limit, or the resolver's. Idempotent."""
        self._end()
        if self._handshake is not None:
            self._handshake.cancel()
        if self._sock is not None:
            self._sock.close()

    def _run(self, until: float | None) -> None:
        try:
            sock, peer = self._target.dial(until)
        except Exception as error:
            with self._loop:
                self._loop.call_at(monotonic(), partial(self._fail, error))
            return
        with self._loop:
            if self._is_over:
                sock.close()
            else:
                self._sock = sock
                self._loop.call_at(monotonic(), partial(self._secure, sock, peer))

    def _secure(self, sock: socket.socket, peer: Address) -> None:
        if self._is_over:
            return
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
        self._sock = None
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


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.001, until - monotonic())
