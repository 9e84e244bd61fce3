"""A session's life as a fuzzer writes it: what its peer, its socket and its application do, and what the handler
and the host's verbs do from inside, written down as values that the two implementations can be compared by.

`core` is a whole package, `packetcore` or its twin (`fuzz.implementations`): nothing here may mix what comes of two.
"""

from __future__ import annotations

import enum
import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any

from fuzz.choices import Choices

MOST_STEPS = 200
"""Steps of one program, those from inside included: what feeds itself would have no end."""

DEEPEST = 4
"""How far inside each other callbacks act."""

BIT = 0x80


class Stop(BaseException):
    """Nobody's mistake and nobody's business: what a debugger or a greenlet may raise anywhere."""


class Program:
    """One session and all that happens to it.

    Args:
        core: the package.
        data: the bytes that decide.
        has_odd_hosts: whether a verb of the host may raise, which none of ours does, and callbacks raise what no
            handler should, or take attributes away.
    """

    def __init__(self, core: Any, data: bytes, *, has_odd_hosts: bool) -> None:
        self.core = core
        self.choices = Choices(data)
        self.has_odd_hosts = has_odd_hosts
        self.log: list[object] = []
        self.depth = 0
        self.steps = 0
        self.now = 100.0
        self.fed = b""  # while the session took it
        self.was_timed = False  # so that what is pending may have been given up
        self.has_raised = False  # what was let through
        self.has_begun = False
        self.is_decoding = False  # in the middle of a run: nobody says what it is then to be fed
        self.has_asked = False
        self.requests: list[Any] = []
        self.held = b""  # of a frame that was begun
        make_config = self.choices.byte()
        shape = self.choices.byte()
        self.framing, codec = self._framing(shape & 7)
        self.joins = bool(make_config & 1) and self.framing is None
        self.config = core.Config(
            max_payload=(40, 8)[make_config >> 1 & 1],
            join_messages=self.joins,
            max_message=60,
            max_pending_messages=2,
            message_timeout=3.0,
            frame_timeout=(None, 2.0)[make_config >> 2 & 1],
            idle_timeout=(None, 4.0)[make_config >> 3 & 1],
            close_timeout=2.0,
            keepalive_interval=(None, 1.0)[make_config >> 4 & 1] if self.framing is None else None,
            keepalive_packet=core.Packet(9, b"beat") if self.framing is None else None,
            write_high_water=(64, 1 << 16)[make_config >> 5 & 1],
            write_low_water=16,
            max_outstanding=(200, 1 << 20)[make_config >> 5 & 1],
            on_malformed=("skip", "close")[make_config >> 6 & 1],
            max_requests_in_flight=(None, 1)[make_config >> 7],
            request_hold=1.0,
        )
        self.handler = _handler(self, takes_batches=bool(shape & 8), hears_of_writes=bool(shape & 16))
        self.endpoint = core.Endpoint(
            self.handler,
            self.config,
            is_server=not shape & 32,
            framing=self.framing,
            codec=codec,
            log_exception=lambda message: self.note("logged", message),
        )
        self.endpoint.on_ended = lambda error: self.note("ended", error)
        self.host = _Host(self)
        self.session: Any = core.Session(self.endpoint, self.host, ("192.0.2.1", 5000), self.now)

    # What is written down.

    def note(self, *what: object) -> None:
        """Write something down."""
        self.log.append(tuple(map(self.plain, what)))

    def plain(self, value: object) -> object:
        """A value that has the same form whoever made it."""
        core = self.core
        if isinstance(value, core.Packet):
            return ("Packet", *value)
        if isinstance(value, core.Session):
            return "session"
        if isinstance(value, BaseException):
            return (type(value).__name__, str(value))
        if isinstance(value, enum.Enum):
            return value.name
        if is_dataclass(value) and not isinstance(value, type):
            return (type(value).__name__, *(self.plain(getattr(value, field.name)) for field in fields(value)))
        if isinstance(value, (list, tuple)):
            return [*map(self.plain, value)]
        if isinstance(value, dict):
            return {self.plain(key): self.plain(each) for key, each in value.items()}
        if isinstance(value, (bytes, bytearray, str, int, float, type(None))):
            return value
        return type(value).__name__

    def state(self) -> tuple[object, ...]:
        """What of the session everybody can see."""
        session = self.session
        return (
            session.is_open,
            session.is_over,
            session.close_reason,
            session.outstanding,
            session.bytes_sent,
            session.bytes_gone,
            session.bytes_received,
            session.has_room,
            session.write_paused,
            session.unanswered,
            session.stats,
            self.host.timer,
            repr(session),
        )

    # What happens.

    def run(self) -> list[object]:
        """Let all of it happen. Gives what was written down."""
        self.guarded("opened", lambda: self.session.opened(self.now))
        self.has_begun = True
        while len(self.choices) and self.steps < MOST_STEPS:
            self.step(self.choices.byte)
            self.note(*self.state())
        self.steps = MOST_STEPS  # what is told of the end does nothing more
        self.guarded("lost", lambda: self.session.lost(None, self.now))
        self.note(*self.state())
        return self.log

    def guarded(self, name: str, call: Callable[[], object]) -> None:
        """Do one thing, and note what it gives or raises."""
        try:
            self.note(name, call())
        except (Exception, Stop, SystemExit, KeyboardInterrupt) as error:
            self.note(name, error)
            if not (isinstance(error, self._announced()) or self.has_raised):
                raise

    def _announced(self) -> tuple[type[Exception], ...]:
        core = self.core
        return (core.SessionClosed, core.LocalProtocolError, core.RequestPending, core.IdentityTaken)

    def called_back(self, *what: object) -> None:
        """A callback: note it, and do what is to be done inside."""
        self.note(*what)
        if self.depth >= DEEPEST or self.steps >= MOST_STEPS:
            return
        action = self.choices.callback()
        self.depth += 1
        try:
            for _ in range(action & 3 if action & 4 else action and 1):
                self.step(self.choices.callback)
        finally:
            self.depth -= 1
        if action & 0xF8 == 0xF8:
            self._raise(action & 7)

    def called_back_quietly(self, *what: object) -> None:
        """A callback that must not raise, and does not where all are good."""
        try:
            self.called_back(*what)
        except BaseException:
            if self.has_odd_hosts:
                self.has_raised = True
                raise

    def _raise(self, which: int) -> None:
        kinds: tuple[Callable[[], BaseException], ...] = (
            lambda: ValueError("a handler's"),
            lambda: self.core.SessionClosed(None),
            lambda: SystemExit(3),
            lambda: KeyboardInterrupt(),
            lambda: StopIteration(),
            lambda: MemoryError("made up"),
        )
        if self.has_odd_hosts and which == 7:
            self.has_raised = True
            raise Stop
        raise kinds[which % 6]()

    def step(self, byte: Callable[[], int]) -> None:
        """One thing that somebody does."""
        self.steps += 1
        which = byte()
        if which & BIT and self.is_decoding:
            return
        if which & BIT:  # most of what happens is that something comes
            self.guarded("received", lambda: self._receive(which, byte()))
            return
        name, act = STEPS[which % len(STEPS)]
        self.guarded(name, lambda: act(self, byte()))

    def _receive(self, which: int, size: int) -> None:
        core = self.core
        raw = bytes((which * 7 + size * number) & 0xFF for number in range(size & 7))
        frame = self._frame(self._packet(size, raw))
        match which & 7:
            case 0:
                data = frame
            case 1:
                data = frame * (2 + (size & 3))
            case 2:
                data, self.held = frame[: size % len(frame)], frame[size % len(frame) :]
            case 3:
                data, self.held = self.held, b""
            case 4:
                data = frame[:3] + raw + frame[3:]
            case 5:
                data = self.choices.take(size & 31)
            case 6:
                data = frame[1:] + frame
            case _:
                data = raw
        if self.session._connection.state is core.State.OPEN:
            self.fed += data
        self.session.received(memoryview(data) if size & 64 else data, self.now)

    def _packet(self, size: int, payload: bytes) -> Any:
        if self.framing is None:
            return self.core.Packet(size >> 4 & 3, payload, type=size & 1, count=size >> 2 & 3)
        return payload or b"a"

    def _frame(self, packet: Any) -> bytes:
        frame: bytes = self.core.encode(packet) if self.framing is None else self.framing.encode(packet)
        return frame

    def _framing(self, which: int) -> tuple[Any, Any]:
        framings = self.core.framings
        if which == 1:
            return framings.COBS(), None
        if which == 2:
            return framings.HDLC(), _Codec(self)
        if which == 3:
            check = framings.Check(1, self._check)
            return framings.ByteStuffing(0x7E, 0x7D, xor=0x20, check=check), None
        if which == 4:
            return framings.LengthPrefix(1), None
        return None, None

    def _check(self, frame: bytes) -> bytes:
        if self.has_begun:
            outer, self.is_decoding = self.is_decoding, True
            try:
                self.called_back_quietly("check", frame)
            finally:
                self.is_decoding = outer
        return bytes([sum(frame) & 0xFF])

    # What an application asks for.

    def ask(self, choice: int) -> None:
        """Make a request of any kind."""
        self.has_asked = True
        payload = bytes(choice & 7)
        what = self._packet(choice, payload) if choice & 8 or self.framing is not None else payload
        match = self._matches if choice & 16 or self.framing is not None else None
        self.requests.append(
            self.session.request(
                what,
                lambda reply: self.called_back_quietly("reply", reply),
                match=match,
                timeout=1.0 if choice & 32 else None,
                wait=bool(choice & 64) and self.framing is None,
            )
        )

    def _matches(self, packet: Any) -> bool:
        self.called_back_quietly("match", packet)
        return not packet if isinstance(packet, bytes) else bool(packet.id & 1)


