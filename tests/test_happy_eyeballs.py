"""Happy Eyeballs (RFC 8305): the order of addresses, when each is tried, and who wins; with a made-up
clock and made-up attempts, and over asyncio's loops with a made-up name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH
from typing import Any

import pytest
import uvloop
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.testing import MemoryReactorClock

from packetcore import Config, Endpoint, Handle, Handler, Packet, Session
from packetcore_asyncio import connect, serve
from packetcore_sockets import (
    ATTEMPT_DELAY,
    AddressInfo,
    Attempts,
    Connecting,
    Dial,
    Found,
    Race,
    Target,
    address_text,
    is_address,
)
from packetcore_sockets._attempts import TOLD, in_order
from packetcore_sockets._hosts import hosts_of, names_of
from packetcore_sockets._race import discard
from packetcore_twisted._connecting import addresses_of
from packetcore_twisted._reactor import Reactor

DEADLINE = 10.0
"""Seconds that anything may take here."""

REFUSED = ConnectionRefusedError(ECONNREFUSED, "refused")


def info(host: str, port: int = 7, *rest: int) -> AddressInfo:
    is_6 = ":" in host
    address = (host, port, *(rest or (0, 0))) if is_6 else (host, port)
    return socket.AF_INET6 if is_6 else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address


def hosts(infos: list[AddressInfo]) -> str:
    return " ".join(one[4][0] for one in infos)


# The order.


@pytest.mark.parametrize(
    ("found", "ordered"),
    [
        ("::1 ::2 ::3 1.1.1.1 2.2.2.2", "::1 1.1.1.1 ::2 2.2.2.2 ::3"),
        ("1.1.1.1 ::1 ::2 2.2.2.2", "1.1.1.1 ::1 2.2.2.2 ::2"),
        ("1.1.1.1 2.2.2.2 3.3.3.3", "1.1.1.1 2.2.2.2 3.3.3.3"),
        ("::1 1.1.1.1 ::1 1.1.1.1", "::1 1.1.1.1"),
        ("", ""),
    ],
)
def test_families_take_turns_and_the_first_address_stays_the_first(found: str, ordered: str) -> None:
    assert hosts(in_order(info(host) for host in found.split())) == ordered


# When.


def test_the_next_address_is_due_after_the_delay_or_once_the_latest_has_failed() -> None:
    attempts = Attempts(info(host) for host in ("::1", "1.1.1.1", "::2", "2.2.2.2"))
    first = attempts.next(100.0)
    assert first == info("::1")
    assert attempts.next(100.0 + ATTEMPT_DELAY - 0.001) is None
    due: Any = attempts.due
    assert due == 100.25
    second = attempts.next(100.25)
    assert second == info("1.1.1.1")
    attempts.failed(first, REFUSED)
    assert attempts.next(100.3) is None, "an earlier attempt that fails takes nothing from the delay of the latest"
    attempts.failed(second, REFUSED)
    assert attempts.next(100.3) == info("::2")
    due = attempts.due
    assert due == 100.55
    assert attempts.next(200.0) == info("2.2.2.2")
    due = attempts.due
    assert due is None, "nobody waits any more"
    assert not attempts.are_over


def test_an_error_names_each_address_and_is_of_the_last_one_s_kind() -> None:
    attempts = Attempts([info("fe80::1", 7, 0, 3), info("1.1.1.1")])
    for failure in (OSError(EHOSTUNREACH, "no way"), REFUSED):
        tried = attempts.next(0.0)
        assert tried is not None
        attempts.failed(tried, failure)
    assert attempts.are_over
    error = attempts.error("meters.example", 7)
    assert isinstance(error, ConnectionRefusedError)
    assert error.errno == ECONNREFUSED
    text = "connecting to meters.example port 7: fe80::1%3 port 7: no way; 1.1.1.1 port 7: refused"
    assert error.strerror == text


def test_an_error_of_very_many_addresses_is_short() -> None:
    attempts = Attempts(info(f"10.0.{n // 250}.{n % 250}") for n in range(1000))
    while (tried := attempts.next(0.0)) is not None:
        attempts.failed(tried, REFUSED)
    text = str(attempts.error("many.example", 7))
    assert f"{1000 - TOLD} others; " in text
    assert text.count("refused") == TOLD


def test_a_timeout_says_who_has_not_answered() -> None:
    attempts = Attempts([info("::1"), info("1.1.1.1")])
    plain = TimeoutError("connecting took too long")
    first = attempts.next(0.0)
    assert first is not None
    assert attempts.timed_out(plain) is plain
    attempts.next(1.0)
    attempts.failed(first, REFUSED)
    assert str(attempts.timed_out(plain)) == (
        "connecting took too long: ::1 port 7: refused; 1.1.1.1 port 7: no answer"
    )


@pytest.mark.parametrize("delay", [0.0, 0.099, 2.001, float("nan"), -1.0])
def test_a_delay_that_the_rfc_advises_against_is_refused(delay: float) -> None:
    with pytest.raises(ValueError, match=r"attempt_delay=.*from 0\.1 to 2\.0 s"):
        Target("meters.example", 7, attempt_delay=delay)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("fe80::1%lo", True),
        ("localhost", False),
        ("", False),
        ("a\0b", False),
        ("127.0.0.1%lo", False),
    ],
)
def test_an_address_is_told_from_a_name(host: str, is_one: bool) -> None:
    assert is_address(host) is is_one


# The race.


class Clock:
    """A `packetcore_sockets.Loop` without sockets, whose time a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object]) -> object:
        return self.call_at(self.now, callback)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(self._timers, when, callback)
        self._timers.append(timer)
        return timer

    def set_reader(self, sock: socket.socket, callback: Callable[[], object] | None) -> None:
        raise AssertionError("nothing is read here")

    set_writer = set_reader

    def run(self, until: float) -> None:
        """Let time pass."""
        while due := [timer for timer in self._timers if timer.when <= until]:
            timer = min(due, key=lambda timer: timer.when)
            self._timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.callback()
        self.now = until

    @property
    def timers(self) -> int:
        return len(self._timers)


