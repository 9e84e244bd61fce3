"""Serial lines for the cases, made of pseudo-terminals: one end of a line, and a cable between two."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from packetcore_conformance.peer import DEADLINE, ByteStream

CHUNK = 4096
"""The most bytes that a cable takes at once."""

Change = Callable[[bytes], bytes]


def _pair() -> tuple[int, str, int]:
    """A pseudo-terminal without echo or any change of bytes: this side, the device, and the device open."""
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return master, os.ttyname(slave), slave


class SerialPeer(ByteStream):
    """What is at the other end of a line: its raw bytes. Every wait has a deadline."""

    def __init__(self) -> None:
        self._master, self.device, slave = _pair()
        os.close(slave)  # so that it is seen when the session closes the device
        self._is_pulled = False

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            self._wait(select.POLLOUT)
            with suppress(BlockingIOError):
                view = view[os.write(self._master, view) :]

    def pull(self) -> None:
        """Pull the cable: the device is gone for who has it open. Idempotent."""
        if not self._is_pulled:
            self._is_pulled = True
            os.close(self._master)

    close = pull

    def read(self, size: int) -> bytes:
        """See `ByteStream`."""
        while True:
            self._wait(select.POLLIN)
            try:
                return os.read(self._master, size)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                return b""

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._master, event)
        if not poll.poll(DEADLINE * 1000):
            raise TimeoutError(f"nothing came or went for {DEADLINE} s")


class Cable:
    """Two lines, joined by a thread that carries what goes in at one end to the other.

    Args:
        rate: bytes a second that it carries each way; `None` for as many as it can.
        change: what becomes of the bytes from the first end to the second.
    """

    def __init__(self, rate: float | None = None, change: Change = bytes) -> None:
        (here, first, a), (there, second, b) = _pair(), _pair()
        self.devices = first, second
        self._rate = rate
        self._masters, self._slaves = (here, there), (a, b)
        self._ways = [_Way(here, there, change), _Way(there, here, bytes)]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="cable", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pull it, at both ends. Idempotent."""
        if not self._is_over.is_set():
            self._is_over.set()
            self._thread.join()
            for fd in (*self._masters, *self._slaves):
                os.close(fd)

    def _carry(self) -> None:
        since = time.monotonic()
        while not self._is_over.is_set():
            poll = select.poll()
            for master in self._masters:
                events = 0
                for way in self._ways:
                    events |= way.waits_for(master)
                poll.register(master, events)
            poll.poll(20)
            now = time.monotonic()
            room = CHUNK if self._rate is None else min(CHUNK, int((now - since) * self._rate))
            if room:
                since = now
                for way in self._ways:
                    way.move(room)
            if self._rate is not None:
                self._is_over.wait(0.002)  # or the poll would spin


class _Way:
    """One direction of a cable."""

    def __init__(self, source: int, target: int, change: Change) -> None:
        self._source = source
        self._target = target
        self._change = change
        self._held = b""

    def waits_for(self, master: int) -> int:
        if self._held:
            return select.POLLOUT if master == self._target else 0
        return select.POLLIN if master == self._source else 0

    def move(self, room: int) -> None:
        with suppress(BlockingIOError):
            if not self._held:
                self._held = self._change(os.read(self._source, room))
            self._held = self._held[os.write(self._target, self._held) :]