def _wait(program: Program, choice: int) -> None:
    program.now += (choice & 15) / 4 - (choice >> 7)
    program.was_timed = True
    program.session.tick(program.now)
    deadline = program.session._connection.next_deadline()
    if program.depth == 0 and deadline is not None and not program.session.is_over:
        assert deadline > program.now or choice >> 7 or program.session._running or _has_hung_up(program), deadline


def _has_hung_up(program: Program) -> bool:
    return program.session._connection.state is not program.core.State.OPEN


def _send(program: Program, choice: int) -> object:
    payload = bytes(choice >> 2)
    return program.session.send(program._packet(choice, payload))


def _send_odd(program: Program, choice: int) -> None:
    core = program.core
    odd = (
        None,
        (1, b"", 0, 1),
        core.Message(1, bytes(choice), 0),
        "text",
        7,
        core.Malformed(core.Reason.NOISE, 1, b""),
    )
    with suppress(TypeError, ValueError):
        program.note("room", program.session.send(odd[choice % len(odd)]))


def _send_message(program: Program, choice: int) -> None:
    with suppress(ValueError):
        program.session.send_message(bytes(choice), id=choice & 3, chunk=(choice & 15) or None)


def _drain_host(program: Program, choice: int) -> None:
    program.host.takes = choice
    program.host.drain()


