"""A raw socket that speaks to an adapter: the very bytes, chunks, resets and half-closes."""

from __future__ import annotations

import socket
import ssl
import struct
from abc import ABC, abstractmethod

from packetcore import Address

DEADLINE = 10.0
"""Seconds that a case waits for anything before it fails."""


class ByteStream(ABC):
    """What a raw peer reads from."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Wait for bytes, and give at most `size` of them; none where the stream has ended."""

    def receive(self, size: int) -> bytes:
        """Receive exactly `size` bytes.

        Raises:
            EOFError: the stream ended before.
        """
        data = bytearray()
        while len(data) < size:
            chunk = self.read(size - len(data))
            if not chunk:
                raise EOFError(f"the stream ended after {len(data)} of {size} bytes: {bytes(data[-64:]).hex()}")
            data += chunk
        return bytes(data)

    def receive_rest(self) -> bytes:
        """Receive until the stream ends in good order."""
        data = bytearray()
        while chunk := self.read(1 << 20):
            data += chunk
        return bytes(data)

    def wait_closed(self) -> None:
        """Read on until the other side is gone, in good order or not."""
        try:
            self.receive_rest()
        except (ConnectionError, ssl.SSLError):
            return


class Peer(ByteStream):
    """A connected TCP socket. Every wait has a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(DEADLINE)

    @classmethod
    def connect(
        cls,
        address: Address,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        receive_buffer: int | None = None,
    ) -> Peer:
        """Connect to a server, over TLS if `tls` is given.

        Args:
            address: where the server listens.
            tls: what to speak TLS with.
            server_hostname: the name to ask for and to expect.
            receive_buffer: bytes that the system keeps for a peer that does not read.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(DEADLINE)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(address)
            if tls is not None:
                sock = tls.wrap_socket(sock, server_hostname=server_hostname)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    @classmethod
    def connect_unix(cls, path: str) -> Peer:
        """Connect to a server on a Unix socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.sock.sendall(data)

    def read(self, size: int) -> bytes:
        """See `ByteStream`."""
        return self.sock.recv(min(1 << 20, size))

    def finish(self) -> None:
        """Send no more; go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset, as a device that lost power seems to do."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close in good order. Idempotent."""
        self.sock.close()
