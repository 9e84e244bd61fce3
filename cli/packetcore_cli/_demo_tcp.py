"""The demo over TCP: frames, a server that finds them in a stream, and its pool."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from packetcore import CloseReason, Config, Packet, Reason, ServerBase, Session, encode
from packetcore_cli._dump import dump
from packetcore_cli._failure import Failure
from packetcore_cli._stage import INDENT, PATIENCE, Stage, Witness, end_text
from packetcore_cli._text import address_text, counted

IDLE_TIMEOUT = 2.0
"""Seconds of silence after which sessions expire in the last scene: long enough that the
one that keeps talking does not expire on a busy machine."""

HEARTBEAT = 0.4
"""Seconds between the packets of the one that keeps talking."""

README_PACKET = Packet(0x10, bytes.fromhex("01 03 04 fe 01 fd 02"))


class TCPScenes:
    """The scenes, in order."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def show(self) -> None:
        """Show them all.

        Raises:
            Failure: something did not happen, or not in time.
            OSError: a socket failed.
        """
        stage = self._stage
        self._a_packet_becomes_a_frame()
        witness = Witness()
        with stage.serving(stage.driver.start_server, witness) as server:
            stage.scene("A server listens", "It runs on a thread of its own. Plain sockets play the devices.")
            stage.say("listening", address_text(server.address))
            with _connected(server) as device:
                session, _ = witness.expect(Session)
                stage.say("accepted", f"session {session.id} from {address_text(session.peer)}")
                self._stuck_together(witness, device)
                self._cut_apart(witness, device, session)
            stage.closed(witness)
            with _connected(server) as device:
                witness.expect(Session)
                self._noise_between(witness, device)
            stage.closed(witness)
        self._the_pool()

    def _a_packet_becomes_a_frame(self) -> None:
        self._stage.scene(
            "A packet becomes a frame",
            "Id 0x10, payload 01 03 04 fe 01 fd 02. The byte fe begins and ends a frame,",
            "so inside of one it travels as fd 01, and fd itself as fd 02.",
        )
        frame = encode(README_PACKET)
        self._stage.say("frame", frame.hex())
        self._stage.out.line()
        dump(self._stage.out, frame, max_payload=Config().max_payload, indent=INDENT)

    def _stuck_together(self, witness: Witness, device: socket.socket) -> None:
        self._stage.scene("Three packets arrive stuck together", "One write, and the server tells them apart.")
        packets = [Packet(1, b"one"), Packet(2, b"two"), README_PACKET]
        self._stage.send(device, *map(encode, packets))
        for packet in packets:
            self._stage.packet(witness, packet)

    def _cut_apart(self, witness: Witness, device: socket.socket, session: Session) -> None:
        self._stage.scene("One packet arrives cut apart", "Three writes, the cuts in the header and inside an escape.")
        frame = encode(README_PACKET)
        received: int = self._stage.driver.call(lambda: session.stats.bytes_received)
        for piece in (frame[:4], frame[4:14]):
            self._stage.send(device, piece)
            received += len(piece)
            self._stage.await_bytes(session, received)
            if seen := witness.saw(0):
                raise Failure(f"demo: the server saw {seen[1]!r} in part of a packet")
            self._stage.say("", f"{counted(len(piece), 'byte')} received, no packet yet")
        self._stage.send(device, frame[14:])
        self._stage.packet(witness, README_PACKET)

    def _noise_between(self, witness: Witness, device: socket.socket) -> None:
        self._stage.scene("Noise between packets", "What is no packet is named, and every packet still comes through.")
        still, all_, here = Packet(1, b"still"), Packet(2, b"all"), Packet(3, b"here")
        cut = encode(still).replace(b"still", b"stil")
        broken = encode(Packet(4, b"\xfe")).replace(b"\xfd\x01", b"\xfd\x33")
        self._stage.send(device, b"noise", encode(still), b"static", encode(all_), cut, broken, encode(here))
        self._stage.malformed(witness, Reason.NOISE)
        self._stage.packet(witness, still)
        self._stage.malformed(witness, Reason.TOO_SHORT)
        self._stage.packet(witness, all_)
        self._stage.malformed(witness, Reason.LENGTH_MISMATCH)
        self._stage.malformed(witness, Reason.BAD_ESCAPE)
        self._stage.packet(witness, here)

    def _the_pool(self) -> None:
        self._stage.scene(
            "The pool knows who is alive",
            f"Two devices connect to a server that lets go of whoever is silent for {IDLE_TIMEOUT:g} s.",
        )
        witness, driver = Witness(), self._stage.driver
        with self._stage.serving(driver.start_server, witness, config=Config(idle_timeout=IDLE_TIMEOUT)) as server:
            with self._device(witness, server, 7) as (_, silent), self._device(witness, server, 8) as (talker, _):
                self._stage.count(server)
                self._stage.find(server, 7, 8)
                self._await_expiry(witness, server, silent, talker)
                self._stage.count(server)
                self._stage.find(server, 7, 8)
            self._stage.closed(witness)
            self._stage.count(server)
            self._stage.find(server, 7, 8)

    @contextmanager
    def _device(self, witness: Witness, server: ServerBase, id: int) -> Iterator[tuple[socket.socket, Session]]:
        with _connected(server) as device:
            witness.expect(Session)
            device.sendall(encode(Packet(id, b"hello")))
            session, _ = witness.expect(Packet)
            yield device, session

    def _await_expiry(self, witness: Witness, server: ServerBase, silent: Session, talker: socket.socket) -> None:
        pool, call = server.sessions, self._stage.driver.call
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
                    self._stage.say("refresh", text)
                case session, CloseReason.IDLE_TIMEOUT if session is silent:
                    self._stage.say("expired", end_text(session, CloseReason.IDLE_TIMEOUT))
                    return
                case session, thing:
                    raise Failure(f"demo: {thing!r} of session {session.id} where session {silent.id} was to expire")
        raise Failure(f"demo: session {silent.id} did not expire within {PATIENCE:g} s")


@contextmanager
def _connected(server: ServerBase) -> Iterator[socket.socket]:
    with socket.create_connection(server.address[:2], timeout=PATIENCE) as device:
        device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield device
