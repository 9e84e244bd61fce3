"""`Joiner`: runs of packets, against a model that keeps all packets and works everything out anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from fuzz.choices import Choices
from packetcore import Joiner, Malformed, Message, Packet, Reason, split


@dataclass
class Run:
    """Packets of one id and type that wait for more."""

    count: int
    begun: float
    packets: list[bytes] = field(default_factory=list)

    def payload(self) -> bytes:
        """What it comes to."""
        return b"".join(self.packets)


@dataclass
class Model:
    """What a joiner has to say."""

    max_size: int
    max_pending: int
    timeout: float | None
    runs: dict[tuple[int, int], Run] = field(default_factory=dict)
    now: float = float("-inf")

    def add(self, packet: Packet, now: float) -> list[Message | Malformed]:
        """See `Joiner`."""
        self.now = max(self.now, now)
        key = (packet.id, packet.type)
        events: list[Message | Malformed] = []
        if key in self.runs and self.runs[key].count != packet.count:
            events += self.give_up(key, Reason.COUNT_MISMATCH)
        if key not in self.runs:
            if packet.count > 1 and len(self.runs) == self.max_pending:
                oldest = min(self.runs, key=lambda key: self.runs[key].begun)
                events += self.give_up(oldest, Reason.MESSAGE_INCOMPLETE)
            self.runs[key] = Run(packet.count, self.now)
        run = self.runs[key]
        before = len(run.payload())
        run.packets.append(packet.payload)
        payload = run.payload()
        if before <= self.max_size < len(payload):
            events.append(Malformed(Reason.MESSAGE_TOO_LONG, len(payload), payload[:64]))
        if len(run.packets) >= run.count:
            del self.runs[key]
            if len(payload) <= self.max_size:
                events.append(Message(packet.id, payload, packet.type))
        return events

    def give_up(self, key: tuple[int, int], reason: Reason) -> list[Malformed]:
        """One run."""
        payload = self.runs.pop(key).payload()
        return [] if len(payload) > self.max_size else [Malformed(reason, len(payload), payload[:64])]

    def expire(self, now: float) -> list[Malformed]:
        """See `Joiner`."""
        self.now = max(self.now, now)
        over = [
            key for key, run in self.runs.items() if self.timeout is not None and run.begun + self.timeout <= self.now
        ]
        return [event for key in over for event in self.give_up(key, Reason.MESSAGE_INCOMPLETE)]


def fuzz(data: bytes) -> None:
    """Three bytes of limits, then steps: packets of a few ids, times that pass, ends."""
    choices = Choices(data)
    limits = (choices.pick((20, 1, 100)), choices.pick((2, 1, 4)), choices.pick((4.0, None, 1.0)))
    joiner, model = Joiner(*limits), Model(*limits)
    now = 0.0
    while len(choices):
        step = choices.byte()
        now += (step >> 5) - 1  # it may go back
        if step % 8 == 7:
            assert joiner.expire(now) == model.expire(now)
        elif step % 8 == 6:
            given_up = [event for key in [*model.runs] for event in model.give_up(key, Reason.MESSAGE_INCOMPLETE)]
            assert joiner.give_up() == given_up
        else:
            shape = choices.byte()
            packet = Packet(step & 3, choices.take(shape >> 3), type=step >> 2 & 1, count=shape & 7)
            assert joiner.add(packet, now) == model.add(packet, now)
        assert len(joiner) == len(model.runs) <= limits[1]
        begun = [run.begun for run in model.runs.values()]
        assert joiner.next_deadline() == (begun[0] + model.timeout if begun and model.timeout is not None else None)
    _joins_what_was_split(data)


def _joins_what_was_split(payload: bytes) -> None:
    joiner = Joiner(max(1, len(payload)))
    events = [event for packet in split(payload, id=1, chunk=7) for event in joiner.add(packet, 0.0)]
    assert events == [Message(1, payload)]
