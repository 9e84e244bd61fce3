"""Machines and what is between them: sockets over links that misbehave, as a system's kernel has them.

What stands here does as Linux does with a TCP or UDP socket that never waits, as far as a program can tell:
partial sends, resets, half-closes, a reset in answer to data that nobody reads, refused and unanswered
connects. Of the wire it knows no packets: a `packetcore_tap.StreamLink` each way is one connection, and a
partition is a stall of its links, behind which what was sent arrives as if it had been sent again.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from packetcore import Address
from packetcore_conformance.simulation._world import World
from packetcore_tap import DatagramLink, Impairments, StreamLink

TRY_AGAIN = 1.0
"""Seconds after which a system says again that it would like to connect (RFC 6298, 2.1)."""

EPHEMERAL = 49_152
"""The first port that a system takes of itself (RFC 6335, section 6)."""

RECEIVE_BUFFER = 212_992
"""Bytes of datagrams that wait for a reader before more are lost: what Linux has by default."""

Callback = Callable[[], object]


def error(number: int) -> OSError:
    """What a system raises."""
    return OSError(number, os.strerror(number))


class Machine:
    """A system with addresses, sockets and descriptors.

    Args:
        world: when.
        name: its own.
        addresses: its own, the first of which it sends from.
        notice: called with a socket for which there is something to do.
    """

    def __init__(self, world: World, name: str, addresses: tuple[str, ...], notice: Callable[[Any], object]) -> None:
        self.world = world
        self.name = name
        self.addresses = addresses
        self.notice = notice
        self.is_up = True
        """Whether anything that is sent to it arrives."""
        self.most_sockets: int | None = None
        """How many descriptors there are; `None` for enough."""
        self.sockets: dict[End, None] = {}
        """Those that are open."""
        self.ports: dict[tuple[int, str, int], Any] = {}
        """Who has a port: by the type of socket, the address or "0.0.0.0", and the number."""
        self._next_port = EPHEMERAL

    def own(self, sock: End) -> None:
        """A socket is open.

        Raises:
            OSError: there is no descriptor for it.
        """
        if self.most_sockets is not None and len(self.sockets) >= self.most_sockets:
            raise error(errno.EMFILE)
        self.sockets[sock] = None

    def bind(self, sock: End, host: str, port: int) -> Address:
        """Let a socket have a port, or a free one.

        Raises:
            OSError: it is in use, or the address is another machine's.
        """
        if host not in ("0.0.0.0", "127.0.0.1", *self.addresses):
            raise error(errno.EADDRNOTAVAIL)
        while port == 0:
            if (sock.kind, host, self._next_port) not in self.ports:
                port = self._next_port
            self._next_port = EPHEMERAL + (self._next_port + 1 - EPHEMERAL) % (65_536 - EPHEMERAL)
        if (sock.kind, host, port) in self.ports:
            raise error(errno.EADDRINUSE)
        self.ports[sock.kind, host, port] = sock
        return (host, port)

    def who_has(self, kind: int, host: str, port: int) -> Any:
        """The socket on a port, if there is one."""
        return self.ports.get((kind, host, port)) or self.ports.get((kind, "0.0.0.0", port))

    def release(self, sock: End) -> None:
        """A socket is closed."""
        self.sockets.pop(sock, None)
        if sock.local is not None:
            place = (sock.kind, str(sock.local[0]), int(sock.local[1]))
            if self.ports.get(place) is sock:
                del self.ports[place]


class Path:
    """What is between two machines, both ways.

    Args:
        world: when.
        ends: the two, or one twice.
        impairments: what each direction does.
    """

    def __init__(self, world: World, ends: tuple[Machine, Machine], impairments: Impairments) -> None:
        self.world = world
        self.ends = ends
        self.name = f"{ends[0].name}|{ends[1].name}"
        self.random = world.chance(f"path {self.name}")
        self.is_parted = False
        """Whether nothing comes through."""
        self.connections: dict[StreamEnd, None] = {}
        """The clients' ends of those that there are."""
        self._towards = dict.fromkeys(ends, impairments)
        self._lanes: dict[tuple[Address, Address], Lane] = {}

    def towards(self, machine: Machine) -> Impairments:
        """What the direction to a machine does."""
        return self._towards[machine]

    def impair(self, impairments: Impairments, machine: Machine | None = None) -> None:
        """Change what it does from now on, to one machine or both ways."""
        for end in self.ends if machine is None else (machine,):
            self._towards[end] = impairments
        for client in [*self.connections]:
            for end_of in (client, client.peer):
                if end_of is not None and end_of.incoming is not None:
                    end_of.incoming.impairments = self._towards[end_of.machine]

    def part(self) -> None:
        """Let nothing through: datagrams are lost, and streams wait."""
        self.is_parted = True
        for link in self._links():
            link.stall()

    def heal(self) -> None:
        """Let all through again, what streams have sent meanwhile as well."""
        self.is_parted = False
        for client in [*self.connections]:
            for end in (client, client.peer):
                if end is not None and not end.is_forgotten and end.incoming is not None:
                    end.incoming.resume()
                    end.expect()

    def reset(self) -> None:
        """Break every connection, as a middlebox does: both ends hear of it."""
        for client in [*self.connections]:
            for end in (client, client.peer):
                if end is not None:
                    end.be_reset()

    def forget(self) -> None:
        """Forget every connection, as a NAT does: nothing of them comes through any more, and nobody hears of it."""
        for client in [*self.connections]:
            for end in (client, client.peer):
                if end is not None and end.incoming is not None:
                    end.is_forgotten = True
                    end.incoming.stall()

    def delay(self, machine: Machine) -> float:
        """How long a segment without data takes to a machine."""
        impairments = self._towards[machine]
        return impairments.latency + impairments.jitter * self.random.random()

    def new_link(self, machine: Machine) -> StreamLink:
        """One more stream to a machine."""
        link = StreamLink(self._towards[machine], self.random)
        if self.is_parted:
            link.stall()
        return link

    def lane(self, source: Address, target: Address, machine: Machine) -> Lane:
        """What carries datagrams from an address to one of a machine's."""
        lane = self._lanes.get((source, target))
        if lane is None:
            lane = self._lanes[source, target] = Lane(self, source, target, machine)
        lane.link.impairments = self._towards[machine]
        return lane

    def _links(self) -> list[StreamLink]:
        ends = [end for client in self.connections for end in (client, client.peer)]
        return [end.incoming for end in ends if end is not None and end.incoming is not None]