def _let_go(program: Program, choice: int) -> None:
    """Take away what only the session may still know of."""
    program.requests.clear()
    program.held = b""
    if choice & 1:
        program.endpoint.sessions.remove(program.session.id)
    if choice & 2:
        gc.collect()
    if choice & 4:
        program.host.timer = None


def _forget(program: Program, choice: int) -> None:
    if program.requests:
        program.session.forget(program.requests.pop(choice % len(program.requests)))


def _bind(program: Program, choice: int) -> None:
    program.session.bind(choice & 1, "reject" if choice & 2 else "replace")


def _lose(program: Program, choice: int) -> None:
    program.session.lost(OSError("made up") if choice & 1 else None, program.now)


def _drain(program: Program, choice: int) -> None:
    program.session.drain(program.now)


STEPS: tuple[tuple[str, Callable[[Program, int], object]], ...] = (
    ("flush", lambda program, _: program.session.flush(program.now)),
    ("send", _send),
    ("wait", _wait),
    ("drain the host", _drain_host),
    ("send", _send),
    ("request", Program.ask),
    ("pause", lambda program, _: program.session.pause()),
    ("resume", lambda program, _: program.session.resume()),
    ("close", lambda program, _: program.session.close()),
    ("send_message", _send_message),
    ("forget", _forget),
    ("congested", lambda program, _: program.session.congested(program.now)),
    ("send something odd", _send_odd),
    ("bind", _bind),
    ("touch", lambda program, _: program.session.touch(program.now)),
    ("let go", _let_go),
    ("drain", _drain),
    ("eof", lambda program, choice: program.session.eof(program.now, truncated=choice & 7 == 7)),
    ("abort", lambda program, _: program.session.abort()),
    ("lost", _lose),
)


