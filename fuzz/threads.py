"""One thread after another on the same objects: they may raise, since nobody promised that they are for
threads, and must neither crash the interpreter nor stay broken.

What is promised is held: sends from several threads, which the pump in C takes without a lock, come out whole.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fuzz.choices import Choices
from packetcore import Config, Decoder, Endpoint, Handler, Malformed, Packet, Session, encode, speedups
from packetcore._implementation import Items, Order, Output, Sender
from packetcore._order import Entry
from packetcore.framings import COBS, ByteStuffing, Check, LengthPrefix
from tests.made_up_host import MadeUpHost

THREADS = 3
ROUNDS = 4
SWITCH = 1e-6
"""Seconds: as often as the interpreter can."""

MARK = Packet(0xFDFE, b"\xfd\xfe")
PATIENCE = 30.0
"""Seconds after which a thread hangs."""


@contextlib.contextmanager
def switching() -> Iterator[None]:
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def fuzz(data: bytes) -> None:
    """Each thread does what its share of the bytes says, some rounds over; then one alone looks at what is left."""
    shared = Shared()
    size = len(data) // THREADS + 1
    errors: list[BaseException] = []
    sent: list[int] = []
    begin = threading.Barrier(THREADS)

    def work(share: bytes) -> None:
        count = 0
        try:
            begin.wait(PATIENCE)
            for _ in range(ROUNDS):
                choices = Choices(share)
                while len(choices):
                    count += shared.step(choices)
        except BaseException as error:
            errors.append(error)
        sent.append(count)

    workers = [
        threading.Thread(target=work, args=(data[at * size : (at + 1) * size],), daemon=True) for at in range(THREADS)
    ]
    with switching():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE)
    assert not any(worker.is_alive() for worker in workers), "a thread hangs"
    if errors:
        raise errors[0]
    shared.is_sound(sum(sent))


class Shared:
    """What the threads have in common."""

    def __init__(self) -> None:
        check = Check(1, lambda frame: bytes([sum(frame) & 0xFF]))
        stuffing = ByteStuffing(0x7E, 0x7D, xor=0x20, check=check)
        self.stuffing = stuffing
        self.decoders: list[Any] = [
            Decoder(max_payload=40),
            stuffing.decoder(40),
            COBS().decoder(40),
            LengthPrefix(1, magic=b"$").decoder(40),
        ]
        self.output = Output(lambda packet: encode(packet)[:], 40)
        self.order: Any = Order()
        self.items: Any = Items(self.output.take().pop, lambda: None)
        self.endpoint = Endpoint(Handler(), Config(idle_timeout=None), log_exception=lambda message: None)
        self.host = MadeUpHost()
        self.session = Session(self.endpoint, self.host, ("192.0.2.1", 5000), 100.0)
        self.host.session = self.session
        self.session.opened(100.0)
        self.lock = threading.Lock()  # what the runtime of blocking sockets has
        self.sender: Any = Sender(self.session, lambda: None, lambda *args: None, RuntimeError)

    def step(self, choices: Choices) -> int:
        """One thing that a thread does. Gives how many packets it sent."""
        which = choices.byte()
        if which & 0x80:
            self.feed(self.decoders[which & 3], choices.take(which >> 2 & 15))
            return 0
        if which & 0x40:
            return self.send(which)
        entry: Entry[int] = Entry(which, None)
        acts: tuple[Callable[[], object], ...] = (
            lambda: self.order._put(entry, float(which)),
            lambda: self.order.refresh(which, 1e9),
            lambda: self.order._take(which),
            self.order._entries,
            lambda: self.output.put(Packet(which, bytes(which & 31))),
            self.output.join,
            lambda: self.output.put_all([Packet(1), Packet(2)]),
            lambda: next(self.items),
        )
        with contextlib.suppress(Exception):  # nobody promised
            acts[which & 7]()
        return 0

    def feed(self, decoder: Any, chunk: bytes) -> None:
        try:
            decoder.feed(encode(MARK) + chunk)
            if len(chunk) == 3:
                decoder.feed_timeout()
            assert decoder.pending >= 0
        except (SystemError, MemoryError):
            raise
        except Exception:
            assert not speedups, "the C has no state that a switch could find half done"

    def send(self, which: int) -> int:
        if which & 8:
            with self.lock:
                if which & 1:
                    self.session.received(encode(MARK)[: which & 15], 100.0)
                else:
                    self.session.flush(100.0)
            return 0
        packet = Packet(which, bytes([0xFE]) * (which & 7))
        if not speedups:  # the twin in Python wants the lock
            with self.lock:
                self.session.send(packet)
        elif which & 16:
            self.sender(packet)
        else:
            self.session.send(packet)
        return 1

    def is_sound(self, sent: int) -> None:
        """All of it goes on, and what was sent has gone whole."""
        self.session.flush(100.0)
        packets = self.host.packets()
        assert not any(isinstance(packet, Malformed) for packet in packets)
        assert len(packets) == sent
        assert self.session.outstanding == 0
        for decoder in self.decoders:
            decoder.feed_eof()
            assert decoder.pending == 0
        default, stuffing, cobs, prefix = self.decoders
        assert default.feed(encode(MARK)) == [MARK]
        assert stuffing.feed(self.stuffing.encode(b"abc")) == [b"abc"]
        assert cobs.feed(COBS().encode(b"abc")) == [b"abc"]
        assert prefix.feed(LengthPrefix(1, magic=b"$").encode(b"abc")) == [b"abc"]
        assert len(self.order._entries()) == len(self.order)