class Lane:
    """What carries datagrams from one address to another.

    Args:
        path: between their machines.
        source: the one.
        target: the other.
        machine: whose that is.
    """

    def __init__(self, path: Path, source: Address, target: Address, machine: Machine) -> None:
        self.link = DatagramLink(path.towards(machine), path.random)
        self._path = path
        self._source = source
        self._target = target
        self._machine = machine
        self._due = inf

    def send(self, data: bytes, sender: DatagramEnd) -> bool:
        """Carry one more. Returns whether there was room for it."""
        world = self._path.world
        took = self.link.send(data, world.now)
        at = self.link.next_deadline()
        if at is not None and at < self._due:
            self._due = at
            world.at(at, partial(self._arrived, sender))
        return took

    def _arrived(self, sender: DatagramEnd) -> None:
        path, machine = self._path, self._machine
        world = path.world
        for data in self.link.receive(world.now):
            if path.is_parted or not machine.is_up:
                continue
            receiver = machine.who_has(socket.SOCK_DGRAM, *self._target)
            if isinstance(receiver, DatagramEnd):
                receiver.arrived(data, self._source)
            else:
                world.at(world.now + path.delay(sender.machine), sender.be_refused)
        at = self.link.next_deadline()
        self._due = inf if at is None else at
        if at is not None:
            world.at(at, partial(self._arrived, sender))


