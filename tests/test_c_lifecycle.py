"""What can be done to an object of the extension that it was not made for: nothing of it is a crash.

Each type that the extension exports is tried, one that is added later too.
"""

from __future__ import annotations

import copy
import gc
import itertools
import math
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import packetcore
from packetcore import Malformed, Reason
from packetcore.framings import Check, _check, _stuffing

if not packetcore.speedups:
    pytest.skip("the extension in C is not in use", allow_module_level=True)

from tests.c_cases import (
    CASES,
    FINAL_TYPES,
    FRAME,
    GC_TYPES,
    MADE,
    PACKET,
    PLAIN,
    SLIP,
    SOUND,
    TYPES,
    Pumping,
    Receiving,
    left_out,
    output,
    speedups,
    stuffing,
)

each_type = pytest.mark.parametrize("name", TYPES)

ODD: list[tuple[object, ...]] = [
    (),
    (None,),
    (-1,),
    (0,),
    (math.nan,),
    ("text",),
    (b"bytes",),
    ([],),
    (object(), object()),
    (0, 0.0),
    ({}, [], (), None, 0, "", b"", b""),
]
"""Arguments for anything. None of them lets a thread wait."""

NEED_ARGUMENTS = set(TYPES) - {"Decoder", "Receiver", "Pump", "Order", "Latch"}
"""What cannot be made without them; a type that is added later is taken for one."""

OF_OBJECT = {"__class__", "__init_subclass__", "__subclasshook__", "__dir__", "__new__"}


def try_all(thing: Any) -> int:
    """Use all that an object has, with odd arguments; a mistake is an exception that says so. Gives how much it has."""
    names = [name for name in dir(thing) if name not in OF_OBJECT]
    calls: list[Callable[..., object]] = [repr, str, hash, len, iter, next, bool, sys.getsizeof, weakref.ref]
    for name in names:
        with suppress(AttributeError, TypeError):
            value = getattr(thing, name)
            if callable(value) and not isinstance(value, type):
                calls.append(value)
    arguments: list[tuple[object, ...]]
    for call in calls:
        arguments = [(thing,)] if call in calls[:9] else ODD
        for each in arguments:
            try:
                call(*each)
            except (SystemError, MemoryError):
                raise
            except Exception as raised:
                if not str(raised) and not isinstance(raised, (StopIteration, IndexError)):
                    raise AssertionError(f"{call} says nothing of {each}") from raised
    return len(names)


def test_nothing_in_the_extension_is_left_out() -> None:
    assert left_out() == set()


@each_type
def test_one_that_was_made_and_not_set_up_says_so(name: str) -> None:
    new: Any = TYPES[name]
    if name in NEED_ARGUMENTS:
        with pytest.raises(TypeError, match=rf"{name}|argument|is not safe"):
            new.__new__(new)
        return
    bare = new.__new__(new)
    if name in SOUND:
        with pytest.raises(TypeError, match="was not set up"):
            bare.feed(SOUND[name][0])
    assert try_all(bare) > 10


@each_type
def test_one_that_is_set_up_again_is_as_sound_as_before(name: str) -> None:
    thing = MADE[name]()
    for arguments in ODD:
        with suppress(TypeError, ValueError, AttributeError):
            thing.__init__(*arguments)
    if name in SOUND:
        sent, frame = SOUND[name]
        assert thing.feed(sent) == [frame]
    try_all(thing)


@each_type
def test_it_can_be_subclassed_or_says_that_it_cannot(name: str) -> None:
    base = TYPES[name]
    if name in FINAL_TYPES:
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Sub", (base,), {})
        return
    risen: list[Any] = []

    def rise(self: object) -> None:
        risen.append(self)

    def other(self: object, *arguments: object) -> object:
        return None

    of_base = {each: other for each, value in vars(base).items() if callable(value) and not each.startswith("__")}
    for more in ({}, {"__slots__": ()}, {"__slots__": ("a", "__weakref__")}, of_base):
        gc.collect()  # what other tests left
        before = sys.getrefcount(base)
        sub: Any = type("Sub", (base,), {"__del__": rise, **more})
        thing = sub()
        try_all(thing)
        if "__slots__" not in more:
            thing.itself = thing
        del thing
        gc.collect()
        [thing] = risen
        try_all(thing)
        del sub.__del__
        del thing, sub
        risen.clear()
        gc.collect()
        assert sys.getrefcount(base) == before


@each_type
def test_what_of_it_can_be_deleted_is_missed_by_a_clear_error(name: str) -> None:
    for attribute in dir(MADE[name]()):
        thing = MADE[name]()
        with suppress(TypeError, AttributeError):
            delattr(thing, attribute)
        try_all(thing)


