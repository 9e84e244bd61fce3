"""The codec in C beside its twins in Python: whatever happens, and from inside what, both say the same.

A byte picks the pair. Where callbacks are asked, they do what the bytes say: feed, send, close, take things away and
raise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from fuzz.choices import Choices
from fuzz.implementations import in_c, in_python
from fuzz.program import Program, Stop
from packetcore import _speedups as speedups
from packetcore._codec import encode as python_encode
from packetcore._decoder import Decoder as PythonDecoder
from packetcore._items import Items as PythonItems
from packetcore._mask import masked as python_masked
from packetcore._order import Entry
from packetcore._order import Order as PythonOrder
from packetcore._output import Output as PythonOutput
from packetcore._sender import Sender as PythonSender
from packetcore.framings import Check, _check, _prefix, _stuffing, _zeros

Log = list[object]
LIMITS = (40, 0, 1, 8)


class Closed(Exception):
    """What a made-up session raises."""


ERRORS: tuple[type[BaseException], ...] = (
    ValueError,
    IndexError,
    StopIteration,
    StopAsyncIteration,
    KeyboardInterrupt,
    Closed,
    TypeError,
    Stop,
)


def fuzz(data: bytes) -> None:
    """A byte for the pair; then what happens to both."""
    compare = PAIRS[data[0] % len(PAIRS)] if data else PAIRS[0]
    compare(data[1:])


def outcome(call: Callable[[], object]) -> object:
    """What a call gives or raises, to be compared."""
    try:
        return call()
    except (Exception, KeyboardInterrupt, Stop) as error:
        return type(error).__name__, str(error)


def sessions(data: bytes) -> None:
    """Whole lives, of all parts together."""
    c, python = Program(in_c(), data, has_odd_hosts=True), Program(in_python(), data, has_odd_hosts=True)
    failed = [outcome(program.run) for program in (c, python)]
    assert c.log == python.log, _difference(c.log, python.log)
    assert [_kind(each) for each in failed[:1]] == [_kind(each) for each in failed[1:]]


def ruins(data: bytes) -> None:
    """Lives in C, in which callbacks delete and overwrite what a session stands on: it may raise, and not crash."""
    program = _Ruined(in_c(), data, has_odd_hosts=True)
    given = outcome(program.run)
    assert _kind(given) is None or given[0] != "SystemError", given  # type: ignore[index]


class _Ruined(Program):
    """Whose steps destroy it, and which takes whatever comes of that."""

    def __init__(self, core: Any, data: bytes, *, has_odd_hosts: bool) -> None:
        super().__init__(core, data, has_odd_hosts=has_odd_hosts)
        self.has_raised = True

    def state(self) -> tuple[object, ...]:
        return ()

    def step(self, byte: Callable[[], int]) -> None:
        which = byte()
        if which & 3 or not self.has_begun:
            super().step(byte)
            return
        self.steps += 1
        core, session = self.core, self.session
        connection = session._connection if which & 4 else getattr(session, "_connection", None)
        objects = (session, connection, getattr(session, "_output", None))
        victim = objects[(which >> 2) % 3]
        names = [name for name in dir(victim) if not name.startswith("__")]
        name = names[byte() % len(names)]
        odd = byte()
        if odd & 1:
            self.guarded("delete", lambda: delattr(victim, name))
            return
        values: tuple[Callable[[], object], ...] = (
            lambda: None,
            list,
            lambda: -1,
            lambda: 1 << 70,
            lambda: session,
            lambda: [core.Packet(1), core.Malformed(core.Reason.NOISE, 1, b""), 7, None],
            lambda: type(session._output)(self._frame, 10, False),
            lambda: core.Connection(now=0.0),
            lambda: core.Decoder(),
            lambda: float("nan"),
            lambda: self.called_back,
        )
        self.guarded("overwrite", lambda: setattr(victim, name, values[(odd >> 1) % len(values)]()))


def _kind(given: object) -> object:
    return given if isinstance(given, tuple) else None


def _difference(c: Log, python: Log) -> str:
    at = next(
        (at for at, (one, other) in enumerate(zip(c, python, strict=False)) if one != other), min(len(c), len(python))
    )
    return f"entry {at}: C {c[at : at + 3]}, Python {python[at : at + 3]}, behind {c[max(0, at - 3) : at]}"


def decoders(data: bytes) -> None:
    """Streams, ends and timeouts."""
    choices = Choices(data)
    limit = choices.pick(LIMITS)
    c, python = speedups.Decoder(max_payload=limit), PythonDecoder(max_payload=limit)
    _feed_both(choices, c, python)


def _feed_both(choices: Choices, c: Any, python: Any) -> None:
    while len(choices):
        size = choices.byte()
        if size < 16:
            method = "feed_eof" if size % 2 else "feed_timeout"
            assert getattr(c, method)() == getattr(python, method)(), method
        else:
            chunk = choices.take(size - 16)
            exact = memoryview(bytearray(chunk + b"\0"))[: len(chunk)]  # bytes have a byte more than they show
            events, expected = c.feed(exact), python.feed(chunk)
            assert events == expected, (events, expected)
            assert [*map(type, events)] == [*map(type, expected)]
        assert c.pending == python.pending
    assert c.feed_eof() == python.feed_eof()


def stuffings(data: bytes) -> None:
    """Flags and escapes, with checks of ours and of others."""
    choices = Choices(data)
    flag, escape, codes, xor = choices.pick(
        (
            (0x7E, 0x7D, {0x7E: 0x5E, 0x7D: 0x5D}, 0x20),
            (0xC0, 0xDB, {0xC0: 0xDC, 0xDB: 0xDD}, 0),
            (0x7E, 0x7D, {0x7E: 2, 0x7D: 0x7D, 0x11: 3}, 0),
            (0xFE, 0xFD, {0xFE: 1, 0xFD: 2}, 0),
        )
    )
    name = choices.pick(("", "fcs16", "fcs32", "crc16_modbus", "xor", "sum"))
    opens = bool(choices.byte() & 1)
    max_frame = choices.pick((40, 1, 4, 300))
    sizes = {"fcs16": 2, "fcs32": 4, "crc16_modbus": 2, "xor": 1}
    if name == "sum":
        summed = Check(1, lambda frame: bytes([sum(frame) & 0xFF]) if len(frame) % 7 else b"!!")
        checks: list[Check | None] = [summed, summed]
    else:
        checks = [Check(sizes[name], getattr(module, name)) if name else None for module in (speedups, _check)]
    c = speedups.Stuffing(flag, escape, codes, checks[0], xor, opens)
    python = _stuffing.Stuffing(flag, escape, codes, checks[1], xor, opens)
    frame = choices.take(choices.byte())
    sent = outcome(lambda: c.encode(frame))
    assert sent == outcome(lambda: python.encode(frame))
    if isinstance(sent, bytes):
        _feed_both(
            Choices(bytes([min(255, 16 + len(sent))]) + sent),
            speedups.StuffingDecoder(c, 300),
            _stuffing.StuffingDecoder(python, 300),
        )
    _feed_both(choices, speedups.StuffingDecoder(c, max_frame), _stuffing.StuffingDecoder(python, max_frame))


def zeros(data: bytes) -> None:
    """COBS and COBS/R."""
    choices = Choices(data)
    reduced = bool(choices.byte() & 1)
    max_frame = choices.pick((40, 1, 4, 300))
    frame = choices.take(choices.byte())
    if reduced:
        assert speedups.encode_cobsr(frame) == _zeros.encode_cobsr(frame)
    else:
        assert speedups.encode_cobs(frame) == _zeros.encode_cobs(frame)
    _feed_both(choices, speedups.COBSDecoder(max_frame, reduced), _zeros.COBSDecoder(max_frame, reduced))


def prefixes(data: bytes) -> None:
    """Length prefixes of all kinds."""
    choices = Choices(data)
    magic = choices.pick((b"", b"\xca", b"\x00\x01", b"aab"))
    arguments: Any = (
        choices.pick((4, 1, 2, 3, 8, "varint")),
        choices.pick(("big", "little")),
        len(magic) + choices.pick((0, 3)),
        choices.pick((0, 1, -1, -3, 5, 1 << 31, -(1 << 31))),
        bool(choices.byte() & 1),
        bool(choices.byte() & 1),
        magic,
        choices.pick((40, 1, 5, 300)),
    )
    _feed_both(choices, speedups.LengthPrefixDecoder(*arguments), _prefix.LengthPrefixDecoder(*arguments))


def bytes_alone(data: bytes) -> None:
    """Functions of bytes: frames, checks, masks."""
    choices = Choices(data)
    packet = in_c().Packet(choices.byte() << 8 | 0xFE, data, type=0xFD, count=choices.byte())
    assert speedups.encode(packet) == python_encode(packet)
    for name in ("fcs16", "fcs32", "crc16_modbus", "xor"):
        assert getattr(speedups, name)(data) == getattr(_check, name)(data), name
    key = choices.take(choices.byte() % 6)
    rest = choices.take(len(choices))
    assert outcome(lambda: speedups.masked(rest, key)) == outcome(lambda: python_masked(rest, key))


def packets(data: bytes) -> None:
    """`Packet` in both forms, made of anything."""
    choices = Choices(data)
    odd: tuple[object, ...] = (
        0, 1, 255, 256, 65535, 65536, -1, 1 << 80, True, None, "1", 1.0, b"ab", bytearray(b"ab"), memoryview(b"ab"),
        memoryview(b"abcd")[::2], [1],
    )  # fmt: skip
    arguments = [choices.pick(odd) for _ in range(choices.byte() & 3)]
    names = ("type", "count", "payload", "id", "kind")
    options = {choices.pick(names): choices.pick(odd) for _ in range(choices.byte() & 3)}
    changes = {choices.pick(names): choices.pick(odd) for _ in range(choices.byte() & 1)}
    what = choices.byte()
    shown = [outcome(partial(_shown, core, arguments, options, changes, what)) for core in (in_c(), in_python())]
    for each in shown:
        if isinstance(each, tuple) and each[0] == "TypeError":  # whose words are those of each language
            shown = [("TypeError",) if isinstance(one, tuple) and one[0] == "TypeError" else one for one in shown]
            break
    _are_alike([[*shown[:1]], [*shown[1:]]])


def _shown(
    core: Any, arguments: list[object], options: dict[str, object], changes: dict[str, object], what: int
) -> list[object]:
    packet = core.Packet(*arguments, **options)
    equal = copy.copy(packet)
    return [
        repr(packet),
        hash(packet) == hash(equal),
        packet == equal,
        packet != equal,
        packet == (*packet,),
        [*packet],
        len(packet),
        _words_left_out(lambda: packet[what % 6 - 1]),
        _words_left_out(lambda: repr(packet._replace(**changes))),
        _words_left_out(lambda: packet < equal),
        _words_left_out(lambda: setattr(packet, "id", 3)),
        getattr(packet, "__match_args__", None),
    ]


def _words_left_out(call: Callable[[], object]) -> object:
    given = outcome(call)
    return given[0] if isinstance(given, tuple) else given


def outputs(data: bytes) -> None:
    """Frames that wait, of an `encode` that acts from inside."""
    sides = ((speedups.Output, speedups.encode), (PythonOutput, python_encode))
    _are_alike([_output_log(make, encode, data) for make, encode in sides])


def _output_log(make: Any, its_encode: Any, data: bytes) -> Log:
    core = in_c()
    choices, log = Choices(data), Log()
    depth = 0

    def act(choice: Callable[[], int]) -> None:
        which = choice()
        given: object
        match which & 7:
            case 0 | 1:
                packet = core.Packet(which >> 3, bytes(which >> 4))
                given = outcome(lambda: output.put(packet))
            case 2:
                some = [core.Packet(number, bytes(which >> 3)) for number in range(which >> 6)]
                given = outcome(lambda: output.put_all(some))
            case 3:
                given = outcome(output.take)
            case 4:
                given = outcome(output.join)
            case 5:
                odd = (None, b"ab", [1, b"ab"], "text")[which >> 3 & 3]  # a tuple of four Python takes for a packet
                given = outcome(lambda: output.put(odd))
            case 6:
                given = outcome(lambda: output.put_all([core.Packet(1), which]))
            case _:
                given = None
        log.append((which, given, output.size, output.packets, output.bytes, output.taken))

    def encode(packet: Any) -> object:
        nonlocal depth
        which = choices.callback()
        if depth < 3:
            depth += 1
            for _ in range(which & 3):
                act(choices.callback)
            depth -= 1
        if which >> 5 == 7:
            raise ERRORS[which >> 2 & 7]
        if which >> 5 == 6:
            return "no bytes" if which & 4 else None
        return b"frame" * (which >> 3 & 3)

    how = choices.byte()
    own: Any = encode if how & 1 else its_encode
    output: Any = make(own, how >> 4, bool(how & 2))
    while len(choices):
        act(choices.byte)
    return log


def items(data: bytes) -> None:
    """What is iterated: what `take` and `wait` give, raise, and do."""
    _are_alike([_item_log(make, data) for make in (speedups.Items, PythonItems)])


def _item_log(make: Any, data: bytes) -> Log:
    choices, log = Choices(data), Log()
    depth, is_async = 0, False

    def give(name: str) -> object:
        nonlocal depth
        which = choices.callback()
        log.append(name)
        if which & 1 and depth < 3:
            depth += 1
            log.append(outcome(lambda: next(iterator)))
            depth -= 1
        if which & 2:  # a coroutine may not raise StopIteration
            raise ERRORS[3 if is_async and which >> 2 & 7 == 2 else which >> 2 & 7](which)
        return (which, "item") if which & 4 else which

    iterator: Any = make(lambda: give("take"), lambda: give("wait"))
    while len(choices):
        is_async = not choices.byte() & 1
        if not is_async:
            log.append(outcome(lambda: next(iterator)))
        else:
            log.append(outcome(lambda: _step(iterator.__anext__())))
    return log


def _step(awaitable: Any) -> object:
    """Await something that is there, or say what comes in its place."""
    coroutine = _await(awaitable)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    return "it waits"


async def _await(awaitable: Any) -> object:
    return await awaitable


def senders(data: bytes) -> None:
    """A stream's `send`, over a session that answers anything."""
    _are_alike([_sender_log(make, data) for make in (speedups.Sender, PythonSender)])


