"""One UDP socket, which may be one of several of an endpoint: what is ready becomes the endpoint's
inputs, and its datagrams go out."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from errno import EAGAIN
from typing import Any

from packetcore import Address, Carrier, DatagramEndpoint, DatagramHost, Endpoint, Handle
from packetcore_sockets._loop import Loop

READ_AT_ONCE = 64
"""The most datagrams that one turn reads from one socket, so that the others get theirs."""

_ERROR_QUEUE: int = getattr(socket, "MSG_ERRQUEUE", 0)
"""Where Linux keeps the errors of an unconnected socket; 0 on other systems."""

_EXTENDED_ERROR = struct.Struct("@IB")
"""The beginning of Linux's `sock_extended_err`: an error number and its origin."""

_BY_THIS_HOST = 1
"""The origin of errors that `sendto` has raised already."""


class DatagramSocket(DatagramHost):
    """The `packetcore.DatagramHost` of one socket, which it owns.

    Args:
        loop: watches the socket.
        endpoint: a `DatagramEndpoint`; this becomes a host of it. The timer is set on the first.
        sock: bound or connected.
        is_connected: whether `sock` is.
    """

    def __init__(self, loop: Loop, endpoint: Endpoint[Any], sock: socket.socket, is_connected: bool = False) -> None:
        if not isinstance(endpoint, DatagramEndpoint):
            raise TypeError(f"a datagram socket needs a DatagramEndpoint, not {endpoint.__class__.__name__}")
        sock.setblocking(False)
        self._loop = loop
        self._endpoint = endpoint
        self._sock = sock
        self._timer: Handle | None = None
        self._send: Callable[[bytes, Address], object] = _send_connected(sock) if is_connected else sock.sendto
        self._receive = sock.recvfrom
        self._may_have_errors = False
        self._size = endpoint.config.max_datagram + 1  # one more shows that a datagram was cut
        endpoint.attach(self)
        loop.set_reader(sock, self._readable)

    def set_timer(self, at: float | None) -> None:
        """See `packetcore.DatagramHost`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._tick)

    def wake(self) -> None:
        """See `packetcore.DatagramHost`."""
        self._loop.call_soon(lambda: self._endpoint.flush(self._loop.time()))

    def _tick(self) -> None:
        self._timer = None
        self._endpoint.tick(self._loop.time())

    def _readable(self) -> None:
        if self._sock.fileno() < 0:  # closed in the same turn
            return
        if self._read() and self._sock.fileno() >= 0:  # some loops stop watching a socket that has an error
            self._loop.set_reader(self._sock, None)
            self._loop.set_reader(self._sock, self._readable)

    def _read(self) -> bool:
        """Hand over what is there, at most `READ_AT_ONCE` datagrams. Returns whether there were
        errors."""
        receive, size = self._receive, self._size
        datagrams: list[tuple[bytes, Address]] = []
        failed: OSError | None = None
        try:
            # All of them first: to read and to handle in turns takes the processor half as long again.
            for _ in range(READ_AT_ONCE):
                datagrams.append(receive(size))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            failed = error
        now, received = self._loop.time(), self._endpoint.received
        for data, addr in datagrams:
            received(data, addr, now, self)
        if failed is None and datagrams and not self._may_have_errors:
            return False
        self._may_have_errors = False
        has_errors = self._read_errors(now)
        if failed is not None and not has_errors:
            self._endpoint.error(failed, None, now)
        return has_errors or failed is not None

    def write_to(self, data: bytes, addr: Address) -> None:
        """See `packetcore.DatagramHost`."""
        try:
            self._send(data, addr)
        except OSError as error:
            if error.errno == EAGAIN or not _ERROR_QUEUE:
                raise
            self._may_have_errors = True  # and what comes in next will not say so
            # Linux may have raised what is wrong with an earlier datagram, of which it has
            # kept where it went; `read` will find it. If it is this one, it raises again.
            self._send(data, addr)

    def close(self) -> None:
        """See `packetcore.DatagramHost`."""
        if self._sock.fileno() >= 0:
            self._loop.set_reader(self._sock, None)
            self._sock.close()

    def carrier(self) -> Carrier:
        """See `packetcore.DatagramHost`."""
        if self._sock.fileno() < 0:
            return Carrier("udp")
        return Carrier("udp", self._sock.getsockname(), int(self._sock.family))

    def _read_errors(self, now: float) -> bool:
        found = False
        for _ in range(READ_AT_ONCE if _ERROR_QUEUE else 0):
            try:
                _, ancillary, _, addr = self._sock.recvmsg(1, 512, _ERROR_QUEUE)
            except OSError:  # no more, or a handler closed the socket
                break
            found = True
            for _, _, extended in ancillary:
                number, origin = _EXTENDED_ERROR.unpack_from(extended)
                if origin != _BY_THIS_HOST:
                    self._endpoint.error(OSError(number, os.strerror(number)), addr, now)
        return found


def _send_connected(sock: socket.socket) -> Callable[[bytes, Address], object]:
    # Not sendto: some systems refuse an address on a connected socket, even the right one.
    return lambda data, addr: sock.send(data)