class Wires:
    """Who can reach whom: every machine every other, by a path of its own.

    Args:
        world: when.
        impairments: what a path does unless it is told otherwise.
    """

    def __init__(self, world: World, impairments: Impairments) -> None:
        self.world = world
        self.impairments = impairments
        self.machines: dict[str, Machine] = {}
        """By address."""
        self.keeps_after_reset = True
        """Whether what had come before a reset can still be read, as on Linux."""
        self.carried: Callable[[Address, Address, bytes], object] | None = None
        """Called with each datagram that arrives: from where, where, and what."""
        self._paths: dict[tuple[Machine, Machine], Path] = {}

    def path(self, one: Machine, other: Machine) -> Path:
        """The path between two machines."""
        path = self._paths.get((one, other))
        if path is None:
            impairments = Impairments(latency=1e-5) if one is other else self.impairments
            path = self._paths[one, other] = self._paths[other, one] = Path(self.world, (one, other), impairments)
        return path

    @property
    def paths(self) -> list[Path]:
        """Those that have been used."""
        return [*dict.fromkeys(self._paths.values())]

    def find(self, machine: Machine, host: str) -> Machine | None:
        """Whose address this is, seen from a machine."""
        return machine if host in ("127.0.0.1", "0.0.0.0") else self.machines.get(host)


class End:
    """What all made-up sockets have.

    Args:
        wires: what it is reached by.
        machine: whose it is.
    """

    kind: int
    family = socket.AF_INET
    is_closed = False
    local: Address | None = None

    def __init__(self, wires: Wires, machine: Machine) -> None:
        self.wires = wires
        self.world = wires.world
        self.machine = machine
        self.reader: Callback | None = None
        """What wants to hear that there is something to read."""
        self.writer: Callback | None = None
        """What wants to hear that there is room."""
        self.read_since = 0.0
        """Since when somebody reads, or did."""

    def __enter__(self: Any) -> Any:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        return -1 if self.is_closed else 1

    def setblocking(self, flag: bool) -> None:
        pass

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        pass

    def getsockname(self) -> Address:
        self.check()
        return self.local or ("0.0.0.0", 0)

    def check(self) -> None:
        """Raise where it is closed."""
        if self.is_closed:
            raise error(errno.EBADF)

    def is_readable(self) -> bool:
        raise NotImplementedError

    def is_writable(self) -> bool:
        return True

    def watch(self) -> None:
        """Somebody watches it from now on."""
        if self.is_ready():
            self.machine.notice(self)

    def is_ready(self) -> bool:
        """Whether there is something to do for who watches it."""
        return (self.reader is not None and self.is_readable()) or (self.writer is not None and self.is_writable())

    def serve(self) -> None:
        """Tell who watches it what there is."""
        if self.reader is not None and self.is_readable():
            self.reader()
        if self.writer is not None and self.is_writable():
            self.writer()
        self.watch()

    def close(self) -> None:
        self.is_closed = True
        self.reader = self.writer = None
        self.machine.release(self)

    def vanish(self) -> None:
        """The machine has lost its power, and this with it."""
        self.is_closed = True
        self.reader = self.writer = None


class ListeningEnd(End):
    """A listening TCP socket."""

    kind = socket.SOCK_STREAM

    def __init__(self, wires: Wires, machine: Machine, host: str, port: int, backlog: int) -> None:
        super().__init__(wires, machine)
        machine.own(self)
        try:
            self.local = machine.bind(self, host, port)
        except OSError:
            machine.release(self)
            raise
        self.waiting: deque[StreamEnd] = deque()
        self._backlog = backlog

    @property
    def has_room(self) -> bool:
        return len(self.waiting) < self._backlog

    def is_readable(self) -> bool:
        return bool(self.waiting)

    def is_writable(self) -> bool:
        return False

    def accept(self) -> tuple[StreamEnd, Address]:
        self.check()
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody waits")
        self.machine.own(self.waiting[0])
        sock = self.waiting.popleft()
        assert sock.remote is not None
        return sock, sock.remote

    def close(self) -> None:
        if not self.is_closed:
            super().close()
            for sock in self.waiting:
                sock.abort()