def _sender_log(make: Any, data: bytes) -> Log:
    choices, log = Choices(data), Log()
    depth = 0

    def answer(name: str, *args: object, **options: object) -> object:
        nonlocal depth
        which = choices.callback()
        log.append((name, args, options))
        if which & 1 and depth < 3:
            depth += 1
            log.append(outcome(lambda: sender(which)))
            depth -= 1
        if which & 2:
            raise ERRORS[which >> 2 & 7](name)
        return bool(which & 4)

    class Session:
        def send(self, item: object, /) -> object:
            return answer("session", item)

    sent = (lambda: answer("sent")) if choices.byte() & 1 else None
    sender: Any = make(Session(), lambda: answer("drain"), lambda *a, **o: answer("send", *a, **o), Closed, sent)
    while len(choices):
        which = choices.byte()
        args = tuple(range(which & 1)) if which & 4 else (which,)
        options = {"wait": which} if which & 8 else {}
        log.append(outcome(partial(sender, *args, **options)))
    return log


def orders(data: bytes) -> None:
    """A pool's order."""
    choices = Choices(data)
    make: Any = speedups.Order
    c, python = make(), PythonOrder[int]()
    now, last = 0.0, 0
    while len(choices):
        which, id = choices.byte(), choices.byte()
        now += (which >> 5) - 1
        match which & 7:
            case 0 | 1 | 2:
                for _ in range(id % 40 + 1):
                    last += 1
                    assert c._put(Entry(last, None), now) == python._put(Entry(last, None), now)
            case 3:
                id = last - id if which & 8 else id
                assert _session(c._take(id)) == _session(python._take(id))
            case 4:
                assert c.refresh(id, now) == python.refresh(id, now)
            case 5:
                latest = python._advance(now)
                assert c._advance(now) == latest
                assert _session(c._take_silent(float(id), latest)) == _session(python._take_silent(float(id), latest))
            case 6:
                for each in range(0, id, 3):
                    assert _session(c._take(last - each)) == _session(python._take(last - each))
            case _:
                odd: Any = (None, "1", 2, -1, 1 << 70, True, b"")[id % 7]
                assert (odd in c) == (odd in python)
        assert len(c) == len(python)
        assert (c._since(), _session(c._first())) == (python._since(), _session(python._first()))
        assert c.refreshed(id) == python.refreshed(id)
    assert [entry.session for entry in c._entries()] == [entry.session for entry in python._entries()]


def _session(entry: Any) -> object:
    return None if entry is None else entry.session


def _are_alike(logs: list[Log]) -> None:
    assert logs[0] == logs[1], _difference(*logs)


PAIRS: tuple[Callable[[bytes], None], ...] = (
    sessions,
    decoders,
    stuffings,
    zeros,
    prefixes,
    bytes_alone,
    packets,
    outputs,
    items,
    senders,
    orders,
    ruins,
)
