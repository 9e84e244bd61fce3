"""All that the extension in C has: a way to make each type, and a call of each method and function.

Tests go through it: the lifecycle of each type (`test_c_lifecycle`), failing allocations and what is
left behind (`sanitize.py`), all in interpreters of their own. Something new that is not here fails
`test_nothing_in_the_extension_is_left_out`.
"""

from __future__ import annotations

import importlib
import math
import operator
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from packetcore._errors import SessionClosed
from packetcore._state import State
from packetcore.framings import Check

speedups: Any = importlib.import_module("packetcore._speedups")
Packet: Any = speedups.Packet

TYPES: dict[str, type] = {name: value for name, value in vars(speedups).items() if isinstance(value, type)}
GC_TYPES = {name for name, type in TYPES.items() if type.__flags__ & 1 << 14}  # Py_TPFLAGS_HAVE_GC
FINAL_TYPES = {name for name, type in TYPES.items() if not type.__flags__ & 1 << 10}  # Py_TPFLAGS_BASETYPE
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: value for name, value in vars(speedups).items() if callable(value) and not isinstance(value, type)
}

PACKET = Packet(1000, b"\x01\xfe\xfd" * 300, count=1000)
FRAME: bytes = speedups.encode(PACKET)
LONG: bytes = speedups.encode(Packet(1000, bytes(200_000)))
PLAIN = bytes(range(256)) * 3
SLIP = (0xC0, 0xDB, {0xC0: 0xDC, 0xDB: 0xDD})


class Receiving(speedups.Receiver):  # type: ignore[misc]
    """A receiver with what it needs, as a connection gives it."""

    sent_at = 0.0

    def __init__(self, decoder: Any = None) -> None:
        self.state = State.OPEN
        self.frame_since = self._joiner = None
        self._decoder = decoder or speedups.Decoder()
        self._now = self._heard = 0.0
        self._packets_received = self._bytes_received = 0

    def _deliver(self, frames: list[Any]) -> list[Any]:
        return frames

    def _receive_late(self, data: bytes, now: float) -> list[Any]:
        return []


class Swallow:
    """A host that takes everything."""

    write = staticmethod(len)


class Pumping(speedups.Pump):  # type: ignore[misc]
    """A pump with what it needs, as a session gives it."""

    def __init__(
        self, on_packet: Callable[[Any, Any], object] = operator.is_, on_packets: Any = None, connection: Any = None
    ) -> None:
        self._connection = connection or Receiving()
        self._output = speedups.Output(speedups.encode, 1 << 20)
        self._host: Any = Swallow()
        self._on_packet = on_packet
        self._on_packets = on_packets
        self._on_sent = None
        self._tap: Any = None
        self._now = 0.0
        self._refresh_at = math.inf
        self._unsent = 0
        self._ease = self._room = 1_000_000
        self._queue: list[Any] = []
        self._paused = self._write_paused = self._lost = self._must_arm = False
        self._running = self._woken = False

    def _overflow(self) -> None:
        pass

    def _wake(self) -> None:
        self._woken = True

    def _settle(self) -> None:
        pass

    def _refresh(self) -> None:
        pass

    def _tell_received(self, data: bytes) -> None:
        pass

    def _received_late(self, data: bytes, now: float) -> None:
        pass

    def _send_other(self, packet: object) -> bool:
        return False

    def _written(self, taken: int) -> None:
        self._unsent = 0

    def _deliver(self, event: object) -> None:
        pass

    def _handler_failed(self, error: BaseException) -> None:
        raise type(error) from None  # a new one: no traceback leads back to it


def half(frame: bytes) -> bytes:
    """A check of the application's, of more bytes than Python keeps ready-made."""
    return len(frame).to_bytes(2, "big")


def stuffing(check: Any = None) -> Any:
    return speedups.Stuffing(*SLIP, check)


def output(*packets: Any, encode: Callable[[Any], bytes] = speedups.encode) -> Any:
    made = speedups.Output(encode, 1_000, encode is speedups.encode)
    made.put_all(list(packets))
    return made


def order(entries: int, taken: int = 0) -> Any:
    made = speedups.Order()
    for entry in range(entries):
        made._put(entry, 1000.5)
    for id in range(taken):
        made._take(id + 1)
    return made


def ready() -> Any:
    return speedups.Items(deque([PACKET]).popleft, list).__anext__()


def length_decoder(size: Any = 4, magic: bytes = b"", max_frame: int = 2_000) -> Any:
    return speedups.LengthPrefixDecoder(size, "big", len(magic), 0, 0, 1, magic, max_frame)


def fed(decoder: Any, data: bytes) -> Any:
    decoder.feed(data)
    return decoder


def begun(make: Callable[[], Any], data: bytes) -> Any:
    return fed(make(), data)


def tapped() -> Any:
    pump = Pumping()
    pump._tap = print
    return pump


def receiving(kind: str) -> Any:
    return Receiving(MADE[kind]())