class StreamEnd(End):
    """One end of a TCP connection."""

    kind = socket.SOCK_STREAM

    def __init__(self, wires: Wires, machine: Machine) -> None:
        super().__init__(wires, machine)
        self.remote: Address | None = None
        self.peer: StreamEnd | None = None
        self.path: Path | None = None
        self.incoming: StreamLink | None = None
        self.outgoing: StreamLink | None = None
        self.is_connected = False
        self.is_forgotten = False
        self.session: Any = None
        """Whose it is, once it is somebody's: what comes after that is over is no sign of life, and not counted."""
        self.bytes_read = 0
        """Bytes that were received."""
        self.heard_at = 0.0
        """When something was received last."""
        self.took_at = -inf
        """When room was found last for what had waited for it."""
        self._pieces: deque[bytes] = deque()
        self._error = 0
        self._is_broken = False
        self._has_shut = False
        self._had_no_room = False
        self._resets = False
        self._arrival = inf  # when it is looked at next

    # What a program calls.

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._resets = True

    def getsockopt(self, level: int, option: int) -> int:
        number, self._error = self._error, 0
        return number

    def getpeername(self) -> Address:
        if self.remote is None:
            raise error(errno.ENOTCONN)
        return self.remote

    def connect(self, address: Address) -> None:
        host, port = address[:2]
        target = self.wires.find(self.machine, host)
        if target is None:
            raise error(errno.ENETUNREACH)
        source = "127.0.0.1" if host == "127.0.0.1" else self.machine.addresses[0]
        self.local = self.machine.bind(self, source, 0)
        self.remote = (host, port)
        self.path = self.wires.path(self.machine, target)
        self._ask(self.path, target)
        raise BlockingIOError(errno.EINPROGRESS, "connecting")

    def send(self, data: Any) -> int:
        self.check()
        if self._error:
            raise self._taken_error()
        if self._is_broken or self._has_shut:
            raise error(errno.EPIPE)
        if self.outgoing is None or self.peer is None:
            raise error(errno.ENOTCONN)
        wanted, room = len(data), self.outgoing.room
        if data.__class__ is not bytes or (room is not None and room < wanted):
            with memoryview(data) as view:
                data = bytes(view[:room])  # who sends may change it
        size = self.outgoing.send(data, self.world.now)
        if self._had_no_room and size and not self._is_over():
            self.took_at = self.world.now
        if size == 0:
            self._had_no_room = True
            raise BlockingIOError(errno.EAGAIN, "no room")
        self._had_no_room = size < wanted
        self.peer.expect()
        return size

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.check()
        pieces = self._pieces
        if not pieces and self.incoming is not None:
            pieces.extend(self.incoming.receive(self.world.now))
            if pieces and self.peer is not None and self.peer.writer is not None:
                self.machine_of_peer_notices()
        if pieces:
            piece = pieces[0][:size]
            if not flags & socket.MSG_PEEK:
                rest = pieces.popleft()[size:]
                if rest:
                    pieces.appendleft(rest)
                if not self._is_over():
                    self.heard_at = self.world.now
                    self.bytes_read += len(piece)
            return piece
        if self._error:
            raise self._taken_error()
        if self._is_broken:
            return b""
        if self.incoming is not None and self.incoming.has_ended(self.world.now):
            if not self._is_over():
                self.heard_at = self.world.now
            return b""
        raise BlockingIOError(errno.EAGAIN, "nothing came")

    def shutdown(self, how: int) -> None:
        self.check()
        if self.outgoing is None or self.peer is None or self._is_broken:
            raise error(errno.ENOTCONN)
        self._has_shut = True
        self.outgoing.send_eof(self.world.now)
        self.peer.expect()

    def close(self) -> None:
        if self.is_closed:
            return
        has_unread = bool(self._pieces) or self._has_data()
        super().close()
        if self.outgoing is None or self.peer is None or self._is_broken:
            self._leave()
        elif self._resets or has_unread or not self.is_connected:
            self.abort()
        else:
            if not self._has_shut:
                self.shut_down()
            self._arrived()

    # What others call.

    def shut_down(self) -> None:
        """Say that nothing more will come."""
        if self.outgoing is not None and self.peer is not None:
            self._has_shut = True
            self.outgoing.send_eof(self.world.now)
            self.peer.expect()

    def abort(self) -> None:
        """Close it by a reset: what was sent and has not arrived is lost."""
        self.is_closed = True
        self._leave()
        if self.peer is not None and self.path is not None:
            self.peer.expect_reset()
        if self.incoming is not None:
            self.incoming.black_hole()

    def vanish(self) -> None:
        super().vanish()
        self._leave()

    def is_readable(self) -> bool:
        if self._pieces or self._error or self._is_broken:
            return True
        at = None if self.incoming is None else self.incoming.next_deadline()
        return at is not None and at <= self.world.now

    def is_writable(self) -> bool:
        if self._error or self._is_broken:
            return True
        return self.is_connected and self.outgoing is not None and self.outgoing.room != 0

    def watch(self) -> None:
        if self.is_ready():
            self.machine.notice(self)
        elif self.reader is not None:
            self.expect()

    def expect(self) -> None:
        """Something is under way to it: see when it comes."""
        at = None if self.incoming is None else self.incoming.next_deadline()
        if at is not None and at < self._arrival and (self.reader is not None or self.is_closed):
            self._arrival = max(at, self.world.now)
            self.world.at(self._arrival, self._arrived)

    def expect_reset(self) -> None:
        """The peer has sent a reset."""
        assert self.path is not None
        if self.is_forgotten:
            return
        if self.path.is_parted:
            self.world.at(self.world.now + TRY_AGAIN, self.expect_reset)
        else:
            self.world.at(self.world.now + self.path.delay(self.machine), self.be_reset)

    def be_reset(self) -> None:
        """A reset has come."""
        if self.is_closed or self._is_broken or self.incoming is None or self.outgoing is None:
            return
        if self.wires.keeps_after_reset:
            self._pieces.extend(self.incoming.receive(self.world.now))
        else:
            self._pieces.clear()
        self.incoming.black_hole()
        self.outgoing.black_hole()
        self._error = errno.ECONNRESET
        self._is_broken = True
        self._leave()
        if self.reader is not None or self.writer is not None:
            self.machine.notice(self)

    def machine_of_peer_notices(self) -> None:
        """There is room for what the peer wants to send."""
        assert self.peer is not None
        self.peer.machine.notice(self.peer)

    # Connecting.

    def _ask(self, path: Path, target: Machine) -> None:
        if self.is_closed or self.is_connected:
            return
        if path.is_parted or not target.is_up:
            self.world.at(self.world.now + TRY_AGAIN, partial(self._ask, path, target))
        else:
            self.world.at(self.world.now + path.delay(target), partial(self._asked, path, target))

    def _asked(self, path: Path, target: Machine) -> None:
        assert self.remote is not None
        assert self.local is not None
        if self.is_closed:
            return
        listener = target.who_has(socket.SOCK_STREAM, *self.remote)
        if path.is_parted or not target.is_up or (isinstance(listener, ListeningEnd) and not listener.has_room):
            self.world.at(self.world.now + TRY_AGAIN, partial(self._ask, path, target))
        elif not isinstance(listener, ListeningEnd):
            self.world.at(self.world.now + path.delay(self.machine), self._be_refused)
        else:
            other = StreamEnd(self.wires, target)
            other.local, other.remote, other.path = self.remote, self.local, path
            other.incoming = self.outgoing = path.new_link(target)
            self.incoming = other.outgoing = path.new_link(self.machine)
            self.peer, other.peer = other, self
            other.is_connected = True
            other.heard_at = self.world.now
            path.connections[self] = None
            listener.waiting.append(other)
            if listener.reader is not None:
                target.notice(listener)
            self.world.at(self.world.now + path.delay(self.machine), self._be_connected)

    def _be_connected(self) -> None:
        if self.path is not None and self.path.is_parted:
            self.world.at(self.world.now + TRY_AGAIN, self._be_connected)
        elif not (self.is_closed or self._is_broken):
            self.is_connected = True
            self.heard_at = self.world.now
            if self.writer is not None:
                self.machine.notice(self)

    def _be_refused(self) -> None:
        if not self.is_closed:
            self._error = errno.ECONNREFUSED
            if self.writer is not None:
                self.machine.notice(self)

    # What comes.

    def _arrived(self) -> None:
        self._arrival = inf
        if self.is_closed:
            self._arrived_late()
        elif self.reader is not None:
            self.watch()

    def _arrived_late(self) -> None:
        """Nobody reads it any more: a system that is up says so."""
        if self.incoming is None or self.peer is None:
            return
        if not self.machine.is_up:
            return  # `expect` is called again once it is
        if self.incoming.receive(self.world.now):
            self.incoming.black_hole()
            self.peer.expect_reset()
        elif self.incoming.has_ended(self.world.now):
            self._leave()
        else:
            self.expect()

    def _is_over(self) -> bool:
        return self.session is not None and self.session.close_reason is not None

    def _has_data(self) -> bool:
        at = None if self.incoming is None else self.incoming.next_deadline()
        return (
            at is not None
            and at <= self.world.now
            and self.incoming is not None
            and not self.incoming.has_ended(self.world.now)
        )

    def _taken_error(self) -> OSError:
        number, self._error = self._error, 0
        return error(number)

    def _leave(self) -> None:
        """The path need not know this connection any more, once it is over at both ends."""
        if self.path is not None and self.peer is not None:
            ends = (self, self.peer)
            if all(end.is_closed or end._is_broken for end in ends):
                for end in ends:
                    self.path.connections.pop(end, None)


