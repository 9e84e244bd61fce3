"""What every part asks of a reactor."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.base import ReactorBase
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from packetcore import Endpoint
from packetcore_sockets import AddressInfo

_log = Logger(namespace="packetcore")


def log_failure(message: str) -> None:
    """Log an exception that is being handled, as Twisted does."""
    _log.failure("{message}", message=message)


def the_reactor(reactor: Any) -> Any:
    """The one given, or the global one."""
    if reactor is None:
        from twisted.internet import reactor  # not before: importing it is choosing it
    return reactor


def clock_of(reactor: Any) -> Callable[[], float]:
    """What tells the time that sessions are given. A reactor's own is the wall clock, which steps
    when the machine resumes or is set; a clock that a test has made up rules.

    A timer of the reactor that fires early by this one is set again. One that fires late, after the
    wall clock was set back, is made up for with the next thing that happens to its session.
    """
    is_wall_clock = isinstance(reactor, ReactorBase) and "seconds" not in vars(reactor)
    return monotonic if is_wall_clock and type(reactor).seconds is ReactorBase.seconds else reactor.seconds


class Timers:
    """Timers of a reactor that never fire early by `clock_of`: what Twisted asks of an
    `IReactorTime` to limit how long a Deferred takes."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._time = clock_of(reactor)

    def callLater(self, delay: float, function: Callable[[], object]) -> Timer:  # noqa: N802
        return Timer(self._reactor, self._time, self._time() + delay, function)


class Timer:
    """One of them."""

    def __init__(self, reactor: Any, time: Callable[[], float], at: float, function: Callable[[], object]) -> None:
        self._reactor = reactor
        self._time = time
        self._at = at
        self._function = function
        self._begin()

    def active(self) -> bool:
        """Whether it will fire yet."""
        return bool(self._call.active())

    def cancel(self) -> None:
        """Have it not fire."""
        self._call.cancel()

    def _begin(self) -> None:
        self._call = self._reactor.callLater(max(0, self._at - self._time()), self._look)

    def _look(self) -> None:
        if self._time() < self._at:
            self._begin()
        else:
            self._function()


def tie(endpoint: Endpoint, reactor: Any, on_ended: Callable[[BaseException], object] | None = None) -> None:
    """Let `call_soon` reach the sessions of an endpoint from any thread.

    Args:
        on_ended: called with the `SystemExit` or `KeyboardInterrupt` of a handler, once its sessions
            are over; by default the reactor is stopped.
    """
    if hasattr(reactor, "callFromThread"):  # else it is a clock, for tests
        endpoint.runs_by(reactor.callFromThread)
    endpoint.on_ended = on_ended or partial(stop, reactor)


def stop(reactor: Any, error: BaseException) -> None:
    """Stop a reactor, if it runs, and log why: nothing public has it exit with a code."""
    _log.critical("a handler ended the program: {error!r}", error=error)
    if getattr(reactor, "running", False):
        reactor.callLater(0, reactor.stop)


async def look_up(
    reactor: Any, host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
) -> Sequence[AddressInfo]:
    """The addresses of a host, as `getaddrinfo` gives them; a thread waits for those of a name."""
    if host is None or isIPAddress(host) or isIPv6Address(host):
        return socket.getaddrinfo(host, port, type=kind, flags=flags)
    pool = reactor.getThreadPool()
    found: Sequence[AddressInfo] = await deferToThreadPool(
        reactor, pool, socket.getaddrinfo, host, port, type=kind, flags=flags
    )
    return found
