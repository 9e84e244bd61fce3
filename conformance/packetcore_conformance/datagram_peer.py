"""A raw UDP socket that speaks to an adapter: the very datagrams, empty and broken ones too."""

from __future__ import annotations

import socket

from packetcore import Address
from packetcore_conformance.peer import DEADLINE


class DatagramPeer:
    """A bound UDP socket. Every wait has a deadline.

    Args:
        server: the one address to speak with; `None` for any, with `send_to` and `receive_from`.
        host: the address to bind to; the loopback address of the server's family if `None`.
        port: 0 takes a free one.
    """

    def __init__(self, server: Address | None = None, host: str | None = None, port: int = 0) -> None:
        if host is None:
            host = "::1" if server is not None and ":" in server[0] else "127.0.0.1"
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.sock.settimeout(DEADLINE)
            self.sock.bind((host, port))
            self.address: Address = self.sock.getsockname()
            if server is not None:
                self.sock.connect(server)
        except BaseException:
            self.sock.close()
            raise

    def send(self, *datagrams: bytes) -> None:
        """Send each as a datagram of its own to the server."""
        for data in datagrams:
            self.sock.send(data)

    def receive(self) -> bytes:
        """Receive one datagram."""
        return self.sock.recv(1 << 16)

    def receive_many(self, count: int) -> list[bytes]:
        """Receive as many datagrams, in the order in which they come."""
        return [self.receive() for _ in range(count)]

    def send_to(self, data: bytes, address: Address) -> None:
        """Send one datagram to an address."""
        self.sock.sendto(data, address)

    def receive_from(self) -> tuple[bytes, Address]:
        """Receive one datagram and where it came from."""
        data, address = self.sock.recvfrom(1 << 16)
        return data, address

    def close(self) -> None:
        """Give the port back: what is sent to it from now on is answered as unreachable."""
        self.sock.close()
