"""`packetcore demo`: what a newcomer sees first.

Every scene waits for what a real server reports and shows that. Nothing is printed because
it ought to have happened.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

from packetcore import CloseReason, Config, Driver, Handler, Malformed, Packet, Reason, ServerBase, Session, encode
from packetcore_cli._drivers import running_driver
from packetcore_cli._dump import dump
from packetcore_cli._failure import Failure, reason_of
from packetcore_cli._terminal import Terminal
from packetcore_cli._text import address_text, bytes_text, counted, malformed_text, packet_text

PATIENCE = 10.0
"""Seconds to wait for what takes milliseconds on an idle machine."""

IDLE_TIMEOUT = 2.0
"""Seconds of silence after which sessions expire in the last scene: long enough that the
one that keeps talking does not expire on a busy machine."""

HEARTBEAT = 0.4
"""Seconds between the packets of the one that keeps talking."""

README_PACKET = Packet(0x10, bytes.fromhex("01 03 04 fe 01 fd 02"))

INDENT = "   "

NEXT = (
    "serve --port 7000 --echo",
    "send 127.0.0.1 7000 --id 0x10 --data hello",
    "decode fe001000000100000007010304fd0101fd0202fe",
)
"""What to try after the demo."""

T = TypeVar("T")


class Witness(Handler):
    """Reports what the server sees, and binds each session to the id of its first packet."""

    def __init__(self) -> None:
        self._seen: SimpleQueue[tuple[Session, object]] = SimpleQueue()

    def connected(self, session: Session) -> None:
        self._seen.put((session, session))

    def packet_received(self, session: Session, packet: Packet) -> None:
        if session.identity is None:
            session.bind(packet.id)
        self._seen.put((session, packet))

    def malformed(self, session: Session, malformed: Malformed) -> None:
        self._seen.put((session, malformed))

    def disconnected(self, session: Session, reason: CloseReason) -> None:
        self._seen.put((session, reason))

    def saw(self, within: float) -> tuple[Session, object] | None:
        """What the server saw next, and of which session; `None` for nothing in that time."""
        try:
            return self._seen.get(timeout=within)
        except Empty:
            return None

    def expect(self, kind: type[T]) -> tuple[Session, T]:
        """What the server saw next, which must be a `kind`.

        Raises:
            Failure: it was something else, or nothing came in time.
        """
        seen = self.saw(PATIENCE)
        if seen is None:
            raise Failure(f"demo: the server saw no {kind.__name__} within {PATIENCE:g} s")
        session, thing = seen
        if not isinstance(thing, kind):
            raise Failure(f"demo: the server saw {thing!r} where a {kind.__name__} was due")
        return session, thing


class Demo:
    """The scenes, in order.

    Args:
        driver: the runtime that the servers run on.
        out: where to show them.
    """

    def __init__(self, driver: Driver, out: Terminal) -> None:
        self._driver = driver
        self._out = out
        self._scenes = 0

    def show(self) -> None:
        """Show them all.

        Raises:
            Failure: something did not happen, or not in time.
            OSError: a socket failed.
        """
        self._a_packet_becomes_a_frame()
        witness = Witness()
        with self._serving(witness) as server:
            self._scene("A server listens", "It runs on a thread of its own. Plain sockets play the devices.")
            self._say("listening", address_text(server.address))
            with _connected(server) as device:
                session, _ = witness.expect(Session)
                self._say("accepted", f"session {session.id} from {address_text(session.peer)}")
                self._stuck_together(witness, device)
                self._cut_apart(witness, device, session)
            self._disconnected(witness)
            with _connected(server) as device:
                witness.expect(Session)
                self._noise_between(witness, device)
            self._disconnected(witness)
        self._the_pool()

    def _a_packet_becomes_a_frame(self) -> None:
        self._scene(
            "A packet becomes a frame",
            "Id 0x10, payload 01 03 04 fe 01 fd 02. The byte fe begins and ends a frame,",
            "so inside of one it travels as fd 01, and fd itself as fd 02.",
        )
        frame = encode(README_PACKET)
        self._say("frame", frame.hex())
        self._out.line()
        dump(self._out, frame, max_payload=Config().max_payload, indent=INDENT)

    def _stuck_together(self, witness: Witness, device: socket.socket) -> None:
        self._scene("Three packets arrive stuck together", "One write, and the server tells them apart.")
        packets = [Packet(1, b"one"), Packet(2, b"two"), README_PACKET]
        self._send(device, *map(encode, packets))
        for packet in packets:
            self._packet(witness, packet)

    def _cut_apart(self, witness: Witness, device: socket.socket, session: Session) -> None:
        self._scene("One packet arrives cut apart", "Three writes, the cuts in the header and inside an escape.")
        frame = encode(README_PACKET)
        received: int = self._driver.call(lambda: session.stats.bytes_received)
        for piece in (frame[:4], frame[4:14]):
            self._send(device, piece)
            received += len(piece)
            self._await_bytes(session, received)
            if seen := witness.saw(0):
                raise Failure(f"demo: the server saw {seen[1]!r} in part of a packet")
            self._say("", f"{counted(len(piece), 'byte')} received, no packet yet")
        self._send(device, frame[14:])
        self._packet(witness, README_PACKET)

    def _noise_between(self, witness: Witness, device: socket.socket) -> None:
        self._scene("Noise between packets", "What is no packet is named, and every packet still comes through.")
        still, all_, here = Packet(1, b"still"), Packet(2, b"all"), Packet(3, b"here")
        cut = encode(still).replace(b"still", b"stil")
        broken = encode(Packet(4, b"\xfe")).replace(b"\xfd\x01", b"\xfd\x33")
        self._send(device, b"noise", encode(still), b"static", encode(all_), cut, broken, encode(here))
        self._malformed(witness, Reason.NOISE)
        self._packet(witness, still)
        self._malformed(witness, Reason.TOO_SHORT)
        self._packet(witness, all_)
        self._malformed(witness, Reason.LENGTH_MISMATCH)
        self._malformed(witness, Reason.BAD_ESCAPE)
        self._packet(witness, here)

    def _the_pool(self) -> None:
        self._scene(
            "The pool knows who is alive",
            f"Two devices connect to a server that lets go of whoever is silent for {IDLE_TIMEOUT:g} s.",
        )
        witness = Witness()
        with self._serving(witness, Config(idle_timeout=IDLE_TIMEOUT)) as server:
            with self._device(witness, server, 7) as (_, silent), self._device(witness, server, 8) as (talker, _):
                self._count(server)
                self._await_expiry(witness, server, silent, talker)
                self._count(server)
            self._disconnected(witness)
            self._count(server)

    def _count(self, server: ServerBase) -> None:
        pool, call = server.sessions, self._driver.call
        self._say("count", counted(call(len, pool), "session"))
        self._say("find", f"device 7 is {_named(call(pool.find, 7))}, device 8 {_named(call(pool.find, 8))}")

    @contextmanager
    def _device(self, witness: Witness, server: ServerBase, id: int) -> Iterator[tuple[socket.socket, Session]]:
        with _connected(server) as device:
            witness.expect(Session)
            device.sendall(encode(Packet(id, b"hello")))
            session, _ = witness.expect(Packet)
            yield device, session

    def _await_expiry(self, witness: Witness, server: ServerBase, silent: Session, talker: socket.socket) -> None:
        pool, call = server.sessions, self._driver.call
        last_heard = call(pool.refreshed, silent.id) or 0.0
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            seen = witness.saw(HEARTBEAT)
            match seen:
                case None:
                    talker.sendall(encode(Packet(8, b"still here")))
                case session, Packet():
                    later = (call(pool.refreshed, session.id) or 0.0) - last_heard
                    text = f"session {session.id} spoke, {later:.1f} s after session {silent.id} last did"
                    self._say("refresh", text)
                case session, CloseReason.IDLE_TIMEOUT if session is silent:
                    self._say("expired", _end(session, CloseReason.IDLE_TIMEOUT))
                    return
                case session, thing:
                    raise Failure(f"demo: {thing!r} of session {session.id} where session {silent.id} was to expire")
        raise Failure(f"demo: session {silent.id} did not expire within {PATIENCE:g} s")

    # What the scenes are made of.

    def _scene(self, title: str, *sentences: str) -> None:
        self._scenes += 1
        self._out.line()
        self._out.line((f"{self._scenes}. {title}", "bold cyan"))
        for sentence in sentences:
            self._out.line(INDENT, sentence)
        self._out.line()

    def _say(self, label: str, text: str, style: str = "") -> None:
        self._out.line(INDENT, (f"{label:<9}", style or "dim"), "  ", text)

    @contextmanager
    def _serving(self, witness: Witness, config: Config | None = None) -> Iterator[ServerBase]:
        server = self._driver.start_server(witness, config=config)
        try:
            yield server
        finally:
            self._driver.call(server.close, 0)

    def _send(self, device: socket.socket, *parts: bytes) -> None:
        """Send the parts in one write, and show each on a line."""
        device.sendall(b"".join(parts))
        for place, part in enumerate(parts):
            self._say("" if place else "sent", bytes_text(part))

    def _packet(self, witness: Witness, packet: Packet) -> None:
        _, received = witness.expect(Packet)
        if received != packet:
            raise Failure(f"demo: the server received {received!r} instead of {packet!r}")
        self._say("packet", packet_text(received), "green")

    def _malformed(self, witness: Witness, reason: Reason) -> None:
        _, malformed = witness.expect(Malformed)
        if malformed.reason is not reason:
            raise Failure(f"demo: the server named {malformed.reason.name} what is {reason.name}")
        self._say("malformed", malformed_text(malformed), "red")
        self._say("", malformed.reason.value)

    def _disconnected(self, witness: Witness) -> None:
        session, reason = witness.expect(CloseReason)
        self._say("closed", _end(session, reason))

    def _await_bytes(self, session: Session, count: int) -> None:
        """Wait until the server has so many bytes of this session."""
        give_up = time.monotonic() + PATIENCE
        while self._driver.call(lambda: session.stats.bytes_received) < count:
            if time.monotonic() > give_up:
                raise Failure(f"demo: the server did not receive {count} bytes within {PATIENCE:g} s")
            time.sleep(0.001)


def demo(transport: str, out: Terminal) -> int:
    """Show the demo on a transport."""
    begun = time.monotonic()
    with running_driver(transport) as driver:
        out.line(("packetcore", "bold"), f" on {transport} ({', '.join(sorted(driver.capabilities()))})")
        try:
            Demo(driver, out).show()
        except OSError as error:
            raise Failure(f"demo: {reason_of(error)}") from None
    out.line()
    out.line(("Done", "bold green"), f" in {time.monotonic() - begun:.1f} s. Go on with:")
    for command in NEXT:
        out.line(INDENT, "packetcore ", command)
    return 0


@contextmanager
def _connected(server: ServerBase) -> Iterator[socket.socket]:
    with socket.create_connection(server.address[:2], timeout=PATIENCE) as device:
        device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield device


def _named(session: Session | None) -> str:
    return "nobody" if session is None else f"session {session.id}"


def _end(session: Session, reason: CloseReason) -> str:
    return f"session {session.id}, {reason.name}: {reason.value}"