MADE: dict[str, Callable[[], Any]] = {
    "Packet": lambda: Packet(7, b"payload"),
    "Output": output,
    "Decoder": speedups.Decoder,
    "Receiver": Receiving,
    "Pump": Pumping,
    "Ready": ready,
    "Items": lambda: speedups.Items(deque([1]).popleft, list),
    "Order": lambda: order(3),
    "Latch": speedups.Latch,
    "Sender": lambda: speedups.Sender(Pumping(), list, list, SessionClosed),
    "Stuffing": stuffing,
    "StuffingDecoder": lambda: speedups.StuffingDecoder(stuffing(Check(2, half)), 2_000),
    "COBSDecoder": lambda: speedups.COBSDecoder(2_000),
    "LengthPrefixDecoder": length_decoder,
}
"""For each type, how to make one that is ready for use."""

SOUND: dict[str, tuple[bytes, object]] = {
    "Decoder": (FRAME, PACKET),
    "StuffingDecoder": (stuffing(Check(2, half)).encode(PLAIN), PLAIN),
    "COBSDecoder": (speedups.encode_cobs(PLAIN), PLAIN),
    "LengthPrefixDecoder": (len(PLAIN).to_bytes(4, "big") + PLAIN, PLAIN),
}
"""For each decoder as it is made above, a frame as it is sent and what it gives."""


class Case(NamedTuple):
    """One call."""

    name: str  # "Type.method" or "function", and maybe which case of it, behind a colon
    prepare: Callable[[], Callable[..., object]]  # what is called, made anew
    arguments: tuple[object, ...] = ()
    sound: tuple[bytes, object] | None = None  # what a decoder is fed, whose method it is, and gives

    @property
    def subject(self) -> str:
        return self.name.partition(":")[0]


def method(
    name: str, note: str, make: Callable[[], Any], *arguments: object, sound: tuple[bytes, object] | None = None
) -> Case:
    """The call of a method of what `make` makes."""
    attribute = name.rpartition(".")[2]

    def prepare() -> Callable[..., object]:
        bound: Callable[..., object] = getattr(make(), attribute)
        return bound

    return Case(f"{name}: {note}" if note else name, prepare, arguments, sound)


def on_made(name: str, *arguments: object) -> Case:
    return method(name, "", MADE[name.partition(".")[0]], *arguments)


def constructor(name: str, *arguments: object, note: str = "") -> Case:
    return Case(f"{name}.__new__: {note}", lambda: TYPES[name], arguments)


def function(name: str, *arguments: object, note: str = "") -> Case:
    return Case(f"{name}: {note}", lambda: FUNCTIONS[name], arguments)


def feeds() -> Iterator[Case]:
    """Feeds of each decoder: sound frames, malformed ones, and all that is held between two."""
    for name, sound in SOUND.items():
        sent, make = sound[0], MADE[name]

        for note, before, data in (
            ("sound", b"", sent * 5),
            ("the end of one", sent[:200], sent[200:] + sent),
            ("malformed", b"", b"noise" + sent[:1] + b"\xff\xfd\xfe\xdb\xc0\x05\x00" + sent[:50] + sent[-1:] + sent),
            ("too long", b"", sent[:1] + b"\x10\x00\x00\x01" + b"\xff" * 9_000 + sent[-1:]),
            ("begun", b"", sent[:-1]),
        ):
            yield method(f"{name}.feed", note, partial(begun, make, before), data, sound=sound)
        yield method(f"{name}.feed", "gaps", make, memoryview(sent + b"x" * (len(sent) % 2))[::2], sound=sound)
        for end in ("feed_eof", "feed_timeout"):
            for note, data in (("noise", b"noise"), ("begun", sent[:200]), ("shared", sent + sent[:90])):
                yield method(f"{name}.{end}", note, partial(begun, make, data), sound=sound)
        yield method(f"{name}.__sizeof__", "", partial(begun, make, sent[:300]), sound=sound)