class _Host:
    """A socket that takes what it is told to, and whose verbs act from inside."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.written = bytearray()
        self.takes = 1 << 30
        self.untold = 0
        self.timer: float | None = None

    def write(self, data: bytes) -> int:
        self.written += data
        self.untold += len(data)
        self.program.called_back_quietly("write", data)
        return self.taken()

    def taken(self) -> int:
        taken = min(self.takes, self.untold)
        self.takes -= taken
        self.untold -= taken
        return taken

    def drain(self) -> None:
        if taken := self.taken():
            self.program.session.sent_bytes(taken, self.program.now)

    def write_eof(self) -> None:
        self.program.called_back_quietly("write_eof")

    def set_timer(self, at: float | None) -> None:
        self.program.note("set_timer", at)
        self.timer = at

    def pause_reading(self) -> None:
        self.program.called_back_quietly("pause_reading")

    def resume_reading(self) -> None:
        self.program.called_back_quietly("resume_reading")

    def close(self) -> None:
        self.program.called_back_quietly("close")

    def abort(self) -> None:
        self.program.called_back_quietly("abort")

    def wake(self) -> None:
        self.program.note("wake")

    def carrier(self) -> Any:
        return self.program.core.Carrier("tcp")


class _Codec:
    """Frames as lists of ints, by a codec that acts from inside."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __repr__(self) -> str:
        return "codec"

    def encode(self, packet: object) -> bytes:
        if not isinstance(packet, (list, bytes)):
            raise TypeError("only lists of ints")
        if self.program.has_begun:
            self.program.called_back_quietly("encode")
        return bytes(packet)

    def decode(self, frame: bytes) -> list[int]:
        self.program.called_back_quietly("decode", frame)
        if frame[:1] == b"\0":
            raise ValueError("no frame of ours")
        return [*frame]


def _handler(program: Program, *, takes_batches: bool, hears_of_writes: bool) -> Any:
    """A handler of `program.core` that notes every call and acts from inside."""
    core = program.core

    class Handler(core.Handler):  # type: ignore[misc, name-defined]  # of a package that is chosen as we run
        def connected(self, session: object) -> None:
            program.called_back("connected")

        def packet_received(self, session: object, packet: object) -> None:
            program.called_back("packet", packet)

        def message_received(self, session: object, message: object) -> None:
            program.called_back("message", message)

        def malformed(self, session: object, malformed: object) -> None:
            program.called_back("malformed", malformed)

        def writable(self, session: object) -> None:
            program.called_back("writable")

        def eof_received(self, session: object) -> None:
            program.called_back("eof_received")

        def draining(self, session: object) -> None:
            program.called_back("draining")

        def disconnected(self, session: object, reason: object) -> None:
            program.called_back("disconnected", reason)

    def packets_received(self: object, session: object, packets: list[object]) -> None:
        program.called_back("packets", packets)
        packets.clear()

    def sent(self: object, session: object, nbytes: int) -> None:
        program.called_back("sent", nbytes)

    if takes_batches:
        Handler.packets_received = packets_received
    if hears_of_writes:
        Handler.sent = sent
    return Handler()
