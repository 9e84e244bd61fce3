"""A proxy between clients and a server that passes everything on, shows what that is, and misbehaves when told."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from packetcore import Address
from packetcore.framings import Framing
from packetcore_blocking import BlockingDriver
from packetcore_sockets import BACKLOG, AddressInfo, Listener, address_of, address_text
from packetcore_tap._connection import Ending, Line, Passed, TapConnection, TapObserver
from packetcore_tap._datagram_proxy import DatagramFront
from packetcore_tap._direction import Both, Direction, directions_of
from packetcore_tap._fault import Fault
from packetcore_tap._impairments import Impairments
from packetcore_tap._recording import Recording
from packetcore_tap._sight import Seen, Sight
from packetcore_tap._stream_proxy import StreamConnection

KEPT = 10_000
"""Packets that `Tap.seen` holds unless told otherwise."""

NONE = Impairments()


class Tap:
    """A proxy to a server, on a thread of its own: to be used from programs and tests on any runtime.

    It listens once it is made, and until `close` or the end of a `with` block. Everything may be called from any
    thread, and takes effect before it returns.

    Args:
        target: where the server is: host and port, as a server's `address`. A name is looked up once.
        listen: where to listen; port 0 takes a free one.
        to_server: what is done to what clients send.
        to_client: what is done to what the server sends.
        faults: what happens to each connection at a certain point.
        seed: the same seed does the same to the same connections.
        udp: whether it is UDP.
        framing: of what is passed on, to show it; `None` for that of `packetcore.Packet`.
        max_payload: the longest payload or frame that is shown, in bytes.
        observer: is told what happens.
        recording: where to write what is passed on, as it is; who makes it closes it. That of a server's `Recorder`
            may be one.
        keep: how many of the last packets `seen` holds.

    Raises:
        OSError: it cannot listen there, or the target's name is not known; the message says which.
        ValueError: `max_payload` is out of its range.
    """

    def __init__(
        self,
        target: Address,
        listen: Address = ("127.0.0.1", 0),
        *,
        to_server: Impairments = NONE,
        to_client: Impairments = NONE,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        udp: bool = False,
        framing: Framing | None = None,
        max_payload: int = 1 << 20,
        observer: TapObserver | None = None,
        recording: Recording | None = None,
        keep: int = KEPT,
    ) -> None:
        Sight(framing, max_payload, is_stream=not udp)  # which it raises for
        self._kind = kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        infos = _look_up(target, kind)
        self._sock = _bound(_look_up(listen, kind)[0])
        self._family = self._sock.family
        self.address = address_of(self._sock)
        """Where it listens: host and port, and what else an IPv6 address has."""
        self._driver = BlockingDriver()
        self._loop = loop = self._driver.runtime
        self._front: Listener | DatagramFront | None = None
        self._line = Line(
            loop,
            infos,
            {"to_server": to_server, "to_client": to_client},
            tuple(faults),
            seed,
            framing,
            max_payload,
            observer or TapObserver(),
            recording,
            deque(maxlen=keep),
            loop.new_condition(),
        )
        try:
            self.accept()
        except OSError:
            self.close()
            raise

    @property
    def to_server(self) -> Impairments:
        """What is done to what clients send; set it, and what comes from then on is done that to."""
        return self._line.impairments["to_server"]

    @to_server.setter
    def to_server(self, impairments: Impairments) -> None:
        self._impair("to_server", impairments)

    @property
    def to_client(self) -> Impairments:
        """The same for what the server sends."""
        return self._line.impairments["to_client"]

    @to_client.setter
    def to_client(self, impairments: Impairments) -> None:
        self._impair("to_client", impairments)

    @property
    def connections(self) -> list[TapConnection]:
        """Those that are open, the oldest first."""
        with self._loop.lock:
            return [*self._line.connections.values()]

    @property
    def opened(self) -> int:
        """How many there have been."""
        with self._loop.lock:
            return self._line.opened

    @property
    def seen(self) -> list[Seen]:
        """The last packets that were passed on, and what was malformed, in the order in which they were."""
        with self._loop.lock:
            return [*self._line.seen]

    def passed(self, direction: Direction) -> Passed:
        """What has been passed on in a direction until now, of all connections."""
        with self._loop.lock:  # which waits for the turn in which what a peer has received was sent
            return replace(self._line.totals[direction])

    def wait_for(self, predicate: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until something is true that depends on what this tap has passed on. Not for an observer.

        Args:
            predicate: called with the tap's lock held, after each change.
            timeout: seconds.

        Raises:
            TimeoutError: it never came true.
        """
        if self._line.changed.wait_for(lambda: predicate() or None, timeout) is None:
            raise TimeoutError(f"it did not come true within {timeout:g} s")

    def stall(self, direction: Both = "both") -> None:
        """Let nothing arrive until `resume`, on the connections that there are and on those to come."""
        with self._loop.lock:
            self._line.stalled.update(directions_of(direction))
            for connection in self.connections:
                connection.stall(direction)

    def resume(self, direction: Both = "both") -> None:
        """End stalls. A connection that was a black hole stays one, but those to come are not."""
        with self._loop.lock:
            self._line.stalled.difference_update(directions_of(direction))
            self._line.black_holes.difference_update(directions_of(direction))
            for connection in self.connections:
                connection.resume(direction)

    def black_hole(self, direction: Both = "both") -> None:
        """Lose everything without a word, on the connections that there are and on those that come before
        `resume`."""
        with self._loop.lock:
            self._line.black_holes.update(directions_of(direction))
            for connection in self.connections:
                connection.black_hole(direction)

    def reset(self) -> None:
        """Reset every connection that there is. Over UDP forget them: see `TapConnection.reset`."""
        with self._loop.lock:
            for connection in self.connections:
                connection.reset()

    def refuse(self) -> None:
        """Have new connections refused, as where no server runs; those that there are go on. Over UDP forget all
        clients. Idempotent.

        Raises:
            OSError: somebody else has taken the port in the moment between; `accept` tries to have it again.
        """
        with self._loop.lock:
            if self._front is None:
                return
            self._front.close()
            self._front = None
            if self._kind == socket.SOCK_STREAM:
                self._sock = _bound((self._family, self._kind, 0, "", self.address))  # the port stays ours
            else:
                self.reset()

    def accept(self) -> None:
        """End `refuse`. Idempotent.

        Raises:
            OSError: somebody else listens there by now.
        """
        with self._loop.lock:
            if self._front is not None:
                return
            if self._sock.fileno() < 0:
                self._sock = _bound((self._family, self._kind, 0, "", self.address))
            if self._kind == socket.SOCK_STREAM:
                _listen(self._sock, self.address)
                self._front = Listener(self._loop, self._sock, self._accepted)
            else:
                self._front = DatagramFront(self._line, self._sock)

    def close(self) -> None:
        """End all connections, and listen no more. Idempotent; not for an observer."""
        with self._loop.lock:
            if self._front is not None:
                self._front.close()
            self._sock.close()
            for connection in self.connections:
                connection.finish(Ending.CLOSED)
        self._driver.stop()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _accepted(self, sock: socket.socket, client: Address) -> None:
        StreamConnection(self._line, sock, client)

    def _impair(self, direction: Direction, impairments: Impairments) -> None:
        with self._loop.lock:
            self._line.impairments[direction] = impairments
            for connection in self.connections:
                flow = connection.to_server if direction == "to_server" else connection.to_client
                flow.impair(impairments)


def _look_up(address: Address, kind: socket.SocketKind) -> Sequence[AddressInfo]:
    host, port = address[:2]
    try:
        return socket.getaddrinfo(host, port, type=kind)
    except socket.gaierror as error:
        raise OSError(f"looking up {address_text(address)}: {error.strerror}") from None


def _bound(info: AddressInfo) -> socket.socket:
    family, kind, protocol, _, address = info
    with _opening(socket.socket(family, kind, protocol), address) as sock:
        if kind == socket.SOCK_STREAM and os.name == "posix":  # elsewhere it lets others take the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock


def _listen(sock: socket.socket, address: Address) -> None:
    with _opening(sock, address):
        sock.listen(BACKLOG)


@contextmanager
def _opening(sock: socket.socket, address: Address) -> Iterator[socket.socket]:
    try:
        yield sock
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"listening on {address_text(address)}: {error.strerror or error}") from None