class Timer:
    def __init__(self, timers: list[Timer], when: float, callback: Callable[[], object]) -> None:
        self._timers = timers
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        if self in self._timers:
            self._timers.remove(self)


class Course:
    """A race to made-up addresses, and all that it did, with the time since its beginning.

    Args:
        answers: for each address after how many seconds it answers, `None` for never, and with what.
    """

    def __init__(self, **answers: tuple[float | None, str | Exception]) -> None:
        self.clock = Clock()
        self.log: list[str] = []
        self.told: list[object] = []
        self._answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self._infos = [info(f"10.0.0.{n}") for n in range(len(answers))]
        self._names = dict(zip(self._infos, self._answers, strict=True))
        self.race = Race[str](self.clock, Attempts(self._infos), self._attempt, self.told.append, self._discard)

    def _attempt(self, info: AddressInfo, done: Callable[[Any], object]) -> Handle:
        name = self._names[info]
        after, result = self._answers[name]
        self._note(f"try {name}")
        if after == 0 and isinstance(result, Exception):
            raise result
        timer = None if after is None else self.clock.call_at(self.clock.now + after, lambda: done(result))
        return _Tried(self, name, timer)

    def _discard(self, result: str) -> None:
        self._note(f"discard {result}")

    def _note(self, text: str) -> None:
        self.log.append(f"{self.clock.now - 100:.2f} {text}")


class _Tried:
    def __init__(self, course: Course, name: str, timer: Timer | None) -> None:
        self._course = course
        self._name = name
        self._timer = timer

    def cancel(self) -> None:
        self._course._note(f"close {self._name}")
        if self._timer is not None:
            self._timer.cancel()


def test_beside_an_address_that_never_answers_the_next_is_tried_after_the_delay() -> None:
    course = Course(a=(None, ""), b=(0.02, "B"))
    course.clock.run(200)
    assert course.told == ["B"]
    assert course.log == ["0.00 try a", "0.25 try b", "0.27 close a"]
    assert course.clock.timers == 0


def test_after_a_refusal_the_next_address_is_tried_at_once() -> None:
    course = Course(a=(0.01, REFUSED), b=(0.01, "B"))
    course.clock.run(200)
    assert course.told == ["B"]
    assert course.log == ["0.00 try a", "0.01 try b"]


def test_of_two_slow_ones_the_first_to_answer_wins_and_the_other_is_closed() -> None:
    course = Course(a=(0.4, "A"), b=(0.2, "B"), c=(9.0, "C"))
    course.clock.run(200)
    assert course.told == ["A"]
    assert course.log == ["0.00 try a", "0.25 try b", "0.40 close b"]


def test_where_an_attempt_cannot_even_begin_the_next_does_so_in_the_same_turn() -> None:
    course = Course(a=(0, OSError(ENETUNREACH, "no way")), b=(0, OSError(ENETUNREACH, "no way")), c=(0.01, "C"))
    assert course.log == ["0.00 try a", "0.00 try b", "0.00 try c"]
    course.clock.run(200)
    assert course.told == ["C"]


