"""Echo servers as one writes them without packetcore, with the means of each runtime.

`readuntil` and `greenlets` speak packetcore's format: the runtime or `split` finds the
frames, the format is taken apart and put together by hand. `int32_strings` speaks Twisted's own:
a length of four bytes and the payload, nothing escaped, nothing to check but the length.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from _bare_servers import BACKLOG, CHUNK, in_thread, serve_greenlets, serve_protocols

FLAG = b"\xfe"
HEADER = struct.Struct(">HBHI")
LIMIT = 2 * ((1 << 20) + HEADER.size)
"""The longest frame that a server may hold: the same bound as packetcore's default."""


def reply_to(body: bytes) -> bytes:
    """Take a frame apart and put together the one that says the same.

    Raises:
        ValueError: the frame is not sound.
    """
    if b"\xfd" in body:
        body = body.replace(b"\xfd\x01", FLAG).replace(b"\xfd\x02", b"\xfd")
    id, type, count, length = HEADER.unpack_from(body)
    payload = body[HEADER.size :]
    if len(payload) != length:
        raise ValueError(f"length field {length} disagrees with a payload of {len(payload)} bytes")
    reply = HEADER.pack(id, type, count, length) + payload
    if b"\xfd" in reply or FLAG in reply:
        reply = reply.replace(b"\xfd", b"\xfd\x02").replace(FLAG, b"\xfd\x01")
    return FLAG + reply + FLAG


async def _echo_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    _, high_water = transport.get_write_buffer_limits()
    try:
        while True:
            body = (await reader.readuntil(FLAG))[:-1]
            if body:  # or this was the flag that opens a frame
                writer.write(reply_to(body))
                if transport.get_write_buffer_size() > high_water:
                    await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the peer has finished
    finally:
        writer.close()


def readuntil(new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> int:
    """asyncio's streams."""

    def run(port: Future[int]) -> None:
        loop = new_event_loop()
        starting = asyncio.start_server(_echo_reader, "127.0.0.1", 0, limit=LIMIT, backlog=BACKLOG)
        port.set_result(loop.run_until_complete(starting).sockets[0].getsockname()[1])
        loop.run_forever()

    return in_thread(run)


def _echo_socket(sock: socket.socket, peer: object) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held = b""
    try:
        while data := sock.recv(CHUNK):
            *bodies, held = (held + data).split(FLAG)
            if replies := [reply_to(body) for body in bodies if body]:
                sock.sendall(b"".join(replies))
            if len(held) > LIMIT:
                raise ValueError(f"a frame of more than {LIMIT} bytes")
    except ConnectionError:
        pass  # the peer has gone


def greenlets() -> int:
    """A greenlet for each connection; the replies to one chunk leave in one write."""
    return serve_greenlets(_echo_socket)


def int32_strings() -> int:
    """Twisted's `Int32StringReceiver`."""
    from twisted.protocols.basic import Int32StringReceiver

    class Echo(Int32StringReceiver):
        MAX_LENGTH = LIMIT
        transport: Any

        def connectionMade(self) -> None:  # noqa: N802
            self.transport.setTcpNoDelay(True)

        def stringReceived(self, string: bytes) -> None:  # noqa: N802
            untyped: Any = self
            untyped.sendString(string)

    return serve_protocols(Echo)
