"""`Connection` against a model that works everything out anew from all that has happened."""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from packetcore import (
    TRANSITIONS,
    Closed,
    CloseReason,
    Config,
    Connection,
    EndOfStream,
    Event,
    Input,
    LocalProtocolError,
    Malformed,
    Packet,
    SessionClosed,
    State,
    encode,
)
from packetcore_conformance.strategies import frames, packets, streams
from tests.hostile import Reference

MAX_PAYLOAD = 8
KEEPALIVE = Packet(0, b"ping")

quarters = st.integers(0, 16).map(lambda n: n / 4)
"""Seconds that add up without rounding."""

timeouts = st.sampled_from([None, 2.0, 5.0, 20.0, 60.0])
configs = st.builds(
    Config,
    max_payload=st.just(MAX_PAYLOAD),
    idle_timeout=st.sampled_from([None, 20.0, 60.0]),  # one that is short ends most runs
    frame_timeout=timeouts,
    close_timeout=timeouts,
    keepalive_interval=timeouts,
    keepalive_packet=st.just(KEEPALIVE),
    on_malformed=st.sampled_from(["skip", "skip", "close"]),
)

data = st.one_of(frames(MAX_PAYLOAD), streams(MAX_PAYLOAD, max_pieces=3), st.binary(max_size=4))