def cases() -> Iterator[Case]:
    """Each method and function at least once."""
    yield constructor("Packet", 1000, bytearray(b"abc"))
    yield on_made("Packet.__repr__")
    yield on_made("Packet.__hash__")
    yield on_made("Packet.__eq__", Packet(7, bytearray(b"payload")))
    yield on_made("Packet.__len__")
    yield on_made("Packet.__getitem__", 0)
    yield on_made("Packet.__getnewargs_ex__")
    yield on_made("Packet.__replace__")
    yield on_made("Packet._replace")
    yield Case("Packet._replace: one", lambda: partial(PACKET._replace, type=200))
    yield function("new_packet", Packet, (1, b"payload", 2, 3))
    yield function("encode", PACKET, note="short")
    for size in (0, 300, 900, 2_000):
        yield function("encode", Packet(1, bytes(size) + b"\xfe" * size), note=f"{size}")
    yield function("encode", Packet(1, bytes(2_000) + b"\xfe" * 9_000), note="more room")

    yield constructor("Output", speedups.encode, 10)
    yield on_made("Output.put", PACKET)
    yield method("Output.put", "framed", lambda: output(encode=bytes), PLAIN)
    yield method("Output.put", "refused", output, Packet(1, bytes(2_000)))
    yield on_made("Output.put_all", [PACKET] * 3)
    yield method("Output.put_all", "more", lambda: output(PACKET), [PACKET] * 30)
    for name in ("take", "join"):
        yield on_made(f"Output.{name}")
        yield method(f"Output.{name}", "one", lambda: output(PACKET))
        yield method(f"Output.{name}", "more", lambda: output(PACKET, PACKET))

    yield constructor("Decoder")
    yield Case("Decoder.__init__", lambda: fed(speedups.Decoder(), LONG[:90_000]).__init__)
    yield method("Decoder.feed", "a long payload", lambda: fed(speedups.Decoder(), LONG[:100_000]), LONG[100_000:])
    yield method("Decoder.feed", "goes on", lambda: fed(speedups.Decoder(), LONG[:100_000]), LONG[100_000:150_000])
    yield from feeds()
    for name in ("fcs16", "fcs32", "crc16_modbus", "xor", "encode_cobs", "encode_cobsr"):
        yield function(name, PLAIN)
        yield function(name, memoryview(PLAIN)[::2], note="gaps")
    yield constructor("Stuffing", *SLIP, None)
    for check in (None, Check(2, speedups.fcs16), Check(2, half)):
        yield constructor("Stuffing", *SLIP, check, note=f"{check}")
        yield method("Stuffing.encode", f"{check}", partial(stuffing, check), PLAIN)
    yield constructor("StuffingDecoder", stuffing(), 100)
    yield constructor("COBSDecoder", 100, True)
    yield constructor("LengthPrefixDecoder", 4, "big", 0, 0, 0, 1, b"", 100)
    for field, magic in (("varint", b"!!"), ("varint", b""), (2, b"!")):
        held = partial(begun, partial(length_decoder, field, magic), magic + b"\x01")
        yield method("LengthPrefixDecoder.feed", f"{field} {magic!r}", held, b"\x02a!noise" + magic + b"\xff" * 40)

    yield constructor("Receiver")
    yield on_made("Receiver.receive_data", FRAME * 2, 1.5)
    for kind in SOUND:
        yield method("Receiver.receive_data", kind, partial(receiving, kind), SOUND[kind][0] + b"\x00\xfe\x01\xfe", 2.5)
    yield constructor("Pump")
    yield on_made("Pump.send", PACKET)
    chunk = FRAME * 3 + b"\xfe\x01\xfe" + FRAME * 2
    yield method("Pump.received", "echoed", lambda: Pumping(Pumping.send), chunk, 1.0)
    yield method("Pump.received", "together", lambda: Pumping(on_packets=operator.is_), chunk, 1.0)
    yield method("Pump.received", "tapped", tapped, chunk, 1.0)
    yield on_made("Pump._pump")
    yield on_made("Pump._write")

    yield constructor("Items", deque([PACKET]).popleft, list)
    for name in ("__aiter__", "__anext__", "__iter__", "__next__"):
        yield on_made(f"Items.{name}")
    for name in ("__anext__", "__next__"):
        yield method(f"Items.{name}", "waits", lambda: speedups.Items(deque().popleft, list))
    for name in ("__await__", "__iter__", "__next__"):
        yield on_made(f"Ready.{name}")

    yield constructor("Order")
    yield on_made("Order.refresh", 2, 2000.5)
    yield Case("Order.refresh: by name", lambda: partial(order(2).refresh, now=5, id=2))
    yield on_made("Order.refreshed", 2)
    for entries in (0, 3, 4, 10, 21):
        yield method("Order._put", f"{entries}", partial(order, entries), "more", 1000.5)
        yield method("Order._entries", f"{entries}", partial(order, entries))
    yield method("Order._take", "", lambda: order(21, 18), 20)
    yield method("Order._take_silent", "", lambda: order(21, 18), 1, 2000.5)
    for name in ("_entry", "__contains__", "_advance"):
        yield on_made(f"Order.{name}", 2)
    for name in ("_first", "_since", "__len__"):
        yield on_made(f"Order.{name}")
    yield Case("Order.__class_getitem__", lambda: speedups.Order.__class_getitem__, (int,))
    yield constructor("Latch")
    yield on_made("Latch.wait", 0)
    yield function("open_latches", [speedups.Latch(), speedups.Latch()])
    yield constructor("Sender", Pumping(), list, list, SessionClosed, bool)
    yield on_made("Sender.__call__", PACKET)
    yield function("masked", PLAIN, b"abcd")
    yield function("masked", memoryview(PLAIN)[::2], memoryview(b"a.b.c.d.")[::2], note="gaps")


CASES = list(cases())

GIVEN_BY_OTHERS = {"__doc__", "__module__", "__match_args__", "__getattribute__", "__vectorcalloffset__"} | {
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__ne__",
}
"""What a type has that is no method of its own, or one with `__eq__`."""


def left_out() -> set[str]:
    """What the extension has and `CASES` or `MADE` has not."""
    there = {case.subject for case in CASES}
    methods = {
        f"{name}.{each}"
        for name, type in TYPES.items()
        for each, value in vars(type).items()
        if callable(value) and each not in GIVEN_BY_OTHERS
    }
    return (methods | FUNCTIONS.keys()) - there | (TYPES.keys() - MADE.keys())
