"""One connection through a tap, whatever carries it: its two directions, what it is told to do to them, and who
is told of it."""

from __future__ import annotations

import enum
import logging
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Literal, ParamSpec

from packetcore import Address, Handle, Malformed, Packet, SyncCondition
from packetcore.framings import Framing
from packetcore_sockets import AddressInfo, SyncRuntime
from packetcore_tap._capture import Side
from packetcore_tap._direction import DIRECTIONS, Both, Direction, directions_of
from packetcore_tap._fault import Fault, due, until_next
from packetcore_tap._impairments import Impairments
from packetcore_tap._link import DatagramLink, StreamLink
from packetcore_tap._recording import Recording
from packetcore_tap._sight import Seen, Sight

log = logging.getLogger("packetcore")

P = ParamSpec("P")


class Ending(enum.Enum):
    """How a connection through a tap ended."""

    FINISHED = "both sides have finished"
    RESET_BY_CLIENT = "the client reset it"
    RESET_BY_SERVER = "the server reset it"
    RESET_BY_TAP = "the tap reset it"
    UNREACHABLE = "the target cannot be reached"
    IDLE = "nothing passed for too long"
    CLOSED = "the tap was closed"


SENDERS: dict[Direction, Side] = {"to_server": Side.CLIENT, "to_client": Side.SERVER}
"""Whose bytes go that way."""

_RESETS = {
    Ending.RESET_BY_CLIENT: Side.CLIENT,
    Ending.RESET_BY_SERVER: Side.SERVER,
    Ending.RESET_BY_TAP: Side.SERVER,  # or the client: each hears it of the other
}


@dataclass(slots=True)
class Passed:
    """What has passed on in one direction."""

    bytes: int = 0
    packets: int = 0
    """Packets, or frames of another framing."""
    malformed: int = 0
    dropped: int = 0
    """Datagrams for which the link or the system had no room; what is lost as told is not among them."""


class TapObserver:
    """Is told what a tap does, on the tap's own thread: what is called here must not block, and may use the tap.
    Every method is optional."""

    def opened(self, connection: TapConnection) -> None:
        """A client has come."""

    def passed(self, connection: TapConnection, direction: Direction, data: bytes) -> None:
        """A piece of a stream, or a datagram, has been passed on."""

    def seen(self, connection: TapConnection, seen: Seen) -> None:
        """That has completed a packet, or something malformed."""

    def encrypted(self, connection: TapConnection) -> None:
        """The client speaks TLS, so that nothing will be seen."""

    def failed(self, connection: TapConnection, error: OSError) -> None:
        """The system refuses a datagram, or tells that one did not arrive: once for each reason."""

    def ended(self, connection: TapConnection, direction: Direction) -> None:
        """The end of a direction of a stream has been passed on."""

    def closed(self, connection: TapConnection, ending: Ending, error: OSError | None) -> None:
        """It is over. `error` says more where the target cannot be reached."""


