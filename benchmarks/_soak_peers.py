"""What the peers of `soak.py` do to a server, on sockets that know nothing of packetcore but its bytes.

Each behaviour takes a `Peer`, does one conversation and raises `Wrong` where a byte came back
that should not have, or the server did not end what it has to end. An `OSError` means that the
connection broke: the caller knows whether the server was being restarted then.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from _soak_server import CONFIG, FLOOD

from packetcore import Packet, encode

PATIENCE = 15.0
"""Seconds without a byte after which a server is wrong."""

UDP_TRIES = 5
"""How often a datagram is sent until its echo counts as missing."""

UDP_WAIT = 0.5
"""Seconds for an echo to come."""


class Wrong(Exception):
    """The server did what it should not have done."""


@dataclass(frozen=True)
class Peer:
    """One conversation to be had."""

    tcp: int
    udp: int
    """The server's ports."""
    random: random.Random
    """Makes every choice of this conversation."""

    def connect(self) -> socket.socket:
        """A TCP connection."""
        return socket.create_connection(("127.0.0.1", self.tcp), PATIENCE)

    def frames(self, most: int, longest: int) -> bytes:
        """Some frames, rich in bytes that must be escaped."""
        alphabet = self.random.choice((bytes(range(256)), b"\xfd\xfe\x01\x02"))
        return b"".join(
            encode(
                Packet(
                    self.random.randrange(65536),
                    bytes(self.random.choices(alphabet, k=self.random.randrange(longest))),
                    type=self.random.randrange(FLOOD),
                )
            )
            for _ in range(self.random.randint(1, most))
        )


def echo(peer: Peer) -> None:
    """Frames cut anywhere, all of which come back; then both sides close."""
    with peer.connect() as sock:
        for _ in range(peer.random.randint(1, 5)):
            data = peer.frames(20, 300)
            at = 0
            while at < len(data):
                size = peer.random.choice((1, 7, 100, 5000))
                sock.sendall(data[at : at + size])
                at += size
            _expect(sock, data)
        sock.shutdown(socket.SHUT_WR)
        if rest := sock.recv(100):
            raise Wrong(f"after the last echo came {rest.hex()}")


def reset(peer: Peer) -> None:
    """Frames, and a reset in their midst."""
    with peer.connect() as sock:
        data = peer.frames(20, 300)
        sock.sendall(data[: peer.random.randint(0, len(data))])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def garbage(peer: Peer) -> None:
    """Bytes that are no packets, and a packet, which is served."""
    with peer.connect() as sock:
        noise = bytes(peer.random.choices(range(256), k=peer.random.randint(1, 20_000)))
        if peer.random.random() < 0.3:
            noise = b"\xfe\x00\x01\x00\x00\x01\xff\xff\xff\xff" + noise  # announces 4 GiB
        data = peer.frames(3, 100)
        sock.sendall(noise + b"\xfe\xfe" + data)
        _expect(sock, data)


def half_frame(peer: Peer) -> None:
    """A frame that is never finished: the server has to end it."""
    with peer.connect() as sock:
        frame = peer.frames(1, 300)
        sock.sendall(frame[: peer.random.randint(1, len(frame) - 1)])
        if peer.random.random() < 0.5:
            return  # end of file inside a frame
        _expect_end(sock, CONFIG.frame_timeout)


def silence(peer: Peer) -> None:
    """Nothing at all, or nothing more."""
    with peer.connect() as sock:
        if peer.random.random() < 0.5:
            data = peer.frames(1, 100)
            sock.sendall(data)
            _expect(sock, data)
        _expect_end(sock, CONFIG.idle_timeout)


def slow_reader(peer: Peer) -> None:
    """Sends for as long as the server takes it, reads late, and gets every byte."""
    with peer.connect() as sock:
        data = encode(Packet(1, peer.random.randbytes(60_000))) * peer.random.randint(1, 100)
        pending, echoed = memoryview(data), bytearray()
        read_from = time.monotonic() + peer.random.uniform(0, CONFIG.idle_timeout or 0) / 4
        sock.setblocking(False)
        while len(echoed) < len(data):
            may_read = time.monotonic() >= read_from
            readers, writers = [sock] if may_read else [], [sock] if pending else []
            wait = PATIENCE if may_read else max(0.0, read_from - time.monotonic())
            readable, writable, _ = select.select(readers, writers, [], wait)
            if may_read and not (readable or writable):
                raise Wrong(f"{len(data) - len(echoed)} bytes of an echo are missing")
            if writable:
                pending = pending[sock.send(pending) :]
            if readable:
                piece = sock.recv(peer.random.choice((100, 5000, 200_000)))
                if not piece:
                    raise ConnectionResetError("closed inside an echo")
                if not data.startswith(piece, len(echoed)):
                    raise Wrong(f"a wrong byte in {len(piece)} at {len(echoed)} of an echo")
                echoed += piece


def flood(peer: Peer) -> None:
    """Asks for more than it will read: the server has to give it up."""
    with peer.connect() as sock:
        sock.sendall(encode(Packet(0, type=FLOOD)))
        time.sleep(peer.random.uniform(0, 0.5))
        received = 0
        with suppress(ConnectionError):
            while piece := sock.recv(1 << 20):
                received += len(piece)


def crowd(peer: Peer) -> None:
    """Connections that come and go at once."""
    for _ in range(peer.random.randint(5, 20)):
        with peer.connect() as sock:
            if peer.random.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def datagrams(peer: Peer) -> None:
    """Packets in datagrams, among some that are no packets. What is lost is sent again."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", peer.udp))
        sock.settimeout(UDP_WAIT)
        sent = b""
        for number in range(peer.random.randint(1, 20)):
            frame = encode(Packet(number, peer.random.randbytes(peer.random.randrange(1000))))
            for _ in range(UDP_TRIES):
                if peer.random.random() < 0.3:
                    sock.send(peer.random.randbytes(peer.random.randrange(200)).replace(b"\xfe", b""))
                sock.send(frame)
                try:
                    while (reply := sock.recv(2000)) != frame:
                        if reply != sent:  # the echo of one that was sent twice
                            raise Wrong(f"the datagram {reply.hex()} came for {frame.hex()}")
                    break
                except TimeoutError:
                    pass
            else:
                raise TimeoutError(f"no echo of a datagram in {UDP_TRIES} tries")
            sent = frame


BEHAVIOURS: dict[Callable[[Peer], None], int] = {
    echo: 10,
    reset: 8,
    garbage: 6,
    half_frame: 3,
    silence: 1,
    slow_reader: 3,
    flood: 2,
    crowd: 2,
    datagrams: 6,
}
"""What a peer may do, and how often beside the others."""


def _expect(sock: socket.socket, data: bytes) -> None:
    at = 0
    while at < len(data):
        try:
            piece = sock.recv(len(data) - at)
        except TimeoutError:
            raise Wrong(f"{len(data) - at} bytes of an echo are missing") from None
        if not piece:
            raise ConnectionResetError("closed inside an echo")
        if not data.startswith(piece, at):
            raise Wrong(f"{piece[:40].hex()} came, not {data[at : at + 40].hex()}")
        at += len(piece)


def _expect_end(sock: socket.socket, within: float | None) -> None:
    begin = time.monotonic()
    with suppress(ConnectionError):
        try:
            if data := sock.recv(100):
                raise Wrong(f"unasked for came {data.hex()}")
        except TimeoutError:
            raise Wrong(f"a peer that was due after {within} s is connected after {PATIENCE} s") from None
    took = time.monotonic() - begin
    if within is not None and took < within / 2:
        raise ConnectionResetError(f"ended after {took:.2f} s, before {within} s")