class ConnectionMachine(RuleBasedStateMachine):
    """Keeps every byte with the time it came; what a connection should say follows."""

    @initialize(config=configs, now=quarters)
    def open(self, config: Config, now: float) -> None:
        self.config = config
        self.connection = Connection(config, now=now)
        self.clock = now  # what the caller says; it may step back
        self.latest = now  # the latest it said
        self.state = State.OPEN
        self.rest = b""  # of a frame that has come in part
        self.before = 0  # bytes that came before the stream that is looked at: they were given up
        self.stream = b""
        self.reference = Reference(b"", MAX_PAYLOAD)
        self.arrivals: list[float] = []
        self.heard = self.taken = self.closing_since = self.resumed = now
        self.reading = True
        self.close_reason = CloseReason.LOCAL
        self.output = b""
        self.packets_sent = 0
        self.events: list[Event] = []

    @precondition(lambda self: self.state is State.CLOSED)
    @rule(config=configs, now=quarters)
    def open_another(self, config: Config, now: float) -> None:
        self.take_output()
        self.open(config, now)

    # The model.

    def at(self, step: float) -> float:
        """The time of the next input, `step` after the last; it may be negative."""
        self.clock += step
        self.latest = max(self.latest, self.clock)
        return self.clock

    def frame_since(self) -> float | None:
        """When the oldest byte came that is still pending, or when its time began anew."""
        pending = self.reference.pending
        if self.state is not State.OPEN or not pending:
            return None
        return max(self.arrivals[-pending], self.resumed)

    def deadlines(self) -> dict[str, float]:
        """What is waited for, and until when."""
        found: dict[str, float] = {}

        def wait(name: str, since: float | None, timeout: float | None) -> None:
            if since is not None and timeout is not None:
                found[name] = since + timeout

        if self.state is State.CLOSING:
            wait("close", self.closing_since, self.config.close_timeout)
        elif self.state is not State.CLOSED:
            wait("frame", self.frame_since() if self.reading else None, self.config.frame_timeout)
            wait("idle", self.heard, self.config.idle_timeout)
            wait("keepalive", self.latest if self.output else self.taken, self.config.keepalive_interval)
        return found

    def expect(self, got: list[Event], wanted: list[Event]) -> None:
        assert got == wanted
        self.events += got

    def ended(self, reason: CloseReason) -> list[Event]:
        """The events of a sudden end."""
        cut_short = self.reference.at_eof if self.state is State.OPEN else []
        if self.state is State.CLOSING:
            reason = self.close_reason
        self.state = State.CLOSED
        return [*cut_short, Closed(reason)]

    def policed(self, events: list[Packet | Malformed]) -> list[Event]:
        """What is left of events where a malformed frame ends the connection."""
        if self.config.on_malformed == "close":
            for number, event in enumerate(events):
                if isinstance(event, Malformed):
                    self.state = State.CLOSED
                    return [*events[: number + 1], Closed(CloseReason.PROTOCOL_ERROR)]
        return [*events]

    # Inputs. `step` is how far the clock goes before each.

    @rule(data=data, step=quarters)
    def receive_data(self, data: bytes, step: float) -> None:
        if (self.state, Input.DATA) not in TRANSITIONS:
            self.refused(lambda: self.connection.receive_data(data, self.clock + step))
            return
        got = self.connection.receive_data(data, self.at(step))
        if self.state is not State.OPEN:
            self.expect(got, [])
            return
        if data:
            self.heard = self.latest
        before = len(self.reference.events)
        self.stream += data
        self.reference = Reference(self.stream, MAX_PAYLOAD)
        self.arrivals += [self.latest] * len(data)
        self.expect(got, self.policed(self.reference.events[before:]))

    @precondition(lambda self: self.state is State.OPEN)
    @rule(packet=packets(MAX_PAYLOAD), size=st.integers(1, 20), step=quarters)
    def receive_part_of_a_packet(self, packet: Packet, size: int, step: float) -> None:
        frame = self.rest or encode(packet)
        self.rest = frame[size:]
        self.receive_data(frame[:size], step)

    @precondition(lambda self: self.state is not State.CLOSED)
    @rule(step=quarters)
    def receive_eof(self, step: float) -> None:
        if (self.state, Input.EOF) not in TRANSITIONS:
            self.refused(lambda: self.connection.receive_eof(self.clock + step))
            return
        got = self.connection.receive_eof(self.at(step))
        self.heard = self.latest
        if self.state is State.CLOSING:
            self.state = State.CLOSED
            self.expect(got, [Closed(self.close_reason)])
            return
        self.state = State.HALF_CLOSED
        wanted = self.policed([*self.reference.at_eof])
        self.expect(got, wanted if self.state is State.CLOSED else [*wanted, EndOfStream()])

    @rule(packet=packets(MAX_PAYLOAD + 1))
    def send(self, packet: Packet) -> None:
        if (self.state, Input.SEND) not in TRANSITIONS or len(packet.payload) > MAX_PAYLOAD:
            self.refused(lambda: self.connection.send(packet))
            return
        self.connection.send(packet)
        self.count_sent(packet)

    def count_sent(self, packet: Packet) -> None:
        self.output += encode(packet)
        self.packets_sent += 1

    @rule()
    def take_output(self) -> None:
        assert self.connection.bytes_to_send() == self.output
        if self.output:
            self.output, self.taken = b"", self.latest

    # Most is to happen before the end, so that it does not come every time it could.
    @rule(step=quarters, reason=st.sampled_from(CloseReason), really=st.booleans())
    def close(self, step: float, reason: CloseReason, really: bool) -> None:
        if not really:
            return
        got = self.connection.close(self.at(step), reason)
        if self.state is State.HALF_CLOSED:
            self.state = State.CLOSED
            self.expect(got, [Closed(CloseReason.PEER if reason is CloseReason.LOCAL else reason)])
            return
        self.expect(got, [])
        self.closing_since = self.latest
        if self.state is State.OPEN:
            self.state, self.close_reason = State.CLOSING, reason

    @rule(step=quarters, reason=st.sampled_from(CloseReason), really=st.sampled_from([False, False, True]))
    def fail(self, step: float, reason: CloseReason, really: bool) -> None:
        if really:
            wanted = self.ended(reason) if self.state is not State.CLOSED else []
            self.expect(self.connection.fail(reason, self.at(step)), wanted)

    @rule(step=st.integers(-20, 20).map(lambda n: n / 4))
    def touch(self, step: float) -> None:
        now = self.at(step)
        self.connection.touch(now)
        self.heard = max(self.heard, now)

    @rule(step=quarters, reading=st.booleans())
    def set_reading(self, step: float, reading: bool) -> None:
        self.connection.set_reading(reading, self.at(step))
        if reading and not self.reading:
            self.heard = self.resumed = self.latest
        self.reading = reading

    # Time.

    @rule(step=st.integers(-100, -1).map(lambda n: n / 4))
    def clock_steps_back(self, step: float) -> None:
        self.clock += step

    @rule(step=quarters)
    def handle_deadline_at_any_time(self, step: float) -> None:
        self.handle_deadline(self.at(step))

    @precondition(lambda self: self.deadlines())
    @rule(early=st.sampled_from([0.25, 0.25, 0.0, -0.25]))
    def handle_deadline_just_then(self, early: float) -> None:
        self.clock = min(self.deadlines().values()) - early
        self.handle_deadline(self.at(0.0))

    def handle_deadline(self, now: float) -> None:
        due = [name for name, deadline in self.deadlines().items() if deadline <= self.latest]
        got = self.connection.handle_deadline(now)
        match due:
            case ["close", *_]:
                self.expect(got, self.ended(self.close_reason))
            case ["frame", *others] if self.reference.at_timeout:
                wanted = self.policed([*self.reference.at_timeout])
                self.before += len(self.stream)
                self.stream, self.reference, self.arrivals, self.rest = b"", Reference(b"", MAX_PAYLOAD), [], b""
                if "idle" in others and self.state is not State.CLOSED:
                    wanted += self.ended(CloseReason.IDLE_TIMEOUT)
                self.expect(got, wanted)
                if "keepalive" in others and self.state is not State.CLOSED:
                    self.count_sent(KEEPALIVE)
            case ["frame", *_]:
                self.expect(got, self.ended(CloseReason.FRAME_TIMEOUT))
            case ["idle", *_]:
                self.expect(got, self.ended(CloseReason.IDLE_TIMEOUT))
            case ["keepalive"]:
                self.expect(got, [])
                self.count_sent(KEEPALIVE)
            case _:
                self.expect(got, [])
        later = self.connection.next_deadline()
        assert later is None or later > self.latest

    # What always holds.

    def refused(self, misuse: object) -> None:
        """The caller's mistake: it raises, and the invariants see that nothing changed."""
        assert callable(misuse)
        try:
            misuse()
        except LocalProtocolError as error:
            is_closed = isinstance(error, SessionClosed) and error.reason is not None
            assert not is_closed or self.state is State.CLOSED
        else:
            raise AssertionError("it was not refused")

    @invariant()
    def the_state_is_that_of_the_model(self) -> None:
        assert self.connection.state is self.state

    @invariant()
    def the_next_deadline_is_the_first_and_asking_changes_nothing(self) -> None:
        wanted = min(self.deadlines().values(), default=None)
        assert self.connection.next_deadline() == wanted
        assert self.connection.next_deadline() == wanted

    @invariant()
    def it_closes_exactly_once_and_nothing_follows(self) -> None:
        closed = [number for number, event in enumerate(self.events) if isinstance(event, Closed)]
        assert closed == ([len(self.events) - 1] if self.state is State.CLOSED else [])

    @invariant()
    def what_passed_is_counted(self) -> None:
        stats = self.connection.stats
        assert stats.packets_received == sum(isinstance(event, Packet) for event in self.events)
        assert sum(stats.malformed.values()) == sum(isinstance(event, Malformed) for event in self.events)
        assert stats.bytes_received == self.before + len(self.stream)
        assert stats.packets_sent == self.packets_sent
        assert self.connection.buffered == len(self.output)

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.take_output()


TestConnection = ConnectionMachine.TestCase
# A run is many examples in one; to explain a failure would take minutes.
TestConnection.settings = settings(phases=set(Phase) - {Phase.explain})