def test_when_all_have_failed_that_is_told_once() -> None:
    course = Course(a=(0.4, REFUSED), b=(0.01, REFUSED), c=(0.01, REFUSED))
    course.clock.run(200)
    assert course.told == [None]
    assert course.log == ["0.00 try a", "0.25 try b", "0.26 try c"]


def test_what_is_no_refusal_ends_the_race() -> None:
    wrong = TypeError("a port is a number")
    course = Course(a=(None, ""), b=(0.0, wrong), c=(0.0, "C"))
    course.clock.run(200)
    assert course.told == [wrong]
    assert course.log == ["0.00 try a", "0.25 try b", "0.25 close a"]


def test_a_race_that_is_given_up_closes_all_and_tells_nobody() -> None:
    course = Course(a=(None, ""), b=(1.0, "B"), c=(1.0, "C"), d=(1.0, "D"))
    course.clock.run(100.6)
    course.race.cancel()
    course.race.cancel()
    assert sorted(line for line in course.log if "close" in line) == ["0.60 close a", "0.60 close b", "0.60 close c"]
    course.race._answered(info("10.0.0.1"), "B")  # as a loop does that has found it ready in the same turn
    assert course.log[-1] == "0.60 discard B"
    course.clock.run(200)
    assert course.told == []
    assert course.clock.timers == 0


def test_a_dial_that_runs_out_of_time_names_who_did_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[AddressInfo] = []

    class Silent:
        def __init__(self, loop: object, info: AddressInfo, done: object) -> None:
            self._info = info

        def cancel(self) -> None:
            cancelled.append(self._info)

    monkeypatch.setattr("packetcore_sockets._dial.Connecting", Silent)
    clock, told = Clock(), list[Any]()
    infos = [info("10.0.0.1"), info("10.0.0.2"), info("10.0.0.3")]

    def look_up(done: Callable[[Found], object], *args: object) -> None:
        clock.call_soon(lambda: done(infos))

    def begin(*args: Any) -> Session[Any]:
        raise AssertionError("nobody has answered")

    endpoint = Endpoint(Handler(), Config(connect_timeout=0.6))
    dial = Dial(clock, endpoint, Target("meters.example", 7, attempt_delay=0.5), look_up, begin, told.append)
    clock.run(200)
    dial.cancel()
    (error,) = told
    assert isinstance(error, TimeoutError)
    assert str(error).endswith("connect_timeout=0.6 s: 10.0.0.1 port 7: no answer; 10.0.0.2 port 7: no answer")
    assert sorted(cancelled) == infos[:2]


# Over sockets.


@pytest.fixture
def scoped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What made-up sockets are connected to."""
    connected: list[Any] = []

    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            connected.append(address)
            raise OSError(ENETUNREACH, "no way")

    monkeypatch.setattr(socket, "socket", Socket)
    return connected


def test_the_scope_of_an_address_reaches_the_socket(scoped: list[Any]) -> None:
    with pytest.raises(OSError, match="no way"):
        Connecting(Clock(), info("fe80::1", 7, 0, 3), print)
    assert scoped == [("fe80::1", 7, 0, 3)]
    assert address_text(scoped[0]) == "fe80::1%3 port 7"


def new_reactor() -> Any:
    untyped: Any = MemoryReactorClock
    reactor = untyped()
    reactor.nameResolver = Resolver()
    return reactor


class Resolver:
    """A reactor's, that knows one name; it answers at once."""

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0) -> None:  # noqa: N802, N803
        receiver.resolutionBegan(self)
        if hostName == "meters.example":
            receiver.addressResolved(IPv6Address("TCP", "fe80::1", portNumber, 0, 3))
            receiver.addressResolved(IPv6Address("TCP", "fe80::2", portNumber, 0, 3))
            receiver.addressResolved(IPv4Address("TCP", "10.0.0.1", portNumber))
        receiver.resolutionComplete()


def test_on_a_reactor_of_twisted_connectors_are_given_the_same_order_and_delay_and_the_scope() -> None:
    reactor = new_reactor()
    told: list[Any] = []
    dial = Reactor(reactor).dialler("meters.example", 7)
    begun = dial(Endpoint(Handler(), Config(connect_timeout=None)), told.append)
    tried: list[list[str]] = []
    for wait in (0, ATTEMPT_DELAY - 0.01, 0.01, ATTEMPT_DELAY):
        reactor.advance(wait)
        tried.append([client[0] for client in reactor.tcpClients])
    assert tried == [
        ["fe80::1%3"],
        ["fe80::1%3"],
        ["fe80::1%3", "10.0.0.1"],
        ["fe80::1%3", "10.0.0.1", "fe80::2%3"],
    ]
    begun.cancel()
    assert [connector.stoppedConnecting for connector in reactor.connectors] == [True, True, True]
    assert told == []


