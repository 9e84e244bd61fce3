"""What the real world does to a session, on a made-up host and clock: dead and slow peers, hosts
that call back, foreign threads, handlers that end the program."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from packetcore import (
    Carrier,
    CloseReason,
    Config,
    Endpoint,
    Inbox,
    LocalProtocolError,
    Packet,
    Reason,
    Session,
    SessionClosed,
    TLSInfo,
    WrongThread,
    encode,
)
from tests.made_up_host import MadeUpHost, Recorder, Rig, open_on

PING = Packet(1, b"ping")
PONG = Packet(2, b"pong")
BEAT = Packet(9, b"beat")


# Peers that are slow, silent or dead.


def test_a_peer_that_takes_what_has_piled_up_is_not_idle_although_it_says_nothing() -> None:
    rig = Rig(Config(idle_timeout=1.0, write_high_water=1 << 20, max_outstanding=1 << 24))
    session, host = rig.open()
    host.takes = 100
    session.send(Packet(1, bytes(5000)))  # far below high water: the peer is read from all the while
    session.flush(100.0)
    for step in range(1, 20):
        host.takes, host.now = 10, 100.0 + step / 2
        host.drain()
        session.tick(host.now)
    assert session.is_open


def test_a_dead_peer_whose_bytes_only_fill_the_system_s_buffer_is_idle() -> None:
    rig = Rig(Config(idle_timeout=1.0))
    session, _ = rig.open()
    for step in range(1, 5):
        session.send(PING)  # the host takes it at once
        session.flush(100.0 + step / 4)
    session.tick(101.0)
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_what_the_system_has_room_for_by_now_is_found_out_before_a_peer_is_called_idle() -> None:
    rig = Rig(Config(idle_timeout=1.0))
    session, host = rig.open()
    host.takes = 0
    session.send(Packet(1, bytes(5000)))
    session.flush(100.0)
    host.takes = 10  # and nothing has told so
    session.tick(101.0)
    assert session.outstanding == len(encode(Packet(1, bytes(5000)))) - 10
    assert session.is_open
    session.tick(102.0)  # since then it has taken nothing
    assert session.close_reason is CloseReason.IDLE_TIMEOUT


def test_no_keepalive_is_put_behind_bytes_that_wait() -> None:
    rig = Rig(Config(keepalive_interval=1.0, keepalive_packet=BEAT, idle_timeout=None))
    session, host = rig.open()
    host.takes = 0
    session.send(PING)
    session.flush(100.0)
    for step in range(1, 60):
        session.tick(100.0 + step)
    assert host.packets() == [PING]
    host.takes, host.now = 1 << 30, 160.0
    host.drain()
    session.tick(161.5)
    assert host.packets() == [PING, BEAT]


def test_a_tail_behind_a_packet_is_noise_and_ends_nothing() -> None:
    rig = Rig(Config(frame_timeout=10.0))
    session, host = rig.open()
    session.received(encode(PING) + b"\r\n", 101.0)
    assert host.timer is not None
    session.tick(111.0)
    assert rig.handler.calls[-1] == ("malformed", Reason.NOISE)
    assert session.is_open
    session.received(encode(PONG)[:-1], 112.0)
    session.tick(122.0)
    assert session.close_reason is CloseReason.FRAME_TIMEOUT


# The end of a stream.


def test_a_stream_that_is_cut_without_a_word_over_tls_is_a_reset() -> None:
    rig = Rig()
    session, host = rig.open()
    session.received(encode(PING)[:5], 101.0)
    session.eof(102.0, truncated=True)
    host.session.lost(None, 102.0)
    assert rig.handler.calls == [
        ("connected",),
        ("malformed", Reason.TRUNCATED),
        ("disconnected", CloseReason.RESET),
    ]


def test_once_this_side_has_closed_a_cut_stream_is_its_end_like_any_other() -> None:
    rig = Rig()
    session, host = rig.open()
    session.close()
    session.flush(101.0)
    session.eof(102.0, truncated=True)
    assert host.verbs[-1] == "close"
    session.lost(None, 102.0)
    assert rig.handler.calls[-1] == ("disconnected", CloseReason.LOCAL)


def test_what_came_before_a_loss_is_delivered_and_replies_to_it_are_dropped_without_an_error() -> None:
    class Counts(Recorder):
        def packet_received(self, session: Session, packet: Packet) -> None:
            assert session.send(PONG)
            super().packet_received(session, packet)  # only if the send did not raise

    class Breaks(MadeUpHost):
        def write(self, data: bytes) -> int:
            self.session.received(encode(PING) * 10, 101.0)  # what the kernel had
            self.session.lost(ConnectionResetError(), 101.0)
            return 0

    handler, host = Counts(), Breaks()
    host.session = session = Session(Endpoint(handler), host, ("192.0.2.1", 1), 100.0)
    session.opened(100.0)
    session.received(encode(PING), 101.0)
    assert len(handler.named("packet")) == 11
    assert handler.calls[-1] == ("disconnected", CloseReason.RESET)
    assert session.stats.packets_dropped == 10
    with pytest.raises(SessionClosed):
        session.send(PONG)


def test_replies_that_pile_up_after_a_loss_throw_nothing_away_that_had_come() -> None:
    class Breaks(MadeUpHost):
        def write(self, data: bytes) -> int:
            if self.session.bytes_received:
                self.session.lost(ConnectionResetError(), 101.0)
            return 0

    handler, host = Recorder(), Breaks()
    config = Config(write_high_water=0, write_low_water=0, max_outstanding=1000)
    host.session = session = Session(Endpoint(handler, config), host, ("192.0.2.1", 1), 100.0)
    handler.on["packet"] = lambda session: session.send(Packet(2, bytes(300)))
    session.opened(100.0)
    session.received(encode(PING) * 10, 101.0)
    assert len(handler.named("packet")) == 10
    assert handler.calls[-1] == ("disconnected", CloseReason.RESET)


def test_an_inbox_has_sends_to_a_lost_peer_dropped_until_its_reader_was_told() -> None:
    inbox = Inbox()
    session, _ = open_on(Endpoint(inbox, Config(write_high_water=100, write_low_water=10)), ("192.0.2.1", 1))
    session.received(encode(PING) * 3, 101.0)
    session.lost(ConnectionResetError(), 102.0)
    for _ in range(3):
        assert inbox.take() == PING
        assert inbox.drop(60)
        assert inbox.drop(60)
        assert not inbox.drop(60), "who only sends would never hear of the end"
    with pytest.raises(SessionClosed):
        inbox.take()
    assert not inbox.drop(1)


def test_an_inbox_has_nothing_dropped_where_this_side_closed() -> None:
    inbox = Inbox()
    session, _ = open_on(Endpoint(inbox), ("192.0.2.1", 1))
    session.received(encode(PING), 101.0)
    session.close()
    session.flush(101.0)
    session.lost(None, 102.0)
    assert not inbox.drop(1)


# The carrier.


def test_the_carrier_is_asked_of_the_host_once() -> None:
    class Tells(MadeUpHost):
        def carrier(self) -> Carrier:
            self.verbs.append("carrier")
            return Carrier("tcp", ("192.0.2.9", 7), 2, TLSInfo("TLSv1.3", "X", subject=(("commonName", "meter 7"),)))

    host = Tells()
    host.session = session = Session(Endpoint(Recorder()), host, ("192.0.2.1", 1), 100.0)
    session.opened(100.0)
    assert session.carrier.tls is not None
    assert session.carrier.tls.common_name == "meter 7"
    assert session.carrier.local == ("192.0.2.9", 7)
    assert host.verbs.count("carrier") == 1


# Threads, and handlers that end the program.


def on_another_thread(function: Callable[[], object]) -> BaseException | None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return raised[0] if raised else None


def test_another_thread_is_told_what_to_use_and_nothing_is_sent() -> None:
    rig = Rig()
    soon: list[Callable[[], object]] = []
    rig.endpoint.runs_by(soon.append)
    session, host = rig.open()
    request = session.request(Packet(8), print)
    session.flush(100.5)
    host.written.clear()
    host.verbs.clear()
    attempts: list[Callable[[], object]] = [
        lambda: session.forget(request),
        lambda: session.send(PING),
        lambda: session.send_message(b"x", id=1),
        lambda: session.request(PING, print),
        lambda: session.bind("x"),
        session.pause,
        session.resume,
        session.close,
        session.abort,
    ]
    for attempt in attempts:
        error = on_another_thread(attempt)
        assert isinstance(error, WrongThread)
        assert "call_soon" in str(error)
        assert "192.0.2.1" in str(error)
    assert session.is_open
    assert session.outstanding == 0
    assert "wake" not in host.verbs
    assert on_another_thread(lambda: session.call_soon(session.send, PING)) is None
    soon.pop()()
    session.flush(101.0)
    assert host.packets() == [PING]


def test_what_runs_by_call_soon_fails_alone() -> None:
    rig = Rig()
    with pytest.raises(LocalProtocolError, match="call_soon"):
        rig.endpoint.call_soon(print)
    soon: list[Callable[[], object]] = []
    rig.endpoint.runs_by(soon.append, any_thread=True)
    session, _ = rig.open()
    assert on_another_thread(lambda: session.send(PING)) is None
    session.lost(None, 101.0)
    session.call_soon(session.send, PING)
    session.call_soon(int, "x")
    for function in soon:
        function()
    assert len(rig.log) == 1
    assert "int" in rig.log[0]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("method", ["connected", "packet", "disconnected"])
def test_a_handler_that_ends_the_program_ends_every_session(error: BaseException, method: str) -> None:
    def end(session: Session) -> None:
        if session is first:
            raise error

    rig = Rig()
    ended: list[BaseException] = []
    rig.endpoint.on_ended = ended.append
    second, other = rig.open()
    host = MadeUpHost()
    host.session = first = Session(rig.endpoint, host, ("192.0.2.2", 1), 100.0)
    rig.handler.on[method] = end
    first.opened(100.0)
    first.received(encode(PING), 101.0)
    first.lost(None, 102.0)
    assert ended == [error]
    assert second.close_reason is CloseReason.SHUTDOWN
    assert other.verbs[-1] in ("close", "abort")
    assert first.close_reason is (CloseReason.PEER if method == "disconnected" else CloseReason.HANDLER_ERROR)
    assert rig.endpoint.draining
    assert rig.log == []


def test_where_no_adapter_listens_it_comes_out_of_the_input() -> None:
    rig = Rig()
    session, _ = rig.open()
    rig.handler.on["packet"] = lambda session: exec("raise SystemExit(3)")
    with pytest.raises(SystemExit):
        session.received(encode(PING), 101.0)


# What is counted and logged.


def test_a_probe_is_one_line_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "packetcore")
    rig = Rig()
    session, _ = rig.open()
    session.lost(None, 101.0)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert rig.endpoint.stats.silent == {CloseReason.PEER: 1}
    caplog.clear()
    session, _ = rig.open()
    session.received(encode(PING), 101.0)
    session.lost(None, 102.0)
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 2
    assert rig.endpoint.stats.silent == {CloseReason.PEER: 1}
    assert rig.endpoint.stats.closed == {CloseReason.PEER: 2}


# Hosts and handlers that call back, at random, in C as in Python.


class Restless(MadeUpHost):
    """A host that calls inputs from inside its verbs."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.depth = 0
        self.low = 0

    def write(self, data: bytes) -> int:
        self.low = min(self.low, self.session.outstanding)
        self.takes = self.rng.choice([0, 1, len(data) // 2, 1 << 30])
        self.written += data
        self.untold += len(data)
        self.verbs.append("write")
        self.call_back()
        return self.taken()

    def call_back(self) -> None:
        if self.depth < 3 and self.rng.random() < 0.3:
            self.depth += 1
            self.now += self.rng.choice([0.0, 0.1, 5.0])
            match self.rng.randrange(7):
                case 0 | 1:
                    self.drain()
                case 2:
                    self.session.received(encode(PING) * self.rng.randrange(3), self.now)
                case 3:
                    self.session.tick(self.now)
                case 4:
                    self.session.flush(self.now)
                case 5 if self.rng.random() < 0.2:
                    self.session.lost(self.rng.choice([None, ConnectionResetError()]), self.now)
                case 6 if self.rng.random() < 0.2:
                    self.session.eof(self.now, truncated=self.rng.random() < 0.5)
            self.low = min(self.low, self.session.outstanding)
            self.depth -= 1

    def pause_reading(self) -> None:
        super().pause_reading()
        self.call_back()

    def resume_reading(self) -> None:
        super().resume_reading()
        self.call_back()

    def write_eof(self) -> None:
        super().write_eof()
        self.call_back()


class Whims(Recorder):
    """A handler that does anything in any of its methods."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.depth = 0

    def _note(self, session: Session, *call: object) -> None:
        super()._note(session, *call)
        if self.depth > 2 or self.rng.random() < 0.4:
            return
        self.depth += 1
        try:
            match self.rng.randrange(9):
                case 0 | 1 | 2 | 3:
                    session.send(Packet(1, bytes(self.rng.choice([0, 10, 700]))))
                case 4:
                    session.pause()
                case 5:
                    session.resume()
                case 6 if self.rng.random() < 0.1:
                    session.close()
                case 7 if self.rng.random() < 0.1:
                    session.abort()
                case 8 if self.rng.random() < 0.1:
                    raise RuntimeError("a whim")
        finally:
            self.depth -= 1


def run_of(seed: int) -> list[object]:
    """What happens in a run: the same in both languages."""
    rng = random.Random(seed)
    config = Config(
        write_high_water=rng.choice([0, 500]),
        write_low_water=0,
        max_outstanding=rng.choice([None, 2000]),
        idle_timeout=rng.choice([None, 30.0]),
        keepalive_interval=7.0,
        keepalive_packet=BEAT,
    )
    handler, host = Whims(rng), Restless(rng)
    endpoint = Endpoint(handler, config, is_server=rng.random() < 0.5, log_exception=lambda message: None)
    host.session = session = Session(endpoint, host, ("192.0.2.1", 1), 100.0)
    session.opened(100.0)
    for _ in range(30):
        host.now += rng.choice([0.0, 0.5, 8.0])
        match rng.randrange(6):
            case 0 | 1 | 2:
                session.received(rng.choice([encode(PING), encode(PING) * 3, b"\xfe\x00", b"noise"]), host.now)
            case 3:
                host.takes = rng.choice([1, 100, 1 << 30])
                host.drain()
            case 4:
                session.tick(host.now)
            case 5:
                session.flush(host.now)
        assert session.outstanding >= 0
    session.lost(None, host.now)
    assert host.low >= 0, "outstanding was negative inside a verb"
    return [handler.calls, host.verbs, bytes(host.written), session.stats, session.close_reason, len(endpoint.sessions)]


RUNS = 2000

DIGEST = """
import hashlib, sys
from tests.test_session_faults import RUNS, run_of
print(hashlib.sha256(repr([run_of(seed) for seed in range(RUNS)]).encode()).hexdigest())
"""


def test_hosts_and_handlers_that_call_back_at_random_break_nothing_and_c_does_as_python() -> None:
    def digest(pure: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PACKETCORE_PURE": pure},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert digest("1") == digest("")
