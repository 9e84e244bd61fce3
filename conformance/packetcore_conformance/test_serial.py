"""Serial lines.

A device in place of host and port, on pseudo-terminals: all that a session has, and what a line has of
its own: no end, noise, lost bytes, its speed, and a bus on which one at a time may speak.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packetcore import Backoff, CloseReason, Config, Packet, Session, encode
from packetcore.framings import COBS, HDLC, ByteStuffing, Framing
from packetcore_conformance.damage import Damage, Load, Numbered
from packetcore_conformance.descriptors import expect_at_most, open_descriptors
from packetcore_conformance.peer import DEADLINE
from packetcore_conformance.recorder import Recorder, echo
from packetcore_conformance.rig import Rig

pytestmark = pytest.mark.usefixtures("needs_serial")

PING = Packet(1, b"ping")
QUICK = Backoff(initial=0.01, maximum=0.05)
TICK = 0.002
"""Seconds by which a timer may be early: some loops tell the time in milliseconds, and that of a while ago."""

BUS = ByteStuffing(flag=0x7E, escape=0x7D, xor=0x20, check="crc16-modbus")

FRAMINGS = pytest.mark.parametrize("framing", [COBS(), HDLC()], ids=["cobs", "hdlc"])


def test_packets_come_cut_anywhere_and_go(rig: Rig) -> None:
    peer, handler = rig.serial_peer(), echo()
    session = rig.connect_serial(peer.device, handler, baudrate=9600)
    frame = encode(PING)
    for at in range(len(frame)):
        peer.send(frame[at : at + 1])
    assert peer.receive(len(frame)) == frame
    peer.send(frame * 100)
    assert peer.receive(len(frame) * 100) == frame * 100
    carrier = rig.call(lambda: session.carrier)
    assert (carrier.kind, carrier.local, session.peer) == ("serial", (peer.device,), (peer.device,))
    stats = rig.call(lambda: session.stats)
    assert (stats.packets_received, stats.bytes_received, stats.bytes_sent) == (101, 101 * len(frame), 101 * len(frame))


def test_every_byte_passes_as_it_is(rig: Rig) -> None:
    """None is a character to the line: no line end is changed, nothing echoed, no flow stopped."""
    peer, handler = rig.serial_peer(), echo()
    rig.connect_serial(peer.device, handler, framing=COBS())
    every = bytes(range(1, 256)) * 3
    frame = COBS().encode(every)
    peer.send(frame)
    assert peer.receive(len(frame)) == frame
    assert handler.wait("packet_received") == [every]


def test_streams_and_requests(rig: Rig) -> None:
    peer = rig.serial_peer()
    stream = rig.connect_serial(peer.device)
    frame = encode(PING)
    rig.call(lambda: stream.send(PING))
    assert peer.receive(len(frame)) == frame
    peer.send(frame)
    assert rig.call(lambda: stream.recv()) == PING
    reply = rig.in_background(lambda: stream.request(PING, timeout=DEADLINE))
    assert peer.receive(len(frame)) == frame
    peer.send(encode(Packet(1, b"pong")))
    assert reply() == Packet(1, b"pong")
    with pytest.raises(TimeoutError):
        rig.call(lambda: stream.request(Packet(2), timeout=0.05))


def test_a_line_that_is_silent_or_stops_within_a_frame_ends_and_keepalives_go(rig: Rig) -> None:
    silent, halting = Recorder(), Recorder()
    peer = rig.serial_peer()
    config = Config(idle_timeout=0.3, keepalive_interval=0.05, keepalive_packet=PING)
    rig.connect_serial(peer.device, silent, config)
    frame = encode(PING)
    assert peer.receive(2 * len(frame)) == 2 * frame
    assert silent.wait_reasons() == [CloseReason.IDLE_TIMEOUT]
    other = rig.serial_peer()
    rig.connect_serial(other.device, halting, Config(frame_timeout=0.1))
    other.send(frame[:-2])
    assert halting.wait_reasons() == [CloseReason.FRAME_TIMEOUT]


def test_what_was_sent_goes_before_a_close_which_waits_for_no_end_of_the_peer(rig: Rig) -> None:
    peer, handler = rig.serial_peer(), Recorder()
    session = rig.connect_serial(peer.device, handler, Config(close_timeout=DEADLINE))
    payload = bytes(100_000)  # more than the line holds

    def send_and_close() -> None:
        session.send(Packet(1, payload))
        session.close()

    rig.call(send_and_close)
    frame = encode(Packet(1, payload))
    begun = time.monotonic()
    assert peer.receive_rest() == frame
    assert handler.wait_reasons() == [CloseReason.LOCAL]
    assert time.monotonic() - begun < DEADLINE / 2, "it waited for an end that a line does not have"


def test_a_line_that_takes_nothing_is_a_slow_consumer(rig: Rig) -> None:
    peer, handler = rig.serial_peer(), Recorder()
    config = Config(write_high_water=50_000, write_low_water=10_000, max_outstanding=200_000)
    session = rig.connect_serial(peer.device, handler, config)
    packet = Packet(1, bytes(100_000))
    assert not rig.call(session.send, packet), "there is said to be room for more than write_high_water"
    rig.until(lambda: session.write_paused, "the session is congested")
    peer.receive(len(encode(packet)))
    handler.wait("writable")
    rig.call(lambda: [session.send(packet) for _ in range(3)])
    assert handler.wait_reasons() == [CloseReason.SLOW_CONSUMER]


def test_a_slow_line_sets_the_pace(rig: Rig) -> None:
    rate, size = 200_000, 200_000
    cable = rig.cable(rate=rate)
    handler = Recorder()
    rig.connect_serial(cable.devices[1], handler)
    stream = rig.connect_serial(cable.devices[0], config=Config(write_high_water=20_000, write_low_water=10_000))
    packets = [Packet(number, bytes(5_000)) for number in range(size // 5_000)]
    begun = time.monotonic()
    for packet in packets:  # each waits for room
        rig.call(lambda packet=packet: stream.send(packet))
        assert rig.call(lambda: stream.session.outstanding) < 30_000
    rig.until(lambda: stream.session.outstanding == 0, "all was taken")
    assert time.monotonic() - begun > 0.5 * size / rate, "it was taken faster than the line can"
    assert handler.wait("packet_received", len(packets)) == packets


def test_a_cable_that_is_pulled_is_a_reset(rig: Rig) -> None:
    count = open_descriptors()
    peer, handler = rig.serial_peer(), Recorder()
    session = rig.connect_serial(peer.device, handler)
    peer.send(encode(PING))
    handler.wait("packet_received")
    peer.pull()
    assert handler.wait_reasons() == [CloseReason.RESET]
    full, congested = rig.serial_peer(), Recorder()
    other = rig.connect_serial(full.device, congested)
    rig.call(other.send, Packet(1, bytes(500_000)))
    rig.until(lambda: other.write_paused, "the session is congested")
    full.pull()
    assert congested.wait_reasons() == [CloseReason.RESET]
    assert not rig.call(lambda: session.is_open or other.is_open)
    expect_at_most(count + 1, "a line that has gone was left open")  # libuv may open one for itself


@pytest.mark.usefixtures("needs_reconnect")
def test_an_adapter_that_is_put_back_is_opened_again(rig: Rig, tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB0"
    handler = Recorder()
    client = rig.connect_serial(str(device), handler, reconnect=QUICK, keep=1)
    rig.call(client.send, PING)  # is kept until the device is there
    for turn in range(1, 4):
        peer = rig.serial_peer()
        device.symlink_to(peer.device)
        handler.wait("connected", turn)
        if turn > 1:
            rig.call(client.send, PING)
        frame = encode(PING)
        assert peer.receive(len(frame)) == frame
        peer.send(encode(Packet(turn)))
        assert handler.wait("packet_received", turn)[-1] == Packet(turn)
        device.unlink()
        peer.pull()
        assert handler.wait_reasons(turn)[-1] == CloseReason.RESET


def test_a_bad_device_is_told_by_name_and_disturbs_nobody(rig: Rig, tmp_path: Path) -> None:
    peer, handler = rig.serial_peer(), echo()
    rig.connect_serial(peer.device, handler)
    plain = tmp_path / "plain"
    plain.write_bytes(b"as it was")
    for device, number in (
        (str(tmp_path / "nowhere"), errno.ENOENT),
        (str(plain), errno.ENOTTY),
        (str(tmp_path), errno.EISDIR),
        ("/dev/null", errno.ENOTTY),
        (peer.device, errno.EBUSY),
    ):
        with pytest.raises(OSError, match=device) as refused:
            rig.connect_serial(device, Recorder())
        assert refused.value.errno == number
    assert plain.read_bytes() == b"as it was"
    for options, error in (
        ({"baudrate": -1}, ValueError),
        ({"parity": "X"}, ValueError),
        ({"bytesize": 9}, ValueError),
        ({"speed": 1}, TypeError),
        ({"timeout": 1}, TypeError),
    ):
        with pytest.raises(error):
            rig.connect_serial(peer.device, Recorder(), **options)
    with pytest.raises(ValueError, match="names no serial line"):
        rig.connect_serial("", Recorder())
    frame = encode(PING)
    peer.send(frame)
    assert peer.receive(len(frame)) == frame


def test_a_device_is_free_again_once_its_session_is_over(rig: Rig) -> None:
    peer, first = rig.serial_peer(), Recorder()
    session = rig.connect_serial(peer.device, first)
    rig.call(session.close)
    first.wait_reasons()
    second = echo()
    rig.connect_serial(peer.device, second, bytesize=7, parity="E", stopbits=2)
    peer.send(encode(PING))
    assert second.wait("packet_received") == [PING]


@FRAMINGS
def test_noise_and_lost_bytes_cost_the_frames_that_they_touch(rig: Rig, framing: Framing) -> None:
    peer, handler = rig.serial_peer(), Recorder()
    rig.connect_serial(peer.device, handler, Config(on_malformed="skip"), framing=framing, codec=Numbered())
    frame = [framing.encode(Numbered().encode((number, bytes([number]) * 20))) for number in range(8)]
    peer.send(frame[0])
    peer.send(frame[1][:9] + b"noise\x00\x7e\x7d\xff" + frame[1][9:])
    peer.send(frame[2] + frame[3][:10] + frame[3][12:] + frame[4])
    peer.send(frame[5][:-1] + frame[6] + frame[7])  # without its end
    heard = handler.wait("packet_received", 4)
    while heard[-1] != (7, bytes([7]) * 20):
        heard = handler.wait("packet_received", len(heard) + 1)
    numbers = [packet[0] for packet in heard if isinstance(packet, tuple)]
    assert [number for number in numbers if number not in (5, 6)] == [0, 2, 4, 7]
    assert len(handler.values("malformed")) >= 3


@FRAMINGS
def test_every_frame_that_damage_leaves_whole_arrives(rig: Rig, framing: Framing) -> None:
    load, damage = Load.of(framing, 200_000, seed=1), Damage(0.01, seed=2)
    cable = rig.cable(change=damage)
    handler = Recorder()
    rig.connect_serial(cable.devices[1], handler, framing=framing, codec=Numbered())
    sending = rig.connect_serial(
        cable.devices[0], Recorder(), Config(max_outstanding=None), framing=framing, codec=Numbered()
    )
    rig.call(lambda: [sending.send(packet) for packet in load.packets])
    rig.until(lambda: handler.sessions[0].stats.bytes_received == load.ends[-1], "all bytes were received")
    whole = load.untouched(damage.places)
    assert 0.2 * len(load.packets) < len(whole) < 0.8 * len(load.packets), "the damage is not what it should be"
    heard = handler.values("packet_received")
    assert not set(map(str, heard)) - set(map(str, load.packets))
    assert [packet for packet in heard if packet in set(whole)] == whole


class Devices:
    """Devices 1 to 3 on one bus: each answers what begins with its number, and 3 never does.

    Attributes:
        asked: what was asked, in order, and when it was there.
        answered: when the answers went.
    """

    def __init__(self, rig: Rig, count: int) -> None:
        self.peer = rig.serial_peer()
        self.asked: list[tuple[bytes, float]] = []
        self.answered: list[float] = []
        self._count = count
        self._decoder = BUS.decoder(256)
        self.finished = threading.Event()

    def serve(self) -> None:
        """Until that many were asked."""
        while len(self.asked) < self._count:
            for frame in self._decoder.feed(self.peer.receive(1)):
                assert isinstance(frame, bytes)
                self.asked.append((frame, time.monotonic()))
                if frame[0] != 3:
                    self.answered.append(time.monotonic())
                    self.peer.send(BUS.encode(frame[:1] + b"ok" + frame[1:]))
        self.finished.set()


def answers(address: int) -> Callable[[bytes], bool]:
    return lambda frame: frame[0] == address


def test_a_bus_is_asked_one_device_at_a_time(rig: Rig) -> None:
    turnaround, timeout = 0.03, 0.3
    asked = [bytes([address, number]) for number, address in enumerate((1, 2, 3, 1, 2, 1))]
    devices = Devices(rig, len(asked))
    config = Config(max_requests_in_flight=1, turnaround_delay=turnaround)
    session = rig.connect_serial(devices.peer.device, Recorder(), config, framing=BUS)
    serving = rig.in_thread(devices.serve)
    outcomes: list[Any] = []

    def ask() -> None:
        for request in asked:
            session.request(request, outcomes.append, match=answers(request[0]), timeout=timeout)

    rig.call(ask)
    serving()
    rig.until(lambda: len(outcomes) == len(asked), "every request has an outcome")
    assert [frame for frame, _ in devices.asked] == asked, "they were not asked in order"
    assert isinstance(outcomes.pop(2), TimeoutError)
    assert outcomes == [bytes([request[0]]) + b"ok" + request[1:] for request in asked if request[0] != 3]
    times = dict(devices.asked)
    for before, after in ((0, 1), (1, 2), (3, 4), (4, 5)):
        answer = devices.answered[before if before < 2 else before - 1]
        assert times[asked[after]] - answer >= turnaround - TICK, "asked before the turnaround delay was over"
    least = turnaround + timeout  # from the answer before: when the third was there may have been noted late
    assert times[asked[3]] - devices.answered[1] >= least - TICK, "asked while another could still answer"


def test_a_bus_is_silent_between_two_frames(rig: Rig) -> None:
    delay, baudrate, count = 0.04, 19_200, 5
    peer = rig.serial_peer()
    config = Config(interframe_delay=delay)
    handler = Recorder(packet_received=lambda session, packet: session.send(packet))
    session = rig.connect_serial(peer.device, handler, config, framing=BUS, baudrate=baudrate, stopbits=2)
    frame = BUS.encode(bytes(50))
    on_the_line = len(frame) * 11 / baudrate
    begun = time.monotonic()
    rig.call(lambda: [session.send(bytes(50)) for _ in range(count)])
    assert rig.call(lambda: session.outstanding) > 0, "several frames left at once"
    assert peer.receive(count * len(frame)) == count * frame
    assert time.monotonic() - begun >= (count - 1) * (delay + on_the_line - TICK)
    rig.until(lambda: session.outstanding == 0, "all has gone")
    asked = time.monotonic()
    peer.send(frame)
    peer.receive(len(frame))
    assert time.monotonic() - asked >= delay - TICK, "it answered with no silence before"

    def send_and_close(session: Session[bytes]) -> None:
        session.send(bytes(50))
        session.send(bytes(50))
        session.close()

    rig.call(send_and_close, session)
    assert peer.receive_rest() == 2 * frame, "what waited for its time was lost at the close"
    assert handler.wait_reasons() == [CloseReason.LOCAL]


def test_a_bus_over_tcp_is_silent_between_two_frames(rig: Rig) -> None:
    """As behind a serial server of the network."""
    delay, count = 0.04, 4
    handler = Recorder(connected=lambda session: [session.send(PING) for _ in range(count)])
    peer = rig.peer(rig.serve(handler, Config(interframe_delay=delay)))
    frame = encode(PING)
    begun = time.monotonic()
    assert peer.receive(count * len(frame)) == count * frame
    assert time.monotonic() - begun >= (count - 1) * (delay - 10 * TICK), "the frames did not stand apart"
    peer.finish()
    assert peer.receive_rest() == b""
    assert handler.wait_reasons() == [CloseReason.PEER]