@pytest.mark.parametrize("host", ["ä" * 64, "unknown.example"])
def test_on_a_reactor_of_twisted_a_name_without_addresses_is_an_error(host: str) -> None:
    reactor = new_reactor()
    kind = ValueError if len(host) == 64 else OSError
    with pytest.raises(kind, match=f"{host[:3]}"):
        addresses_of(reactor, host, 7).send(None)


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.Loop], ids=["asyncio", "uvloop"])
def named_loop(request: pytest.FixtureRequest) -> Any:
    """A loop that knows one name, whose addresses are the test's."""

    class Named(request.param):  # type: ignore[misc, name-defined]
        addresses: tuple[str, ...] = ()

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[AddressInfo]:
            if host != "meters.example":
                found: list[AddressInfo] = await super().getaddrinfo(host, port, **options)
                return found
            return [info(address, port) for address in self.addresses]

    loop = Named()
    yield loop
    loop.close()


def black_hole(cleanup: ExitStack, host: str, port: int) -> None:
    """Have an address whose attempts to connect get no answer: its accept queue is full."""
    deaf = cleanup.enter_context(socket.create_server((host, port), backlog=0))
    for _ in range(4):
        clog = cleanup.enter_context(socket.socket())
        clog.setblocking(False)
        clog.connect_ex(deaf.getsockname())


def test_on_each_event_loop_a_deaf_address_costs_a_delay_and_no_more(named_loop: Any) -> None:
    async def main() -> float:
        async with await serve(Handler()) as server:
            port = server.address[1]
            black_hole(cleanup, "127.0.0.2", port)
            before = named_loop.time()
            async with await connect("meters.example", port, attempt_delay=0.1) as stream:
                assert stream.session.peer == ("127.0.0.1", port)
                await stream.send(Packet(1, b""))
            return float(named_loop.time() - before)

    named_loop.addresses = ("127.0.0.2", "127.0.0.1")
    with ExitStack() as cleanup:
        assert 0.1 <= named_loop.run_until_complete(main()) < 1


def test_on_each_event_loop_a_dial_that_is_cancelled_leaves_no_socket(named_loop: Any) -> None:
    made: list[socket.socket] = []

    class Socket(socket.socket):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if self.family == socket.AF_INET:
                made.append(self)

    async def main() -> None:
        connecting = asyncio.ensure_future(connect("meters.example", port, attempt_delay=0.1))
        while len(made) < 2:
            await asyncio.sleep(0.01)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.wait_for(closed(), DEADLINE)

    async def closed() -> None:
        while any(sock.fileno() >= 0 for sock in made):
            await asyncio.sleep(0.01)

    named_loop.addresses = ("127.0.0.2", "127.0.0.3")
    with ExitStack() as cleanup, pytest.MonkeyPatch.context() as patch:
        free = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = free.getsockname()[1]
        black_hole(cleanup, "127.0.0.2", port)
        black_hole(cleanup, "127.0.0.3", port)
        patch.setattr(socket, "socket", Socket)
        named_loop.run_until_complete(main())


def test_on_each_event_loop_an_error_names_each_address(named_loop: Any) -> None:
    named_loop.addresses = ("127.0.0.2", "127.0.0.3")
    with socket.socket() as unused:
        unused.bind(("", 0))
        port = unused.getsockname()[1]
        text = f"127.0.0.2 port {port}: Connection refused; 127.0.0.3 port {port}: Connection refused"
        with pytest.raises(ConnectionRefusedError, match=text):
            named_loop.run_until_complete(connect("meters.example", port))


# What a server listens on.


def test_hosts_are_looked_up_one_by_one_and_no_address_means_both_families() -> None:
    assert hosts_of(None) == hosts_of("") == [""]
    assert hosts_of(["a", "b"]) == ["a", "b"]
    assert names_of("") == [None]
    assert names_of("::") == ["::", "0.0.0.0"]
    assert names_of("0::0") == ["0::0", "0.0.0.0"]
    assert names_of("::1") == ["::1"]
    assert names_of("0.0.0.0") == ["0.0.0.0"]


@pytest.mark.parametrize(("host", "kind"), [([], ValueError), ([7], TypeError), (7, TypeError), ([None], TypeError)])
def test_what_is_no_host_is_refused(host: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        hosts_of(host)


def test_a_connection_that_comes_when_the_race_is_won_is_closed() -> None:
    late = socket.socket()
    discard((late, ("192.0.2.1", 5000)))
    assert late.fileno() == -1
