"""Attempts to connect, run side by side: the first that succeeds wins."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from packetcore import Address, Handle
from packetcore_sockets._attempts import Attempts
from packetcore_sockets._loop import Loop
from packetcore_sockets._open import AddressInfo

T = TypeVar("T")

Attempt = Callable[[AddressInfo, Callable[[T | Exception], object]], Handle]
"""Begins to connect to an address, and calls back once unless it is cancelled, but not before it has
returned; or raises `OSError`."""


Connected = tuple[socket.socket, Address]
"""A socket that is connected, and to what."""


def discard(connected: Connected) -> None:
    """Close a socket that nobody wants."""
    connected[0].close()


class Race(Generic[T]):
    """Connects to the first address of a host that answers; see `Attempts`.

    Args:
        loop: tells the time, and when the next attempt is due.
        attempts: which, and when.
        attempt: begins one.
        done: called once, with what the winner gave, or with the exception of an attempt that is no
            `OSError`; or with `None` when all have failed. Not before this returns, unless none can
            even begin.
        discard: closes what an attempt gives after another has won.
    """

    def __init__(
        self,
        loop: Loop,
        attempts: Attempts,
        attempt: Attempt[T],
        done: Callable[[T | Exception | None], object],
        discard: Callable[[T], object],
    ) -> None:
        self._loop = loop
        self._attempts = attempts
        self._attempt = attempt
        self._done = done
        self._discard = discard
        self._running: dict[AddressInfo, Handle] = {}
        self._timer: Handle | None = None
        self._is_over = False
        self._go_on()

    def cancel(self) -> None:
        """End all attempts and tell nobody. Idempotent."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._running:
            self._running.popitem()[1].cancel()

    def _go_on(self) -> None:
        """Begin what is due."""
        if self._is_over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        attempts = self._attempts
        while (info := attempts.next(self._loop.time())) is not None:
            try:
                self._running[info] = self._attempt(info, partial(self._answered, info))
            except OSError as error:
                attempts.failed(info, error)
            except Exception as error:
                self._end(error)
                return
        if attempts.are_over:
            self._end(None)
        elif attempts.due is not None:
            self._timer = self._loop.call_at(attempts.due, self._go_on)

    def _answered(self, info: AddressInfo, result: T | Exception) -> None:
        if self._is_over:
            if not isinstance(result, Exception):
                self._discard(result)
            return
        self._running.pop(info, None)
        if isinstance(result, OSError):
            self._attempts.failed(info, result)
            self._go_on()
        else:
            self._end(result)

    def _end(self, result: T | Exception | None) -> None:
        self.cancel()
        self._done(result)


class Connecting:
    """A socket that connects to one address: an `Attempt`.

    Args:
        loop: watches it.
        info: where to.
        done: called once, but not before this returns, with the connected socket and the address, or
            with what went wrong.
        new_socket: see `Network`.

    Raises:
        OSError: it cannot even begin to.
    """

    def __init__(
        self,
        loop: Loop,
        info: AddressInfo,
        done: Callable[[Connected | Exception], object],
        new_socket: Callable[[int, int, int], socket.socket] | None = None,
    ) -> None:
        self._loop = loop
        self._done = done
        self._address = info[4]
        self._sock: socket.socket | None = None
        family, kind, protocol, *_ = info
        sock = (new_socket or socket.socket)(family, kind, protocol)
        try:
            sock.setblocking(False)
            with suppress(BlockingIOError):
                sock.connect(self._address)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        loop.set_writer(sock, self._writable)

    def cancel(self) -> None:
        """Close the socket and tell nobody. Idempotent."""
        if self._sock is not None:
            self._loop.set_writer(self._sock, None)
            self._sock.close()
            self._sock = None

    def _writable(self) -> None:
        sock = self._sock
        if sock is None:  # given up in the same turn
            return
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.cancel()
            self._done(OSError(number, os.strerror(number)))
        else:
            self._loop.set_writer(sock, None)
            self._sock = None
            self._done((sock, self._address))