class DatagramEnd(End):
    """A UDP socket."""

    kind = socket.SOCK_DGRAM

    def __init__(self, wires: Wires, machine: Machine, host: str, port: int, remote: Address | None = None) -> None:
        super().__init__(wires, machine)
        machine.own(self)
        try:
            self.local = machine.bind(self, host, port)
        except OSError:
            machine.release(self)
            raise
        self.remote = remote
        self.dropped = 0
        """Datagrams for which there was no room."""
        self._queue: deque[tuple[bytes, Address]] = deque()
        self._size = 0
        self._error = 0

    def is_readable(self) -> bool:
        return bool(self._queue) or self._error != 0

    def send(self, data: bytes) -> int:
        assert self.remote is not None
        return self.sendto(data, self.remote)

    def sendto(self, data: bytes, address: Address) -> int:
        self.check()
        assert self.local is not None
        target = self.wires.find(self.machine, address[0])
        if target is None:
            raise error(errno.ENETUNREACH)
        own = "127.0.0.1" if address[0] == "127.0.0.1" else self.machine.addresses[0]
        source = (own if self.local[0] == "0.0.0.0" else self.local[0], self.local[1])
        path = self.wires.path(self.machine, target)
        if path.is_parted:
            return len(data)
        if not path.lane(source, (address[0], address[1]), target).send(bytes(data), self):
            raise BlockingIOError(errno.EAGAIN, "no room")
        return len(data)

    def recvfrom(self, size: int) -> tuple[bytes, Address]:
        self.check()
        if self._error:
            number, self._error = self._error, 0
            raise error(number)
        if not self._queue:
            raise BlockingIOError(errno.EAGAIN, "nothing came")
        data, source = self._queue.popleft()
        self._size -= len(data)
        return data[:size], source

    def recvmsg(self, size: int, ancillary: int = 0, flags: int = 0) -> Any:
        raise BlockingIOError(errno.EAGAIN, "no error is kept")

    def arrived(self, data: bytes, source: Address) -> None:
        """A datagram has come."""
        assert self.local is not None
        if self.remote is not None and source != self.remote:
            return
        if self._size + len(data) > RECEIVE_BUFFER:
            self.dropped += 1
            return
        if self.wires.carried is not None:
            self.wires.carried(source, self.local, data)
        self._queue.append((data, source))
        self._size += len(data)
        if self.reader is not None:
            self.machine.notice(self)

    def be_refused(self) -> None:
        """What was sent to has nobody there."""
        if self.remote is not None and not self.is_closed:
            self._error = errno.ECONNREFUSED
            if self.reader is not None:
                self.machine.notice(self)