@dataclass
class Line:
    """What the connections of one tap share. All of it has the lock of the loop."""

    loop: SyncRuntime
    target: Sequence[AddressInfo]
    impairments: dict[Direction, Impairments]
    faults: Sequence[Fault]
    seed: int
    framing: Framing | None
    max_payload: int
    observer: TapObserver
    recording: Recording | None
    seen: deque[Seen]
    changed: SyncCondition
    connections: dict[int, TapConnection] = field(default_factory=dict)
    opened: int = 0
    totals: dict[Direction, Passed] = field(default_factory=lambda: {each: Passed() for each in DIRECTIONS})
    stalled: set[Direction] = field(default_factory=set)
    black_holes: set[Direction] = field(default_factory=set)

    def tell(self, heard: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the observer by one of its methods, and who waits for a change."""
        try:
            heard(*args, **kwargs)
        except Exception:
            log.exception("the observer of a tap failed in %r", getattr(heard, "__name__", heard))
        self.changed.notify_all()


NewLink = Callable[[Impairments, Random], StreamLink | DatagramLink]


class Flow:
    """One direction of a connection.

    Args:
        line: what it is part of.
        number: the connection's.
        direction: which way.
        new_link: makes what it passes through.
    """

    def __init__(self, line: Line, number: int, direction: Direction, new_link: NewLink) -> None:
        self.direction = direction
        self.passed = Passed()
        self._line = line
        self._link = new_link(line.impairments[direction], Random(f"{line.seed} {number} {direction}"))
        self._timer: Handle | None = None
        self._due_at = 0.0
        if direction in line.stalled:
            self._link.stall()
        if direction in line.black_holes:
            self._link.black_hole()

    @abstractmethod
    def go_on(self) -> None:
        """Do what is to be done by now."""

    def impair(self, impairments: Impairments) -> None:
        """Do something else to what comes from now on."""
        self._link.impairments = impairments
        self.go_on()

    def stall(self) -> None:
        """Let nothing arrive until `resume`."""
        self._link.stall()
        self.go_on()

    def resume(self) -> None:
        """End a stall."""
        self._link.resume()
        self.go_on()

    def black_hole(self) -> None:
        """Lose what is under way and what is yet to come."""
        self._link.black_hole()
        self.go_on()

    def call_off(self) -> None:
        """Have its timer not fire."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on_at(self, at: float | None) -> None:
        if self._timer is not None:
            if at is not None and self._due_at <= at:
                return  # it will look again
            self.call_off()
        if at is not None:
            self._due_at = at
            self._timer = self._line.loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        self.go_on()


class TapConnection:
    """One connection through a tap, or over UDP the client at one address. Any thread may use it.

    Args:
        line: what it is part of.
        client: its client's address.
        is_stream: whether it is TCP.
    """

    to_server: Flow
    to_client: Flow

    def __init__(self, line: Line, client: Address, *, is_stream: bool) -> None:
        line.opened += 1
        self.number = line.opened
        """Counts up from 1."""
        self.client = client
        """Its client's address."""
        self.server: Address = line.target[0][4]
        """Its server's address: before it is known the first of those that may be."""
        self.is_open = True
        """Whether it goes on."""
        self.is_connected = False
        """Whether the target has answered."""
        self.is_stream = is_stream
        """Whether it is TCP; else UDP."""
        self._line = line
        self._sight = Sight(line.framing, line.max_payload, is_stream=is_stream)
        self._timers: list[Handle] = []
        line.connections[self.number] = self

    @property
    def is_encrypted(self) -> bool:
        """Whether the client speaks TLS, so that nothing is seen."""
        return self._sight.is_encrypted

    def passed(self, direction: Direction) -> Passed:
        """What has passed on in a direction until now."""
        with self._line.loop.lock:
            return replace(self._flow(direction).passed)

    def stall(self, direction: Both = "both") -> None:
        """Let nothing arrive until `resume`. What is sent waits, and once the link's buffer is full the sender
        does; over UDP it is lost then."""
        with self._line.loop.lock:
            for flow in self._flows(direction):
                flow.stall()

    def resume(self, direction: Both = "both") -> None:
        """End a stall."""
        with self._line.loop.lock:
            for flow in self._flows(direction):
                flow.resume()

    def black_hole(self, direction: Both = "both") -> None:
        """Lose what is under way and all that is yet to come, ends and resets too, and tell nobody."""
        with self._line.loop.lock:
            for flow in self._flows(direction):
                flow.black_hole()

    def reset(self) -> None:
        """Reset it on both sides. Over UDP forget it: its client's next datagram comes to the server from
        another port, as behind a NAT that was rebooted."""
        with self._line.loop.lock:
            self.finish(Ending.RESET_BY_TAP)

    def close(self) -> None:
        """Tell both sides that the other has finished, and lose what is under way and yet to come. Over UDP the
        same as `reset`."""
        self.reset()

    def finish(self, ending: Ending, error: OSError | None = None) -> None:
        """End it at once. Idempotent; with the lock."""
        if not self.is_open:
            return
        self.is_open = False
        for timer in self._timers:
            timer.cancel()
        for flow in self._flows():
            flow.call_off()
        self.release(ending)
        for direction in DIRECTIONS:
            self._saw(direction, self._sight.end(direction))
        if self._line.recording is not None:
            comment = "" if ending is Ending.FINISHED else ending.value
            self._line.recording.closed(self, reset=_RESETS.get(ending), comment=comment)
        self._line.connections.pop(self.number, None)
        self._line.tell(self._line.observer.closed, self, ending, error)

    @abstractmethod
    def release(self, ending: Ending) -> None:
        """Close what it has open."""

    def begin(self) -> None:
        """Tell that it is there, and set timers for the faults to come."""
        line = self._line
        line.tell(line.observer.opened, self)
        now = line.loop.time()
        for fault in line.faults:
            if fault.after_seconds is not None and self.is_open:
                self._timers.append(line.loop.call_at(now + fault.after_seconds, partial(self.suffer, fault)))
        for flow in self._flows():
            self._suffer_due(flow, before=-1)

    def connected(self) -> None:
        """The target has answered."""
        self.is_connected = True
        if self._line.recording is not None:
            comment = f"connection {self.number} of a tap"
            kind: Literal["stream", "datagram"] = "stream" if self.is_stream else "datagram"
            self._line.recording.opened(self, self.client, self.server, kind=kind, comment=comment)
        self._line.changed.notify_all()

    def until_fault(self, flow: Flow) -> int | None:
        """Bytes that may pass until the next fault; `None` for any number."""
        return until_next(self._line.faults, flow.direction, flow.passed.bytes)

    def note(self, flow: Flow, data: bytes) -> None:
        """A piece has passed on."""
        line, direction = self._line, flow.direction
        before = flow.passed.bytes
        flow.passed.bytes += len(data)
        line.totals[direction].bytes += len(data)
        if line.recording is not None:
            line.recording.data(self, SENDERS[direction], data)
        line.tell(line.observer.passed, self, direction, data)
        was_encrypted = self._sight.is_encrypted
        self._saw(direction, self._sight.look(direction, data))
        if self._sight.is_encrypted and not was_encrypted:
            line.tell(line.observer.encrypted, self)
        self._suffer_due(flow, before)

    def note_end(self, flow: Flow) -> None:
        """The end of a direction has passed on."""
        self._saw(flow.direction, self._sight.end(flow.direction))
        if self._line.recording is not None:
            self._line.recording.ended(self, SENDERS[flow.direction])
        self._line.tell(self._line.observer.ended, self, flow.direction)

    def drop(self, flow: Flow) -> None:
        """A datagram was lost for want of room."""
        flow.passed.dropped += 1
        self._line.totals[flow.direction].dropped += 1

    def suffer(self, fault: Fault) -> None:
        """Have a fault happen."""
        if not self.is_open:
            return
        match fault.action:
            case "stall":
                self.stall(fault.direction)
            case "black_hole":
                self.black_hole(fault.direction)
            case "reset":
                self.reset()
            case "close":
                self.close()

    def _saw(self, direction: Direction, events: Sequence[Packet | bytes | Malformed]) -> None:
        line, flow = self._line, self._flow(direction)
        for event in events:
            for counts in (flow.passed, line.totals[direction]):
                if isinstance(event, Malformed):
                    counts.malformed += 1
                else:
                    counts.packets += 1
            seen = Seen(time.time(), self.number, direction, event)
            line.seen.append(seen)
            line.tell(line.observer.seen, self, seen)

    def _suffer_due(self, flow: Flow, before: int) -> None:
        for fault in due(self._line.faults, flow.direction, before, flow.passed.bytes):
            self.suffer(fault)

    def _flow(self, direction: Direction) -> Flow:
        return self.to_server if direction == "to_server" else self.to_client

    def _flows(self, direction: Both = "both") -> list[Flow]:
        return [self._flow(each) for each in directions_of(direction)]
