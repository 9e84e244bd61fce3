"""One more runtime: a loop and a machine for each program, on a clock that all of them share.

A turn of a loop takes no time, whatever is done in it, unless the host is paused. It looks at sockets first,
then at timers, then at what was to be called soon, as loops do.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from heapq import heappop, heappush
from math import inf
from sys import exc_info
from traceback import format_exception_only, format_tb
from typing import Any

from packetcore import Address, Endpoint, Handle, Handler, Session
from packetcore_conformance.simulation._machine import DatagramEnd, End, ListeningEnd, Machine, StreamEnd, Wires
from packetcore_conformance.simulation._watch import Watch
from packetcore_conformance.simulation._world import World
from packetcore_sockets import AddressInfo, Found, Records, Runtime, Task, is_address, open_each

Callback = Callable[[], object]

TURNS_AT_ONCE = 16
"""Turns that a host takes before others have theirs in the same instant."""

current: ContextVar[Host] = ContextVar("packetcore_conformance.simulation.current")
"""The host whose program this is."""


class Timer:
    """Something to be called at a time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Call it off. Idempotent."""
        self.callback = None


class Host(Runtime):
    """A machine and the program that runs on it.

    Args:
        world: when.
        wires: what it is reached by.
        watch: what sees to it that promises are kept.
        name: how others find it.
        addresses: of IPv4, the first of which it connects from.
    """

    def __init__(self, world: World, wires: Wires, watch: Watch, name: str, addresses: Sequence[str]) -> None:
        self.name = name
        self.machine = Machine(world, name, tuple(addresses), self._notice)
        self.names: dict[str, tuple[str, ...]] = {}
        """The addresses of all hosts."""
        self.pools: list[Any] = []
        """The pools of connections that its program has made."""
        self.endpoints: list[Endpoint[Any]] = []
        """The endpoints that it has had since it was started."""
        self.random = world.chance(f"host {name}").random
        self._world = world
        self._wires = wires
        self._watch = watch
        self._program: Callable[[], Coroutine[Any, Any, object]] | None = None
        self._tasks: dict[Task, Coroutine[Any, Any, object]] = {}
        self._held: dict[Callback, None] = {}
        self._soon: deque[Callback] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._noticed: dict[End, None] = {}
        self._due = inf
        self._paused_until = 0.0
        self.is_running = True
        """Whether its program runs."""
        self.life = 0
        """How often that was killed."""

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    # What a simulation does with it.

    def run(self, program: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a program: now, and from its beginning whenever the host is started again. What it raises ends the
        simulation.

        Args:
            program: an `async def` function without arguments.
        """
        self._program = program
        self._begin()

    def pause(self, seconds: float) -> None:
        """Do nothing for a while, as a process that is stopped or waits for memory: its system goes on."""
        self._world.tell(self.name, f"is paused for {seconds:.6f} s")
        self._paused_until = max(self._paused_until, self._world.now + seconds)
        self._watch.late(self, self._paused_until)

    def crash(self, seconds: float = 1.0) -> None:
        """Kill the program: its system closes its sockets. It is started again after some seconds."""
        if self.is_running:
            self._world.tell(self.name, f"crashes for {seconds:.6f} s")
            self._stop(lambda sock: sock.close(), seconds)

    def lose_power(self, seconds: float = 1.0) -> None:
        """Lose everything without a word to anybody; then begin anew. Who still sends to what was there hears a
        reset then."""
        if self.is_running:
            self._world.tell(self.name, f"loses power for {seconds:.6f} s")
            self.machine.is_up = False
            self._stop(lambda sock: sock.vanish(), seconds)

    def end_tasks(self) -> None:
        """End all that its program waits in: the simulation is over."""
        self.is_running = False
        for coroutine in [*self._tasks.values()]:
            _kill(coroutine)
        self._tasks.clear()

    def limit_sockets(self, seconds: float, most: int = 0) -> None:
        """Have no descriptors for more sockets than this for a while."""
        self._world.tell(self.name, f"has no descriptors for {seconds:.6f} s")
        self.machine.most_sockets = most
        self._world.at(self._world.now + seconds, self._lift_limit)

    def watched(self, handler: Handler[Any]) -> Handler[Any]:
        """A handler that is held to what every handler is promised."""
        return self._watch.handler(handler, self)

    @property
    def leftovers(self) -> list[str]:
        """What its program has not ended."""
        timers = sum(timer.callback is not None for *_, timer in self._timers)
        counted = {
            "sockets": len(self.machine.sockets),
            "tasks": len(self._tasks),
            "timers": timers,
            "servers, clients or pools": len(self._held),
            "sessions": sum(len(endpoint.sessions) for endpoint in self.endpoints),
            "connections in pools": sum(pool.size + pool.waiting for pool in self.pools),
        }
        return [f"{self.name} has {count} {what} at the end" for what, count in counted.items() if count]

    # The five verbs.

    def time(self) -> float:
        return self._world.now

    def call_soon(self, callback: Callback) -> None:
        if self.is_running:
            self._soon.append(callback)
            self._wake(self._world.now)

    def call_at(self, when: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        if self.is_running:
            self._count += 1
            heappush(self._timers, (when, self._count, timer))
            self._wake(when)
        return timer

    def set_reader(self, sock: Any, callback: Callback | None) -> None:
        sock.reader = callback
        if callback is not None:
            sock.read_since = self._world.now
            sock.watch()

    def set_writer(self, sock: Any, callback: Callback | None) -> None:
        sock.writer = callback
        if callback is not None:
            sock.watch()

    # What a runtime may do in its own way.

    def spawn(self, coroutine: Coroutine[Any, Any, object], done: Callable[[], object]) -> Handle:
        def over() -> None:
            self._tasks.pop(task, None)
            done()

        before = current.set(self)
        try:
            task = Task(coroutine, self.call_soon, over)
        finally:
            current.reset(before)
        self._tasks[task] = coroutine
        return task

    def bind(self, endpoint: Endpoint[Any]) -> None:
        super().bind(endpoint)
        self.endpoints.append(endpoint)

    def begin(self, endpoint: Endpoint[Any], sock: Any, peer: Address, tls: Records | None) -> Session[Any]:
        session = super().begin(endpoint, sock, peer, tls)
        sock.session = session
        self._watch.carried(session, sock, tls is None)
        return session

    def hold(self, end: Callback) -> None:
        self._held[end] = None

    def release(self, end: Callback) -> None:
        self._held.pop(end, None)

    def look_up(
        self, done: Callable[[Found], object], host: str | None, port: int, kind: socket.SocketKind, flags: int = 0
    ) -> None:
        addresses = (host or "0.0.0.0",) if is_address(host or "0.0.0.0") else self._known(host or "")
        infos = [(int(socket.AF_INET), int(kind), 0, "", (address, port)) for address in addresses]
        found: Found = infos or socket.gaierror(socket.EAI_NONAME, f"no host has the name {host!r}")
        self.call_soon(lambda: done(found))

    def new_socket(self, family: int, kind: int, protocol: int) -> Any:
        sock = StreamEnd(self._wires, self.machine)
        self.machine.own(sock)
        return sock

    def open_tcp_listeners(self, infos: Sequence[AddressInfo], port: int, backlog: int = 128) -> Any:
        def listen(family: int, address: Address) -> Any:
            return ListeningEnd(self._wires, self.machine, address[0], address[1], backlog)

        return open_each(infos, port, listen)

    def open_udp_servers(self, infos: Sequence[AddressInfo], port: int, **options: Any) -> Any:
        _refuse(options)

        def bind(family: int, address: Address) -> Any:
            return DatagramEnd(self._wires, self.machine, address[0], address[1])

        return open_each(infos, port, bind)

    def open_udp_client(self, infos: Sequence[AddressInfo], **options: Any) -> Any:
        _refuse(options)
        address = infos[0][4]
        return DatagramEnd(self._wires, self.machine, "0.0.0.0", 0, address), address, True

    def log_exception(self, message: str) -> None:
        kind, error, traceback = exc_info()
        where = "".join(format_tb(traceback)[-1:]).strip()
        what = "".join(format_exception_only(kind, error)).strip()
        self._watch.failed(self.name, f"{message}: {what}, {where}" if error is not None else message)

    # Its turns.

    def _notice(self, sock: End) -> None:
        if self.is_running:
            self._noticed[sock] = None
            self._wake(self._world.now)

    def _wake(self, when: float) -> None:
        if when < self._due:
            self._due = when
            self._world.at(when, self._run)

    def _run(self) -> None:
        """Take turns until there is nothing to do now."""
        now = self._world.now
        if now < self._due:
            return  # it was called for earlier
        if now < self._paused_until:
            self._due = inf
            self._wake(self._paused_until)
            return
        self._due = now  # it need not be woken
        current.set(self)
        for _ in range(TURNS_AT_ONCE):
            self._turn(now)
            if not (self._soon or self._noticed):
                break
        self._due = inf
        if self._soon or self._noticed:
            self._wake(now)
            return
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if timers:
            self._wake(timers[0][0])

    def _turn(self, now: float) -> None:
        if self._noticed:
            noticed, self._noticed = self._noticed, {}
            for sock in noticed:
                sock.serve()
        timers, last = self._timers, self._count
        while timers and timers[0][0] <= now and timers[0][1] <= last:  # those set meanwhile have their turn later
            callback = heappop(timers)[2].callback
            if callback is not None:
                callback()
        soon = self._soon
        for _ in range(len(soon)):
            if soon:  # else a callback has ended the program
                soon.popleft()()

    # Its program.

    def _begin(self) -> None:
        program = self._program
        if program is None:
            return

        async def run() -> None:
            try:
                await program()
            except Exception:
                self.log_exception(f"the program of {self.name} raised")

        self.spawn(run(), lambda: None)

    def _stop(self, end: Callable[[End], object], seconds: float) -> None:
        self.is_running = False
        self.life += 1
        self._watch.forget(self)
        for sock in [*self.machine.sockets]:
            for waiting in getattr(sock, "waiting", ()):
                end(waiting)
            end(sock)
        self.machine.sockets.clear()
        self.machine.ports.clear()
        for coroutine in [*self._tasks.values()]:
            _kill(coroutine)
        for dead in (self._tasks, self._held, self._soon, self._timers, self._noticed, self.endpoints, self.pools):
            dead.clear()
        vars(self).pop("socket_timers", None)
        self._world.at(self._world.now + seconds, self._restart)

    def _restart(self) -> None:
        if self.is_running:
            return
        self._world.tell(self.name, "starts")
        self.is_running = self.machine.is_up = True
        for path in self._wires.paths:
            for client in [*path.connections]:
                for sock in (client, client.peer):
                    if sock is not None and sock.machine is self.machine and sock.is_closed:
                        sock.expect()
        self._begin()

    def _lift_limit(self) -> None:
        self.machine.most_sockets = None

    def _known(self, name: str) -> tuple[str, ...]:
        return ("127.0.0.1",) if name == "localhost" else self.names.get(name, ())


class Killed(BaseException):
    """What a program that is killed raises where it waits, so that it lets go of all that it has."""


def _kill(coroutine: Coroutine[Any, Any, object]) -> None:
    with suppress(BaseException):  # what it does at its end finds nothing any more
        for _ in range(10):  # it may wait in its turn
            coroutine.throw(Killed())


def _refuse(options: dict[str, Any]) -> None:
    wanted = {name: value for name, value in options.items() if value}
    if wanted:
        raise ValueError(f"{wanted}: the simulated network knows neither broadcast nor multicast")
