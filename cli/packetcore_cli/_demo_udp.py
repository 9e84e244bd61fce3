"""The demo over UDP: devices that come, move to another port and fall silent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from packetcore import Config, Packet, Reason, ServerBase, Session, decode, encode
from packetcore_cli._failure import Failure
from packetcore_cli._stage import PATIENCE, Stage, Witness
from packetcore_cli._text import address_text, packet_text

IDLE_TIMEOUT = 0.5
"""Seconds of silence after which the session of the last scene expires."""


class UDPScenes:
    """The scenes, in order."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def show(self) -> None:
        """Show them all.

        Raises:
            Failure: something did not happen, or not in time.
            OSError: a socket failed.
        """
        stage, witness = self._stage, Witness()
        with stage.serving(stage.driver.start_udp_server, witness) as server:
            stage.scene("Devices speak UDP", "Nothing is accepted: the first packet of an address opens its session.")
            stage.say("listening", address_text(server.address))
            with _device(server) as device:
                self._first_datagram(witness, device)
                self._broken_between(witness, device)
                self._comes_back(witness, server)
        self._falls_silent()

    def _first_datagram(self, witness: Witness, device: socket.socket) -> None:
        packets = [Packet(7, b"two packets"), Packet(7, b"one datagram")]
        self._stage.send(device, *map(encode, packets))
        self._opened(witness)
        for packet in packets:
            self._stage.packet(witness, packet)

    def _broken_between(self, witness: Witness, device: socket.socket) -> None:
        self._stage.scene(
            "A broken datagram between two good ones",
            "Each is decoded by itself, so the one that was cut short costs no other.",
        )
        good, as_good = Packet(7, b"good"), Packet(7, b"as good as ever")
        for datagram in (encode(good), encode(Packet(7, b"cut short"))[:14], encode(as_good)):
            self._stage.send(device, datagram)
        self._stage.packet(witness, good)
        self._stage.malformed(witness, Reason.TRUNCATED)
        self._stage.packet(witness, as_good)

    def _comes_back(self, witness: Witness, server: ServerBase) -> None:
        stage, call = self._stage, self._stage.driver.call
        stage.scene(
            "A device comes back from another port",
            "Networks change its address. It gives its identity again, and commands find it.",
        )
        with _device(server) as device:
            back = Packet(7, b"it is me, device 7")
            stage.send(device, encode(back))
            self._opened(witness)
            stage.packet(witness, back)
            stage.closed(witness)
            stage.find(server, 7)
            command = Packet(7, b"from outside any handler")
            call(lambda: _found(server, 7).send(command))
            received = decode(device.recv(65536))
            if received != command:
                raise Failure(f"demo: the device received {received!r} instead of {command!r}")
            stage.say("command", packet_text(received), "green")

    def _falls_silent(self) -> None:
        stage, witness = self._stage, Witness()
        stage.scene(
            "Silence ends a session",
            f"Nobody says good-bye on UDP. This server lets go of whoever is silent for {IDLE_TIMEOUT:g} s.",
        )
        config = Config(idle_timeout=IDLE_TIMEOUT)
        with stage.serving(stage.driver.start_udp_server, witness, config=config) as server, _device(server) as device:
            stage.send(device, encode(Packet(8, b"hello")))
            self._opened(witness)
            stage.packet(witness, Packet(8, b"hello"))
            stage.closed(witness, "expired")
            stage.count(server)
            stage.send(device, encode(Packet(8, b"hello again")))
            self._opened(witness)
            stage.packet(witness, Packet(8, b"hello again"))

    def _opened(self, witness: Witness) -> None:
        session, _ = witness.expect(Session)
        self._stage.say("opened", f"session {session.id} of {address_text(session.peer)}")


@contextmanager
def _device(server: ServerBase) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.settimeout(PATIENCE)
        device.connect(server.address[:2])
        yield device


def _found(server: ServerBase, identity: int) -> Session:
    session = server.sessions.find(identity)
    if session is None:
        raise Failure(f"demo: the server does not find device {identity}")
    return session
