"""The simulation finds what it is for: faults of ours that were once mended, and others, are planted, and a seed
finds each within the first few. A list of the planted is below; each is one edit of one function."""

from __future__ import annotations

import inspect
import ssl
import sys
from collections.abc import Callable
from random import Random
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
import trustme

from packetcore import CloseReason, Config, Decoder, Handler, Malformed, Packet, Session, SessionClosed
from packetcore._client import ClientBase
from packetcore._connection import Connection, PacketFraming
from packetcore._endpoint import Endpoint
from packetcore._requests import Requests
from packetcore._session import Session as PlainSession
from packetcore_conformance.simulation import (
    Impairments,
    Scenario,
    Simulation,
    Step,
    Violation,
    connect,
    explore,
    play,
    report,
    serve,
    shrink,
    sleep,
)
from packetcore_conformance.simulation.__main__ import main
from packetcore_conformance.simulation.standard import Standard
from packetcore_sockets import StreamSocket

Edit = tuple[Any, str, str, str]


class Fault(NamedTuple):
    """Something that was, or might be, wrong."""

    name: str
    edits: list[Edit]
    """Each a class, its method, and what in that is replaced by what."""
    found: str
    """What the simulation says of it, in part."""


FAULTS = [
    Fault(
        "IDLE_TIMEOUT while a reply drains, once mended",
        [
            (PlainSession, "sent_bytes", "    self._connection.touch(now)\n", ""),
            (PlainSession, "_count_sent", "self._connection.touch(now)", "pass"),
            (PlainSession, "tick", "    self._connection.touch(now)\n", "    pass\n"),
        ],
        "though its peer took more of what was sent to it",
    ),
    Fault(
        "a late reply given to a newer request, once mended",
        [(Requests, "_give_up", "if self._hold == 0:", "if True:")],
        "was given to request",
    ),
    Fault(
        "a reset passes for a good end",
        [(PlainSession, "lost", "CloseReason.PEER if error is None else CloseReason.RESET", "CloseReason.PEER")],
        "ended well",
    ),
    Fault(
        "disconnected twice",
        [
            (
                PlainSession,
                "_finish",
                "self._endpoint.finished(",
                "self._handler.disconnected(self, reason), self._endpoint.finished(",
            )
        ],
        "while it is not connected",
    ),
    Fault(
        "a session leaks",
        [(Endpoint, "left", "    self.sessions.remove(session.id)\n", "")],
        "sessions at the end",
    ),
    Fault(
        "a close does not wait for what is unsent",
        [(StreamSocket, "_may_finish", "not (self._unsent or self._plain or self._is_gone)", "not self._is_gone")],
        "ended well",
    ),
    Fault(
        "what waits is overtaken",
        [(StreamSocket, "_write_behind", "self._unsent += data", "self._unsent[:0] = data")],
        "came, not|came in the place of|ended well|Malformed",
    ),
    Fault(
        "what was kept is sent twice",
        [
            (
                ClientBase,
                "_opened",
                "session.send(self._kept.popleft())",
                "session.send(self._kept[0]), session.send(self._kept.popleft())",
            )
        ],
        "came again",
    ),
    Fault(
        "a close_timeout never ends",
        [
            (
                Connection,
                "next_deadline",
                "return None if config.close_timeout is None else self._closing_since + config.close_timeout",
                "return None",
            )
        ],
        "is closing for",
    ),
    Fault(
        "a request waits twice as long",
        [(Requests, "begin", "now + (key.timeout or 0)", "now + 2 * (key.timeout or 0)")],
        "timeout=",
    ),
    Fault(
        "what a socket forgets is ended well",
        [(StreamSocket, "_release", "reset_on_close(self._sock)", "pass")],
        "ended well",
    ),
]