@each_type
def test_it_is_copied_as_it_is_or_not_at_all(name: str) -> None:
    thing = MADE[name]()
    made: list[Callable[[Any], object]] = [copy.copy, copy.deepcopy]
    made += [partial(pickled, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for at, each in enumerate(made):
        if name == "Packet" and at not in (2, 3):  # protocols 0 and 1 know no arguments with names
            assert each(thing) == thing
        else:
            with pytest.raises((TypeError, pickle.PicklingError), match=r"cannot pickle|not safe|Can't pickle"):
                each(thing)


def pickled(protocol: int, thing: Any) -> object:
    return pickle.loads(pickle.dumps(thing, protocol))


class Marker:
    """What is to be found again, or not: an object that can lead back to the one that leads to it."""

    feed = None
    back: object = None

    def __call__(self, *arguments: object) -> bytes:
        return b""


class Bytes(bytes):
    """A frame that can lead anywhere."""

    marker: Marker


def holding(marker: Marker) -> dict[str, list[Any]]:
    """For each type that the garbage collector knows, one for each way in which it leads to the marker."""
    receivers, pumps = [], []
    for attribute in ("state", "_decoder", "_joiner", "_now", "_heard", "frame_since"):
        receiver = Receiving()
        setattr(receiver, attribute, marker)
        receivers.append(receiver)
    for attribute in ("_host", "_on_packet", "_on_packets", "_on_sent", "_now", "_tap"):
        pump = Pumping()
        setattr(pump, attribute, marker)
        pumps.append(pump)
    queue, connection, its_output = Pumping(), Pumping(), Pumping()
    queue._queue = [marker]
    connection._connection = receivers[0]
    its_output._output = output(encode=marker)
    frame = Bytes(b"frame")
    frame.marker = marker
    order = speedups.Order()
    order._put(marker, 0.0)
    senders = [speedups.Sender(*(marker if at == place else None for at in range(5))) for place in range(5)]
    rules = stuffing(Check(1, marker))
    return {
        "Output": [output(encode=marker), output(None, encode=lambda packet: frame)],
        "Receiver": receivers,
        "Pump": [*pumps, queue, connection, its_output],
        "Items": [speedups.Items(marker, None), speedups.Items(None, marker)],
        "Order": [order],
        "Sender": senders,
        "Stuffing": [rules],
        "StuffingDecoder": [speedups.StuffingDecoder(rules, 10)],
        "COBSDecoder": [],
    }


@pytest.mark.parametrize("name", sorted(GC_TYPES))
def test_a_cycle_through_it_is_found(name: str) -> None:
    for place in range(len(holding(Marker())[name])):
        marker = Marker()
        thing = holding(marker)[name][place]
        marker.back = thing
        watched = weakref.ref(marker)
        assert gc.is_tracked(thing)
        assert TYPES[name] in type(thing).__mro__
        if type(thing) is TYPES[name]:
            assert type(thing) in gc.get_referents(thing)
        del marker, thing
        gc.collect()
        assert watched() is None, place


def test_the_collector_may_run_at_any_allocation() -> None:
    def results() -> list[object]:
        found: list[object] = []
        for case in CASES:
            value: object
            try:
                value = case.prepare()(*case.arguments)
            except (StopIteration, packetcore.LocalProtocolError) as error:
                value = type(error)
            found.append((case.name, type(value) if type(value) in TYPES.values() else value))
        return found

    expected = results()
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert results() == expected
    finally:
        gc.set_threshold(*threshold)


@pytest.mark.parametrize("kind", ["Items", "Sender", "Output", "Stuffing", "Receiver", "Pump", "Order"])
def test_a_chain_of_any_length_is_let_go_of(kind: str) -> None:
    """Each frees the next one: 200,000 deep on the stack of C would be its end."""
    thing: Any = None
    for _ in range(200_000):
        last, thing = thing, None
        if kind == "Items":
            thing = speedups.Items(last, None)
        elif kind == "Sender":
            thing = speedups.Sender(last, None, None, None)
        elif kind == "Output":
            thing = speedups.Output(last, 1)
        elif kind == "Stuffing":
            thing = speedups.Stuffing(*SLIP, Function(last))
        elif kind == "Receiver":
            thing = speedups.Receiver()
            thing._now = last
        elif kind == "Pump":
            thing = speedups.Pump()
            thing._now = last
        else:
            thing = speedups.Order()
            thing._put(last, 0.0)
    del last, thing


class Function:
    """A check whose function may be anything."""

    size = 1

    def __init__(self, function: object) -> None:
        self.function = function


def test_a_decoder_set_up_anew_from_within_its_own_feed_stays_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = speedups.Decoder()
    sizes = itertools.cycle([1, 1 << 20, 0, 1 << 31])

    def __init__(self: Malformed, reason: Reason, size: int, sample: bytes) -> None:  # noqa: N807
        decoder.__init__(max_payload=next(sizes))

    monkeypatch.setattr(Malformed, "__init__", __init__)
    for cut in (1, 7, 50, 10_000):
        stream = (b"noise\xfe\x01\xfe\xfd\xfe" + FRAME[:60] + FRAME) * 2
        for at in range(0, len(stream), cut):
            decoder.feed(stream[at : at + cut])
    decoder.__init__()
    assert decoder.feed(FRAME) == [PACKET]


class Sooner(float):
    """A time that does something when it is compared."""

    do: Callable[[], object]

    def __lt__(self, other: object) -> bool:
        self.do()
        return True


class Measured(bytes):
    """Bytes that do something when they are measured."""

    do: Callable[[], object]

    def __len__(self) -> int:
        self.do()
        return super().__len__()


class Ending:
    """Something that does something when it ends."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.do = do

    def __del__(self) -> None:
        self.do()


@pytest.mark.parametrize("attribute", ["_now", "_decoder", "_joiner", "_heard", "frame_since", "state"])
@pytest.mark.parametrize("when", ["compared", "measured", "_now", "_heard"])
def test_a_receiver_may_lose_any_attribute_while_it_receives(attribute: str, when: str) -> None:
    receiver = Receiving()
    data, now = Measured(FRAME), Sooner(1.0)
    data.do = now.do = list

    def lose() -> None:
        receiver.__dict__["lost"] = True
        with suppress(AttributeError):
            delattr(receiver, attribute)

    if when == "compared":
        now.do = lose
    elif when == "measured":
        data.do = lose
    else:
        setattr(receiver, when, Ending(lose))
    with suppress(TypeError, AttributeError):
        receiver.receive_data(data, now if when != "_now" else 1.0)
    assert receiver.__dict__.pop("lost", when == "_now")


def test_what_a_pump_is_fed_may_go_wrong_in_any_way() -> None:
    class Neither:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    class Time:
        def __float__(self) -> float:
            raise AssertionError("asked for while an exception is under way")

    with pytest.raises(ZeroDivisionError):
        Pumping().received(Neither(), Time())

    class Other(Receiving):
        def _deliver(self, frames: list[Any]) -> Any:
            return tuple(frames)

    connection: Any = Other()
    connection._joiner = object()
    with pytest.raises(TypeError, match="must give a list, not tuple"):
        Pumping(connection=connection).received(FRAME, 1.0)


def hear(heard: list[Any], pump: Any, packets: list[Any]) -> None:
    heard += packets


def test_a_queue_may_go_while_the_collector_runs_within_a_pump() -> None:
    """Up to Python 3.11 the collector runs when a list is made."""
    for do in ("_queue.clear()", "_queue = []", "_queue.append(None)", "_queue = [None, *pump._queue * 2]"):
        heard: list[Any] = []
        pump = Pumping(on_packets=partial(hear, heard))

        def end(pump: Any = pump, do: str = do) -> None:
            exec(f"pump.{do}", {"pump": pump})

        pump._pump()  # what it needs at first it has then
        pump._queue = [PACKET] * 5
        threshold = gc.get_threshold()
        gc.collect()
        kept: list[list[Any]] = [[] for _ in range(200)]  # else a list that was used before is taken, without it
        kept[0].append(kept[0])
        kept[0].append(Ending(end))
        del kept[0]
        gc.set_threshold(1)
        try:
            pump._pump()
        finally:
            gc.set_threshold(*threshold)
        assert kept
        assert set(heard) <= {PACKET, None}  # the second came into the queue above, and may come first
        assert pump._queue == []


def test_bytes_that_put_more_as_they_end_are_counted() -> None:
    """A framing's `encode` may give bytes of a type of its own."""

    class Last(bytes):
        def __del__(self) -> None:
            if waiting.packets < 3:
                waiting.put(None)

    waiting = speedups.Output(lambda packet: Last(b"x" * 100_000), 10, False)
    waiting.put(None)
    waiting.put(None)
    waiting.join()
    assert waiting.size == 100_000
    waiting.put(None)
    assert (waiting.size, len(waiting.join())) == (200_000, 200_000)


def test_what_encodes_the_default_format_takes_nothing_else_unchecked() -> None:
    for odd in (b"abc", None, 7, object()):
        with pytest.raises(TypeError, match="takes a Packet"):
            speedups.Output(speedups.encode, 10, False).put(odd)
        with pytest.raises(TypeError, match="new_packet"):
            speedups.new_packet(type(odd), (1, b"payload", 2, 3))


def test_codes_are_ints_before_anything_is_made_of_them() -> None:
    codes: dict[Any, Any] = {}

    class Code:
        def __index__(self) -> int:
            codes.clear()
            return 1

    codes[Code()] = Code()
    with pytest.raises(TypeError, match="ints"):
        speedups.Stuffing(0xC0, 0xDB, codes, None)
    assert codes


@pytest.mark.parametrize(("name", "size"), [("fcs16", 4), ("fcs16", 1), ("fcs32", 2), ("xor", 2), ("xor", 7)])
def test_a_check_of_ours_with_another_size_is_none_of_ours(name: str, size: int) -> None:
    """It would send what lies behind it on the stack."""
    for module, checks in ((speedups, speedups), (_stuffing, _check)):
        rules = module.Stuffing(*SLIP, Check(size, getattr(checks, name)))
        with pytest.raises(ValueError, match=f"a check of size={size} gave"):
            rules.encode(PLAIN)
        [event] = module.StuffingDecoder(rules, 100).feed(b"\xc0abcdefgh\xc0")
        assert event.reason is Reason.BAD_CHECK


def test_decoders_take_their_arguments_by_name_as_in_python() -> None:
    reduced = speedups.COBSDecoder(max_frame=9, is_reduced=True)
    assert reduced.feed(speedups.encode_cobsr(b"\x09")) == [b"\x09"]
    assert speedups.StuffingDecoder(max_frame=9, rules=stuffing()).feed(b"\xc0ab\xc0") == [b"ab"]
    with pytest.raises(TypeError):
        speedups.COBSDecoder(9, reduced=True)


def run(code: str, *options: str) -> None:
    """Run a program in a process of its own that has to end well and without a word."""
    root = Path(__file__).resolve().parent.parent
    path = os.pathsep.join([str(Path(packetcore.__file__).parent.parent), str(root)])
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


USE_ALL = """
from tests.c_cases import CASES, MADE
def use():
    for case in CASES:
        try:
            case.prepare()(*case.arguments)
        except Exception as error:
            assert type(error).__name__ in ("StopIteration", "LocalProtocolError"), (case.name, error)
use()
kept = [make() for make in MADE.values()]
"""

ENDS = {
    "at exit": "import atexit; atexit.register(use)",
    "in globals": "itself = [kept, use]; itself.append(itself)",
    "by a last method": """
class Last:
    def __init__(self):
        self.kept, self.use = kept, use
    def __del__(self):
        try:
            self.use()
        except Exception:
            pass  # modules may be gone
last = Last(); last.itself = last
""",
    "in threads": """
import threading
from tests.c_cases import speedups, FRAME
latch, begun = speedups.Latch(), threading.Barrier(3)
def wait():
    begun.wait()
    latch.wait(1000)
def feed():
    decoder = speedups.Decoder()
    begun.wait()
    while True:
        decoder.feed(FRAME * 10)
for target in (wait, feed):
    threading.Thread(target=target, daemon=True).start()
begun.wait()
""",
    "in a type": "import packetcore._speedups as s; s.Decoder.kept = kept; s.Packet.use = use",
    "twice": """
import sys
for name in [name for name in sys.modules if name.startswith(("packetcore", "tests"))]:
    del sys.modules[name]
from tests.c_cases import speedups, FRAME, PACKET
assert speedups.Decoder().feed(FRAME) == [PACKET] and type(PACKET) is not type(kept[0])
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_may_end_with_objects_of_all_types(end: str) -> None:
    run(USE_ALL + ENDS[end])


def test_each_interpreter_has_types_of_its_own_and_may_end_with_objects_of_all() -> None:
    if sys.version_info >= (3, 14):
        make = "from concurrent import interpreters as i\ndef once(code): i.create().exec(code)\n"
    else:
        module = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
        make = (
            f"import {module} as i\ndef once(code):\n    id = i.create()\n"
            "    wrong = i.run_string(id, code)\n    assert not wrong, wrong\n    i.destroy(id)\n"
        )
    # From 3.12 on each has a lock of its own, so that two run at once.
    run(
        USE_ALL
        + make
        + f"import threading\ncode = {USE_ALL!r}\n"
        + "threads = [threading.Thread(target=once, args=(code,)) for _ in range(2)]\n"
        + "for thread in threads: thread.start()\nfor thread in threads: thread.join()\n"
        + "once(code + 'itself = [kept, use]; itself.append(itself)')\nuse()\n"
    )
