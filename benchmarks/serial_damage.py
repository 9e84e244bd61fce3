"""Millions of bytes over a damaged serial line: every frame that was not touched must arrive.

Two sessions of one adapter are joined by two pseudo-terminals and a cable that changes 1 % of the bytes on
their way, each to another value, at random. A frame is touched where one of its own bytes was changed,
its delimiters included, or where the last byte of the frame before it was, since without that delimiter the
two run into each other. All others must arrive once, whole and in order, and nothing that was not
sent may pass for a packet (a CRC-32 tells). What is sent waits for the line, by backpressure.
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass
from typing import Any

from _common import show
from _processes import load

from packetcore import Config, Driver, Handler, Session, installed_transports
from packetcore.framings import COBS, HDLC, Framing
from packetcore_conformance.damage import Damage, Load, Numbered
from packetcore_conformance.serial_peer import Cable

FRAMINGS: dict[str, Framing] = {"COBS": COBS(), "HDLC": HDLC()}

SIZE = 10_000_000
"""Bytes sent, as they are on the line."""

RATE = 0.01
"""Which part of them is changed."""

PATIENCE = 120.0
"""Seconds after which a run is given up."""

CONFIG = Config(idle_timeout=None)


class Sender(Handler[Any]):
    """Sends all packets, as fast as the line takes them."""

    def __init__(self, packets: list[tuple[int, bytes]]) -> None:
        self._left = iter(packets)
        self.most = 0
        """The most bytes that waited."""

    def connected(self, session: Session[Any]) -> None:
        self._send_on(session)

    def sent(self, session: Session[Any], nbytes: int) -> None:
        self._send_on(session)

    def writable(self, session: Session[Any]) -> None:
        self._send_on(session)

    def _send_on(self, session: Session[Any]) -> None:
        if session.has_room:
            for packet in self._left:
                if not session.send(packet):
                    break
        self.most = max(self.most, session.outstanding)


class Receiver(Handler[Any]):
    """Keeps what comes, until so many bytes have."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.packets: list[tuple[int, bytes]] = []
        self.malformed_frames = 0
        self.has_all = threading.Event()

    def packets_received(self, session: Session[Any], packets: list[Any]) -> None:
        self.packets += packets
        self._look(session)

    def malformed(self, session: Session[Any], malformed: object) -> None:
        self.malformed_frames += 1
        self._look(session)

    def _look(self, session: Session[Any]) -> None:
        # What the last bytes are pending of is no frame that came whole.
        if session.bytes_received >= self._size:
            self.has_all.set()


@dataclass
class Run:
    """What came of one."""

    sent: int
    damaged: int
    untouched: int
    arrived: int
    missing: int
    strange: int
    most: int
    seconds: float


def measure(driver: Driver, framing: Framing, size: int, seed: int) -> Run:
    """Send `size` bytes and count."""
    traffic, damage = Load.of(framing, size, seed), Damage(RATE, seed)
    sender, receiver = Sender(traffic.packets), Receiver(traffic.ends[-1])
    cable = Cable(change=damage)
    options: dict[str, Any] = {"config": CONFIG, "framing": framing, "codec": Numbered()}
    ends: list[Session[Any]] = []
    try:
        begun = time.monotonic()
        ends.append(driver.connect_serial(cable.devices[1], receiver, **options))
        ends.append(driver.connect_serial(cable.devices[0], sender, **options))
        until = begun + PATIENCE
        while not receiver.has_all.wait(0.2):
            if driver.call(lambda: ends[0].stats.bytes_received) >= traffic.ends[-1]:
                break  # the last bytes ended nothing
            if time.monotonic() > until:
                raise SystemExit(f"no more came after {PATIENCE} s: {driver.call(lambda: ends[0].stats)}")
        seconds = time.monotonic() - begun
    finally:
        for end in ends:
            driver.call(end.abort)
        cable.close()
    whole = traffic.untouched(damage.places)
    expected, known = set(whole), set(traffic.packets)
    in_order = [packet for packet in receiver.packets if packet in expected]
    missing = len(whole) - len(set(in_order))
    strange = sum(packet not in known for packet in receiver.packets) + (in_order != whole and not missing)
    return Run(
        len(traffic.packets),
        len(damage.places),
        len(whole),
        len(receiver.packets),
        missing,
        strange,
        sender.most,
        seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = sorted({*installed_transports(), "uvloop"})
    parser.add_argument("--transport", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--size", type=int, default=SIZE, help="bytes on the line (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the damage and of what is sent (%(default)s)")
    options = parser.parse_args()
    rows, wrong = [], []
    for transport in options.transport or names:
        driver = load(transport)
        try:
            for name, framing in FRAMINGS.items():
                run = measure(driver, framing, options.size, options.seed)
                if run.missing or run.strange:
                    wrong.append(f"{transport}, {name}: {run.missing} frames missing, {run.strange} wrong")
                rows.append(
                    (
                        f"{transport}, {name}",
                        f"{run.sent:,}",
                        f"{run.damaged:,}",
                        f"{run.sent - run.untouched:,}",
                        f"{run.untouched:,}",
                        f"{run.arrived:,}",
                        f"{run.missing}",
                        f"{run.most:,}",
                        f"{run.seconds:.1f}",
                    )
                )
        finally:
            driver.stop()
    show(
        f"{options.size:,} bytes over a serial line with {RATE:.0%} of them changed",
        (
            "adapter, framing",
            "frames",
            "bytes changed",
            "touched",
            "untouched",
            "arrived",
            "missing",
            "most unsent",
            "s",
        ),
        rows,
    )
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