def plant(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Edit what a fault says, in this process."""
    for owner, method, before, after in fault.edits:
        source = dedent(inspect.getsource(getattr(owner, method)))
        assert source.count(before) == 1, f"{fault.name}: {method} has {source.count(before)} times {before!r}"
        names: dict[str, Any] = {}
        edited = "from __future__ import annotations\n" + source.replace(before, after)
        exec(edited, vars(sys.modules[owner.__module__]), names)
        monkeypatch.setattr(owner, method, names[method])


def first_violation(scenario: Callable[[Simulation], Scenario], seeds: int, *wanted: str) -> tuple[int, str]:
    """The first seed that fails as it should, and what it says."""
    for seed in range(seeds):
        violation = play(scenario, seed).violation or ""
        if any(what in violation for what in wanted):
            return seed, violation
    raise AssertionError(f"none of {seeds} seeds found it")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    plant(monkeypatch, fault)
    first_violation(Standard, 30, *fault.found.split("|"))


class Repeating:
    """A decoder that gives the last packet of a burst several times, as the .NET library does."""

    def __init__(self, max_payload: int) -> None:
        self._decoder = Decoder(max_payload=max_payload)

    @property
    def pending(self) -> int:
        return self._decoder.pending

    def feed(self, data: Any) -> list[Packet | Malformed]:
        events = self._decoder.feed(data)
        return [events[-1]] * len(events) if len(events) > 1 else events

    def feed_eof(self) -> list[Malformed]:
        return self._decoder.feed_eof()

    def feed_timeout(self) -> list[Malformed]:
        return self._decoder.feed_timeout()


class Forgetting(Repeating):
    """A decoder that loses the frame whose first flag came by itself."""

    _came_alone = False

    def feed(self, data: Any) -> list[Packet | Malformed]:
        events = self._decoder.feed(data)
        if self._came_alone and events:
            events, self._came_alone = events[1:], False
        self._came_alone |= bytes(data) == b"\xfe" and not events
        return events


@pytest.mark.parametrize("decoder", [Repeating, Forgetting])
def test_a_broken_decoder_is_found(monkeypatch: pytest.MonkeyPatch, decoder: type[Repeating]) -> None:
    monkeypatch.setattr(PacketFraming, "decoder", lambda framing: decoder(framing._max_payload))
    first_violation(Standard, 30, "came again", "came, not", "came in the place of", "ended well")


# Over TLS. OpenSSL has chance of its own, so that a seed's trace is not the same everywhere, what happens is.

authority = trustme.CA(key_type=trustme.KeyType.RSA)
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("gateway", key_type=trustme.KeyType.RSA).configure_cert(server_context)
client_context = ssl.create_default_context()
authority.configure_trust(client_context)


class LastWords(Handler):
    """Tells all that it knows and closes, whatever its peer is still saying."""

    def packet_received(self, session: Session, packet: Packet) -> None:
        for number in range(200):
            session.send(Packet(number, bytes(1_000)))
        session.close()


class EndOverTLS(Scenario):
    """A gateway ends each conversation over TLS, while its devices still talk."""

    seconds, patience = 60.0, 30.0

    def begin(self) -> None:
        self.gateway = self.simulation.host("gateway")
        self.gateway.run(self.serve)

    async def serve(self) -> None:
        self.server = await serve(LastWords(), "0.0.0.0", 5000, ssl=server_context, config=Config(idle_timeout=20.0))

    def steps(self, random: Random) -> list[Step]:
        return [Step(1.0 + number * 5, "talk", f"device {number}", round(random.random(), 3)) for number in range(8)]

    def do_talk(self, step: Step) -> None:
        host = self.simulation.host(step.where)
        path = self.simulation.path("gateway", step.where)
        path.impair(Impairments(latency=0.02, bandwidth=20_000 + 300_000 * float(step.value)))
        host.spawn(self.talk(), lambda: None)

    async def talk(self) -> None:
        stream = await connect("gateway", 5000, ssl=client_context)
        heard = 0
        try:
            await stream.send(Packet(1))
            for _ in range(60):
                await sleep(0.01)
                while stream.has_received:
                    await stream.recv()
                    heard += 1
                await stream.send(Packet(2, bytes(100)))
            while True:
                await stream.recv()
                heard += 1
        except SessionClosed as closed:
            reason = closed.reason
        await stream.close()
        if heard < 200 or reason is not CloseReason.PEER:
            self.simulation.world.violate(f"{heard} of 200 last words came over TLS, and {reason}")

    async def end(self) -> None:
        await self.server.close()


def test_bytes_lost_at_the_end_of_a_conversation_over_tls_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    explore(EndOverTLS, range(3))
    fault = Fault(
        "the socket is closed with the close_notify, as asyncio does, once mended",
        [(StreamSocket, "write_eof", "self._is_finishing = True", "self._is_finishing = self._is_closing = True")],
        "of 200 last words",
    )
    plant(monkeypatch, fault)
    first_violation(EndOverTLS, 3, fault.found)


# Seeds that fail.


def test_the_fewest_steps_are_found() -> None:
    tried = []

    def fails(steps: list[int]) -> bool:
        tried.append(steps)
        return {3, 17, 22} <= {*steps}

    assert shrink(range(40), fails) == [3, 17, 22]
    assert len(tried) < 80
    assert shrink(range(40), lambda steps: True) == []


def test_a_failing_seed_gives_one_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, FAULTS[0])
    seed, violation = first_violation(Standard, 30, FAULTS[0].found)
    said = report(Standard, play(Standard, seed))
    first, command, needed, *steps, last = said.splitlines()
    assert first == f"seed {seed}: {violation}"
    assert last.endswith("s ago")
    assert needed.startswith(f"{len(steps)} of ")
    assert len(steps) < 8
    module, *words = command.removeprefix("python -m ").split()
    assert module == "packetcore_conformance.simulation"
    assert main(words) == 1
    assert "IDLE_TIMEOUT" in capsys.readouterr().out


class Poked(Scenario):
    """Fails once it was poked in two places."""

    seconds, patience = 10.0, 1.0

    def begin(self) -> None:
        self.poked: set[float | str] = set()

    def steps(self, random: Random) -> list[Step]:
        return [Step(number / 4, "poke", "", number) for number in range(20)]

    def do_poke(self, step: Step) -> None:
        self.poked.add(step.value)
        if {3, 17} <= self.poked:
            self.simulation.world.violate(f"poked {len(self.poked)} times")

    async def end(self) -> None:
        pass


def test_what_exploring_finds_is_told_with_the_fewest_steps_and_the_scenario() -> None:
    with pytest.raises(Violation) as raised:
        explore(Poked, range(5, 9))
    assert str(raised.value).splitlines() == [
        "seed 5: at 4.250000: poked 18 times",
        f"python -m packetcore_conformance.simulation {__name__}:Poked --seed 5 --only 3,17",
        "2 of 20 steps are needed:",
        "    (0.75, 'poke', '', 3)",
        "    (4.25, 'poke', '', 17)",
        "then at 4.250000: poked 2 times",
    ]


def test_a_schedule_in_a_file_is_played(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = tmp_path / "schedule"
    schedule.write_text('[(1.0, "report", "device 0", 0.5), (2.0, "crash", "device 0", 3.0)]', encoding="utf-8")
    assert main(["--seed", "5", "--schedule", str(schedule), "--trace", "--steps"]) == 0
    said = capsys.readouterr().out
    assert "1.000000" not in said.splitlines()[0]
    assert "device 0: crashes for 3.000000 s" in said
    assert "   1 (2.0, 'crash', 'device 0', 3.0)" in said
    assert "seed 5: well" in said
